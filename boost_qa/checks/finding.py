"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass

EXCERPT = 160


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check saw in a dialogue.

    Args:
        label: one of the check's LABELS.
        turn: its place among the dialogue's turns, from 0; None for the dialogue as a whole.
        detail: the words or numbers that it was seen by, short; what is personal or secret is never among them.
    """

    label: str
    turn: int | None = None
    detail: str = ""


def excerpt(text: str, start: int = 0, end: int | None = None) -> str:
    """A piece of `text` on one line, at most `EXCERPT` characters long."""
    piece = " ".join(text[start:end].split())
    return piece if len(piece) <= EXCERPT else piece[: EXCERPT - 1] + "…"
