"""The questions of evaluation benchmarks, from local files or the Hub.

A benchmark of which a part is skipped looks clean when it is not. So what cannot be read is an error here, not a row
that is left out and counted, as it is where records are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from boost_qa.config import Benchmark
from boost_qa.errors import SourceError
from boost_qa.sources.files import SUFFIXES, DataFile, local_files
from boost_qa.sources.formats import read_columns, read_rows
from boost_qa.sources.hub import hub_files
from boost_qa.sources.stream import Unfit

QUESTIONS = (
    "question",
    "problem",
    "prompt",
    "instruction",
    "turns",
    "text",
    "query",
    "goal",
    "ctx",
    "input",
    "sentence",
)
"""Columns that hold questions, likeliest first; upper and lower case are alike."""

IDS = ("id", "task_id", "question_id", "unique_id", "qid", "uid", "idx", "index")
"""Columns that name an item, likeliest first."""


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a benchmark.

    Args:
        benchmark: its name in the settings.
        id: the benchmark's own name for the row, or the row's place in its file; the field is added where several
            are compared, and a number where the field is a list.
        text: the question, or what else the settings name.
    """

    benchmark: str
    id: str
    text: str


def read_benchmarks(benchmarks: Sequence[Benchmark]) -> list[Item]:
    """All texts of the benchmarks, in their order.

    Raises:
        SourceError: two benchmarks share a name; or one cannot be found or read, has no field of a known name or
            none of those that the settings name, or a row without text.
    """
    items: list[Item] = []
    for at, benchmark in enumerate(benchmarks):
        if any(earlier.name == benchmark.name for earlier in benchmarks[:at]):
            raise SourceError(f"two benchmarks are called {benchmark.name!r}", "Give each a name of its own.")
        before = len(items)
        for file in _files(benchmark):
            items.extend(_items(benchmark, file))
        if len(items) == before:
            raise SourceError(f"benchmark {benchmark.name}: no text in it", "Its fields are empty; name others.")
    return items


def _files(benchmark: Benchmark) -> list[DataFile]:
    if benchmark.path is None:
        assert benchmark.repo is not None  # the settings have one of them
        return hub_files(benchmark.repo, benchmark.revision, benchmark.config, benchmark.split).files
    for key, value in (("revision", benchmark.revision), ("config", benchmark.config)):
        if value is not None:
            raise SourceError(
                f"benchmark {benchmark.name}: path and {key} are both given", f"{key} is for the Hub; leave one out."
            )
    return local_files(benchmark.path, benchmark.split)


def _items(benchmark: Benchmark, file: DataFile) -> Iterator[Item]:
    columns = read_columns(file)
    fields = benchmark.fields or _guess(columns, QUESTIONS)[:1]
    missing = [field for field in fields if field not in columns]
    if missing or not fields:
        what = f"no field {missing[0]!r}" if missing else f"no field with one of the names {', '.join(QUESTIONS)}"
        found = ", ".join(columns) or f"no row that can be read, of {', '.join(SUFFIXES)}"
        remedy = f"Name what is compared under `fields`; found: {found}."
        raise SourceError(f"benchmark {benchmark.name}: {file.name} has {what}", remedy)
    named = _guess(columns, IDS)[:1]
    for place, row in read_rows(file, (*fields, *named)):
        if isinstance(row, Unfit):
            raise _unread(benchmark, place, row.reason)
        own = next((str(row[key]) for key in named if row.get(key) is not None), place)
        texts = [(field, *found) for field in fields for found in _texts(benchmark, place, field, row.get(field))]
        if not texts:
            raise _unread(benchmark, place, f"no text in {', '.join(fields)}")
        for field, number, text in texts:
            words = (own, field if len(fields) > 1 else "", number)
            yield Item(benchmark.name, " ".join(word for word in words if word), text)


def _texts(benchmark: Benchmark, place: str, field: str, value: Any) -> list[tuple[str, str]]:
    """(number in its list or "", text) of a text, a list of texts, or of messages, of which the user's count."""
    if value is None:
        return []
    if isinstance(value, str):
        return [("", value)] if value.strip() else []
    entries = [_said(entry) for entry in value] if isinstance(value, list) else [None]
    texts = [(str(number), text) for number, text in enumerate(entries, start=1) if isinstance(text, str)]
    if len(texts) < len(entries):
        raise _unread(benchmark, place, f"{field} is neither text nor a list of texts or messages")
    return [(number, text) for number, text in texts if text.strip()]


def _said(entry: Any) -> Any:
    """What the user says in a message, "" of what others say; what is no message, as it is."""
    role = (entry.get("role") or entry.get("from")) if isinstance(entry, dict) else None
    if role is None:
        return entry
    return entry.get("content", entry.get("value")) if role in ("user", "human") else ""


def _guess(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns with one of the names, in the order of `names`."""
    return [column for name in names for column in columns if column.lower() == name]


def _unread(benchmark: Benchmark, place: str, why: str) -> SourceError:
    remedy = "Mend the row, or name other `fields`: a benchmark that is read in part would look clean."
    return SourceError(f"benchmark {benchmark.name}: {place}: {why}", remedy)
