"""Fenced code in Markdown, as CommonMark has it: ``` and ~~~, in lists and quotations, finished or not.

The one exception: a fence may be set in by any number of spaces, for models set them in by too many, and what would
be code without a fence then is not looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. `tag` is the first word after the fence in lower case, `line` the fence's line from 1;
    `closed` is whether it has an end, or the text ended first."""

    tag: str
    code: str
    line: int
    closed: bool


def blocks(text: str) -> list[Block]:
    """The fenced blocks of `text` that hold anything, in their order."""
    found = []
    for token in _parser().parse(text):
        if token.type != "fence" or token.map is None or not token.content.strip():
            continue
        first, end = token.map
        words = token.info.strip().strip("{}.").split()
        lines = token.content.count("\n") + (not token.content.endswith("\n"))
        found.append(
            Block(words[0].lower().rstrip(",:") if words else "", token.content, first + 1, end - first == lines + 2)
        )
    return found


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("zero", {"maxNesting": 50})
    return parser.enable(["fence", "list", "blockquote"])
