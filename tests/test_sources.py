"""Sources: what is read, what is drawn, and what is said about the rest."""

from __future__ import annotations

import csv
import gzip
import json
import operator
import os
import random
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import HubServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boost_qa.config import Columns, OpenHermes, OrcaMath, ProcQA, ReasoningGym, Sample
from boost_qa.errors import SourceError
from boost_qa.sources import BadRow, Reading, read
from boost_qa.sources.reasoning_gym import _item
from boost_qa.sources.stream import Unfit
from boost_qa.types import digest

Row = dict[str, Any]


def rows_of(n: int) -> list[Row]:
    return [{"question": f"What is {i} + {i}?", "answer": f"It is {2 * i}."} for i in range(n)]


def write_jsonl(path: Path, rows: Iterable[Row | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def orca(path: Path, n: int | None = None) -> OrcaMath:
    return OrcaMath(source="orca_math", path=str(path), n=n)


def columns(path: Path, **more: Any) -> Columns:
    given = {"name": "mine", "question": "question", "answer": "answer", "path": str(path), **more}
    return Columns(source="columns", **given)


def one_bad(reading: Reading) -> list[BadRow]:
    assert sum(sum(facts.bad.values()) for facts in reading.facts) == len(reading.bad_rows)
    return reading.bad_rows


# --- the draw ------------------------------------------------------------------------------------


def test_n_records_are_drawn_and_the_facts_add_up(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", rows_of(50))
    records, bad_rows, facts = read([orca(file, n=10)], seed=3)
    assert len(records) == len({record.id for record in records}) == 10
    assert bad_rows == []
    assert (facts[0].source, facts[0].where, facts[0].read, facts[0].taken, facts[0].bad) == (
        "orca_math", "train.jsonl", 50, 10, {},
    )  # fmt: skip
    assert facts[0].licence == "MIT"
    assert facts[0].revision.startswith("sha256:")
    assert str(tmp_path) not in repr(facts)


def test_ids_come_from_source_and_content_alone(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"question": "\nWhy?\r\nSay. ", "answer": "So.\r\n", "id": 7}])
    (record,) = read([orca(file)], seed=0).records
    assert (record.question, record.answer) == ("Why?\nSay.", "So.")
    assert record.id == "orca_math:" + digest("Why?\nSay.", "So.")[:16]
    assert record.source_id == record.id.removeprefix("orca_math:")
    (other,) = read([columns(file, id="id")], seed=1).records
    assert other.id == "mine:" + digest("Why?\nSay.", "So.")[:16]
    assert other.source_id == "7"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 60), n=st.integers(1, 60), seed=st.integers(0, 2**40), order=st.randoms(use_true_random=False)
)
def test_the_sample_does_not_depend_on_the_order_of_rows(
    tmp_path: Path, count: int, n: int, seed: int, order: random.Random
) -> None:
    rows: list[Row | str] = [
        *rows_of(count),
        *rows_of(count // 3),
        '{"question": "torn',
        {"question": "", "answer": "x"},
    ]
    one = write_jsonl(tmp_path / "one" / "rows.jsonl", rows)
    order.shuffle(rows)
    other = write_jsonl(tmp_path / "other" / "rows.jsonl", rows)
    n = min(n, count)
    first, second = read([orca(one, n)], seed), read([orca(other, n)], seed)
    assert [r.id for r in first.records] == [r.id for r in second.records]
    assert first.facts[0].bad == second.facts[0].bad
    assert first.facts[0].bad["unreadable JSON"] == first.facts[0].bad["empty question"] == 1
    drawn = {record.question for record in first.records}
    copies = sum(row["question"] in drawn for row in rows_of(count // 3))
    assert first.facts[0].bad.get("duplicate", 0) == copies
    assert len(one_bad(first)) == 2 + copies


def test_a_smaller_n_draws_a_prefix_and_another_seed_another_sample(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", rows_of(200))
    ids = [record.id for record in read([orca(file, n=40)], seed=5).records]
    assert [record.id for record in read([orca(file, n=12)], seed=5).records] == ids[:12]
    assert [record.id for record in read([orca(file)], seed=5).records][:40] == ids
    assert {record.id for record in read([orca(file, n=40)], seed=6).records} != set(ids)


def test_the_draw_is_uniform(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", rows_of(20))
    hits = dict.fromkeys((row["question"] for row in rows_of(20)), 0)
    for seed in range(400):
        for record in read([orca(file, n=5)], seed).records:
            hits[record.question] += 1
    # 400 draws at 1/4 each: mean 100, standard deviation 8.7; five of those either way
    assert all(56 < count < 144 for count in hits.values())


def test_which_copy_comes_first_does_not_matter(tmp_path: Path) -> None:
    copies = [{"question": "q", "answer": "a", "id": name} for name in ("beta", "alpha")]
    for place, rows in enumerate((copies, copies[::-1])):
        reading = read([columns(write_jsonl(tmp_path / f"{place}.jsonl", rows), id="id")], seed=0)
        assert [record.source_id for record in reading.records] == ["alpha"]
        assert reading.bad_rows == [BadRow("mine", f"{place}.jsonl:2", "duplicate")]


def test_no_record_comes_twice_from_two_sources_of_one_name(tmp_path: Path) -> None:
    file, more = write_jsonl(tmp_path / "a.jsonl", rows_of(10)), write_jsonl(tmp_path / "b.jsonl", rows_of(15))
    records, _, facts = read([orca(file), orca(more)], seed=0)
    assert len({record.id for record in records}) == len(records) == 15
    assert [(fact.taken, fact.bad) for fact in facts] == [(10, {}), (5, {"duplicate": 10})]


def test_bad_rows_are_counted_beyond_those_that_are_named(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*rows_of(1), *["{"] * 1500, *rows_of(1) * 3000])
    _, bad_rows, facts = read([orca(file)], seed=0)
    assert facts[0].bad == {"duplicate": 3000, "unreadable JSON": 1500}
    assert len(bad_rows) == 1000


def test_too_few_records_name_how_many_there_are(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*rows_of(3), {"question": "x", "answer": 4}])
    with pytest.raises(
        SourceError, match=r"3 usable records in 4 rows \(answer is not text: 1\), but n is 9"
    ) as caught:
        read([orca(file, n=9)], seed=0)
    assert "Set n to 3 or less" in caught.value.remedy
    nothing = write_jsonl(tmp_path / "b.jsonl", [{"question": "", "answer": ""}])
    with pytest.raises(SourceError, match="0 usable records"):
        read([orca(nothing)], seed=0)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    with (tmp_path / "big.jsonl").open("w") as file:
        for i in range(300_000):
            file.write(f'{{"question": "What is {i} plus {i}?", "answer": "{i} plus {i} is {2 * i}."}}\n')
    tracemalloc.start()
    records = read([orca(tmp_path / "big.jsonl", n=100)], seed=0).records
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == 100
    assert peak < 8 * 2**20


# --- rows and files ------------------------------------------------------------------------------

GOOD = {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "torn", "ans', "unreadable JSON"),
        ("[" * 100_000, "unreadable JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"answer": "a"}', "missing question"),
        ('{"question": null, "answer": "a"}', "missing question"),
        ('{"question": " \\n", "answer": "a"}', "empty question"),
        ('{"question": "q", "answer": ["a"]}', "answer is not text"),
        ('{"question": "q\\u0000", "answer": "a"}', "NUL character in question"),
        ('{"question": "q", "answer": "\\ud83d"}', "answer is not valid Unicode"),
    ],
)
def test_a_bad_line_is_named_and_costs_no_other_row(tmp_path: Path, line: str, reason: str) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [GOOD, line, "", {"question": "q2", "answer": "a2"}])
    reading = read([orca(file)], seed=0)
    assert {record.question for record in reading.records} == {"q", "q2"}
    assert reading.bad_rows == [BadRow("orca_math", "a.jsonl:2", reason)]
    assert reading.facts[0].bad == {reason: 1}


def test_a_line_that_is_no_utf8_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'\xef\xbb\xbf{"question": "q", "answer": "a"}\n{"question": "\xff", "answer": "a"}\n'
    )
    reading = read([orca(tmp_path / "a.jsonl")], seed=0)
    assert len(reading.records) == 1
    assert reading.bad_rows == [BadRow("orca_math", "a.jsonl:2", "not UTF-8")]


def test_the_first_of_several_lines_keeps_its_indentation(tmp_path: Path) -> None:
    row = {"question": "\n \n  def f():\n    pass\n ", "answer": "  one line  "}
    (record,) = read([orca(write_jsonl(tmp_path / "a.jsonl", [row]))], seed=0).records
    assert (record.question, record.answer) == ("  def f():\n    pass", "one line")


def write_as(folder: Path, kind: str, rows: list[Row]) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    elif kind.startswith("csv"):
        with gzip.open(path, "wt", newline="") if kind.endswith("gz") else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        as_list = kind.startswith("json") and not kind.startswith("jsonl")
        content = json.dumps(rows, indent=1) if as_list else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(content.encode()) if kind.endswith("gz") else content.encode())
    return path


