"""An engine without a model, at the one seam that tests replace; and dialogues to play over it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from boost_qa.runner import Job
from boost_qa.types import Call, Message, Reply, Request


def echo(call: Call) -> Reply:
    """A reply that derives from the call alone, and differs for every call."""
    return Reply(f"{call.seed:x}", "stop", len(call.body), 10 + call.seed % 90)


def place(call: Call) -> tuple[str, str, int]:
    return call.record, call.scenario, call.ordinal


class Scripted:
    """Answers with `answer(call)` after `seconds(call)`, and writes down what it saw.

    `asked` are all calls in the order in which they came, `answered` those that got a reply.
    """

    revision = "scripted"

    def __init__(
        self,
        answer: Callable[[Call], Reply] = echo,
        *,
        slots: int = 4,
        seconds: Callable[[Call], float] = lambda call: 0.0,
    ) -> None:
        self.answer, self.slots, self.seconds = answer, slots, seconds
        self.asked: list[Call] = []
        self.answered: list[Call] = []
        self.busy = self.peak = self.opened = self.closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def ask(self, call: Call) -> Reply:
        assert self.opened == 1 and not self.closed
        self.asked.append(call)
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            await asyncio.sleep(self.seconds(call))
            reply = self.answer(call)
            self.answered.append(call)
            return reply
        finally:
            self.busy -= 1

    async def close(self) -> None:
        self.closed += 1

    def times(self) -> Counter[tuple[str, str, int]]:
        """How often each place of each dialogue was asked for."""
        return Counter(map(place, self.asked))


async def talk(record: str, turns: int = 3, models: Iterable[str] = ("m",)) -> str:
    """`turns` requests that each show all that was said before, the models taking turns."""
    said, models = record, tuple(models)
    for turn in range(turns):
        reply = await Request(models[turn % len(models)], (Message("user", said),))
        said += f" {reply.text}"
    return said


def talks(count: int, turns: int = 3, models: Iterable[str] = ("m",), kind: str = "talk") -> list[Job[str]]:
    return [Job(f"r{at}", "talk", partial(talk, f"r{at}", turns, models), turns, kind) for at in range(count)]
