"""Questions that no run has seen, written where `boost-qa evaluate` reads them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boost_qa import sources
from boost_qa.checks.results.extract import final
from boost_qa.checks.words import END, tokens
from boost_qa.errors import RunError, SourceError
from boost_qa.run_folder import RunFolder, dump, write_whole
from boost_qa.study.settings import HeldOut
from boost_qa.types import Record, digest


def hold_out(settings: HeldOut, runs: Sequence[RunFolder], target: Path) -> None:
    """Draw the questions and write one line for each.

    Whatever any run has among its records is left out, also where only punctuation or case differ; so are questions
    whose result is not known: the source says it, or its reference answer ends in it.

    Args:
        runs: finished generations.

    Raises:
        SourceError: a source cannot be read, or too few of its questions are left.
    """
    seen = _seen(runs)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in sources.read(settings.sources, settings.seed).records:
        group = groups[_kind(record.source, record.source_id)]
        if _words(record.question) not in seen:
            group.append(record)
    chosen: list[Record] = []
    for name, records in groups.items():
        known = [one for record in records if (one := _with_result(record)).final]
        if len(known) < settings.n:
            raise SourceError(
                f"held_out: {name} has {len(known)} questions with a result that no run has seen; wanted: {settings.n}",
                "Give it more records (n of its source), or a lower held_out.n.",
            )
        chosen += sorted(known, key=lambda record: digest(str(settings.seed), record.id))[: settings.n]
    write_whole(target, "".join(dump(_row(record)) + "\n" for record in chosen))


def _with_result(record: Record) -> Record:
    """The record with the one number that its reference answer comes to, where the source does not say it."""
    found = () if record.final else final(record.answer, record.question).results
    return replace(record, final=found[0].math) if len(found) == 1 and found[0].math else record


def check_unseen(held_out: Path, runs: Sequence[RunFolder]) -> None:
    """Make sure that no run has a held-out question; one that was added later may.

    Raises:
        RunError: naming the run and how many it has.
    """
    with held_out.open(encoding="utf-8") as lines:
        held = {_words(json.loads(line)["question"]) for line in lines}
    for run in runs:
        if both := held & _seen([run]):
            what = f"{len(both)} of the questions in {held_out} are in the run in {run.path}"
            raise RunError(what, "Give the study another --output, so that others are drawn.")


def _seen(runs: Sequence[RunFolder]) -> set[tuple[str, ...]]:
    return {_words(record.question) for run in runs for record in run.records()}


def _row(record: Record) -> dict[str, Any]:
    """As `boost-qa evaluate` reads it, and as a dialogue of two turns."""
    turns = (("user", record.question), ("assistant", record.answer))
    fields = ("id", "source", "source_id", "question", "answer", "final")
    return {
        **{name: getattr(record, name) for name in fields},
        "messages": [{"role": role, "content": text} for role, text in turns],
    }


def kinds(held_out: Path) -> dict[str, str]:
    """What kind of question each is, by its text."""
    with held_out.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["question"]: _kind(row["source"], row["source_id"]) for row in rows}


def commonest(held_out: Path) -> dict[str, float]:
    """By kind: the share of questions that the most frequent result is right for, whatever is asked."""
    results: dict[str, Counter[str]] = defaultdict(Counter)
    with held_out.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            results[_kind(row["source"], row["source_id"])][str(row["final"])] += 1
    return {kind: counts.most_common(1)[0][1] / counts.total() for kind, counts in results.items()}


def _kind(source: str, source_id: str) -> str:
    """The source, and of reasoning-gym, whose tasks are as unlike as sources, the task."""
    return source + (f" {source_id.partition(':')[0]}" if source == "reasoning_gym" else "")


def _words(text: str) -> tuple[str, ...]:
    return tuple(token for token in tokens(text) if token != END)