KINDS = ["jsonl", "jsonl.gz", "json", "json.gz", "csv", "csv.gz", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    rows = [{"question": f'Line,\n"{i}" é 🙂', "answer": f"{i}" * 9, "other": "x"} for i in range(30)]
    expected = read([orca(write_as(tmp_path, "jsonl", rows), n=9)], seed=1).records
    found = read([orca(write_as(tmp_path, kind, rows), n=9)], seed=1).records
    assert [(r.id, r.question, r.answer) for r in found] == [(r.id, r.question, r.answer) for r in expected]


@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "json.gz", "csv.gz", "parquet"])
def test_a_file_that_is_cut_off_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    path = write_as(tmp_path, kind, rows_of(5000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=rf"rows\.{kind}: cannot be read"):
        read([orca(path, n=2)], seed=0)


def test_a_list_of_objects_is_read_piece_by_piece(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": "a" * 3000} for i in range(3000)]
    path = write_as(tmp_path, "json", rows)
    tracemalloc.start()
    reading = read([orca(path, n=5)], seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reading.facts[0].read == 3000
    assert peak < path.stat().st_size * 0.75


def test_csv_rows_that_do_not_fit_the_header_are_bad(tmp_path: Path) -> None:
    long = "x" * 200_000
    path = tmp_path / "a.csv"
    path.write_bytes(f'question,answer\nq,"two\nlines"\nonly\na,b,c\n"q"x,a\nq3,{long}\n\nq4,\xff\n'.encode("latin-1"))
    reading = read([orca(path)], seed=0)
    assert sorted(record.question for record in reading.records) == ["q", "q3"]
    assert [(row.row, row.reason) for row in reading.bad_rows] == [
        ("a.csv:4", "missing answer"),
        ("a.csv:5", "more fields than the header"),
        ("a.csv:6", "unreadable CSV"),
        ("a.csv:9", "answer is not valid Unicode"),
    ]


def test_parquet_text_that_is_no_utf8_is_a_bad_row(tmp_path: Path) -> None:
    broken = pyarrow.array([b"q0", b"\xff", b"q2"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"question": broken, "answer": ["a", "b", "c"]}), tmp_path / "a.parquet")
    reading = read([orca(tmp_path / "a.parquet")], seed=0)
    assert sorted(record.question for record in reading.records) == ["q0", "q2"]
    assert reading.bad_rows == [BadRow("orca_math", "a.parquet row 2", "not UTF-8")]


def test_a_missing_column_names_those_needed_and_found(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"questions": "q", "solution": "a"}])
    with pytest.raises(SourceError) as caught:
        read([orca(path)], seed=0)
    assert "a.jsonl has no column 'question', 'answer'; needed: question, answer" in caught.value.what
    assert "found: questions, solution" in caught.value.what
    with pytest.raises(SourceError) as caught:
        read([columns(path, question="questoin", answer="solution")], seed=0)
    assert "nearest to 'questoin': questions" in caught.value.remedy
    with pytest.raises(SourceError, match="no row that can be read"):
        read([orca(write_jsonl(tmp_path / "b.jsonl", []))], seed=0)


