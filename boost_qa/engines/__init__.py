"""Engines: the one seam between scenarios and language models."""

from __future__ import annotations

from typing import Protocol

from boost_qa.types import Call, Reply


class Engine(Protocol):
    """Answers calls to one model, taken as they come and finished in any order.

    All methods are called on the runner's event loop. A call is asked at most once at a time;
    cancelling `ask` frees what the call held.
    """

    @property
    def slots(self) -> int:
        """How many calls it can work on now; may change while it runs."""
        ...

    @property
    def revision(self) -> str | None:
        """What exactly answers: a commit or `sha256:...` of the weights; None if unknown."""
        ...

    async def open(self) -> None:
        """Load or connect, and fail early: raises ModelError or EngineError with the remedy."""
        ...

    async def ask(self, call: Call) -> Reply:
        """Answer one call with its own sampling and seed. Raises EngineError if that is impossible
        for any call; a prompt that only this call cannot ask is a Reply that is `refused`."""
        ...

    async def close(self) -> None:
        """Let go of model, threads and connections."""
        ...
