"""What a run comes to in numbers: counted entry by entry, nothing kept but counts and lengths.

Lengths are those of kept dialogues. Answers and other findings are those of all dialogues that checks looked at,
dropped ones included, for these tell what the models do.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from typing import Literal

from boost_qa.page.entry import Entry

By = Literal["scenario", "source", "model"]

ANSWERS = re.compile(r"(final|weak|student) (right|wrong|unknown)")
"""The labels that say how an answer compares with the reference."""

WHOLE = "whole dialogue"
"""Who a finding is laid to that belongs to no turn."""

COLOURS = {
    "": 0,
    "question": 0,
    "weak_student": 1,
    "teacher": 2,
    "strong_student": 3,
    "student": 3,
    "student_a": 4,
    "student_b": 5,
    "student_c": 3,
    "writer": 3,
}
"""The colour of each speaker of the classroom; others take the rest, in the order in which they come."""

_OTHERS = (6, 7, 1, 2, 4, 5)


class Lengths:
    """Lengths of the turns of one speaker in one scenario, in characters and tokens (where these are known)."""

    def __init__(self) -> None:
        self.characters = array("L")
        self.tokens = array("L")


class Figures:
    """All counts of a page."""

    def __init__(self) -> None:
        self.entries: Counter[tuple[str, str, str]] = Counter()
        """By status, scenario and source."""
        self.losses: Counter[tuple[str, str, str]] = Counter()
        """By status (rejected or dropped), reason or label, and scenario. A dialogue may be dropped for several."""
        self.lengths: dict[tuple[str, str], Lengths] = defaultdict(Lengths)
        """By scenario and speaker."""
        self.again: Counter[tuple[str, str]] = Counter()
        """Replies that could not be used, by scenario and speaker, of kept dialogues."""
        self.answers: Counter[tuple[str, By, str, str]] = Counter()
        """By whose answer (final, weak, student), what it is counted by, that one's name, and what was found."""
        self.findings: Counter[tuple[str, str, str]] = Counter()
        """By check, label and speaker, without the answers."""
        self.turns_with: Counter[tuple[str, str, str]] = Counter()
        """Turns that have a label at least once, by check, label and speaker."""
        self.labels: Counter[tuple[str, str]] = Counter()
        """Dialogues in which a label was found, by check and label."""
        self.turns: Counter[str] = Counter()
        """Turns that checks looked at, by speaker."""
        self.checked = 0
        self.colours: dict[str, int] = {}

    def add(self, entry: Entry) -> None:
        self.entries[entry.status, entry.scenario, entry.source] += 1
        for reason in dict.fromkeys(entry.why):
            if entry.status != "kept":
                self.losses[entry.status, reason, entry.scenario] += 1
        for turn in entry.turns:
            if turn.speaker not in self.colours:
                others = sum(speaker not in COLOURS for speaker in self.colours)
                self.colours[turn.speaker] = COLOURS.get(turn.speaker, _OTHERS[others % len(_OTHERS)])
            if entry.status == "kept":
                lengths = self.lengths[entry.scenario, turn.speaker]
                lengths.characters.append(len(turn.text))
                if turn.tokens is not None:
                    lengths.tokens.append(turn.tokens)
                self.again[entry.scenario, turn.speaker] += turn.again
        if entry.checked:
            self._checked(entry)

    def count(self, status: str, scenario: str | None = None, source: str | None = None) -> int:
        """Entries of a status; of one scenario, source or both."""
        return sum(
            count
            for (stands, played, from_), count in self.entries.items()
            if stands == status and scenario in (None, played) and source in (None, from_)
        )

    def scenarios(self) -> list[str]:
        return sorted({scenario for _, scenario, _ in self.entries})

    def sources(self) -> list[str]:
        return sorted({source for _, _, source in self.entries})

    def _checked(self, entry: Entry) -> None:
        self.checked += 1
        self.turns.update(turn.speaker for turn in entry.turns)
        self.turns[WHOLE] += 1
        said_last = next((turn.model for turn in reversed(entry.turns) if turn.model), None)
        noted = [(WHOLE, said_last, *finding) for finding in entry.findings]
        noted += [(turn.speaker, turn.model, *finding) for turn in entry.turns for finding in turn.findings]
        self.labels.update({(check, label) for _, _, check, label, _ in noted})
        self.turns_with.update({(check, label, WHOLE) for check, label, _ in entry.findings})
        for turn in entry.turns:
            self.turns_with.update({(check, label, turn.speaker) for check, label, _ in turn.findings})
        for speaker, model, check, label, _ in noted:
            answer = ANSWERS.fullmatch(label)
            if answer is None:
                self.findings[check, label, speaker] += 1
                continue
            whose, found = answer.groups()
            self.answers[whose, "scenario", entry.scenario, found] += 1
            self.answers[whose, "source", entry.source, found] += 1
            self.answers[whose, "model", model or "no model", found] += 1
