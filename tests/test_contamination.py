"""Contamination and the benchmarks it is measured by, against plain comparisons of words."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import HubServer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_duplicates import dialogue

from boost_qa.checks import contamination
from boost_qa.checks.benchmarks import Item, read_benchmarks
from boost_qa.checks.contamination import GRAM, LABELS, LONG, Contamination, Hit, Index
from boost_qa.checks.words import END, tokens, words
from boost_qa.config import Benchmark
from boost_qa.errors import SourceError
from boost_qa.types import Dialogue, Record, Turn

TRAIN = (
    "A freight train leaves the harbour at dawn and crosses four valleys before noon. If it carries 1,250 crates and "
    "drops a fifth of them at every station, how many crates are left behind the third tunnel?"
)
SHORT = "What is 37 + 58?"
OTHER = "My neighbour keeps seven geese, and every goose lays an egg on each second day of the week but one."


def index(*texts: str, common: int = 10) -> Index:
    return Index([Item("bench", str(number), text) for number, text in enumerate(texts)], common)


def look(built: Index, text: str, share: float = 0.5) -> tuple[list[str], list[Hit]]:
    """Labels and hits for a generated turn."""
    check = Contamination(built, share)
    findings = check.look(dialogue("Why?", text))
    assert all(finding.label in LABELS and finding.turn == 1 for finding in findings)
    return [finding.label for finding in findings], check.hits


@pytest.mark.parametrize(
    "text",
    [
        "小明家有三个大果园，去年每个果园收获了苹果和梨子共一千二百筐，其中三分之一卖给了城里的商店，剩下的分给邻居和亲戚，请问还剩下多少筐水果？",
        "あるのうかのひとがはたけでとれたみかんをみっつのむらにおなじかずずつくばったあとでのこりをともだちにあげましたいくつのこりますか",
    ],
)
def test_a_near_copy_in_a_language_without_spaces_is_found(text):
    assert look(index(text), f"{text[:30]}其实{text[30:]}")[0] == ["benchmark 13-gram", "benchmark 8-gram"]


def test_single_letters_say_nothing():
    assert not index("a b c d e f g h i j k l m n o p \u03b1 \u00e9 \u0434").own[1:17].any()


# --- what is found, and where --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        TRAIN,
        TRAIN.upper(),
        TRAIN.replace(" ", "\n\n").replace(",", ""),
        TRAIN.replace("1,250", "1250.0"),
        TRAIN.replace("1,250", "$1{,}250$"),
        f"{OTHER} {TRAIN} {OTHER}",
        "Dear all: " + TRAIN.replace(".", " \u2014").replace("?", "\u2026"),
    ],
)
def test_a_question_is_found_in_every_form(text):
    labels, hits = look(index(OTHER + " It is warm.", TRAIN), text)
    assert labels == ["benchmark 13-gram", "benchmark 8-gram"] == list(LABELS)
    ours = [hit for hit in hits if hit.item == "1"]
    assert [(hit.n, hit.share, hit.where, hit.text) for hit in ours] == [
        (13, 1.0, "turn 1", " ".join(words(tokens(TRAIN)))),
        (8, 1.0, "turn 1", " ".join(words(tokens(TRAIN)))),
    ]


def test_every_place_is_looked_at_and_named():
    built = index(TRAIN)
    record, related = Record("s:1", "s", "Why?", "No.", ""), Record("s:2", "s", "Who?", "Me.", "")
    turns = tuple(Turn("student", "gpt", text) for text in ("One.", "Two.", "Three."))
    clean = Dialogue(record, "debate", turns, related)
    assert not Contamination(built).look(clean)

    def with_train(where: str) -> Dialogue:
        of, _, field = where.rpartition(" ")
        if of == "turn":
            new = [Turn("student", "gpt", TRAIN) if at == int(field) else turn for at, turn in enumerate(turns)]
            return Dialogue(record, "debate", tuple(new), related)
        new_record = Record(**{f: getattr(related if of else record, f) for f in Record.__slots__} | {field: TRAIN})
        return Dialogue(record if of else new_record, "debate", turns, new_record if of else related)

    for where in ("question", "answer", "related question", "related answer", "turn 0", "turn 2"):
        check = Contamination(built)
        findings = check.look(with_train(where))
        turn = int(where[-1]) if where.startswith("turn") else None
        assert [(one.label, one.turn) for one in findings] == [(label, turn) for label in LABELS]
        assert all(one.detail.startswith(f"{where}: 100% of bench 0: a freight train") for one in findings)
        assert {(hit.record, hit.scenario, hit.where) for hit in check.hits} == {("s:1", "debate", where)}


def test_a_question_that_turns_repeat_is_the_sources():
    """The first turn is the question; those of an analogy hold both, with words before or after."""
    check, other = Contamination(index(TRAIN)), Record("s:2", "s", TRAIN, "", "")
    check.look(dialogue(TRAIN, "I do not know."))
    turns = (Turn("teacher", "human", "Why? Because."), Turn("question", "human", f"Well done. Now try: {TRAIN}"))
    check.look(Dialogue(Record("s:1", "s", "Why?", "", ""), "analogical_reasoning", turns, other))
    assert [hit.where for hit in check.hits] == ["question"] * 2 + ["related question"] * 2


def test_the_most_is_named_and_all_is_in_the_list():
    first, second = TRAIN, TRAIN.replace("behind the third tunnel", "on the old bridge")
    check = Contamination(index(first, second))
    findings = check.look(dialogue("Why?", second))
    assert len(findings) == 2 and all("100% of bench 1 (and 1 more)" in finding.detail for finding in findings)
    assert [(hit.item, hit.n) for hit in check.hits] == [("1", 13), ("0", 13), ("1", 8), ("0", 8)]


def test_items_with_one_text_are_all_named_and_not_common():
    items = [Item(f"bench {n}", str(n), TRAIN.upper() if n % 2 else TRAIN) for n in range(30)]
    check = Contamination(Index(items, common=1))
    assert check.look(dialogue("Why?", TRAIN))
    assert [hit.item for hit in check.hits if hit.n == GRAM] == [str(n) for n in range(30)]


# --- how much is too much ------------------------------------------------------------------------

WORDS = [f"{a}{b}x" for a in "bcdfghjklm" for b in "aeiou"]  # 50 different ones


@pytest.mark.parametrize(
    ("taken", "labels"),
    [(8, []), (12, []), (13, ["benchmark 13-gram"]), (24, ["benchmark 13-gram"]), (25, list(LABELS))],
)
def test_a_run_is_told_from_13_words_and_half_is_there(taken, labels):
    found, hits = look(index(" ".join(WORDS)), " ".join(["zzz", *WORDS[10 : 10 + taken], "zzz"]))
    assert found == labels and all(hit.share == taken / 50 for hit in hits)


@pytest.mark.parametrize("size", [8, 9, 12, 16])
@pytest.mark.parametrize("taken", [7, 8, 9])
def test_one_run_of_8_is_not_enough_unless_it_is_all(size, taken):
    found, _ = look(index(" ".join(WORDS[:size])), " ".join(["zzz", *WORDS[: min(taken, size)]]))
    assert found == (["benchmark 8-gram"] if (taken >= 9 or size == 8) and taken >= 8 else [])


def test_runs_add_up_and_overlaps_count_once():
    built = index(" ".join(WORDS))
    apart = f"{' '.join(WORDS[:9])} zzz {' '.join(WORDS[20:29])} zzz {' '.join(WORDS[41:50])}"
    assert [hit.share for hit in look(built, apart)[1]] == [27 / 50]
    assert look(built, " zzz ".join([" ".join(WORDS[:12])] * 5))[1] == []
    assert look(built, apart, share=0.55)[1] == []


def test_runs_do_not_go_on_from_one_turn_to_the_next():
    check = Contamination(index(" ".join(WORDS[:14])))
    assert not check.look(dialogue("Why?", " ".join(WORDS[:7]), " ".join(WORDS[7:14])))
    assert len(check.look(dialogue("Why?", " ".join(WORDS[:9]), " ".join(WORDS[5:14])))) == 2


def test_changed_numbers_break_runs():
    assert look(index(TRAIN), TRAIN.replace("1,250", "1,300"))[0] == list(LABELS)  # the rest is more than half
    short = "Tom has 12 eggs and sells 5 of them, then he buys 31 more and eats 2."
    assert look(index(short), short.replace("12", "14").replace("5", "6").replace("31", "9"))[0] == []


def test_common_runs_are_nobodys():
    texts = [f"Write a python function to find the sum of the {word} in a {word} of them" for word in WORDS[:12]]
    text = "Write a python function to find the sum of the letters in this page"
    assert look(index(*texts, common=12), text)[1]
    built = index(*texts, common=11)
    assert look(built, text) == ([], [])
    for number, whole in enumerate(texts):  # what is their own still finds them
        assert [hit.item for hit in look(built, whole)[1] if hit.n == GRAM] == [str(number)]


def test_a_run_of_numbers_is_nobodys():
    built = index("Go on with 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 until the bell has rung at noon")
    assert look(built, "for x in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]: print(x)") == ([], [])


# --- items without a run of their own ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "there"),
    [
        (SHORT, True),
        ("what is 37+58", True),
        (f"{OTHER} {SHORT} {OTHER}", True),
        (f"First:\n{SHORT}\nThen go on.", True),
        ("He asked, \u201cWhat is 37 + 58?\u201d and left.", True),
        ("What is\n37 + 58?", True),  # broken into lines
        ("What is 37 - 58?", False),
        ("What is 37 + 58 + 2?", False),
        ("What is 37.58?", False),
        ("So what is 37 + 58?", False),
        ("What is 58 + 37?", False),
    ],
)
def test_a_short_item_is_hit_where_it_stands_whole(text, there):
    labels, hits = look(index(SHORT), text)
    assert labels == (["benchmark 8-gram"] if there else [])
    assert [(hit.n, hit.share, hit.text) for hit in hits] == [(4, 1.0, "what is 37 + 58")] * there


def test_an_item_of_common_runs_only_is_hit_where_it_stands_whole():
    start = "Write a python function to find the sum of all"
    built = index(start, *(f"{start} the {word} in here" for word in WORDS[:5]), common=3)
    assert [hit.n for hit in look(built, f"{start}.")[1]] == [10]
    assert look(built, f"{start} stones")[1] == []


def test_items_with_hardly_a_word_are_left_out_and_said_to_be():
    built = index("?", "", "$$1$$", "Why not?", "Add 1 + 1")
    assert [item.text for item in built.left_out] == ["?", "", "$$1$$", "Why not?"]
    assert look(built, "Why not?\n1\n?")[1] == [] and look(built, "Add 1 + 1!")[1]


def test_no_benchmark_has_nothing():
    assert look(index(), TRAIN) == look(index("?"), TRAIN) == ([], [])


@pytest.mark.parametrize(
    "text", ["", "\ud800", "\0", "|||", "a " * 30_000, "1 " * 30_000, "\\frac{" * 5000, "." * 30_000]
)
@pytest.mark.timeout(60)
def test_hostile_text_is_no_trouble(text):
    built = index(TRAIN, "a " * 2000, "| | |", text)
    look(built, text)
    assert look(built, f"{text} {TRAIN}")[0] == list(LABELS)


# --- against a plain comparison ------------------------------------------------------------------

PIECES = ["aa bb aa cc", "bb bb cc aa bb", "aa " * 9, "cc", "bb cc bb aa aa cc bb bb aa"]
FEW = st.lists(st.sampled_from(PIECES), max_size=7).map(lambda pieces: " ".join(pieces).split())


@settings(max_examples=300, deadline=None)
@given(st.lists(FEW, max_size=5), FEW, st.integers(1, 3))
def test_runs_are_those_of_a_plain_comparison(items, text, common):
    """Few different words, so that everything repeats: every run, as long as it can be, and no other."""
    built = index(*(" ".join(item) for item in items), common=common)
    ids = np.array([*(built.vocabulary.get(word, -1) for word in text), -1], np.int64)
    runs = list(built.runs(ids))
    found = {(run.entry, run.at, run.start - int(built.starts[run.entry]), run.length) for run in runs}
    assert len(found) == len(runs)
    entries = [words(tokens(entry[0].text)) for entry in built.entries]
    grams = [[tuple(entry[at : at + GRAM]) for at in range(len(entry) - GRAM + 1)] for entry in entries]
    expected = set()
    for number, entry in enumerate(entries):
        mine = [sum(gram in other for other in grams) <= common for gram in grams[number]]
        own = {at + n for at, kept in enumerate(mine) if kept for n in range(GRAM)}
        assert int(built.size[number]) == len(own)
        assert (tuple(entry) in built.whole) == (not own)
        for at in range(len(text) - GRAM + 1):
            gram = tuple(text[at : at + GRAM])
            if gram not in grams[number] or not mine[grams[number].index(gram)]:
                continue
            start = grams[number].index(gram)  # its first place in the entry
            before = after = 0
            while at > before < start and text[at - before - 1] == entry[start - before - 1]:
                before += 1
            while at + after < len(text) and start + after < len(entry) and text[at + after] == entry[start + after]:
                after += 1
            expected.add((number, at - before, start - before, before + after))
    assert found == expected


def test_a_hash_that_collides_is_no_run(monkeypatch):
    """With this multiplier the order of words has no weight."""
    monkeypatch.setattr(contamination, "_MULTIPLIER", np.uint64(1))
    built = index(" ".join(WORDS[:12]))
    swapped = [*WORDS[:4], WORDS[5], WORDS[4], *WORDS[6:12]]
    for text, runs in ((WORDS[11::-1], 0), (swapped, 0), (WORDS[:12], 1)):
        ids = np.array([*(built.vocabulary[word] for word in text), -1], np.int64)
        assert len(list(built.runs(ids))) == runs


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_found_in_itself(item, before, after):
    built = index(item)
    assert len(built.left_out) == (len([token for token in tokens(item) if token != END]) < 3)
    found, hits = look(built, f"{before}\n\n{item}\n\n{after}")
    assert ("benchmark 8-gram" in found) == (not built.left_out) and all(hit.share == 1 for hit in hits)


# --- reading benchmarks --------------------------------------------------------------------------


def write(path: Path, rows: list[Any]) -> str:
    if path.name.endswith(".parquet"):
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return str(path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_files_of_every_kind_are_read(tmp_path, name):
    rows = [{"answer": "5", "Problem": f"How much is {n}?", "task_id": f"T/{n}"} for n in range(3)]
    found = read_benchmarks([Benchmark(name="mine", path=write(tmp_path / name, rows))])
    assert found == [Item("mine", f"T/{n}", f"How much is {n}?") for n in range(3)]


@pytest.mark.parametrize("field", ["question", "problem", "prompt", "text", "instruction", "turns", "PROBLEM"])
def test_usual_names_are_known(tmp_path, field):
    path = write(tmp_path / "a.jsonl", [{"answer": "no", "solution": "neither", field: "Why?"}])
    assert read_benchmarks([Benchmark(name="b", path=path)]) == [Item("b", "a.jsonl:1", "Why?")]


def test_lists_messages_and_several_fields_are_texts_of_their_own(tmp_path):
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    rows = [{"question_id": 7, "turns": ["One?", "", "Two?"], "talk": talk, "note": None}]
    path = write(tmp_path / "a.jsonl", rows)
    assert [(item.id, item.text) for item in read_benchmarks([Benchmark(name="b", path=path)])] == [
        ("7 1", "One?"),
        ("7 3", "Two?"),
    ]
    found = read_benchmarks([Benchmark(name="b", path=path, fields=("talk", "note", "turns"))])
    assert [item.id for item in found] == ["7 talk 2", "7 turns 1", "7 turns 3"]


@pytest.mark.parametrize(
    ("rows", "more", "words_of_it"),
    [
        ([{"question": "Why?"}], {"fields": ("problem",)}, ["no field 'problem'", "found: question"]),
        ([{"query_text": "Why?"}], {}, ["no field with one of the names question,", "found: query_text"]),
        ([{"question": "Why?"}, {"question": None}], {}, ["a.jsonl:2: no text in question"]),
        ([{"question": "Why?"}, {"question": " \n"}], {}, ["a.jsonl:2: no text in question"]),
        ([{"question": "Why?"}, ["no row"]], {}, ["a.jsonl:2: not a JSON object"]),
        ([{"question": 5}], {}, ["a.jsonl:1: question is neither text nor a list"]),
        ([{"question": ["Why?", {"text": "How?"}]}], {}, ["a.jsonl:1: question is neither text nor a list"]),
        ([], {}, ["no field"]),
        ([{"question": "Why?"}], {"revision": "main"}, ["path and revision are both given"]),
    ],
)
def test_what_is_not_read_whole_is_an_error(tmp_path, rows, more, words_of_it):
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(SourceError) as caught:
        read_benchmarks([Benchmark(name="mine", path=path, **more)])
    assert "benchmark mine" in str(caught.value) and caught.value.remedy
    assert all(part in str(caught.value) for part in words_of_it)


def test_a_missing_file_and_a_name_given_twice_are_errors(tmp_path):
    with pytest.raises(SourceError, match="nothing here"):
        read_benchmarks([Benchmark(name="mine", path=str(tmp_path / "nothing here.jsonl"))])
    path = write(tmp_path / "a.jsonl", [{"question": "Why?"}])
    with pytest.raises(SourceError, match="two benchmarks are called 'mine'"):
        read_benchmarks([Benchmark(name="mine", path=path)] * 2)


def test_a_torn_file_is_an_error(tmp_path):
    path = Path(write(tmp_path / "a.jsonl.gz", [{"question": f"Why {n}?" * 50} for n in range(500)]))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SourceError, match="cannot be read"):
        read_benchmarks([Benchmark(name="mine", path=str(path))])


HUB = """
import json
from datasets import Dataset
from boost_qa.checks.benchmarks import read_benchmarks
from boost_qa.config import Benchmark
from boost_qa.errors import SourceError
for config, count in (("main", 5), ("socratic", 3)):
    rows = [{"question": f"What is {n} + {n} in {config}?", "answer": str(2 * n)} for n in range(count)]
    Dataset.from_list(rows).push_to_hub("alice/sums", config, split="test")
