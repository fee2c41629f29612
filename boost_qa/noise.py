"""Noise in questions: the baselines RandomAug and SpellingAug, by nlpaug at its published defaults.

MASTER names the two and no more: how they were set, and whether questions, answers or both were changed, is UNKNOWN.
Here it is the question alone, for with garbled answers the scores on MATH and MBPP would not stand where they stand in
Table 3 (21.2 and 20.9 beside 21.6, 61.9 and 63.5 beside 65.3).

Both change as many words as 30 % of a text's words and punctuation marks, ten at most. `RandomCharAug` draws them from
the words of four characters or more, and replaces 30 % of the characters of each, ten at most; `SpellingAug` from those
that stand in its list of common misspellings. Both take a text apart into words and join these with single spaces, so
that code loses its lines and indents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from boost_qa.errors import RunError
from boost_qa.types import digest

RANDOM, SPELLING = "random_aug", "spelling_aug"


def random_aug(row: dict[str, Any]) -> dict[str, Any]:
    """An original row whose question has random characters in it. Raises RunError if nlpaug is not installed."""
    return _changed(row, RANDOM)


def spelling_aug(row: dict[str, Any]) -> dict[str, Any]:
    """An original row whose question has misspelt words. Raises RunError if nlpaug is not installed."""
    return _changed(row, SPELLING)


def version() -> str:
    """The version of nlpaug, or "" if it is not installed."""
    try:
        return metadata.version("nlpaug")
    except metadata.PackageNotFoundError:
        return ""


def noisy(text: str, name: str, seed: str) -> str:
    """`text` with the noise `name`; the same for the same `seed`, in any order and process."""
    augmenter = _augmenter(name)
    with _seeded(int(digest(name, seed)[:8], 16)):
        found = augmenter.augment(text)
    return str(found[0]) if found else text


def _changed(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The noisy question is what is said; the column `question` keeps the record's own, as in every config."""
    asked = noisy(row["question"], name, row["id"])
    said, messages = ([dict(turn) for turn in row[column]] for column in ("conversations", "messages"))
    said[0]["value"] = messages[0]["content"] = asked
    return row | {"scenario": name, "conversations": said, "messages": messages}


@cache
def _augmenter(name: str) -> Any:
    try:
        if name == RANDOM:
            from nlpaug.augmenter.char import RandomCharAug

            return RandomCharAug(action="substitute")
        from nlpaug.augmenter.word import SpellingAug
    except ModuleNotFoundError as error:
        raise RunError(f"{name} needs {error.name}", "pip install 'boost_qa[baselines]'") from error
    augmenter = SpellingAug()
    # it puts the misspellings of a word through a set, whose order differs from process to process
    augmenter.model.dict = {word: sorted(others) for word, others in augmenter.model.dict.items()}
    return augmenter


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """nlpaug draws from the generators that all of a process share: they are put back as they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
