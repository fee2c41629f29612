"""Where the rows of a dataset lie in the files of a run, cut into shards that read themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from boost_qa.rows import dialogue_row, original_row
from boost_qa.types import ORIGINAL

SPLITS = ("train", "validation")

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""A function of a module, from a row to another with the same columns."""


class Place(NamedTuple):
    """Where one row begins in its file, and where it belongs.

    `config` is the scenario of a dialogue, or `original` for a record; `record` and `source` are those that the row
    is about, and `answer` is the length of their reference answer in characters.
    """

    offset: int
    config: str
    split: str
    record: str
    source: str
    answer: int


class Shard(NamedTuple):
    """Some rows of one config and split; small enough to travel to a worker process.

    `places` are offsets, and whether they are in the file of records or that of dialogues.
    """

    dialogues: str
    records: str
    places: tuple[tuple[int, bool], ...]
    change: Change | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, each with the columns of `rows.FEATURES`."""
        with ExitStack() as stack:
            files: dict[bool, BinaryIO] = {}
            for offset, original in self.places:
                if original not in files:
                    path = Path(self.records if original else self.dialogues)
                    files[original] = stack.enter_context(path.open("rb"))
                files[original].seek(offset)
                line = json.loads(files[original].readline())
                row = original_row(line) if original else dialogue_row(line)
                yield self.change(row) if self.change else row


def cut(
    places: Iterable[Place], most: int, dialogues: Path, records: Path, change: Change | None = None
) -> list[Shard]:
    """Rows in up to `most` shards of about the same number, in their order."""
    found: Sequence[tuple[int, bool]] = [(place.offset, place.config == ORIGINAL) for place in places]
    cuts = [len(found) * part // most for part in range(most + 1)]
    parts = (tuple(found[begin:end]) for begin, end in pairwise(cuts))
    return [Shard(str(dialogues), str(records), part, change) for part in parts if part]
