"""Similar questions: exactly the nearest ones, whatever the order, the block size and the ties."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from boost_qa import models, retrieval
from boost_qa.config import Sample
from boost_qa.errors import ModelError
from boost_qa.retrieval import Embedder, neighbours, similar
from boost_qa.sources import read
from boost_qa.types import Record

# Quarters of small integers: their products are exact in float32, so that ties are ties.
EXACT = st.integers(-2, 2).map(lambda number: number / 4)


def vectors(rows) -> arrays.arrays:
    return arrays.arrays(np.float32, st.tuples(rows, st.just(4)), elements=EXACT)


def slowly(queries, pool, k: int, most: float = 1.0, least: float = -1.0) -> list[list[int]]:
    """The reference: every pair in float64, sorted by similarity and then by position."""
    found = []
    for query in queries.astype(np.float64):
        near = [(-float(query @ other), position) for position, other in enumerate(pool.astype(np.float64))]
        found.append([position for cosine, position in sorted(near) if least <= -cosine <= most][:k])
    return found


def unit(rng: np.random.Generator, rows: int, columns: int = 384) -> np.ndarray:
    drawn = rng.normal(size=(rows, columns)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def record(number: int | str, source: str = "s", question: str | None = None) -> Record:
    return Record(f"{source}:{number}", source, question or f"question {number}", "answer", str(number))


# --- similar -------------------------------------------------------------------------------------


@given(vectors(st.integers(1, 6)), vectors(st.integers(1, 12)), st.integers(1, 15))
def test_nearest_are_exact_with_ties_by_position(queries, pool, k):
    assert similar(queries, pool, k) == slowly(queries, pool, k)


@given(vectors(st.integers(1, 6)), vectors(st.integers(1, 12)), st.integers(1, 15), EXACT, EXACT)
def test_bounds_are_inclusive(queries, pool, k, one, other):
    least, most = sorted((one, other))
    assert similar(queries, pool, k, most, least) == slowly(queries, pool, k, most, least)


@given(vectors(st.integers(1, 9)), vectors(st.integers(1, 12)), st.integers(1, 5), st.integers(1, 5))
def test_blocks_do_not_show(queries, pool, k, rows):
    whole = similar(queries, pool, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "BLOCK_BYTES", 4 * len(pool) * rows)
        assert similar(queries, pool, k) == whole


def test_real_sizes_agree_with_float64():
    """300 queries against 2,000 vectors of 384 numbers; float32 may swap what differs by less than 1e-6."""
    rng = np.random.default_rng(0)
    queries, pool = unit(rng, 300), unit(rng, 2000)
    exact = queries.astype(np.float64) @ pool.astype(np.float64).T
    for row, near in zip(exact, similar(queries, pool, 5), strict=True):
        assert len(set(near)) == 5
        assert np.allclose(row[near], np.sort(row)[::-1][:5], atol=1e-6)


def test_copies_are_found_at_similarity_one_and_left_out_below():
    """The product of a vector with itself is often a little more than 1 in float32."""
    pool = unit(np.random.default_rng(1), 500)
    assert (np.einsum("ij,ij->i", pool, pool) > 1).any()
    assert [near[0] for near in similar(pool, pool, 1)] == list(range(500))
    assert [near[0] for near in similar(-pool, pool, 500)] != [] and all(
        len(near) == 500 for near in similar(-pool, pool, 500)
    )
    assert not any(place in near for place, near in enumerate(similar(pool, pool, 500, 0.95)))


def test_pool_without_anything_near_enough():
    pool = np.eye(4, dtype=np.float32)
    assert similar(pool[:1], pool[1:], 3, min_similarity=0.1) == [[]]
    assert similar(pool[:1], pool[:1], 3, max_similarity=0.5) == [[]]
    assert similar(pool[:0], pool, 3) == []


# --- neighbours ----------------------------------------------------------------------------------


class Spread:
    """Embeds `question 7` on a circle at 7 degrees: questions are similar as their numbers are."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts) -> np.ndarray:
        self.calls.append(list(texts))
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def found(records, pool, k=2, most=1.0, least=-1.0, across=False) -> dict[str, list[str]]:
    by_id = neighbours(records, pool, Spread(), k, most, least, across)
    return {id: [near.id for near in others] for id, others in by_id.items()}


