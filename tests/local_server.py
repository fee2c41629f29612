"""benchmarks/server.py as a process of its own, for tests of whatever talks to a server."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parent.parent / "benchmarks" / "server.py"


class LocalServer:
    def __init__(self, url: str) -> None:
        self.url = url  # up to and including /v1

    def stats(self) -> dict[str, int]:
        return self._call("/stats")

    def last(self) -> dict[str, Any]:
        """The last completion request: path, headers by lower-case name (`head`), JSON (`body`)."""
        return self._call("/last")

    def fail(self, **fault: Any) -> None:
        """Have the next request fail, or the next `times`."""
        self._call("/faults", [fault])

    def reset(self) -> None:
        self._call("/reset", {})

    def _call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.url.removesuffix("/v1") + path, data), timeout=30) as response:
            return json.load(response)


@contextmanager
def local_server(*options: str) -> Iterator[LocalServer]:
    command = [sys.executable, str(SERVER), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield LocalServer(process.stdout.readline().strip())
        finally:
            process.terminate()
