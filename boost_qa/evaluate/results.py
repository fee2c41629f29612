"""Files of an evaluation: `results_<time>.json`, as the harness writes it, and the scores behind it by item.

    results_<time>.json    what lm-evaluation-harness writes, and besides: `intervals` (95 %, by task and metric),
                           `chance` (by task), `left_out` (why, by task), `judge` where there is one
    items_<time>.jsonl     one line for each item of each task: `task`, `item`, `scores`, `reply`

`boost_qa.cards` reads the first, and publishing takes it along; the second is what comparisons are made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from boost_qa.errors import RunError
from boost_qa.evaluate.intervals import Figure, figure
from boost_qa.run_folder import dump, write_whole

_JOINED = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


@dataclass(frozen=True, slots=True)
class Scored:
    """An item of a task: its scores by `metric,filter`, and the model's reply where there is one."""

    task: str
    item: str
    scores: dict[str, float]
    reply: str | None


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of several runs of the harness over different tasks as one, without the samples."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in _JOINED:
                whole[key] = {**whole.get(key, {}), **value}
            elif key != "samples":
                whole.setdefault(key, value)
    return whole


def scored(parts: Iterable[Mapping[str, Any]]) -> Iterator[Scored]:
    """The items of the harness's samples, whose filters are samples of their own; scores that are no numbers are
    left out."""
    for part in parts:
        for task, samples in part.get("samples", {}).items():
            items: dict[str, Scored] = {}
            for sample in samples:
                id = sample["doc"].get("id") if _ours(part, task) else sample["doc_hash"][:16]
                place = f"{sample['doc_id']}" if not _ours(part, task) else ""
                one = items.setdefault(f"{id}{place}", Scored(task, str(id), {}, _reply(sample)))
                for metric in sample["metrics"]:
                    if isinstance(sample[metric], int | float):
                        one.scores[f"{metric},{sample['filter']}"] = float(sample[metric])
            yield from items.values()


def figures(items: Iterable[Scored]) -> dict[str, dict[str, Figure]]:
    """The mean of each metric of each task, with its interval."""
    columns: dict[str, dict[str, list[float]]] = {}
    for one in items:
        for metric, score in one.scores.items():
            columns.setdefault(one.task, {}).setdefault(metric, []).append(score)
    return {task: {name: figure(scores) for name, scores in each.items()} for task, each in columns.items()}


def write(folder: Path, results: Mapping[str, Any], items: Sequence[Scored], also: Mapping[str, Any]) -> Path:
    """Write both files; gives the path of the first. `also` is put into it under its own keys."""
    from lm_eval.utils import handle_non_serializable

    time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    intervals = {
        task: {metric: [one.low, one.high] for metric, one in each.items()} for task, each in figures(items).items()
    }
    content = {**results, "intervals": intervals, **also}
    lines = (dump({"task": one.task, "item": one.item, "scores": one.scores, "reply": one.reply}) for one in items)
    write_whole(folder / f"items_{time}.jsonl", "".join(line + "\n" for line in lines))
    path = folder / f"results_{time}.json"
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, default=handle_non_serializable) + "\n")
    return path


def read(path: str | Path) -> tuple[dict[str, Any], list[Scored]]:
    """Results and items of a results file, or of the newest one in a folder.

    Raises:
        RunError: there is none, or a file of it cannot be read.
    """
    given = Path(path).expanduser()
    found = sorted(given.glob("results_*.json"))[-1:] if given.is_dir() else [given]
    if not found or not found[0].is_file():
        raise RunError(f"{path} holds no results", _REMEDY)
    items = found[0].with_name(found[0].name.replace("results_", "items_")).with_suffix(".jsonl")
    try:
        # not splitlines: replies may hold U+2028 and its like, which are ends of lines to it
        lines = items.read_text(encoding="utf-8").split("\n")[:-1] if items.is_file() else []
        return dict(json.loads(found[0].read_text(encoding="utf-8"))), [Scored(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{found[0]} or its items cannot be read: {error}", _REMEDY) from error


def shown(results: Mapping[str, Any], items: Iterable[Scored]) -> Table:
    """The figures as a table: percentages with standard error, interval and number of items."""
    table = Table(title="read a figure against chance and the unparsed rates; 95 % intervals", min_width=100)
    for name in ("task", "metric", "%", "± s.e.", "interval", "items", "chance"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for task, metrics in figures(items).items():
        chance = results.get("chance", {}).get(task)
        for place, (metric, one) in enumerate(metrics.items()):
            name, _, filter = metric.partition(",")
            guess = f"{100 * chance:.1f}" if chance is not None and name.startswith("acc") else ""
            table.add_row(
                "" if place else task, name if filter == "none" else metric, f"{100 * one.mean:.1f}",
                "-" if one.stderr is None else f"{100 * one.stderr:.1f}",
                f"{100 * one.low:.1f} to {100 * one.high:.1f}", f"{one.n:,}", guess,
            )  # fmt: skip
    left_out = [f"left out: {why}" for why in results.get("left_out", {}).values()]
    table.caption = "\n".join(left_out) or None
    return table


def _ours(part: Mapping[str, Any], task: str) -> bool:
    return "paper" in (part["configs"][task].get("metadata") or {})


def _reply(sample: Mapping[str, Any]) -> str | None:
    first = sample["filtered_resps"][0] if sample["filtered_resps"] else None
    return first if isinstance(first, str) else None


_REMEDY = "Give a folder that `boost-qa evaluate` wrote, or a results_*.json with its items_*.jsonl beside it."
