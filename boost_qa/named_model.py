"""A transformers model as commands name it: a folder, or an id on the Hub with a revision after an @."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from boost_qa.sources.files import DataFile, content_revision

_MADE_OF = (".json", ".jinja", ".safetensors", ".bin")
_ABOUT = ("run.json", "evaluation.json", "results_*.json")


def id_and_revision(name: str) -> tuple[str, str | None]:
    """`org/name@revision` in its two parts; a folder is one part, whatever its name."""
    id, _, revision = (name, "", "") if Path(name).expanduser().exists() else name.partition("@")
    return id, revision or None


def folder_revision(folder: Path) -> str | None:
    """`sha256:...` of the weights, tokenizer and configs in a folder; None for what is not here.

    What only tells of the model has no part in it: `run.json`, how an adapter came to be, and what an evaluation
    writes, which could not go on if it changed by that which model it is of.
    """
    if not folder.is_dir():
        return None
    made_of = (file for file in folder.iterdir() if file.suffix in _MADE_OF)
    files = sorted(file for file in made_of if not any(fnmatchcase(file.name, about) for about in _ABOUT))
    return content_revision([DataFile(file.name, (o := partial(file.open, "rb")), o) for file in files])  # type: ignore[arg-type]
