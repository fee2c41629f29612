"""What is published at once: files, a card, and which paths of the repository belong to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from boost_qa.publish.edits import merge

CARD = "README.md"
GENERATED = ".boost_qa/card.md"  # the card as we wrote it: what people changed since is seen against it
FILES = ".boost_qa/files"  # the paths of the release, one a line: what the next one may remove


class Remote(NamedTuple):
    """A file of a repository; `sha256` is that of the content of a large file, `blob` git's of any other."""

    path: str
    size: int
    sha256: str | None
    blob: str


@dataclass(frozen=True)
class Local:
    """A file to be sent: its path in the repository, and where its content is."""

    path: str
    content: Path | bytes = field(repr=False)

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return self._digest(hashlib.sha256())

    @cached_property
    def blob(self) -> str:
        """Git's name for the content."""
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size))

    def is_there(self, remote: Remote | None) -> bool:
        """Whether the repository has this very content."""
        if remote is None or remote.size != self.size:
            return False
        return self.sha256 == remote.sha256 if remote.sha256 else self.blob == remote.blob

    def _digest(self, digest: hashlib._Hash) -> str:
        if isinstance(self.content, bytes):
            digest.update(self.content)
            return digest.hexdigest()
        with self.content.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


class Change(NamedTuple):
    """From what a repository has to what it should have."""

    added: list[Local]
    replaced: list[Local]
    removed: list[str]
    same: int
    bytes: int

    @property
    def sent(self) -> list[Local]:
        return [*self.added, *self.replaced]

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)


@dataclass(frozen=True)
class Release:
    """A release of a dataset or a model.

    Args:
        files: all but the card.
        card: README.md as generated.
        places: paths where it may have files: what others wrote there before is in the way.
        title: first line of the commit message.
        description: the rest of it.
        stale: paths that loaders would read as part of it: what is there and not in it is removed, whoever wrote it.
    """

    files: Sequence[Local]
    card: str
    places: re.Pattern[str]
    title: str
    description: str = ""
    stale: re.Pattern[str] = re.compile(r"(?!)")  # nothing

    def contents(self) -> dict[str, Path | bytes]:
        """What is to be sent, by path; the card as generated."""
        return {file.path: file.content for file in self.files} | {CARD: self.card.encode()}

    def beside(self, card: str | None, generated: str | None) -> tuple[list[Local], list[str]]:
        """All files, with the card as it will be in a repository that has these two already.

        Args:
            card: its README.md.
            generated: what of it we wrote; see `GENERATED`.

        Returns:
            The files, and the passages of the card that people's text kept from being renewed.
        """
        merged = merge(generated, card, self.card)
        paths = sorted((*(file.path for file in self.files), GENERATED, FILES))
        cards = {CARD: merged.text, GENERATED: self.card, FILES: "".join(f"{path}\n" for path in paths)}
        return [*self.files, *(Local(path, text.encode()) for path, text in cards.items())], merged.kept


def compare(files: Iterable[Local], there: Mapping[str, Remote], earlier: Iterable[str] = ()) -> Change:
    """What has to change in a repository with the files `there`, so that it has `files`.

    Args:
        files: what it should have.
        there: what it has, by path.
        earlier: paths that may be removed, if they are not among `files`.
    """
    wanted = {file.path: file for file in files}
    added = [file for path, file in wanted.items() if path not in there]
    replaced = [file for path, file in wanted.items() if path in there and not file.is_there(there[path])]
    removed = sorted({path for path in earlier if path in there} - wanted.keys())
    sent = [*added, *replaced]
    return Change(added, replaced, removed, len(wanted) - len(sent), sum(file.size for file in sent))
