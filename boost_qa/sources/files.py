"""Data files of a source, on this machine: finding them, naming them, and what their names say."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from boost_qa.errors import SourceError

SUFFIXES = (".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz", ".parquet")
_SPLITS = {"train": "train", "valid": "validation", "val": "validation", "dev": "validation"}
_SPLITS |= {"validation": "validation", "test": "test"}
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows.

    Args:
        name: its path below the folder or repository, with `/`.
        open: opens it to be read whole, downloading it first where it is on the Hub.
        peek: opens it to read a little from its start or end.
        errors: what opening and reading it can raise.
    """

    name: str
    open: Callable[[], IO[bytes]]
    peek: Callable[[], IO[bytes]]
    errors: tuple[type[Exception], ...] = (OSError,)

    @property
    def suffix(self) -> str:
        """One of `SUFFIXES`, or "" for a file of another kind."""
        lower = self.name.lower()
        return next((suffix for suffix in reversed(SUFFIXES) if lower.endswith(suffix)), "")

    @property
    def split(self) -> str | None:
        """The split that the name speaks of: `train`, `validation`, `test`, or None."""
        named = [_SPLITS.get(word) for word in (*PurePosixPath(self.name).parts[:-1], *self._words())]
        return next((split for split in named if split), None)

    @property
    def language(self) -> str:
        """The programming language that the name speaks of, in lower case.

        `python.jsonl`, `qa.en.python.json`, `python.train.jsonl` and `python/train.jsonl` all say python.
        """
        words = [*PurePosixPath(self.name).parts[:-1], *self._words()]
        return next((word.lower() for word in reversed(words) if word not in _SPLITS), "")

    def _words(self) -> list[str]:
        stem = PurePosixPath(self.name).name[: -len(self.suffix) or None]
        return _SHARD.sub("", stem).split(".")


def local_files(path: str, split: str) -> list[DataFile]:
    """The data files that `path` names, sorted by name.

    A folder or glob leaves out files whose name speaks of another split; a file that is named itself
    is always read.

    Raises:
        SourceError: there is none, or the file is of a kind that cannot be read.
    """
    given = Path(path).expanduser()
    if given.is_file():
        only = _local(given, given.parent)
        if not only.suffix:
            raise SourceError(f"{path}: not a kind of file that can be read", f"Give one of: {', '.join(SUFFIXES)}.")
        return [only]
    if given.is_dir():
        base, found = given, [file for file in given.rglob("*") if file.is_file()]
    else:
        named = map(Path, glob.glob(str(given), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        found = [file for file in named if file.is_file()]
        base = Path(os.path.commonpath([file.parent for file in found])) if found else given
    files = sorted((_local(file, base) for file in found), key=lambda file: file.name)
    files = [file for file in files if file.suffix and not file.name.startswith(".") and "/." not in file.name]
    if not files:
        remedy = f"Give a file, a folder or a glob of {', '.join(SUFFIXES)}; paths start from {Path.cwd()}."
        raise SourceError(f"{path}: no data file there", remedy)
    wanted = _SPLITS.get(split, split)
    chosen = [file for file in files if file.split in (None, wanted)]
    if not chosen:
        splits = ", ".join(sorted({file.split for file in files if file.split}))
        raise SourceError(f"{path}: no file of split {split!r}", f"Set split to one of: {splits}.")
    return chosen


def content_revision(files: Sequence[DataFile]) -> str:
    """`sha256:` of the file, or of the names and digests of several."""
    digests = []
    for file in files:
        with file.open() as raw:
            digests.append(hashlib.file_digest(raw, "sha256").hexdigest())  # type: ignore[arg-type]
    if len(files) == 1:
        return f"sha256:{digests[0]}"
    listing = "".join(f"{sha} {file.name}\n" for file, sha in zip(files, digests, strict=True))
    return f"sha256:{hashlib.sha256(listing.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _local(file: Path, base: Path) -> DataFile:
    def opened() -> IO[bytes]:
        return file.open("rb")

    return DataFile(file.relative_to(base).as_posix(), opened, opened)
