"""The pairs laid out for reading: a Markdown file, and a page that asks its reader for verdicts.

Neither says, where a pair is read, whether it was retrieved or drawn: the file tells it at its end, the page behind a
click. What sources and models wrote only ever becomes text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from boost_qa.analogies.draw import Pair
from boost_qa.analogies.judging import GRADES, SAME_STRUCTURE, SAME_TOPIC, UNRELATED, reference
from boost_qa.cards.markup import markdown
from boost_qa.page import sealed
from boost_qa.types import Record

MEANINGS = {
    SAME_STRUCTURE: "whoever can solve one can solve the other along the same steps; numbers, names and setting differ",
    SAME_TOPIC: "the same subject or alike to look at, but one solution does not solve the other",
    UNRELATED: "neither the solution nor the subject is shared",
}


def as_markdown(name: str, pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]], judged: Sequence[str] = ()) -> str:
    """The pairs side by side, then where each comes from.

    Args:
        name: of the run.
        rows: the pairs as in `analogies.json`, in the same order.
        judged: lines of Markdown that say what came out.
    """
    lines = [f"# Pairs of questions of the run {markdown(name)}", "", "How alike are the solutions?", ""]
    lines += [f"* **{grade}**: {meaning}" for grade, meaning in MEANINGS.items()]
    for number, pair in enumerate(pairs, 1):
        lines += ["", f"## {number}", "", "| | one question | the other |", "|---|---|---|"]
        lines += [f"| {what} | {_cell(one)} | {_cell(other)} |" for what, one, other in _sides(pair)]
    lines += ["", "## Where the pairs come from", "", "| pair | is | rank | similarity | judge | records |"]
    lines += ["|---:|---|---:|---:|---|---|"]
    for number, row in enumerate(rows, 1):
        cells = (row["kind"], row["rank"], row["similarity"], row["outcome"], f"{row['first']} {row['second']}")
        lines.append(f"| {number} | {' | '.join(markdown(cell) for cell in cells)} |")
    lines += ["", "## What the judge says", "", *judged] if judged else []
    return "\n".join(lines) + "\n"


def as_table(rows: Iterator[tuple[str, ...]]) -> list[str]:
    """A table in Markdown, of rows the first of which names the columns."""
    names, *others = rows
    lines = [f"| {' | '.join(markdown(cell) for cell in row)} |" for row in (names, *others)]
    return [lines[0], "|" + "---|" * len(names), *lines[1:]]


def as_page(name: str, drawn: str, pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page, which loads nothing; its reader's verdicts are downloaded as a file.

    Args:
        drawn: names the drawing, and goes with the verdicts.
    """
    found = sealed.templates(Path(__file__).parent, Path(sealed.__file__).parent)
    style = sealed.source(found, "style.jinja", "pairs_style.jinja")
    script = sealed.source(found, "pairs_script.jinja")
    return found.get_template("pairs.jinja").render(
        policy=sealed.policy(style, script),
        style=style,
        script=script,
        name=name,
        drawn=drawn,
        meanings=MEANINGS,
        grades=GRADES,
        pairs=[(row, list(_sides(pair))) for pair, row in zip(pairs, rows, strict=True)],
    )


def _sides(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """What is shown of both questions, by the name of each part."""
    sides = (pair.first, pair.second)
    for what, of in _PARTS.items():
        one, other = map(of, sides)
        if one or other:
            yield what, one, other


def _final(record: Record) -> str:
    return record.final or ""


def _cell(text: str) -> str:
    """Lines of a cell, which keep their indentation."""
    lines = text.expandtabs(4).splitlines()
    return "<br>".join("&nbsp;" * (len(line) - len(line.lstrip())) + markdown(line) for line in lines)


_PARTS = {
    "source": lambda record: str(record.source),
    "question": lambda record: str(record.question),
    "result": _final,
    "reference answer": reference,
}