def test_columns_are_looked_at_before_any_source_is_read(tmp_path: Path) -> None:
    good = write_jsonl(tmp_path / "good.jsonl", rows_of(1))
    with pytest.raises(SourceError, match="no column"):  # and not: too few records
        read([orca(good, n=5), orca(write_jsonl(tmp_path / "bad.jsonl", [{"a": 1}]))], seed=0)


def test_columns_maps_names_and_takes_numbers_for_id_and_final(tmp_path: Path) -> None:
    rows = [
        {"body": "Two and two?", "solution": "It is four.", "result": 4, "key": 17},
        {"body": "Two and one?", "solution": "It is three.", "result": None, "key": ""},
        {"body": "One and one?", "solution": "It is two.", "result": [2], "key": "k"},
        {"body": "Nine and nine?", "solution": "It is eighteen.", "result": 18.0, "key": float("nan")},
        {"body": "No end of it?", "solution": "Infinity.", "result": float("inf"), "key": 2.5},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    chosen = {"question": "body", "answer": "solution", "id": "key", "final": "result", "licence": "CC0-1.0"}
    reading = read([columns(path, **chosen)], seed=0)
    by_question = {record.question: record for record in reading.records}
    four, three = by_question["Two and two?"], by_question["Two and one?"]
    assert (four.final, four.source_id, four.licence) == ("4", "17", "CC0-1.0")
    assert (three.final, three.source_id) == (None, three.id.removeprefix("mine:"))
    nine, endless = by_question["Nine and nine?"], by_question["No end of it?"]
    assert (nine.final, nine.source_id) == ("18", nine.id.removeprefix("mine:"))
    assert (endless.final, endless.source_id) == (None, "2.5")
    assert reading.bad_rows == [BadRow("mine", "a.jsonl:3", "result is neither text nor a number")]


def test_a_folder_reads_its_split_and_its_revision_is_its_content(tmp_path: Path) -> None:
    for home in ("here", "there"):
        write_jsonl(tmp_path / home / "train-00000-of-00002.jsonl", rows_of(3))
        write_jsonl(tmp_path / home / "train-00001-of-00002.jsonl", rows_of(6)[3:])
        write_jsonl(tmp_path / home / "test.jsonl", [{"question": "held out", "answer": "yes"}])
        write_jsonl(tmp_path / home / ".cache" / "x.jsonl", [{"question": "hidden", "answer": "yes"}])
        (tmp_path / home / "notes.txt").write_text("no data")
    here, there = (read([orca(tmp_path / home)], seed=0) for home in ("here", "there"))
    assert sorted(record.question for record in here.records) == sorted(row["question"] for row in rows_of(6))
    assert here.facts[0].where == "here"
    assert here.facts[0].revision == there.facts[0].revision
    assert here.records == there.records
    held_out = OrcaMath(source="orca_math", path=str(tmp_path / "here" / "*.jsonl"), split="test")
    assert [record.question for record in read([held_out], seed=0).records] == ["held out"]
    with pytest.raises(SourceError, match="no file of split 'validation'") as caught:
        read([held_out.model_copy(update={"split": "validation"})], seed=0)
    assert "test, train" in caught.value.remedy
    write_jsonl(tmp_path / "there" / "train-00001-of-00002.jsonl", rows_of(7)[3:])
    assert read([orca(tmp_path / "there")], seed=0).facts[0].revision != here.facts[0].revision


def test_paths_that_hold_nothing_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(SourceError, match="no data file there"):
        read([orca(tmp_path / "nowhere.jsonl")], seed=0)
    with pytest.raises(SourceError, match="not a kind of file"):
        read([orca(tmp_path / "a.xlsx")], seed=0)
    with pytest.raises(SourceError, match="path and repo are both given"):
        read([OrcaMath(source="orca_math", path=str(tmp_path), repo="a/b")], seed=0)
    with pytest.raises(SourceError, match="neither path nor repo"):
        read([Columns(source="columns", name="mine", question="q", answer="a")], seed=0)


# --- ProcQA --------------------------------------------------------------------------------------


def posts(language: str, n: int = 2) -> list[Row]:
    return [
        {"question_id": 100 + i, "answer_id": 7, "title": f"{language} {i}", "question": "How?", "answer": f"So {i}."}
        for i in range(n)
    ]


def procqa(path: Path, *languages: str) -> ProcQA:
    return ProcQA(source="procqa", path=str(path), languages=languages or None)


@pytest.mark.parametrize(
    "layout", ["{}.jsonl", "qa.en.{}.json", "{}/train.jsonl", "{}.train.jsonl", "train/{}.jsonl", "{}/train.jsonl.gz"]
)
def test_procqa_languages_are_found_in_every_layout(tmp_path: Path, layout: str) -> None:
    for language in ("python", "c++", "c"):
        path = write_jsonl(tmp_path / layout.format(language), posts(language))
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(path.read_bytes()))
    reading = read([procqa(tmp_path, "c++", "Python")], seed=0)
    assert {record.question.split()[0] for record in reading.records} == {"c++", "python"}
    record = next(record for record in reading.records if record.question.startswith("c++ 1"))
    assert (record.question, record.answer, record.source_id) == ("c++ 1\n\nHow?", "So 1.", "101")
    assert record.licence == "CC-BY-SA-4.0"
    assert len(read([procqa(tmp_path)], seed=0).records) == 6
    with pytest.raises(SourceError, match="no file for haskell") as caught:
        read([procqa(tmp_path, "haskell")], seed=0)
    assert "c, c++, python" in caught.value.remedy


