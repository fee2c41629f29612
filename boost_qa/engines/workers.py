"""An engine without a model: calls a function, text to text, in processes that are killed when they take too long.

For work that can hang, eat all memory or crash the interpreter, such as comparing two formulas. Whatever it does, the
run goes on: the call's reply is `refused` and says why, and the next call gets a fresh process.

Plain processes, and not those of `multiprocessing` or a pool built on it: these import the caller's main module again,
so that a script without `if __name__ == "__main__"` fails (seen with pebble's pool), and each would hold this
package's `datasets`. A process here starts in under a second, once, and answers any number of calls.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from boost_qa.errors import EngineError
from boost_qa.types import Call, Reply

LONGEST = 1_000_000
"""Characters of a payload; a longer one is refused."""

START_SECONDS = 60.0
"""How long a process may take to import what it needs."""


class Workers:
    """Answers calls with `function(payload)`, where the payload is the content of the last message.

    Args:
        function: `module:function`, takes a text and gives a text. It must not need `boost_qa/__init__.py`. Whatever is
            slow to import, a function `prepare` of its module imports, once for each process.
        seconds: that one call may take, by the clock; then its process is killed, and the reply is `refused`.
        memory_mib: address space of each process in MiB, where the system can limit it (Linux); reaching it
            refuses the call likewise.
        processes: how many work at once; None: one for each processor.
        revision: what exactly answers, versions included.
        remedy: what to do where `function` cannot be loaded.
    """

    def __init__(
        self,
        function: str,
        *,
        seconds: float = 3.0,
        memory_mib: int = 1024,
        processes: int | None = None,
        revision: str | None = None,
        remedy: str = "",
    ) -> None:
        self.function, self.seconds, self.memory_mib = function, seconds, memory_mib
        self.processes = processes or _processors()
        self.revision, self._remedy = revision, remedy
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._threads: ThreadPoolExecutor | None = None  # one thread for each process: it writes, and waits

    @property
    def slots(self) -> int:
        return 2 * self.processes  # the next call is at hand when one is done

    @property
    def pids(self) -> list[int]:
        """The processes that are alive."""
        with self._lock:
            return [process.pid for process in self._alive]

    async def open(self) -> None:
        """Start one process; the others start when they are needed.

        Raises:
            EngineError: if it cannot load the function.
        """
        self._threads = ThreadPoolExecutor(self.processes, "boost_qa.workers")
        self._idle.append(await asyncio.get_running_loop().run_in_executor(self._threads, self._start))

    async def ask(self, call: Call) -> Reply:
        """Call the function; `refused` if that takes too long or too much memory, or ends the process.

        A call that is cancelled goes on until its time is up, and then nobody hears of it.

        Raises:
            EngineError: if the engine is not open, or the function raises.
        """
        if self._threads is None:
            raise EngineError(f"{self.function} is not open", "Await open() first.")
        payload = call.request.messages[-1].content
        if len(payload) > LONGEST:
            return Reply(f"longer than {LONGEST:,} characters", "refused")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._reply, payload)

    async def close(self) -> None:
        """End all processes; whoever still waits gets an EngineError. May be called again."""
        if (threads := self._threads) is None:
            return
        with self._lock:
            self._threads = None
            for process in self._alive:
                process.kill()
        await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        for process in list(self._alive):
            self._end(process)
        self._idle.clear()

    # --- in the threads --------------------------------------------------------------------------

    def _reply(self, payload: str) -> Reply:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        if process is not None and process.poll() is not None:  # the system ended it while it had nothing to do
            self._end(process)
            process = None
        if process is None:
            process = self._start()
        said, late = self._exchange(process, payload, self.seconds)
        if "done" in said and not late:
            with self._lock:
                self._idle.append(process)
            return Reply(said["done"])
        why = self._end(process)
        if self._threads is None:
            raise EngineError(f"{self.function} was closed", "Open a new engine.")
        if late:
            return Reply(f"took longer than {self.seconds:g} s", "refused")
        if "failed" in said:
            raise EngineError(f"{self.function} failed on {payload[:200]!r}:\n{said['failed']}", "Report it.")
        return Reply("ran out of memory" if "memory" in said else why, "refused")

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: or the script's neighbours would hide packages of the same name
        script, folder = Path(__file__).with_name("worker_process.py"), Path(__file__).parent.parent
        limits = [str(self.memory_mib), str(self.seconds)]
        command = [sys.executable, "-P", str(script), str(folder), self.function, *limits]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}  # a set has the same order in each
        with self._lock:
            if self._threads is None:
                raise EngineError(f"{self.function} was closed", "Open a new engine.")
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # warnings of libraries; what fails is said on the wire
                env=environment,
            )
            self._alive.add(process)
        said, late = self._exchange(process, None, START_SECONDS)
        if "ready" not in said or late:
            ended = self._end(process)
            why = f"not within {START_SECONDS:g} s" if late else said.get("failed", ended)
            raise EngineError(f"{self.function} cannot be loaded: {why}", self._remedy)
        return process

    def _exchange(
        self, process: subprocess.Popen[bytes], payload: str | None, seconds: float
    ) -> tuple[dict[str, Any], bool]:
        """Send a payload, if there is one, and read a line; also whether the process was killed for its slowness."""
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            if payload is not None:
                process.stdin.write(json.dumps(payload).encode() + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it has ended
            line = b""
        finally:
            timer.cancel()
            timer.join()  # after this it can't fire
        return json.loads(line) if line.endswith(b"\n") else {}, late.is_set()

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """Kill a process if it lives, and say how it ended."""
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was written before it ended can't be sent any more
                    continue
        with self._lock:
            self._alive.discard(process)
        name = signal.strsignal(-code) if code < 0 else None
        return f"its process ended: {name or f'code {code}'}"


def _processors() -> int:
    """Those that this process may use; under Slurm or taskset they are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
