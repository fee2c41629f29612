"""Derived configs: what dialogues are compared with, made of the records of the same run.

They have the columns and splits of all other configs, are served when they are asked for, and are in no export.

    taught                      the records that have a dialogue, as question and reference answer
    SCENARIO[+SCENARIO]+original    the dialogues of these scenarios, and `taught` where a record has none of them
    closing, ...+original+closing   all dialogues, or those of such a set, as their last answer right after its question
    random_aug, spelling_aug    `taught`, with noise in the questions
    long                        as many records of each source as in `taught`: those with the longest answers
    tagcos                      as many records of each source as in `taught`: those that `boost-qa coreset` chose

All are as large as `taught` in each split, unless records have several dialogues. What is made of `taught` stands in
its order, so that the first so many rows of two of them are about the same records.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, get_args

from boost_qa import noise
from boost_qa.closing import CLOSING, closing
from boost_qa.config import MasterScenario
from boost_qa.errors import RunError
from boost_qa.run_folder import RunFolder
from boost_qa.shards import Change, Place
from boost_qa.types import ORIGINAL, digest

if TYPE_CHECKING:
    from boost_qa.contents import Contents

TAGCOS = "tagcos"

Group = tuple[str, str]
"""A source and a split."""


class Derived(NamedTuple):
    """A config: which rows, and what is done with each."""

    rows: Callable[[Contents], Sequence[Place]]
    change: Change | None = None


def taught(contents: Contents) -> list[Place]:
    """The records that have a dialogue, each once, in the order of the dialogues."""
    originals = {place.record: place for place in contents.records}
    return [originals[id] for id in dict.fromkeys(place.record for place in contents.dialogues)]


def topped_up(scenarios: Sequence[str], contents: Contents) -> list[Place]:
    """The dialogues of `scenarios`, and in the place of all other records that are taught their originals.

    MASTER's sets without one scenario (Table 4) are filled up to their old size with samples of the original data;
    by which rule is UNKNOWN. Here it is with the very records whose dialogues are left out, so that all sets
    are about the same questions. Where a record has dialogues in several scenarios, none of those that are named
    replaces another.

    Raises:
        RunError: if the run has no dialogue of one of the scenarios.
    """
    dialogues: dict[str, list[Place]] = defaultdict(list)
    for place in contents.dialogues:
        if place.config in scenarios:
            dialogues[place.record].append(place)
    played = {place.config for places in dialogues.values() for place in places}
    if missing := [name for name in scenarios if name not in played]:
        there = ", ".join(dict.fromkeys(place.config for place in contents.dialogues)) or "nothing"
        what = f"the run in {contents.records_file.parent} has no dialogues of {', '.join(missing)}"
        raise RunError(what, f"It has: {there}.")
    return [row for original in taught(contents) for row in dialogues.get(original.record, [original])]


def longest(contents: Contents) -> list[Place]:
    """Of all records those with the longest answers, in characters (Zhao et al. 2024, arXiv 2402.04833); ties by id."""
    left = wanted(contents)
    chosen = set()
    for place in sorted(contents.records, key=lambda place: (-place.answer, place.record)):
        group = (place.source, place.split)
        if left[group]:
            left[group] -= 1
            chosen.add(place.record)
    return [place for place in contents.records if place.record in chosen]


def tagcos(contents: Contents) -> list[Place]:
    """The records that `boost-qa coreset` chose.

    Raises:
        RunError: if it was not called for this run as it is now.
    """
    folder = RunFolder(contents.records_file.parent)
    remedy = f"Choose them: boost-qa coreset {folder.path} --model NAME"
    if not folder.coreset_file.is_file():
        raise RunError(f"{folder.path} has no coreset", remedy)
    try:
        by_source = json.loads(folder.coreset_file.read_text(encoding="utf-8"))["chosen"]
        chosen = {id for ids in by_source.values() for id in ids}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{folder.coreset_file} cannot be read: {error!r}", remedy) from error
    places = [place for place in contents.records if place.record in chosen]
    if counted(places) != wanted(contents):
        raise RunError(f"{folder.coreset_file} was made for other dialogues or splits than there are", remedy)
    return places


def wanted(contents: Contents) -> Counter[Group]:
    """How many records of each source and split are taught."""
    return counted(taught(contents))


def counted(places: Sequence[Place]) -> Counter[Group]:
    return Counter((place.source, place.split) for place in places)


def made_with(config: str, run: RunFolder) -> str:
    """What the rows of a derived config depend on beside run and code, for the name of a cache; "" for most."""
    if config == TAGCOS and run.coreset_file.is_file():
        return digest("coreset", run.coreset_file.read_text(encoding="utf-8"))[:16]
    return noise.version() if config in (noise.RANDOM, noise.SPELLING) else ""


def _without_some(names: Sequence[str], *more: str, change: Change | None = None) -> Iterator[tuple[str, Derived]]:
    for size in range(1, len(names)):
        for some in combinations(names, size):
            yield "+".join((*some, ORIGINAL, *more)), Derived(partial(topped_up, some), change)


DERIVED: Mapping[str, Derived] = {
    "taught": Derived(taught),
    **dict(_without_some(get_args(MasterScenario))),
    CLOSING: Derived(attrgetter("dialogues"), closing),
    **dict(_without_some(get_args(MasterScenario), CLOSING, change=closing)),
    noise.RANDOM: Derived(taught, noise.random_aug),
    noise.SPELLING: Derived(taught, noise.spelling_aug),
    "long": Derived(longest),
    TAGCOS: Derived(tagcos),
}
