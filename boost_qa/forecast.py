"""How many requests a recipe will make of each model, before a source is read or a model fetched.

A debate counts with the mean of its rounds, agent pairs as if all were drawn alike. What is asked again (a reply that
was cut off, a mistake that was none) and what checks ask comes on top. Scorers write nothing: a request is one
likelihood of a whole answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

from rich.table import Table

from boost_qa.config import AgentSettings, AnalogicalReasoning, AnyScenario, Debate, Star
from boost_qa.plan import Plan

HERE = "on this machine"

_JUDGED = 2
"""A candidate is compared with the base sample in both orders."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one model is asked: `requests` on average; `tokens` that it would write if no reply ended before its limit.

    Where it is not said how many records there are, both are of one dialogue or seed.
    """

    name: str
    model: str
    where: str
    roles: tuple[str, ...]
    requests: float
    tokens: float


def forecast(planned: Plan) -> list[Asked]:
    """Requests by model, in the order of the recipe's models; those that nobody speaks with are left out."""
    recipe, times = planned.recipe, planned.dialogues or 1
    roles: dict[str, dict[str, None]] = defaultdict(dict)
    requests: dict[str, float] = defaultdict(float)
    tokens: dict[str, float] = defaultdict(float)
    for role, agent, calls in _star(recipe.star) if recipe.star else _classroom(planned):
        roles[agent.model][role] = None
        requests[agent.model] += calls * times
        tokens[agent.model] += calls * times * agent.max_tokens
    found = [
        Asked(alias, model.model, getattr(model, "base_url", HERE), tuple(roles[alias]), requests[alias], tokens[alias])
        for alias, model in recipe.models.items()
        if alias in roles
    ]
    if star := recipe.star:
        scored = (len(star.base) + _drawn(star)) * (2 if star.retest else 1) * times
        scorers = {"small": star.small, "large": star.large}
        found += [Asked(size, model, HERE, ("scorer",), scored, 0) for size, model in scorers.items()]
    return found


def shown(planned: Plan, asked: list[Asked]) -> Table:
    """The requests as a table."""
    recipe, dialogues = planned.recipe, planned.dialogues
    made = "records that agent pairs compete for" if recipe.star else "dialogues"
    title = f"recipe {recipe.name}: " + (f"{dialogues:,} {made}" if dialogues else f"all records, {made}: for each")
    table = Table(title=title, header_style="dim")
    for name in ("model", "where", "speaks as", "requests", "tokens at most"):
        table.add_column(name, justify="right" if name in ("requests", "tokens at most") else "left")
    for each in asked:
        numbers = (f"{each.requests:,.0f}", f"{each.tokens:,.0f}") if dialogues else (
            f"{each.requests:.1f}", f"{each.tokens:,.0f}"
        )  # fmt: skip
        table.add_row(f"{each.name}: {each.model}", each.where, ", ".join(each.roles), *numbers)
    table.caption = "On average, without what is asked again" + (" and what checks ask." if recipe.checks else ".")
    return table


def _classroom(planned: Plan) -> Iterator[tuple[str, AgentSettings, float]]:
    """Each role, and how often it speaks in a dialogue of this recipe, on average."""
    active = planned.recipe.scenarios.active()
    shares = sum(settings.share for settings in active.values())
    for settings in active.values():
        part = 1 / len(active) if planned.recipe.assign == "all" else settings.share / shares
        for role, agent, calls in _turns(settings):
            yield role, agent, calls * part


def _star(star: Star) -> Iterator[tuple[str, AgentSettings, float]]:
    """Each role, and how often it is asked for a seed."""
    drawn = _drawn(star)
    for name, pair in star.pairs.items():
        part = 1.0 if name in star.base else drawn / len(star.drawable)
        turns = (
            _turns(pair.classroom[1])
            if pair.classroom
            else ((role, agent, 1.0) for role, agent in pair.agents().items())
        )
        for role, agent, calls in turns:
            yield role, agent, calls * part
    yield "judge", star.judge, _JUDGED * (len(star.base) - 1 + drawn)


def _drawn(star: Star) -> int:
    """Pairs that are drawn for each seed."""
    return len(star.drawable) if star.every_pair else min(star.draws, len(star.drawable))


def _turns(settings: AnyScenario) -> Iterator[tuple[str, AgentSettings, float]]:
    """Each role of a scenario, and how often it speaks."""
    for role, agent in settings.cast:
        calls = 1.0
        if isinstance(settings, Debate) and role != "student_c":
            calls = float(mean(settings.rounds))
        elif isinstance(settings, AnalogicalReasoning) and role == "student":
            calls = 2.0
        yield role, agent, calls
