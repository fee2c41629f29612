"""The command line: help, exit codes, and messages that say what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_generate import broken, play, rows_recipe, write_rows

from boost_qa import cli
from boost_qa.config import Recipe
from boost_qa.run_folder import RunFolder

COMMANDS = ("generate", "check", "report", "analogies", "export", "show", "models")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `boost-qa` with these arguments: exit code, standard output, standard error."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["boost-qa", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        written = capsys.readouterr()
        assert "Traceback" not in written.err + written.out
        return code, written.out, written.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[RunFolder, Recipe]:
    """A finished run of 20 dialogues, one of them rejected."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = rows_recipe(write_rows(folder / "rows.jsonl"))
    run, _ = play(folder / "run", recipe, unusable="What is 7 + 7?")
    return run, recipe


def recipe_file(folder: Path, recipe: Recipe) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    return path


# --- help ----------------------------------------------------------------------------------------


def test_script_is_installed_and_explains_itself():
    script = Path(sys.executable).with_name("boost-qa")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS) and "boost-qa generate demo_small" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0 and f"boost-qa {name}" in out and len(out.splitlines()) > 5
    assert name in [registered.callback.__name__ for registered in cli.app.registered_commands]


def test_without_a_command_help_is_shown(command):
    code, out, err = command()
    assert code in (0, 2) and all(name in out + err for name in COMMANDS)


