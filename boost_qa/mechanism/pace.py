"""How far a long loop is: a line now and then, with its rate and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def paced(items: Iterable[T], total: int, what: str, say: Callable[[str], None]) -> Iterator[T]:
    """The items, while `say` is told how many are done, how fast it goes and how long the rest takes."""
    began = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if done == total:
            say(f"{what}: {total:,} in {now - began:,.0f} s")
        elif now - said >= SECONDS_BETWEEN_LINES:
            rate, said = done / (now - began), now
            say(f"{what}: {done:,} of {total:,}, {rate:,.2f}/s, {(total - done) / rate:,.0f} s left")
