"""What the local Hub answers to those who write: uploads, commits, branches and tags."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from hub_accounts import need_account, need_commit, need_files, need_write
from hub_card import problems
from hub_repository import KINDS, File, HttpError, Repo
from hub_routes import API, GIT, LARGE, route, serve

if TYPE_CHECKING:
    from hub_server import Handler, HubServer

LARGE_FROM = 10 * 2**20  # bytes; larger files are large files whatever their name
SHA = r"(?P<sha>[0-9a-f]{64})"


# --- uploads -------------------------------------------------------------------------------------


@route("POST", API + r"/preupload/(?P<revision>.+)")
def preupload(h: Handler, kind: str, id_: str, revision: str) -> int:
    repo = h.repo(kind, id_)
    need_commit(h.account, repo, revision, "create_pr" in h.query)
    head = repo.head(revision)
    known, modes = repo.files(head), []
    for file in h.json()["files"]:
        is_binary = b"\0" in base64.b64decode(file["sample"])
        large = file["path"].endswith(LARGE) or file["size"] > LARGE_FROM or is_binary
        mode = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if old := known.get(file["path"]):
            mode["oid"] = old["sha256"] if old["lfs"] else old["oid"]
        modes.append(mode)
    return h.send(200, {"files": modes, "commitOid": head})


@route("POST", GIT + r"\.git/info/lfs/objects/batch")
def lfs_batch(h: Handler, kind: str | None, id_: str) -> int:
    repo, wanted = h.repo(kind, id_), h.json()
    branch = wanted.get("ref", {}).get("name")  # none where a pull request is to be made
    if not need_account(h.account).proposes(repo.namespace):
        raise HttpError(403, "Authorization error.")
    if branch is not None:
        need_commit(h.account, repo, branch, as_request=False)
        repo.head(branch)
    in_parts = h.hub.parts_from if "multipart" in wanted.get("transfers", []) else None
    objects = [lfs_object(h.hub, repo, each["oid"], each["size"], in_parts) for each in wanted["objects"]]
    multipart = any("chunk_size" in each.get("actions", {}).get("upload", {}).get("header", {}) for each in objects)
    return h.send(200, {"transfer": "multipart" if multipart else "basic", "objects": objects})


def lfs_object(hub: HubServer, repo: Repo, sha: str, size: int, in_parts: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"oid": sha, "size": size}
    if sha in repo.objects:
        return entry  # without actions the client uploads nothing
    to = f"to={repo.kind}s/{repo.id}"
    upload: dict[str, Any] = {"href": f"{hub.url}/_lfs/{sha}?{to}", "header": {}}
    if in_parts is not None and size >= in_parts:
        length, id_ = max(in_parts // 2, 1), hub.uploads.begin(sha)
        numbers = range(1, -(-size // length) + 1)
        urls = {str(number): f"{hub.url}/_lfs/{sha}/parts/{id_}/{number}" for number in numbers}
        upload = {
            "href": f"{hub.url}/_lfs/{sha}/complete/{id_}?{to}", "header": {"chunk_size": str(length), **urls}
        }  # fmt: skip
    verify = {"href": f"{hub.url}/_lfs/{sha}/verify?{to}", "header": {}}
    return {**entry, "actions": {"upload": upload, "verify": verify}}


def target(h: Handler) -> Repo:
    """The repository that an upload is for."""
    kind, _, id_ = h.query.get("to", "").partition("/")
    repo = h.hub.repos.get((KINDS.get(kind, ""), id_))
    if repo is None:
        raise HttpError(403, "SignatureDoesNotMatch")
    return repo


@route("PUT", r"/_lfs/" + SHA)
def lfs_put(h: Handler, sha: str) -> int:
    repo = target(h)
    h.hub.blobs.put(h.body.chunks, sha)
    repo.objects.add(sha)
    return h.send(200, b"", {"ETag": f'"{sha}"'})


@route("PUT", r"/_lfs/" + SHA + r"/parts/(?P<upload>\w+)/(?P<number>\d+)")
def lfs_put_part(h: Handler, sha: str, upload: str, number: str) -> int:
    return h.send(200, b"", {"ETag": h.hub.uploads.put(upload, int(number), h.body.chunks)})


@route("POST", r"/_lfs/" + SHA + r"/complete/(?P<upload>\w+)")
def lfs_complete(h: Handler, sha: str, upload: str) -> int:
    repo, wanted = target(h), h.json()
    if wanted.get("oid") != sha:
        raise HttpError(400, f"The object is {sha}, not {wanted.get('oid')}")
    h.hub.uploads.complete(upload, sha, wanted["parts"])
    repo.objects.add(sha)
    return h.send(200, {})


@route("POST", r"/_lfs/" + SHA + r"/verify")
def lfs_verify(h: Handler, sha: str) -> int:
    if sha not in target(h).objects or h.hub.blobs.size(sha) != h.json()["size"]:
        raise HttpError(404, "object not found")
    return h.send(200, {})


@route("GET", r"/_lfs/" + SHA)
def lfs_get(h: Handler, sha: str) -> int:
    if h.hub.blobs.size(sha) is None:
        raise HttpError(404, "object not found")
    return serve(h, h.hub.blobs.large_file(sha), {"ETag": f'"{sha}"', "Accept-Ranges": "bytes"})


@route("GET", API + r"/xet-(?P<what>read|write)-token/(?P<revision>.+)")
def xet_token(h: Handler, kind: str, id_: str, what: str, revision: str) -> int:
    repo = h.repo(kind, id_)
    if h.hub.xet is None:
        raise HttpError(404, "This Hub has no Xet storage")
    if what == "read":
        need_files(h.account, repo)
    else:
        need_commit(h.account, repo, revision, "create_pr" in h.query)
    token = h.hub.xet.token()
    url, access, expiry = token.values()
    return h.send(200, {"casUrl": url, "accessToken": access, "exp": int(expiry)}, token)


# --- commits -------------------------------------------------------------------------------------


@route("POST", API + r"/commit/(?P<revision>.+)")
def commit(h: Handler, kind: str, id_: str, revision: str) -> int:
    repo, as_request = h.repo(kind, id_), "create_pr" in h.query
    need_commit(h.account, repo, revision, as_request)
    lines = [json.loads(line) for line in h.body.read().splitlines() if line.strip()]
    head = next(line["value"] for line in lines if line["key"] == "header")
    with repo.lock:
        base = repo.head(revision)
        if head.get("parentCommit") and not base.startswith(head["parentCommit"]):
            raise HttpError(412, "A commit has happened since. Please refresh and try again.")
        oid = repo.add_commit(
            base, changed(h.hub, repo, base, lines), head["summary"], h.user or "", head.get("description", "")
        )
        done = move(h, repo, revision, oid, as_request)
    url = f"{h.web_url(repo.kind, id_)}/commit/{oid}"
    return h.send(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": "", **done})


def move(h: Handler, repo: Repo, revision: str, oid: str, as_request: bool) -> dict[str, str]:
    """Have the branch, or a new pull request against it, end in the commit."""
    made, user = repo.commits[oid], h.user or ""
    request = repo.discussion_of(revision)
    if as_request:
        request = repo.open(made["title"], user, made["body"], "open", base=revision)
    if request is not None:
        request.note("commit", user, {"subject": made["title"], "oid": oid})
        repo.refs[f"refs/pr/{request.number}"] = oid
    else:
        repo.refs[revision] = oid
    if request is None or not as_request:
        return {}
    return {"pullRequestUrl": f"{h.web_url(repo.kind, repo.id)}/discussions/{request.number}"}


def changed(hub: HubServer, repo: Repo, base: str, lines: list[dict[str, Any]]) -> dict[str, File]:
    """The files of a commit after all of its operations; HttpError when one of them is refused."""
    wanted = {line["value"]["oid"] for line in lines if line["key"] == "lfsFile"} - repo.objects
    if hub.xet and wanted:
        repo.objects.update(hub.xet.fetch(wanted, hub.root / "blobs"))
    files = dict(repo.files(base))
    for line in lines:
        files = apply(hub, repo, files, line["key"], line["value"])
    return files


def apply(hub: HubServer, repo: Repo, files: dict[str, File], key: str, value: dict[str, Any]) -> dict[str, File]:
    """The files after one operation of a commit."""
    if key == "file":
        return {**files, value["path"]: regular_file(hub, value["path"], base64.b64decode(value["content"]))}
    if key == "lfsFile":
        if value["oid"] not in repo.objects or value.get("size") not in (None, hub.blobs.size(value["oid"])):
            raise HttpError(422, f"LFS object {value['oid']} for {value['path']} was not uploaded")
        return {**files, value["path"]: hub.blobs.large_file(value["oid"])}
    if key == "deletedFile":
        if value["path"] not in files:
            raise HttpError(404, "A file with this name doesn't exist", "EntryNotFound")
        return {path: file for path, file in files.items() if path != value["path"]}
    if key == "deletedFolder":
        folder = value["path"].rstrip("/") + "/"
        return {path: file for path, file in files.items() if not path.startswith(folder)}
    return files


def regular_file(hub: HubServer, path: str, data: bytes) -> File:
    if len(data) > LARGE_FROM:
        raise HttpError(413, f"{path}: files larger than 10 MiB have to be uploaded as large files")
    errors = problems(data.decode(errors="replace"))[0] if path == "README.md" else []
    if errors:
        told = "\n".join(f"- Error: {error}" for error in errors)
        raise HttpError(400, f"Your push was rejected during YAML metadata verification:\n{told}")
    return hub.blobs.small_file(data)


# --- branches and tags ---------------------------------------------------------------------------


def writable(h: Handler, kind: str, id_: str) -> Repo:
    repo = h.repo(kind, id_)
    need_write(h.account, repo.namespace, f"You don't have the rights to write to {id_}")
    return repo


@route("POST", API + r"/branch/(?P<name>.+)")
def branch(h: Handler, kind: str, id_: str, name: str) -> int:
    repo = writable(h, kind, id_)
    with repo.lock:
        if name in repo.refs:
            raise HttpError(409, f"Reference already exists: refs/heads/{name}")
        repo.refs[name] = repo.resolve(h.json().get("startingPoint") or "main")
    return h.send(200, {})


@route("DELETE", API + r"/branch/(?P<name>.+)")
def delete_branch(h: Handler, kind: str, id_: str, name: str) -> int:
    repo = writable(h, kind, id_)
    if name == "main" or name.startswith("refs/"):
        raise HttpError(403, f"Cannot delete refs/heads/{name}")
    if repo.refs.pop(name, None) is None:
        raise HttpError(404, "Reference does not exist")
    return h.send(200, {})


@route("POST", API + r"/tag/(?P<revision>.+)")
def tag(h: Handler, kind: str, id_: str, revision: str) -> int:
    repo, wanted = writable(h, kind, id_), h.json()["tag"]
    with repo.lock:
        if wanted in repo.tags:
            raise HttpError(409, f"Tag reference exists already: refs/tags/{wanted}")
        repo.tags[wanted] = repo.resolve(revision)
    return h.send(200, {})


@route("DELETE", API + r"/tag/(?P<name>.+)")
def delete_tag(h: Handler, kind: str, id_: str, name: str) -> int:
    if writable(h, kind, id_).tags.pop(name, None) is None:
        raise HttpError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return h.send(200, {})
