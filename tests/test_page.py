"""The page of a run: what is read and counted, what stands in the file, and what a browser makes of it.

The run is played by the real runner into a real journal; its texts are hostile. Where Chromium is here, the page is
opened in it from disk.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import sqlite3
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
import test_star_run as star_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted

from boost_qa.config import Recipe
from boost_qa.errors import JournalError, RunError
from boost_qa.generate import generate
from boost_qa.page import document, overview, sealed, write
from boost_qa.page.blocks import BYTES, ENTRIES, Blocks, as_json
from boost_qa.page.entry import Entry, Line
from boost_qa.page.figures import Figures
from boost_qa.page.journal_side import Asked, Attempt, behind, pieces, replies
from boost_qa.page.material import read
from boost_qa.run_folder import RunFolder, dump
from boost_qa.types import Call, Reply, Usage, digest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from chromium import PROGRAM, Chromium

HOSTILE = (
    "</script><script>window.hacked = 1</script><!-- <script> --> <img src=x onerror='window.hacked = 2'> "
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 3} \\ \" ' & &lt; &#60; ]]> \u2028\u2029 \u202e rtl \x00\x07 🦜 ünïcode"
)
NAME = '</title><script>window.hacked = 4</script>" onload="x'
SOURCE = "sample_mathematics"
CHECKS = {
    "answers": {"version": "3", "labels": {"final right": "as it should", "final wrong": "<b>not</b>"}},
    "roles": {"version": "1", "labels": {"breaks the frame": "</td><script>window.hacked = 5</script>"}},
}


def answer(call: Call) -> Reply:
    """A fixed share of replies is truncated, and all of some records, so that there are attempts and rejections."""
    text = f"  {HOSTILE}\n```python\nprint({call.seed})\n```\n{call.scenario} needle-{call.seed % 7} \n"
    cut = call.seed % 5 == 0 or int(call.record[-4:], 16) % 6 == 0
    return Reply(text, "length" if cut else "stop", 100 + call.ordinal, 10 + call.seed % 90)


def recipe(**changes) -> Recipe:
    raw = {
        "name": "hostile",
        "sources": [{"source": "sample"}],
        "models": {alias: {"engine": "embedded", "model": f"m-{alias}"} for alias in ("weak", "middle", "strong")},
        "scenarios": {"analogical_reasoning": None},
        "dialogues": 40,
    }
    return Recipe.model_validate(raw | changes)


def play(folder: Path, **changes) -> RunFolder:
    run = generate(recipe(**changes), folder, engines={name: Scripted(answer) for name in ("weak", "middle", "strong")})
    run.write_manifest(run.manifest() | {"name": NAME})
    return run


def check(run: RunFolder, form: str) -> None:
    """What a checked run has besides: every fifth dialogue is dropped."""
    kept, dropped, seen = [], [], []
    for number, line in enumerate(lines(run.dialogues_file)):
        why = ["final wrong", "breaks the frame"] if number % 5 == 0 else []
        last = len(line["turns"]) - 1
        found = {
            "answers": [{"label": "final wrong" if why else "final right", "turn": last, "detail": HOSTILE}],
            "roles": [
                {"label": "breaks the frame", "turn": turn, "detail": ""} for turn in ((1, None, 99) if why else ())
            ],
        }
        rows = [{"check": name, "version": "1", "findings": findings} for name, findings in found.items()]
        if form == "flat":
            nothing = [{"label": None, "turn": None, "detail": ""}]
            rows = [{"check": name, "version": "1", **one} for name, each in found.items() for one in each or nothing]
        record = {"id": line["id"], "record": line["record"]["id"], "scenario": line["scenario"]}
        seen.append(dump(record | {"kept": not why, "why": why, "checks": rows}) + "\n")
        (dropped if why else kept).append(dump(line) + "\n")
    run.dialogues_file.write_text("".join(kept), encoding="utf-8")
    run.dropped_file.write_text("".join(dropped), encoding="utf-8")
    run.checks_file.write_text("".join(seen), encoding="utf-8")
    run.checks_summary_file.write_text(json.dumps({"checks": CHECKS}))
    with run.rejected_file.open("a", encoding="utf-8") as file:  # as generation writes them down, too
        for line in map(json.loads, dropped):
            row = {"record": line["record"]["id"], "scenario": line["scenario"]}
            file.write(dump(row | {"reason": "answers: final wrong", "detail": ""}) + "\n")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> RunFolder:
    return play(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture
def run(played, tmp_path) -> RunFolder:
    """A copy to break."""
    return RunFolder(shutil.copytree(played.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def checked(played, tmp_path_factory) -> RunFolder:
    copy = RunFolder(shutil.copytree(played.path, tmp_path_factory.mktemp("page") / "checked"))
    check(copy, "flat")
    return copy


@pytest.fixture(scope="module")
def page(checked, tmp_path_factory) -> Path:
    return write(checked, tmp_path_factory.mktemp("page") / "report.html")


# --- the journal's side --------------------------------------------------------------------------


def asked(model: str, *texts: str) -> Asked:
    return Asked(model, [("user", "?")], [0.5, 1.0, 9], [Attempt(text, "stop", 3, len(text)) for text in texts])


def test_turns_of_a_real_run_have_their_requests(played):
    """Against the journal, read with nothing of ours: who was asked last with the turn's text, and how often."""
    db = sqlite3.connect(played.journal)
    again = 0
    for entry, prompts in read(played):
        if entry.status == "rejected":
            continue
        rows = db.execute(
            "SELECT request, text, completion_tokens, finish FROM replies "
            "WHERE record = ? AND scenario = ? ORDER BY ordinal",
            (entry.record, entry.scenario),
        ).fetchall()
        for turn, prompt in zip(entry.turns, prompts, strict=True):
            if turn.model is None:
                assert prompt is None and turn.tokens is None
                continue
            same = [row for row in rows if row[1].strip() == turn.text]
            request, _, tokens, finish = same[0]
            assert len(same) == 1 and finish == "stop" and turn.tokens == tokens
            body, texts = json.loads(request), entry.texts()
            told = [["".join(texts[p] if isinstance(p, int) else p for p in cut)] for _, cut in prompt.messages]
            assert told == [[text] for _, text in body["messages"]] and prompt.sampling == body["sampling"]
            assert len(prompt.attempts) == turn.again == sum(row[0] == request for row in rows) - 1
            assert all(finish == "length" for _, finish, _ in prompt.attempts)
            again += turn.again
    assert again > 3


