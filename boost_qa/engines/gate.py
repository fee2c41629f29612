"""The gate in front of one endpoint: so many requests at once, and none during a pause."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from boost_qa.engines.concurrency import AdaptiveLimit


class Gate:
    """Lets requests through up to `limit.slots`, first come, first served; used on one event loop.

    The runner asks no more than that either. But requests that failed are still asked for, and all come
    again: without a gate, halving the limit would take nothing off an overloaded server.
    """

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self.inside = 0
        self._pause_ends = 0.0
        self._queue: deque[asyncio.Future[None]] = deque()

    def pause(self, seconds: float) -> None:
        """Let nobody in for `seconds` from now; a longer pause that is on stays as it is."""
        self._pause_ends = max(self._pause_ends, time.monotonic() + seconds)

    async def enter(self) -> int:
        """Wait for a place; gives the limit's era. Every `enter` needs its `leave`."""
        while True:
            if (rest := self._pause_ends - time.monotonic()) > 0:
                await asyncio.sleep(rest)
            elif self.inside < self.limit.slots and not self._queue:
                self.inside += 1
                return self.limit.era
            else:
                await self._turn()
                if self._pause_ends <= time.monotonic():
                    return self.limit.era
                self.leave()

    def leave(self) -> None:
        """Give the place back."""
        self.inside -= 1
        while self._queue and self.inside < self.limit.slots:
            turn = self._queue.popleft()
            if not turn.done():
                self.inside += 1  # the place is handed over here: nobody can slip in before the waiter runs
                turn.set_result(None)

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._queue.remove(turn)
            elif not turn.cancelled():  # the place was handed over, but there is nobody to take it
                self.leave()
            raise
