"""Pages that need no server and let nothing in: templates that escape, and a policy that allows a page's own script."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def templates(*folders: Path) -> jinja2.Environment:
    """The templates in these folders: what they print is escaped, and a variable that is missing is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def source(templates: jinja2.Environment, *names: str) -> str:
    """Style sheets or scripts as they stand: braces mean nothing to Jinja there."""
    assert templates.loader is not None
    return "".join(templates.loader.get_source(templates, name)[0] for name in names)


def policy(style: str, script: str) -> str:
    """The content security policy of a page that has this style and this script, and asks nobody for anything."""
    return (
        f"default-src 'none'; script-src {hashed(script)}; style-src {hashed(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def hashed(text: str) -> str:
    """What a content security policy calls an element that holds exactly `text`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