# --- what is wrong at the door -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["generate"],
        ["export", "run"],
        ["show", "--limit", "many", "run"],
        ["generate", "demo", "--colour"],
    ],
)
def test_wrong_usage_is_code_2(command, arguments):
    code, out, err = command(*arguments)
    assert code == 2 and out == "" and "Usage" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "no_such"], "no recipe 'no_such'"),
        (["generate", "nowhere/recipe.yaml"], "no recipe 'nowhere/recipe.yaml'"),
        (["generate", "demo", "sed=3"], "unknown key 'sed' (nearest known key: 'seed')"),
        (["generate", "demo", "seed"], "override 'seed' is not key=value"),
        (["generate", "demo", "models.strong.slots=0"], "models.strong.slots: "),
        (["generate", "demo", "sources.0={source: orca_math, path: nowhere.jsonl}"], "nowhere.jsonl"),
        (["generate", "demo", "models.weak.model=gpt-17"], "models.weak.model: no model 'gpt-17'"),
        (["show", "nowhere"], "no run folder and no recipe 'nowhere'"),
        (["export", "nowhere", "out"], "no run folder and no recipe 'nowhere'"),
        (["show", "."], "is no run folder"),
        (["show", "demo"], "recipe 'demo' has no run yet\n  Make one: boost-qa generate demo\n"),
        (["models", "gpt-17"], "no model 'gpt-17'"),
        (["models", "all-minilm"], "nearest name: 'all-minilm-l6-v2'"),
    ],
)
def test_what_cannot_work_is_code_2_with_the_remedy(command, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    code, out, err = command(*arguments)
    assert (code, out) == (2, "") and said in err
    message = [line for line in err.splitlines() if line]
    start = next(place for place, line in enumerate(message) if line.startswith("error: "))
    assert message[start + 1].startswith("  "), "the remedy stands on a line of its own"


def test_bad_recipe_file_is_code_2(command, tmp_path):
    path = tmp_path / f"{'long' * 30}.yaml"
    path.write_text("name: x\nsources: []\nmodel: {}\n")
    code, _, err = command("generate", path)
    assert code == 2 and f"error: {path}: " in err, "the path is in one piece"
    assert "unknown key 'model' (nearest known key: 'models')" in err and "sources: " in err


def test_secret_in_a_recipe_is_not_printed(command, tmp_path, finished):
    raw = finished[1].model_dump(mode="json")
    raw["models"]["weak"] = {"engine": "openai", "base_url": "https://me:hunter2@host/v1", "model": "m"}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    code, out, err = command("generate", path)
    assert code == 2 and "models.weak.base_url" in err and "hunter2" not in out + err


def test_engine_that_fails_is_code_1(command, tmp_path, finished):
    """A replay of an unfinished run: something was done, and the journal lacks the rest."""
    path = recipe_file(tmp_path, finished[1])
    broken(tmp_path / "old", 9, finished[1])
    code, _, err = command("generate", path, "--output", tmp_path / "new", "--replay", tmp_path / "old")
    assert code == 1 and "error: the journal holds no answer" in err
    assert "while asking model" in err, "record, call and model are named"


# --- generate ------------------------------------------------------------------------------------


def test_generate_replays_and_prints_the_summary(command, tmp_path, finished):
    run, recipe = finished
    path = recipe_file(tmp_path, recipe)
    code, out, err = command("generate", path, "--output", tmp_path / "new", "--replay", run.path)
    assert code == 0 and (tmp_path / "new" / "dialogues.jsonl").read_bytes() == run.dialogues_file.read_bytes()
    manifest = run.manifest()
    kept = {scenario: sum(counts.values()) for scenario, counts in manifest["dialogues"].items()}
    header = next(line for line in out.splitlines() if "debate" in line)
    figures = next(line for line in out.splitlines() if re.match(r"\W*kept", line))
    assert re.findall(r"\w[\w ]*\w", header) == ["dialogues", *(name.replace("_", " ") for name in sorted(kept)), "all"]
    assert re.findall(r"\d+", figures) == [str(kept[name]) for name in sorted(kept)] + ["19"]
    assert re.search(r"\w+: empty", out) and f"{manifest['usage']['requests']:,} replies" in out
    assert str(tmp_path / "new") in out, "the folder is in one piece, to be copied"
    assert "dialogues" in err, "progress goes to standard error"


def test_quiet_shows_no_progress(command, tmp_path, finished):
    run, recipe = finished
    path = recipe_file(tmp_path, recipe)
    code, out, err = command("generate", path, "-o", tmp_path / "new", "--replay", run.path, "-q")
    assert code == 0 and err == "" and "run folder" in out


def test_generate_again_does_nothing(command, tmp_path, finished):
    run, recipe = finished
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    code, out, _ = command("generate", recipe_file(tmp_path, recipe), "--output", run.path)
    assert code == 0 and str(run.path) in out
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_generate_into_the_folder_of_another_recipe_is_code_2(command, tmp_path, finished):
    run, recipe = finished
    code, _, err = command("generate", recipe_file(tmp_path, recipe), "seed=77", "--output", run.path)
    assert code == 2 and "its recipe differs" in err


def test_interrupted_from_the_keyboard(tmp_path, finished):
    """A server that never answers, and Ctrl-C."""
    raw = finished[1].model_dump(mode="json")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        raw["models"] = {alias: {"engine": "openai", "base_url": address, "model": alias} for alias in raw["models"]}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(raw))
        silent.settimeout(60)
        arguments = [sys.executable, "-m", "boost_qa.cli", "generate", str(path), "-o", str(tmp_path / "run")]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()  # it has begun to ask
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == 130 and "Traceback" not in err and out == ""
    assert "the same command goes on from here" in err
    assert RunFolder(tmp_path / "run").begun


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_folders_that_cannot_be_are_told_and_not_traced(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = command("generate", "demo_small", "-o", tmp_path / "file")
    assert code == 2 and "cannot be a run folder" in err and (tmp_path / "file").read_text() == "mine"
    code, _, err = command("generate", "demo_small", "-o", "/proc/self/run")
    assert code == 2 and "/proc/self/run cannot be a run folder" in err


def test_what_a_disk_says_is_told_and_not_traced(command, tmp_path, finished, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "page.html"))

    monkeypatch.setattr("boost_qa.page.write", full)
    code, _, err = command("report", finished[0].path)
    assert code == 1 and "No space left on device" in err and "page.html" in err and "same command" in err


# --- show ----------------------------------------------------------------------------------------


def test_show_prints_dialogues_with_speakers_and_reference(command, finished):
    run, _ = finished
    code, out, _ = command("show", run.path, "--limit", 2)
    first, second = list(run.dialogues())[:2]
    assert code == 0 and first["record"]["id"] in out and second["record"]["id"] in out
    assert out.count("reference answer") == 2 and first["record"]["answer"] in out
    assert "human  question" in out and re.search(
        r"gpt  (weak student|student a)  weak-model at 0\.8|middle-model at 0\.6", out
    )
    assert "<|im_end|>" in out, "texts are shown as they are"


