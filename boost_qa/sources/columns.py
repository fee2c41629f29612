"""Any table, with the names of its columns from the recipe."""

from __future__ import annotations

from typing import Any

from boost_qa.config import Columns
from boost_qa.sources.stream import Item, Stream, optional, text
from boost_qa.sources.table import find_table, table_stream


def streams(settings: Columns) -> list[Stream]:
    """One stream, named by the recipe; its licence is the recipe's or the dataset card's.

    Raises:
        SourceError: the table cannot be found, or lacks a column that the recipe names.
    """
    table = find_table(settings, settings.name, config=settings.config)
    named = (settings.question, settings.answer, settings.id, settings.final)
    needed = list(dict.fromkeys(column for column in named if column is not None))

    def item(row: dict[str, Any]) -> Item:
        question, answer = text(row, settings.question), text(row, settings.answer)
        return Item(question, answer, optional(row, settings.id), optional(row, settings.final))

    return [table_stream(table, settings, settings.name, needed, item, licence=table.licence or "unknown")]
