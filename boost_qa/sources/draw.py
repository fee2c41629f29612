"""The seeded sample of a stream, in memory for the sample alone."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from boost_qa.errors import SourceError
from boost_qa.sources.stream import Stream, Unfit
from boost_qa.types import Record, digest

NAMED = 1000  # bad rows that are named for each stream; the counts are always complete


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gave no record: `row` is its file and line (`c.jsonl:17`), `reason` why."""

    source: str
    row: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What became of one stream.

    Args:
        source: name of the source in the records.
        where: basename, Hub id or task that was read.
        licence: licence of its text.
        revision: commit, `sha256:...` of the content, or version.
        read: rows seen.
        taken: records drawn; `read - taken - sum(bad.values())` good rows were not drawn.
        bad: rows that gave no record, by reason. `duplicate` counts the further copies of drawn
            records: copies of rows that were not drawn are never remembered.
    """

    source: str
    where: str
    licence: str
    revision: str
    read: int
    taken: int
    bad: dict[str, int]


def draw(stream: Stream, seed: int, taken: Set[str] = frozenset()) -> tuple[list[Record], list[BadRow], SourceFacts]:
    """Take `stream.n` different records, uniformly, in one pass and O(n) memory.

    The records with the n smallest digests of (seed, record id) are drawn, so the sample depends
    neither on the order of the rows nor on the machine, and a smaller n draws a prefix of it.

    Args:
        stream: what to read.
        seed: of the draw.
        taken: ids of records that other streams gave; further copies here are duplicates.

    Returns:
        The records by ascending digest (an endless stream: in its own order), the bad rows of
        which at most `NAMED` are named, and the facts.

    Raises:
        SourceError: there are fewer than n, or none at all.
    """
    sample, faults = _Sample(stream.n), _Faults(stream.source)
    read = 0
    for row, item in stream.rows():
        read += 1
        if isinstance(item, Unfit):
            faults.add(item.reason, 1, [row])
            continue
        record = stream.record(item)
        if record.id in taken:
            faults.add("duplicate", 1, [row])
            continue
        sample.add(read if stream.endless else int(digest(str(seed), record.id), 16), record, row)
        if stream.endless and len(sample.records) == stream.n:
            break
    records = sample.ordered()
    faults.add("duplicate", *sample.copies())
    if not records or len(records) < (stream.n or 0):
        raise _too_few(stream, len(records), read, faults.counts)
    bad = dict(sorted(faults.counts.items()))
    facts = SourceFacts(stream.source, stream.where, stream.licence, stream.revision, read, len(records), bad)
    return records, faults.named, facts


@dataclass
class _Faults:
    source: str
    counts: Counter[str] = field(default_factory=Counter)
    named: list[BadRow] = field(default_factory=list)

    def add(self, reason: str, count: int, rows: list[str]) -> None:
        if count:
            self.counts[reason] += count
        self.named.extend(BadRow(self.source, row, reason) for row in rows[: NAMED - len(self.named)])


class _Sample:
    """The n records with the smallest keys, and where further copies of them were seen.

    A record of the final n is among the n smallest from its first copy on, so its copies are counted
    whole; a record that is pushed out can never return, so its copies may be forgotten.
    """

    def __init__(self, n: int | None) -> None:
        self.n = n
        self.records: dict[str, Record] = {}
        self._worst_first: list[tuple[int, str]] = []  # (-key, id)
        self._copies: Counter[str] = Counter()
        self._copy_rows: list[tuple[str, str]] = []  # (id, row) of the first ones

    def add(self, key: int, record: Record, row: str) -> None:
        known = self.records.get(record.id)
        if known is not None:
            self._copies[record.id] += 1
            self._remember(record.id, row)
            # which copy comes first must not matter
            self.records[record.id] = min(known, record, key=lambda r: (r.source_id, r.final or ""))
        elif self.n is None or len(self.records) < self.n:
            self.records[record.id] = record
            heapq.heappush(self._worst_first, (-key, record.id))
        elif -key > self._worst_first[0][0]:
            _, out = heapq.heapreplace(self._worst_first, (-key, record.id))
            del self.records[out]
            del self._copies[out]
            self.records[record.id] = record

    def ordered(self) -> list[Record]:
        return [self.records[id] for _, id in sorted(self._worst_first, reverse=True)]

    def _remember(self, id: str, row: str) -> None:
        if len(self._copy_rows) == 2 * NAMED:
            self._copy_rows = [copy for copy in self._copy_rows if copy[0] in self.records][:NAMED]
        self._copy_rows.append((id, row))

    def copies(self) -> tuple[int, list[str]]:
        """How many further copies of the records were seen, and the first rows among them."""
        return self._copies.total(), [row for id, row in self._copy_rows if id in self.records]


def _too_few(stream: Stream, have: int, read: int, bad: Counter[str]) -> SourceError:
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(bad.items())) or "none bad"
    what = f"{stream.source} ({stream.where}): {have:,} usable records in {read:,} rows ({reasons})"
    if not have:
        wrong = "file, split and columns" if not stream.endless else "task and settings"
        return SourceError(what, f"Check that the source names the right {wrong}, or leave it out.")
    return SourceError(f"{what}, but n is {stream.n:,}", f"Set n to {have} or less{stream.remedy}")
