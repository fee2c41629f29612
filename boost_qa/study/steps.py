"""The commands that a study consists of. Each is one that a user could give, and each goes on where it was stopped.

STUDY/
  study.yaml                the study as it was resolved
  runs/RUN/                 a run folder for each generation
  held_out.jsonl            questions that no run has seen
  arms/ARM/seed-SEED/       an adapter folder, with evaluation/held_out and evaluation/benchmarks in it
  steps/                    what each command was, how long it took, and what it printed
  results.json              figures and differences
  report.md, report.html, figures/
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from boost_qa import models
from boost_qa.derived import TAGCOS
from boost_qa.errors import RecipeError
from boost_qa.models.trainable import revision
from boost_qa.plan import plan
from boost_qa.study.settings import Arm, Study
from boost_qa.types import digest

if TYPE_CHECKING:
    from boost_qa.train.settings import Settings

HELD_OUT = "boost_questions"
"""The task that asks the questions of `held_out.jsonl`."""

Kind = Literal["generate", "coreset", "check", "analogies", "train", "evaluate", "mechanism"]


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: unique in the study; also that of its log.
        depends: a digest of what decides what comes of it, which is less than the command: not where the study is,
            not where a server is, nor how many questions are asked at once.
    """

    name: str
    kind: Kind
    command: tuple[str, ...]
    depends: str


@dataclass(frozen=True)
class Places:
    """Where things are in the folder of a study."""

    folder: Path

    @property
    def held_out(self) -> Path:
        return self.folder / "held_out.jsonl"

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def step(self, step: Step, suffix: str) -> Path:
        """What is kept of a command: `.json` when it ended well, and `.log`."""
        return self.folder / "steps" / (re.sub(r"[^a-z0-9_+.\-]+", "-", step.name) + suffix)

    def arm(self, name: str, seed: int) -> Path:
        return self.folder / "arms" / name / f"seed-{seed}"

    def evaluation(self, name: str, seed: int) -> Path:
        return self.arm(name, seed) / "evaluation"

    def mechanism(self, name: str, seed: int) -> Path:
        return self.arm(name, seed) / "mechanism" / "mechanism.json"


def generations(study: Study, places: Places) -> list[list[Step]]:
    """For each run its steps, one after the other.

    Raises:
        RecipeError: a recipe, or a change to it, does not parse.
    """
    return [list(_generation(study, places, name)) for name in study.runs]


def trainings(study: Study, places: Places) -> list[list[Step]]:
    """For each arm and seed its steps, one after the other; chains do not depend on each other.

    Raises:
        RecipeError: how an arm is trained does not parse, or its base is none for the backend of the evaluation.
    """
    if study.evaluate.backend == "embedded":
        for name, arm in study.arms.items():
            base = _base(study, arm)
            if models.base(base) is None and revision(base) is None and not base.endswith(".gguf"):
                raise RecipeError(
                    f"evaluate.backend: embedded, and the base of the arm {name} is {base}, no GGUF model",
                    "Take the backend hf or vllm, or a model of `boost-qa models`.",
                )
    return [list(_training(study, places, name, seed)) for name, seed in study.arm_seeds()]


def changes_of(study: Study, run: str) -> tuple[str, ...]:
    """What is changed in the recipe of a run."""
    change = study.runs[run].change
    if study.sources is None:
        return change
    sources = [source.model_dump(mode="json", exclude_unset=True) for source in study.sources]
    return (f"sources={json.dumps(sources)}", *change)


def _made(study: Study, run: str) -> str:
    """What decides the rows of a run's dataset, splits included."""
    planned = plan(study.runs[run].recipe, changes_of(study, run))
    return digest(planned.digest, str(planned.recipe.validation))


def _generation(study: Study, places: Places, name: str) -> Iterator[Step]:
    recipe, changes, folder = study.runs[name].recipe, changes_of(study, name), places.run(name)
    made = _made(study, name)
    command = _boost_qa("generate", recipe, *changes, "--output", str(folder))
    yield Step(f"generate {name}", "generate", command, made)
    if any(arm.run == name and arm.config == TAGCOS for arm in study.arms.values()):
        model = str(training_settings(study, Arm()).model.model_name_or_path)
        command = _boost_qa("coreset", str(folder), "--model", model)
        yield Step(f"coreset {name}", "coreset", command, digest(made, model))
    if study.check:
        yield Step(f"check {name}", "check", _boost_qa("check", str(folder)), made)
    if study.analogies:
        asked = study.analogies
        judge = _flags(judge=asked.judge, judge_url=asked.judge_url, limit=asked.limit)
        command = _boost_qa("analogies", str(folder), *judge, "--output", str(folder / "analogies"))
        yield Step(f"analogies {name}", "analogies", command, digest(made, str(asked.judge), str(asked.limit)))


