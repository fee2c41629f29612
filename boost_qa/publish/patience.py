"""Which failures of the Hub pass by themselves, and how long to wait for that."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

T = TypeVar("T")
_PASSING = frozenset((408, 429, 500, 502, 503, 504))
_ADDRESS_GONE = frozenset((400, 403, 404))  # of storage: it expired, or a try whose answer was lost has used it up
_WINDOW = 900.0  # seconds; nobody is asked to wait for longer, the Hub counts requests in windows of 300
_USED_UP = re.compile(r"\br=0\s*;\s*t=(\d+)")  # https://huggingface.co/docs/hub/rate-limits


@dataclass(frozen=True)
class Patience:
    """How often to try, and the seconds between: `first`, doubled each time up to `longest`, or what the Hub asks."""

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda text: None

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
        asked = _asked(error)
        seconds = min(self.first * 2 ** (tries - 1), self.longest) if asked is None else min(asked, _WINDOW)
        seconds *= 1 + random.random() / 2
        if seconds >= 1:
            self.say(f"{str(error).strip().partition(chr(10))[0] or type(error).__name__}; again in {seconds:,.0f} s")
        self.sleep(seconds)


def status(error: BaseException) -> int | None:
    """The HTTP status that an error, or what caused it, stands for; None if it is none."""
    response = _response(error)
    return None if response is None else response.status_code


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: the Hub is busy or broken, or the connection was lost."""
    code = status(error)
    if code is not None:  # the client wraps what storage answers, and only that, in a RuntimeError
        return code in _PASSING or (isinstance(error, RuntimeError) and code in _ADDRESS_GONE)
    lost = (httpx2.TransportError, json.JSONDecodeError, ConnectionError, TimeoutError)  # JSON: a proxy's page of HTML
    never = (OfflineModeIsEnabled, httpx2.UnsupportedProtocol)
    chain = list(_chain(error))
    return any(isinstance(each, lost) for each in chain) and not any(isinstance(each, never) for each in chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it: uploads run in threads, whose errors are wrapped."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: BaseException) -> httpx2.Response | None:
    errors = (each for each in _chain(error) if isinstance(each, HfHubHTTPError | httpx2.HTTPStatusError))
    return next((each.response for each in errors), None)


def _asked(error: BaseException) -> float | None:
    """The seconds that the Hub asks to wait: until its window of requests ends, or else as Retry-After says."""
    response = _response(error)
    if response is None:
        return None
    if used_up := _USED_UP.search(response.headers.get("RateLimit", "")):
        return float(used_up[1])
    asked = response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isdecimal() else None
