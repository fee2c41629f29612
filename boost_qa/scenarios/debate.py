"""Debate (MASTER, section 3.3): two students argue for a round or two, a third one closes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from boost_qa.agents import Cast
from boost_qa.types import Dialogue, Record, Turn


async def debate(record: Record, cast: Cast, rng: Random, rounds: Sequence[int] = (1, 2)) -> Dialogue:
    """human question, then gpt A and human B by turns, then gpt C; three or five requests.

    Everybody hears all that was said; only Student C sees the reference answer.
    """
    said = [Turn("question", "human", record.question)]
    for _ in range(rng.choice(rounds)):
        said.append(await cast["student_a"].say("gpt", question=record.question, history=minutes(said)))
        said.append(await cast["student_b"].say("human", question=record.question, history=minutes(said)))
    # after B, a `human` line, the closing line is a `gpt` line: the sides keep alternating
    closing = {"question": record.question, "history": minutes(said), "answer": record.answer}
    said.append(await cast["student_c"].say("gpt", about=record, **closing))
    return Dialogue(record, "debate", tuple(said))


def minutes(said: Sequence[Turn]) -> str:
    """What was said after the question, each line under its speaker's name."""
    names = {"student_a": "Student A", "student_b": "Student B"}
    lines = [f"{names[turn.speaker]} said:\n{turn.text}" for turn in said[1:]]
    return "\n\n".join(lines) or "Nobody has spoken before you."
