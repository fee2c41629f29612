"""A local OpenAI-compatible server without a model: for benchmarks, and for tests of the client.

It answers far faster than any client asks, after a delay of one's choosing, and its replies derive from
the request alone: the same body gets the same reply in every process. It keeps count of what it saw,
of a request that came twice above all, and fails on demand.

    python benchmarks/server.py --port 0 --words 40 --lognormal 0.5 0.8 --capacity 128

The first line on stdout is the base URL. Beside /v1/models, /v1/chat/completions and /v1/completions:

    GET  /stats    counters: requests, completions, repeated, in_flight, peak, failed, connections, tokens
    GET  /last     the last completion request: path, headers, body
    POST /faults   [{"path": "completions", "times": 2, "status": 429, "headers": {"Retry-After": "1"}, "body": ...}]
                   the next requests on that path fail so; "drop": true closes the connection instead,
                   "hang": true never answers; `$AUTHORIZATION` in a body becomes the header's value
    POST /reset    counters to zero, no faults
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import signal
from dataclasses import asdict, dataclass, field
from hashlib import blake2b, shake_128
from statistics import NormalDist
from typing import Any, cast

import orjson

STARTS, MIDDLES, ENDS = "ka lo mi su", "ra ne ti vo ll nn ss mm", "da go mu pe x t r sh"
WORDS = tuple(a + b + c for a in STARTS.split() for b in MIDDLES.split() for c in ENDS.split())  # 256
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
SERVER_BUSY = {"error": {"message": "the server is at its capacity", "type": "overloaded"}}


@dataclass
class Stats:
    """Counters since the start or the last reset."""

    requests: int = 0  # completions asked for, failed ones included
    completions: int = 0  # answered with 200
    repeated: int = 0  # completions whose body had been answered before
    failed: int = 0  # answered with an error, dropped, or left by the client
    in_flight: int = 0
    peak: int = 0
    connections: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class State:
    """What all connections share: the options of the command line, counters, faults to come."""

    options: argparse.Namespace
    stats: Stats = field(default_factory=Stats)
    seen: set[bytes] = field(default_factory=set)
    faults: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    chance: random.Random = field(default_factory=random.Random)

    def reset(self) -> None:
        self.stats = Stats(in_flight=self.stats.in_flight, peak=self.stats.in_flight)
        self.seen, self.faults, self.last = set(), [], {}
        self.chance = random.Random(self.options.seed)

    def next_fault(self, path: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if path.endswith(fault.get("path", "completions")):
                fault["times"] = fault.get("times", 1) - 1
                if fault["times"] <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    def delay(self, digest: bytes) -> float:
        """Seconds until the reply; log-normal delays belong to the request, not to its order."""
        if not self.options.lognormal:
            return float(self.options.latency)
        median, sigma = self.options.lognormal
        share = (int.from_bytes(blake2b(digest, digest_size=7).digest(), "big") + 0.5) / 2**56
        return float(median * math.exp(sigma * NormalDist().inv_cdf(share)))


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time: what a client library needs and no more."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.busy = False
        self.timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.state.stats.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        if self.busy:
            self.leave(failed=True)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        while not self.busy and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            method, target, _ = head.split(b" ", 2)
            self.serve(f"{method.decode()} {target.decode()}", head, body)

    def serve(self, route: str, head: bytes, body: bytes) -> None:
        state = self.state
        if route == "POST /v1/chat/completions" or route == "POST /v1/completions":
            self.busy = True
            stats = state.stats
            stats.requests += 1
            stats.in_flight += 1
            stats.peak = max(stats.peak, stats.in_flight)
            state.last = {"path": route, "head": head, "body": body}
            self.complete(route, head, body)
        elif route == "GET /stats":
            self.send(200, asdict(state.stats))
        elif route == "GET /last":
            self.send(200, state.last | {"head": headers(state.last["head"]), "body": orjson.loads(state.last["body"])})
        elif route == "POST /faults":
            state.faults += orjson.loads(body)
            self.send(200, {})
        elif route == "POST /reset":
            state.reset()
            self.send(200, {})
        elif fault := state.next_fault(route):
            self.fail(fault, head)
        elif route == "GET /v1/models":
            if not self.refuse_key(head):
                self.send(200, {"object": "list", "data": [{"id": name} for name in state.options.model]})
        else:
            self.send(404, {"error": {"message": f"no route {route}"}})

    def complete(self, route: str, head: bytes, body: bytes) -> None:
        """Answer one completion request now or later, or fail as was asked for."""
        state, options = self.state, self.state.options
        if state.faults and (fault := state.next_fault(route)):
            self.fail(fault, head)
        elif options.fault_share and state.chance.random() < options.fault_share:
            self.fail({"status": options.fault_status, "body": SERVER_BUSY}, head)
        elif options.capacity and state.stats.in_flight > options.capacity:
            self.fail({"status": 503, "body": SERVER_BUSY}, head)
        elif not self.refuse_key(head):
            digest = blake2b(body, digest_size=16).digest()
            if delay := state.delay(digest):
                self.timer = asyncio.get_running_loop().call_later(delay, self.answer, route, body, digest)
            else:
                self.answer(route, body, digest)

    def answer(self, route: str, body: bytes, digest: bytes) -> None:
        state, options, stats = self.state, self.state.options, self.state.stats
        asked = orjson.loads(body)
        if asked["model"] not in options.model:
            told = f"The model `{asked['model']}` does not exist."
            return self.fail({"status": 404, "body": {"error": {"message": told}}})
        prompt_tokens = len(asked["prompt"]) if "prompt" in asked else len(body) // 4
        if options.context and prompt_tokens > options.context:
            told = f"This model's maximum context length is {options.context} tokens, not {prompt_tokens}."
            return self.fail({"status": 400, "body": {"error": {"message": told, "type": "BadRequestError"}}})
        count = min(options.words, asked.get("max_tokens", options.words))
        text = " ".join([WORDS[byte] for byte in shake_128(digest).digest(count)])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if count < options.words else "stop"}
        if "prompt" in asked:
            choice["text"] = text
        else:
            choice["message"] = {"role": "assistant", "content": text}
        stats.repeated += digest in state.seen
        state.seen.add(digest)
        stats.completions += 1
        stats.prompt_tokens += prompt_tokens
        stats.completion_tokens += count
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}
        self.send(200, {"id": digest.hex(), "model": asked["model"], "choices": [choice], "usage": usage})

    def refuse_key(self, head: bytes) -> bool:
        """Whether the request lacked the key that the server requires; it is then answered."""
        if not self.state.options.key or headers(head).get("authorization") == f"Bearer {self.state.options.key}":
            return False
        self.fail({"status": 401, "body": {"error": {"message": "Incorrect API key provided: $AUTHORIZATION."}}}, head)
        return True

    def fail(self, fault: dict[str, Any], head: bytes = b"") -> None:
        if fault.get("hang"):
            return
        if fault.get("drop"):
            self.transport.abort()
            return
        body = fault.get("body", {"error": {"message": "injected"}})
        raw = body.encode() if isinstance(body, str) else orjson.dumps(body)
        raw = raw.replace(b"$AUTHORIZATION", headers(head).get("authorization", "").encode())
        self.send(fault.get("status", 500), raw, fault.get("headers", {}))

    def send(self, status: int, body: Any, extra: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else orjson.dumps(body, default=bytes.decode)
        more = "".join(f"{name}: {value}\r\n" for name, value in extra.items()) if extra else ""
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, REASONS.get(status, "Status").encode(), len(raw), more.encode(), raw)
        )
        if self.busy:
            self.leave(failed=status != 200)
            if self.buffer:
                asyncio.get_running_loop().call_soon(self.data_received, b"")

    def leave(self, failed: bool) -> None:
        self.busy, self.timer = False, None
        self.state.stats.in_flight -= 1
        self.state.stats.failed += failed


def headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one")
    parser.add_argument("--model", action="append", help="served name, may be repeated (default: test)")
    parser.add_argument("--words", type=int, default=16, help="words, counted as tokens, of a reply")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until each reply")
    parser.add_argument("--lognormal", type=float, nargs=2, metavar=("MEDIAN", "SIGMA"), help="log-normal seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the faults drawn by chance")
    parser.add_argument("--capacity", type=int, help="requests at once; more are answered with 503")
    parser.add_argument("--context", type=int, help="longest prompt in tokens; longer ones are answered with 400")
    parser.add_argument("--key", help="API key that requests must bear")
    parser.add_argument("--fault-share", type=float, default=0.0, help="share of completions that fail")
    parser.add_argument("--fault-status", type=int, default=503, help="how they fail")
    options = parser.parse_args(arguments)
    options.model = options.model or ["test"]
    return options


async def serve(options: argparse.Namespace) -> None:
    state = State(options)
    state.reset()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), options.host, options.port, backlog=4096)
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}/v1", flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    options = parse()
    try:
        from uvloop import run
    except ImportError:  # no uvloop on this platform
        from asyncio import run
    run(serve(options))


if __name__ == "__main__":
    main()