def _training(study: Study, places: Places, name: str, seed: int) -> Iterator[Step]:
    arm, folder = study.arms[name], places.arm(name, seed)
    if arm.run is None:
        base = _base(study, arm)
        whose, depends = _flags(base=base), base
    else:
        made = _made(study, arm.run)
        material = json.dumps([training_settings(study, arm).material(), arm.config, arm.rows, seed])
        whose, depends = _flags(adapter=str(folder)), digest(made, material)
        yield Step(f"train {name}, seed {seed}", "train", _train(study, places, arm, folder, seed), depends)
    for what, words in _evaluations(study, places, seed):
        output = ("--output", str(places.evaluation(name, seed) / what))
        command = _boost_qa("evaluate", *whose, *words, *output)
        asked = digest(depends, _asked(study, what), str(seed))
        yield Step(f"evaluate {name}, seed {seed}, {what}", "evaluate", command, asked)
    if study.mechanism and arm.run is not None:
        held = ("--held-out", str(places.held_out)) if study.held_out else ()
        where = _flags(dataset=str(places.run(arm.run)), dataset_config=arm.config, limit=study.mechanism.limit)
        output = ("--output", str(places.mechanism(name, seed)))
        command = _boost_qa("mechanism", str(folder), *where, *held, "--seed", str(seed), *output)
        depends = digest(depends, str(study.mechanism.limit))
        yield Step(f"mechanism {name}, seed {seed}", "mechanism", command, depends)


def training_changes(study: Study, arm: Arm) -> list[tuple[str, str]]:
    """Keys and values that an arm's training is changed by."""
    assert study.train is not None
    pairs = (each.partition("=") for each in (*study.train.change, *arm.change))
    return [(key, value) for key, _, value in pairs]


def _train(study: Study, places: Places, arm: Arm, folder: Path, seed: int) -> tuple[str, ...]:
    assert study.train is not None and arm.run is not None
    data = {"dataset": str(places.run(arm.run)), "dataset_config": arm.config}
    data |= {} if arm.rows is None else {"dataset_rows": str(arm.rows)}
    own = {"output_dir": str(folder), "seed": str(seed)}
    words = [("config", study.train.recipe), *training_changes(study, arm), *data.items(), *own.items()]
    return (sys.executable, "-m", "boost_qa.train", *(word for key, value in words for word in (f"--{key}", value)))


def _evaluations(study: Study, places: Places, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Benchmarks, and the held-out questions: their folders, and what `boost-qa evaluate` is told."""
    asked = study.evaluate
    common = _flags(
        max_tokens=asked.max_tokens, batch_size=asked.batch_size, backend=asked.backend,
        judge=asked.judge, judge_url=asked.judge_url, seed=seed,
    )  # fmt: skip
    if study.held_out:
        yield "held_out", ["--tasks", HELD_OUT, "--data", f"{HELD_OUT}={places.held_out}", *common]
    if asked.tasks or asked.suite:
        which = ["--tasks", ",".join(asked.tasks)] if asked.tasks else _flags(suite=asked.suite)
        which += _flags(limit=asked.limit)
        yield "benchmarks", [*which, *(word for one in asked.data for word in ("--data", one)), *common]


def _base(study: Study, arm: Arm) -> str:
    """The model that an arm begins with, as `boost-qa evaluate --base` reads it."""
    model = training_settings(study, arm).model
    revision = model.model_revision
    return f"{model.model_name_or_path}@{revision}" if revision not in (None, "main") else str(model.model_name_or_path)


def _asked(study: Study, what: str) -> str:
    """Of the settings of an evaluation those that decide what comes of it."""
    others = {"batch_size", "judge_url"} | ({"suite", "tasks", "data", "limit"} if what == "held_out" else set())
    return study.evaluate.model_dump_json(exclude=others)


def training_settings(study: Study, arm: Arm) -> Settings:
    """How an arm is trained, apart from its data and seed.

    Raises:
        RecipeError: the recipe, or a change to it, does not parse.
    """
    from boost_qa.train.settings import read_settings

    assert study.train is not None
    changes = [word for key, value in training_changes(study, arm) for word in (f"--{key}", value)]
    return read_settings(["--config", study.train.recipe, *changes], plan_only=True)


def _boost_qa(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "boost_qa.cli", *words)


def _flags(**given: object) -> list[str]:
    """`--key value` of each that is given."""
    named: Sequence[tuple[str, object]] = [(key.replace("_", "-"), value) for key, value in given.items()]
    return [word for key, value in named if value is not None for word in (f"--{key}", str(value))]
