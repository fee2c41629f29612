"""Coresets: gradients of a real small model, the choice on data whose clusters are known, and the command."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_cli
import torch
from fabricate import make_record, make_run
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny

import boost_qa
from boost_qa.contents import survey
from boost_qa.coreset.choose import Settings, choose
from boost_qa.coreset.features import features
from boost_qa.coreset.gradients import SIZE, Gradients
from boost_qa.coreset.selection import pursue, select, shares
from boost_qa.errors import ModelError, RunError
from boost_qa.run_folder import dump
from boost_qa.star_agents.scorer import Scorer
from boost_qa.types import Record

command = test_cli.command

# --- selection -----------------------------------------------------------------------------------


def around(centre: int, rows: int, seed: int, spread: float = 0.05, size: int = 16) -> np.ndarray:
    found = np.random.default_rng(seed).normal(0, spread, (rows, size))
    found[:, centre] += 1
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.floats(0, 1))
def test_a_count_is_shared_out_by_size(sizes, part):
    count = round(part * sum(sizes))
    found = shares(sizes, count)
    assert sum(found) == count and all(0 <= share <= size for share, size in zip(found, sizes, strict=True))
    exact = [count * size / sum(sizes) for size in sizes]
    assert all(abs(share - of) < 1 for share, of in zip(found, exact, strict=True))


def test_every_cluster_gives_its_share():
    vectors = np.concatenate([around(0, 60, 1), around(5, 30, 2), around(9, 10, 3)]).astype(np.float32)
    found = select(vectors, 20, clusters=3, seed=0)
    assert Counter(at // 60 + (at >= 90) for at in found) == {0: 12, 1: 6, 2: 2}
    assert len(set(found)) == 20 and found == select(vectors, 20, clusters=3, seed=0)
    assert select(vectors, 100) == list(range(100)) and select(vectors, 0) == []
    assert len(set(select(vectors, 99, clusters=100))) == 99


def test_the_first_of_a_cluster_points_to_its_middle_and_the_next_to_what_is_missing():
    east, north = np.eye(4)[:2]
    vectors = np.array([east, east, east, north, (east + north) / 2**0.5, -east])
    first, second, *_ = pursue(vectors, 3)
    assert first == 4 and second == 0, "the diagonal is nearest to the mean; then east is what lacks"
    assert sorted(pursue(vectors, 6)) == list(range(6)), "also who points away, if all are wanted"


@given(st.integers(0, 10**6), st.integers(1, 25))
def test_pursuit_solves_the_problem_it_says(seed, count):
    """Each row is the best next one, by weights that are fitted from the beginning."""
    vectors = around(0, 25, seed, spread=0.4, size=8)
    target = vectors.mean(axis=0)
    found = pursue(vectors, count)
    assert len(set(found)) == count == len(found)
    for place in range(min(count, 6)):
        chosen = vectors[found[:place]]
        ridge = np.eye(place) * (place > 1)  # as in the authors' code: a first row alone is fitted without it
        weights = np.linalg.solve(chosen @ chosen.T + ridge, chosen @ target)
        pull = vectors @ (target - chosen.T @ weights)
        pull[found[:place]] = -np.inf
        if pull.max() <= 1e-9:  # it begins again
            break
        assert pull[found[place]] == pytest.approx(pull.max(), abs=1e-9)


# --- gradients -----------------------------------------------------------------------------------

RECORDS = [
    make_record(1),
    Record("s:2", "s", "Why?", "Because the sum of twelve apples and three is fifteen, as we know.", "2"),
    Record("s:3", "s", "What is a word? " * 40, "It is what stands between two spaces.", "3"),
    Record("s:4", "s", "Say nothing.", "  ", "4"),
    Record("s:5", "s", "Say a lot.", "One after the other. " * 200, "5"),
]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def scorer(request, tmp_path_factory) -> Scorer:
    folder = tiny(request.param, tmp_path_factory.mktemp(request.param), initializer_range=0.2)
    return Scorer(str(folder), dtype="float32", max_tokens=256, batch_tokens=512)


@pytest.fixture(scope="module")
def vectors(scorer) -> np.ndarray:
    return Gradients(scorer)(RECORDS)


def whole(scorer: Scorer, layers, record: Record) -> list:
    """The gradients of the layers' weights, by torch itself."""
    row = scorer.typeset((record.question, record.answer)).cut(256)
    ids, first = torch.tensor([row.conditioned]), len(row.conditioned) - len(row.answer)
    weights = [layer.weight.requires_grad_() for layer in layers]
    logits = scorer.model(input_ids=ids, use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[first - 1 : -1], ids[0, first:])
    found = torch.autograd.grad(loss, weights)
    scorer.model.requires_grad_(False)
    return found