def test_a_turn_is_found_whatever_stands_between():
    teacher, student = asked("a", "short", "  Look: it is 5. "), asked("b", "5")
    between = asked("judge", "RIGHT")
    turns = [("What is it?\n\nLook: it is 5.", Usage(2, 6, 21)), None, ("5", Usage(1, 3, 1)), ("none", Usage(9, 9, 9))]
    assert behind(turns, [between, teacher, between, student]) == [(teacher, 1), None, (student, 0), None]
    assert behind(turns, []) == [None] * 4


def test_a_whole_reply_goes_before_one_that_the_turn_ends_with():
    ends, whole = asked("a", "5"), asked("b", "it is 5")
    assert behind([("it is 5", Usage())], [ends, whole]) == [(whole, 0)]


def test_an_empty_reply_is_said_by_nobody():
    assert behind([("something", Usage())], [asked("a", "", "  ")]) == [None]


def test_masked_turns_are_found_by_what_they_cost():
    first, second = asked("a", "", "mail bob@b.org"), asked("a", "mail alice@a.org")
    turns = [("mail [mail address]", second.usage), ("mail [mail address]", first.usage)]
    assert behind(turns, [first, second]) == [(second, 0), None]  # the order of the journal is that of the turns
    assert behind(turns[::-1], [first, second]) == [(first, 1), (second, 0)]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["no", "yes", "a", "b"])), max_size=6), st.integers(0, 9))
def test_unusable_replies_are_never_taken_for_the_turn(turns, seed):
    """Also where a reply that was not used, or another speaker's, has the same words."""
    chance = Random(seed)
    journal, expected = [], []
    for failures, text in turns:
        journal += [asked("other", "something else")] * chance.randrange(2)
        journal.append(asked("m", *(["", text, "no end"][:failures]), text))
        expected.append((journal[-1], len(journal[-1].attempts) - 1))
    found = behind([(text, Usage()) for _, text in turns], journal)
    assert [(hit[0] is one[0], hit[1] == one[1]) for hit, one in zip(found, expected, strict=True)] == [
        (True, True)
    ] * len(turns)


@settings(max_examples=300)
@given(st.lists(st.text("ab\n", max_size=30), max_size=5), st.lists(st.text("ab\n", max_size=3), max_size=6), st.data())
def test_pieces_are_the_prompt_again(known, glue, data):
    content = "".join(part + (data.draw(st.sampled_from(known)) if known else "") for part in glue)
    cut = pieces(content, known)
    assert "".join(known[piece] if isinstance(piece, int) else piece for piece in cut) == content
    assert "" not in cut


def test_texts_in_a_prompt_are_recognised():
    question, answer = "How many chairs are there in three rows of four?", "12"
    content = f"QUESTION\n{question}\nSOLUTION\n{answer}\nSay nothing of 12 or 121."
    assert pieces(content, [question, answer, ""]) == [
        "QUESTION\n",
        0,
        "\nSOLUTION\n",
        1,
        "\nSay nothing of 12 or 121.",
    ]
    assert pieces(f"{question} Well: {question}", [question, f"{question} Well"]) == [1, ": ", 0]
    assert pieces("12", ["12"]) == [0] and pieces("", ["12"]) == []


