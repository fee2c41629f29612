"""Analogical reasoning (MASTER, section 3.4): a question, then a similar one found by retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from boost_qa.agents import Cast
from boost_qa.errors import Rejected
from boost_qa.types import Dialogue, Record, Turn


async def analogical_reasoning(
    record: Record,
    cast: Cast,
    rng: Random,
    similar: Sequence[Record] = (),
    *,
    bridge: str = "Well done. Now try a similar question: ",
    separator: str = "",
    teacher_sees_answer: bool = False,
    student_recalls: bool = False,
) -> Dialogue:
    """human question and explanation, gpt answer, human similar question, gpt answer; three requests.

    Args:
        similar: the top-k neighbours; one is drawn at random (Eq. 3).
        bridge: the fixed sentence that introduces the similar question.
        separator: between the question and the teacher's explanation (none in Figure 5).
        teacher_sees_answer: show the teacher the reference answer.
        student_recalls: show the student its first answer while it works on the similar question.

    Raises:
        Rejected: if there is no similar question.
    """
    if not similar:
        raise Rejected("no similar question", "no neighbour within the similarity bounds")
    other = rng.choice(similar)
    secret = f"\nSOLUTION (secret)\n{record.answer}\n" if teacher_sees_answer else ""
    explanation = await cast["teacher"].say("human", question=record.question, reference=secret)
    posed = Turn(
        "teacher", "human", record.question + separator + explanation.text,
        explanation.model, explanation.temperature, explanation.prompt_digest, explanation.usage,
    )  # fmt: skip
    first = await cast["student"].say("gpt", about=record, question=posed.text, answer=record.answer, history="")
    recalled = f"EARLIER QUESTION\n{record.question}\n\nYOUR ANSWER TO IT\n{first.text}\n\n" if student_recalls else ""
    again = Turn("question", "human", bridge + other.question)
    second = await cast["student"].say(
        "gpt", about=other, question=other.question, answer=other.answer, history=recalled
    )
    return Dialogue(record, "analogical_reasoning", (posed, first, again, second), other)
