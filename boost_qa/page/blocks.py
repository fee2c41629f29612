"""Dialogues and prompts packed: gzip in base64, some hundred in a block, so that the browser opens what it shows.

A block is lines of JSON. Base64 has no `<`, so nothing that anybody wrote can end the element that holds a block.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from collections.abc import Iterator
from typing import IO, Any

import orjson

ENTRIES = 200
"""At most so many in a block."""

BYTES = 2**20
"""A block with so many bytes of dialogues, or twice as many of prompts, takes no more."""


class Blocks:
    """Packs entries as they come.

    Args:
        dialogues, prompts: empty files, where blocks wait.
    """

    def __init__(self, dialogues: IO[bytes], prompts: IO[bytes]) -> None:
        self.starts: list[int] = []
        """The number of the first entry of each block; block k has dialogues and prompts of the same entries."""
        self._lines: tuple[list[bytes], list[bytes]] = ([], [])
        self._files = (dialogues, prompts)
        self._count = 0

    def add(self, entry: Any, prompts: Any) -> None:
        """Take an entry and its prompts: dataclasses, lists, texts, numbers."""
        for lines, value in zip(self._lines, (entry, prompts), strict=True):
            lines.append(as_json(value))
        self._count += 1
        entries, asked = (sum(map(len, lines)) for lines in self._lines)
        if len(self._lines[0]) >= ENTRIES or entries >= BYTES or asked >= 2 * BYTES:
            self.finish()

    def packed(self) -> Iterator[tuple[str, bytes]]:
        """The blocks with their names in the page, in base64: `d0`, `d1`, ... of dialogues, then `p0`, ... of prompts.

        `finish` comes first.
        """
        for letter, file in zip("dp", self._files, strict=True):
            file.seek(0)
            for number, line in enumerate(file):
                yield f"{letter}{number}", line.removesuffix(b"\n")

    def finish(self) -> None:
        """Pack what waits; nothing is added after it."""
        if not self._lines[0]:
            return
        self.starts.append(self._count - len(self._lines[0]))
        for lines, file in zip(self._lines, self._files, strict=True):
            file.write(pack(b"\n".join(lines)) + b"\n")
            lines.clear()


def pack(data: bytes) -> bytes:
    """gzip in base64; the same for the same data."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0))


def as_json(value: Any) -> bytes:
    """JSON in UTF-8 on one line; half of a surrogate pair, which UTF-8 does not have, becomes `?`."""
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, default=dataclasses.asdict, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")