def test_the_journal_and_its_folder_stay_as_they_are(run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    write(run, tmp_path / "report.html")
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_journal_that_is_being_written_to(run):
    writer = sqlite3.connect(run.journal, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    row = writer.execute("SELECT * FROM replies LIMIT 1").fetchone()
    writer.execute("INSERT INTO replies VALUES ('new', ?, ?, ?, ?, ?, ?, ?, ?, ?)", row[1:])
    with replies(run.journal) as journal:
        assert [each.attempts[0].text for each in journal.asked("new", row[1])] == [row[6]]
        writer.execute("DELETE FROM replies WHERE record = 'new'")  # and we are not in its way
    writer.close()


@pytest.mark.parametrize("content", [b"", b"no database at all, but a text that is long enough to be one" * 99])
def test_a_damaged_journal_is_an_error(run, content, tmp_path):
    run.journal.write_bytes(content)
    with pytest.raises(JournalError, match="journal.sqlite"):
        write(run, tmp_path / "report.html")
    assert not list(tmp_path.glob("report*"))


def test_a_request_that_is_none_names_its_call(run, tmp_path):
    with sqlite3.connect(run.journal) as db:
        db.execute("UPDATE replies SET request = '{}' WHERE rowid = 5")
        record = db.execute("SELECT record FROM replies WHERE rowid = 5").fetchone()[0]
    with pytest.raises(JournalError, match=f"call . of record '{record}'.*messages"):
        write(run, tmp_path / "report.html")


def test_what_scorers_and_checks_were_asked_is_no_turn(run):
    before = list(read(run))
    with sqlite3.connect(run.journal) as db:
        for record, scenario, request in db.execute(
            "SELECT record, scenario, request FROM replies WHERE ordinal = 0"
        ).fetchall():
            body = json.dumps(json.loads(request) | {"model": "likelihood by x"})
            values = (record, scenario, 99, "f" * 32, 0, body, "RIGHT", "stop", 1, 1)
            db.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    assert list(read(run)) == before


def test_without_a_journal_there_are_no_prompts(run):
    run.journal.unlink()
    shown = list(read(run))
    assert shown and not any(any(prompts) for _, prompts in shown)
    tokens = [turn.tokens for entry, _ in shown for turn in entry.turns if turn.model]
    assert None in tokens and any(tokens)  # known where nothing was asked again


def test_personal_data_that_a_recipe_masks_is_not_in_prompts_either(run):
    manifest = run.manifest()
    manifest["recipe"]["checks"] = {"personal_data": {"mask": True}}
    run.write_manifest(manifest)
    with sqlite3.connect(run.journal) as db:
        db.execute("UPDATE replies SET text = text || ' write to bob.miller@gmx.de'")
    shown = [as_json(one).decode() for one in read(run)]
    assert any("[mail address]" in one for one in shown)
    assert [one[max(0, one.find("bob.miller") - 200) :][:300] for one in shown if "bob.miller" in one] == []


@pytest.fixture(scope="module")
def star(tmp_path_factory) -> RunFolder:
    return generate(star_runs.recipe(), tmp_path_factory.mktemp("page") / "star", engines=star_runs.engines())


def test_a_star_run_has_the_prompts_of_the_chosen_pair(star, tmp_path):
    shown = list(read(star))
    assert len(shown) == 24 and len({entry.pair for entry, _ in shown}) > 1
    for entry, prompts in shown:
        assert prompts[-1].model == f"m-{entry.pair}" and len(entry.candidates) == 3
    html = write(star, tmp_path / "report.html").read_text("utf-8")
    assert html.count("<figure>") == sum((star.path / name).exists() for name in document.PICTURES)


# --- what is read and counted --------------------------------------------------------------------


def test_every_dialogue_is_there_once(checked, played):
    entries = [entry for entry, _ in read(checked)]
    by_status = Counter(entry.status for entry in entries)
    refused = lines(played.rejected_file)
    assert by_status["rejected"] == len(refused) > 2
    assert by_status["dropped"] == len(lines(checked.dropped_file)) > 2
    assert by_status["kept"] == len(lines(checked.dialogues_file)) > 10
    assert len({entry.id for entry in entries}) == len(entries) == 40
    assert {digest(row["record"], row["scenario"]) for row in refused} <= {entry.id for entry in entries}


def test_findings_are_at_their_turns(checked):
    for entry, _ in read(checked):
        if entry.status == "rejected":
            assert not entry.checked
            continue
        assert entry.checked and entry.turns[-1].findings[0][1] in ("final right", "final wrong")
        where = [number for number, turn in enumerate(entry.turns) for _, label, _ in turn.findings if "frame" in label]
        whole = [label for _, label, _ in entry.findings]
        if entry.status == "dropped":  # of no turn, or of one that does not exist
            assert (
                where == [1] and whole == ["breaks the frame"] * 2 and entry.why == ["final wrong", "breaks the frame"]
            )
        else:
            assert where == whole == entry.why == []


def test_findings_may_be_grouped_by_check(run, checked):
    check(run, "by check")
    assert list(read(run)) == list(read(checked))


def test_rejected_records_show_what_was_tried(played):
    refused = [shown for shown in read(played) if shown.entry.status == "rejected"]
    for entry, prompts in refused:
        assert entry.question and entry.answer and entry.source.startswith("sample_")
        assert entry.why[0].endswith(": truncated") and entry.turns[-1].speaker == entry.why[0].partition(":")[0]
        assert entry.turns[-1].again == 2 and len(prompts[-1].attempts) == 2 and len(prompts) == len(entry.turns)


def test_a_verdict_alone_says_that_a_dialogue_is_dropped(run):
    first = lines(run.dialogues_file)[0]["id"]
    run.checks_file.write_text(dump({"id": first, "kept": False, "why": ["x"], "checks": []}) + "\n")
    assert {entry.id for entry, _ in read(run) if entry.status == "dropped"} == {first}


def test_a_dialogue_in_both_files_was_dropped(run):
    line = run.dialogues_file.read_text("utf-8").split("\n")[3]
    run.dropped_file.write_text(line + "\n", encoding="utf-8")
    found = [entry.status for entry, _ in read(run) if entry.id == json.loads(line)["id"]]
    assert found == ["dropped"]


def test_a_moved_dialogue_has_the_prompts_of_where_it_began(run):
    with sqlite3.connect(run.journal) as db:
        db.execute("UPDATE replies SET scenario = 'error_correction' WHERE scenario = 'debate'")
    debates = [shown for shown in read(run) if shown.entry.scenario == "debate" and shown.entry.status == "kept"]
    assert debates and all(prompt for _, prompts in debates for prompt in prompts[1:])


def test_a_run_under_way_is_shown_as_far_as_it_is(run, tmp_path):
    text = run.dialogues_file.read_text("utf-8")
    run.dialogues_file.unlink()
    run.dialogues_file.with_name("dialogues.jsonl.part").write_text(text[:-20], encoding="utf-8")
    run.write_manifest(
        {key: value for key, value in run.manifest().items() if key not in ("usage", "dialogues", "rejected")}
        | {"finished": False}
    )
    assert sum(entry.status == "kept" for entry, _ in read(run)) == text.count("\n") - 1
    assert "not finished" in write(run, tmp_path / "report.html").read_text("utf-8")


def test_a_run_that_has_only_begun(run, tmp_path):
    for path in (run.dialogues_file, run.rejected_file, run.journal):
        path.unlink()
    run.write_manifest(run.manifest() | {"models": {}, "sessions": [], "finished": False})
    html = write(run, tmp_path / "report.html").read_text("utf-8")
    assert "not finished" in html and index(html)["entries"] == []


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("dialogues.jsonl", "{}", "line 1: no key 'id'"),
        ("dialogues.jsonl", "[1]", "line 1"),
        ("dialogues.jsonl", '{"id": "a", ', "line 1"),
        ("dialogues.jsonl", '{"id": "a", "record": null}', "line 1"),
        ("checks.jsonl", '{"id": "a", "why": [], "checks": []}', "line 1: no key 'kept'"),
        ("checks.jsonl", '{"id": "a", "kept": true, "why": [], "checks": [{"check": "x"}]}', "no key 'label'"),
        ("rejected.jsonl", '{"record": "a"}', "line 1: no key 'scenario'"),
        ("checks.json", "{}", "checks.json: no key 'checks'"),
    ],
)
def test_damaged_files_are_named_and_an_older_page_stays(run, tmp_path, name, line, message):
    target = tmp_path / "report.html"
    target.write_text("older")
    (run.path / name).write_text(line + "\n")
    with pytest.raises(RunError, match=re.escape(message)) as caught:
        write(run, target)
    assert name in caught.value.what and caught.value.remedy
    assert target.read_text() == "older" and [path.name for path in tmp_path.glob("report*")] == ["report.html"]


