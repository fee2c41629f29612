"""A local Hugging Face Hub: repositories, commits, large files and ranges, for the real clients.

    with HubServer(folder) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1"}

HF_ENDPOINT is read when huggingface_hub is imported, so clients run in a process of their own.
Blobs lie under `folder`; repositories and commits live in memory. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
# what the Hub's default .gitattributes sends to large-file storage (a part of it)
LARGE = (".parquet", ".arrow", ".safetensors", ".bin", ".pt", ".gz", ".zip", ".zst", ".npy", ".npz", ".tar", ".onnx")
LARGE_FROM = 10 * 2**20  # bytes; larger files are large files whatever their name
PAGE = 1000  # entries on one page of a listing

File = dict[str, Any]  # sha256, oid, size, lfs


class HttpError(Exception):
    """An answer of the Hub that is an error; `code` becomes X-Error-Code."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repo:
    """A repository: commits by id, each a whole listing of files."""

    def __init__(self, kind: str, id_: str, private: bool) -> None:
        self.kind, self.id, self.private, self.lock = kind, id_, private, threading.Lock()
        self.gated = False  # files only for the owner, as before a licence is accepted
        self.commits: dict[str, dict[str, Any]] = {}
        self.refs: dict[str, str] = {"main": self.add_commit(None, {}, "initial commit", "system")}
        self.tags: dict[str, str] = {}
        self.pull_requests: dict[int, Any] = {}

    def add_commit(self, parent: str | None, files: dict[str, File], title: str, author: str, body: str = "") -> str:
        stamp = f"{self.kind}{self.id}{parent}{title}{sorted(files)}{time.time_ns()}"
        oid = hashlib.sha1(stamp.encode()).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self.commits[oid] = {
            "parent": parent, "files": files, "title": title, "body": body, "author": author, "date": date,
        }  # fmt: skip
        return oid

    def resolve(self, revision: str) -> str:
        for table in (self.refs, self.tags):
            if revision in table:
                return table[revision]
        if revision in self.commits:
            return revision
        raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str) -> dict[str, File]:
        files: dict[str, File] = self.commits[self.resolve(revision)]["files"]
        return files


