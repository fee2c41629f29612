"""Near-duplicates inside a run: of questions, and of what was said about them.

Two texts are as alike as the sets of their runs of three words and signs (Jaccard similarity). Numbers count: word
problems of one form that differ in their numbers are different questions. So questions share nothing unless their
numbers, signs, letters such as x, and words such as "more" and "largest" are the same in the same order; and dialogues
share nothing unless the same numbers occur in them. Long questions that differ in another word alone are not told
apart. Dialogues in which under `LEAST` words were said are not compared: short answers are alike by nature.

Candidates come from `rensa`, MinHash with locality-sensitive hashing, and are then compared run by run, so that no pair
is found that is not one. A pair just at the threshold is missed once in ten thousand times. Hashes are fixed: the same
dialogues in the same order give the same findings. Where thousands of texts are all nearly alike, all are candidates
of each other, and time grows by the square of their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boost_qa.checks.finding import Finding
from boost_qa.checks.words import END, SIGNS, tokens
from boost_qa.types import Dialogue, Record

NAME = "duplicates"
VERSION = "2"
LABELS = {
    "same question": "an earlier dialogue is about a record with nearly the same question",
    "same dialogue": "nearly the same was said in an earlier dialogue",
}

LEAST = 20  # words and signs of a dialogue
PERMUTATIONS = 120
MISSED = 1e-4  # of pairs that are just as alike as the threshold
SEED = 20250602
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every word of a run keeps its weight

_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_OTHERS = """hundred thousand million dozen half third quarter twice double thrice triple first second fourth fifth
    last next more most less least fewer fewest greater greatest larger largest bigger biggest smaller smallest longer
    longest shorter shortest maximum minimum sum difference product quotient remainder odd even"""
_DECIDING = {word: word for word in _OTHERS.split()}
_DECIDING |= {word: str(value) for value, word in enumerate(_UNITS.split())}
_DECIDING |= {word: str(10 * value) for value, word in enumerate(_TENS.split(), start=2)}
"""What questions of one form differ in, besides signs, digits and single letters; number words with their digits."""


class Alike(NamedTuple):
    """The earlier text that a text is most like, the first of several; its name, and the Jaccard similarity."""

    name: str
    jaccard: float


class Duplicates:
    """Looks at dialogues in the run's order: the first of several that are alike stays, later ones are labelled.

    In memory: of each question, and of what was said in each dialogue, 8 bytes for a word, and some 2 KB in the index;
    nothing of duplicates. And the id of each record.

    Args:
        threshold: Jaccard similarity from which two texts count as one; above 0, up to 1.

    Raises:
        ValueError: the threshold is out of bounds.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, not above 0 and up to 1")
        self._questions = Seen(threshold, _in_order)
        self._said = Seen(threshold, _of_all)
        self._records: dict[str, Alike | None] = {}

    def look(self, dialogue: Dialogue, leaves_for: Collection[str] = ()) -> list[Finding]:
        """Compare a dialogue with all before it, and remember it if it stays.

        The same record in another scenario is no duplicate; both records of an analogy are compared. A finding about a
        question names the first turn that it stands in.

        Args:
            leaves_for: labels for which it leaves; what is not there must make nobody else leave.
        """
        records = [record for record in (dialogue.record, dialogue.related) if record]
        # not `- self._records.keys()`, which walks all of them
        new = {record.id for record in records if record.id not in self._records}
        questions, dialogues = len(self._questions), len(self._said)
        findings = []
        for record in records:
            alike = self._question(record)
            if alike is not None:
                turn = next((at for at, turn in enumerate(dialogue.turns) if record.question in turn.text), None)
                detail = f"{record.id} is like {alike.name}, Jaccard {alike.jaccard:.3f}"
                findings.append(Finding("same question", turn, detail))
        name = f"{dialogue.record.id} ({dialogue.scenario})"
        said = [token for token in tokens(_said(dialogue)) if token != END]
        alike = self._said.look(name, said) if len(said) >= LEAST else None
        if alike is not None:
            findings.append(Finding("same dialogue", None, f"like {alike.name}, Jaccard {alike.jaccard:.3f}"))
        if any(finding.label in leaves_for for finding in findings):
            self._questions.forget(questions)
            self._said.forget(dialogues)
            for id in new:
                del self._records[id]
        return findings

    def _question(self, record: Record) -> Alike | None:
        if record.id not in self._records:
            asked = [token for token in tokens(record.question) if token != END]
            self._records[record.id] = self._questions.look(record.id, asked) if asked else None
        return self._records[record.id]


