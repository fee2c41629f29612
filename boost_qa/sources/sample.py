"""The records that come with the package."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import resources
from typing import Any

import yaml

from boost_qa.config import Sample
from boost_qa.errors import SourceError
from boost_qa.sources.stream import Item, Stream, Unfit, optional, text

FILE = "sample.yaml"


def streams(settings: Sample) -> list[Stream]:
    """One stream for each subject, such as `sample_mathematics`; `n` is spread evenly over them.

    Raises:
        SourceError: there are fewer than n.
    """
    packaged = yaml.safe_load(resources.files("boost_qa.sources").joinpath(FILE).read_text(encoding="utf-8"))
    licence, revision = packaged["licence"], str(packaged["revision"])
    subjects: tuple[str, ...] = tuple(dict.fromkeys(settings.subjects))
    rows = {subject: [row for row in packaged["records"] if row["subject"] == subject] for subject in subjects}
    most = min(map(len, rows.values())) * len(subjects)
    if settings.n is not None and settings.n > most:
        raise SourceError(
            f"sample: {most} records can be spread evenly over {', '.join(subjects)}, but n is {settings.n}",
            f"Set n to {most} or less, or leave it out to take all.",
        )
    return [
        Stream(f"sample_{subject}", n, licence, revision, FILE, partial(_items, rows[subject]))
        for subject, n in _spread(settings.n, subjects)
        if n != 0
    ]


def _spread(n: int | None, subjects: tuple[str, ...]) -> Iterator[tuple[str, int | None]]:
    for place, subject in enumerate(subjects):
        yield subject, None if n is None else (n + len(subjects) - 1 - place) // len(subjects)


def _items(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Item | Unfit]]:
    for row in rows:
        yield row["id"], Item(text(row, "question"), text(row, "answer"), row["id"], optional(row, "final"))