def test_procqa_leaves_test_files_out_of_the_training_split(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        write_jsonl(tmp_path / "python" / f"{part}.jsonl", posts(f"python-{part}"))
    assert {r.question.split()[0] for r in read([procqa(tmp_path)], seed=0).records} == {"python-train"}


def test_procqa_without_a_place_says_where_it_is() -> None:
    with pytest.raises(SourceError) as caught:
        read([ProcQA(source="procqa")], seed=0)
    assert "github.com/jordane95/procqa" in caught.value.remedy


# --- OpenHermes ----------------------------------------------------------------------------------


def conversation(*turns: tuple[str, Any], **more: Any) -> Row:
    return {"conversations": [{"from": who, "value": said, "weight": None} for who, said in turns], **more}


def hermes(tmp_path: Path, row: Row, **more: Any) -> Reading:
    ok = conversation(("human", "still"), ("gpt", "here"))
    return read(
        [OpenHermes(source="openhermes", path=str(write_jsonl(tmp_path / "a.jsonl", [ok, row])), **more)], seed=0
    )


def the_pair(reading: Reading) -> tuple[str, str]:
    (record,) = [record for record in reading.records if record.question != "still"]
    return record.question, record.answer


LONG = conversation(("human", "q1"), ("gpt", "a1"), ("human", "q2"), ("gpt", "a2"), id="h7")


def test_openhermes_takes_one_exchange(tmp_path: Path) -> None:
    reading = hermes(tmp_path, LONG)
    assert the_pair(reading) == ("q1", "a1")
    assert {record.source_id for record in reading.records} > {"h7"}
    assert reading.facts[0].licence == "unknown"
    assert the_pair(hermes(tmp_path, LONG, multi_turn="last")) == ("User: q1\n\nAssistant: a1\n\nUser: q2", "a2")
    assert hermes(tmp_path, LONG, multi_turn="skip").facts[0].bad == {"more than one exchange (multi_turn: skip)": 1}
    unanswered = conversation(("human", "q1"), ("gpt", "a1"), ("human", "q2"))
    assert the_pair(hermes(tmp_path, unanswered, multi_turn="last")) == ("q1", "a1")


@pytest.mark.parametrize(
    "row",
    [
        conversation(("system", "Be brief."), ("human", "q"), ("gpt", "a")),
        conversation(("human", "q"), ("gpt", "a"), system_prompt="Be brief."),
        conversation(("system", "Be brief."), ("human", "q"), ("gpt", "a"), system_prompt="Another."),
    ],
)
def test_openhermes_system_prompts(tmp_path: Path, row: Row) -> None:
    assert the_pair(hermes(tmp_path, row)) == ("Be brief.\n\nq", "a")
    assert the_pair(hermes(tmp_path, row, system="drop")) == ("q", "a")
    assert hermes(tmp_path, row, system="skip").facts[0].bad == {"system prompt (system: skip)": 1}


def test_openhermes_system_prompt_with_earlier_turns(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "system", "value": "Be brief."}, *LONG["conversations"]]}
    expected = "Be brief.\n\nUser: q1\n\nAssistant: a1\n\nUser: q2"
    assert the_pair(hermes(tmp_path, row, multi_turn="last")) == (expected, "a2")
    empty = conversation(("system", ""), ("human", "q"), ("gpt", "a"))
    assert the_pair(hermes(tmp_path, empty, system="skip")) == ("q", "a")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (conversation(("tool", "q"), ("gpt", "a")), "unknown speaker"),
        (conversation(("gpt", "a"), ("human", "q")), "not human and gpt in turns"),
        (conversation(("human", "q")), "not human and gpt in turns"),
        (conversation(("system", "s")), "not human and gpt in turns"),
        (conversation(("human", "q"), ("gpt", "a"), ("gpt", "b")), "not human and gpt in turns"),
        (conversation(("human", "q"), ("system", "s"), ("gpt", "a")), "system turn inside the conversation"),
        (conversation(("human", "q"), ("gpt", "")), "empty value"),
        (conversation(("human", "q"), ("gpt", None)), "missing value"),
        (conversation(("human", 5), ("gpt", "a")), "value is not text"),
        ({"conversations": "q"}, "conversations is no list of turns"),
        ({"conversations": []}, "conversations is no list of turns"),
        ({"conversations": ["q", "a"]}, "a turn is no object"),
    ],
)
def test_openhermes_names_odd_conversations(tmp_path: Path, row: Row, reason: str) -> None:
    assert hermes(tmp_path, row).bad_rows == [BadRow("openhermes", "a.jsonl:2", reason)]