def test_no_run_and_no_place(tmp_path, run):
    with pytest.raises(RunError, match="no run folder"):
        write(RunFolder(tmp_path), tmp_path / "report.html")
    with pytest.raises(RunError, match="is a folder"):
        write(run, tmp_path)
    assert write(run, tmp_path / "new" / "deep" / "report.html").is_file()


def entry(status: str, scenario: str, why=(), source: str = "s", turns=(), checked: bool = True) -> Entry:
    return Entry("", status, scenario, source, "", "", "", list(turns), why=list(why), checked=checked)


def line(
    speaker: str, text: str, *labels: str, model: str | None = "m", tokens: int | None = 1, again: int = 0
) -> Line:
    noted = [("answers" if " " in label else "roles", label, "") for label in labels]
    return Line(speaker, "gpt", text, model, 0.5, tokens, again, noted)


def test_figures_by_hand():
    figures = Figures()
    weak, last = (
        line("weak_student", "12345", "weak right", again=2),
        line("teacher", "1", "final wrong", "chatty", model="t"),
    )
    figures.add(entry("kept", "a", turns=[line("question", "12", model=None, tokens=None), weak, last]))
    figures.add(
        entry(
            "dropped", "a", why=["x", "y", "x"], turns=[weak, line("teacher", "1", "final right", "chatty", "chatty")]
        )
    )
    figures.add(entry("rejected", "b", why=["x"], source="t", checked=False))
    assert (
        figures.count("kept") == 1 and figures.count("dropped", "a", "s") == 1 and figures.count("rejected", "a") == 0
    )
    assert figures.losses == {("dropped", "x", "a"): 1, ("dropped", "y", "a"): 1, ("rejected", "x", "b"): 1}
    assert list(figures.lengths["a", "weak_student"].characters) == [5] and not figures.lengths["a", "question"].tokens
    assert figures.again["a", "weak_student"] == 2 and figures.checked == 2
    assert figures.labels["roles", "chatty"] == 2 and figures.findings["roles", "chatty", "teacher"] == 3
    rows = {by: overview.agreement(figures, "final", by) for by in overview.BY}
    assert [(row.name, row.counts) for row in rows["scenario"]] == [("a", [1, 1, 0])]
    assert [(row.name, row.counts) for row in rows["model"]] == [("m", [1, 0, 0]), ("t", [0, 1, 0])]
    assert overview.agreement(figures, "weak", "source")[0].counts == [2, 0, 0]
    (roles,) = overview.seen(figures, {})
    assert roles["speakers"] == ["teacher"] and roles["rows"][0].cells == [(3, 1.0)] and roles["rows"][0].dialogues == 2
    stages = overview.funnel({"sources": [{"read": 9, "taken": 5, "bad": {"empty": 1}}], "finished": True}, figures)
    assert [(stage.name, stage.count, [(loss.reason, loss.count) for loss in stage.lost]) for stage in stages] == [
        ("rows read", 9, [("empty", 1), ("good, but not drawn", 3)]),
        ("records drawn", 5, [("not assigned", 2)]),
        ("assigned to a scenario", 3, [("x", 1)]),
        ("dialogues", 2, [("x", 1), ("y", 1)]),
        ("kept", 1, []),
    ]


