"""What every source hands over: a stream of items, each with the place it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boost_qa.types import Record, digest


class Unfit(Exception):
    """A row that cannot become a record. Data, not an error: `reason` is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Item:
    """The content of one row, cleaned. `id` is the source's own name for it, where it has one."""

    question: str
    answer: str
    id: str | None = None
    final: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """Items of one kind, not yet read.

    Args:
        source: name of the source in the records.
        n: records to take; all when None.
        licence: licence of the text.
        revision: what exactly is read: a commit, `sha256:...` of the content, or a version.
        where: basename, Hub id or task that it is read from.
        rows: starts reading; gives (place of the row, item or why there is none).
        endless: the first `n` different items are taken as they come, and reading stops there;
            otherwise `n` are drawn from all.
        remedy: what to do where there are fewer than `n`, after "Set n to ... or less".
    """

    source: str
    n: int | None
    licence: str
    revision: str
    where: str
    rows: Callable[[], Iterator[tuple[str, Item | Unfit]]]
    endless: bool = False
    remedy: str = ", or leave it out to take all."

    def record(self, item: Item) -> Record:
        """The record of `item`; its id depends on source, question and answer alone."""
        content = digest(item.question, item.answer)[:16]
        return Record(
            id=f"{self.source}:{content}",
            source=self.source,
            question=item.question,
            answer=item.answer,
            source_id=item.id or content,
            final=item.final,
            licence=self.licence,
            revision=self.revision,
        )


def text(row: Mapping[str, Any], field: str) -> str:
    """The field as clean text: stripped, lines ending in LF; the first of several lines keeps its indentation.

    Raises:
        Unfit: the field is missing, empty, no text, or no valid Unicode.
    """
    value = row.get(field)
    if value is None:
        raise Unfit(f"missing {field}")
    if not isinstance(value, str):
        raise Unfit(f"{field} is not text")
    clean = _clean(value, field)
    if not clean:
        raise Unfit(f"empty {field}")
    return clean


def optional(row: Mapping[str, Any], field: str | None) -> str | None:
    """The field as `text`, numbers too; None where it is missing, null, empty or no number (NaN).

    Raises:
        Unfit: the field holds something else, or no valid Unicode.
    """
    value = None if field is None else row.get(field)
    if value is None or field is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unfit(f"{field} is neither text nor a number")
    if isinstance(value, float):  # as which tables hand out whole numbers where some cells are empty
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    return _clean(str(value), field) or None


def _clean(value: str, field: str) -> str:
    if "\0" in value:
        raise Unfit(f"NUL character in {field}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates: JSON can spell them, and bytes that were no UTF-8 end as them
        raise Unfit(f"{field} is not valid Unicode") from None
    ended = value.replace("\r\n", "\n").rstrip()
    clean = ended.lstrip()
    if "\n" in clean:  # the first of several lines keeps its indentation, as it may be code
        start = len(ended) - len(clean)
        clean = ended[ended.rfind("\n", 0, start) + 1 :]
    return clean
