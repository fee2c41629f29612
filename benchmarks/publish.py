"""Publishing to a local Hub, against `HfApi.upload_folder` of the same folder in the same run.

Three parts; `--parts` chooses among them:

    shards      a dataset of many small shards: to a new repository, again unchanged, with one shard changed, and
                killed with SIGKILL once half of it is up, then started again; over LFS, then over Xet
    large       one large file that goes in parts, among small ones, with SIGKILL in the middle, too
    together    four publishers at once into one repository, each with a release of its own

    python benchmarks/publish.py --repeats 3

The Hub is that of the tests, in a process of its own on this machine: no network, no latency, and the client shares
the cores with it. So ratios and counts mean something, and MB/s only beside each other. Over Xet, contents go
to its storage past the server: they are not among the bytes sent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import report
from hub import Hub, by_kind, kind_of, received
from publisher import WAYS

from boost_qa.cards.dataset import TAG
from boost_qa.export import content_digest

PREDICTION = """
Shards, new repository: checking, looking for secrets and sending take 1.2 times upload_folder's time, because batches
of 50 files leave its five threads idle at each batch's end and everything is hashed twice; reading back one row adds
a second. Some 635 requests against some 610, 300 PUT and 300 verify in both, one commit in both. Unchanged: some 15
requests and less than 2 kB sent, where upload_folder sends 300 kB of samples; about as fast. One shard changed:
one PUT, 210 kB sent, against 500 kB. Killed half-way: sent again are the five objects on their way, 1 MB.
Xet: ratio of 1.2, too. Large file: 0.7 of upload_folder's MB/s, because it is read for secrets and hashed once more
after the commit. Peak memory 60 MB over what the process has before its first request, the same for a file of a
quarter of the size. Killed in the middle of the large file: all that had been sent of it is sent again, for LFS
cannot go on within a file, and nothing of the files before it. Four at once: all four in the end, each in a commit
of its own, 8 tries at a commit, some 4 seconds more than one alone.
"""
BLOCK = 2**26  # bytes written at once
TOKEN = "hf_alice"
NAME = "alice/{}"


def make_dataset(folder: Path, shards: int, shard_bytes: int, changed: int | None = None) -> Path:
    """An export with one config of `shards` shards, in which `changed` (if any) has other rows than otherwise."""
    data = folder / "data" / "all"
    data.mkdir(parents=True)
    for number in range(shards):
        chance = random.Random(f"{number} {number == changed}")
        rows = [chance.randbytes(1000).hex()[:1990] for _ in range(shard_bytes // 2000)]
        table = pa.table({"id": [f"{number}-{row}" for row in range(len(rows))], "text": rows})
        file = data / f"train-{number:05}-of-{shards:05}.parquet"
        pq.write_table(table, file, compression="none", use_dictionary=False)
    count = shards * (shard_bytes // 2000)
    (folder / "recipe.yaml").write_text("name: made-up\n", encoding="utf-8")
    (folder / "README.md").write_text(card(content_digest(folder / "data"), count), encoding="utf-8")
    return folder


def card(digest: str, rows: int) -> str:
    """The card of such an export, as far as publishing and loading read it."""
    return f"""\
---
pretty_name: Made up
license: mit
tags:
- {TAG}
dataset_info:
- config_name: all
  features:
  - {{name: id, dtype: string}}
  - {{name: text, dtype: string}}
  splits:
  - {{name: train, num_bytes: {2000 * rows}, num_examples: {rows}}}
configs:
- config_name: all
  default: true
  description: content {digest}
  data_files:
  - {{split: train, path: data/all/train-*.parquet}}
---
# Made up
"""


def make_model(folder: Path, large_bytes: int, small: int = 20, small_bytes: int = 200_000) -> Path:
    """A large file among small ones: half of them sort before it, half after."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(large_bytes)
    for number in range(small):
        (folder / f"{'az'[number % 2]}-{number:02}.safetensors").write_bytes(chance.bytes(small_bytes))
    with (folder / "model.safetensors").open("wb") as file:
        for start in range(0, large_bytes, BLOCK):
            file.write(chance.bytes(min(BLOCK, large_bytes - start)))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Made up\n", encoding="utf-8")
    return folder


