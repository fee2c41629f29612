"""Sources: where questions with reference answers come from, and the sample that is drawn of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from boost_qa.config import AnySource, Columns, OpenHermes, OrcaMath, ProcQA, ReasoningGym, Sample
from boost_qa.sources import columns, openhermes, orca_math, procqa, reasoning_gym, sample
from boost_qa.sources.draw import BadRow, SourceFacts, draw
from boost_qa.sources.stream import Stream
from boost_qa.types import Record

__all__ = ["BadRow", "Reading", "SourceFacts", "read"]


class Reading(NamedTuple):
    """The records of a recipe, the rows that gave none, and what became of every stream."""

    records: list[Record]
    bad_rows: list[BadRow]
    facts: list[SourceFacts]


def read(sources: Sequence[AnySource], seed: int) -> Reading:
    """Draw the records of all sources.

    Every source is found and its columns are looked at before the first is read. Each gives one stream,
    or several (`sample`: one for each subject, `reasoning_gym`: one for each task), and each stream
    gives `n` different records: see `draw`. No record id occurs twice: a record that an earlier stream
    gave is a duplicate in a later one of the same name.

    Args:
        sources: the recipe's sources.
        seed: of the draws.

    Returns:
        Records in the order of the sources, within a stream by digest of (seed, record id), which is a
        random order; up to 1,000 bad rows of each stream; and one SourceFacts for each stream.
        The same recipe and content give the same records on any machine, in any order of rows.

    Raises:
        SourceError: a source cannot be found or read, lacks a column, or has fewer than n records.
    """
    streams = [stream for settings in sources for stream in _streams(settings)]
    reading, ids = Reading([], [], []), set[str]()
    for stream in streams:
        records, bad_rows, facts = draw(stream, seed, ids)
        ids.update(record.id for record in records)
        reading.records.extend(records)
        reading.bad_rows.extend(bad_rows)
        reading.facts.append(facts)
    return reading


def _streams(settings: AnySource) -> list[Stream]:
    match settings:
        case Sample():
            return sample.streams(settings)
        case OrcaMath():
            return orca_math.streams(settings)
        case ProcQA():
            return procqa.streams(settings)
        case OpenHermes():
            return openhermes.streams(settings)
        case Columns():
            return columns.streams(settings)
        case ReasoningGym():
            return reasoning_gym.streams(settings)
