"""From the caller's thread onto the event loop: what is to be done, as it comes up."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """What one thread gives and an event loop in another takes, one by one; None is the end."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, item: T | None) -> None:
        if self._loop is None:
            self._items.put_nowait(item)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is over; whoever listens to it hears why
                self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on they are taken on `loop`, in a thread of its own."""
        self._loop = loop

    async def take(self) -> T | None:
        item = await self._items.get()
        if item is None:
            self._items.put_nowait(None)  # for whoever else waits
        return item
