"""Slots kept busy: how much of an engine's slot-time the runner fills when replies vary in length.

Records of dependent turns over an engine whose replies take log-normal times, as replies of a language
model do; `max_tokens` caps them. Nothing is computed while a reply takes its time, so a slot without a
request is lost. With as many dialogues in flight as slots there is no choice, and a run ends with a few
slow dialogues alone; with more in flight, the one with the longest expected rest goes first.

    python benchmarks/slots.py --repeats 3

Busy is the sum of all replies' times divided by slots x the time from the first request to the last reply.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import report

from boost_qa.journal import Journal
from boost_qa.runner import Job, run
from boost_qa.types import Call, Message, Reply, Request

PREDICTION = """
Capped at 4 medians: 0.84 at 128 in flight (no choice), 0.92 at 512, no more above that: the lengths are
drawn alike for every turn, so the length model can only order by turns left, and the last reply of each
slot still ends when it likes. Uncapped: one reply of 15 medians late in the run costs about 0.1.
"""
TOKENS_PER_SECOND = 2000.0


class Sleeper:
    """An engine whose replies take the time that their call's seed says."""

    revision = None

    def __init__(self, slots: int, median: float, sigma: float, cap: float | None, seed: int) -> None:
        self.slots, self.median, self.sigma, self.cap, self.seed = slots, median, sigma, cap, seed
        self.asked, self.ended, self.spent = math.inf, 0.0, 0.0

    async def open(self) -> None:
        pass

    async def ask(self, call: Call) -> Reply:
        # the same call takes the same time whatever order it comes in
        factor = Random(f"{self.seed}/{call.record}/{call.ordinal}").lognormvariate(0.0, self.sigma)
        seconds = self.median * min(factor, self.cap or math.inf)
        self.asked = min(self.asked, time.perf_counter())
        await asyncio.sleep(seconds)
        self.ended = time.perf_counter()
        self.spent += seconds
        return Reply("word", "stop", 100, round(seconds * TOKENS_PER_SECOND))

    async def close(self) -> None:
        pass

    def busy(self) -> float:
        return self.spent / (self.slots * (self.ended - self.asked))


async def turns(record: str, count: int) -> str:
    """A dialogue whose every message depends on the one before."""
    said = record
    for _ in range(count):
        reply = await Request("sleeper", (Message("user", said),))
        said += f" {reply.text}"
    return said


def measure(options: argparse.Namespace, in_flight: int, cap: float | None, seed: int, journal: Path) -> float:
    """Share of the slot-time that was busy in one run."""
    engine = Sleeper(options.slots, options.median, options.sigma, cap, seed)

    def jobs() -> Iterator[Job[str]]:
        for record in range(options.records):
            yield Job(f"r{record}", "turns", partial(turns, f"r{record}", options.turns), options.turns, "turns")

    with Journal(journal) as kept:
        ends = list(run(jobs(), {"sleeper": engine}, kept, in_flight=in_flight, seed=seed))
        assert len(ends) == options.records and len(kept) == options.records * options.turns
    return engine.busy()


def main() -> None:
    options = parse()
    caps: list[float | None] = [options.cap, None]
    cells: dict[tuple[str, int], list[float]] = {}
    for repeat in range(options.repeats):
        for cap in caps:
            for in_flight in options.in_flight:
                with tempfile.TemporaryDirectory() as folder:
                    busy = measure(options, in_flight, cap, repeat, Path(folder) / "journal.sqlite")
                cells.setdefault((f"capped at {cap:g} medians" if cap else "uncapped", in_flight), []).append(busy)
    base = {
        lengths: report.spread(busy)["median"]
        for (lengths, in_flight), busy in cells.items()
        if in_flight == options.slots
    }
    result = []
    for (lengths, in_flight), shares in cells.items():
        found = report.spread(shares)
        result.append(
            {
                "lengths": lengths,
                "in_flight": in_flight,
                "busy": found,
                "against_plain": round(found["median"] / base[lengths], 3),
            }
        )
    report.show(
        f"{options.records} records x {options.turns} turns, {options.slots} slots: share of slot-time busy",
        ("reply lengths", "in flight", "median", "min", "max", "against plain"),
        [
            (
                row["lengths"],
                str(row["in_flight"]),
                *(f"{row['busy'][key]:.3f}" for key in ("median", "min", "max")),
                f"{row['against_plain']:.2f}",
            )
            for row in result
        ],
    )
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    report.write(
        options.output,
        PREDICTION,
        settings,
        {"baseline": f"{options.slots} in flight: plain record-wise", "cells": result},
    )


def parse() -> argparse.Namespace:
    parser = report.parser("slots", __doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--records", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--median", type=float, default=0.2, help="seconds of the median reply (default: %(default)s)")
    parser.add_argument("--sigma", type=float, default=0.8)
    parser.add_argument("--cap", type=float, default=4.0, help="medians of the longest reply (default: %(default)s)")
    parser.add_argument(
        "--in-flight", type=int, nargs="+", default=[128, 192, 256, 512, 1024], help="the slots are added if missing"
    )
    options = parser.parse_args()
    options.in_flight = sorted({*options.in_flight, options.slots})
    return options


if __name__ == "__main__":
    main()
