"""The check of answers: does each student come to the result that the question has?

Neither paper looks: MASTER counts on its weak student to err, and measured errors that its strong one made. A
comparison is a request (to `referee`, an engine without a model), so that its verdict is in the journal and a run
that is played again compares nothing. Where only free text can be compared, a judge may be asked, and the finding says
so.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import Literal

from boost_qa.agents import Agent, fault
from boost_qa.checks.finding import Finding, excerpt
from boost_qa.checks.results.compare import Agreement, compare
from boost_qa.engines.workers import Workers
from boost_qa.errors import Rejected
from boost_qa.star_agents.judge import barred
from boost_qa.types import Dialogue, Message, Record, Request, Sampling

__all__ = [
    "ANSWERS_MODEL",
    "LABELS",
    "NAME",
    "VERSION",
    "Agreement",
    "agreement",
    "compare",
    "judged",
    "look",
    "referee",
    "verdict",
]

NAME = "answers"
VERSION = "4"
ANSWERS_MODEL = f"comparison of answers, version {VERSION}"
"""What requests for a comparison carry as their model; a new version asks anew."""

LABELS = {
    "final right": "the last answer comes to the reference's result",
    "final wrong": "the last answer comes to another result than the reference",
    "final unknown": "whether the last answer is right could not be told; the detail says why",
    "weak right": "the weak student, who is there to err, is right",
    "weak wrong": "the weak student errs, as it should",
    "weak unknown": "whether the weak student errs could not be told",
    "student right": "an answer of a student before the last comes to the reference's result",
    "student wrong": "an answer of a student before the last comes to another result",
    "student unknown": "whether an answer of a student before the last is right could not be told",
}

_STUDENTS = ("student", "student_a", "student_b")
_ASIS = Sampling(temperature=0.0, max_tokens=1)  # nothing is drawn
_VERDICTS: dict[str, Literal["right", "wrong", "unknown"]] = {"RIGHT": "right", "WRONG": "wrong", "UNCLEAR": "unknown"}


def referee(seconds: float = 3.0, memory_mib: int = 1024, processes: int | None = None) -> Workers:
    """The engine that answers `ANSWERS_MODEL`; see `Workers` for the limits."""
    try:
        version = metadata.version("math-verify")
    except metadata.PackageNotFoundError:
        version = "missing"
    return Workers(
        "boost_qa.checks.results.compare:answer",
        seconds=seconds,
        memory_mib=memory_mib,
        processes=processes,
        revision=f"math-verify {version}, checks {VERSION}",
        remedy="pip install 'boost_qa[checks]'",
    )


async def agreement(record: Record, text: str) -> Agreement:
    """Whether `text` comes to the result of `record`; one request.

    What took too long, or too much memory, is unknown.
    """
    asked = {"question": record.question, "reference": record.answer, "final": record.final, "text": text}
    reply = await Request(ANSWERS_MODEL, (Message("user", json.dumps(asked, ensure_ascii=False)),), _ASIS)
    if reply.finish == "refused":
        return Agreement("unknown", "math", record.final or "", "", reply.text)
    return Agreement(**json.loads(reply.text))


async def judged(record: Record, text: str, agent: Agent) -> Agreement:
    """What a judge says of an answer in free text; one request when none is asked again.

    Raises:
        Rejected: if no attempt gave a reply with exactly one verdict. That is no verdict, and least of all "wrong".
    """
    blocks = {"question": record.question, "answer": text, "reference": record.answer}
    messages = agent.messages(**{name: barred(block) for name, block in blocks.items()})
    request = Request(agent.model, messages, agent.sampling)
    for _ in range(agent.attempts):
        reply = await request
        if reply.finish == "refused":
            raise Rejected("answer judge: refused", reply.text)
        why = fault(reply, agent.prompt)
        found = set() if why else set(re.findall(r"\[\[([^\[\]]*)\]\]", reply.text))
        if len(found) == 1 and (word := found.pop()) in _VERDICTS:
            return Agreement(_VERDICTS[word], "text", excerpt(record.answer), excerpt(text), f"said by {agent.model}")
    detail = f"{agent.attempts} attempts; the last was {why or 'without one verdict'}: {reply.text[-200:]}"
    raise Rejected("answer judge: unreadable verdict", detail)


async def look(dialogue: Dialogue, judge: Agent | None = None) -> list[Finding]:
    """One finding for each turn that answers the question: the last of a model, and those of students before it.

    In an analogy the last answers the similar question. Free text is given to `judge`, if there is one.
    """
    last = max((at for at, turn in enumerate(dialogue.turns) if turn.side == "gpt"), default=None)
    findings = []
    for at, turn in enumerate(dialogue.turns):
        who = "weak" if turn.speaker == "weak_student" else "student" if turn.speaker in _STUDENTS else None
        who = "final" if at == last else who
        if who is None:
            continue
        record = dialogue.related if who == "final" and dialogue.related is not None else dialogue.record
        found = await _of_turn(record, turn.text, dialogue, judge)
        detail = f"{found.kind}: expected {found.expected!r}, found {found.found!r}" + (
            f"; {found.why}" if found.why else ""
        )
        findings.append(Finding(f"{who} {found.verdict}", at, excerpt(detail)))
    return findings


async def verdict(record: Record, text: str, judge: Agent | None = None) -> Agreement:
    """`agreement`, or where only free text can be compared what `judge` says, if there is one that can be read."""
    found = await agreement(record, text)
    if found.kind != "text" or found.verdict != "unknown" or judge is None:
        return found
    try:
        return await judged(record, text, judge)
    except Rejected as why:
        return Agreement("unknown", "text", "", "", f"{why.reason}: {why.detail}")


async def _of_turn(record: Record, text: str, dialogue: Dialogue, judge: Agent | None) -> Agreement:
    if record is dialogue.record and not dialogue.turns[0].text.startswith(record.question):  # star's rewritten ones
        return Agreement("unknown", "text", "", "", "it answers another question than its record's")
    return await verdict(record, text, judge)