class Seen:
    """The texts that stay, to be compared with those that come.

    Args:
        threshold: as of `Duplicates`.
        deciding: of a text, what another must have just so to share anything with it.
    """

    def __init__(self, threshold: float, deciding: Callable[[Sequence[str]], Sequence[str]]) -> None:
        from rensa import RMinHashLSH

        self._threshold, self._deciding = threshold, deciding
        self._index = RMinHashLSH(threshold, PERMUTATIONS, bands(threshold))
        self._names: list[str] = []
        self._runs: list[NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return len(self._names)

    def forget(self, length: int) -> None:
        """Take out what came after the first `length` texts."""
        for key in range(length, len(self)):
            self._index.remove(key)
        del self._names[length:], self._runs[length:]

    def look(self, name: str, text: Sequence[str]) -> Alike | None:
        """The text that this one is most like; None if it is like none, and stays."""
        from rensa import RMinHash

        runs = _runs(text, self._deciding(text))
        sketch = RMinHash(PERMUTATIONS, SEED)
        sketch.update(runs.view("V8").tolist())
        keys = sorted(self._index.query(sketch))
        if keys:
            jaccard = _jaccard(runs, [self._runs[key] for key in keys])
            best = int(jaccard.argmax())  # the first of equals
            if jaccard[best] >= self._threshold:
                return Alike(self._names[keys[best]], float(jaccard[best]))
        self._index.insert(len(self._names), sketch)
        self._names.append(name)
        self._runs.append(runs)
        return None


def _runs(text: Sequence[str], deciding: Sequence[str]) -> NDArray[np.uint64]:
    """The runs of three as sorted hashes; what decides is part of each. First and last word are in three as well."""
    weights = np.array([0, 0, *map(_weight, text), 0, 0], np.uint64)
    mixed = (weights[:-2] * _MULTIPLIER + weights[1:-1]) * _MULTIPLIER + weights[2:]
    return np.unique(mixed ^ np.uint64(_bits("\n".join(deciding))))


def _jaccard(runs: NDArray[np.uint64], others: Sequence[NDArray[np.uint64]]) -> NDArray[np.float64]:
    """The similarity of a set to each of several, all sorted and none empty."""
    sizes = np.array([len(other) for other in others])
    flat = np.concatenate(others)
    there = runs[np.minimum(np.searchsorted(runs, flat), len(runs) - 1)] == flat
    shared = np.add.reduceat(there.astype(np.int64), np.cumsum(sizes) - sizes)
    return np.asarray(shared / (len(runs) + sizes - shared), np.float64)


def _bits(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


_weight = lru_cache(2**17)(_bits)  # of words, most of which come again


def bands(threshold: float) -> int:
    """Bands of the index: as few as miss no more than `MISSED` of the pairs that are just alike enough.

    With b bands of r hashes, a pair of similarity s is a candidate with probability 1 - (1 - s^r)^b.
    """
    whole = (count for count in range(1, PERMUTATIONS) if PERMUTATIONS % count == 0)
    enough = (count for count in whole if (1 - threshold ** (PERMUTATIONS // count)) ** count <= MISSED)
    return next(enough, PERMUTATIONS)


def _in_order(text: Sequence[str]) -> list[str]:
    """What decides what is asked, in its order: numbers, signs, letters but for a and I, and `_DECIDING`."""
    return [
        _DECIDING.get(token, token)
        for token in text
        if token in _DECIDING
        or token[-1].isdigit()
        or (len(token) == 1 and token.isascii() and token not in "ai")
        or token in SIGNS
    ]


def _of_all(text: Sequence[str]) -> list[str]:
    """Each number in digits once, sorted."""
    return sorted({token for token in text if token[-1].isdigit()})


def _said(dialogue: Dialogue) -> str:
    """The turns without the questions, which dialogues of one record share."""
    text = "\n".join(turn.text for turn in dialogue.turns)
    for record in filter(None, (dialogue.record, dialogue.related)):
        text = text.replace(record.question, "\n") if record.question else text
    return text
