"""What became of a study: what each arm was, its figures over questions and seeds, and the differences between arms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from boost_qa.errors import RecipeError
from boost_qa.evaluate.benchmark import benchmarks, read_questions
from boost_qa.evaluate.intervals import difference_over_seeds, holm, over_seeds
from boost_qa.evaluate.results import Scored, read
from boost_qa.portable import portable_study, portable_value
from boost_qa.run_folder import RunFolder
from boost_qa.study.held_out import commonest, kinds
from boost_qa.study.settings import Study
from boost_qa.study.steps import HELD_OUT, Places, generations, trainings

Scores = dict[tuple[str, str], dict[str, float]]
"""Of one model: scores by (task, metric), then by item."""

FIRST = {"choice": "acc_bracket", "math": "acc", "code": "pass_at_1"}
"""Metric of a task that is taken for the headline where the study names none: the paper's own."""


def gather(study: Study, folder: Path) -> dict[str, Any]:
    """All figures of a study whose steps are done, or of those that are.

    `figures` has a row for each arm, task and metric; `kinds` one for each arm and kind of held-out question, in the
    headline metric; `commonest` is what a model would have right that gives each kind its most frequent result;
    `differences` one for each compared pair, task and headline metric, with p adjusted for how many there are (Holm).
    """
    places = Places(folder)
    parts = {one: list(_evaluations(places.evaluation(*one))) for one in study.arm_seeds()}
    models = {one: _scores(each) for one, each in parts.items()}
    arms = {name: [models[one] for one in models if one[0] == name and models[one]] for name in study.arms}
    headline = _headline(study, [results for each in parts.values() for results, _ in each])
    differences = list(_differences(study, arms, headline))
    for row, p in zip(differences, holm([row["p"] for row in differences]), strict=True):
        row["p_adjusted"] = p
    found = {
        "study": portable_study(study.model_dump(mode="json", exclude_defaults=True)),
        "unfinished": unfinished(study, folder),
        "left_out": dict(
            pair for each in parts.values() for results, _ in each for pair in results.get("left_out", {}).items()
        ),
        "runs": {name: _run(RunFolder(places.run(name))) for name in study.runs},
        "arms": {name: _arm(study, places, name) for name in study.arms},
        "headline": headline,
        "figures": list(_figures(arms)),
        "kinds": list(_by_kind(places.held_out, arms, headline)) if places.held_out.is_file() else [],
        "commonest": commonest(places.held_out) if places.held_out.is_file() else {},
        "differences": differences,
        "mechanism": {
            f"{name}, seed {seed}": json.loads(file.read_text(encoding="utf-8"))
            for name, seed in study.arm_seeds()
            if (file := places.mechanism(name, seed)).is_file()
        },
        "checks": {
            name: json.loads(file.read_text(encoding="utf-8"))
            for name in study.runs
            if (file := RunFolder(places.run(name)).checks_summary_file).is_file()
        },
        "analogies": {
            name: json.loads(file.read_text(encoding="utf-8"))
            for name in study.runs
            if (file := places.run(name) / "analogies" / "analogies.json").is_file()
        },
        "steps": {
            file.stem: json.loads(file.read_text(encoding="utf-8"))["seconds"]
            for file in sorted((folder / "steps").glob("*.json"))
        },
    }
    return dict(portable_value(found))


def unfinished(study: Study, folder: Path) -> list[str]:
    """The names of the steps that have not been run to their end."""
    places = Places(folder)
    steps = [step for chain in (*generations(study, places), *trainings(study, places)) for step in chain]
    return [step.name for step in steps if not places.step(step, ".json").is_file()]


def matrix(models: Sequence[Scores], key: tuple[str, str], items: Sequence[str]) -> np.ndarray:
    """Scores as [seeds, items]."""
    return np.array([[model[key][item] for item in items] for model in models])


def common(models: Sequence[Scores], key: tuple[str, str]) -> list[str]:
    """The items that all of these models have a score for."""
    return sorted(set.intersection(*(set(model[key]) for model in models))) if models else []


def _evaluations(folder: Path) -> Iterator[tuple[dict[str, Any], Sequence[Scored]]]:
    """Those of one model that are done: results, and scores by item."""
    for part in sorted(folder.glob("*/")):
        if any(part.glob("results_*.json")):
            yield read(part)


