"""What a run holds, seen as a dataset: its configs and splits, and where the rows of each are.

Only offsets are kept in memory, so a run may be larger than it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from boost_qa.errors import RunError
from boost_qa.rows import dialogue_row, original_row
from boost_qa.run_folder import RunFolder
from boost_qa.splits import validation_records

ALL, ORIGINAL, STAR = "all", "original", "star"
SPLITS = ("train", "validation")


class Place(NamedTuple):
    """Where one row begins in its file, and where it belongs."""

    offset: int
    config: str
    split: str


class Shard(NamedTuple):
    """Some rows of one config and split; small enough to travel to a worker process."""

    path: str
    original: bool
    offsets: tuple[int, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, each with the columns of `rows.FEATURES`."""
        with Path(self.path).open("rb") as file:
            for offset in self.offsets:
                file.seek(offset)
                line = json.loads(file.readline())
                yield original_row(line) if self.original else dialogue_row(line)


@dataclass(frozen=True)
class Contents:
    """The rows of one run. `drawn` counts the dialogues of each (scenario, source)."""

    dialogues_file: Path
    records_file: Path
    dialogues: tuple[Place, ...]
    records: tuple[Place, ...]
    drawn: Mapping[tuple[str, str], int]

    def configs(self) -> dict[str, dict[str, int]]:
        """Rows of each config and split: `all`, the scenarios, `original`. Where there are none, there is no entry."""
        rows = Counter((place.config, place.split) for place in (*self.dialogues, *self.records))
        rows.update((ALL, place.split) for place in self.dialogues)
        scenarios = dict.fromkeys(scenario for scenario, _ in self.drawn)
        return {
            config: splits
            for config in (ALL, *scenarios, ORIGINAL)
            if (splits := {split: rows[config, split] for split in SPLITS if rows[config, split]})
        }

    def shards(self, config: str, split: str, most: int = 16) -> list[Shard]:
        """The rows of one config and split in up to `most` shards of about the same number, in the run's order."""
        original = config == ORIGINAL
        path, places = (self.records_file, self.records) if original else (self.dialogues_file, self.dialogues)
        offsets = [place.offset for place in places if place.split == split and config in (place.config, ALL)]
        cuts = [len(offsets) * part // most for part in range(most + 1)]
        parts = (tuple(offsets[begin:end]) for begin, end in pairwise(cuts))
        return [Shard(str(path), original, part) for part in parts if part]

    def rows(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """All rows once: the dialogues, then the original records."""
        for path, original, places in (
            (self.dialogues_file, False, self.dialogues),
            (self.records_file, True, self.records),
        ):
            if places:
                yield from zip(places, Shard(str(path), original, tuple(p.offset for p in places)).rows(), strict=True)


def survey(run: RunFolder) -> Contents:
    """Read a run once, from end to end, and say what it holds.

    Raises:
        RunError: if the folder is no run, or a line of it cannot be read.
    """
    share = run.manifest()["recipe"]["validation"]
    dialogues_file, records_file = _there(run.dialogues_file), _there(run.records_file)
    records = [(offset, record["id"]) for offset, record in _lines(records_file)]
    dialogues, pairs = [], []
    drawn: Counter[tuple[str, str]] = Counter()
    for offset, dialogue in _lines(dialogues_file):
        record, related = dialogue["record"], dialogue["related"]
        dialogues.append((offset, dialogue["scenario"], record["id"]))
        pairs.append((record["id"], (related or record)["id"]))
        drawn[dialogue["scenario"], record["source"]] += 1
    held_out = validation_records((id for _, id in records), pairs, share)
    return Contents(
        dialogues_file,
        records_file,
        tuple(Place(offset, scenario, SPLITS[id in held_out]) for offset, scenario, id in dialogues),
        tuple(Place(offset, ORIGINAL, SPLITS[id in held_out]) for offset, id in records),
        dict(sorted(drawn.items())),
    )


def _there(path: Path) -> Path:
    """`path`, or its `.part` in a run that is under way."""
    return path if path.exists() else path.with_name(path.name + ".part")


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):  # still being written
                return
            try:
                yield offset, json.loads(line)
            except ValueError as error:
                remedy = "Delete the file and run `boost-qa generate` again; the journal keeps all replies."
                raise RunError(f"{path}, line {number}: {error}", remedy) from error
            offset += len(line)