class Client:
    """Publishers with a home of their own, each in a process."""

    def __init__(self, home: Path, hub: Hub, *, xet: bool = False) -> None:
        self.hub, self.home = hub, home
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
        settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        settings |= {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        self.environment = kept | settings | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})

    def start(self, way: str, kind: str, folder: Path, name: str, at: float = 0.0) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("publisher.py")), way, kind, str(folder)]
        return subprocess.Popen(
            [*command, NAME.format(name), "--at", str(at)], env=self.environment, stdout=subprocess.PIPE, text=True
        )

    def publish(self, way: str, kind: str, folder: Path, name: str) -> dict[str, Any]:
        """What one publishing took, with what the Hub was asked meanwhile."""
        first = len(self.hub.calls())
        told = finished(self.start(way, kind, folder, name))
        calls = self.hub.calls()[first:]
        return (
            told
            | {"requests": len(calls), "by_kind": by_kind(calls), "bytes_sent": received(calls)}
            | {
                "commits": sum(kind_of(call) == "commit" and call["status"] == 200 for call in calls),
                "refused": sum((call["status"] or 500) >= 400 for call in calls),
            }
        )

    def kill(self, kind: str, folder: Path, name: str, *, put: str, count: int) -> dict[str, int]:
        """Kill a publishing of ours after `count` requests of the kind `put`, and start it again."""
        first = len(self.hub.calls())
        process = self.start("boost_qa", kind, folder, name)
        while sum(kind_of(call) == put and call["status"] == 200 for call in self.hub.calls()[first:]) < count:
            if process.poll() is not None:
                raise SystemExit("it was over before the kill")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = self.hub.settled()[first:]
        finished(self.start("boost_qa", kind, folder, name))
        after = self.hub.calls()[first + len(before) :]
        sizes = [received(calls, "PUT object", "PUT part") for calls in (before, after)]
        whole = sum(path.stat().st_size for path in folder.rglob("*.*") if path.suffix in (".parquet", ".safetensors"))
        commits = sum(kind_of(call) == "commit" and call["status"] == 200 for call in [*before, *after])
        return {
            "bytes_before_kill": sizes[0], "bytes_after_kill": sizes[1], "bytes_sent_twice": sum(sizes) - whole,
            "puts_before_kill": by_kind(before).get(put, 0), "puts_after_kill": by_kind(after).get(put, 0),
            "commits": commits,
        }  # fmt: skip


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a publisher ended with exit status {process.returncode}")
    return dict(json.loads(out))


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="boost_qa-publish-") as name:
        yield Path(name)


