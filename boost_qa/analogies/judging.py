"""How far the solutions of two questions are alike, as a model says: each pair in both orders, in a strict form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from boost_qa.agents import Agent
from boost_qa.analogies.draw import Pair
from boost_qa.engines import Engine
from boost_qa.journal import Journal
from boost_qa.progress import Progress
from boost_qa.prompts import load_prompt
from boost_qa.runner import Finished, Job, Stats, run
from boost_qa.star_agents.judge import barred
from boost_qa.types import Record, Sampling, digest

SAME_STRUCTURE, SAME_TOPIC, UNRELATED = "same structure", "same topic", "unrelated"
GRADES = (SAME_STRUCTURE, SAME_TOPIC, UNRELATED)
DISAGREED, UNREADABLE = "orders disagree", "unreadable"
SAMPLING = Sampling(temperature=0.2, max_tokens=512)
"""Above 0, so that a reply that cannot be read is not given again as it was."""

_WRITTEN = {"STRUCTURE": SAME_STRUCTURE, "TOPIC": SAME_TOPIC, "UNRELATED": UNRELATED}
_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of a pair.

    `outcome` is a grade if both orders have the same, `DISAGREED` if they have different ones, and `UNREADABLE` if the
    reply to one of them could not be read or the pair could not be asked, for the reason `why`. `orders` are the
    grades with the question first, and with the other first; empty where unreadable.
    """

    outcome: str
    orders: tuple[str, ...] = ()
    why: str = ""


def judge_agent(model: str, attempts: int) -> Agent:
    """The judge; `attempts` is how often it is asked in all for a reply that cannot be read."""
    return Agent("analogy_judge", model, SAMPLING, load_prompt("checks", "analogy_judge"), attempts, accepts=_readable)


def judged(
    pairs: Sequence[Pair], judge: Agent, engine: Engine, journal: Path, seed: int, progress: Progress
) -> dict[str, Verdict]:
    """The verdict on each pair, by its id. What the journal holds is not asked again.

    Raises:
        EngineError, ModelError, JournalError: what was asked is kept.
    """
    scenario = f"analogies/{digest(str(engine.revision))[:8]}"  # another revision is another judge, and asked anew
    jobs = [Job(pair.id, scenario, partial(_both_orders, pair, judge), 2, "analogies") for pair in pairs]
    stats, verdicts = Stats(), dict[str, Verdict]()
    with Journal(journal) as kept:
        finished = run(jobs, {judge.model: engine}, kept, in_flight=_IN_FLIGHT, seed=seed, stats=stats)
        with closing(finished):
            for end in progress.follow(finished, jobs, stats):
                verdicts[end.job.record] = _verdict(end)
    return verdicts


def _verdict(end: Finished[tuple[str, str]]) -> Verdict:
    if end.result is None:
        return Verdict(UNREADABLE, (), f"{end.rejected.reason}: {end.rejected.detail}" if end.rejected else "")
    first, second = end.result
    return Verdict(first if first == second else DISAGREED, end.result)


def read(text: str) -> str | None:
    """The grade in a judge's reply; None where there is none, or more than one."""
    found = set(re.findall(r"\[\[([^\[\]]*)\]\]", text))
    return _WRITTEN.get(found.pop()) if len(found) == 1 else None


def reference(record: Record) -> str:
    """What is shown of a record's solution."""
    return record.answer or record.final or ""


async def _both_orders(pair: Pair, judge: Agent) -> tuple[str, str]:
    """Raises Rejected where an order has no verdict."""
    return (await _grade(judge, pair.first, pair.second), await _grade(judge, pair.second, pair.first))


async def _grade(judge: Agent, first: Record, second: Record) -> str:
    blocks = {"first": first.question, "second": second.question}
    blocks |= {"first_answer": reference(first), "second_answer": reference(second)}
    said = await judge.say("gpt", first, **{name: barred(text) for name, text in blocks.items()})
    grade = read(said.text)
    assert grade is not None  # _readable says so
    return grade


async def _readable(_: Record, text: str) -> str | None:
    return None if read(text) else "without one verdict"
