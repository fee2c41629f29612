"""ProcQA: five million StackOverflow questions with their accepted answers (MASTER, section 4.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from boost_qa.config import ProcQA
from boost_qa.errors import SourceError
from boost_qa.sources.stream import Item, Stream, optional, text
from boost_qa.sources.table import Table, find_table, table_stream

# StackOverflow text is CC BY-SA whatever the dataset's own code is under: 4.0 since May 2018, before
# that 3.0 and (until April 2011) 2.5; the rows carry no date.
LICENCE = "CC-BY-SA-4.0"


def streams(settings: ProcQA) -> list[Stream]:
    """One stream, `procqa`, over the languages that are asked for.

    Raises:
        SourceError: the table cannot be found, lacks a column, or has no such language.
    """
    if settings.path is None and settings.repo is None:
        raise SourceError(
            "procqa: neither path nor repo is given, and the whole of ProcQA is not on the Hub",
            "Download it through github.com/jordane95/procqa and give the path of its folder; "
            "repo: Jccc-l/procqa_cpp is the C++ part.",
        )
    table = _only(find_table(settings, "procqa"), settings.languages)
    needed = ("title", "question", "answer")
    return [table_stream(table, settings, "procqa", needed, _item, also=("question_id",), licence=LICENCE)]


def _only(table: Table, languages: tuple[str, ...] | None) -> Table:
    if languages is None:
        return table
    known = {file.language for file in table.files}
    unknown = [language for language in languages if language.lower() not in known]
    if unknown:
        raise SourceError(
            f"procqa ({table.where}): no file for {', '.join(unknown)}",
            f"A language is the name of its file, or of the folder around it. There are: {', '.join(sorted(known))}.",
        )
    wanted = {language.lower() for language in languages}
    return replace(table, files=[file for file in table.files if file.language in wanted])


def _item(row: dict[str, Any]) -> Item:
    question = f"{text(row, 'title')}\n\n{text(row, 'question')}"
    return Item(question, text(row, "answer"), optional(row, "question_id"))