def test_openhermes_reads_parquet(tmp_path: Path) -> None:
    rows = [LONG, conversation(("human", "q"), ("gpt", "a"), id=None)]
    path = write_as(tmp_path, "parquet", rows)
    records = read([OpenHermes(source="openhermes", path=str(path))], seed=0).records
    assert {(record.question, record.answer) for record in records} == {("q1", "a1"), ("q", "a")}


# --- the package's own records, and made ones ----------------------------------------------------


def test_the_sample_is_spread_evenly_over_its_subjects() -> None:
    records, bad_rows, facts = read([Sample(source="sample", n=10)], seed=0)
    assert [fact.source for fact in facts] == ["sample_mathematics", "sample_programming", "sample_general"]
    assert [fact.taken for fact in facts] == [4, 3, 3]
    assert {record.source for record in records} == {fact.source for fact in facts}
    assert bad_rows == []
    assert all(record.licence and record.revision for record in records)
    assert len(read([Sample(source="sample", n=1)], seed=0).records) == 1


def test_the_whole_sample_is_sound() -> None:
    records, bad_rows, _ = read([Sample(source="sample")], seed=0)
    assert len(records) >= 48
    assert bad_rows == []
    assert len({record.source_id for record in records}) == len(records)
    (facts,) = read([Sample(source="sample", subjects=("general",))], seed=0).facts
    with pytest.raises(SourceError, match="but n is 100000"):
        read([Sample(source="sample", n=100_000)], seed=0)
    assert facts.source == "sample_general"


