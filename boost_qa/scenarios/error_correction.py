"""Error correction (MASTER, section 3.2): a weak student errs, a teacher guides, a strong student corrects."""

from __future__ import annotations

from random import Random

from boost_qa.agents import Cast
from boost_qa.types import Dialogue, Record, Turn


async def error_correction(record: Record, cast: Cast, rng: Random) -> Dialogue:
    """human question, gpt attempt, human guidance, gpt correction; three requests.

    Only the teacher and the strong student see the reference answer.
    """
    question = Turn("question", "human", record.question)
    attempt = await cast["weak_student"].say("gpt", about=record, question=record.question)
    guidance = await cast["teacher"].say("human", question=record.question, attempt=attempt.text, answer=record.answer)
    correction = await cast["strong_student"].say(
        "gpt", about=record,
        question=record.question, attempt=attempt.text, guidance=guidance.text, answer=record.answer,
    )  # fmt: skip
    return Dialogue(record, "error_correction", (question, attempt, guidance, correction))
