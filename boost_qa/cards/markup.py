"""Cards are Jinja templates; whatever comes from outside the template is escaped.

`finalize` sees every expression, so no name, reason or licence can become markup, a table cell or YAML.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import jinja2


class Markup(str):
    """Text that is Markdown already."""


def environment() -> jinja2.Environment:
    """The Jinja environment of all cards: a variable that is missing is an error, what is printed is escaped."""
    import jinja2

    strict = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folder()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=markdown,
    )
    strict.filters |= {"address": address, "code": code, "code_text": code_text}
    return strict


def template_folder() -> Path:
    """Where the cards' templates are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent.parent
    inside = package / "model_cards"
    return inside if inside.is_dir() else package.parent / "model_cards"


def markdown(value: Any) -> Markup:
    """`value` as text on one line that means nothing to Markdown, HTML or a table."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str("-" if value is None else value).split())
    escaped = html.escape(re.sub(r"[\\`*_{}\[\]#!|~$@]", r"\\\g<0>", line), quote=False)
    return Markup(escaped.replace("://", "\\://").replace("www.", "www\\."))  # bare addresses become links, too


def code(value: Any) -> Markup:
    """`value` in code style, where that is safe; as plain text otherwise."""
    safe = value is not None and re.fullmatch(r"[\w ./:@+=,\-\[\]{}]+", str(value))
    return Markup(f"`{value}`") if safe else markdown(value)


def address(value: Any) -> Markup:
    """`value` as the target of a link: a web address, with everything else in it percent-encoded.

    Raises:
        ValueError: if it is none.
    """
    if not re.match(r"https?://[\w.-]+(/|$)", str(value)):
        raise ValueError(f"{value!r} is no web address")
    return Markup(quote(str(value), safe=":/#?&=%+,;@.~-"))


def code_text(value: Any) -> Markup:
    """`value` for a place inside a code block: anything but plain characters is left out."""
    return Markup(re.sub(r"[^\w./=\-]", "", str(value)))
