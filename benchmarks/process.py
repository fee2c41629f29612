"""The local server in a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any


class Server:
    """`server.py` with these options, at `url`, on `core` alone if one is given."""

    def __init__(self, *options: str, core: int | None = None) -> None:
        command = [sys.executable, str(Path(__file__).with_name("server.py")), "--port", "0", *options]
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by way of a proxy
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if core is not None:
            os.sched_setaffinity(self._process.pid, [core])
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()

    def stats(self) -> dict[str, int]:
        """The server's counters since the last reset."""
        found: dict[str, int] = json.loads(self._call("stats"))
        return found

    def reset(self) -> None:
        self._call("reset", b"")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def _call(self, path: str, data: bytes | None = None) -> Any:
        with self._opener.open(self.url.removesuffix("/v1") + f"/{path}", data) as response:
            return response.read()
