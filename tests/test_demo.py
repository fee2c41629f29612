"""The demo as a user has it: real models, a kill midway, and the dataset at the end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boost_qa.run_folder import RunFolder

FEW = ("dialogues=6", "models.small.slots=6")


def boost_qa(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "boost_qa.cli", *arguments]


def replies(folder: Path) -> int:
    try:
        with sqlite3.connect(f"file:{folder / 'journal.sqlite'}?mode=ro", uri=True) as journal:
            return journal.execute("SELECT count(*) FROM replies").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.fixture(scope="module")
def killed_and_finished(tmp_path_factory):
    """A run on real models, killed when a few replies were in its journal, then run to its end."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    command = boost_qa("generate", "demo_small", *FEW, "--output", str(folder))
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while replies(folder) < 4 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = replies(folder)
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder, kept, done


def test_killed_run_goes_on_where_it_was(killed_and_finished):
    folder, kept, done = killed_and_finished
    manifest = RunFolder(folder).manifest()
    asked = manifest["sessions"][-1]["requests"]
    assert kept >= 4 and asked == manifest["usage"]["requests"] - kept
    assert "dialogues" in done.stdout and str(folder) in done.stdout


def test_every_record_has_a_dialogue_or_a_reason(killed_and_finished):
    run = RunFolder(killed_and_finished[0])
    dialogues, rejected = list(run.dialogues()), list(run.rejected())
    assert len(dialogues) + len(rejected) == 6 and dialogues
    for dialogue in dialogues:
        assert [turn["side"] for turn in dialogue["turns"]] == ["human", "gpt"] * (len(dialogue["turns"]) // 2)
        spoken = [turn for turn in dialogue["turns"] if turn["model"]]
        assert {turn["model"] for turn in spoken} == {"smollm2-135m-instruct"}
        assert all(turn["revision"].startswith("sha256:") and turn["text"].strip() for turn in spoken)
        assert dialogue["usage"]["completion_tokens"] > 0


def test_second_run_asks_the_models_nothing(killed_and_finished):
    folder = killed_and_finished[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = subprocess.run(
        boost_qa("generate", "demo_small", *FEW, "--output", str(folder)), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_replay_gives_the_same_bytes_without_a_model(killed_and_finished, tmp_path):
    folder = killed_and_finished[0]
    again = tmp_path / "again"
    done = subprocess.run(
        boost_qa("generate", str(folder / "recipe.yaml"), "--replay", str(folder), "--output", str(again), "--quiet"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("dialogues.jsonl", "rejected.jsonl", "records.jsonl"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_export_loads_where_the_package_is_not(killed_and_finished, tmp_path):
    folder = killed_and_finished[0]
    done = subprocess.run(boost_qa("export", str(folder), str(tmp_path / "data")), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    load = (
        "import json, sys; from datasets import load_dataset; data = load_dataset('./data', split='train');"
        "print(json.dumps([len(data), data[0]['messages'][0]['role'], 'boost_qa' in sys.modules]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    rows, role, imported = json.loads(loaded.stdout.splitlines()[-1])
    assert rows >= 1 and role == "user" and not imported
