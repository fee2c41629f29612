"""An agent is a model, a way of sampling, and a role prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from boost_qa.config import AgentSettings, Recipe
from boost_qa.errors import Rejected
from boost_qa.prompts import Prompt, load_prompt
from boost_qa.types import Message, Record, Reply, Request, Sampling, Turn, Usage

Accepts = Callable[[Record, str], Coroutine[Any, Any, str | None]]
"""Why a reply about a record is to be asked for again, or None; raises Rejected where that would not help."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Someone who speaks in a scenario (MASTER, section 3.1: a model plus a role- and phase-specific prompt).

    `attempts` is how often an unusable reply is asked for in all; each is a sample of its own. `accepts` looks at
    what would be usable.
    """

    role: str
    model: str
    sampling: Sampling
    prompt: Prompt
    attempts: int = 3
    layout: Literal["system_and_user", "user"] = "system_and_user"
    language: str = "English"
    accepts: Accepts | None = None

    async def say(self, side: Literal["human", "gpt"], about: Record | None = None, **blocks: str) -> Turn:
        """Speak once, having been shown `blocks`; `side` is the ShareGPT speaker of the line.

        Args:
            about: the record whose reference answer the reply is held against, if this agent's are.

        Raises:
            Rejected: if the prompt could not be asked, or no attempt gave a usable reply.
        """
        request = Request(self.model, self.messages(**blocks), self.sampling)
        usage, why = Usage(), None
        for _ in range(self.attempts):
            reply = await request
            usage += Usage(1, reply.prompt_tokens, reply.completion_tokens)
            why, text = fault(reply, self.prompt), reply.text.strip()
            if why is None and self.accepts is not None and about is not None:
                why = await self.accepts(about, text)
            if why is None:
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
    return {role: agent_for(recipe, agent, role, scenario) for role, agent in settings.items()}


def agent_for(recipe: Recipe, settings: AgentSettings, role: str, folder: str, prompt: str | None = None) -> Agent:
    """An agent as a recipe has it; its prompt is `folder/prompt`, or `folder/role`, unless the settings name a file.

    Raises:
        RecipeError: if that file cannot be used.
    """
    return Agent(
        role=role,
        model=recipe.model_name(settings.model),
        sampling=Sampling(settings.temperature, settings.top_p, settings.max_tokens),
        prompt=load_prompt(folder, prompt or role, settings.prompt),
        attempts=recipe.runner.attempts,
        layout=recipe.layout,
        language=recipe.language,
    )
