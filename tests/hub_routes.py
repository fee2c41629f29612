"""What the local Hub answers: accounts, repositories, and reading them. A function is one endpoint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import yaml
from hub_accounts import need_account, need_files, need_write
from hub_card import front_matter, problems
from hub_repository import File, HttpError, Repo, git_sha

if TYPE_CHECKING:
    from hub_server import Handler

# what the Hub's default .gitattributes sends to large-file storage (a part of it)
LARGE = tuple(
    """.parquet .arrow .safetensors .bin .pt .pth .ckpt .gz .zip .zst .xz .bz2 .tgz .7z .npy .npz .tar .onnx .h5 .pkl
    .pickle .joblib .model .msgpack .pb .tflite""".split()
)
Route = Callable[..., int]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []
ID = r"(?P<id_>[\w.\-]+(?:/[\w.\-]+)?)"
API = r"/api/(?P<kind>models|datasets|spaces)/" + ID
GIT = r"/(?:(?P<kind>datasets|spaces)/)?" + ID


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(pattern + r"\Z"), function))
        return function

    return register


# --- accounts and repositories -------------------------------------------------------------------


@route("GET", r"/api/whoami-v2")
def whoami(h: Handler) -> int:
    return h.send(200, need_account(h.account).described())


@route("POST", r"/api/repos/create")
def create(h: Handler) -> int:
    wanted, user = h.json(), need_account(h.account).user
    kind, namespace = wanted.get("type") or "model", wanted.get("organization") or user
    id_ = f"{namespace}/{wanted['name']}"
    need_write(h.account, namespace, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    url = h.web_url(kind, id_)
    with h.hub.lock:
        if (kind, id_) in h.hub.repos:
            raise HttpError(409, f"You already created this {kind} repo: {id_}", url=url, name=id_)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repo = h.hub.repos[(kind, id_)] = Repo(kind, id_, private)
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
    repo.files("main")[".gitattributes"] = h.hub.blobs.small_file(attributes.encode())
    return h.send(200, {"url": url, "name": id_, "id": id_})


@route("DELETE", r"/api/repos/delete")
def delete(h: Handler) -> int:
    wanted, user = h.json(), need_account(h.account).user
    kind, id_ = wanted.get("type") or "model", f"{wanted.get('organization') or user}/{wanted['name']}"
    repo = h.hub.repo(kind, id_, h.account)
    need_write(h.account, repo.namespace, f"You don't have the rights to delete {id_}")
    del h.hub.repos[(kind, id_)]
    return h.send(200, {})


@route("PUT", API + r"/settings")
def settings(h: Handler, kind: str, id_: str) -> int:
    repo, wanted = h.repo(kind, id_), h.json()
    need_write(h.account, repo.namespace, f"You don't have the rights to change the settings of {id_}")
    if "visibility" in wanted or "private" in wanted:
        repo.private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    repo.gated = wanted.get("gated", repo.gated)
    return h.send(200, {"private": repo.private, "gated": repo.gated})


@route("GET", API + r"/auth-check(?P<write>/write)?")
def check_access(h: Handler, kind: str, id_: str, write: str | None) -> int:
    repo = h.repo(kind, id_)
    need_files(h.account, repo)
    if write:
        need_write(h.account, repo.namespace, f"You don't have the rights to write to {id_}")
    return h.send(200, {})


@route("GET", r"/_calls")
def calls(h: Handler) -> int:
    """What the server was asked, but for this: see `HubServer.calls`."""
    return h.send(200, [call for call in h.hub.calls if call["path"] != "/_calls"])


@route("POST", r"/api/validate-yaml")
def validate_card(h: Handler) -> int:
    errors, warnings = ([{"message": each} for each in found] for found in problems(h.json()["content"]))
    return h.send(400 if errors else 200, {"errors": errors, "warnings": warnings})


# --- reading -------------------------------------------------------------------------------------


@route("GET", API + r"(?:/revision/(?P<revision>.+))?")
def repo_info(h: Handler, kind: str, id_: str, revision: str | None) -> int:
    repo = h.repo(kind, id_)
    oid = repo.resolve(revision or "main")
    commit, detailed = repo.commits[oid], h.query.get("blobs", "").lower() in ("true", "1")
    info = {
        "_id": hashlib.md5(id_.encode()).hexdigest()[:24], "id": id_, "author": repo.namespace, "sha": oid,
        "private": repo.private, "gated": "manual" if repo.gated is True else repo.gated, "disabled": False,
        "tags": [], "downloads": 0, "likes": 0,
        "lastModified": commit["date"], "createdAt": commit["date"],
        "siblings": [sibling(path, file, detailed) for path, file in sorted(commit["files"].items())],
    }  # fmt: skip
    readme = commit["files"].get("README.md")
    card = readme and front_matter(h.hub.blob(readme["sha256"]).read_text())
    return h.send(200, {**info, "cardData": yaml.safe_load(card)} if card else info)


def sibling(path: str, file: File, detailed: bool) -> dict[str, Any]:
    large = {"sha256": file["sha256"], "size": file["size"], "pointerSize": 134}
    about = {"size": file["size"], "blobId": file["oid"], **({"lfs": large} if file["lfs"] else {})}
    return {"rfilename": path, **(about if detailed else {})}


def file_entry(h: Handler, path: str, file: File) -> dict[str, Any]:
    entry = {"type": "file", "oid": file["oid"], "size": file["size"], "path": path}
    if not file["lfs"]:
        return entry
    entry["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": 134}
    hash_ = h.hub.xet.hashes.get(file["sha256"]) if h.hub.xet else None
    return {**entry, "xetHash": hash_} if hash_ else entry


def folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": git_sha(path.encode()), "size": 0, "path": path}


def listing(h: Handler, files: Mapping[str, File], folder: str, recursive: bool) -> list[dict[str, Any]]:
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
            entries[path] = file_entry(h, path, file)
    return [entries[path] for path in sorted(entries)]


@route("GET", API + r"/tree/.+")
def tree(h: Handler, kind: str, id_: str) -> int:
    # a revision is one quoted segment (refs%2Fpr%2F1): split the raw path
    revision, _, folder = h.raw_path.split("/tree/", 1)[1].partition("/")
    files = h.repo(kind, id_).files(unquote(revision))
    found = listing(h, files, unquote(folder).strip("/"), h.query.get("recursive", "").lower() in ("true", "1"))
    if folder and not found:
        raise HttpError(404, f"{folder} does not exist", "EntryNotFound")
    return page(h, found)


def page(h: Handler, found: list[dict[str, Any]]) -> int:
    """One page of a listing; the Link header says where the next one is."""
    start, end = int(h.query.get("cursor", 0)), int(h.query.get("cursor", 0)) + h.hub.page
    kept = "".join(f"{key}={value}&" for key, value in h.query.items() if key != "cursor")
    following = {"Link": f'<{h.hub.url}{h.raw_path}?{kept}cursor={end}>; rel="next"'}
    return h.send(200, found[start:end], following if end < len(found) else {})


@route("POST", API + r"/paths-info/(?P<revision>.+)")
def paths_info(h: Handler, kind: str, id_: str, revision: str) -> int:
    files = h.repo(kind, id_).files(revision)
    is_json = h.headers.get("Content-Type", "").startswith("application/json")
    paths = h.json().get("paths", []) if is_json else parse_qs(h.body.read().decode()).get("paths", [])
    entries = []
    for path in [paths] if isinstance(paths, str) else paths:
        path = path.strip("/")
        if path in files:
            entries.append(file_entry(h, path, files[path]))
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
    return page(h, found)


@route("GET", GIT + r"/resolve/.+")
def resolve(h: Handler, kind: str | None, id_: str) -> int:
    repo = h.repo(kind, id_)
    need_files(h.account, repo)
    revision, path = (unquote(part) for part in h.raw_path.split("/resolve/", 1)[1].split("/", 1))
    oid = repo.resolve(revision)
    file = repo.files(revision).get(path)
    if file is None:
        raise HttpError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": oid})
    headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
    if not file["lfs"]:
        return serve(h, file, {**headers, "ETag": f'"{file["oid"]}"'})
    # large files are elsewhere; the other host name matters: the client follows a HEAD within one host
    # and would then miss X-Repo-Commit
    location = f"{h.hub.url.replace('127.0.0.1', 'localhost')}/_lfs/{file['sha256']}"
    etag = f'"{file["sha256"]}"'
    linked = {"X-Linked-Size": str(file["size"]), "X-Linked-Etag": etag, "ETag": etag, "Location": location}
    return h.send(302, b"", {**headers, **linked, **xet_headers(h, repo, oid, file)})


def xet_headers(h: Handler, repo: Repo, oid: str, file: File) -> dict[str, str]:
    hash_ = h.hub.xet.hashes.get(file["sha256"]) if h.hub.xet else None
    if hash_ is None:
        return {}
    token = f"{h.hub.url}/api/{repo.kind}s/{repo.id}/xet-read-token/{oid}"
    return {"X-Xet-Hash": hash_, "X-Xet-Refresh-Route": token, "Link": f'<{token}>; rel="xet-auth"'}


def serve(h: Handler, file: File, headers: Mapping[str, str]) -> int:
    """The content of a file, or the asked range of it."""
    size = file["size"]
    first, last, status = 0, size - 1, 200
    if (asked := re.match(r"bytes=(\d*)-(\d*)", h.headers.get("Range") or "")) and size:
        first = int(asked[1]) if asked[1] else size - int(asked[2])
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first >= size:
            return h.send(416, b"", {"Content-Range": f"bytes */{size}"})
        status, headers = 206, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    return h.send_part(status, h.hub.blob(file["sha256"]), first, last - first + 1, headers)
