"""Which failures of the Hub pass by themselves, and how long to wait for that."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

T = TypeVar("T")
_PASSING = frozenset((408, 429, 500, 502, 503, 504))


@dataclass(frozen=True)
class Patience:
    """How often to try, and the seconds between: `first`, doubled each time up to `longest`, or what the Hub asks."""

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0

    def run(self, call: Callable[[], T]) -> T:
        """What `call` returns; it is called again while its failure is one that passes."""
        tries = 0
        while True:
            tries += 1
            try:
                return call()
            except Exception as error:
                if tries >= self.attempts or not is_passing(error):
                    raise
                self.pause(tries, error)

    def pause(self, tries: int, error: BaseException) -> None:
        """Wait after try number `tries` (from 1) ended in `error`; longer than asked, so that not all come at once."""
        asked = _retry_after(error)
        seconds = min(self.first * 2 ** (tries - 1), self.longest) if asked is None else asked
        time.sleep(seconds * (1 + random.random() / 2))


def status(error: BaseException) -> int | None:
    """The HTTP status that an error, or what caused it, stands for; None if it is none."""
    response = _response(error)
    return None if response is None else response.status_code


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: the Hub is busy or broken, or the connection was lost."""
    code = status(error)
    if code is not None:
        return code in _PASSING
    lost = (httpx2.TransportError, json.JSONDecodeError, ConnectionError, TimeoutError)  # JSON: a proxy's page of HTML
    chain = list(_chain(error))
    return any(isinstance(each, lost) for each in chain) and not any(
        isinstance(each, OfflineModeIsEnabled) for each in chain
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it: uploads run in threads, whose errors are wrapped."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: BaseException) -> httpx2.Response | None:
    errors = (each for each in _chain(error) if isinstance(each, HfHubHTTPError | httpx2.HTTPStatusError))
    return next((each.response for each in errors), None)


def _retry_after(error: BaseException) -> float | None:
    response = _response(error)
    asked = "" if response is None else response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isdigit() else None
