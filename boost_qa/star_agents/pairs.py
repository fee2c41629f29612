"""Agent pairs at work: from a seed record to a candidate sample (Star-Agents, Eq. 2).

Whoever runs them makes a `Job(record.id, scenario(name), lambda: play(...), calls(pair), kind=scenario(name))`: so
two candidates of one record have journal keys of their own, and replies of one pair are alike in length.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from random import Random
from typing import Any

from boost_qa.agents import Cast, agent_for
from boost_qa.config import Debate, Pair, Recipe, Star
from boost_qa.scenarios import analogical_reasoning, debate, error_correction
from boost_qa.types import Dialogue, Record, Turn


def scenario(name: str) -> str:
    """What a pair's candidates are called in jobs, the journal, and `Plan.casts`."""
    return f"star/{name}"


def calls(pair: Pair) -> int:
    """How many requests a candidate takes when none is asked again."""
    if pair.classroom is None:
        return len(pair.agents())
    _, settings = pair.classroom
    return 2 * max(settings.rounds) + 1 if isinstance(settings, Debate) else 3


def casts(recipe: Recipe, star: Star) -> dict[str, Cast]:
    """The agents of every pair by role, under the pair's `scenario`; the judge is `["star"]["judge"]`.

    Raises:
        RecipeError: if a prompt file of the recipe cannot be used.
    """
    found = {scenario(name): _cast(recipe, pair) for name, pair in star.pairs.items()}
    return found | {"star": {"judge": agent_for(recipe, star.judge, "judge", "star")}}


def play(
    name: str,
    settings: Pair,
    casts: Mapping[str, Cast],
    record: Record,
    rng: Random,
    similar: Sequence[Record] = (),
) -> Coroutine[Any, Any, Dialogue]:
    """The candidate of the pair `name` for a seed record, whatever kind the pair is of; awaits nothing but requests.

    Args:
        casts: `Plan.casts`.
        rng: all chance there is; it belongs to this record and pair alone.
        similar: neighbours of the record, for a pair that plays analogical reasoning.

    Raises:
        Rejected: when awaited, if no usable candidate came of it.
    """
    cast = casts[scenario(name)]
    if settings.error_correction is not None:
        return error_correction(record, cast, rng)
    if settings.debate is not None:
        return debate(record, cast, rng, settings.debate.rounds)
    if (analogy := settings.analogical_reasoning) is not None:
        return analogical_reasoning(
            record, cast, rng, similar,
            bridge=analogy.bridge, separator=analogy.separator,
            teacher_sees_answer=analogy.teacher_sees_answer, student_recalls=analogy.student_recalls,
        )  # fmt: skip
    return answer(record, cast)


async def answer(record: Record, cast: Cast) -> Dialogue:
    """human question, gpt answer; two requests where the cast has somebody who rewrites the question, else one.

    Nobody but `respond` can see the reference answer, and only if its prompt has a place for it.
    """
    question = Turn("question", "human", record.question)
    if "instruct" in cast:
        question = await cast["instruct"].say("human", question=record.question)
    given = await cast["respond"].say("gpt", question=question.text, answer=record.answer)
    return Dialogue(record, "star", (question, given))


def _cast(recipe: Recipe, pair: Pair) -> Cast:
    if pair.classroom is not None:
        name, settings = pair.classroom
        return {role: agent_for(recipe, agent, role, name) for role, agent in settings.cast}
    prompts = {"instruct": "instruct", "respond": "respond_from_reference" if pair.sees_reference else "respond"}
    return {role: agent_for(recipe, agent, role, "star", prompts[role]) for role, agent in pair.agents().items()}