def test_a_share_of_turns_is_at_most_one():
    figures = Figures()
    figures.add(entry("kept", "a", turns=[line("teacher", "1", "shown", "shown", "shown"), line("teacher", "2")]))
    (roles,) = overview.seen(figures, {})
    assert roles["rows"][0].cells == [(3, 0.5)]


@given(st.lists(st.integers(0, 10**6), min_size=1), st.integers(0, 10**6))
def test_histograms_hold_every_length(values, more):
    top = overview._top([], "characters")
    assert top == 10
    longest = Figures().lengths["", ""]
    longest.characters.extend([*values, more])
    top = overview._top([longest], "characters")
    strip = overview.strip(values, top)
    assert strip.count == len(values) and min(values) <= strip.low <= strip.median <= strip.high <= max(values)
    assert all(0 <= left <= left + width < 100.001 and 0 < height <= 1 for left, width, height in strip.bars)
    assert max(height for *_, height in strip.bars) == 1 and 0 <= strip.at <= 100
    assert all(0 <= at < 100 for _, at in overview.ticks(top))


# --- the blocks ----------------------------------------------------------------------------------


def unpack(block: bytes | str) -> str:
    return gzip.decompress(base64.b64decode(block)).decode()


def packed(tmp_path: Path, values) -> tuple[list[int], dict[str, list]]:
    with (tmp_path / "d").open("w+b") as dialogues, (tmp_path / "p").open("w+b") as prompts:
        blocks = Blocks(dialogues, prompts)
        for value in values:
            blocks.add(value, [value])
        blocks.finish()
        found = {name: [json.loads(line) for line in unpack(block).split("\n")] for name, block in blocks.packed()}
    return blocks.starts, found


def test_blocks_are_cut_by_number_and_by_size(tmp_path):
    starts, found = packed(tmp_path, range(2 * ENTRIES + 1))
    assert starts == [0, ENTRIES, 2 * ENTRIES] and list(found) == ["d0", "d1", "d2", "p0", "p1", "p2"]
    assert found["d1"] == list(range(ENTRIES, 2 * ENTRIES)) and found["p2"] == [[2 * ENTRIES]]
    starts, found = packed(tmp_path, ["x", "y" * BYTES, "z"])
    assert starts == [0, 2] and [len(found[name]) for name in ("d0", "d1")] == [2, 1]
    assert packed(tmp_path, []) == ([], {})


@settings(max_examples=50)
@given(st.lists(st.text(), max_size=6))
def test_blocks_give_back_what_they_were_given(tmp_path_factory, texts):
    _, found = packed(tmp_path_factory.getbasetemp(), texts)
    assert [value for name, values in found.items() if name[0] == "d" for value in values] == texts


def test_half_a_surrogate_pair_and_large_numbers():
    assert json.loads(as_json(["\ud800x", "🦜", "\u2028\x00", 2**70])) == ["?x", "🦜", "\u2028\x00", 2**70]
    assert json.loads(as_json(line("a", "\udfff")))["text"] == "?"


# --- the file ------------------------------------------------------------------------------------

VOID = {"meta", "link", "input", "img", "rect", "line"}