def read(**more):
    try:
        return [item.text for item in read_benchmarks([Benchmark(name="sums", repo="alice/sums", **more)])]
    except SourceError as error:
        return error.what
print(json.dumps([read(config="socratic"), read(config="main", split="train"), read(config="none")]))
"""


def test_benchmarks_come_from_the_hub(tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        chosen = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(tmp_path / "home")}
        chosen |= {"HF_HUB_DISABLE_XET": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        done = subprocess.run(
            [sys.executable, "-c", HUB], cwd=Path(__file__).parent.parent, env=kept | chosen, capture_output=True,
            text=True, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    texts, no_split, no_config = json.loads(done.stdout.strip().splitlines()[-1])
    assert texts == [f"What is {n} + {n} in socratic?" for n in range(3)]
    assert "no split 'train'" in no_split and "alice/sums: cannot be read from the Hub" in no_config


# --- real benchmarks, where there are some -------------------------------------------------------


@pytest.mark.skipif("BOOST_QA_REAL_DATA" not in os.environ, reason="BOOST_QA_REAL_DATA names no folder of real rows")
def test_real_benchmarks_are_read_and_found():
    folder = Path(os.environ["BOOST_QA_REAL_DATA"]) / "eval"
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith("verifier")]
    items = read_benchmarks([Benchmark(name=file.name, path=str(file)) for file in files])
    built = Index(items)
    assert len(items) > 6000 and len(built.left_out) < 30
    check, left_out = Contamination(built), set(built.left_out)
    for item in items[::40]:
        check.hits.clear()
        check.look(dialogue("Why?", item.text))
        assert item in left_out or (item.benchmark, item.id) in {
            (hit.benchmark, hit.item) for hit in check.hits if hit.n != LONG
        }