def in_turns(repeats: int, measure: Callable[[str, int], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """`measure(way, repeat)` for both ways, now one first, now the other."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for repeat in range(repeats):
        for way in WAYS if repeat % 2 == 0 else reversed(WAYS):
            found[way].append(measure(way, repeat))
    return found


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Of each way the spread of its seconds, and the last repeat's counts; ratios of ours over the other."""
    ways: dict[str, Any] = {}
    for way, runs in found.items():
        steps = {step: round(statistics.median(run["steps"][step] for run in runs), 3) for step in runs[0]["steps"]}
        same = {key: runs[-1][key] for key in ("requests", "by_kind", "bytes_sent")}
        peak = max(run["memory_peak_mb"] - run["memory_before_mb"] for run in runs)
        ways[way] = {"seconds": report.spread([run["seconds"] for run in runs]), "steps": steps, **same}
        ways[way] |= {"memory_grown_mb": peak}
        ways[way] |= {f"{key}_of_repeats": [run[key] for run in runs] for key in ("requests", "commits", "refused")}
    ours, other = (found[way] for way in WAYS)
    whole = [a["seconds"] / b["seconds"] for a, b in zip(ours, other, strict=True)]
    unread = [(a["seconds"] - a["steps"].get("read back", 0)) / b["seconds"] for a, b in zip(ours, other, strict=True)]
    ways["time_over_upload_folder"] = report.spread(whole, 2)
    ways["time_without_reading_back_over_upload_folder"] = report.spread(unread, 2)
    return ways


def shards(options: argparse.Namespace, *, xet: bool) -> dict[str, Any]:
    """New, unchanged and changed by one shard; `killed` only where objects are sent to the server one by one."""
    result: dict[str, Any] = {}
    with scratch() as home, Hub(*(["--xet"] if xet else [])) as hub:
        client = Client(home / "home", hub, xet=xet)
        first = make_dataset(home / "first", options.shards, options.shard_bytes)
        other = make_dataset(home / "other", options.shards, options.shard_bytes, changed=options.shards // 2)
        result["bytes"] = sum(path.stat().st_size for path in first.rglob("*.parquet"))
        for step, folder in (("new", first), ("unchanged", first), ("one_shard_changed", other)):
            found = in_turns(
                options.repeats,
                lambda way, repeat, folder=folder: client.publish(way, "dataset", folder, f"{way}{repeat}"),  # type: ignore[misc]
            )
            result[step] = summary(found)
        if not xet:
            result["killed"] = client.kill("dataset", first, "killed", put="PUT object", count=options.shards // 2)
    return result


def large(options: argparse.Namespace) -> dict[str, Any]:
    """One large file; each publishing has a server of its own, so that the disk holds one copy at a time."""
    parts = ("--parts-from", str(2 * options.part_bytes))  # the server's parts are half of that

    def measure(folder: Path) -> Callable[[str, int], dict[str, Any]]:
        def one(way: str, repeat: int) -> dict[str, Any]:
            with scratch() as home, Hub(*parts) as hub:
                return Client(home, hub).publish(way, "model", folder, "large")

        return one

    result: dict[str, Any] = {}
    with scratch() as home:
        quarter = make_model(home / "quarter", options.large_bytes // 4)
        result["quarter"] = summary(in_turns(1, measure(quarter)))
        shutil.rmtree(quarter)
        folder = make_model(home / "whole", options.large_bytes)
        found = in_turns(options.large_repeats, measure(folder))
        result["whole"] = summary(found)
        for way, runs in found.items():
            rates = [options.large_bytes / 1e6 / run["seconds"] for run in runs]
            result["whole"][way]["megabytes_per_second"] = report.spread(rates, 1)
        with scratch() as inner, Hub(*parts) as hub:
            half = options.large_bytes // options.part_bytes // 2
            result["killed"] = Client(inner, hub).kill("model", folder, "killed", put="PUT part", count=half)
    return result


def together(options: argparse.Namespace) -> dict[str, Any]:
    """Several publishers at once into one repository: all with the same release, and each with its own."""
    result: dict[str, Any] = {}
    with scratch() as home, Hub() as hub:
        client = Client(home / "home", hub)
        folders = [
            make_dataset(home / f"{number}", options.shards, options.shard_bytes, changed=number)
            for number in range(options.publishers)
        ]
        result["alone_seconds"] = client.publish("boost_qa", "dataset", folders[0], "alone")["seconds"]
        for case, of_case in (("releases_of_their_own", folders), ("same_release", [folders[0]] * len(folders))):
            rounds = [at_once(client, of_case, f"{case}{repeat}") for repeat in range(options.repeats)]
            result[case] = rounds
    return result


def at_once(client: Client, folders: list[Path], name: str) -> dict[str, Any]:
    first, at = len(client.hub.calls()), time.time() + 8
    running = [client.start("boost_qa", "dataset", folder, name, at) for folder in folders]
    seconds = [finished(process)["seconds"] for process in running]
    calls = client.hub.calls()[first:]
    tries = [call["status"] for call in calls if kind_of(call) == "commit"]
    return {"seconds": sorted(seconds), "tries_at_a_commit": len(tries), "commits": tries.count(200)}


def main() -> None:
    options = parse()
    run: dict[str, Callable[[], dict[str, Any]]] = {
        "shards": lambda: shards(options, xet=False), "shards_over_xet": lambda: shards(options, xet=True),
        "large": lambda: large(options), "together": lambda: together(options),
    }  # fmt: skip
    result: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1)}
    for part, measure in run.items():
        if part.partition("_")[0] in options.parts:
            result[part] = measure() | {"load_after": round(os.getloadavg()[0], 1)}
            print(part, json.dumps(result[part], indent=1), flush=True)
    settings = {key: value for key, value in vars(options).items() if key not in ("output", "repeats")}
    report.write(options.output, PREDICTION, settings | {"repeats": options.repeats}, result)


def parse() -> argparse.Namespace:
    parser = report.parser("publish", __doc__)
    parser.add_argument("--parts", nargs="+", default=["shards", "large", "together"])
    parser.add_argument("--shards", type=int, default=300)
    parser.add_argument("--shard-bytes", type=int, default=200_000)
    parser.add_argument("--large-bytes", type=int, default=6 * 10**9)
    parser.add_argument("--large-repeats", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--part-bytes", type=int, default=10**8, help="of the large file (default: %(default)s)")
    parser.add_argument("--publishers", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
