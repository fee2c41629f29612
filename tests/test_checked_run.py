"""Checks from the recipe to the rows: replies asked again, records moved, dialogues that leave, and the ledger."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_generate import ALIASES, lines

from boost_qa.bookkeeping import Played
from boost_qa.check import check
from boost_qa.config import Checks, Recipe
from boost_qa.config.checks import PersonalData
from boost_qa.contents import survey
from boost_qa.errors import EngineError, RecipeError, RunError
from boost_qa.export import export
from boost_qa.generate import generate
from boost_qa.inspection import MODULES, Inspection, check_labels, inspection, masked, without_personal_data
from boost_qa.plan import plan
from boost_qa.run_folder import RunFolder
from boost_qa.types import Call, Dialogue, Record, Reply, Turn

MAIL = "lena.k@mailbox.org"


class Student:
    """Adds as it likes: `sums[alias]` is what a model makes of a sum, by how often it was asked about the record."""

    revision = "r1"
    slots = 8

    def __init__(self, alias: str, says: Any) -> None:
        self.alias, self.says = alias, says
        self.asked: Counter[str] = Counter()
        self.calls: list[Call] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, call: Call) -> Reply:
        if isinstance(self.says, Exception):
            raise self.says
        self.calls.append(call)
        self.asked[call.record] += 1
        a = int(re.search(r"What is (\d+)", call.request.messages[-1].content).group(1))
        told = call.request.messages[0].content
        return Reply(self.says(a, self.asked[call.record], told), "stop", 10, 5)


def right(a: int, times: int, told: str) -> str:
    return f"Doubling {a} gives the sum. The answer is {2 * a}."


def wrong(a: int, times: int, told: str) -> str:
    return f"I count on from {a} and lose my place. The answer is {2 * a + 1}."


def guide(a: int, times: int, told: str) -> str:
    return "Your solution is not right yet. Look at the last step again, and count slowly."


def recipe(folder: Path, checks: dict[str, Any] | None, n: int = 6, **changes: Any) -> Recipe:
    rows = [
        {"id": f"row{a}", "q": f"What is {a} + {a}, for the {a}th time?", "a": f"{2 * a}"} for a in range(10, 10 + n)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": "columns", "name": "rows", "path": str(path), "question": "q", "answer": "a", "id": "id"}
    raw = {
        "name": "checked",
        "sources": [source],
        "scenarios": {"debate": {"rounds": [1], "share": 0.0001}, "analogical_reasoning": None},
        "models": {alias: {"engine": "embedded", "model": f"{alias}-model"} for alias in (*ALIASES, "judge")},
        "checks": checks,
    }
    return Recipe.model_validate(raw | changes)


def engines(**says: Any) -> dict[str, Student]:
    spoken = {"weak": wrong, "middle": wrong, "strong": right, "judge": right} | says
    return {alias: Student(alias, say) for alias, say in spoken.items()}


def strong_and_teacher(final: Any) -> Any:
    """The teacher and the strong student are one model here."""
    return lambda a, times, told: (guide if "patient teacher" in told else final)(a, times, told)


def play(folder: Path, checks: dict[str, Any] | None, n: int = 6, **says: Any) -> tuple[RunFolder, dict[str, Student]]:
    folder.mkdir(parents=True, exist_ok=True)
    there = engines(**says)
    return generate(recipe(folder, checks, n), folder / "run", engines=there, show=False), there


ANSWERS_ONLY = {"code": None, "roles": False, "injection": None, "duplicates": None, "personal_data": None}


# --- what is seen --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> RunFolder:
    """A run that is only looked at: nothing is dropped or asked again."""
    run, _ = play(tmp_path_factory.mktemp("checked"), {}, n=12, strong=strong_and_teacher(right))
    return run


def test_every_row_says_what_it_was_checked_for_and_by_which_version(seen):
    made = Checks().made()
    for line in seen.dialogues():
        checked = {(row["check"], row["version"]) for row in line["checks"]}
        assert checked == {(name, MODULES[name].VERSION) for name in made}
        labels = [row["label"] for row in line["checks"] if row["check"] == "answers"]
        assert labels == ["weak wrong", "final right"]
        assert all(row["label"] is None or row["label"] in MODULES[row["check"]].LABELS for row in line["checks"])


def test_the_ledger_counts_what_the_rows_say(seen):
    summary = json.loads(seen.checks_summary_file.read_text())
    entries = list(seen.checks())
    assert [entry["id"] for entry in entries] == [line["id"] for line in seen.dialogues()]
    assert all(entry["kept"] and entry["why"] == [] for entry in entries)
    counted = Counter()
    for line in seen.dialogues():
        counted.update({(row["check"], row["label"], line["scenario"]) for row in line["checks"] if row["label"]})
    flat = {
        (name, label, scenario): count
        for name, labels in summary["counts"].items()
        for label, each in labels.items()
        for scenario, count in each.items()
    }
    assert flat == dict(counted)
    assert [stage["stage"] for stage in summary["funnel"]] == ["rows read", "records", "assigned", "played", "kept"]
    assert [stage["n"] for stage in summary["funnel"]] == [12] * 5
    assert seen.manifest()["checks"] == summary


def test_checked_rows_are_exported_and_loaded_with_their_findings(seen, tmp_path):
    from datasets import load_dataset

    folder = export(seen, tmp_path / "out")
    rows = load_dataset(str(folder), "error_correction", split="train", cache_dir=str(tmp_path / "cache"))
    lines_by_id = {line["id"]: line for line in seen.dialogues()}
    assert len(rows) and all(row["checks"] == lines_by_id[row["id"]]["checks"] for row in rows)
    card = (folder / "README.md").read_text()
    assert "final right" in card and "weak wrong" in card


def test_a_recipe_without_checks_has_none_in_its_digest_or_files(tmp_path):
    plain = recipe(tmp_path, None)
    assert "checks" not in plain.model_dump(mode="json") and "checks" not in plain.content()
    run, _ = play(tmp_path / "plain", None)
    assert not run.checks_file.exists() and not run.dropped_file.exists()
    assert plan(plain).digest != plan(recipe(tmp_path, {})).digest


# --- a weak student who is right -----------------------------------------------------------------


def test_a_right_mistake_is_kept_and_labelled_by_default(tmp_path):
    run, _ = play(tmp_path, ANSWERS_ONLY, weak=right, strong=strong_and_teacher(right))
    found = [
        [row["label"] for row in line["checks"]] for line in run.dialogues() if line["scenario"] == "error_correction"
    ]
    assert found and all(labels == ["weak right", "final right"] for labels in found)


def test_a_right_mistake_is_asked_again_until_it_is_wrong(tmp_path):
    checks = ANSWERS_ONLY | {"answers": {"weak_right": "ask_again"}}
    third = lambda a, times, told: (wrong if times == 3 else right)(a, times, told)  # noqa: E731
    run, there = play(tmp_path, checks, weak=third, strong=strong_and_teacher(right))
    corrections = [line for line in run.dialogues() if line["scenario"] == "error_correction"]
    assert corrections and all("lose my place" in line["turns"][1]["text"] for line in corrections)
    assert all(line["turns"][1]["usage"]["requests"] == 3 for line in corrections)


def test_a_weak_student_who_is_always_right_has_his_record_rejected(tmp_path):
    for what in ("ask_again", "drop"):
        run, there = play(tmp_path / what, ANSWERS_ONLY | {"answers": {"weak_right": what}}, weak=right)
        refused = [row for row in run.rejected() if row["scenario"] == "error_correction"]
        assert refused and all("weak right" in row["reason"] for row in refused)
        assert max(there["weak"].asked.values()) == (3 if what == "ask_again" else 1)
        assert not any(line["scenario"] == "error_correction" for line in run.dialogues())


def test_a_right_mistake_moves_its_record_to_a_debate(tmp_path):
    checks = ANSWERS_ONLY | {"answers": {"weak_right": "move"}}
    run, there = play(tmp_path, checks, weak=right, strong=strong_and_teacher(right))
    assert {line["scenario"] for line in run.dialogues()} == {"debate"} and not list(run.rejected())
    assert len({line["id"] for line in run.dialogues()}) == 6
    assert sum(there["weak"].asked.values()) >= 5


def test_moving_needs_a_debate_and_one_scenario_for_each_record(tmp_path):
    move = {"answers": {"weak_right": "move"}}
    for changes in ({"assign": "all"}, {"scenarios": {"debate": None, "analogical_reasoning": None}}):
        with pytest.raises(ValueError, match="can only move to a debate"):
            recipe(tmp_path, move, **changes)


# --- a last turn that is wrong -------------------------------------------------------------------


def test_a_wrong_end_is_asked_again_and_then_kept_or_dropped(tmp_path):
    checks = ANSWERS_ONLY | {"answers": {"final_wrong": "ask_again"}}
    late = lambda a, times, told: (right if times == 3 else wrong)(a, times, told)  # noqa: E731
    run, _ = play(tmp_path / "late", checks, strong=strong_and_teacher(late))
    corrections = [line for line in run.dialogues() if line["scenario"] == "error_correction"]
    assert corrections and all(line["checks"][-1]["label"] == "final right" for line in corrections)
    run, _ = play(tmp_path / "never", checks, strong=strong_and_teacher(wrong))
    assert {row["reason"] for row in run.rejected()} >= {"strong_student: final wrong"}


def test_a_label_that_drops_makes_its_dialogue_leave_with_its_reason(tmp_path):
    checks = ANSWERS_ONLY | {"drop": ["final wrong"]}
    some = lambda a, times, told: (wrong if a % 2 else right)(a, times, told)  # noqa: E731
    run, _ = play(tmp_path, checks, n=12, strong=strong_and_teacher(some))
    dropped, kept = list(run.dropped()), list(run.dialogues())
    assert len(dropped) == 6 and len(kept) == 6
    assert all(int(line["record"]["final"] or line["record"]["answer"]) // 2 % 2 for line in dropped)
    reasons = {row["record"]: row for row in run.rejected()}
    for line in dropped:
        assert reasons[line["record"]["id"]]["reason"] == "answers: final wrong"
        assert "expected" in reasons[line["record"]["id"]]["detail"]
    entries = {entry["id"]: entry for entry in run.checks()}
    assert all(not entries[line["id"]]["kept"] and entries[line["id"]]["why"] == ["final wrong"] for line in dropped)
    summary = run.manifest()["checks"]
    assert {stage["stage"]: stage["n"] for stage in summary["funnel"]}["kept"] == 6


def test_a_judge_decides_where_the_reference_is_free_text_and_is_named(tmp_path):
    """The reference names a reason, which nothing but a judge can compare."""
    path = tmp_path / "reasons.jsonl"
    rows = [{"id": f"{a}", "q": f"What is {a} to you, and why?", "a": "A friend, for it never lies."} for a in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": "columns", "name": "reasons", "path": str(path), "question": "q", "answer": "a", "id": "id"}
    checks = ANSWERS_ONLY | {"answers": {"judge": {"model": "judge", "temperature": 0}}, "drop": ["final wrong"]}
    asked = recipe(tmp_path, checks).model_dump(mode="json") | {"sources": [source]}
    asked["scenarios"]["debate"] = None

    class Judge(Student):
        async def ask(self, call: Call) -> Reply:
            self.calls.append(call)
            bad = "| What is 1 " in call.request.messages[-1].content
            unread = "| What is 2 " in call.request.messages[-1].content
            return Reply("I cannot say." if unread else f"Because. [[{'WRONG' if bad else 'RIGHT'}]]")

    there = engines(strong=strong_and_teacher(lambda a, times, told: "A mate that is honest with me.")) | {
        "judge": Judge("judge", right)
    }
    there["weak"].says = lambda a, times, told: "No idea at all, to be honest."
    run = generate(Recipe.model_validate(asked), tmp_path / "run", engines=there, show=False)
    found = {
        line["record"]["source_id"]: [row for row in line["checks"] if row["label"].startswith("final")][0]
        for line in [*run.dialogues(), *run.dropped()]
    }
    assert [found[each]["label"] for each in "0123"] == ["final right", "final wrong", "final unknown", "final right"]
    assert "said by judge-model" in found["0"]["detail"] and "unreadable verdict" in found["2"]["detail"]
    assert [line["record"]["source_id"] for line in run.dropped()] == ["1"]
    assert "judge" in run.manifest()["models"] and "checks/answer_judge" in run.manifest()["prompts"]


# --- the whole recipe ----------------------------------------------------------------------------


def test_a_checked_run_is_replayed_without_a_model_or_a_comparison(tmp_path, monkeypatch):
    checks = {"drop": ["final wrong"], "answers": {"final_wrong": "ask_again"}}
    run, _ = play(tmp_path, checks, strong=strong_and_teacher(right))
    from boost_qa.engines.workers import Workers

    async def never(self: Workers) -> None:
        raise AssertionError("a replay compares nothing")

    monkeypatch.setattr(Workers, "open", never)
    copy = generate(recipe(tmp_path, checks), tmp_path / "copy", replay=run.path, show=False)
    for name in ("dialogues_file", "checks_file", "dropped_file", "rejected_file", "checks_summary_file"):
        assert getattr(copy, name).read_bytes() == getattr(run, name).read_bytes(), name


def test_a_checked_run_that_is_stopped_goes_on_to_the_same(tmp_path):
    checks = {"answers": {"final_wrong": "ask_again"}, "drop": ["final wrong"]}
    whole, _ = play(tmp_path / "whole", checks, strong=strong_and_teacher(right))
    said = 0

    def breaks(a: int, times: int, told: str) -> str:
        nonlocal said
        said += 1
        if said > 5:
            raise EngineError("the server has gone away", "Start it again.")
        return strong_and_teacher(right)(a, times, told)

    with pytest.raises(EngineError):
        play(tmp_path / "whole" / "again", checks, strong=breaks)
    again = tmp_path / "whole" / "again"
    (again / "rows.jsonl").write_bytes((tmp_path / "whole" / "rows.jsonl").read_bytes())
    assert not RunFolder(again / "run").checks_file.exists()
    run, _ = play(again, checks, strong=strong_and_teacher(right))
    assert run.dialogues_file.read_bytes() == whole.dialogues_file.read_bytes()
    assert run.checks_file.read_bytes() == whole.checks_file.read_bytes()


def test_personal_data_of_a_source_is_masked_before_anybody_sees_it(tmp_path):
    rows = tmp_path / "mail.jsonl"
    rows.write_text(json.dumps({"q": f"What is 7 + 7? Write to {MAIL}.", "a": f"14, says {MAIL}"}) + "\n")
    source = {"source": "columns", "name": "rows", "path": str(rows), "question": "q", "answer": "a"}
    telling = lambda a, times, told: f"The answer is 14. Ask sam.w@mailbox.org, {times}."  # noqa: E731
    there = engines(strong=strong_and_teacher(telling))
    asked = recipe(tmp_path, {}).model_dump(mode="json") | {"sources": [source]}
    run = generate(Recipe.model_validate(asked), tmp_path / "run", engines=there, show=False)
    for path in run.path.iterdir():
        if path.is_file():
            assert MAIL.encode() not in path.read_bytes(), path.name
    (line,) = run.dialogues()
    assert "sam.w@" not in json.dumps(line) and "[mail address]" in line["turns"][-1]["text"]
    assert run.manifest()["masked"] == {"rows": {"mail address": 2}}
    assert any(row["label"] == "mail address" for row in line["checks"])


def test_canaries_are_in_every_role_prompt_and_their_leak_is_seen(tmp_path):
    leaking = lambda a, times, told: f"I am {re.search('mark-[0-9a-f]+', told).group()}. The answer is {2 * a}."  # noqa: E731
    run, there = play(tmp_path, {"drop": ["leaks the canary"]}, strong=strong_and_teacher(leaking))
    told = {call.request.messages[0].content for each in there.values() for call in each.calls}
    assert told and all(re.search(r"mark-[0-9a-f]{12}", text) for text in told)
    assert not list(run.dialogues()) and len(list(run.dropped())) == 6


def test_who_leaves_does_not_make_its_double_leave(tmp_path):
    """The first of two equal questions leaves for its answer; the second has to stay."""
    path = tmp_path / "doubles.jsonl"
    text = "What is 21 + 21 if Mara counts her shells twice and then gives none of them away to anybody at all?"
    path.write_text("".join(json.dumps({"id": f"{n}", "q": text + " " * n, "a": str(41 + n)}) + "\n" for n in range(2)))
    source = {"source": "columns", "name": "rows", "path": str(path), "question": "q", "answer": "a", "id": "id"}
    asked = recipe(tmp_path, {"drop": ["final wrong", "same question"]}).model_dump(mode="json") | {"sources": [source]}
    asked["scenarios"]["debate"] = None
    there = engines(strong=strong_and_teacher(right))
    run = generate(Recipe.model_validate(asked), tmp_path / "run", engines=there, show=False)
    assert [line["record"]["answer"] for line in run.dialogues()] == ["42"]


def test_a_duplicate_that_leaves_does_not_make_another_one_leave():
    texts = {
        "a": "Mara sells 12 shells at the harbour and 7 more at the station. How many shells does she sell in all?",
        "b": "A barrel of rain holds 40 litres, and the gardener takes 9 of them each day. When is it empty at last?",
    }
    one, again, other, like_other = (
        Record(f"s:{n}", "s", texts[key] + " " * n, "no", "1") for n, key in enumerate("aabb")
    )

    settings = {"answers": None, "code": None, "roles": False, "injection": None, "personal_data": None}
    looking = Inspection(Checks(**settings, drop="same question"))

    def leaves(record: Record, related: Record | None = None) -> bool:
        turns = (Turn("question", "human", record.question), Turn("student", "gpt", "So it is.", "m"))
        return bool(looking.look(Played(Dialogue(record, "x", turns, related), {})).why)

    assert not leaves(one)
    assert leaves(again, other), "and the only question about the barrel goes with it"
    assert not leaves(like_other)
    assert leaves(other), "now that one like it is there"


def test_labels_that_do_not_exist_are_told_before_anything_is_read(tmp_path):
    with pytest.raises(RecipeError, match="no such label") as error:
        plan(recipe(tmp_path, {"drop": ["final wrongg"]}))
    assert "final wrong" in str(error.value)
    with pytest.raises(RecipeError, match="the check roles is left out"):
        plan(recipe(tmp_path, {"roles": False, "drop": ["truncated"]}))
    check_labels(Checks(drop="truncated"))


def test_without_the_extra_a_recipe_with_checks_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(RecipeError, match="the check personal_data needs phonenumbers") as error:
        plan(recipe(tmp_path, {}))
    assert "pip install 'boost_qa[checks]'" in str(error.value)
    plan(recipe(tmp_path, {"personal_data": None}))


def test_code_that_is_to_run_needs_isolation_before_anything_is_asked(tmp_path, monkeypatch):
    from boost_qa.errors import BoostQAError

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoostQAError, match="bwrap"):
        play(tmp_path, {"code": {"run": True}})
    assert not (tmp_path / "run" / "dialogues.jsonl").exists()


def test_every_check_has_a_name_a_version_and_labels_of_its_own():
    labels = [label for module in MODULES.values() for label in module.LABELS]
    assert len(labels) == len(set(labels))
    assert set(MODULES) == set(Checks.model_fields) - {"drop"}
    assert all(module.VERSION and all(module.LABELS.values()) for module in MODULES.values())


# --- any run, afterwards -------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path) -> RunFolder:
    some = lambda a, times, told: (wrong if a % 2 else right)(a, times, told)  # noqa: E731
    run, _ = play(tmp_path, None, strong=strong_and_teacher(some))
    return run


def test_a_finished_run_is_checked_and_stays_as_it_is(plain):
    before = plain.dialogues_file.read_bytes()
    summary = check(plain, show=False)
    assert plain.dialogues_file.read_bytes() == before
    assert summary["counts"]["answers"]["final wrong"]["error_correction"] >= 2
    assert json.loads(plain.checks_summary_file.read_text()) == summary
    assert [entry["kept"] for entry in plain.checks()] == [True] * 6
    assert len(lines(plain.checks_file)) == 6


def test_one_check_alone_and_changed_settings(plain):
    summary = check(plain, only=["answers"], overrides=["drop=final wrong"], show=False)
    assert list(summary["checks"]) == ["answers"]
    assert {why for entry in plain.checks() for why in entry["why"]} == {"final wrong"}
    with pytest.raises(RecipeError, match="no check is called 'answer'"):
        check(plain, only=["answer"], show=False)
    with pytest.raises(RecipeError, match="contamination is off"):
        check(plain, only=["contamination"], show=False)
    with pytest.raises(RecipeError, match="answers.secondss"):
        check(plain, overrides=["answers.secondss=1"], show=False)


def test_benchmarks_are_looked_for_in_any_run(plain, tmp_path):
    questions = tmp_path / "benchmark.jsonl"
    record = next(plain.records())
    questions.write_text(json.dumps({"question": record.question}) + "\n")
    benchmark = f"contamination.benchmarks=[{{name: mine, path: {questions}}}]"
    summary = check(plain, only=["contamination"], overrides=[benchmark], show=False)
    assert sum(summary["counts"]["contamination"]["benchmark 8-gram"].values()) >= 1
    hits = lines(plain.overlaps_file)
    assert record.id in {hit["record"] for hit in hits} and {hit["benchmark"] for hit in hits} == {"mine"}


def test_what_other_checks_saw_stays(plain, tmp_path):
    summary = check(plain, overrides=["drop=[final wrong, same question]"], show=False)
    first = list(plain.checks())
    questions = tmp_path / "benchmark.jsonl"
    questions.write_text(json.dumps({"question": next(plain.records()).question}) + "\n")
    benchmark = f"contamination.benchmarks=[{{name: mine, path: {questions}}}]"
    more = check(plain, only=["contamination"], overrides=[benchmark], show=False)
    assert list(more["checks"]) == [name for name in MODULES if name in {*summary["checks"], "contamination"}]
    assert more["settings"]["drop"] == ["final wrong", "same question"]
    assert summary["counts"].items() <= more["counts"].items() and more["counts"]["contamination"]
    for before, now in zip(first, plain.checks(), strict=True):
        others, new = now["checks"][: len(before["checks"])], now["checks"][len(before["checks"]) :]
        assert (others, now["why"]) == (before["checks"], before["why"])
        assert {each["check"] for each in new} == {"contamination"}
    hits = plain.overlaps_file.read_bytes()
    again = check(plain, only=["answers"], overrides=["answers.seconds=2"], show=False)
    assert again["counts"] == more["counts"] and again["settings"]["answers"]["seconds"] == 2
    assert again["settings"]["contamination"] == more["settings"]["contamination"]
    assert plain.overlaps_file.read_bytes() == hits, "they are of a check that was not made again"
    check(plain, show=False)
    assert not plain.overlaps_file.read_bytes()


def test_a_record_that_a_benchmark_has_is_in_no_config(tmp_path):
    questions = tmp_path / "benchmark.jsonl"
    questions.write_text(json.dumps({"question": "What is 12 + 12, for the 12th time?"}) + "\n")
    benchmarks = {"benchmarks": [{"name": "mine", "path": str(questions)}]}
    run, _ = play(tmp_path, {"contamination": benchmarks, "drop": ["benchmark 8-gram"]})
    leaked = {hit["record"] for hit in lines(run.overlaps_file) if hit["scenario"] == "original"}
    assert len(leaked) == 1
    contents = survey(run)
    assert {place.record for place in contents.places("original")} == {each.id for each in run.records()} - leaked
    assert not leaked & {place.record for place in contents.places("all")}
    told, _ = play(tmp_path / "told", {"contamination": benchmarks})
    assert leaked < {place.record for place in survey(told).places("original")}, "nothing was to leave"


def test_a_turn_has_its_question_in_it_though_both_are_masked():
    question = f"Write to {MAIL}: Tom has 3 pens and buys 4 more. How many has he?"
    turns = (Turn("question", "human", question), Turn("weak_student", "gpt", "The answer is 7.", "m"))
    dialogue = Dialogue(Record("s:1", "s", question, f"Ask {MAIL}. #### 7", "1", final=None), "error_correction", turns)
    clean = masked(dialogue)
    assert MAIL not in str(clean) and clean.turns[0].text == clean.record.question and clean.record.id == "s:1"


def test_what_was_asked_is_not_asked_again(plain, monkeypatch):
    check(plain, show=False)
    first = plain.checks_file.read_bytes()
    from boost_qa.engines.workers import Workers

    async def never(self: Workers) -> None:
        raise AssertionError("it is in checks.sqlite")

    monkeypatch.setattr(Workers, "open", never)
    check(plain, show=False)
    assert plain.checks_file.read_bytes() == first


def test_what_cannot_be_checked_afterwards(plain, tmp_path):
    run, _ = play(tmp_path / "checked", {}, strong=strong_and_teacher(right))
    with pytest.raises(RunError, match="checked while it was made"):
        check(run, show=False)
    plain.dialogues_file.unlink()
    with pytest.raises(RunError, match="not finished"):
        check(plain, show=False)


def test_inspection_knows_what_each_agent_is_told(tmp_path):
    planned = plan(recipe(tmp_path, {}))
    looking = inspection(planned.recipe, planned.casts)
    assert set(looking.prompts) == {f"{name}/{role}" for name, cast in planned.casts.items() for role in cast}
    assert all(looking.markers[name.rpartition("/")[2]] in told for name, told in looking.prompts.items())


def test_findings_quote_what_is_kept_and_not_what_was_masked():
    mail = "jane.doe@gmail.com"
    said = f"In my role as a student I write to {mail}, and that is all."
    turns = (Turn("question", "human", "To whom?"), Turn("student", "gpt", said, "m"))
    record = Record("s:1", "s", "To whom?", f"To {mail}.", "1", final=mail)
    settings = Checks(code=None, contamination=None)
    seen = Inspection(settings).look(Played(Dialogue(record, "x", turns), {}))
    labels = {finding.label: finding.detail for findings in seen.found.values() for finding in findings}
    assert labels.keys() >= {"breaks the frame", "mail address"} and mail not in json.dumps(list(labels.values()))
    assert mail not in seen.dialogue.turns[1].text
    (clean,), _ = without_personal_data([record])
    assert mail not in (clean.answer + clean.final)
    whole = Inspection(settings.model_copy(update={"personal_data": PersonalData(mask=False)}))
    assert mail in whole.look(Played(Dialogue(record, "x", turns), {})).dialogue.turns[1].text
