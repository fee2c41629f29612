"""Who is asked next, where more requests are ready than an engine has slots."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass

from boost_qa.engines import Engine
from boost_qa.types import Reply

Line = tuple[str, int, int]  # kind of job, calls it makes, ordinal of the call: alike in what is still to come


@dataclass
class ModelStats:
    """Counters of one model; `busy` and `waiting` are requests now."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    busy: int = 0
    waiting: int = 0
    slots: int = 0


class Desk:
    """Where requests wait for a free slot of their engine, the longest expected rest first.

    A job that more than `patience` later ones have overtaken goes before them: otherwise the last turns
    of short dialogues would wait for as long as new dialogues come in.
    """

    def __init__(self, engine: Engine, stats: ModelStats, lengths: Lengths, patience: int) -> None:
        self.engine, self.stats, self.lengths, self.patience = engine, stats, lengths, patience
        self.lines: dict[Line, list[tuple[int, asyncio.Future[None]]]] = {}  # heaps: the earliest job first
        self.newest = 0

    async def enter(self, line: Line, number: int) -> None:
        """Take a slot when it is this request's turn; `leave` gives it back. `number` counts the jobs."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self.lines.setdefault(line, []), (number, turn))  # a job asks one thing at a time
        self.newest = max(self.newest, number)
        self.stats.waiting += 1
        self.admit()
        await turn

    def leave(self) -> None:
        self.stats.busy -= 1
        self.admit()

    def admit(self) -> None:
        """Give free slots to those who wait. Lines are compared now, not when somebody joined them:
        a run begins with everybody waiting and no length known."""
        while self.lines and self.stats.busy < self.engine.slots:
            line = self.eldest()
            if self.newest - self.lines[line][0][0] <= self.patience:
                line = max(self.lines, key=self.lengths.rest)
            _, turn = heapq.heappop(self.lines[line])
            if not self.lines[line]:
                del self.lines[line]
            self.stats.waiting -= 1
            if not turn.done():
                self.stats.busy += 1
                turn.set_result(None)

    def eldest(self) -> Line:
        """The line in which the earliest job waits."""
        return min(self.lines, key=lambda line: self.lines[line][0][0])

    def count(self, reply: Reply) -> None:
        self.stats.requests += 1
        self.stats.prompt_tokens += reply.prompt_tokens
        self.stats.completion_tokens += reply.completion_tokens
        self.stats.slots = self.engine.slots


class Lengths:
    """How much a job still has to generate, learned from the replies so far."""

    def __init__(self) -> None:
        self.means: dict[tuple[str, int], tuple[float, int]] = {}
        self.usual, self.count = 1.0, 0

    def learn(self, line: Line, tokens: int) -> None:
        kind, _, ordinal = line
        mean, count = self.means.get((kind, ordinal), (0.0, 0))
        self.means[kind, ordinal] = (mean + (tokens - mean) / (count + 1), count + 1)
        self.count += 1
        self.usual += (tokens - self.usual) / self.count

    def rest(self, line: Line) -> float:
        """Expected tokens of this call and those after it; the usual reply's where nothing is known."""
        kind, calls, ordinal = line
        ahead = range(ordinal, max(calls, ordinal + 1))
        return sum(self.means.get((kind, later), (self.usual, 0))[0] for later in ahead)
