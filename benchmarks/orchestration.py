"""What a request costs beyond the HTTP client: the whole of boost_qa beside a bare loop.

A server in another process answers at once, so the client's processor is all that counts. The client
has one core to itself and the server another. Measured by turns, in one process:

    bare       aiohttp, uvloop and orjson in a loop of workers; nothing is kept
    boost_qa   runner, OpenAI engine, and every reply in the journal on disk before the dialogue goes on
    no server  the same runner and journal over an engine that answers in place

    python benchmarks/orchestration.py --repeats 5

Requests per second are of wall time; `cpu` is processor time of the client per request, which other
work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import report
import uvloop
from process import Server

from boost_qa.config import OpenAI
from boost_qa.engines import Engine
from boost_qa.engines.openai import OpenAIEngine
from boost_qa.journal import Journal
from boost_qa.runner import Job, run
from boost_qa.types import Call, Message, Reply, Request

PREDICTION = """
The bare loop makes 8,000 to 12,000 requests/s. On top of it come per request about 15 us of runner
(digest, seed, futures), 15 us of engine, 30 us of journal (a row of 2.7 KB, by commits of some 50) and
a third of 20 us for handing a dialogue to the caller's thread: 5,000 to 6,500/s, 50 to 60 % of bare.
Three turns are a little cheaper per request than single ones: fewer dialogues are handed over.
"""
QUESTION = "A classroom holds some number of rows, and each row some number of chairs. " * 16


class Instant:
    """An engine that answers in place, with a reply as long as the server's."""

    revision = None
    slots = 256

    def __init__(self, reply: str) -> None:
        self.reply = Reply(reply, "stop", 300, 240)

    async def open(self) -> None:
        pass

    async def ask(self, call: Call) -> Reply:
        return self.reply

    async def close(self) -> None:
        pass


async def turns(question: str, count: int) -> str:
    """`count` requests, each with the reply before as its prompt."""
    said = question
    for _ in range(count):
        said = (await Request("test", (Message("user", said),))).text
    return said


def boost_qa(engine: Engine, options: argparse.Namespace, count: int) -> None:
    def jobs() -> Iterator[Job[str]]:
        for at in range(options.requests // count):
            yield Job(f"record-{at}", "turns", partial(turns, f"{at} {QUESTION}", count), count, "turns")

    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        for end in run(jobs(), {"test": engine}, journal, in_flight=options.concurrency):
            assert end.result
        assert len(journal) == options.requests // count * count


def bare(url: str, options: argparse.Namespace, count: int) -> None:
    records = iter(range(options.requests // count))

    async def worker(session: aiohttp.ClientSession) -> None:
        for at in records:
            said = f"{at} {QUESTION}"
            for _ in range(count):
                body = {
                    "model": "test",
                    "messages": [{"role": "user", "content": said}],
                    "temperature": 0.7,
                    "max_tokens": 1024,
                }
                async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as response:
                    said = orjson.loads(await response.read())["choices"][0]["message"]["content"]

    async def work() -> None:
        connector = aiohttp.TCPConnector(limit=options.concurrency)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session, asyncio.TaskGroup() as group:
            for _ in range(options.concurrency):
                group.create_task(worker(session))

    uvloop.run(work())


def measure(work: Callable[[], None], requests: int) -> tuple[float, float]:
    """Requests per second of wall time, and microseconds of processor time per request."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return requests / (time.perf_counter() - wall), (time.process_time() - processor) / requests * 1e6


def main() -> None:
    options = parse()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    cells: dict[tuple[int, str], list[tuple[float, float]]] = {}
    with Server("--words", str(options.words), core=cores[-1]) as server:
        settings = OpenAI(engine="openai", base_url=server.url, model="test", concurrency=options.concurrency)
        for _ in range(options.repeats):
            for count in (1, 3):
                ways: dict[str, Callable[[], None]] = {
                    "bare": partial(bare, server.url, options, count),
                    "boost_qa": partial(boost_qa, OpenAIEngine(settings), options, count),
                    "no server": partial(boost_qa, Instant("word " * options.words), options, count),
                }
                for way, work in ways.items():
                    cells.setdefault((count, way), []).append(measure(work, options.requests // count * count))
        stats = server.stats()
    assert stats["failed"] == 0, stats
    result: list[dict[str, Any]] = []
    for (count, way), found in cells.items():
        pairs = list(zip(found, cells[count, "bare"], strict=True))
        result.append(
            {
                "turns": count,
                "way": way,
                "requests_per_s": report.spread([rate for rate, _ in found], 0),
                "cpu_us": report.spread([cost for _, cost in found], 1),
                "share_of_bare": report.spread([rate / base for (rate, _), (base, _) in pairs]),
                "share_of_bare_by_cpu": report.spread([base / cost for (_, cost), (_, base) in pairs]),
            }
        )
    report.show(
        f"{options.requests} requests, {options.concurrency} at once, client on one core",
        ("turns, way", "requests/s", "min", "max", "of bare", "cpu us", "of bare, by cpu"),
        [
            (
                f"{row['turns']} {row['way']}",
                *(f"{row['requests_per_s'][key]:,.0f}" for key in ("median", "min", "max")),
                f"{row['share_of_bare']['median']:.0%}",
                f"{row['cpu_us']['median']:.0f}",
                f"{row['share_of_bare_by_cpu']['median']:.0%}",
            )
            for row in result
        ],
    )
    asked = {key: value if key != "folder" else None for key, value in vars(options).items() if key != "output"}
    report.write(
        options.output, PREDICTION, asked | {"prompt_bytes": len(QUESTION)}, {"baseline": "bare", "cells": result}
    )


def parse() -> argparse.Namespace:
    parser = report.parser("orchestration", __doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--concurrency", type=int, default=256, help="requests and dialogues at once (default: %(default)s)"
    )
    parser.add_argument("--words", type=int, default=240, help="of a reply, 5 bytes each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for the journal (default: the system's for temporary files)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
