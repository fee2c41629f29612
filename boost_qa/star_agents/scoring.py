"""A scorer model at the engine seam: a likelihood is asked for like any reply, and kept in the journal like one.

So a stopped run asks no score twice, and a finished one is played again, to the last digit, without a model.
What is asked is a conversation that ends with the answer; the reply is the likelihood as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from typing import TYPE_CHECKING

from boost_qa.errors import EngineError
from boost_qa.star_agents.ifd import Likelihood, Skipped
from boost_qa.star_agents.layout import Layout
from boost_qa.types import Call, Dialogue, Message, Reply, Request, Sampling

if TYPE_CHECKING:
    from boost_qa.star_agents.scorer import Scorer

_ROLES = {"human": "user", "gpt": "assistant"}
_LOADING = threading.Lock()  # while one loads, transformers makes the tensors of every thread without content
_ASIS = Sampling(temperature=0.0, max_tokens=1)  # nothing is drawn

FIRST: Layout = "plain"
AGAIN: Layout = "headings"
"""How a conversation is laid out for its score, and for the retest of that."""


def model_name(scorer: str, layout: Layout = FIRST) -> str:
    """What requests to a scorer carry as their model."""
    return f"likelihood by {scorer}" + (f" under {layout}" if layout != FIRST else "")


async def likelihood(dialogue: Dialogue, scorer: str, layout: Layout = FIRST) -> Likelihood | None:
    """Ask how likely the last `gpt` turn is, given all before it; None if it is empty or too long to be scored."""
    turns = dialogue.turns[: max(i for i, turn in enumerate(dialogue.turns) if turn.side == "gpt") + 1]
    messages = tuple(Message(_ROLES[turn.side], turn.text) for turn in turns)  # type: ignore[arg-type]
    reply = await Request(model_name(scorer, layout), messages, _ASIS)
    found = json.loads(reply.text)
    return None if "reason" in found else Likelihood(**found)


class ScoringEngine:
    """Answers calls for likelihoods, under either layout; those that wait together are scored together.

    Args:
        name: a language model of the catalogue, a folder with config.json, or a Hub id.
    """

    slots = 1024

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: list[tuple[Call, asyncio.Future[Reply]]] = []
        self._work: asyncio.Task[None] | None = None
        self._scorer: Scorer | None = None

    @property
    def revision(self) -> str | None:
        from boost_qa.models.trainable import revision, trainable

        return revision(trainable(self.name))

    async def open(self) -> None:
        """Load the model. Raises ModelError if it cannot be had or is no causal language model."""
        self._scorer = await asyncio.to_thread(_load, self.name)

    async def ask(self, call: Call) -> Reply:
        """Raises EngineError if the engine is not open, or the model fails."""
        if self._scorer is None:
            raise EngineError(f"the scorer {self.name} is not open", "Await open() first.")
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, done))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._score())
        return await done

    async def close(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        self._scorer = None

    async def _score(self) -> None:
        """Score what waits until nothing does; who came meanwhile is in the next batch."""
        await asyncio.sleep(0)  # others of the same moment get in
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                replies = await asyncio.to_thread(self._replies, [call for call, _ in batch])
            except Exception as error:
                failure = EngineError(f"the scorer {self.name} failed: {error}", "Start again: scores so far are kept.")
                for _, done in batch:
                    if not done.done():
                        done.set_exception(failure)
                return
            for (_, done), reply in zip(batch, replies, strict=True):
                if not done.done():
                    done.set_result(reply)

    def _replies(self, calls: list[Call]) -> list[Reply]:
        assert self._scorer is not None
        layouts = {model_name(self.name, layout): layout for layout in (FIRST, AGAIN)}
        found: dict[int, Reply] = {}
        for model in {call.request.model: None for call in calls}:
            if model not in layouts:
                raise EngineError(f"{model} was asked of the scorer {self.name}", "Give each scorer its own engine.")
            places = [at for at, call in enumerate(calls) if call.request.model == model]
            scores = self._scorer.arranged(layouts[model]).score([calls[at].request.messages for at in places])
            found |= {at: _reply(one) for at, one in zip(places, scores, strict=True)}
        return [found[at] for at in range(len(calls))]


def _load(name: str) -> Scorer:
    from boost_qa.star_agents.scorer import Scorer

    with _LOADING:
        return Scorer(name)


def _reply(found: Likelihood | Skipped) -> Reply:
    tokens = found.tokens if isinstance(found, Likelihood) else 0
    return Reply(json.dumps(dataclasses.asdict(found)), "stop", tokens, 0)