def test_nearest_first_within_the_bounds():
    pool = [record(number) for number in (0, 10, 11, 20, 60, 90)]
    assert found([record(12)], pool, k=3) == {"s:12": ["s:11", "s:10", "s:20"]}
    assert found([record(12)], pool, k=3, most=np.cos(np.radians(1.5))) == {"s:12": ["s:10", "s:20", "s:0"]}
    assert found([record(12)], pool, k=9, least=np.cos(np.radians(9))) == {"s:12": ["s:11", "s:10", "s:20"]}
    assert found([record(12)], pool, k=9, most=0.1, least=0.0) == {"s:12": []}


def test_a_source_looks_at_itself_alone_unless_told():
    first = [record(10, "a"), record(10, "b"), record(10, "c")]
    pool = [record(11, "a"), record(12, "b"), record(13, "a"), record(14, "b")]
    assert found(first, pool) == {"a:10": ["a:11", "a:13"], "b:10": ["b:12", "b:14"], "c:10": []}
    assert found(first, pool, across=True) == {record.id: ["a:11", "b:12"] for record in first}


def test_a_record_is_no_neighbour_of_its_own():
    pool = [record(number) for number in (0, 1, 3, 7, 15)]
    assert found(pool, pool, k=9) == {
        mine.id: sorted(
            (other.id for other in pool if other is not mine), key=lambda id: (abs(int(id[2:]) - int(mine.id[2:])), id)
        )
        for mine in pool
    }
    assert all(len(near) == 2 and mine not in near for mine, near in found(pool, pool, k=2).items())


def test_a_copy_under_another_id_is_a_neighbour():
    assert found([record("a", question="q 1")], [record("b", question="q 1")]) == {"s:a": ["s:b"]}


@given(st.permutations(range(8)), st.permutations(range(8, 20)))
def test_order_does_not_matter(first, pool):
    ordered = found([record(n) for n in range(8)], [record(n) for n in range(8, 20)])
    assert found([record(n) for n in first], [record(n) for n in pool]) == ordered


@given(st.permutations([record(number, question="same 1") for number in range(10, 20)]))
def test_ties_go_to_the_lower_id(pool):
    near = found([record("x", question="same 1")], pool, k=3)
    assert near == {"s:x": ["s:10", "s:11", "s:12"]}


def test_nothing_is_embedded_for_nothing():
    embed = Spread()
    assert neighbours([record(1, "a")], [record(2, "b")], embed, 1, 1.0) == {"a:1": []}
    assert neighbours([], [record(2, "b")], embed, 1, 1.0) == {} and embed.calls == []


# --- the real embedder ---------------------------------------------------------------------------

# Records of the packaged sample that were written as near neighbours: the first has all others among its five nearest.
FAMILIES = [
    ("math-001", "math-002", "math-003"),  # work and flow rates
    ("math-002", "math-001"),
    ("math-003", "math-001", "math-002"),
    ("math-004", "math-005"),  # two that move towards or after each other
    ("math-007", "math-008"),  # mixtures
    ("math-010", "math-011"),  # percentages forwards and backwards
    ("math-012", "math-013", "math-014"),  # ages
    ("math-015", "math-016"),  # rectangles
    ("math-019", "math-020"),  # drawing without looking
    ("math-022", "math-021"),  # counting
    ("math-023", "math-024"),  # averages
    ("code-001", "code-007", "code-008"),  # shared lists in Python
    ("code-014", "code-015", "code-016"),  # lists and dictionaries
    ("code-019", "code-020", "code-021"),  # SQL
    ("code-022", "code-023"),  # bash
    ("general-002", "general-001", "general-003"),  # colours of light
    ("general-005", "general-006"),  # evaporation and condensation
    ("general-008", "general-009"),  # sun, moon and earth
    ("general-013", "general-015"),  # liars
    ("general-016", "general-017"),  # days of the week
    ("general-020", "general-021"),  # agreement of verbs
    ("general-023", "general-024"),  # plants
]


