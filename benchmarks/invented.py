"""A finished run of any size, as generation leaves it, with replies of invented words: journal, dialogues, checks.

Words are drawn from 8,000 by Zipf's law, so that texts pack about as well as real ones. Some replies are truncated and
asked again, every fiftieth record is rejected. What checks saw is invented, too, in the form in which they write it.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from boost_qa.config import Recipe
from boost_qa.generate import generate
from boost_qa.run_folder import RunFolder, dump
from boost_qa.types import Call, Reply

WORDS, CORPUS, LENGTH = 8_000, 2_000_000, 130  # LENGTH: median words of a reply
MODELS = {"weak": "invented-0.5b", "middle": "invented-7b", "strong": "invented-14b"}
CHECKS: dict[str, Any] = {
    "answers": {
        "version": "1",
        "labels": {f"{who} {how}": f"the answer of the {who} is {how}" for who in ("final", "weak", "student")
                   for how in ("right", "wrong", "unknown")},
    },
    "roles": {
        "version": "1",
        "labels": {
            "speaks for another": "writes lines of other speakers",
            "breaks the frame": "speaks of itself as a model",
            "gives the result away": "a teacher says the result",
            "truncated": "ends in the middle",
        },
    },
}  # fmt: skip
DROP = "final wrong"


class Words:
    """Text without sense, in sentences."""

    def __init__(self, seed: int = 0) -> None:
        chance = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
        share = 1.0 / np.arange(2, 28)
        drawn = [chance.choice(letters, chance.integers(2, 11), p=share / share.sum()) for _ in range(WORDS)]
        ranks = chance.zipf(1.25, CORPUS) % WORDS
        ends = chance.random(CORPUS) < 0.07
        words = ["".join(letters) for letters in drawn]
        self.corpus = [words[rank] + ("." if end else "") for rank, end in zip(ranks, ends, strict=True)]

    def text(self, chance: Random, median: int) -> str:
        count = max(3, round(chance.lognormvariate(0, 0.6) * median))
        start = chance.randrange(CORPUS - count)
        return " ".join(self.corpus[start : start + count]).strip()


class Speaker:
    """An engine that answers at once."""

    revision = "sha256:invented"
    slots = 256

    def __init__(self, words: Words) -> None:
        self.words = words

    async def open(self) -> None:
        pass

    async def ask(self, call: Call) -> Reply:
        chance = Random(call.seed)
        text = self.words.text(chance, LENGTH)
        unusable = hash_of(call.record) % 50 == 0 or chance.random() < 0.03
        return Reply(text, "length" if unusable else "stop", len(call.body) // 4, len(text) // 4)

    async def close(self) -> None:
        pass


def hash_of(record: str) -> int:
    return int(record[-8:], 16)


def make_run(folder: Path, dialogues: int) -> RunFolder:
    """A run of so many records in two scenarios and two sources, checked."""
    words, chance = Words(), Random(0)
    sources = []
    for name in ("orca-like", "procqa-like"):
        file = folder.parent / f"{name}.jsonl"
        rows = ({"question": words.text(chance, 45), "answer": words.text(chance, 90), "final": str(number)}
                for number in range(dialogues // 2))  # fmt: skip
        file.write_text("".join(dump(row) + "\n" for row in rows), encoding="utf-8")
        columns = {"question": "question", "answer": "answer", "final": "final"}
        sources.append({"source": "columns", "name": name, "path": str(file), "licence": "cc0-1.0", **columns})
    models = {alias: {"engine": "embedded", "model": model} for alias, model in MODELS.items()}
    recipe = Recipe.model_validate(
        {"name": "invented", "sources": sources, "models": models, "scenarios": {"analogical_reasoning": None}}
    )
    run = generate(recipe, folder, engines={alias: Speaker(words) for alias in MODELS}, show=False)
    check(run, chance)
    return run


def check(run: RunFolder, chance: Random) -> None:
    """Write down what checks might have seen, and let those leave whose last answer is wrong."""
    kept: list[str] = []
    dropped: list[str] = []
    seen: list[str] = []
    for dialogue in run.dialogues():
        rows = list(_seen(dialogue, chance))
        why = [DROP] if any(row["label"] == DROP for row in rows) and chance.random() < 0.5 else []
        (dropped if why else kept).append(dump(dialogue) + "\n")
        line = {"id": dialogue["id"], "record": dialogue["record"]["id"], "scenario": dialogue["scenario"]}
        seen.append(dump(line | {"kept": not why, "why": why, "checks": rows}) + "\n")
    files = ((run.dialogues_file, kept), (run.path / "dropped.jsonl", dropped), (run.path / "checks.jsonl", seen))
    for path, lines in files:
        path.write_text("".join(lines), encoding="utf-8")
    (run.path / "checks.json").write_text(json.dumps({"checks": CHECKS}), encoding="utf-8")


def _seen(dialogue: dict[str, Any], chance: Random) -> Any:
    last = len(dialogue["turns"]) - 1
    for place, turn in enumerate(dialogue["turns"]):
        if turn["model"] is None:
            continue
        who = "final" if place == last else "weak" if turn["speaker"] == "weak_student" else "student"
        odds = (75, 12, 13) if who == "final" else (30, 55, 15)
        if turn["speaker"] != "teacher":
            how = chance.choices(("right", "wrong", "unknown"), odds)[0]
            yield {"check": "answers", "version": "1", "label": f"{who} {how}", "turn": place, "detail": "42 and 43"}
        for label in CHECKS["roles"]["labels"]:
            if chance.random() < 0.03:
                yield {"check": "roles", "version": "1", "label": label, "turn": place, "detail": turn["text"][:40]}
