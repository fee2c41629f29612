"""A transformers model as commands name it: a folder, or an id on the Hub with a revision after an @."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from boost_qa.sources.files import DataFile, content_revision

_MADE_OF = (".json", ".jinja", ".safetensors", ".bin")


def id_and_revision(name: str) -> tuple[str, str | None]:
    """`org/name@revision` in its two parts; a folder is one part, whatever its name."""
    id, _, revision = (name, "", "") if Path(name).expanduser().exists() else name.partition("@")
    return id, revision or None


def folder_revision(folder: Path) -> str | None:
    """`sha256:...` of the weights, tokenizer and configs in a folder; None for what is not here.

    `run.json`, which tells how an adapter came to be and no more, has no part in it.
    """
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if file.suffix in _MADE_OF and file.name != "run.json")
    return content_revision([DataFile(file.name, (o := partial(file.open, "rb")), o) for file in files])  # type: ignore[arg-type]