def test_reasoning_gym_makes_n_records_for_each_task() -> None:
    gym = ReasoningGym(source="reasoning_gym", tasks={"leg_counting": {"max_animals": 4}, "basic_arithmetic": {}}, n=6)
    records, _, facts = read([gym], seed=0)
    assert [(fact.where, fact.taken) for fact in facts] == [("leg_counting", 6), ("basic_arithmetic", 6)]
    assert records[0].source_id == "leg_counting:0"
    assert all(record.final == record.answer for record in records)
    assert records[0].licence == "Apache-2.0"
    assert str(records[0].revision).startswith("reasoning-gym ")
    assert read([gym], seed=1).records == records  # the tasks have a seed of their own
    assert read([gym.model_copy(update={"seed": 1})], seed=0).records != records
    more = read([gym.model_copy(update={"n": 9})], seed=0).records
    assert more[:6] == records[:6]


def test_reasoning_gym_leaves_out_what_the_package_calculates_wrongly() -> None:
    signs = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
    two = {"min_terms": 2, "max_terms": 2, "max_digits": 1, "allow_parentheses": False}
    gym = ReasoningGym(source="reasoning_gym", tasks={"basic_arithmetic": two}, n=80)
    records, bad_rows, _ = read([gym], seed=0)
    wrong = [row.row for row in bad_rows if row.reason == "the answer is not what the expression comes to"]
    assert "basic_arithmetic:1" in wrong  # "Calculate 4 / 1.", and the package's answer is 2
    assert len(wrong) > 10
    for record in records:
        left, sign, right = record.question.removeprefix("Calculate ").removesuffix(".").split()
        assert signs[sign](int(left), int(right)) == int(record.answer)


