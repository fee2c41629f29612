"""From a recipe to a run folder, with classmates that answer at once in place of models."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from boost_qa import models
from boost_qa.config import Recipe
from boost_qa.errors import EngineError, RecipeError, RunError, SourceError
from boost_qa.generate import generate
from boost_qa.plan import find_run, plan
from boost_qa.recipe_file import load_recipe
from boost_qa.run_folder import RunFolder
from boost_qa.scenarios.assignment import assign
from boost_qa.types import Call, Reply, digest

ALIASES = ("weak", "middle", "strong")
FILES = {
    "recipe.yaml",
    "manifest.json",
    "records.jsonl",
    "neighbours.json",
    "bad_rows.jsonl",
    "journal.sqlite",
    "dialogues.jsonl",
    "rejected.jsonl",
}


@dataclass
class Blackboard:
    """What all classmates of one run saw."""

    asked: list[tuple[str, str, int, str]] = field(default_factory=list)
    answered: list[tuple[str, str, int, str]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0


@dataclass
class Classmate:
    """An engine whose replies are a function of the call. `after` is how many answers all give until one fails."""

    board: Blackboard
    revision: str | None = "r1"
    after: int | None = None
    unusable: str = ""  # what is asked by a role prompt or question that holds this text gets no usable reply
    slots: int = 16

    async def open(self) -> None:
        self.board.opened += 1

    async def ask(self, call: Call) -> Reply:
        key = (call.record, call.scenario, call.ordinal, call.digest)
        self.board.asked.append(key)
        for _ in range(call.seed % 5):  # they finish in another order than they began
            await asyncio.sleep(0)
        if self.after is not None and len(self.board.answered) >= self.after:
            raise EngineError("the server has gone away", "Start it again.")
        self.board.answered.append(key)
        if self.unusable and any(self.unusable in message.content for message in call.request.messages):
            return Reply("", prompt_tokens=3, completion_tokens=1)
        words = " ".join(digest(call.digest, str(call.ordinal), str(place))[:6] for place in range(8))
        text = f"“{call.request.model}”, {call.seed}:\n{words} \u2028 <|im_end|> {{answer}}"
        return Reply(text, prompt_tokens=len(str(call.request)), completion_tokens=len(text))

    async def close(self) -> None:
        self.board.closed += 1


def classmates(board: Blackboard, **changes: Any) -> dict[str, Classmate]:
    return {alias: Classmate(board, **changes) for alias in ALIASES}


def recipe(**changes: Any) -> Recipe:
    """36 records of two scenarios, from the packaged sample."""
    raw = {
        "name": "class",
        "seed": 5,
        "sources": [{"source": "sample", "n": 36}],
        "scenarios": {"analogical_reasoning": None},
        "models": {alias: {"engine": "embedded", "model": f"{alias}-model"} for alias in ALIASES},
        "validation": 0.1,
    }
    return Recipe.model_validate(raw | changes)


def rows_recipe(path: Path, **changes: Any) -> Recipe:
    source = {"source": "columns", "name": "rows", "path": str(path), "question": "q", "answer": "a", "id": "id"}
    return recipe(sources=[source], **changes)


def write_rows(path: Path, count: int = 20) -> Path:
    rows = [{"id": f"row{n}", "q": f"What is {n} + {n}?", "a": f"{2 * n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def play(folder: Path, what: Recipe | None = None, **changes: Any) -> tuple[RunFolder, Blackboard]:
    board = Blackboard()
    return generate(what or recipe(), folder, engines=classmates(board, **changes), show=False), board


def broken(folder: Path, after: int, what: Recipe | None = None, **changes: Any) -> Blackboard:
    """A session that ends with an error after so many answers."""
    board = Blackboard()
    with pytest.raises(EngineError, match="gone away"):
        generate(what or recipe(), folder, engines=classmates(board, after=after, **changes), show=False)
    return board


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[RunFolder, Blackboard]:
    """An undisturbed run."""
    return play(tmp_path_factory.mktemp("runs") / "whole")


# --- a whole run ---------------------------------------------------------------------------------


def test_run_folder_is_complete_and_readable(whole):
    run, _ = whole
    names = {path.name for path in run.path.iterdir() if not path.name.startswith((".", "journal.sqlite-"))}
    assert names == FILES and run.finished and run.begun
    assert [record.id for record in run.records()] == [row["id"] for row in lines(run.records_file)]
    assert len(list(run.records())) == 36
    assert list(run.dialogues()) == lines(run.dialogues_file) and list(run.rejected()) == [] == lines(run.rejected_file)
    assert lines(run.bad_rows_file) == [] and json.loads(run.neighbours_file.read_text()) == {}


def test_manifest_says_what_is_in_the_folder(whole):
    run, board = whole
    manifest = run.manifest()
    kept: dict[str, Counter[str]] = {}
    for dialogue in run.dialogues():
        kept.setdefault(dialogue["scenario"], Counter())[dialogue["record"]["source"]] += 1
    assert manifest["dialogues"] == kept and sum(map(Counter.total, kept.values())) == 36
    assert manifest["rejected"] == {} and manifest["finished"] is True
    assert manifest["dialogues_digest"] == hashlib.sha256(run.dialogues_file.read_bytes()).hexdigest()
    usage = Counter[str]()
    for dialogue in run.dialogues():
        usage.update(dialogue["usage"])
    assert manifest["usage"] == usage and usage["requests"] == len(board.answered) == len(set(board.answered))
    assert [session["requests"] for session in manifest["sessions"]] == [len(board.answered)]
    assert manifest["models"] == {
        alias: {"engine": "embedded", "model": f"{alias}-model", "revision": "r1"} for alias in ALIASES
    }
    assert set(manifest["prompts"]) == {
        f"error_correction/{role}" for role in ("weak_student", "teacher", "strong_student")
    } | {f"debate/student_{letter}" for letter in "abc"}
    assert {"python", "boost_qa", "datasets"} <= set(manifest["versions"])
    assert [source["taken"] for source in manifest["sources"]] == [12, 12, 12]
    assert manifest["recipe"] == recipe().model_dump(mode="json")


def test_engines_are_opened_and_closed_once(whole):
    _, board = whole
    assert (board.opened, board.closed) == (3, 3)


def test_dialogues_come_in_the_order_of_the_assignment(whole):
    run, _ = whole
    pairs = assign(list(run.records()), {"error_correction": 1.0, "debate": 1.0}, seed=5)
    assert [(row["record"]["id"], row["scenario"]) for row in run.dialogues()] == [
        (record.id, name) for record, name in pairs
    ]
    assert len({row["id"] for row in run.dialogues()}) == 36


def test_turns_carry_model_revision_and_prompt(whole):
    run, _ = whole
    prompts = run.manifest()["prompts"]
    for dialogue in run.dialogues():
        question, *spoken = dialogue["turns"]
        assert question["text"] == dialogue["record"]["question"]
        assert (question["model"], question["revision"], question["prompt_digest"]) == (None, None, None)
        for turn in spoken:
            assert turn["revision"] == "r1" and turn["model"] in {f"{alias}-model" for alias in ALIASES}
            assert turn["prompt_digest"] == prompts[f"{dialogue['scenario']}/{turn['speaker']}"]
            assert turn["text"].startswith(f"“{turn['model']}”")
            assert turn["text"].endswith("\u2028 <|im_end|> {answer}")


def test_seed_makes_other_dialogues(whole, tmp_path):
    other, _ = play(tmp_path, recipe(seed=6))
    assert other.dialogues_file.read_bytes() != whole[0].dialogues_file.read_bytes()


@pytest.mark.parametrize("in_flight", [1, 7, 64])
def test_dialogues_are_the_same_however_many_go_on_at_once(whole, tmp_path, in_flight):
    run, _ = play(tmp_path, recipe(runner={"in_flight": in_flight}), slots=in_flight % 5 + 1)
    assert run.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()


def test_every_record_may_be_taught_in_every_scenario(tmp_path):
    what = rows_recipe(write_rows(tmp_path / "rows.jsonl", 4), assign="all")
    run, _ = play(tmp_path / "run", what)
    assert Counter(row["scenario"] for row in run.dialogues()) == {"error_correction": 4, "debate": 4}
    assert len({row["id"] for row in run.dialogues()}) == 8


def test_some_records_may_be_left_untaught(tmp_path):
    run, _ = play(tmp_path / "run", rows_recipe(write_rows(tmp_path / "rows.jsonl"), dialogues=6))
    assert len(list(run.records())) == 20 and len(list(run.dialogues())) == 6


# --- again ---------------------------------------------------------------------------------------


def test_finished_run_is_given_back_at_once(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    run, _ = play(tmp_path / "run", rows_recipe(rows))
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    rows.unlink()  # neither sources
    again = generate(rows_recipe(rows), run.path, show=False)  # nor models are needed: there is no `weak-model`
    assert again.path == run.path and again.finished
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_finished_run_asks_nothing_and_opens_nothing(whole):
    _, board = play(whole[0].path)
    assert (board.asked, board.opened, board.closed) == ([], 0, 0)


def test_recipe_in_the_folder_is_the_recipe(whole):
    run, _ = whole
    assert load_recipe(run.recipe) == recipe()
    _, board = play(run.path, load_recipe(run.recipe))
    assert board.asked == []


def test_lost_dialogues_are_played_again_from_the_journal(whole, tmp_path):
    run = RunFolder(shutil.copytree(whole[0].path, tmp_path / "copy"))
    run.dialogues_file.unlink()
    assert not run.finished
    again, board = play(run.path)
    assert board.asked == [] and again.finished and board.opened == 0
    assert again.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()
    assert again.manifest()["sessions"] == whole[0].manifest()["sessions"], "a session without a request is none"


def test_run_in_the_cache_is_found_by_its_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(rows_recipe(write_rows(tmp_path / "rows.jsonl", 3)).model_dump(mode="json")))
    with pytest.raises(RunError, match="no run yet"):
        find_run(str(file))
    run = generate(str(file), engines=classmates(Blackboard()), show=False)
    assert run.path.parent == tmp_path / "home" / "runs" and run.path.name.startswith("class-")
    assert find_run(str(file)).path == run.path == plan(str(file)).folder
    other = generate(str(file), overrides=["seed=9"], engines=classmates(Blackboard()), show=False)
    assert other.path != run.path and find_run(str(file)).path == run.path


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "in_flight"), [(0, 7), (1, 1), (20, 7), (57, 64), (100, 7)])
def test_interrupted_run_goes_on_and_asks_nothing_twice(whole, tmp_path, after, in_flight):
    what = recipe(runner={"in_flight": in_flight})
    first = broken(tmp_path, after, what)
    assert len(first.answered) == after and first.closed == 3
    run, second = play(tmp_path, what)
    assert not set(first.answered) & set(second.asked)
    assert len(first.answered) + len(second.answered) == len(whole[1].answered)
    assert len(set(first.asked) & set(second.asked)) <= in_flight, "only what was not answered"
    assert run.finished and run.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()
    sessions = [session["requests"] for session in run.manifest()["sessions"]]
    assert len(sessions) <= 2 and sessions[-1] == len(second.answered)
    assert 0 <= after - sum(sessions[:-1]) <= in_flight, "answers that came while the session broke off are not counted"
    assert run.manifest()["usage"] == whole[0].manifest()["usage"]


def test_interrupted_again_and_again(whole, tmp_path):
    boards = [broken(tmp_path, 13) for _ in range(4)]
    run, last = play(tmp_path)
    answered = [key for board in [*boards, last] for key in board.answered]
    assert len(answered) == len(set(answered)) and set(answered) == set(whole[1].answered)
    assert run.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()


def test_unfinished_run_shows_what_it_has(whole, tmp_path):
    broken(tmp_path, 60, recipe(runner={"in_flight": 3}))
    run = RunFolder(tmp_path)
    so_far, all_of_them = list(run.dialogues()), list(whole[0].dialogues())
    assert 10 <= len(so_far) < 36 and so_far == all_of_them[: len(so_far)]
    assert not run.finished and run.begun and not run.manifest()["finished"]
    assert not run.dialogues_file.exists() and not run.rejected_file.exists()
    assert find_run(tmp_path).path == tmp_path


def test_half_written_files_are_not_taken_for_finished_ones(whole, tmp_path):
    broken(tmp_path, 60)
    run = RunFolder(tmp_path)
    part = run.dialogues_file.with_name("dialogues.jsonl.part")
    half = whole[0].dialogues_file.read_bytes()[:-100]
    part.write_bytes(half)  # the last line was being written when the power failed
    (tmp_path / "manifest.json.part").write_text("{")
    (tmp_path / "records.jsonl.part").write_text('{"id"')
    assert len(list(run.dialogues())) == 35 and not run.finished
    finished, _ = play(tmp_path)
    assert finished.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes() and not part.exists()


def test_dialogues_without_the_manifest_saying_so_are_not_finished(whole, tmp_path):
    """The power fails after the dialogues have their name and before the manifest is written."""
    run = RunFolder(shutil.copytree(whole[0].path, tmp_path / "copy"))
    run.write_manifest({**run.manifest(), "finished": False})
    assert not run.finished
    again, board = play(run.path)
    assert again.finished and board.asked == [] and again.manifest()["dialogues"] == whole[0].manifest()["dialogues"]


def test_damaged_manifest_is_named(whole, tmp_path):
    run = RunFolder(shutil.copytree(whole[0].path, tmp_path / "copy"))
    (run.path / "manifest.json").write_text('{"digest": ')
    with pytest.raises(RunError, match=r"manifest\.json"):
        play(run.path)
    (run.path / "manifest.json").unlink()  # as the message says: everything else comes back from the journal
    again, board = play(run.path)
    assert board.asked == [] and again.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()


# --- sources -------------------------------------------------------------------------------------


def test_sources_are_read_once_for_each_folder(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    broken(tmp_path / "run", 9, rows_recipe(rows))
    rows.write_text("changed meanwhile")
    run, _ = play(tmp_path / "run", rows_recipe(rows))
    assert run.finished and len(list(run.dialogues())) == 20
    with pytest.raises(SourceError):
        play(tmp_path / "other", rows_recipe(rows))


def test_missing_source_writes_nothing(tmp_path):
    with pytest.raises(SourceError):
        play(tmp_path / "run", rows_recipe(tmp_path / "nowhere.jsonl"))
    assert not RunFolder(tmp_path / "run").begun
    run, _ = play(tmp_path / "run", rows_recipe(write_rows(tmp_path / "nowhere.jsonl", 2)))
    assert run.finished


def test_bad_rows_are_named(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    with rows.open("a") as file:
        file.write('{"id": "e", "q": "", "a": "1"}\n{"id": "f", "q": "x?", "a": 7}\n')
    run, _ = play(tmp_path / "run", rows_recipe(rows))
    bad = lines(run.bad_rows_file)
    assert [row["source"] for row in bad] == ["rows", "rows"] and {row["row"].split(":")[-1] for row in bad} == {
        "5",
        "6",
    }
    assert Counter(row["reason"] for row in bad) == run.manifest()["sources"][0]["bad"]
    assert len(list(run.dialogues())) == 4 and run.manifest()["sources"][0]["read"] == 6


# --- rejected ------------------------------------------------------------------------------------


def test_rejected_records_are_written_with_their_reasons(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    run, board = play(tmp_path / "run", rows_recipe(rows), unusable="What is 7 + 7?")
    (rejected,) = run.rejected()
    by_id = {record.id: record for record in run.records()}
    assert by_id[rejected["record"]].source_id == "row7" and set(rejected) == {"record", "scenario", "reason", "detail"}
    assert rejected["reason"] in ("weak_student: empty", "student_a: empty") and "3 attempts" in rejected["detail"]
    assert run.manifest()["rejected"] == {rejected["scenario"]: {rejected["reason"]: 1}}
    assert len(list(run.dialogues())) == 19 and run.finished
    assert rejected["record"] not in {row["record"]["id"] for row in run.dialogues()}
    assert len([key for key in board.asked if key[0] == rejected["record"]]) == 3
    assert run.manifest()["usage"]["requests"] == len(board.asked), "rejected ones cost, too"


def test_run_in_which_all_are_rejected_is_finished(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 5)
    run, _ = play(tmp_path / "run", rows_recipe(rows, runner={"attempts": 1}), unusable="What")
    assert run.finished and list(run.dialogues()) == [] and len(list(run.rejected())) == 5
    assert (
        run.manifest()["dialogues"] == {}
        and sum(sum(each.values()) for each in run.manifest()["rejected"].values()) == 5
    )
    _, board = play(tmp_path / "run", rows_recipe(rows, runner={"attempts": 1}))
    assert board.asked == []


def test_rejected_rows_are_the_same_after_an_interruption(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    once, _ = play(tmp_path / "once", rows_recipe(rows), unusable="7")
    broken(tmp_path / "twice", 30, rows_recipe(rows), unusable="7")
    twice, _ = play(tmp_path / "twice", rows_recipe(rows), unusable="7")
    assert once.rejected_file.read_bytes() == twice.rejected_file.read_bytes() != b""
    assert once.dialogues_file.read_bytes() == twice.dialogues_file.read_bytes()


# --- what does not fit together ------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
def test_folder_of_another_recipe_is_refused(tmp_path, finished):
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    play(tmp_path / "run", rows_recipe(rows)) if finished else broken(tmp_path / "run", 3, rows_recipe(rows))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RunError, match="holds another run: its recipe differs") as caught:
        play(tmp_path / "run", rows_recipe(rows, seed=6))
    assert caught.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_what_is_no_content_may_change(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    broken(tmp_path / "run", 3, rows_recipe(rows))
    moved = {alias: {"engine": "embedded", "model": f"{alias}-model", "slots": 2, "threads": 1} for alias in ALIASES}
    run, board = play(tmp_path / "run", rows_recipe(rows, models=moved, runner={"in_flight": 2}))
    assert run.finished and board.asked


@pytest.mark.parametrize("change", [{"validation": 0.5}, {"name": "renamed"}])
def test_finished_run_takes_another_split_or_name_and_stays_as_it_is(tmp_path, change):
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    run, _ = play(tmp_path / "run", rows_recipe(rows))
    before, files = run.manifest(), {path.name: path.read_bytes() for path in run.path.iterdir()}
    changed = rows_recipe(rows).model_copy(update=change)
    rows.unlink()
    again, board = play(run.path, changed)
    assert again.finished and board.asked == [] and board.opened == 0
    resolved = changed.model_dump(mode="json")
    assert again.manifest() == before | {"name": changed.name, "recipe": resolved} != before
    assert load_recipe(again.recipe) == changed
    same = {"recipe.yaml", "manifest.json"}
    assert {name for name in files if (run.path / name).read_bytes() != files[name]} == same
    assert {path.name for path in run.path.iterdir()} == set(files)


def test_unfinished_run_goes_on_under_another_split_and_name(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    changed = rows_recipe(rows, validation=0.5).model_copy(update={"name": "renamed"})
    first = broken(tmp_path / "run", 3, rows_recipe(rows))
    run, second = play(tmp_path / "run", changed)
    assert run.finished and not set(first.answered) & set(second.asked)
    assert run.manifest()["name"] == "renamed" and run.manifest()["recipe"]["validation"] == 0.5
    assert load_recipe(run.recipe) == changed


def test_written_recipe_is_whole_and_in_its_own_order(tmp_path):
    run = RunFolder(tmp_path)
    run.recipe.write_text("an earlier, longer recipe" * 99)
    resolved = recipe(language="Český").model_dump(mode="json")
    run.write_recipe(resolved)
    text = run.recipe.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == resolved and list(yaml.safe_load(text)) == list(resolved)
    assert "language: Český" in text and [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_changed_prompt_is_another_run(tmp_path):
    rows, prompt = write_rows(tmp_path / "rows.jsonl", 6), tmp_path / "prompt.yaml"
    prompt.write_text(yaml.safe_dump({"role": "Reply in {language}.", "task": "{question}"}))
    cast = {"weak_student": {"model": "weak", "temperature": 0.8, "prompt": str(prompt)}}
    what = rows_recipe(
        rows, scenarios={"error_correction": {"cast": cast}, "debate": None, "analogical_reasoning": None}
    )
    play(tmp_path / "run", what)
    prompt.write_text(yaml.safe_dump({"role": "Reply in {language}!", "task": "{question}"}))
    with pytest.raises(RunError, match="the prompts have changed since"):
        play(tmp_path / "run", what)


def test_two_revisions_of_a_model_are_never_mixed(tmp_path):
    broken(tmp_path, 10)
    with pytest.raises(RunError, match=r"'middle-model' is now r2, but this run was begun with r1"):
        play(tmp_path, revision="r2")
    run, _ = play(tmp_path)
    assert {turn["revision"] for row in run.dialogues() for turn in row["turns"]} == {"r1", None}


def test_missing_engines_are_named(tmp_path):
    board = Blackboard()
    with pytest.raises(RunError, match="no engine for middle, strong") as caught:
        generate(recipe(), tmp_path, engines={"weak": Classmate(board)}, show=False)
    assert caught.value.exit_code == 2 and (board.asked, board.opened) == ([], 0)


def test_engines_that_nobody_speaks_with_are_left_alone(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    board, idle = Blackboard(), Blackboard()
    what = rows_recipe(rows, scenarios={"debate": None, "analogical_reasoning": None})
    engines = classmates(board) | {"middle": Classmate(idle), "stranger": Classmate(idle)}
    run = generate(what, tmp_path / "run", engines=engines, show=False)
    assert run.finished and set(run.manifest()["models"]) == {"weak", "strong"}
    assert board.opened == 2 and (idle.opened, idle.asked) == (0, [])


def test_folder_in_which_another_process_works_is_refused(tmp_path):
    code = (
        "import sys; from boost_qa.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another process is working"):
            play(tmp_path)
        other.stdin.close()
    run, _ = play(tmp_path)
    assert run.finished


def test_overrides_are_never_ignored(tmp_path):
    """A Recipe is ready made; `key=value` changes go with a file or a name."""
    with pytest.raises(RecipeError, match="seed=6"):
        generate(recipe(), tmp_path, overrides=["seed=6"], engines=classmates(Blackboard()), show=False)


# --- what is there already -----------------------------------------------------------------------


def test_files_of_the_user_are_not_taken_for_those_of_a_run(tmp_path):
    rows = write_rows(tmp_path / "records.jsonl")
    own = tmp_path / "recipe.yaml"
    own.write_text(yaml.safe_dump(rows_recipe(rows).model_dump(mode="json")) + "# mine\n", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=r"that one would replace: recipe\.yaml, records\.jsonl\n.*--output"):
        generate(own, tmp_path, engines=classmates(Blackboard()), show=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert generate(own, tmp_path / "run", engines=classmates(Blackboard()), show=False).finished


def test_relative_paths_of_two_projects_are_two_runs(tmp_path, monkeypatch):
    folders = []
    for project in ("one", "two"):
        (tmp_path / project).mkdir()
        monkeypatch.chdir(tmp_path / project)
        folders.append(plan(rows_recipe(Path("rows.jsonl"))).folder)
        assert plan(rows_recipe(tmp_path / project / "rows.jsonl")).files == plan(rows_recipe(Path("rows.jsonl"))).files
    assert folders[0] != folders[1]
    assert plan(recipe()).folder.name.endswith(plan(recipe()).digest[:12]), "without a file nothing is added"


def test_two_names_of_a_model_stay_one_in_a_run(whole, tmp_path):
    def one_model(**strong):
        model = {"engine": "embedded", "model": "m"}
        return recipe(models={"weak": model, "middle": model, "strong": model | strong})

    broken(tmp_path, 30, one_model())
    with pytest.raises(RunError, match=r"models.weak and models.middle and models.strong are m: .* different now"):
        generate(one_model(slots=8), tmp_path, engines=classmates(Blackboard()), show=False)
    alike = {alias: {"engine": "embedded", "model": "m", "slots": 8} for alias in ALIASES}
    _, board = play(tmp_path, recipe(models=alike))
    assert len(board.answered) == len(whole[1].answered) - 30, "nothing was asked twice"


def test_analogies_of_all_records_have_nothing_to_be_like(tmp_path):
    settings = {"analogical_reasoning": {}, "error_correction": None, "debate": None}
    rows = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(SourceError, match="every record begins one.*\n.*dialogues"):
        play(tmp_path / "run", rows_recipe(rows, scenarios=settings))
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_what_cannot_be_written_on_the_way_out_does_not_hide_why(tmp_path, monkeypatch):
    write = RunFolder.write_manifest

    def full(folder: RunFolder, manifest: dict[str, Any]) -> None:
        if manifest["sessions"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_manifest", full)
        broken(tmp_path, 30, recipe(runner={"in_flight": 2}))  # ends in the error of the engine
        with pytest.raises(OSError, match="No space left"):
            play(tmp_path)
    assert play(tmp_path)[0].finished


# --- replay --------------------------------------------------------------------------------------


def test_replay_gives_the_same_dialogues_and_asks_nothing(whole, tmp_path):
    run = generate(recipe(), tmp_path, replay=whole[0].path, show=False)
    assert run.finished and run.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()
    assert run.manifest()["usage"] == whole[0].manifest()["usage"] and run.manifest()["sessions"] == []


def test_replay_of_an_unfinished_run_says_so(tmp_path):
    broken(tmp_path / "old", 40)
    with pytest.raises(EngineError, match="the journal holds no answer"):
        generate(recipe(), tmp_path / "new", replay=tmp_path / "old", show=False)


def test_replay_over_replies_of_its_own_is_refused(whole, tmp_path):
    broken(tmp_path, 40)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match="has a journal of its own") as caught:
        generate(recipe(), tmp_path, replay=whole[0].path, show=False)
    assert caught.value.exit_code == 2 and "--output" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_replay_does_not_take_away_what_models_answered_since(whole, tmp_path):
    broken(tmp_path / "old", 20)
    with pytest.raises(EngineError, match="the journal holds no answer"):
        generate(recipe(), tmp_path / "new", replay=tmp_path / "old", show=False)
    broken(tmp_path / "new", 15)
    held = (tmp_path / "new" / "journal.sqlite").read_bytes()
    with pytest.raises(RunError, match="has a journal of its own"):
        generate(recipe(), tmp_path / "new", replay=tmp_path / "old", show=False)
    assert (tmp_path / "new" / "journal.sqlite").read_bytes() == held
    run, _ = play(tmp_path / "new")
    assert run.dialogues_file.read_bytes() == whole[0].dialogues_file.read_bytes()


def test_replay_of_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        generate(recipe(), tmp_path / "new", replay=tmp_path / "nowhere", show=False)


# --- analogies -----------------------------------------------------------------------------------


def test_analogies_end_to_end(tmp_path, monkeypatch):
    """With the real embedder, which is asked once for a folder."""
    embedder = tmp_path / "embedder"
    embedder.symlink_to(models.resolve("all-minilm-l6-v2").path)
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    analogy = {"k": 3, "embedder": str(embedder), "separator": "\n\n", "student_recalls": True}
    what = recipe(sources=[{"source": "sample"}], dialogues=30, scenarios={"analogical_reasoning": analogy})
    broken(tmp_path / "run", 40, what)
    embedder.unlink()
    run, _ = play(tmp_path / "run", what)
    assert {name: sum(counts.values()) for name, counts in run.manifest()["dialogues"].items()} == {
        "analogical_reasoning": 10, "debate": 10, "error_correction": 10
    }  # fmt: skip
    near = json.loads(run.neighbours_file.read_text())
    found = {row["record"]["id"]: row for row in run.dialogues() if row["scenario"] == "analogical_reasoning"}
    assert set(near) == set(found) and all(len(ids) == 3 for ids in near.values())
    assert not {id for ids in near.values() for id in ids} & set(found), "neighbours come from the rest of the records"
    for id, row in found.items():
        related = row["related"]
        assert related["id"] in near[id]
        assert related["source"] == row["record"]["source"]
        posed, _, again, _ = row["turns"]
        assert posed["text"].startswith(row["record"]["question"] + "\n\n“strong-model”")
        assert again["text"] == "Well done. Now try a similar question: " + related["question"]
    drawn = Counter(near[id].index(row["related"]["id"]) for id, row in found.items())
    assert len(drawn) > 1, "one of the nearest at random, not always the first"
    whole, board = play(tmp_path / "run", what)
    assert board.asked == [] and whole.finished
