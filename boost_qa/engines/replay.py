"""The engine without a model: a finished run is played again from its journal."""

from __future__ import annotations

from boost_qa.errors import EngineError
from boost_qa.types import Call, Reply


class ReplayEngine:
    """Answers nothing. The runner looks into the journal before it asks an engine, so a call that gets
    here is one that the journal cannot answer.

    Args:
        revision: of the model whose replies the journal holds; None if unknown.
    """

    slots = 1

    def __init__(self, revision: str | None = None) -> None:
        self.revision = revision

    async def open(self) -> None:
        """Nothing to open."""

    async def ask(self, call: Call) -> Reply:
        """Raises EngineError, always."""
        raise EngineError(
            f"the journal holds no answer for record {call.record}, scenario {call.scenario}, call {call.ordinal}",
            "Either the run was not finished, or its recipe, prompts or sources have changed since: "
            "finish it with its real models first, or restore what was changed.",
        )

    async def close(self) -> None:
        """Nothing to close."""
