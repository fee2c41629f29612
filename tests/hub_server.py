"""A local Hugging Face Hub: repositories, commits, large files, Xet and pull requests, for the real clients.

    with HubServer(folder) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1"}

HF_ENDPOINT is read when huggingface_hub is imported, so clients run in a process of their own, unless they are
`HfApi(endpoint=hub.url, token="hf_alice")`. By hand:

    python tests/hub_server.py --root FOLDER --port 8090 --xet

Contents of files lie under `root`; repositories and commits live in memory. Not modelled: .gitignore and
.gitattributes of a repository, rate limits, merge conflicts, moving and squashing.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import hub_discussions  # noqa: F401 - registers its routes
import hub_writing  # noqa: F401 - registers its routes
from hub_accounts import NO_PASSWORD, NO_SUCH_TOKEN, ROLES, TOKENS, Account
from hub_repository import KINDS, Blobs, HttpError, PartialUploads, Repo
from hub_routes import ROUTES
from hub_xet import Xet

PIECE = 2**20  # bytes read or written at once


@dataclass
class Fault:
    """What goes wrong with some requests.

    `match` is searched for in "METHOD /path" (unquoted, without the query). The first `skip` requests that match
    pass, the next `times` are hit; `fired` counts them. A request that is hit

    * is answered by `status`, with `headers` and `message`; or
    * with `drop`, gets no answer, and the connection is closed; and/or
    * has `call` called, in the server's thread.

    `when` says whether status and call come before the request has its effect, or after it and before the answer
    goes out; `drop` is "before" or "after" likewise.
    """

    match: str = ".*"
    times: float = 1
    skip: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "injected fault"
    drop: Literal["before", "after"] | None = None
    call: Callable[[], object] | None = None
    when: Literal["before", "after"] = "before"
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if (self.status, self.drop, self.call) == (None, None, None):
            raise ValueError("a fault needs a status, a drop or a call")
        if self.drop not in (None, "before", "after") or self.when not in ("before", "after"):
            raise ValueError("drop and when are before or after")

    def hits(self, request: str) -> bool:
        if not re.search(self.match, request):
            return False
        self.seen += 1
        return self.seen > self.skip and self.fired < self.times

    def happen(self, moment: str) -> None:
        if self.call is not None and self.when == moment:
            self.call()
        if self.drop == moment:
            raise Dropped
        if self.status is not None and self.when == moment:
            raise HttpError(self.status, self.message, headers=self.headers)


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class HubServer:
    """The server, on a free port of this machine while its `with` block lasts.

    Args:
        root: folder for contents of files; it is made.
        port: 0 for a free one.
        xet: large files may go to Xet storage; plain uploads work all the same.
        orgs: organisations of users; `{"alice": ["school"]}` lets alice write to school/anything.
        parts_from: bytes; large files of at least this size are uploaded in parts of half this size.
        page: entries on one page of a listing.

    `calls` lists every request in the order of arrival, with `status` None where none was answered, and the bytes of
    its body that were `received`; GET /_calls has the same as JSON, for who runs the server by hand. `faults` is a
    list of `Fault`, or of dicts of its fields.
    """

    def __init__(
        self,
        root: str | Path,
        port: int = 0,
        *,
        xet: bool = False,
        orgs: Mapping[str, Sequence[str]] = {},
        parts_from: int | None = None,
        page: int = 1000,
    ) -> None:
        self.root = Path(root).resolve()
        self.blobs = Blobs(self.root)
        self.uploads = PartialUploads(self.blobs)
        self.xet = Xet(self.root) if xet else None
        self.orgs, self.parts_from, self.page = orgs, parts_from, page
        self.repos: dict[tuple[str, str], Repo] = {}
        self.calls: list[dict[str, Any]] = []
        self.faults: list[Fault | dict[str, Any]] = []
        self.lock = threading.Lock()
        self.server = Listener(("127.0.0.1", port), type("BoundHandler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def account(self, token: str) -> Account:
        if token not in TOKENS:
            raise HttpError(401, NO_SUCH_TOKEN)
        user = TOKENS[token]
        return Account(user, ROLES.get(token, "write"), tuple(self.orgs.get(user, ())))

    def admit(self, request: str, call: dict[str, Any]) -> Fault | None:
        """Note a request; the fault that it meets."""
        with self.lock:
            self.calls.append(call)
            self.faults[:] = [each if isinstance(each, Fault) else Fault(**each) for each in self.faults]
            hitting = [each for each in self.faults if isinstance(each, Fault) and each.hits(request)]
            for fault in hitting[:1]:
                fault.fired += 1
                return fault
        return None

    @contextmanager
    def record(self) -> Iterator[list[str]]:
        """The requests of a flow as "METHOD /path", complete when the block ends.

        Request number k of them is what `Fault(skip=k)` hits when the same flow runs again from the same start.
        """
        requests: list[str] = []
        first = len(self.calls)
        yield requests
        requests += [f"{call['method']} {unquote(call['path'])}" for call in self.calls[first:]]

    def repo(self, kind: str, id_: str, account: Account | None) -> Repo:
        repo = self.repos.get((kind, id_))
        if repo is None or (repo.private and not (account and account.reads(repo.namespace))):
            # anonymous callers get 401 for what does not exist too, so that no name leaks
            if account is None:
                raise HttpError(401, NO_PASSWORD)
            raise HttpError(404, "Repository not found", "RepoNotFound")
        return repo

    def blob(self, sha: str) -> Path:
        return self.blobs.path(sha)

    def files(self, kind: str, id_: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file of a repository, for tests to look at."""
        files = self.repos[(kind, id_)].files(revision)
        return {path: self.blob(file["sha256"]).read_bytes() for path, file in files.items()}


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed are no errors of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Body:
    """What a request carries, read when it is wanted; `chunks` in pieces, so that large files fit."""

    def __init__(self, stream: io.BufferedIOBase, headers: Message) -> None:
        self.stream = stream
        chunked = "chunked" in headers.get("Transfer-Encoding", "")
        self.chunks = self._chunked() if chunked else self._take(int(headers.get("Content-Length") or 0))
        self.received = 0  # bytes so far
        self._whole: bytes | None = None

    def _take(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self.stream.read(min(length, PIECE))
            if not piece:
                raise ConnectionResetError("the client went away")
            length -= len(piece)
            self.received += len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while line := self.stream.readline():
            if not (size := int(line.split(b";")[0], 16)):
                self.stream.readline()
                return
            yield from self._take(size)
            self.stream.readline()
        raise ConnectionResetError("the client went away")

    def read(self) -> bytes:
        if self._whole is None:
            self._whole = b"".join(self.chunks)
        return self._whole

    def drain(self) -> None:
        for _ in self.chunks:
            pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    hub: ClassVar[HubServer]
    user: str | None

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.raw_path, self.user = url.path, None
        self.account: Account | None = None
        self.query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.body = Body(self.rfile, self.headers)
        self.call: dict[str, Any] = {
            "method": self.command, "path": url.path, "query": url.query, "status": None,
            "user": TOKENS.get(self.token()), "range": self.headers.get("Range"), "received": 0,
        }  # fmt: skip
        fault = self.hub.admit(f"{self.command} {unquote(url.path)}", self.call)
        try:
            self.answer(fault) if fault else self.respond(self.act)
        except Dropped:
            self.drop()
        else:
            self.body.drain()
        finally:
            self.call["received"] = self.body.received

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ").strip()

    def answer(self, fault: Fault) -> None:
        """Respond as the fault wants; the answer waits in memory until what comes after the effect is done."""
        if "before" in (fault.drop, fault.when):
            self.respond(lambda: fault.happen("before"))
            if self.call["status"] is not None:
                return
        wire, self.wfile = self.wfile, io.BytesIO()
        try:
            self.respond(self.act)
        finally:
            answer, self.wfile = self.wfile.getvalue(), wire
        status, self.call["status"] = self.call["status"], None
        self.respond(lambda: fault.happen("after"))
        if self.call["status"] is None:
            self.call["status"] = status
            self.wfile.write(answer)

    def respond(self, action: Callable[[], object]) -> None:
        try:
            action()
        except HttpError as error:
            told = " ".join(error.message.split()).encode("latin-1", "replace").decode("latin-1")
            headers = {**error.headers, "X-Error-Message": told}
            if code := error.code or self.code_of(error):
                headers["X-Error-Code"] = code
            self.send(error.status, {"error": error.message, **error.more}, headers)

    def code_of(self, error: HttpError) -> str | None:
        """The client takes a 401 about a repository for "not found", but only from https: here, a code says so."""
        about = re.match(r"/api/(models|datasets|spaces)/|/.+/resolve/", self.raw_path)
        return "RepoNotFound" if error.status == 401 and error.message == NO_PASSWORD and about else None

    def act(self) -> None:
        if token := self.token():
            self.account = account = self.hub.account(token)
            self.user = account.user
        method = "GET" if self.command == "HEAD" else self.command
        path = unquote(self.raw_path)
        for known, pattern, function in ROUTES:
            if known == method and (match := pattern.match(path)):
                function(self, **match.groupdict())
                return
        raise HttpError(404, f"no route for {method} {path}")

    def drop(self) -> None:
        self.body.drain()  # the client has sent all and waits
        self.call["status"] = None
        self.close_connection = True
        with suppress(OSError):  # the client may be gone already
            self.connection.shutdown(socket.SHUT_RDWR)

    def start(self, status: int, headers: Mapping[str, str]) -> int:
        self.body.drain()  # a client that still sends would miss the answer
        self.call |= {"status": status, "received": self.body.received}
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        return status

    def send(self, status: int, content: Any = b"", headers: Mapping[str, str] | None = None) -> int:
        plain = isinstance(content, bytes)
        data = content if plain else json.dumps(content).encode()
        kind = "application/octet-stream" if plain else "application/json"
        self.start(status, {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)
        return status

    def send_part(self, status: int, path: Path, first: int, length: int, headers: Mapping[str, str]) -> int:
        """A part of a file, in pieces."""
        about = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        self.start(status, {**about, **headers})
        if self.command != "HEAD":
            with path.open("rb") as file:
                file.seek(first)
                while length and (piece := file.read(min(length, PIECE))):
                    self.wfile.write(piece)
                    length -= len(piece)
        return status

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body.read() or b"{}"))

    def repo(self, kind: str | None, id_: str) -> Repo:
        return self.hub.repo(KINDS[kind or "models"], id_, self.account)

    def web_url(self, kind: str, id_: str) -> str:
        return f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{id_}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A local Hugging Face Hub, for clients with HF_ENDPOINT set to it.")
    parser.add_argument("--root", required=True, help="folder for the contents of files")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--xet", action="store_true", help="large files may go to Xet storage")
    parser.add_argument("--parts-from", type=int, metavar="BYTES", help="larger files are uploaded in parts")
    asked = parser.parse_args(arguments)
    hub = HubServer(asked.root, asked.port, xet=asked.xet, parts_from=asked.parts_from)
    print(f"{hub.url}  (tokens: {', '.join(TOKENS)})", flush=True)
    try:
        hub.server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
