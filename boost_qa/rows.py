"""A dialogue as a row of the dataset, and the columns that all configs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Features, List, Value

from boost_qa.types import ORIGINAL

ROLES = {"human": "user", "gpt": "assistant"}
_USAGE = {"requests": Value("int64"), "prompt_tokens": Value("int64"), "completion_tokens": Value("int64")}
_CANDIDATE = {
    "pair": Value("string"),
    "ifd_small": Value("float64"),
    "ifd_large": Value("float64"),
    "judged": Value("float64"),
    "score": Value("float64"),
    "why": Value("string"),
}

_CHECK = {
    "check": Value("string"),
    "version": Value("string"),
    "label": Value("string"),
    "turn": Value("int64"),
    "detail": Value("string"),
}

FEATURES = Features(
    {
        "id": Value("string"),
        "source": Value("string"),
        "source_id": Value("string"),
        "scenario": Value("string"),
        "question": Value("string"),
        "reference_answer": Value("string"),
        "final_answer": Value("string"),
        "conversations": List({"from": Value("string"), "value": Value("string")}),
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "speakers": List(Value("string")),
        "agents": List(
            {
                "speaker": Value("string"),
                "model": Value("string"),
                "revision": Value("string"),
                "temperature": Value("float64"),
                "prompt_digest": Value("string"),
            }
        ),
        "usage": _USAGE,
        "licence": Value("string"),
        "source_revision": Value("string"),
        "related_id": Value("string"),
        "related_source_id": Value("string"),
        "related_reference_answer": Value("string"),
        "pair": Value("string"),
        "score": Value("float64"),
        "candidates": List(_CANDIDATE),
        "checks": List(_CHECK),
    }
)


def dialogue_row(dialogue: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `dialogues.jsonl` as a row with the columns of `FEATURES`."""
    related = dialogue["related"] or {}
    return _row(
        dialogue["id"],
        dialogue["scenario"],
        dialogue["record"],
        dialogue["turns"],
        usage=dialogue["usage"],
        related_id=related.get("id"),
        related_source_id=related.get("source_id"),
        related_reference_answer=related.get("answer"),
        pair=dialogue.get("pair"),
        score=dialogue.get("score"),
        candidates=[{name: each[name] for name in _CANDIDATE} for each in dialogue.get("candidates", ())],
        checks=dialogue.get("checks", []),
    )


def original_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `records.jsonl` as a row: the question and its reference answer, nobody else speaking."""
    turns = (
        {"speaker": "question", "side": "human", "text": record["question"]},
        {"speaker": "reference", "side": "gpt", "text": record["answer"]},
    )
    return _row(record["id"], ORIGINAL, record, turns)


def _row(id: str, scenario: str, record: Mapping[str, Any], turns: Any, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(FEATURES) | {
        "id": id,
        "source": record["source"],
        "source_id": record["source_id"],
        "scenario": scenario,
        "question": record["question"],
        "reference_answer": record["answer"],
        "final_answer": record["final"],
        "conversations": [{"from": turn["side"], "value": turn["text"]} for turn in turns],
        "messages": [{"role": ROLES[turn["side"]], "content": turn["text"]} for turn in turns],
        "speakers": [turn["speaker"] for turn in turns],
        "agents": [{name: turn.get(name) for name in FEATURES["agents"].feature} for turn in turns],
        "usage": dict.fromkeys(_USAGE, 0),
        "licence": record["licence"],
        "source_revision": record["revision"],
        "candidates": [],
        "checks": [],
    }
    return row | more