class HubServer:
    """The server, on a free port of this machine while its `with` block lasts.

    `calls` lists every request. `faults` are errors to give: `{"match": "POST .*/commit/", "status": 412,
    "times": 1}`.
    """

    def __init__(self, root: str | Path, port: int = 0) -> None:
        self.root = Path(root).resolve()
        (self.root / "blobs").mkdir(parents=True, exist_ok=True)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.calls: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def blob(self, sha: str) -> Path:
        return self.root / "blobs" / sha

    def put_blob(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        if not self.blob(sha).exists():
            descriptor, name = tempfile.mkstemp(dir=self.root)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(name, self.blob(sha))
        return sha

    def small_file(self, data: bytes) -> File:
        return {"sha256": self.put_blob(data), "oid": git_sha(data), "size": len(data), "lfs": False}

    def large_file(self, sha: str) -> File:
        size = self.blob(sha).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n"
        return {"sha256": sha, "oid": git_sha(pointer.encode()), "size": size, "lfs": True}

    def repo(self, kind: str, id_: str, user: str | None) -> Repo:
        repo = self.repos.get((kind, id_))
        if repo is None or (repo.private and user != id_.split("/")[0]):
            # anonymous callers get 401 for what does not exist too, so that no name leaks
            if user is None:
                raise HttpError(401, "Invalid username or password.")
            raise HttpError(404, "Repository not found", "RepoNotFound")
        return repo

    def files(self, kind: str, id_: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file of a repository, for tests to look at."""
        files = self.repos[(kind, id_)].files(revision)
        return {path: self.blob(file["sha256"]).read_bytes() for path, file in files.items()}


Route = Callable[..., int]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(pattern + r"\Z"), function))
        return function

    return register


ID = r"(?P<id_>[\w.\-]+(?:/[\w.\-]+)?)"
API = r"/api/(?P<kind>models|datasets|spaces)/" + ID
GIT = r"/(?:(?P<kind>datasets|spaces)/)?" + ID


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[HubServer]

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.raw_path = url.path
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.body = self.read_body()
        self.user = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer ").strip())
        try:
            status = self.answer(unquote(url.path))
        except HttpError as error:
            code = {"X-Error-Code": error.code} if error.code else {}
            status = self.send(error.status, {"error": error.message}, {"X-Error-Message": error.message, **code})
        call = {"method": self.command, "path": url.path, "query": url.query, "status": status, "user": self.user}
        with self.hub.lock:
            self.hub.calls.append({**call, "range": self.headers.get("Range")})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def answer(self, path: str) -> int:
        for fault in self.hub.faults:
            if fault["times"] > 0 and re.search(fault["match"], f"{self.command} {path}"):
                fault["times"] -= 1
                raise HttpError(fault["status"], "injected fault")
        method = "GET" if self.command == "HEAD" else self.command
        for known, pattern, function in ROUTES:
            if known == method and (match := pattern.match(path)):
                return function(self, **match.groupdict())
        raise HttpError(404, f"no route for {method} {path}")

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, status: int, content: Any = b"", headers: Mapping[str, str] | None = None) -> int:
        plain = isinstance(content, bytes)
        data = content if plain else json.dumps(content).encode()
        kind = "application/octet-stream" if plain else "application/json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return status

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))

    def repo(self, kind: str | None, id_: str) -> Repo:
        return self.hub.repo(KINDS[kind or "models"], id_, self.user)

    def web_url(self, kind: str, id_: str) -> str:
        return f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{id_}"

    def need_write(self, id_: str) -> None:
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        if id_.split("/")[0] != self.user:
            raise HttpError(403, f"You don't have the rights to write to {id_}")


# --- accounts and repositories -------------------------------------------------------------------


@route("GET", r"/api/whoami-v2")
def whoami(h: Handler) -> int:
    if h.user is None:
        raise HttpError(401, "Invalid user token.")
    token = {"type": "access_token", "accessToken": {"displayName": "t", "role": "write"}}
    return h.send(200, {"type": "user", "id": h.user, "name": h.user, "fullname": h.user, "orgs": [], "auth": token})


@route("POST", r"/api/repos/create")
def create(h: Handler) -> int:
    wanted = h.json()
    kind, id_ = wanted.get("type") or "model", f"{wanted.get('organization') or h.user}/{wanted['name']}"
    h.need_write(id_)
    url = h.web_url(kind, id_)
    with h.hub.lock:
        if (kind, id_) in h.hub.repos:
            return h.send(409, {"error": f"You already created this {kind} repo: {id_}", "url": url, "name": id_})
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repo = h.hub.repos[(kind, id_)] = Repo(kind, id_, private)
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
    repo.files("main")[".gitattributes"] = h.hub.small_file(attributes.encode())
    return h.send(200, {"url": url, "name": id_, "id": id_})


@route("DELETE", r"/api/repos/delete")
def delete(h: Handler) -> int:
    wanted = h.json()
    id_ = f"{wanted.get('organization') or h.user}/{wanted['name']}"
    h.need_write(id_)
    if h.hub.repos.pop((wanted.get("type") or "model", id_), None) is None:
        raise HttpError(404, "Repository not found", "RepoNotFound")
    return h.send(200, {})


@route("POST", r"/api/validate-yaml")
def validate_card(h: Handler) -> int:
    card = re.match(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))", h.json()["content"])
    if not card:
        return h.send(200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        meta = yaml.safe_load(card.group(2)) or {}
    except yaml.YAMLError as error:
        return h.send(400, {"errors": [{"message": str(error)}], "warnings": []})
    bad = []
    for key in ("base_model", "datasets"):  # local paths are refused here
        values = meta.get(key) or []
        for value in [values] if isinstance(values, str) else values:
            if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", str(value)):
                bad.append({"message": f'"{key}" with value "{value}" is not valid. Use an id.'})
    return h.send(400 if bad else 200, {"errors": bad, "warnings": []})


# --- reading -------------------------------------------------------------------------------------


@route("GET", API + r"(?:/revision/(?P<revision>.+))?")
def repo_info(h: Handler, kind: str, id_: str, revision: str | None) -> int:
    repo = h.repo(kind, id_)
    oid = repo.resolve(revision or "main")
    commit = repo.commits[oid]
    info = {
        "_id": hashlib.md5(id_.encode()).hexdigest()[:24], "id": id_, "author": id_.split("/")[0], "sha": oid,
        "private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False,
        "tags": [], "downloads": 0, "likes": 0,
        "lastModified": commit["date"], "createdAt": commit["date"],
        "siblings": [{"rfilename": path} for path in sorted(commit["files"])],
    }  # fmt: skip
    readme = commit["files"].get("README.md")
    card = readme and re.match(r"---\n(.*?)\n---", h.hub.blob(readme["sha256"]).read_text(), re.DOTALL)
    return h.send(200, {**info, "cardData": yaml.safe_load(card.group(1))} if card else info)


def file_entry(path: str, file: File) -> dict[str, Any]:
    entry = {"type": "file", "oid": file["oid"], "size": file["size"], "path": path}
    large = {"oid": file["sha256"], "size": file["size"], "pointerSize": 134}
    return {**entry, "lfs": large} if file["lfs"] else entry


def folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": git_sha(path.encode()), "size": 0, "path": path}


def listing(files: Mapping[str, File], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Entries under `folder` ("" is the root), folders included."""
    above, entries = f"{folder}/" if folder else "", {}
    for path, file in files.items():
        if not path.startswith(above):
            continue
        parts = path[len(above) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            inner = above + "/".join(parts[:depth])
            entries[inner] = folder_entry(inner)
        if recursive or len(parts) == 1:
            entries[path] = file_entry(path, file)
    return [entries[path] for path in sorted(entries)]


@route("GET", API + r"/tree/.+")
def tree(h: Handler, kind: str, id_: str) -> int:
    # a revision is one quoted segment (refs%2Fpr%2F1): split the raw path
    revision, _, folder = h.raw_path.split("/tree/", 1)[1].partition("/")
    files = h.repo(kind, id_).files(unquote(revision))
    found = listing(files, unquote(folder).strip("/"), h.query.get("recursive", "").lower() in ("true", "1"))
    if folder and not found:
        raise HttpError(404, f"{folder} does not exist", "EntryNotFound")
    start = int(h.query.get("cursor", 0))
    kept = "&".join(f"{key}={value}" for key, value in h.query.items() if key != "cursor")
    following = {"Link": f'<{h.hub.url}{h.raw_path}?{kept}&cursor={start + PAGE}>; rel="next"'}
    return h.send(200, found[start : start + PAGE], following if start + PAGE < len(found) else {})


@route("POST", API + r"/paths-info/(?P<revision>.+)")
def paths_info(h: Handler, kind: str, id_: str, revision: str) -> int:
    files = h.repo(kind, id_).files(revision)
    is_json = h.headers.get("Content-Type", "").startswith("application/json")
    paths = h.json().get("paths", []) if is_json else parse_qs(h.body.decode()).get("paths", [])
    entries = []
    for path in [paths] if isinstance(paths, str) else paths:
        path = path.strip("/")
        if path in files:
            entries.append(file_entry(path, files[path]))
        elif path and any(other.startswith(f"{path}/") for other in files):
            entries.append(folder_entry(path))
    return h.send(200, entries)


@route("GET", API + r"/refs")
def refs(h: Handler, kind: str, id_: str) -> int:
    repo = h.repo(kind, id_)

    def named(table: Mapping[str, str], space: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{space}/{name}", "targetCommit": oid}
            for name, oid in table.items()
            if not name.startswith("refs/")
        ]

    requests = [{"name": n, "ref": n, "targetCommit": oid} for n, oid in repo.refs.items() if n.startswith("refs/pr/")]
    tables = {"branches": named(repo.refs, "heads"), "tags": named(repo.tags, "tags")}
    return h.send(200, {**tables, "converts": [], "pullRequests": requests})


@route("GET", API + r"/commits/(?P<revision>.+)")
def commits(h: Handler, kind: str, id_: str, revision: str) -> int:
    repo = h.repo(kind, id_)
    oid: str | None = repo.resolve(revision)
    found = []
    while oid:
        commit = repo.commits[oid]
        head = {"id": oid, "title": commit["title"], "message": commit["body"], "date": commit["date"]}
        found.append({**head, "authors": [{"user": commit["author"]}]})
        oid = commit["parent"]
    return h.send(200, found)


@route("GET", GIT + r"/resolve/.+")
def resolve(h: Handler, kind: str | None, id_: str) -> int:
    repo = h.repo(kind, id_)
    if repo.gated and h.user != id_.split("/")[0]:
        raise HttpError(403 if h.user else 401, f"Access to model {id_} is restricted.", "GatedRepo")
    revision, path = (unquote(part) for part in h.raw_path.split("/resolve/", 1)[1].split("/", 1))
    oid = repo.resolve(revision)
    file = repo.files(revision).get(path)
    if file is None:
        raise HttpError(404, "Entry not found", "EntryNotFound")
    headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
    if not file["lfs"]:
        return serve(h, file, {**headers, "ETag": f'"{file["oid"]}"'})
    # large files are elsewhere; the other host name matters: the client follows a HEAD within one host
    # and would then miss X-Repo-Commit
    location = f"{h.hub.url.replace('127.0.0.1', 'localhost')}/_lfs/{file['sha256']}"
    etag = f'"{file["sha256"]}"'
    linked = {"X-Linked-Size": str(file["size"]), "X-Linked-Etag": etag, "ETag": etag, "Location": location}
    return h.send(302, b"", {**headers, **linked})


def serve(h: Handler, file: File, headers: Mapping[str, str]) -> int:
    size = file["size"]
    first, last, status = 0, size - 1, 200
    if (asked := re.match(r"bytes=(\d*)-(\d*)", h.headers.get("Range") or "")) and size:
        first = int(asked[1]) if asked[1] else size - int(asked[2])
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first >= size:
            return h.send(416, b"", {"Content-Range": f"bytes */{size}"})
        status, headers = 206, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    if h.command == "HEAD":
        return h.send(status, b"", {**headers, "Content-Length": str(last - first + 1)})
    with h.hub.blob(file["sha256"]).open("rb") as blob:
        blob.seek(first)
        return h.send(status, blob.read(last - first + 1), headers)


# --- writing -------------------------------------------------------------------------------------


@route("POST", API + r"/preupload/(?P<revision>.+)")
def preupload(h: Handler, kind: str, id_: str, revision: str) -> int:
    repo = h.repo(kind, id_)
    if "create_pr" not in h.query:
        h.need_write(id_)
    known, modes = repo.files(revision), []
    for file in h.json()["files"]:
        is_binary = b"\0" in base64.b64decode(file["sample"])
        large = file["path"].endswith(LARGE) or file["size"] > LARGE_FROM or is_binary
        mode = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if old := known.get(file["path"]):
            mode["oid"] = old["sha256"] if old["lfs"] else old["oid"]
        modes.append(mode)
    return h.send(200, {"files": modes, "commitOid": repo.resolve(revision)})


@route("POST", GIT + r"\.git/info/lfs/objects/batch")
def lfs_batch(h: Handler, kind: str | None, id_: str) -> int:
    h.need_write(id_)
    h.repo(kind, id_)
    objects = []
    for wanted in h.json()["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        url = f"{h.hub.url}/_lfs/{wanted['oid']}"
        if not h.hub.blob(wanted["oid"]).exists():  # without actions the client uploads nothing
            upload, verify = {"href": url, "header": {}}, {"href": f"{url}/verify", "header": {}}
            entry["actions"] = {"upload": upload, "verify": verify}
        objects.append(entry)
    return h.send(200, {"transfer": "basic", "objects": objects})


@route("PUT", r"/_lfs/(?P<sha>[0-9a-f]{64})")
def lfs_put(h: Handler, sha: str) -> int:
    if hashlib.sha256(h.body).hexdigest() != sha:
        raise HttpError(400, "sha256 mismatch")
    h.hub.put_blob(h.body)
    return h.send(200)


@route("POST", r"/_lfs/(?P<sha>[0-9a-f]{64})/verify")
def lfs_verify(h: Handler, sha: str) -> int:
    if not h.hub.blob(sha).exists() or h.hub.blob(sha).stat().st_size != h.json()["size"]:
        raise HttpError(404, "object not found")
    return h.send(200, {})


@route("GET", r"/_lfs/(?P<sha>[0-9a-f]{64})")
def lfs_get(h: Handler, sha: str) -> int:
    if not h.hub.blob(sha).exists():
        raise HttpError(404, "object not found")
    return serve(h, h.hub.large_file(sha), {"ETag": f'"{sha}"', "Accept-Ranges": "bytes"})


@route("POST", API + r"/commit/(?P<revision>.+)")
def commit(h: Handler, kind: str, id_: str, revision: str) -> int:
    repo, as_request = h.repo(kind, id_), "create_pr" in h.query
    if not as_request:
        h.need_write(id_)
    lines = [json.loads(line) for line in h.body.splitlines() if line.strip()]
    head = next(line["value"] for line in lines if line["key"] == "header")
    with repo.lock:
        base = repo.resolve(revision)
        if head.get("parentCommit") and not base.startswith(head["parentCommit"]):
            raise HttpError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files(base))
        for line in lines:
            files = apply(h.hub, files, line["key"], line["value"])
        oid = repo.add_commit(base, files, head["summary"], h.user or "", head.get("description", ""))
        url = h.web_url(repo.kind, id_)
        done = {"success": True, "commitOid": oid, "hookOutput": "", "commitUrl": f"{url}/commit/{oid}"}
        if as_request:
            number = len(repo.pull_requests) + 1
            repo.pull_requests[number], repo.refs[f"refs/pr/{number}"] = head["summary"], oid
            done["pullRequestUrl"] = f"{url}/discussions/{number}"
        else:
            repo.refs[revision if revision in repo.refs else "main"] = oid
    return h.send(200, done)


def apply(hub: HubServer, files: dict[str, File], key: str, value: dict[str, Any]) -> dict[str, File]:
    """The files after one operation of a commit."""
    if key == "file":
        return {**files, value["path"]: hub.small_file(base64.b64decode(value["content"]))}
    if key == "lfsFile":
        if not hub.blob(value["oid"]).exists():
            raise HttpError(422, f"LFS object {value['oid']} for {value['path']} was not uploaded")
        return {**files, value["path"]: hub.large_file(value["oid"])}
    if key == "deletedFile":
        if value["path"] not in files:
            raise HttpError(404, "A file with this name doesn't exist", "EntryNotFound")
        return {path: file for path, file in files.items() if path != value["path"]}
    if key == "deletedFolder":
        folder = value["path"].rstrip("/") + "/"
        return {path: file for path, file in files.items() if not path.startswith(folder)}
    return files


@route("POST", API + r"/branch/(?P<name>.+)")
def branch(h: Handler, kind: str, id_: str, name: str) -> int:
    h.need_write(id_)
    repo = h.repo(kind, id_)
    if name in repo.refs:
        raise HttpError(409, f"Reference already exists: {name}")
    repo.refs[name] = repo.resolve(h.json().get("startingPoint") or "main")
    return h.send(200, {})


@route("POST", API + r"/tag/(?P<revision>.+)")
def tag(h: Handler, kind: str, id_: str, revision: str) -> int:
    h.need_write(id_)
    repo, wanted = h.repo(kind, id_), h.json()["tag"]
    if wanted in repo.tags:
        raise HttpError(409, f"Tag already exists: {wanted}")
    repo.tags[wanted] = repo.resolve(revision)
    return h.send(200, {})
