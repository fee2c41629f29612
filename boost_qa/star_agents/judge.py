"""The pairwise judge (Star-Agents, Eq. 6): is a candidate better than the base sample of its seed?

The paper kept the instructions as they were, so that its judge saw one question and two answers. Here a candidate
may answer another question than its record's: a rewritten one, or the similar one of an analogy. Eq. 6 compares
samples, so an answer is shown with its own question wherever that differs. Of a dialogue the last `gpt` turn counts.

Every line of a question or an answer is shown behind a bar: no text can end its own block. The verdict is read from
the judge's reply alone, and a reply that holds none, or different ones, is never taken for a tie or a defeat. A judge
that repeats a verdict found in an answer repeats it in both orders, and they disagree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from boost_qa.agents import Agent, fault
from boost_qa.errors import Rejected
from boost_qa.types import Dialogue, Record, Request, Usage

Letter = Literal["A", "B", "C"]

CALLS = 2
"""Requests of a verdict when none is asked again; `Job.calls`. Verdicts of all pairs are of one kind."""

KIND = "star/judge"


def scenario(pair: str) -> str:
    """What the verdicts about a pair's candidates are called in jobs and the journal."""
    return f"star/{pair}/judge"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge said of a candidate.

    `value` is Eq. 6: 1.0 if the candidate is better, 0.5 for a tie, 0.0 if the base is. `first` is the verdict with
    the base as answer A, `second` the one with the base as answer B, as the judge wrote them: A, B, or C for a tie.
    """

    value: float
    first: Letter
    second: Letter
    usage: Usage

    @property
    def agreed(self) -> bool:
        """Whether both orders had the same outcome; where they had not, `value` is a tie."""
        return _swapped(self.first) == self.second


async def verdict(record: Record, base: Dialogue, candidate: Dialogue, agent: Agent) -> Verdict:
    """Compare a candidate with the base sample, in both orders; two requests when none is asked again.

    Raises:
        Rejected: if no attempt gave a reply with exactly one verdict. The candidate then has no score.
    """
    ours, theirs = _sample(record, base), _sample(record, candidate)
    question = barred(record.question)
    first, cost = await _decide(agent, question=question, answer_a=ours, answer_b=theirs)
    second, more = await _decide(agent, question=question, answer_a=theirs, answer_b=ours)
    value = {"A": 0.0, "B": 1.0, "C": 0.5}[first] if _swapped(first) == second else 0.5
    return Verdict(value, first, second, cost + more)


def read(text: str) -> Letter | None:
    """The verdict in a judge's reply; None where there is none, or there are different ones."""
    found = set(re.findall(r"\[\[([ABC])\]\]", text))
    return cast(Letter, found.pop()) if len(found) == 1 else None


def barred(text: str) -> str:
    """`text` with a bar before each of its lines, whatever ends them."""
    return "\n".join(f"| {line}" if line else "|" for line in text.splitlines())


def asked(dialogue: Dialogue) -> str:
    """The question that the last `gpt` turn of a dialogue answers."""
    if dialogue.related is not None:  # an analogy ends with the similar question
        return dialogue.related.question
    return dialogue.turns[0].text


def _sample(record: Record, dialogue: Dialogue) -> str:
    """What is judged of a dialogue, with its question where that is another than the record's."""
    answer = barred(next(turn.text for turn in reversed(dialogue.turns) if turn.side == "gpt"))
    own = asked(dialogue)
    return answer if own == record.question else f"ITS OWN QUESTION\n{barred(own)}\nITS ANSWER\n{answer}"


async def _decide(agent: Agent, **blocks: str) -> tuple[Letter, Usage]:
    request = Request(agent.model, agent.messages(**blocks), agent.sampling)
    usage = Usage()
    for _ in range(agent.attempts):
        reply = await request
        usage += Usage(1, reply.prompt_tokens, reply.completion_tokens)
        if reply.finish == "refused":
            raise Rejected("judge: refused", reply.text)
        why = fault(reply, agent.prompt)
        letter = None if why else read(reply.text)
        if letter is not None:
            return letter, usage
    detail = f"{agent.attempts} attempts; the last was {why or 'without one verdict'}: {reply.text[-200:]}"
    raise Rejected("judge: unreadable verdict", detail)


def _swapped(letter: Letter) -> Letter:
    """The verdict that says the same when the answers have changed places."""
    swapped: dict[Letter, Letter] = {"A": "B", "B": "A", "C": "C"}
    return swapped[letter]
