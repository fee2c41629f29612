"""`kill -9` anywhere, then go on: what is asked twice, and whether a byte of the dataset differs.

Error correction over a table of records, three models behind one local server: three requests that
depend on each other for every record. The server's replies derive from the request alone, so an
undisturbed run gives the rows to compare with. Three ways to disturb it, each at random points:

    kill       the process is killed; the same command goes on to the end
    torn       the same, and the journal's last pages are cut off or garbled before it goes on
    again      one run, killed again and again before it is let go on to the end

    python benchmarks/crash.py --kills 20

Requests asked twice are counted by the server. They should be those whose reply was not in the journal
at a kill: asked and on their way, so never more than the engines' slots together.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import report
import yaml
from process import Server

PREDICTION = """
After a kill: asked twice is exactly what was asked and not in the journal, between 0 and the 48 slots,
around 30 with a latency of 8 ms and a commit each 2 ms. After a torn tail also the replies whose pages
were lost, some tens more. All rows there once and identical to the undisturbed run in every trial.
"""
NOTHING_TO_TEAR = "nothing: a checkpoint had just taken over all pages"
TURNS = 3
MODELS = ("small", "middle", "large")


@dataclass
class Trial:
    """One run that was disturbed; `unkept` are requests asked but not in the journal, at all kills."""

    way: str
    killed_at: list[int]
    unkept: list[int]
    torn: str
    asked_twice: int
    rows: int
    unique: bool
    identical: bool
    journal_sound: bool


class Lesson:
    """A recipe over records of its own in `home`, and the command that generates it."""

    def __init__(self, home: Path, url: str, options: argparse.Namespace) -> None:
        self.records, self.slots = options.records, options.slots
        table = home / "records.jsonl"
        rows = ({"q": f"What is {at} times {at + 7}?", "a": f"It is {at * (at + 7)}."} for at in range(options.records))
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        engine = {"engine": "openai", "base_url": url, "concurrency": options.slots // len(MODELS)}
        cast = zip(("weak_student", "teacher", "strong_student"), MODELS, strict=True)
        recipe: dict[str, Any] = {
            "name": "crash",
            "sources": [{"source": "columns", "name": "table", "path": str(table), "question": "q", "answer": "a"}],
            "scenarios": {
                "error_correction": {"cast": {role: {"model": model, "temperature": 0.7} for role, model in cast}},
                "debate": None,
                "analogical_reasoning": None,
            },
            "models": {model: {**engine, "model": model} for model in MODELS},
            "runner": {"in_flight": options.in_flight},
        }
        self.recipe = home / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        command = ["-m", "boost_qa.cli", "generate", str(self.recipe), "--output", str(folder), "--quiet"]
        return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)

    def finish(self, folder: Path) -> None:
        if status := self.start(folder).wait():
            raise SystemExit(f"the run in {folder} ended with exit status {status}")

    @property
    def requests(self) -> int:
        return int(self.records) * TURNS


def kill_at(lesson: Lesson, server: Server, folder: Path, count: int) -> tuple[int, int]:
    """Kill a run when the server has been asked `count` requests.

    Returns:
        How many had been asked when it was dead, and how many of all so far are not in the journal.
        Where the run was over before the kill, it is left as it is.
    """
    process = lesson.start(folder)
    while process.poll() is None and server.stats()["requests"] < count:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.05)  # what it had sent is still on its way to the server
    asked = server.stats()["requests"]
    return asked, asked - kept(folder / "journal.sqlite")


def kept(journal: Path) -> int:
    """Replies in the journal, read from a copy: reading would mend the files that the kill left behind."""
    with copy_of(journal) as copied, closing(sqlite3.connect(copied)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:  # killed before there was a table
            return 0


def sound(journal: Path) -> bool:
    with copy_of(journal) as copied, closing(sqlite3.connect(copied)) as db:
        return bool(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


@contextmanager
def copy_of(journal: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for file in journal.parent.glob(journal.name + "*"):
            shutil.copy(file, folder)
        yield Path(folder) / journal.name


def tear(journal: Path, chance: Random, pages: int = 16) -> str:
    """Cut off or garble the end of the write-ahead log, as a power cut could.

    Only pages that no checkpoint has taken over: those before were on disk for certain, and the main
    file relies on them. The log's index beside it says which these are.
    """
    wal, index = (journal.with_name(journal.name + end) for end in ("-wal", "-shm"))
    head = index.read_bytes()[:100]
    size, last, synced = (int.from_bytes(head[at:end], sys.byteorder) for at, end in ((14, 16), (16, 20), (96, 100)))
    first = max(synced, last - pages)
    if first == last:
        return NOTHING_TO_TEAR
    start, end = (32 + frames * (24 + size) for frames in (first, last))
    place = chance.randrange(start, end)
    raw = bytearray(wal.read_bytes())
    if chance.random() < 0.5:
        del raw[place:]
        what = "cut off"
    else:
        for at in range(place, min(place + chance.randint(1, 64), end)):
            raw[at] ^= chance.randint(1, 255)
        what = "garbled"
    wal.write_bytes(raw)
    return f"{what} at {end - place} bytes before the end"


def disturb(
    lesson: Lesson, server: Server, folder: Path, way: str, points: list[int], chance: Random, plain: bytes
) -> Trial:
    """One run, killed at each of `points` in turn, then finished and compared with the undisturbed one."""
    server.reset()
    journal, torn, killed, unkept, again = folder / "journal.sqlite", "", [], [], 0
    for point in points:
        asked, missing = kill_at(lesson, server, folder, point)
        killed.append(asked)
        unkept.append(missing - again)
        again = missing
        if way == "torn":
            torn = tear(journal, chance)
    lesson.finish(folder)
    raw = (folder / "dialogues.jsonl").read_bytes()
    ids = [json.loads(line)["id"] for line in raw.splitlines()]
    return Trial(
        way, killed, unkept, torn,
        asked_twice=server.stats()["requests"] - lesson.requests,
        rows=len(ids), unique=len(set(ids)) == len(ids), identical=raw == plain, journal_sound=sound(journal),
    )  # fmt: skip


def fails(trial: Trial, lesson: Lesson) -> bool:
    """Whether a guarantee did not hold."""
    asked_too_often = trial.way != "torn" and (
        trial.asked_twice != sum(trial.unkept) or max(trial.unkept) > lesson.slots
    )
    whole = trial.rows == lesson.records and trial.unique and trial.identical and trial.journal_sound
    return asked_too_often or not whole


def main() -> None:
    options = parse()
    chance = Random(options.seed)
    trials: list[Trial] = []
    serve = [part for model in MODELS for part in ("--model", model)]
    with (
        tempfile.TemporaryDirectory() as name,
        Server(*serve, "--words", "40", "--latency", str(options.latency)) as server,
    ):
        home = Path(name)
        lesson = Lesson(home, server.url, options)
        began = time.perf_counter()
        lesson.finish(home / "plain")
        seconds = time.perf_counter() - began
        plain = (home / "plain" / "dialogues.jsonl").read_bytes()
        assert server.stats()["requests"] == lesson.requests == server.stats()["completions"]
        lesson.finish(home / "plain")  # a finished run asks nothing
        assert server.stats()["requests"] == lesson.requests
        for way in ("kill", "torn"):
            left = options.kills
            while left:
                points, folder = [chance.randint(1, lesson.requests)], home / f"{way}{left}"
                shutil.rmtree(folder, ignore_errors=True)
                trials.append(disturb(lesson, server, folder, way, points, chance, plain))
                left -= trials[-1].torn != NOTHING_TO_TEAR
        points = sorted(chance.sample(range(1, lesson.requests), options.kills))
        trials.append(disturb(lesson, server, home / "again", "again", points, chance, plain))
    failed = [trial for trial in trials if fails(trial, lesson)]
    rows = []
    for way in ("kill", "torn", "again"):
        of_way = [trial for trial in trials if trial.way == way]
        twice = report.spread([trial.asked_twice for trial in of_way], 0)
        worst = max(unkept for trial in of_way for unkept in trial.unkept)
        whole = sum(trial.rows == lesson.records and trial.unique for trial in of_way)
        same = sum(trial.identical for trial in of_way)
        kills = str(sum(len(trial.killed_at) for trial in of_way))
        rows.append(
            (
                way,
                kills,
                f"{twice['median']:.0f}",
                f"{twice['max']:.0f}",
                str(worst),
                *(f"{n}/{len(of_way)}" for n in (whole, same)),
            )
        )
    report.show(
        f"{lesson.requests} requests of {options.records} records, {options.slots} slots",
        ("", "kills", "asked twice", "most", "on the way at a kill, most", "complete", "identical"),
        rows,
    )
    result = {"plain_seconds": round(seconds, 2), "failed": len(failed), "trials": [asdict(trial) for trial in trials]}
    settings = {key: value for key, value in vars(options).items() if key not in ("output", "repeats")}
    report.write(options.output, PREDICTION, settings, result)
    if failed:
        raise SystemExit(f"a guarantee did not hold: {failed}")


def parse() -> argparse.Namespace:
    parser = report.parser("crash", __doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each way (default: %(default)s)")
    parser.add_argument("--records", type=int, default=667)
    parser.add_argument("--slots", type=int, default=48, help="of the three models together (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=96, help="dialogues at once (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.008, help="seconds until a reply (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the points of the kills")
    return parser.parse_args()


if __name__ == "__main__":
    main()
