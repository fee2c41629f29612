"""Figures of a paper as data: the tables of a Markdown file, each with its source.

A table stands under a heading, after a paragraph that says where it is from. Its first column names arms, the others
tasks; a name in backticks is the study's own for it: ``Ori `original` `` is laid beside the arm `original`. Figures are
in percent; a cell that is no number is no figure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt


@dataclass(frozen=True)
class Table:
    """One table.

    Args:
        title: its heading.
        source: the paragraph before it.
        columns: tasks: the study's name, or None, and the paper's.
        rows: arms with their figures, None where there is none.
    """

    title: str
    source: str
    columns: tuple[tuple[str | None, str], ...]
    rows: tuple[tuple[str | None, str, tuple[float | None, ...]], ...]


def paper_file(study: Path) -> Path:
    """Where the paper's figures of a study's file are."""
    return study.with_suffix("") / "paper.md"


def read_tables(text: str) -> list[Table]:
    """All tables of a Markdown text, in their order."""
    tables: list[Table] = []
    title = source = ""
    rows: list[list[str]] = []
    inside = heading = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "heading_open":
            heading = True
        elif token.type == "table_open":
            inside, rows = True, []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "table_close":
            inside = False
            tables.append(_table(title, source, rows))
        elif token.type == "inline":
            if inside:
                rows[-1].append(token.content)
            elif heading:
                title, heading = token.content, False
            else:
                source = token.content
    return tables


def _table(title: str, source: str, rows: list[list[str]]) -> Table:
    head, *body = rows
    return Table(
        title,
        " ".join(source.split()),
        tuple(_named(cell) for cell in head[1:]),
        tuple((*_named(cells[0]), tuple(_number(cell) for cell in cells[1:])) for cells in body),
    )


def _named(cell: str) -> tuple[str | None, str]:
    found = re.search(r"`([^`]+)`", cell)
    return (found[1] if found else None), re.sub(r"\s*`[^`]+`", "", cell).strip()


def _number(cell: str) -> float | None:
    found: Any = re.fullmatch(r"~?([+-]?\d+(?:\.\d+)?)", cell.strip().strip("*"))
    return float(found[1]) if found else None
