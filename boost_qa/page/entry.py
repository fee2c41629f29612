"""What the page shows of a run: one entry for each dialogue, and for each record that got none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from boost_qa.page.journal_side import Piece

Status = Literal["kept", "dropped", "rejected"]
STATUSES: tuple[Status, ...] = ("kept", "dropped", "rejected")
Noted = tuple[str, str, str]
"""A finding as the page shows it: check, label, detail."""


@dataclass(slots=True)
class Line:
    """A turn. `tokens` are those of the reply it says, `again` counts the replies before it that could not be used;
    of a rejected record, `speaker` is empty where nobody knows who was asked."""

    speaker: str
    side: str
    text: str
    model: str | None = None
    temperature: float | None = None
    tokens: int | None = None
    again: int = 0
    findings: list[Noted] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """A dialogue, or a record that got none.

    `facts` are source_id, licence, revision and final of the record; `why` are labels, or the reason of a rejected
    record, whose lines are the last reply to each request; `checked` says whether checks looked at it; `findings` are
    those of the dialogue as a whole.
    """

    id: str
    status: Status
    scenario: str
    source: str
    record: str
    question: str
    answer: str
    turns: list[Line]
    facts: dict[str, str | None] = field(default_factory=dict)
    related: dict[str, str] | None = None
    checked: bool = False
    findings: list[Noted] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    detail: str = ""
    pair: str | None = None
    candidates: list[dict[str, Any]] = field(default_factory=list)

    def texts(self) -> list[str]:
        """The texts that prompts are cut at; the script numbers them alike."""
        related = self.related or {"question": "", "answer": ""}
        return [self.question, self.answer, related["question"], related["answer"], *(turn.text for turn in self.turns)]


@dataclass(slots=True)
class Prompt:
    """The request behind a line; `attempts` are the other replies to it: text, finish, tokens written."""

    model: str
    sampling: list[float]
    messages: list[tuple[str, list[Piece]]]
    attempts: list[tuple[str, str, int]]


class Shown(NamedTuple):
    """An entry and the prompts behind its turns."""

    entry: Entry
    prompts: list[Prompt | None]
