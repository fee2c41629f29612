"""An agent is a model, a way of sampling, and a role prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from boost_qa.config import AgentSettings, Recipe
from boost_qa.errors import Rejected
from boost_qa.prompts import Prompt, load_prompt
from boost_qa.types import Message, Reply, Request, Sampling, Turn, Usage


@dataclass(frozen=True, slots=True)
class Agent:
    """Someone who speaks in a scenario (MASTER, section 3.1: a model plus a role- and phase-specific prompt).

    `attempts` is how often an unusable reply is asked for in all; each is a sample of its own.
    """

    role: str
    model: str
    sampling: Sampling
    prompt: Prompt
    attempts: int = 3
    layout: Literal["system_and_user", "user"] = "system_and_user"
    language: str = "English"

    async def say(self, side: Literal["human", "gpt"], **blocks: str) -> Turn:
        """Speak once, having been shown `blocks`; `side` is the ShareGPT speaker of the line.

        Raises:
            Rejected: if the prompt could not be asked, or no attempt gave a usable reply.
        """
        request = Request(self.model, self.messages(**blocks), self.sampling)
        usage, why = Usage(), None
        for _ in range(self.attempts):
            reply = await request
            usage += Usage(1, reply.prompt_tokens, reply.completion_tokens)
            why = fault(reply, self.prompt)
            if why is None:
                text = reply.text.strip()
                return Turn(self.role, side, text, self.model, self.sampling.temperature, self.prompt.digest, usage)
            if why == "refused":
                raise Rejected(f"{self.role}: refused", reply.text)
        raise Rejected(f"{self.role}: {why}", f"{self.attempts} attempts; the last was: {reply.text[:200]}")

    def messages(self, **blocks: str) -> tuple[Message, ...]:
        """The role prompt and the filled-in task, as messages."""
        role = " ".join(self.prompt.role.format(language=self.language).splitlines())
        task = self.prompt.task.format(**blocks).strip()
        if self.layout == "user":
            return (Message("user", f"{role}\n\n{task}"),)
        return (Message("system", role), Message("user", task))


Cast = Mapping[str, Agent]


def fault(reply: Reply, prompt: Prompt) -> str | None:
    """Why a reply cannot be used: refused, empty, truncated, looping or out of role; None if it can."""
    if reply.finish == "refused":
        return "refused"
    if not reply.text.strip():
        return "empty"
    if loops(reply.text):
        return "looping"
    if reply.finish == "length":
        return "truncated"
    return "out of role" if prompt.slip(reply.text) else None


def loops(text: str, words: int = 12, share: float = 0.5) -> bool:
    """Whether more than `share` of the runs of `words` words stand in the text more than once."""
    # shorter runs come again in truth tables and matrices, which are no loops
    tokens = text.split()
    runs = Counter(tuple(tokens[i : i + words]) for i in range(len(tokens) - words + 1))
    total = runs.total()
    return total >= 2 * words and sum(count for count in runs.values() if count > 1) > share * total


def cast_for(recipe: Recipe, scenario: str) -> Cast:
    """The agents that a recipe puts into a scenario, by role.

    Raises:
        RecipeError: if a prompt file of the recipe cannot be used.
    """
    settings: Mapping[str, AgentSettings] = dict(recipe.scenarios.active()[scenario].cast)
    return {
        role: Agent(
            role=role,
            model=recipe.model_name(agent.model),
            sampling=Sampling(agent.temperature, agent.top_p, agent.max_tokens),
            prompt=load_prompt(scenario, role, agent.prompt),
            attempts=recipe.runner.attempts,
            layout=recipe.layout,
            language=recipe.language,
        )
        for role, agent in settings.items()
    }
