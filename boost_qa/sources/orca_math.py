"""Orca-Math: 200,035 grade-school word problems with worked answers (MASTER, section 4.1)."""

from __future__ import annotations

from typing import Any

from boost_qa.config import OrcaMath
from boost_qa.sources.stream import Item, Stream, text
from boost_qa.sources.table import find_table, table_stream

REPO = "microsoft/orca-math-word-problems-200k"


def streams(settings: OrcaMath) -> list[Stream]:
    """One stream, `orca_math`. Raises SourceError where the table cannot be found or lacks a column."""
    table = find_table(settings, "orca_math", REPO)
    return [table_stream(table, settings, "orca_math", ("question", "answer"), _item, licence="MIT")]


def _item(row: dict[str, Any]) -> Item:
    return Item(text(row, "question"), text(row, "answer"))