def test_vectors_are_the_projected_gradients_of_the_weights(scorer):
    records = [*RECORDS[:3], replace(RECORDS[1], answer=RECORDS[1].answer + " So it is.")]
    gradients = Gradients(scorer)
    vectors = gradients(records)
    layers, inside, outside = zip(*gradients._layers, strict=True)
    assert len(layers) == 14, "seven in each of two layers; not the head"
    exact = [whole(scorer, layers, record) for record in records]
    projected = [sum(o.T @ g @ i for i, o, g in zip(inside, outside, each, strict=True)).flatten() for each in exact]
    assert np.allclose(vectors, torch.nn.functional.normalize(torch.stack(projected)), atol=2e-5)
    flat = torch.nn.functional.normalize(torch.stack([torch.cat([g.flatten() for g in each]) for each in exact]))
    assert flat[1] @ flat[3] > 0.5 and np.allclose(vectors @ vectors.T, flat @ flat.T, atol=0.15), "angles are kept"


def test_vectors_have_length_one_and_do_not_depend_on_their_company(scorer, vectors):
    assert vectors.shape == (5, SIZE) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 1], atol=1e-5)
    alone = Gradients(scorer)
    for at in (4, 0, 3, 2):
        assert np.allclose(alone([RECORDS[at]])[0], vectors[at], atol=2e-5)
    assert not np.allclose(Gradients(scorer, seed=1)(RECORDS[:1])[0], vectors[0], atol=0.1)
    assert all(weight.grad is None for weight in scorer.model.parameters())


def test_a_model_without_numbers_is_refused(scorer):
    broken = Gradients(scorer)
    weight = broken._layers[0][0].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    try:
        with pytest.raises(ModelError, match="no numbers"):
            broken(RECORDS[:1])
    finally:
        with torch.no_grad():
            weight.copy_(kept)


# --- a run ---------------------------------------------------------------------------------------


def fake(records) -> np.ndarray:
    """Vectors that follow from the texts alone."""
    found = [np.random.default_rng(sum(record.id.encode())).normal(size=12) for record in records]
    return np.array([each / np.linalg.norm(each) for each in found], dtype=np.float32)


def loaded(settings, vectors=fake):
    return vectors, {"name": settings.model, "revision": "r1"}


def groups(run, config) -> Counter:
    contents = survey(run)
    return Counter((place.source, place.split) for place in contents.places(config))


def test_the_choice_is_served_with_as_many_of_each_source_and_split(tmp_path):
    run = make_run(tmp_path / "run")
    said: list[str] = []
    chosen = choose(run, Settings("m", clusters=3), said.append, loaded)
    written = json.loads(run.coreset_file.read_text("utf-8"))
    assert written["chosen"] == chosen and set(chosen) == {"sums", "more_sums"} and written["records"] == 80
    assert written["model"] == {"name": "m", "revision": "r1"}
    assert written["settings"] == {"clusters": 3, "seed": 0, "max_tokens": 2048}
    assert groups(run, "tagcos") == groups(run, "taught")
    data = boost_qa.load("tagcos", run=run.path, cache_dir=str(tmp_path / "cache"))
    ids = [id for ids in chosen.values() for id in ids]
    assert sorted(id for split in data.values() for id in split["id"]) == sorted(ids)
    assert set(data["train"]["scenario"]) == {"original"}
    assert any("gradients" in line for line in said) and any("choosing" in line for line in said)
    assert not list(run.path.rglob("*.part"))


def test_the_choice_does_not_depend_on_the_order_of_the_records(tmp_path):
    first, second = (make_run(tmp_path / name) for name in ("one", "two"))
    second.write_records(reversed(list(second.records())))
    chosen = [choose(run, Settings("m", clusters=4), load=loaded) for run in (first, second)]
    assert chosen[0] == chosen[1]