class Elements(HTMLParser):
    """All elements with their attributes, and faults of nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found, self.open, self.faults, self.contents = [], [], [], {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open:
            self.contents.setdefault(self.open[-1], []).append(data)


def index(html: str) -> dict:
    return json.loads(unpack(re.search(r'id="index">([^<]*)<', html)[1]))


def test_the_file_is_html_and_asks_for_nothing(page):
    html = page.read_text("utf-8")
    elements = Elements(html)
    assert not elements.faults and not elements.open
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert [attributes for attributes in scripts if attributes.get("type") != "application/gzip"] == [{}]
    assert all("src" not in attributes for attributes in scripts)
    for tag, attributes in elements.found:
        assert tag not in ("iframe", "object", "embed", "base", "video", "audio", "img"), tag
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("href", "src", "action", "srcset"):
            assert attributes.get(name, "#")[:1] == "#" or attributes[name] == "data:,", (tag, attributes)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"url\(|@import|https?://", html.replace("http-equiv", ""))


def test_nobody_elses_script_or_style_would_run(page):
    html = page.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    for text, kind in ((script, "script-src"), (style, "style-src")):
        assert f"{kind} {sealed.hashed(text)};" in policy
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "eval(" not in script
    assert not re.search(r"</|<!--|<script", script)


def test_hostile_text_comes_back_as_it_was(page, checked):
    html = page.read_text("utf-8")
    for part in ("window.hacked = 1", "window.hacked = 2", "49"):
        assert part not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "<script>window" not in html and "&lt;script&gt;window.hacked = 4" in html
    blocks = dict(re.findall(r'id="(d\d+)">([^<]*)<', html))
    there = {entry["id"]: entry for block in blocks.values() for entry in map(json.loads, unpack(block).split("\n"))}
    for dialogue in (*lines(checked.dialogues_file), *lines(checked.dropped_file)):
        assert [turn["text"] for turn in there[dialogue["id"]]["turns"]] == [turn["text"] for turn in dialogue["turns"]]
        assert HOSTILE in there[dialogue["id"]]["turns"][-1]["text"]
    assert [row[0] for row in index(html)["entries"]] == list(there)
    for row in index(html)["entries"]:
        assert row[6] == " ".join(there[row[0]]["question"].split())[:120]


def test_the_same_run_gives_the_same_page(checked, page, tmp_path):
    assert write(checked, tmp_path / "again.html").read_bytes() == page.read_bytes()
    blocks = re.findall(rb'gzip" id="\w+">([^<]*)<', page.read_bytes())
    assert len(blocks) == 3 and all(base64.b64decode(block)[4:8] == bytes(4) for block in blocks)  # no time in it


def test_no_place_of_this_machine_is_on_the_page(run, tmp_path):
    manifest = run.manifest()
    for model in manifest["models"].values():
        model["model"] = "/home/somebody/models/tiny.gguf"
    manifest["sources"][0]["where"] = "/home/somebody/data/questions.jsonl"
    run.write_manifest(manifest)
    text = run.dialogues_file.read_text("utf-8")
    run.dialogues_file.write_text(text.replace('"model":"m-', '"model":"/home/somebody/models/'), encoding="utf-8")
    html = write(run, tmp_path / "report.html").read_text("utf-8")
    unpacked = "".join(unpack(block) for block in re.findall(r'gzip" id="\w+">([^<]*)<', html))
    assert "somebody" not in html + unpacked and "tiny.gguf" in html and '"strong"' in unpacked


def test_it_says_how_far_it_is(run, tmp_path, monkeypatch):
    monkeypatch.setattr(document, "SAY_EVERY", 15)
    told = []
    write(run, tmp_path / "report.html", told.append)
    assert told == ["15 dialogues and rejected records", "30 dialogues and rejected records"]


def test_pictures_of_a_star_run_are_in_the_page(run, tmp_path):
    (run.path / "scores.png").write_bytes(b"\x89PNG")
    elements = Elements(write(run, tmp_path / "report.html").read_text("utf-8"))
    (picture,) = [attributes for tag, attributes in elements.found if tag == "img"]
    assert picture["src"] == "data:image/png;base64,iVBORw==" and picture["alt"]


def test_sizes(page, checked):
    """Texts are packed, prompts are numbers of the dialogue's texts, and what is above them is small."""
    html = page.read_bytes()
    top = html.index(b'<script type="application/gzip" id="d0">')
    assert top < 120_000
    assert len(html) - top < 0.2 * sum(path.stat().st_size for path in checked.path.iterdir())


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_can_be_read_in_both_schemes(scheme):
    """WCAG AA: 4.5 between every colour of text and everything it stands on."""
    style = (Path(document.__file__).parent / "style.jinja").read_text("utf-8")
    found = re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    colours = {name: pair[scheme] for name, *pair in found}
    speakers = [f"s{number}" for number in range(8)]
    for text in ("ink", "quiet", "link", "good", "bad", *speakers):
        for ground in ("paper", "panel", "sunk"):
            bright, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
    bright, dark = sorted((luminance(colours["ink"]), luminance(colours["mark"])), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


# --- in a browser --------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not here: the page is not opened in one")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def seen(chromium, page):
    """The page at its list, in a browser that must have nothing to complain of in the end."""
    chromium.resize(1300, 900)
    chromium.faults.clear()
    chromium.addresses.clear()
    chromium.open(f"{page.as_uri()}#dialogues")
    chromium.until("document.querySelector('.turn')")
    yield chromium
    assert not chromium.faults
    assert {address.split("#")[0] for address in chromium.addresses} <= {page.as_uri(), "about:blank", "data:,"}
    assert chromium.run("window.hacked === undefined")


def count(chromium) -> int:
    """How many dialogues the list has, from what it says of itself."""
    return int(chromium.run("document.getElementById('found').textContent").split(" of ")[0])


def search(chromium, words: str) -> int:
    chromium.run(
        f"{{ const field = document.getElementById('controls').elements.q; field.value = {json.dumps(words)};"
        "document.getElementById('found').textContent = '';"
        "field.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    chromium.until("document.getElementById('found').textContent.includes(' of ')")
    return count(chromium)


@needs_chromium
def test_hostile_text_is_text_in_a_browser(seen, checked):
    dialogue = lines(checked.dialogues_file)[0]
    texts = [dialogue["turns"][0]["text"], *(turn["text"] for turn in dialogue["turns"][1:])]
    shown = seen.run("[...document.querySelectorAll('.turn')].map((turn) => turn.querySelector('.text').textContent)")
    assert len(shown) == len(texts)
    for text, there in zip(texts, shown, strict=True):  # fences are boxes on the page
        assert there.replace("\x00", "\ufffd") == re.sub(r"```(python)?\n?", "", text).replace("\x00", "\ufffd")
    fenced = seen.run("[...document.querySelectorAll('.turn pre')].map((code) => code.textContent)")
    assert fenced == re.findall(r"```python\n(.*?)```", "".join(texts[1:]), re.DOTALL) != []
    seen.press("p")
    seen.until("document.querySelectorAll('.turn .message').length > 3")
    assert seen.run("document.querySelectorAll('img, iframe, object, #reader script').length") == 0
    assert NAME.split('"')[0] in seen.run("document.title")


@needs_chromium
@pytest.mark.parametrize(
    "words", ["needle-3", "NEEDLE-3", "ÜNÏCODE", "\\ \" '", "${window", "(?:a", "</script>", "🦜", "zzz"]
)
def test_search_finds_what_is_there(seen, checked, words):
    wanted = words.lower()
    expected = 0
    for entry, _ in read(checked):
        noted = [*entry.findings, *(found for turn in entry.turns for found in turn.findings)]
        texts = [*entry.texts(), entry.detail, entry.id, entry.record, entry.facts["source_id"] or ""]
        expected += any(wanted in text.lower() for text in (*texts, *(detail for *_, detail in noted)))
    assert search(seen, words) == expected
    assert (expected == 0) == (words in ("zzz", "(?:a"))
    if expected:
        seen.run("document.querySelector('.row').click()")
        marks = "[...document.querySelectorAll('.row mark')].map((mark) => mark.textContent.toLowerCase())"
        assert wanted in seen.run(marks)


@needs_chromium
def test_filters_and_their_counts(seen, checked):
    entries = [entry for entry, _ in read(checked)]
    options = "[...document.getElementById('controls').elements.%s.options].map((option) => option.textContent)"
    statuses = Counter(entry.status for entry in entries)
    assert seen.run(options % "status") == [
        "all",
        *(f"{name} ({statuses[name]})" for name in ("kept", "dropped", "rejected")),
    ]
    seen.open(seen.addresses[-1].split("#")[0] + "#dialogues?status=dropped")  # the others can still be chosen
    seen.until("document.querySelector('.turn')")
    assert seen.run(options % "status")[1] == f"kept ({statuses['kept']})"
    scenarios = Counter(entry.scenario.replace("_", " ") for entry in entries if entry.status == "dropped")
    assert Counter(seen.run(options % "scenario")[1:]) == Counter(f"{name} ({n})" for name, n in scenarios.items())
    seen.open(seen.addresses[-1].split("#")[0] + "#dialogues?status=dropped&scenario=debate&label=breaks+the+frame")
    seen.until("document.querySelector('.turn')")
    assert count(seen) == sum(entry.status == "dropped" and entry.scenario == "debate" for entry in entries)
    assert (
        seen.run("[...document.querySelectorAll('.badges .bad')].length") == 4
    )  # one answer, one turn, two of no turn
    seen.run("document.querySelector('#controls [type=reset]').click()")
    seen.until(f"document.getElementById('found').textContent.startsWith('{len(entries)} of')")
    assert "?" not in seen.run("location.hash")


@needs_chromium
def test_numbers_of_the_overview_lead_to_their_dialogues(seen):
    links = seen.run(
        "[...document.querySelectorAll('#overview a.plain')].map((a) => [a.getAttribute('href'), a.textContent])"
    )
    assert len(links) > 10
    for link, text in links[:: max(1, len(links) // 12)]:
        seen.run(f"location.hash = {json.dumps(link)}")
        seen.until("document.getElementById('found').textContent.includes(' of ') && location.hash.includes('?')")
        assert count(seen) == int(text) if text.isdigit() else count(seen) > 0


@needs_chromium
def test_a_dialogue_has_an_address(seen, checked):
    entry = [entry for entry, _ in read(checked) if entry.status == "rejected"][-1]
    file = seen.addresses[-1].split("#")[0]
    seen.open(f"{file}#{entry.id}")
    seen.until("document.querySelector('.turn')")
    assert entry.why[0] in seen.run("document.querySelector('.particulars').textContent")
    assert seen.run("document.querySelector('.row[aria-selected=true]') !== null")
    for unknown in ("0" * 32, "%E0%A4%A", "<b>"):
        seen.open(f"{file}#{unknown}")
        seen.until("document.querySelector('#reader [role=alert]')")
        assert "No dialogue here is called" in seen.run("document.getElementById('reader').textContent")
    seen.open(file)
    assert seen.run("document.getElementById('dialogues').hidden && !document.getElementById('overview').hidden")


@needs_chromium
def test_keys(seen):
    chosen = "document.querySelector('.row[aria-selected=true]').dataset.at"
    for key, expected in (("j", "1"), ("j", "2"), ("k", "1"), ("k", "0"), ("k", "0")):
        seen.press(key)
        seen.until(f"{chosen} === '{expected}'")
    seen.press("/")
    assert seen.run("document.activeElement.name") == "q"
    seen.press("j")  # is typed now
    assert seen.run(chosen) == "0"
    seen.press("Escape")
    assert seen.run("document.activeElement.id") == "list"
    seen.press("End")
    seen.until(f"{chosen} === '39'")
    active = "document.getElementById(document.getElementById('list').getAttribute('aria-activedescendant'))"
    assert seen.run(f"{active}.getAttribute('aria-selected')") == "true"
    seen.press("p")
    seen.until("document.querySelector('.message')")
    seen.press("p")
    assert seen.run("document.querySelectorAll('details.prompt[open]').length") == 0


@needs_chromium
def test_prompts_show_request_sampling_and_other_replies(seen, checked):
    shown = next(one for one in read(checked) if any(turn.again for turn in one.entry.turns))
    seen.open(f"{seen.addresses[-1].split('#')[0]}#{shown.entry.id}")
    seen.until("document.querySelector('.turn')")
    at = next(at for at, turn in enumerate(shown.entry.turns) if turn.again)
    turn = f"document.querySelectorAll('.turn')[{at}]"
    assert "asked again" in seen.run(f"{turn}.querySelector('.who').textContent")
    seen.run(f"{turn}.querySelector('details').open = true")
    seen.until(f"{turn}.querySelector('.message')")
    texts = shown.entry.texts()
    for number, (role, cut) in enumerate(shown.prompts[at].messages):
        whole = "".join(texts[piece] if isinstance(piece, int) else piece for piece in cut)
        assert seen.run(f"{turn}.querySelectorAll('.message h4')[{number}].textContent") == role
        assert seen.run(f"{turn}.querySelectorAll('.message .text')[{number}].textContent") == whole
    assert seen.run(f"{turn}.querySelectorAll('.message').length") == 2 + shown.entry.turns[at].again
    assert "temperature" in seen.run(f"{turn}.querySelector('.particulars').textContent")


@needs_chromium
def test_candidates_of_a_star_run(chromium, star, tmp_path):
    entry = next(entry for entry, _ in read(star) if entry.pair != "plain")
    chromium.resize(1300, 900)
    chromium.faults.clear()
    chromium.open(f"{write(star, tmp_path / 'report.html').as_uri()}#{entry.id}")
    chromium.until("document.querySelector('#reader table')")
    cells = chromium.run(
        "[...document.querySelectorAll('#reader tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )

    def number(value):
        return "–" if value is None else f"{value:.3f}"

    names = ("ifd_small", "ifd_large", "judged", "score")
    assert cells == [
        [
            f"{one['pair']}{' (chosen)' * (one['pair'] == entry.pair)}",
            *(number(one[name]) for name in names),
            one["why"] or "",
        ]
        for one in entry.candidates
    ]
    assert not chromium.faults


@needs_chromium
def test_schemes_and_a_narrow_screen(seen):
    ground = "getComputedStyle(document.body).backgroundColor"
    bright = seen.run(ground)
    for _ in range(2):
        seen.run("document.getElementById('theme').click()")
    assert seen.run("document.documentElement.dataset.theme") == "dark" and seen.run(ground) != bright
    seen.run("document.getElementById('theme').click()")
    seen.resize(400, 800)
    file = seen.addresses[-1].split("#")[0]
    for place in ("#overview", "#dialogues"):
        seen.open(file + place)
        assert seen.run("document.documentElement.scrollWidth <= innerWidth")
    seen.until("document.querySelector('.row')")
    seen.run("document.querySelector('.row').click()")
    seen.until("document.querySelector('.turn')")
    assert seen.run("document.documentElement.scrollWidth <= innerWidth")
    assert seen.run("getComputedStyle(document.getElementById('list')).display") == "none"
    seen.run("document.querySelector('.back').click()")
    assert seen.run("getComputedStyle(document.getElementById('list')).display") == "block"


@needs_chromium
def test_a_file_that_is_cut_off_says_so(chromium, page, tmp_path):
    cut = tmp_path / "cut.html"
    html = page.read_bytes()
    cut.write_bytes(html[: html.index(b'<script type="application/gzip" id="d0">')])
    chromium.resize(1300, 900)
    chromium.open(f"{cut.as_uri()}#dialogues")
    chromium.until("document.querySelector('#reader [role=alert]')")
    assert "cut off" in chromium.run("document.getElementById('reader').textContent")
