"""A study from its first command to its report, on as many devices as there are.

What a step printed is in `steps/NAME.log`; `steps/NAME.json` is written when it ended well, and it is not run again.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import yaml

from boost_qa.errors import BoostQAError, EngineError, RunError
from boost_qa.run_folder import RunFolder, write_whole
from boost_qa.study.ahead import look_ahead
from boost_qa.study.held_out import check_unseen, hold_out
from boost_qa.study.settings import Study
from boost_qa.study.steps import Kind, Places, Step, generations, trainings

Say = Callable[[str], None]
SECONDS_BETWEEN_LINES = 30.0


def work(study: Study, folder: Path, devices: Sequence[str], say: Say) -> None:
    """Run all that has not been run yet.

    Generations come first, one after the other, for each may use all that there is. Arms and seeds then share the
    devices.

    Args:
        folder: of the study.
        devices: what `CUDA_VISIBLE_DEVICES` is for each worker; one empty string where there are none.

    Raises:
        RunError: the folder holds another study, or a step was run with other settings.
        EngineError: a step failed; what others did until then is kept.
        BoostQAError: what reading recipes and held-out questions raises.
    """
    look_ahead(study)
    places = Places(folder)
    first, then = generations(study, places), trainings(study, places)
    with RunFolder(folder).lock():
        check_folder(study, folder)
        desk = _Desk(places, say, [step for chain in (*first, *then) for step in chain])
        resolved = study.model_dump(mode="json", exclude_defaults=True)
        write_whole(folder / "study.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        for chain in first:
            desk.run(chain, "")
        if study.held_out:
            runs = [RunFolder(places.run(name)) for name in study.runs]
            if not places.held_out.is_file():
                say("drawing the questions that are held out")
                hold_out(study.held_out, runs, places.held_out)
            check_unseen(places.held_out, runs)
        _share(desk, then, devices)


def visible(devices: str | None) -> list[str]:
    """The devices to share: those named, else all GPUs; a single empty name where there are none."""
    if devices:
        return [name.strip() for name in devices.split(",")]
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())] or [""]


def check_folder(study: Study, folder: Path) -> None:
    """Make sure that a folder is this study's. Arms, seeds and what is asked may be added later; the rest is fixed.

    Raises:
        RunError: it holds another one.
    """
    file, resolved = folder / "study.yaml", study.model_dump(mode="json", exclude_defaults=True)
    if not file.is_file():
        return
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key in ("name", "scale", *(["held_out"] if Places(folder).held_out.is_file() else [])):
        if before.get(key) != resolved.get(key):
            what = f"{folder} holds another study: {key} was {before.get(key)!r}, is {resolved.get(key)!r}"
            raise RunError(what, "Give another --output.")


def check_begun(study: Study, folder: Path) -> None:
    """Make sure that what a folder holds is what this study would run, as far as it was run.

    Raises:
        RunError: it holds no study, or another one, or a step was run with other settings.
    """
    if not (folder / "study.yaml").is_file():
        raise RunError(f"{folder} holds no study", "Run it without --report, or give its --output.")
    check_folder(study, folder)
    places = Places(folder)
    for chain in (*generations(study, places), *trainings(study, places)):
        for step in chain:
            is_done(step, places)


def is_done(step: Step, places: Places) -> bool:
    """Whether a step was run already.

    Raises:
        RunError: it was, with other settings.
    """
    file = places.step(step, ".json")
    if not file.is_file():
        return False
    before = json.loads(file.read_text(encoding="utf-8"))
    if before.get("depends") != step.depends:
        raise RunError(
            f"{places.folder}: {step.name!r} was run with other settings: {' '.join(before['command'])}",
            "Give another --output, or what it was run with.",
        )
    return True


def _share(desk: _Desk, chains: Sequence[list[Step]], devices: Sequence[str]) -> None:
    """Each chain on the next device that is free."""
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for device in devices:
        free.put(device)

    def run(chain: list[Step]) -> None:
        device = free.get()
        try:
            desk.run(chain, device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(devices)) as workers:
        futures = [workers.submit(run, chain) for chain in chains]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:  # Ctrl-C among them
            desk.stop()
            raise
        finally:
            for future in futures:
                future.cancel()


@dataclass
class _Desk:
    """Starts commands, waits for them, and keeps what they were."""

    places: Places
    say: Say
    steps: Sequence[Step]
    seconds: dict[Kind, list[float]] = field(default_factory=dict)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        (self.places.folder / "steps").mkdir(parents=True, exist_ok=True)
        self.left = [step for step in self.steps if not is_done(step, self.places)]

    def run(self, chain: Sequence[Step], device: str) -> None:
        """Run the steps of a chain that were not run yet, one after the other."""
        for step in chain:
            if self.stopped.is_set():
                return
            with self.lock:
                left = step in self.left
            if left:
                self._run(step, device)

    def stop(self) -> None:
        """End what is running; each step goes on from there another time."""
        self.stopped.set()
        with self.lock:
            for process in self.running:
                process.terminate()

    def _run(self, step: Step, device: str) -> None:
        began = time.monotonic()
        self.say(f"{step.name}{f' on device {device}' if device else ''}{self._outlook()}")
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": device} if device else {})
        log = self.places.step(step, ".log")
        with log.open("ab") as file:
            _alone(file, step)
            with self.lock:  # whoever stops the others sees this one, or this one sees that it is over
                if self.stopped.is_set():
                    return
                process = subprocess.Popen(step.command, stdout=file, stderr=subprocess.STDOUT, env=environment)
                self.running.add(process)
            try:
                self._watch(process, step, log)
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                with self.lock:
                    self.running.discard(process)
        if process.returncode and not self.stopped.is_set():
            raise _failed(step, process.returncode, log)
        if process.returncode == 0:
            seconds = time.monotonic() - began
            kept = {"depends": step.depends, "command": list(step.command), "seconds": round(seconds, 1)}
            write_whole(self.places.step(step, ".json"), json.dumps(kept, indent=2) + "\n")
            with self.lock:
                self.left.remove(step)
                self.seconds.setdefault(step.kind, []).append(seconds)

    def _watch(self, process: subprocess.Popen[bytes], step: Step, log: Path) -> None:
        """Wait for its end, and tell now and then what it says."""
        told = ""
        while True:
            try:
                process.wait(SECONDS_BETWEEN_LINES)
                return
            except subprocess.TimeoutExpired:
                line = last_line(log)
                if line != told:
                    self.say(f"  {step.name}: {line}")
                    told = line

    def _outlook(self) -> str:
        """How many steps are left, and how long those take of whose kind one was seen."""
        with self.lock:
            means = {kind: sum(each) / len(each) for kind, each in self.seconds.items()}
            known = [means[step.kind] for step in self.left if step.kind in means]
            minutes = f", about {sum(known) / 60:,.0f} min of device time for {len(known)} of them" if known else ""
            return f" ({len(self.left)} of {len(self.steps)} steps to do{minutes})"


def _alone(log: BinaryIO, step: Step) -> None:
    """Lock a log that its command inherits: one that was left over by a start that was killed holds it to its end.

    Raises:
        RunError: there is one.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where files that are open cannot be opened again
        return
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"{step.name} is still at work since an earlier start", "Wait for it, or end it.") from None


def last_line(log: Path, most: int = 160) -> str:
    """The last line that a program printed, without what only a terminal understands."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.read().decode("utf-8", "replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1][:most] if lines else ""


def _failed(step: Step, code: int, log: Path) -> BoostQAError:
    kind = RunError if code == RunError.exit_code else EngineError
    return kind(
        f"{step.name} ended with exit code {code}: {last_line(log, 500)}",
        f"All of it is in {log}. The same command goes on from there.",
    )
