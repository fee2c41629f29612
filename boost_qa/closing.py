"""The control for the dialogue: its last answer alone, right after the question that it answers.

The texts that are learnt are the same ones, and nothing stands before them: no mistake, no guidance, no debate. Where a
model learns as much from these rows, it was the answers that taught it and not the dialogues (MASTER has no such arm).
"""

from __future__ import annotations

from typing import Any

CLOSING = "closing"


def closing(row: dict[str, Any]) -> dict[str, Any]:
    """A dialogue's question and its last answer; a row of two turns stays as it is.

    The question of an analogy's last answer is the similar one, as the teacher puts it; of all others it is the
    first turn.
    """
    turns = len(row["conversations"])
    if turns == 2:
        return row
    kept = [turns - 2 if row["related_id"] else 0, turns - 1]
    per_turn = {
        column: [row[column][turn] for turn in kept] for column in ("conversations", "messages", "speakers", "agents")
    }
    checks = [
        check if check["turn"] is None else check | {"turn": kept.index(check["turn"])}
        for check in row["checks"]
        if check["turn"] is None or check["turn"] in kept
    ]
    return row | per_turn | {"scenario": CLOSING, "checks": checks}
