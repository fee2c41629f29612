"""The tests' local Hub in a process of its own, and what it was asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

SERVER = Path(__file__).parent.parent / "tests" / "hub_server.py"
KINDS = {
    "PUT object": r"PUT /_lfs/\w+$",
    "PUT part": r"PUT /_lfs/\w+/parts/",
    "complete": r"POST /_lfs/\w+/complete/",
    "verify": r"POST /_lfs/\w+/verify",
    "LFS batch": r"POST .*/info/lfs/objects/batch",
    "preupload": r"POST .*/preupload/",
    "commit": r"POST .*/commit/",
    "validate card": r"POST /api/validate-yaml",
    "create": r"POST /api/repos/create",
    "Xet token": r"GET .*/xet-\w+-token/",
    "listing": r"GET .*/tree/",
    "info": r"GET /api/(models|datasets)/[^/]+/[^/]+(/revision/.*)?$",
    "file": r"(GET|HEAD) (.*/resolve/|/_lfs/)",
}
"""Kinds of requests, by "METHOD /path"; the rest is "other"."""

Call = Mapping[str, Any]


class Hub:
    """`hub_server.py` with these options, at `url`; its files go when it does."""

    def __init__(self, *options: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="boost_qa-hub-"))
        command = [sys.executable, str(SERVER), "--root", str(self.root), "--port", "0", *options]
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by way of a proxy
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = self._process.stdout.readline().split()[0]

    def calls(self) -> list[dict[str, Any]]:
        """All requests so far, in order: method, path, status (None while there is none), bytes received."""
        with self._opener.open(f"{self.url}/_calls") as response:
            return list(json.load(response))

    def settled(self) -> list[dict[str, Any]]:
        """The same, once the server has noticed that a killed client is gone."""
        seen: list[dict[str, Any]] = []
        while (now := self.calls()) != seen:
            seen = now
            time.sleep(0.5)
        return seen

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self.root)


def kind_of(call: Call) -> str:
    request = f"{call['method']} {call['path']}"
    return next((name for name, pattern in KINDS.items() if re.match(pattern, request)), "other")


def by_kind(calls: Sequence[Call]) -> dict[str, int]:
    """How many requests of each kind, the most frequent first."""
    return dict(Counter(map(kind_of, calls)).most_common())


def received(calls: Sequence[Call], *kinds: str) -> int:
    """Bytes in the bodies of requests of these kinds; of all, if none is named."""
    return sum(call["received"] for call in calls if not kinds or kind_of(call) in kinds)
