"""Contamination: the words of evaluation benchmarks in source or generated text.

How much overlap is too much differs. GPT-3 (arXiv 2005.14165, appendix C) counted a run of 8 to 13 words, by dataset,
and scored its benchmarks again without what overlapped; s1 (2501.19393) and Open-R1 drop a training question for one
run of 8 words; Tulu 3 (2411.15124) wants half of a test question covered by runs of 8. Here 13 words in a row are
told, to be looked at. What says that a question is there is half of it in runs of 8, since 8 words alone are often
nobody's ("how many more apples than pears does").

* A run of 8 words in more than `common` different items is nobody's, and so is one with under `SPOKEN` words of two
  letters or more, or Han and Kana characters (1, 2, 3, 4, ...): it starts no hit, and need not be covered. Items with
  the same text count as one, so that a benchmark and its subset do not make each other common.
* An item without a run of its own, being short or like many others, is hit where it stands whole: as whole sentences
  or lines, and with its signs (+, -). If it has under `SHORTEST` words and signs, it is left out.

Runs are found by hashes and verified word for word.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boost_qa.checks.benchmarks import Item
from boost_qa.checks.finding import Finding, excerpt
from boost_qa.checks.words import END, tokens, words
from boost_qa.types import ORIGINAL, Dialogue, Record

NAME = "contamination"
VERSION = "2"
LABELS = {
    "benchmark 13-gram": "thirteen words in a row are a benchmark's: to be looked at",
    "benchmark 8-gram": "half of a benchmark's question, in runs of eight words, or all of a short one",
}
LONG, GRAM = 13, 8  # words in a row
SPOKEN = 2  # words that tell something in a run of 8
SHORTEST = 3  # words and signs of an item

# --- the benchmarks ------------------------------------------------------------------------------

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every word of a run keeps its weight


class Run(NamedTuple):
    """`length` words in a row that a text, from its word `at` on, shares with an entry of the index."""

    entry: int
    at: int
    start: int  # among the words of all entries
    length: int


class Index:
    """What is looked for, built once: hashes of all runs of 8 words, sorted, with their places.

    Takes some 30 bytes for a word of the benchmarks, and its vocabulary.

    Args:
        items: texts of benchmarks.
        common: a run of words in more different items than this is nobody's.
    """

    def __init__(self, items: Iterable[Item], common: int = 10) -> None:
        same: dict[tuple[str, ...], list[Item]] = {}
        self.left_out: list[Item] = []
        for item in items:
            key = tuple(token for token in tokens(item.text) if token != END)
            if len(key) < SHORTEST:
                self.left_out.append(item)
            else:
                same.setdefault(key, []).append(item)
        self.entries = list(same.values())
        self.vocabulary: dict[str, int] = {}
        flat, starts = [-2], []
        for key in same:
            starts.append(len(flat))
            flat += [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words(key)]
            flat.append(-2)
        self._flat, self.starts = np.array(flat), np.array([*starts, len(flat)])
        self._find_runs(common)
        self.size = np.add.reduceat(self.own, self.starts[:-1]) if starts else np.zeros(0, int)
        self.whole = {key: entry for entry, key in enumerate(same) if not self.size[entry]}
        self._longest = max(map(len, self.whole), default=0)

    def _find_runs(self, common: int) -> None:
        """Sort the runs that are not common by hash; mark the words that they cover as their items' own."""
        places = _begins(self._flat)
        hashes = _hashes(self._flat, places)
        entries = np.searchsorted(self.starts, places, "right") - 1
        order = np.lexsort((places, entries, hashes))
        places, hashes, entries = places[order], hashes[order], entries[order]
        begins = np.ones(len(order), bool)  # of a hash
        begins[1:] = hashes[1:] != hashes[:-1]
        first = begins.copy()  # of a hash in an entry
        first[1:] |= entries[1:] != entries[:-1]
        group = np.cumsum(begins) - 1
        spoken = np.array([_spoken(word) for word in self.vocabulary] or [False])
        speaking = sum(spoken[self._flat[places + offset]].astype(int) for offset in range(GRAM))
        kept = (np.bincount(group, first) <= common)[group] & (speaking >= SPOKEN)
        self.own = np.zeros(len(self._flat), int)
        for offset in range(GRAM):
            self.own[places[kept] + offset] = 1
        self._hashes, self._places = hashes[kept & first], places[kept & first]

    def runs(self, ids: NDArray[np.int64]) -> Iterator[Run]:
        """All runs of 8 or more words that a text shares with entries, each as long as it can be.

        Args:
            ids: the words of the text by `vocabulary`; -1 for any other, and at the end.
        """
        places = _begins(ids)
        hashes = _hashes(ids, places)
        low, high = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        hit = np.flatnonzero(high > low)
        ends: dict[int, int] = {}  # of the last run, by how far text and entry are apart
        for at, begin, end in zip(places[hit].tolist(), low[hit].tolist(), high[hit].tolist(), strict=True):
            for place in self._places[begin:end].tolist():
                if at < ends.get(place - at, 0):
                    continue
                after = _alike(ids[at:], self._flat[place:])
                if after < GRAM:  # two runs with one hash
                    continue
                before = _alike(ids[:at][::-1], self._flat[:place][::-1])
                ends[place - at] = at + after
                entry = int(np.searchsorted(self.starts, place, "right")) - 1
                yield Run(entry, at - before, place - before, before + after)

    def standing_whole(self, found: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The entries without a run of their own that are whole sentences or lines of these tokens."""
        edges = [-1, *(at for at, token in enumerate(found) if token == END), len(found)]
        sentences = [tuple(found[low + 1 : high]) for low, high in itertools.pairwise(edges)]
        sentences = [sentence for sentence in sentences if sentence]
        for at in range(len(sentences)):
            key: tuple[str, ...] = ()
            for sentence in sentences[at:]:
                key += sentence
                if len(key) > self._longest:
                    break
                if key in self.whole:
                    yield self.whole[key], key


def _spoken(word: str) -> bool:
    """Whether a word tells anything: no number, no single letter; a Han or Kana character is a word by itself."""
    return word.isalpha() and (len(word) > 1 or word >= "\u3040")


def _begins(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where 8 words in a row begin, all of them known."""
    unknown = np.concatenate(([0], np.cumsum(ids < 0)))
    return np.flatnonzero(unknown[GRAM:] == unknown[:-GRAM])


def _hashes(ids: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    found = np.zeros(len(places), np.uint64)
    for offset in range(GRAM):
        found = (found + ids[places + offset].astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    return found


def _alike(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many words two texts share from their beginnings; no -1 is a -2, so that runs end with their texts."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if len(different) else size


# --- the check -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the hit list.

    Args:
        record: id of the dialogue's record.
        scenario: of the dialogue, or `ORIGINAL`.
        benchmark: whose item it is.
        item: its id there.
        n: 13 or 8; of an item that stands whole, its words.
        where: `question`, `answer`, `related question`, `related answer`, or `turn` and its place from 0.
        share: of the item's own words that are there, from 0 to 1.
        text: the most of its words that are there in a row.
        label: of the finding.
    """

    record: str
    scenario: str
    benchmark: str
    item: str
    n: int
    where: str
    share: float
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class _Overlap:
    """What a text has of an entry: the longest run, and how many of the entry's own words are there."""

    text: str
    longest: int
    covered: int
    size: int
    whole: bool = False

    @property
    def share(self) -> float:
        return self.covered / self.size


class Contamination:
    """Looks at source and generated text for the questions of benchmarks.

    Args:
        index: of the benchmarks.
        share: of an item's own words that must be there, in runs of 8, for `benchmark 8-gram`. One run of 8 words
            is not enough, unless it is all of the item.
    """

    def __init__(self, index: Index, share: float = 0.5) -> None:
        self.index, self.share = index, share
        self.hits: list[Hit] = []
        """All that is labelled so far, in order; a finding names only the item of which most is there."""

    def look(self, dialogue: Dialogue) -> list[Finding]:
        """What benchmarks have, too. What is seen in the source is said of the dialogue as a whole."""
        return self._look(dialogue.record.id, dialogue.scenario, _parts(dialogue))

    def look_at_source(self, record: Record) -> None:
        """Add the hits in question and answer of a record by itself, as those of the scenario `ORIGINAL`."""
        self._look(record.id, ORIGINAL, [("question", None, record.question), ("answer", None, record.answer)])

    def _look(self, id: str, scenario: str, parts: Sequence[tuple[str, int | None, str]]) -> list[Finding]:
        findings = []
        found = self._overlaps([tokens(text) for _, _, text in parts])
        for (where, turn, _), overlaps in zip(parts, found, strict=True):
            ranked = sorted(overlaps.items(), key=lambda each: (-each[1].share, -each[1].longest, each[0]))
            for label, n in (("benchmark 13-gram", LONG), ("benchmark 8-gram", GRAM)):
                told = [each for each in ranked if (each[1].longest >= LONG if n == LONG else self._is_there(each[1]))]
                hits = [
                    Hit(
                        id, scenario, item.benchmark, item.id,
                        overlap.longest if overlap.whole else n, where, round(overlap.share, 3), overlap.text, label,
                    )
                    for entry, overlap in told
                    for item in self.index.entries[entry]
                ]  # fmt: skip
                self.hits += hits
                if hits:
                    others = f" (and {len(hits) - 1} more)" if len(hits) > 1 else ""
                    most = f"{where}: {hits[0].share:.0%} of {hits[0].benchmark} {hits[0].item}{others}"
                    findings.append(Finding(label, turn, excerpt(f"{most}: {hits[0].text}")))
        return findings

    def _is_there(self, overlap: _Overlap) -> bool:
        enough = min(overlap.size, GRAM + 1)
        return overlap.whole or (overlap.share >= self.share and overlap.covered >= enough)

    def _overlaps(self, texts: Sequence[Sequence[str]]) -> list[dict[int, _Overlap]]:
        """By entry, what each of the texts, as tokens, has of it."""
        index = self.index
        flat: list[str] = []
        ends = []
        for text in texts:
            flat += [*words(text), ""]  # no word is empty: no run goes on into the next text
            ends.append(len(flat))
        runs: dict[tuple[int, int], list[Run]] = {}
        for run in index.runs(np.array([index.vocabulary.get(word, -1) for word in flat], np.int64)):
            runs.setdefault((bisect.bisect_right(ends, run.at), run.entry), []).append(run)
        overlaps: list[dict[int, _Overlap]] = [{} for _ in texts]
        for (text_at, entry), shared in runs.items():
            begin, end = index.starts[entry : entry + 2]
            there = np.zeros(end - begin, bool)
            for run in shared:
                there[run.start - begin : run.start - begin + run.length] = True
            longest = max(shared, key=lambda run: run.length)
            text = " ".join(flat[longest.at : longest.at + longest.length])
            overlaps[text_at][entry] = _Overlap(
                text, longest.length, int(index.own[begin:end][there].sum()), int(index.size[entry])
            )
        for text_at, each in enumerate(texts):
            for entry, key in index.standing_whole(each):
                size = len(words(key))
                overlaps[text_at][entry] = _Overlap(" ".join(key), size, 1, 1, whole=True)
        return overlaps


def _parts(dialogue: Dialogue) -> list[tuple[str, int | None, str]]:
    """(where, place of the turn or None, text) of the sources, and of the turns without their questions."""
    parts: list[tuple[str, int | None, str]] = []
    sources = [("", dialogue.record)] + ([("related ", dialogue.related)] if dialogue.related else [])
    for kind, record in sources:
        parts += [(f"{kind}question", None, record.question), (f"{kind}answer", None, record.answer)]
    for place, turn in enumerate(dialogue.turns):
        text = turn.text
        for _, record in sources:
            text = text.replace(record.question, "\n") if record.question else text
        parts.append((f"turn {place}", place, text))
    return parts
