"""OpenHermes 2.5: a million conversations, most of one exchange, some with a system prompt (MASTER, section 4.1)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

from boost_qa.config import OpenHermes
from boost_qa.sources.stream import Item, Stream, Unfit, optional, text
from boost_qa.sources.table import find_table, table_stream

REPO = "teknium/OpenHermes-2.5"
# No licence is declared: the rows come from many datasets with different ones.
LICENCE = "unknown"
_LABELS = {"human": "User", "gpt": "Assistant"}


def streams(settings: OpenHermes) -> list[Stream]:
    """One stream, `openhermes`. Raises SourceError where the table cannot be found or lacks a column."""
    table = find_table(settings, "openhermes", REPO)
    item = partial(_item, settings)
    also = ("id", "system_prompt")
    return [table_stream(table, settings, "openhermes", ("conversations",), item, also=also, licence=LICENCE)]


def _item(settings: OpenHermes, row: dict[str, Any]) -> Item:
    system, turns = _system(row, _turns(row.get("conversations")))
    if system and settings.system == "skip":
        raise Unfit("system prompt (system: skip)")
    speakers = [speaker for speaker, _ in turns]
    if speakers[:2] != ["human", "gpt"] or any(a == b for a, b in pairwise(speakers)):
        raise Unfit("not human and gpt in turns")
    if len(turns) > 2 and settings.multi_turn == "skip":
        raise Unfit("more than one exchange (multi_turn: skip)")
    last = len(turns) // 2 * 2  # a question at the end that nobody answered is left out
    start = last - 2 if settings.multi_turn == "last" else 0
    question = _with_earlier(turns[:start], turns[start][1])
    if system and settings.system == "prepend":
        question = f"{system}\n\n{question}"
    return Item(question, turns[start + 1][1], optional(row, "id"))


def _turns(conversation: Any) -> list[tuple[str, str]]:
    """The turns as (speaker, text)."""
    if not isinstance(conversation, list) or not conversation:
        raise Unfit("conversations is no list of turns")
    turns = []
    for turn in conversation:
        if not isinstance(turn, dict):
            raise Unfit("a turn is no object")
        speaker = turn.get("from")
        if speaker not in ("system", "human", "gpt"):
            raise Unfit("unknown speaker")
        if speaker == "system" and not turn.get("value"):
            continue  # an empty system prompt is none
        turns.append((speaker, text(turn, "value")))
    return turns


def _system(row: dict[str, Any], turns: list[tuple[str, str]]) -> tuple[str | None, list[tuple[str, str]]]:
    """The system prompt and the other turns; a system turn counts before the column `system_prompt`."""
    system = optional(row, "system_prompt")
    if turns and turns[0][0] == "system":
        system, turns = turns[0][1], turns[1:]
    if any(speaker == "system" for speaker, _ in turns):
        raise Unfit("system turn inside the conversation")
    return system, turns


def _with_earlier(earlier: list[tuple[str, str]], question: str) -> str:
    if not earlier:
        return question
    return "\n\n".join(f"{_LABELS[speaker]}: {said}" for speaker, said in [*earlier, ("human", question)])
