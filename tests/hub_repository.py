"""What the local Hub keeps: repositories with their commits in memory, contents of files on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
File = dict[str, Any]  # sha256, oid, size, lfs


class HttpError(Exception):
    """An answer of the Hub that is an error; `code` becomes X-Error-Code, `more` joins the JSON."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers, self.more = status, message, code, headers or {}, more


def no_revision(revision: str) -> HttpError:
    return HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


@dataclass
class Discussion:
    """A discussion or a pull request; `status` is draft, open, closed or merged."""

    number: int
    title: str
    author: str
    status: str
    is_pull_request: bool
    base: str = "main"  # the branch that it would be merged into
    parent: str = ""  # the commit of that branch which it began from
    merged_as: str | None = None
    date: str = field(default_factory=now)
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
        id_ = hashlib.md5(f"{self.number} {len(self.events)}".encode()).hexdigest()[:24]
        self.events.append({"id": id_, "type": kind, "author": {"name": author}, "createdAt": now(), "data": data})
        return self.events[-1]

    def comment(self, author: str, text: str) -> dict[str, Any]:
        latest = {"raw": text, "html": text, "updatedAt": now(), "author": {"name": author}}
        return self.note("comment", author, {"edited": False, "hidden": False, "latest": latest, "history": [latest]})


class Repo:
    """A repository: commits by id, each a whole listing of files."""

    def __init__(self, kind: str, id_: str, private: bool) -> None:
        self.kind, self.id, self.private, self.lock = kind, id_, private, threading.RLock()
        self.gated: bool | str = False  # True, "auto", "manual": files only for those who may write
        self.commits: dict[str, dict[str, Any]] = {}
        self.refs: dict[str, str] = {"main": self.add_commit(None, {}, "initial commit", "system")}
        self.tags: dict[str, str] = {}
        self.discussions: dict[int, Discussion] = {}
        self.objects: set[str] = set()  # sha256 of large files that were uploaded to this repository

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def pull_requests(self) -> dict[int, Discussion]:
        return {number: each for number, each in self.discussions.items() if each.is_pull_request}

    def add_commit(self, parent: str | None, files: dict[str, File], title: str, author: str, body: str = "") -> str:
        stamp = f"{self.kind}{self.id}{parent}{title}{sorted(files)}{time.time_ns()}"
        oid = hashlib.sha1(stamp.encode()).hexdigest()
        self.commits[oid] = {
            "parent": parent, "files": files, "title": title, "body": body, "author": author, "date": now(),
        }  # fmt: skip
        return oid

    def open(self, title: str, author: str, text: str, status: str, base: str | None) -> Discussion:
        """A new discussion, or a pull request against the branch `base`."""
        number = len(self.discussions) + 1
        made = Discussion(number, title, author, status, base is not None, base or "main")
        made.comment(author, text)
        if base is not None:
            made.parent = self.refs[f"refs/pr/{number}"] = self.refs[base]
        self.discussions[number] = made
        return made

    def discussion_of(self, revision: str) -> Discussion | None:
        number = revision.removeprefix("refs/pr/")
        return self.discussions.get(int(number)) if number != revision and number.isdigit() else None

    def resolve(self, revision: str) -> str:
        """The commit that a branch, a tag, refs/pr/N or a commit id means."""
        for table in (self.refs, self.tags):
            if revision in table:
                return table[revision]
        if revision in self.commits:
            return revision
        raise no_revision(revision)

    def head(self, branch: str) -> str:
        """The last commit of a branch or a pull request; nothing else can be committed to."""
        if branch not in self.refs:
            raise no_revision(branch)
        return self.refs[branch]

    def files(self, revision: str) -> dict[str, File]:
        files: dict[str, File] = self.commits[self.resolve(revision)]["files"]
        return files


class Blobs:
    """Contents by sha256 under `root`/blobs. A content is there whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("blobs", "incoming"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def path(self, sha: str) -> Path:
        return self.root / "blobs" / sha

    def size(self, sha: str) -> int | None:
        return self.path(sha).stat().st_size if self.path(sha).exists() else None

    def put(self, chunks: Iterable[bytes], expected: str | None = None) -> str:
        """Keep what the chunks hold, in pieces as they come; its sha256."""
        digest, (descriptor, name) = hashlib.sha256(), tempfile.mkstemp(dir=self.root / "incoming")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if expected not in (None, digest.hexdigest()):
                raise HttpError(400, f"sha256 mismatch: announced {expected}, received {digest.hexdigest()}")
            os.replace(name, self.path(digest.hexdigest()))
        finally:
            Path(name).unlink(missing_ok=True)
        return digest.hexdigest()

    def small_file(self, data: bytes) -> File:
        return {"sha256": self.put([data]), "oid": git_sha(data), "size": len(data), "lfs": False}

    def large_file(self, sha: str) -> File:
        size = self.size(sha)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n"
        return {"sha256": sha, "oid": git_sha(pointer.encode()), "size": size, "lfs": True}


class PartialUploads:
    """Large files on their way in parts: `root`/incoming/<upload>/<part>."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs, self.folder = blobs, blobs.root / "incoming"

    def begin(self, sha: str) -> str:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "about.json").write_text(json.dumps({"sha256": sha}))
        return folder.name

    def _folder(self, upload: str) -> Path:
        folder = self.folder / Path(upload).name
        if not (folder / "about.json").exists():
            raise HttpError(404, "The specified upload does not exist.")
        return folder

    def put(self, upload: str, number: int, chunks: Iterable[bytes]) -> str:
        """Keep one part; its entity tag."""
        folder, digest = self._folder(upload), hashlib.md5()
        with (folder / f"{number}.part").open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        (folder / f"{number}.part").rename(folder / f"{number}-{digest.hexdigest()}")
        return f'"{digest.hexdigest()}"'

    def complete(self, upload: str, sha: str, parts: list[dict[str, Any]]) -> None:
        """Join the parts; HttpError 400 when one is missing or the whole is something else."""
        folder = self._folder(upload)
        if json.loads((folder / "about.json").read_text())["sha256"] != sha:
            raise HttpError(400, "The upload is one of another object.")
        named = [folder / f"{part['partNumber']}-{part['etag'].strip(chr(34))}" for part in parts]
        if [part["partNumber"] for part in parts] != list(range(1, len(parts) + 1)):
            raise HttpError(400, "InvalidPartOrder")
        if not all(path.exists() for path in named):
            raise HttpError(400, "InvalidPart")
        self.blobs.put(pieces(named), sha)
        shutil.rmtree(folder)


def pieces(paths: Iterable[Path], length: int = 2**20) -> Iterable[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(length):
                yield piece