@pytest.fixture(scope="module")
def minilm() -> models.Model:
    return models.resolve("all-minilm-l6-v2")


@pytest.fixture(scope="module")
def sample() -> dict[str, Record]:
    records = read([Sample(source="sample")], 0).records
    return {record.source_id: record for record in records}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_neighbours_of_the_sample_are_those_it_was_written_for(minilm, sample, cache):
    records = sorted(sample.values(), key=lambda record: record.id)  # both sides alike: embedded once
    embed = Embedder(minilm.path, minilm.revision, cache)
    near = neighbours(records, records, embed, 5, 0.95)
    names = {sample_id: [other.source_id for other in near[record.id]] for sample_id, record in sample.items()}
    for one, *others in FAMILIES:
        assert set(others) <= set(names[one]), f"{one}: {names[one]}"
    assert all(id.split("-")[0] == other.split("-")[0] for id, others in names.items() for other in others)
    assert all(names.values()), "every record of the sample has an analogy"


def test_embeddings_have_length_one_and_their_dimension(minilm, cache):
    embed = Embedder(minilm.path, minilm.revision, cache)
    embedded = embed(["How many legs has a spider?", "", "x" * 5000, "Wie viele Beine? 🕷"])
    assert embedded.shape == (4, 384) and embedded.dtype == np.float32
    assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


def test_second_embedder_reads_the_cache_and_loads_no_model(minilm, cache):
    texts = ["one spider", "two spiders"]
    told: list[tuple[int, int]] = []
    first = Embedder(minilm.path, minilm.revision, cache, lambda done, total: told.append((done, total)))(texts)
    assert told == [(2, 2)]
    # a folder without a model: anything but the cache would fail
    again = Embedder(cache / "no model", minilm.revision, cache)
    assert np.array_equal(again(texts), first)
    with pytest.raises(ModelError, match="no model"):
        again(["three spiders"])
    with pytest.raises(ModelError, match="no model"):
        again([*reversed(texts)])
    with pytest.raises(ModelError, match="no model"):
        Embedder(cache / "no model", "another revision", cache)(texts)


def test_failed_embedding_leaves_no_cache_behind(minilm, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        Embedder(minilm.path, minilm.revision, tmp_path, stop)(["a", "b"])
    assert list(tmp_path.glob("*.npy")) == []
    assert Embedder(minilm.path, minilm.revision, tmp_path)(["a", "b"]).shape == (2, 384)
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_stopped_embedding_goes_on_after_its_last_chunk(minilm, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Stopped

    monkeypatch.setattr("boost_qa.retrieval.CHUNK", 2)
    texts = [f"{n} spiders" for n in range(5)]
    with pytest.raises(Stopped):
        Embedder(minilm.path, minilm.revision, tmp_path, stop)(texts)
    again = Embedder(minilm.path, minilm.revision, tmp_path)
    encode, asked = again._encode, []
    monkeypatch.setattr(again, "_encode", lambda some: asked.append(some) or encode(some))
    found = again(texts)
    assert asked == [texts[4:]]
    assert np.allclose(found, Embedder(minilm.path, minilm.revision, tmp_path / "anew")(texts), atol=1e-6)
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} <= {".npy", ".lock"}
    assert not list(tmp_path.glob("*.chunks"))


def test_folder_that_is_no_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=str(folder)):
            Embedder(folder, "r", tmp_path / "cache")(["text"])


def test_without_the_extra_the_command_is_named(tmp_path):
    """In a Python that has no sentence-transformers; here it is hidden from the import system."""
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "from pathlib import Path\n"
        "from boost_qa.errors import ModelError\n"
        "from boost_qa.retrieval import Embedder\n"
        "try: Embedder(Path('.'), 'r', Path(sys.argv[1]))(['a'])\n"
        "except ModelError as error: print(error.remedy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "boost_qa[retrieval]" in done.stdout
