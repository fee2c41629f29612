"""One publishing in a process of its own: ours, or the client's `upload_folder`; prints what it took as JSON.

    HF_ENDPOINT=URL HF_TOKEN=TOKEN python benchmarks/publisher.py boost_qa dataset FOLDER user/name

`--at` waits for a moment (seconds since 1970) before the first request, so that several can begin at once.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from boost_qa.publish.dataset import dataset_release, exported, read_back
from boost_qa.publish.release import CARD, Local, Release
from boost_qa.publish.repository import Repository, Target
from boost_qa.publish.secrets import known_secrets, refuse_secrets
from boost_qa.publish.send import Published, send

WAYS = ("boost_qa", "upload_folder")


class Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)


def publish_dataset(folder: Path, name: str, clock: Clock) -> None:
    """The steps of `boost_qa.publish.dataset.publish_dataset`, one by one."""
    repository = Repository(Target(name, "dataset"))
    with clock.step("check"):
        repository.check()
    with clock.step("digest"), exported(folder) as whole:
        release = dataset_release(whole, name)
    published = scanned_and_sent(release, repository, clock)
    with clock.step("read back"):
        read_back(folder, name, str(published.revision), repository.token)


def publish_model(folder: Path, name: str, clock: Clock) -> None:
    """All files of a folder as one release, by the steps that every release goes through."""
    repository = Repository(Target(name, "model"))
    with clock.step("check"):
        repository.check()
    files = [Local(path.name, path) for path in sorted(folder.iterdir()) if path.name != CARD]
    card = (folder / CARD).read_text(encoding="utf-8")
    scanned_and_sent(Release(files, card, re.compile(r"[^/]+\.safetensors"), "release"), repository, clock)


def scanned_and_sent(release: Release, repository: Repository, clock: Clock) -> Published:
    with clock.step("secrets"):
        refuse_secrets(release.contents(), known=known_secrets(token=repository.token))
    with clock.step("send"):
        return send(release, repository)


def upload_folder(kind: str, folder: Path, name: str, clock: Clock) -> None:
    """What the client does by itself."""
    api = HfApi()
    with clock.step("send"):
        api.create_repo(name, repo_type=kind, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, repo_type=kind)


def memory() -> dict[str, int]:
    """MB of this process, at most so far and now; the system's own record, in which no parent has a share."""
    status = Path("/proc/self/status").read_text()
    found = {name: int(size) for name, size in re.findall(r"(VmHWM|VmRSS):\s+(\d+) kB", status)}
    return {"peak": found["VmHWM"] // 1000, "now": found["VmRSS"] // 1000}


def main() -> None:
    options = parse()
    import datasets  # noqa: F401 - what reading back stands on is no part of the time

    before, clock = memory()["now"], Clock()
    time.sleep(max(0.0, options.at - time.time()))
    began = time.perf_counter()
    if options.way == "upload_folder":
        upload_folder(options.kind, options.folder, options.name, clock)
    else:
        publish = publish_dataset if options.kind == "dataset" else publish_model
        publish(options.folder, options.name, clock)
    seconds = round(time.perf_counter() - began, 3)
    told: dict[str, Any] = {"seconds": seconds, "steps": clock.seconds}
    print(json.dumps(told | {"memory_before_mb": before, "memory_peak_mb": memory()["peak"]}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("kind", choices=("dataset", "model"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--at", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
