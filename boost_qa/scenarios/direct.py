"""Direct (not of the paper): the strong model writes a plain worked answer, and there is no classroom.

MASTER compares its dialogues with the sources' own answers. They differ from those in two things at once: a classroom
is played, and a strong model that was shown the reference answer wrote the last word. This scenario has the second
without the first.
"""

from __future__ import annotations

from random import Random

from boost_qa.agents import Cast
from boost_qa.types import Dialogue, Record, Turn


async def direct(record: Record, cast: Cast, rng: Random, *, sees_answer: bool = True) -> Dialogue:
    """human question, gpt worked answer; one request.

    Args:
        sees_answer: show the writer the reference answer; else it answers by itself.
    """
    question = Turn("question", "human", record.question)
    known = f"Put this correct solution into your own words:\n{record.answer}" if sees_answer else ""
    answer = await cast["writer"].say("gpt", about=record, question=record.question, reference=known)
    return Dialogue(record, "direct", (question, answer))
