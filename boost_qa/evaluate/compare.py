"""Two evaluations, item by item: is one model better than the other, and how sure is that?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from boost_qa.errors import RunError
from boost_qa.evaluate.intervals import Difference, difference
from boost_qa.evaluate.results import Scored, read

JUDGED = "acc_judge,none"
"""The metric that a judge decides about."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A metric of a task in two evaluations. `only_first` and `only_second` count items that the other did not ask."""

    task: str
    metric: str
    paired: Difference
    only_first: int
    only_second: int


def compare(first: str | Path, second: str | Path, level: float = 0.95) -> list[Compared]:
    """Paired differences, second minus first, of every metric that both have.

    Args:
        first, second: folders of `boost-qa evaluate`, or results files.

    Raises:
        RunError: one has no items, they have none in common, or their prompts or scoring differ.
    """
    (about, ours), (other, theirs) = read(first), read(second)
    for path, items in ((first, ours), (second, theirs)):
        if not items:
            raise RunError(f"{path} has no scores by item", "Evaluate it again with `boost-qa evaluate`.")
    found = []
    for task in about.get("versions", {}).keys() & other.get("versions", {}).keys():
        if differing := [name for name, one in _asked(about, task).items() if one != _asked(other, task)[name]]:
            what = f"{task} was not asked alike in {first} and {second}: {', '.join(differing)} differ"
            raise RunError(what, "Evaluate both with the same settings and versions.")
        first_scores, second_scores = _by_metric(ours, task), _by_metric(theirs, task)
        if JUDGED in first_scores.keys() & second_scores.keys() and about.get("judge") != other.get("judge"):
            what = f"{task} was judged by another judge, or otherwise, in {first} than in {second}"
            raise RunError(what, "Evaluate both with the same --judge.")
        found += _of_task(task, first_scores, second_scores, level)
    if not found:
        raise RunError(f"{first} and {second} have no item of a task in common", "Evaluate both on the same tasks.")
    return sorted(found, key=lambda one: (one.task, one.metric))


def shown(found: Sequence[Compared]) -> Table:
    """The differences as a table, in percentage points."""
    table = Table(title="second minus first, in points, by the same items; 95 % intervals")
    for name in ("task", "metric", "first", "second", "difference", "interval", "gained", "lost", "items", "p"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for one in found:
        paired, without = one.paired, one.only_first + one.only_second
        table.add_row(
            one.task, one.metric.removesuffix(",none"), f"{100 * paired.first:.1f}", f"{100 * paired.second:.1f}",
            f"{100 * paired.difference:+.1f}", f"{100 * paired.low:+.1f} to {100 * paired.high:+.1f}",
            str(paired.gained), str(paired.lost), f"{paired.n:,}" + (f" ({without:,} unpaired)" if without else ""),
            f"{paired.p:.3g}",
        )  # fmt: skip
    table.caption = "p: McNemar's exact test. Of twenty comparisons of equal models up to one is below 0.05 by chance."
    return table


def _asked(results: dict[str, Any], task: str) -> dict[str, Any]:
    """What two evaluations of a task must have in common."""
    config = results.get("configs", {}).get(task) or {}
    names = ("description", "doc_to_text", "generation_kwargs", "num_fewshot")
    return {"version": results["versions"][task], **{name: config.get(name) for name in names}}


def _by_metric(items: Sequence[Scored], task: str) -> dict[str, dict[str, float]]:
    """Scores by metric and item; an item that stands in a task twice is told apart by its order."""
    found: dict[str, dict[str, float]] = {}
    for one in items:
        if one.task == task:
            for metric, score in one.scores.items():
                of_metric, key = found.setdefault(metric, {}), one.item
                while key in of_metric:
                    key += "+"
                of_metric[key] = score
    return found


def _of_task(
    task: str, first: dict[str, dict[str, float]], second: dict[str, dict[str, float]], level: float
) -> list[Compared]:
    found = []
    for metric in first:
        ours, theirs = first[metric], second.get(metric, {})
        both = [item for item in ours if item in theirs]
        if both:
            paired = difference([ours[item] for item in both], [theirs[item] for item in both], level)
            found.append(Compared(task, metric, paired, len(ours) - len(both), len(theirs) - len(both)))
    return found
