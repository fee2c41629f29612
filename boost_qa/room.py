"""A run in waves: what is played next depends on what became of the wave before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from boost_qa.engines import Engine
from boost_qa.feed import Feed
from boost_qa.journal import Journal
from boost_qa.runner import Finished, Job, Stats, run

T = TypeVar("T")


class Room(Generic[T]):
    """A run whose jobs depend on what became of others: play some, look at them, play more. Engines stay open.

    Args: those of `run`.
    """

    def __init__(
        self, engines: Mapping[str, Engine], journal: Journal, *, in_flight: int = 256, seed: int = 0,
        stats: Stats | None = None,
    ) -> None:  # fmt: skip
        self._feed: Feed[Job[T]] = Feed()
        self._finished = run(self._feed, engines, journal, in_flight=in_flight, seed=seed, stats=stats)

    def play(self, jobs: Sequence[Job[T]]) -> Iterator[Finished[T]]:
        """Play these; yield each as it finishes. All have to be taken before the next are played.

        Raises: what `run` raises.
        """
        for job in jobs:
            self._feed.put(job)
        for _ in jobs:
            yield next(self._finished)

    def __enter__(self) -> Room[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.put(None)
        self._finished.close()