def test_vectors_are_kept_for_other_settings_of_the_choice_and_for_no_other_model(tmp_path):
    run, asked = make_run(tmp_path / "run"), []

    def counting(settings):
        return loaded(settings, lambda records: asked.append(len(records)) or fake(records))

    first = choose(run, Settings("m", clusters=2), load=counting)
    assert sum(asked) == 80
    assert choose(run, Settings("m", clusters=9), load=counting) != first and sum(asked) == 80
    choose(run, Settings("other"), load=counting)
    choose(run, Settings("m", seed=1), load=counting)
    assert sum(asked) == 240


def test_an_unfinished_or_busy_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not finished"):
        choose(make_run(tmp_path / "half", finished=False), Settings("m"), load=loaded)
    run = make_run(tmp_path / "run")
    with run.lock(), pytest.raises(RunError, match="another process"):
        choose(run, Settings("m"), load=loaded)
    assert not run.coreset_file.exists()


KILLED = f"""
import os, signal, sys
import numpy as np
from boost_qa.coreset import choose, features
from boost_qa.run_folder import RunFolder

{inspect.getsource(fake)}
blocks = iter(range(3))

def vectors(records):
    if next(blocks) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return fake(records)

whole = features.features
choose.features = lambda *args: whole(*args, block=16)
model = dict(name="m", revision="r1")
choose.choose(RunFolder(sys.argv[1]), choose.Settings("m"), load=lambda settings: (vectors, model))
"""


def test_after_a_kill_there_is_nothing_half_and_it_goes_on(tmp_path):
    run, root = make_run(tmp_path / "run"), Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", KILLED, str(run.path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not run.coreset_file.exists() and len(list(run.gradients.glob("*.npy"))) == 2
    records, asked = sorted(run.records(), key=lambda record: record.id), []

    def vectors(some):
        asked.extend(some)
        return fake(some)

    made_with = json.dumps([{"name": "m", "revision": "r1"}, 0, 2048], sort_keys=True)
    found = features(records, vectors, run.gradients, made_with, block=16)
    assert asked == records[32:] and np.array_equal(found, fake(records))


def test_records_that_a_check_keeps_out_are_not_chosen(tmp_path):
    run = make_run(tmp_path / "run", dialogues=8, validation=0)
    leaked = next(run.records()).id
    manifest = run.manifest() | {"checks": {"settings": {"drop": ["benchmark 8-gram"]}}}
    run.write_manifest(manifest)
    run.overlaps_file.write_text(
        json.dumps({"record": leaked, "scenario": "original", "label": "benchmark 8-gram"}) + "\n", encoding="utf-8"
    )
    lines = [line for line in run.dialogues() if line["record"]["id"] != leaked]  # as the run's checks make them leave
    run.dialogues_file.write_text("".join(dump(line) + "\n" for line in lines), encoding="utf-8", newline="\n")
    asked: list[str] = []

    def vectors(records):
        asked.extend(record.id for record in records)
        return fake(records)

    chosen = choose(run, Settings("m", clusters=2), load=lambda settings: (vectors, {"name": "m", "revision": "r1"}))
    assert leaked not in asked and len(asked) == 15
    assert leaked not in {id for ids in chosen.values() for id in ids}
    assert groups(run, "tagcos") == groups(run, "taught")


def test_the_command(command, tmp_path):
    folder = tiny("llama", tmp_path / "model", initializer_range=0.2)
    run = make_run(tmp_path / "run", dialogues=8)
    options = ("--model", folder, "--clusters", 2, "--max-tokens", 64, "--seed", 3)
    code, out, err = command("coreset", run.path, *options)
    assert code == 0 and "4 of sums" in out and "coreset.json" in out, err
    written = json.loads(run.coreset_file.read_text("utf-8"))
    assert (
        written["model"]["name"] == "model"
        and written["model"]["revision"]
        and str(tmp_path) not in json.dumps(written)
    )
    assert written["settings"] == {"clusters": 2, "seed": 3, "max_tokens": 64}
    assert groups(run, "tagcos") == groups(run, "taught")
    before = run.coreset_file.read_bytes()
    assert command("coreset", run.path, *options)[0] == 0 and run.coreset_file.read_bytes() == before
    code, _, err = command("coreset", run.path, "--model", "nothing-of-this-name")
    assert code == 2 and "nothing-of-this-name" in err