def _scores(evaluations: Sequence[tuple[dict[str, Any], Sequence[Scored]]]) -> Scores:
    found: Scores = {}
    for _, items in evaluations:
        for one in items:
            for metric, score in one.scores.items():
                found.setdefault((one.task, metric.removesuffix(",none")), {})[one.item] = score
    return found


def _headline(study: Study, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The metric of each task that differences are about: as the study says, else the paper's, else the first.

    Where our own tasks are asked, those of the harness for the same benchmarks are figures alone, unless the study
    names them: each would be counted twice, and MMLU by its 57 subjects.

    Raises:
        RecipeError: the study names a metric that a task does not have.
    """
    ours, all_of_them = dict[str, str](), dict[str, str]()
    for results in evaluations:
        for task, config in results["configs"].items():
            named = (name for name in results["results"].get(task, {}) if "," in name and "_stderr" not in name)
            there = [name.removesuffix(",none") for name in named]
            kind = str((config.get("metadata") or {}).get("kind"))
            if kind in FIRST or task in study.evaluate.tasks:
                ours.setdefault(task, FIRST.get(kind) or there[0])
            all_of_them.setdefault(task, FIRST.get(kind) or there[0])
            if study.headline.get(task, there[0]) not in there:
                what = f"headline: {task} has no metric {study.headline[task]!r}"
                raise RecipeError(what, f"It has: {', '.join(there)}.")
    return (ours or all_of_them) | study.headline


def _figures(arms: Mapping[str, Sequence[Scores]]) -> Iterator[dict[str, Any]]:
    """Over the seeds that have a figure each."""
    for name, models in arms.items():
        for key in dict.fromkeys(key for model in models for key in model):
            having = [model for model in models if key in model]
            if items := common(having, key):
                found = asdict(over_seeds(matrix(having, key, items)))
                del found["p"]
                yield {"arm": name, "task": key[0], "metric": key[1], **found}


def _by_kind(
    held_out: Path, arms: Mapping[str, Sequence[Scores]], headline: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    kind, key = kinds(held_out), (HELD_OUT, headline.get(HELD_OUT, ""))
    asked = read_questions(HELD_OUT, benchmarks()[HELD_OUT], [held_out]).items
    for name, models in arms.items():
        having = [model for model in models if key in model]
        for one in dict.fromkeys(kind.values()):
            theirs = {item.id for item in asked if kind.get(item.question) == one}
            if items := [item for item in common(having, key) if item in theirs]:
                found = asdict(over_seeds(matrix(having, key, items)))
                del found["p"]
                yield {"arm": name, "kind": one, **found}


def _differences(
    study: Study, arms: Mapping[str, Sequence[Scores]], headline: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for first, second in study.pairs():
        for key in headline.items():
            a, b = ([model for model in arms[name] if key in model] for name in (first, second))
            if a and b and (items := common([*a, *b], key)):
                found = asdict(difference_over_seeds(matrix(a, key, items), matrix(b, key, items)))
                lone = any(len(of) == 1 and study.arms[name].run for name, of in ((first, a), (second, b)))
                told = {"trained": found["trained"] and not lone, "seeds": [len(a), len(b)]}
                yield {"first": first, "second": second, "task": key[0], "metric": key[1], **found, **told}


def _run(run: RunFolder) -> dict[str, Any] | None:
    """What a generation gave."""
    if not run.begun:
        return None
    manifest = run.manifest()
    names = ("name", "digest", "finished", "models", "dialogues", "rejected", "usage")
    return {name: manifest[name] for name in names if name in manifest}


def _arm(study: Study, places: Places, name: str) -> dict[str, Any]:
    """What an arm was trained on, and how that went, by seed."""
    arm = study.arms[name]
    what: dict[str, Any] = arm.model_dump(mode="json", exclude_defaults=True)
    trained = {}
    for _, seed in (one for one in study.arm_seeds() if one[0] == name):
        file = places.arm(name, seed) / "run.json"
        if file.is_file():
            report = json.loads(file.read_text(encoding="utf-8"))
            if report["finished"]:
                trained[seed] = _trained(report)
    return {**what, "trained": trained}


def _trained(report: Mapping[str, Any]) -> dict[str, Any]:
    counts = report["plan"]["counts"]
    losses = [entry["loss"] for entry in report["losses"] if "loss" in entry]
    return {
        **{key: counts[key] for key in ("dialogues", "tokens", "supervised", "steps", "epochs")},
        "last_loss": losses[-1] if losses else None,
        "seconds": report["measured"]["seconds"],
    }
