"""Watching a program in isolation, until nothing of it is left."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from boost_qa.errors import EngineError

Why = Literal["time", "memory", "output", "files"]

PULSE = 0.05
"""Seconds between two looks at memory and files."""

MOST_FILES = 10_000
"""In the program's folder: an empty one costs the kernel a kilobyte that the folder's size does not count."""

PATIENCE = 10.0
"""Seconds that the kernel gets to end what was killed."""

_CHUNK = 1 << 16
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds by the clock, memory of all processes together, the size of /tmp, and both outputs together."""

    seconds: float
    memory_bytes: int
    disk_bytes: int
    output_bytes: int


@dataclass(slots=True)
class Ended:
    """How it went. `exit` is None where the program was never started, or was ended by a limit, which `why` names."""

    exit: int | None = None
    why: Why | None = None
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    seconds: float = 0.0


def attend(process: subprocess.Popen[bytes], told: int, limits: Limits) -> Ended:
    """Read what bubblewrap and the program in it write, end it at a limit, and return when its namespace is empty.

    Args:
        process: bubblewrap, with pipes for stdout and stderr.
        told: the file that its `--json-status-fd` writes: first `child-pid`, the first process of the namespace,
            and, after a program that was really started, `exit-code`.

    Raises:
        EngineError: if what was killed does not end within `PATIENCE`.
    """
    began = time.monotonic()
    ended, first = Ended(), _First(told)
    assert process.stdout is not None and process.stderr is not None
    sinks = {process.stdout.fileno(): ended.stdout, process.stderr.fileno(): ended.stderr}
    try:
        with selectors.DefaultSelector() as ready:
            for number in sinks:
                os.set_blocking(number, False)
                ready.register(number, selectors.EVENT_READ)
            next_look = began + PULSE
            # who writes may have closed both and live on
            while ready.get_map() or process.poll() is None:
                for key, _ in ready.select(PULSE if ready.get_map() else PULSE / 10):
                    if not _read(key.fd, sinks[key.fd], keep=ended.why is None):
                        ready.unregister(key.fd)
                now = time.monotonic()
                if now - began > limits.seconds + PATIENCE:
                    break
                if ended.why is None:
                    ended.why = _over(ended, limits, now - began)
                    if ended.why is None and now >= next_look:
                        ended.why, next_look = first.over(limits), now + PULSE
                if ended.why is not None:  # each time round: it may not have been known at once
                    first.kill()
    finally:
        first.kill()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        gone = first.gone(PATIENCE)
    if not gone:
        raise EngineError("a program in isolation did not end when it was killed", "See what it waits for (`ps`).")
    ended.seconds = time.monotonic() - began
    ended.exit = None if ended.why else _told(told, "exit-code")
    rest = limits.output_bytes
    for stream in (ended.stdout, ended.stderr):
        del stream[rest:]
        rest -= len(stream)
    return ended


class _First:
    """The first process of a PID namespace: all others end with it.

    It is held by a descriptor, so that its number cannot come to mean another process. It is a child of bubblewrap's,
    which collects it once nothing of its namespace is left; so its end is the end of everything.
    """

    def __init__(self, told: int) -> None:
        self._told = told
        self._pid: int | None = None
        self._held: int | None = None

    def _know(self) -> int | None:
        """Its number, as soon as bubblewrap has told it."""
        if self._pid is None:
            self._pid = _told(self._told, "child-pid")
            if self._pid is not None:
                with suppress(ProcessLookupError):  # it is over already
                    self._held = os.pidfd_open(self._pid)
        return self._pid

    def kill(self) -> None:
        if self._know() is not None and self._held is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._held, signal.SIGKILL)

    def gone(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        if self._held is None:
            return True
        try:
            return bool(select.select([self._held], [], [], seconds)[0])
        finally:
            os.close(self._held)
            self._held = None

    def over(self, limits: Limits) -> Why | None:
        """Whether what is inside holds too much memory or too many files."""
        pid = self._know()
        if pid is None:
            return None
        with suppress(OSError):
            folder = os.statvfs(f"/proc/{pid}/root/tmp")
            own = folder.f_blocks * folder.f_frsize == limits.disk_bytes  # before, it is the caller's own /tmp
            if own and folder.f_files - folder.f_ffree > MOST_FILES:
                return "files"
        inside = list(_below(pid))
        if sum(map(_resident, inside)) > limits.memory_bytes:  # what two share is counted twice here
            return "memory" if sum(map(_proportional, inside)) > limits.memory_bytes else None
        return None


def _over(ended: Ended, limits: Limits, seconds: float) -> Why | None:
    if len(ended.stdout) + len(ended.stderr) > limits.output_bytes:
        return "output"
    return "time" if seconds > limits.seconds else None


def _read(number: int, sink: bytearray, keep: bool) -> bool:
    """Read once, and whether there can be more."""
    try:
        piece = os.read(number, _CHUNK)
    except BlockingIOError:
        return True
    if keep:
        sink += piece
    return bool(piece)


def _told(file: int, key: str) -> int | None:
    """What bubblewrap told under `key`; None where it has not. Each of its lines is a JSON object."""
    for line in os.pread(file, 1 << 16, 0).splitlines(keepends=True):
        if line.endswith(b"\n") and key in (said := json.loads(line)):
            return int(said[key])
    return None


def _below(pid: int) -> Iterator[int]:
    """A process and all that descend from it; who is new or over meanwhile may be missing."""
    yield pid
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _below(int(child))


def _resident(pid: int) -> int:
    """Bytes that a process has in memory."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    """The same, where what is shared by so many counts by so much less; the plain number where that is not told."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident(pid)