def test_show_filters(command, finished):
    run, _ = finished
    debates = [row for row in run.dialogues() if row["scenario"] == "debate"]
    code, out, _ = command("show", run.path, "--scenario", "debate", "-n", 99)
    assert code == 0 and out.count("reference answer") == len(debates) and "error_correction" not in out
    code, out, _ = command("show", run.path, "--find", "WHAT IS 11 + 11?")
    assert code == 0 and out.count("reference answer") == 1 and "22" in out
    code, out, _ = command("show", run.path, "--source", "rows", "-n", 3)
    assert code == 0 and out.count("reference answer") == 3


def test_show_one_of_each_scenario_that_fits(command, finished):
    run, _ = finished
    code, out, _ = command("show", run.path, "--one-per-scenario")
    assert code == 0 and out.count("reference answer") == 2
    last = {row["scenario"]: row for row in run.dialogues()}
    for scenario, row in last.items():  # the first one of the scenario does not fit
        code, out, _ = command("show", run.path, "--one-per-scenario", "--find", row["record"]["question"])
        assert code == 0 and row["record"]["id"] in out and scenario in out


def test_show_without_a_match_is_code_2(command, finished):
    code, out, err = command("show", finished[0].path, "--find", "no such text")
    assert (code, out) == (2, "") and "no dialogue matches; there are: " in err


def test_show_rejected(command, finished):
    run, _ = finished
    (row,) = run.rejected()
    code, out, _ = command("show", run.path, "--rejected")
    assert code == 0 and row["scenario"] in out and "empty" in out
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    assert "".join(cell[0] for cell in cells) == row["record"], "the id is not cut off"


def test_show_what_an_unfinished_run_has(command, tmp_path, finished):
    broken(
        tmp_path / "run",
        40,
        finished[1].model_copy(update={"runner": finished[1].runner.model_copy(update={"in_flight": 2})}),
    )
    code, out, _ = command("show", tmp_path / "run", "-n", 99)
    assert code == 0 and 1 <= out.count("reference answer") < 20


# --- export --------------------------------------------------------------------------------------


def test_export_can_be_loaded(command, tmp_path, finished):
    from datasets import load_dataset

    folder = tmp_path / ("long" * 20) / "export"
    code, out, _ = command("export", finished[0].path, folder)
    assert code == 0 and f'load_dataset("{folder}")' in out, "in one piece, to be copied"
    loaded = load_dataset(str(folder), "all", cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, loaded.values())) == 19


def test_export_of_an_unfinished_run_must_be_asked_for(command, tmp_path, finished):
    recipe = finished[1].model_copy(update={"runner": finished[1].runner.model_copy(update={"in_flight": 2})})
    broken(tmp_path / "run", 40, recipe)
    code, _, err = command("export", tmp_path / "run", tmp_path / "out")
    assert code == 2 and "is not finished" in err and not (tmp_path / "out").exists()
    code, _, _ = command("export", tmp_path / "run", tmp_path / "out", "--partial")
    assert code == 0 and (tmp_path / "out" / "README.md").exists()


def test_export_replaces_nothing_of_others(command, tmp_path, finished):
    (tmp_path / "diary.txt").write_text("dear diary")
    code, _, err = command("export", finished[0].path, tmp_path)
    assert code == 2 and "diary.txt" in err and os.listdir(tmp_path) == ["diary.txt"]


# --- models --------------------------------------------------------------------------------------


def test_models_are_listed_with_their_whole_names(command, tmp_path, monkeypatch):
    from boost_qa.models import catalogue

    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command("models")
    assert code == 0 and len(catalogue()) >= 3
    assert all(re.search(rf"│ {re.escape(listing.name)} +│", out) for listing in catalogue())
    assert "yes" not in out and out.count("no") >= 3, "nothing is there in an empty cache"


def test_output_is_plain_where_nobody_looks(tmp_path, finished):
    """No colours and no control characters in a pipe."""
    arguments = [sys.executable, "-m", "boost_qa.cli", "show", str(finished[0].path), "-n", "1"]
    done = subprocess.run(arguments, capture_output=True, check=True, env={**os.environ, "TERM": "xterm-256color"})
    assert b"\x1b" not in done.stdout and done.stderr == b""
    assert json.loads(next(finished[0].dialogues_file.open()))["record"]["id"].encode() in done.stdout


def test_the_version_is_told():
    import boost_qa

    done = subprocess.run([sys.executable, "-m", "boost_qa.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"boost_qa {boost_qa.__version__}\n")
