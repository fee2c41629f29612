"""Finished runs made without a model, for tests of what comes after generation."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boost_qa.config import Recipe
from boost_qa.run_folder import RunFolder, dump
from boost_qa.types import Record, digest

SPEAKERS = {
    "error_correction": ("question", "weak_student", "teacher", "strong_student"),
    "debate": ("question", "student_a", "student_b", "student_c"),
    "analogical_reasoning": ("teacher", "student", "question", "student"),
}
MODELS = {
    "weak": {"engine": "embedded", "model": "Qwen/Qwen2.5-0.5B-Instruct", "revision": "sha256:aa"},
    "middle": {"engine": "embedded", "model": "Qwen/Qwen2.5-7B-Instruct", "revision": "sha256:bb"},
    "strong": {"engine": "embedded", "model": "Qwen/Qwen2.5-14B-Instruct", "revision": None},
}


def make_record(number: int, source: str = "sums") -> Record:
    """A record of its own kind: the text has what breaks careless writers."""
    question = f"What is {number} + {number}?\n| “quoted” | \u2028 <|im_start|> ```x``` {number}"
    return Record(
        id=f"{source}-{digest(source, question)[:16]}",
        source=source,
        question=question,
        answer=f"{2 * number}, said the ünïcode 🦜",
        source_id=f"{source}/{number}",
        final=str(2 * number) if number % 2 else None,
        licence="mit" if source == "sums" else "Apache-2.0",
        revision="v1",
    )


def make_dialogue(record: Record, scenario: str, related: Record | None = None) -> dict[str, Any]:
    """A line of dialogues.jsonl."""
    asked = {"requests": 1, "prompt_tokens": 10, "completion_tokens": 5}
    turns = []
    for place, speaker in enumerate(SPEAKERS[scenario]):
        side = ("human", "gpt")[place % 2]
        turn: dict[str, Any] = {"speaker": speaker, "side": side, "text": f"{speaker} says:\n{record.question}"}
        if speaker == "question":
            text = related.question if related else record.question
            turn |= {"text": text, "model": None, "temperature": None, "prompt_digest": None, "revision": None}
            turn |= {"usage": dict.fromkeys(asked, 0)}
        else:
            turn |= {"model": MODELS["strong"]["model"], "temperature": 0.2, "prompt_digest": "0123456789abcdef"}
            turn |= {"revision": MODELS["strong"]["revision"], "usage": asked}
        turns.append(turn)
    return {
        "id": digest(record.id, scenario),
        "scenario": scenario,
        "record": dataclasses.asdict(record),
        "related": dataclasses.asdict(related) if related else None,
        "turns": turns,
        "usage": {"requests": 3, "prompt_tokens": 30, "completion_tokens": 15},
    }


def make_run(
    folder: Path,
    *,
    dialogues: int = 40,
    scenarios: tuple[str, ...] = tuple(SPEAKERS),
    validation: float = 0.25,
    finished: bool = True,
    manifest: Mapping[str, Any] | None = None,
) -> RunFolder:
    """A run of `dialogues` dialogues over two sources; every analogy is between two further records."""
    records = [make_record(number, ("sums", "more_sums")[number % 2]) for number in range(2 * dialogues)]
    lines, counts = [], dict[str, dict[str, int]]()
    for number in range(dialogues):
        scenario, record = scenarios[number % len(scenarios)], records[number]
        related = records[dialogues + (number // 2)] if scenario == "analogical_reasoning" else None
        lines.append(make_dialogue(record, scenario, related))
        of_scenario = counts.setdefault(scenario, {})
        of_scenario[record.source] = of_scenario.get(record.source, 0) + 1
    recipe = Recipe.model_validate(
        {
            "name": "made-up",
            "sources": [{"source": "sample", "n": max(1, 2 * dialogues)}],
            "models": {alias: {"engine": "embedded", "model": model["model"]} for alias, model in MODELS.items()},
            "validation": validation,
        }
    )
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.write_records(records)
    run.recipe.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    text = "".join(dump(line) + "\n" for line in lines)
    file = run.dialogues_file if finished else run.dialogues_file.with_name("dialogues.jsonl.part")
    file.write_text(text, encoding="utf-8", newline="\n")
    facts = {"licence": "mit", "revision": "v1", "read": dialogues, "taken": dialogues, "bad": {"empty question": 1}}
    whole = {
        "name": recipe.name,
        "digest": digest(folder.name),
        "finished": finished,
        "versions": {"boost_qa": "0.1.0", "python": "3.11.7"},
        "models": MODELS,
        "prompts": {f"{scenario}/{role}": "0123456789abcdef" for scenario in scenarios for role in SPEAKERS[scenario]},
        "sources": [
            {"source": "sums", "where": "someone/sums", **facts},
            {"source": "more_sums", "where": "more_sums.jsonl", **facts, "licence": "Apache-2.0"},
        ],
        "recipe": recipe.model_dump(mode="json"),
    }
    if finished:
        whole |= {
            "dialogues": counts,
            "rejected": {"debate": {"truncated": 2}},
            "usage": {"requests": 120, "prompt_tokens": 1200, "completion_tokens": 600},
            "dialogues_digest": hashlib.sha256(text.encode()).hexdigest(),
        }
    run.write_manifest(whole | dict(manifest or {}))
    return run