@pytest.mark.parametrize(
    "expression, answer, unfit",
    [
        ("1 + 2 * 3", "7", False),
        ("1 + 2 * 3", "9", True),
        (" -( 3 - 5 ) / 4", "0.5", False),
        ("3 / 0", "18", True),
        ("3 / 0", "undefined", False),
        ("x + 3", "5", False),  # nothing that could be calculated
        ("2 ** 3", "9", False),
        ("1 + 1", "two", False),
        (None, "5", False),
    ],
)
def test_an_expression_of_reasoning_gym_is_calculated(expression: str | None, answer: str, unfit: bool) -> None:
    entry = {"question": "Calculate it.", "answer": answer, "metadata": {"expression": expression}}
    assert isinstance(_item(entry, "task:0"), Unfit) == unfit


def test_reasoning_gym_names_what_it_does_not_know() -> None:
    def gym(task: str, **options: Any) -> ReasoningGym:
        return ReasoningGym(source="reasoning_gym", tasks={task: options}, n=2)

    with pytest.raises(SourceError, match="no task 'leg_count'") as caught:
        read([gym("leg_count")], seed=0)
    assert "leg_counting" in caught.value.remedy
    with pytest.raises(SourceError, match="no setting animals, seed") as caught:
        read([gym("leg_counting", animals=3, seed=1)], seed=0)
    assert "max_animals" in caught.value.remedy
    with pytest.raises(SourceError, match="leg_counting: "):
        read([gym("leg_counting", min_animals=-1)], seed=0)
    with pytest.raises(SourceError, match="no reference answer: "):
        read([gym("rush_hour")], seed=0)


def test_reasoning_gym_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)  # what an absent package looks like to `import`
    with pytest.raises(SourceError) as caught:
        read([ReasoningGym(source="reasoning_gym", tasks={"leg_counting": {}}, n=1)], seed=0)
    assert "pip install 'boost_qa[reasoning-gym]'" in caught.value.remedy


# --- the Hub -------------------------------------------------------------------------------------

PUSH = """
import json, os
from huggingface_hub import HfApi
from datasets import Dataset
rows = [{"question": f"What is {i} + {i}?", "answer": f"It is {2 * i}."} for i in range(40)]
Dataset.from_list(rows).push_to_hub("alice/words", "main")
Dataset.from_list(rows[:3]).push_to_hub("alice/words", "main", split="test")
api = HfApi()
first = api.dataset_info("alice/words").sha
api.create_repo("alice/code", repo_type="dataset", private=True)
post = {"title": "t", "question": "q", "answer": "a"}
for name in ("qa.en.python.json", "qa.en.c++.json"):
    rows = [json.dumps({**post, "answer": f"{name} {i}", "question_id": i}) for i in range(5)]
    content = "".join(row + "\\n" for row in [*rows, "{torn"])
    api.upload_file(path_or_fileobj=content.encode(), path_in_repo=name, repo_id="alice/code", repo_type="dataset")
card = b"---\\nlicense: cc-by-4.0\\n---\\n"
api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/code", repo_type="dataset")
print(json.dumps({"words": first, "code": api.dataset_info("alice/code").sha}))
"""

