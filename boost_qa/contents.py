"""What a run holds, seen as a dataset: its configs and splits, and where the rows of each are.

Only offsets and names are kept in memory, so a run may be larger than it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boost_qa.checks.contamination import LABELS
from boost_qa.derived import DERIVED
from boost_qa.errors import RunError
from boost_qa.run_folder import RunFolder
from boost_qa.shards import SPLITS, Place, Shard, cut
from boost_qa.splits import validation_records
from boost_qa.types import ORIGINAL

__all__ = ["ALL", "SPLITS", "STAR", "Contents", "survey"]

ALL, STAR = "all", "star"


@dataclass(frozen=True)
class Contents:
    """The rows of one run. `drawn` counts the dialogues of each (scenario, source)."""

    dialogues_file: Path
    records_file: Path
    dialogues: tuple[Place, ...]
    records: tuple[Place, ...]
    drawn: Mapping[tuple[str, str], int]

    def configs(self) -> dict[str, dict[str, int]]:
        """Rows of each config and split: `all`, the scenarios, `original`. Where there are none, there is no entry.

        They are what is exported and published. Those of `derived.DERIVED` can be made of them, and are not among them.
        """
        rows = Counter((place.config, place.split) for place in (*self.dialogues, *self.records))
        rows.update((ALL, place.split) for place in self.dialogues)
        scenarios = dict.fromkeys(scenario for scenario, _ in self.drawn)
        return {
            config: splits
            for config in (ALL, *scenarios, ORIGINAL)
            if (splits := {split: rows[config, split] for split in SPLITS if rows[config, split]})
        }

    def places(self, config: str) -> Sequence[Place]:
        """The rows of a config, derived ones included, in the run's order.

        Raises:
            RunError: if the run lacks what a derived config is made of.
        """
        if config in DERIVED:
            return list(DERIVED[config].rows(self))
        places = self.records if config == ORIGINAL else self.dialogues
        return [place for place in places if config in (place.config, ALL)]

    def splits(self, config: str) -> list[str]:
        """The splits in which a config has rows. Raises as `places`."""
        found = {place.split for place in self.places(config)}
        return [split for split in SPLITS if split in found]

    def shards(self, config: str, split: str, most: int = 16) -> list[Shard]:
        """The rows of one config and split in up to `most` shards of about the same number. Raises as `places`."""
        places = (place for place in self.places(config) if place.split == split)
        change = DERIVED[config].change if config in DERIVED else None
        return cut(places, most, self.dialogues_file, self.records_file, change)

    def rows(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """All rows once: the dialogues, then the original records."""
        places = (*self.dialogues, *self.records)
        for shard in cut(places, 1, self.dialogues_file, self.records_file):
            yield from zip(places, shard.rows(), strict=True)


def survey(run: RunFolder) -> Contents:
    """Read a run once, from end to end, and say what it holds.

    Records in which the run's checks found a benchmark are left out, if dialogues leave for that.

    Raises:
        RunError: if the folder is no run, or a line of it cannot be read.
    """
    share = run.manifest()["recipe"]["validation"]
    dialogues_file, records_file = _there(run.dialogues_file), _there(run.records_file)
    records = [_place(offset, ORIGINAL, record) for offset, record in _lines(records_file)]
    dialogues, pairs = [], []
    drawn: Counter[tuple[str, str]] = Counter()
    for offset, dialogue in _lines(dialogues_file):
        record, related = dialogue["record"], dialogue["related"]
        dialogues.append(_place(offset, dialogue["scenario"], record))
        pairs.append((record["id"], (related or record)["id"]))
        drawn[dialogue["scenario"], record["source"]] += 1
    held_out = validation_records((place.record for place in records), pairs, share)

    def split(places: Sequence[Place]) -> tuple[Place, ...]:
        return tuple(place._replace(split=SPLITS[place.record in held_out]) for place in places)

    leaked = _leaked(run)
    clean = split([place for place in records if place.record not in leaked])
    return Contents(dialogues_file, records_file, split(dialogues), clean, dict(sorted(drawn.items())))


def _leaked(run: RunFolder) -> set[str]:
    checks = run.manifest().get("checks") or {"settings": {"drop": ()}}
    if not LABELS.keys() & set(checks["settings"]["drop"]):
        return set()
    hits = (hit for _, hit in _lines(run.overlaps_file))
    return {
        hit["record"] for hit in hits if hit["scenario"] == ORIGINAL and hit.get("label") in checks["settings"]["drop"]
    }


def _place(offset: int, config: str, record: Mapping[str, Any]) -> Place:
    return Place(offset, config, "", record["id"], record["source"], len(record["answer"]))


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
