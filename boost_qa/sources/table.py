"""A stream of rows from files, local or on the Hub."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boost_qa.config import FileSourceSettings
from boost_qa.errors import SourceError
from boost_qa.sources.files import DataFile, content_revision, local_files
from boost_qa.sources.formats import read_columns, read_rows
from boost_qa.sources.hub import hub_files
from boost_qa.sources.stream import Item, Stream, Unfit


@dataclass(frozen=True, slots=True)
class Table:
    """Files with rows; `commit` and `licence` are known where they come from the Hub."""

    files: list[DataFile]
    where: str
    commit: str | None = None
    licence: str | None = None


def find_table(settings: FileSourceSettings, source: str, repo: str | None = None, config: str | None = None) -> Table:
    """The files that the settings name, or those of the source's own dataset `repo`.

    Raises:
        SourceError: none, or both, of path and repo are given; or nothing is there.
    """
    if settings.path is not None:
        for key, value in (("repo", settings.repo), ("revision", settings.revision), ("config", config)):
            if value is not None:
                raise SourceError(f"{source}: path and {key} are both given", f"{key} is for the Hub; leave one out.")
        where = Path(settings.path).expanduser().absolute().name  # a private path is nobody's business
        return Table(local_files(settings.path, settings.split), where)
    repo = settings.repo or repo
    if repo is None:
        raise SourceError(f"{source}: neither path nor repo is given", "Give a path, or a dataset on the Hub.")
    found = hub_files(repo, settings.revision, config, settings.split)
    return Table(found.files, repo, found.commit, found.licence)


def table_stream(
    table: Table,
    settings: FileSourceSettings,
    source: str,
    needed: Sequence[str],
    item: Callable[[dict[str, Any]], Item],
    *,
    also: Sequence[str] = (),
    licence: str = "unknown",
) -> Stream:
    """The stream of `item(row)` over all rows, after a look at the columns of every file.

    Args:
        table: where the rows are.
        settings: of the source.
        source: name of the source in the records.
        needed: columns that every file must have.
        item: makes an item of a row, or raises Unfit.
        also: columns that are read where a file has them.
        licence: of the text, where the settings name no other.

    Raises:
        SourceError: a file lacks a column.
    """
    for file in table.files:
        _check_columns(source, file, needed)

    def rows() -> Iterator[tuple[str, Item | Unfit]]:
        for file in table.files:
            for place, row in read_rows(file, (*needed, *also)):
                yield place, row if isinstance(row, Unfit) else _fit(item, row)

    revision = table.commit or content_revision(table.files)
    return Stream(source, settings.n, settings.licence or licence, revision, table.where, rows)


def _fit(item: Callable[[dict[str, Any]], Item], row: dict[str, Any]) -> Item | Unfit:
    try:
        return item(row)
    except Unfit as unfit:
        return unfit


def _check_columns(source: str, file: DataFile, needed: Sequence[str]) -> None:
    found = read_columns(file)
    missing = [column for column in needed if column not in found]
    if not missing:
        return
    if not found:
        raise SourceError(f"{source}: {file.name} has no row that can be read", "A row is a JSON object, or CSV.")
    near = {column: difflib.get_close_matches(column, found, n=3, cutoff=0.5) for column in missing}
    hints = [f"nearest to {column!r}: {', '.join(names)}" for column, names in near.items() if names]
    what = (
        f"{source}: {file.name} has no column {', '.join(map(repr, missing))}; "
        f"needed: {', '.join(needed)}; found: {', '.join(found)}"
    )
    remedy = "" if not hints else f"{'; '.join(hints)}. "
    raise SourceError(what, f"{remedy}`source: columns` reads any columns under the names that you give it.")