READ = """
import json
from boost_qa.config import OrcaMath, ProcQA, Columns
from boost_qa.errors import SourceError
from boost_qa.sources import read

def failure(settings):
    try:
        read([settings], seed=4)
    except SourceError as error:
        return [error.what, error.remedy]

orca = OrcaMath(source="orca_math", repo="alice/words", n=8)
words, code, mapped = (
    read([settings], seed=4)
    for settings in (
        orca,
        ProcQA(source="procqa", repo="alice/code", languages=("c++",)),
        Columns(source="columns", name="mine", repo="alice/code", question="title", answer="answer", n=2),
    )
)
print(json.dumps({
    "ids": [record.id for record in words.records],
    "revision": words.records[0].revision,
    "where": words.facts[0].where,
    "read": words.facts[0].read,
    "test_split": len(read([orca.model_copy(update={"split": "test", "n": None})], seed=4).records),
    "code": [code.records[0].revision, code.facts[0].taken, code.bad_rows[0].row, code.bad_rows[0].reason],
    "licences": [code.records[0].licence, mapped.records[0].licence],
    "no_split": failure(orca.model_copy(update={"split": "nope"})),
    "no_repo": failure(orca.model_copy(update={"repo": "alice/nothing"})),
    "no_revision": failure(orca.model_copy(update={"revision": "nothing"})),
    "no_id": failure(orca.model_copy(update={"repo": "no dataset/at/all"})),
    "no_config": failure(Columns(source="columns", name="x", repo="alice/words", question="q", answer="a", config="z")),
    "no_column": failure(ProcQA(source="procqa", repo="alice/words")),
}))
"""


def run_client(code: str, hub: HubServer, home: Path) -> Any:
    """Run the code in a process of its own, since HF_ENDPOINT is read at import; what it prints last."""
    chosen = {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parent.parent, env={**kept, **chosen}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_datasets_are_read_from_the_hub_at_a_commit(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        pushed = run_client(PUSH, hub, tmp_path / "writer")
        found = run_client(READ, hub, tmp_path / "reader")
    local = read([orca(write_jsonl(tmp_path / "a.jsonl", rows_of(40)), n=8)], seed=4)
    assert found["ids"] == [record.id for record in local.records]
    assert found["revision"] == pushed["words"]
    assert (found["where"], found["read"], found["test_split"]) == ("alice/words", 40, 3)
    assert found["code"] == [pushed["code"], 5, "qa.en.c++.json:6", "unreadable JSON"]
    assert found["licences"] == ["CC-BY-SA-4.0", "cc-by-4.0"]
    assert "test" in found["no_split"][1] and "train" in found["no_split"][1]
    assert "alice/nothing: cannot be read from the Hub" in found["no_repo"][0]
    assert "cannot be read from the Hub" in found["no_revision"][0]
    assert "no dataset id" in found["no_id"][0]
    assert "main" in found["no_config"][0]
    assert "needed: title, question, answer; found: question, answer" in found["no_column"][0]


# --- real rows, where there are some -------------------------------------------------------------


@pytest.mark.skipif("BOOST_QA_REAL_DATA" not in os.environ, reason="BOOST_QA_REAL_DATA names no folder of real rows")
def test_real_rows_are_read_without_loss() -> None:
    folder = Path(os.environ["BOOST_QA_REAL_DATA"])
    worded, worked = (next(folder.glob(f"orca_math_like.{name}*0.jsonl")) for name in ("dmath", "gsm8k"))
    posted = next(folder.glob("procqa_like.*[0-9].jsonl"))
    talked = next(folder.glob("openhermes_like.*[0-9].jsonl"))
    sources = [
        orca(worded, n=150),
        orca(worked, n=150),
        ProcQA(source="procqa", path=str(posted), n=300),
        OpenHermes(source="openhermes", path=str(talked), n=300, multi_turn="last"),
    ]
    records, bad_rows, facts = read(sources, seed=0)
    assert [fact.taken for fact in facts] == [150, 150, 300, 300]
    assert len({record.id for record in records}) == 900
    assert bad_rows == []
    assert not any("\r" in record.question + record.answer for record in records)
    genuine = json.loads((folder / "genuine_rows_from_docs.json").read_text())
    assert set(genuine["orca_math"]["schema"]) == {"question", "answer"}
