"""What a study is: `recipes/study/NAME.yaml`, read and checked before anything is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from boost_qa.config import AnySource, Strict
from boost_qa.errors import RecipeError
from boost_qa.recipe_file import change, explained, find_yaml, read_mapping, recipe_folder

_NAME = re.compile(r"[a-z0-9][a-z0-9_+\-.]*")


class RunSettings(Strict):
    """One generation: a recipe and what is changed in it."""

    recipe: str = Field("demo", description="a recipe file, or the name of a packaged one")
    change: tuple[str, ...] = Field((), description="key=value, as for `boost-qa generate`")


class Training(Strict):
    """How every arm is trained."""

    recipe: str = Field(description="a recipe file, or the name of a packaged one, such as llama-3-8b/lora")
    change: tuple[str, ...] = Field((), description="key=value, as for `boost-qa plan`")


class Evaluation(Strict):
    """How every arm is evaluated; see `boost-qa evaluate`."""

    suite: Literal["paper", "quick"] | None = None
    tasks: tuple[str, ...] = Field((), description="in place of a suite")
    limit: int | None = Field(None, ge=1, description="items of each task; held-out questions are all asked")
    data: tuple[str, ...] = Field((), description="local files: a folder, or TASK=FILE")
    max_tokens: int = Field(1024, ge=1)
    batch_size: int = Field(8, ge=1)
    backend: Literal["hf", "vllm", "embedded"] = "hf"
    judge: str | None = None
    judge_url: str | None = None


class HeldOut(Strict):
    """Questions that no run has seen, with a known result; asked as the task `boost_questions`."""

    sources: tuple[AnySource, ...] = Field(min_length=1)
    n: int = Field(ge=1, description="questions of each source name and task, after those are left out that a run saw")
    seed: int = 0


class Arm(Strict):
    """One dataset to train on; without a run the base as it is."""

    run: str | None = Field(None, description="a key of `runs`")
    config: str = Field("all", description="config of the run's dataset")
    rows: int | None = Field(None, ge=1, description="only so many, drawn at random; smaller draws are parts of larger")
    change: tuple[str, ...] = Field((), description="key=value of the training, after those of `train`")


class Analogies(Strict):
    """Looks at the retrieved pairs of every run; see `boost-qa analogies`."""

    judge: str | None = None
    judge_url: str | None = None
    limit: int = Field(20, ge=1)


class Mechanism(Strict):
    """Looks into every adapter; see `boost-qa mechanism`."""

    limit: int = Field(64, ge=4)


class Assumed(Strict):
    """What the plan of the hours reckons with."""

    gpu: str = "h100"
    tokens: int = Field(600, ge=8, description="of a dialogue")
    reply: int = Field(415, ge=1, description="tokens of an answer; MASTER's mean on MMLU-Pro-Math (appendix E)")
    generated: float = Field(2000, gt=0, description="tokens a second that all models of a run write together")
    evaluated: float = Field(2000, gt=0, description="tokens a second that one GPU writes in an evaluation")
    questions: int = Field(10000, ge=1, description="that one evaluation asks")


class Study(Strict):
    """A whole study, of one scale."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$")
    scale: str = "full"
    question: str = Field(description="what it is to answer")
    sources: tuple[AnySource, ...] | None = Field(None, description="in place of those of the runs' recipes")
    runs: dict[str, RunSettings] = Field(min_length=1)
    train: Training | None = None
    evaluate: Evaluation = Evaluation()
    held_out: HeldOut | None = None
    arms: dict[str, Arm] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of training and of evaluation")
    against: str | None = Field(None, description="the arm that all others are compared with")
    compare: tuple[tuple[str, str], ...] = Field((), description="more pairs to compare, the second minus the first")
    headline: dict[str, str] = Field(
        default_factory=dict, description="metric of a task that conclusions are drawn from, by task"
    )
    check: bool = Field(False, description="look at the dialogues of every run; see `boost-qa check`")
    analogies: Analogies | None = None
    mechanism: Mechanism | None = None
    assumed: Assumed = Assumed()
    notes: str = Field("", description="what is to be kept in mind; part of the report")

    @model_validator(mode="after")
    def _complete(self) -> Study:
        for name in (*self.runs, *self.arms):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: small letters, digits, _ + - .")
        for name, arm in self.arms.items():
            if arm.run is not None and arm.run not in self.runs:
                raise ValueError(f"arms.{name}.run: {arm.run!r} is not in runs ({', '.join(self.runs)})")
        named = [self.against, *(one for pair in self.compare for one in pair)]
        for one in filter(None, named):
            if one not in self.arms:
                raise ValueError(f"against, compare: {one!r} is not in arms ({', '.join(self.arms)})")
        if self.arms and self.train is None:
            raise ValueError("train: is missing, and there are arms")
        if not self.arms and self.analogies is None:
            raise ValueError("arms: there are none, and nothing else to look at (analogies)")
        if self.arms and not (self.held_out or self.evaluate.tasks or self.evaluate.suite):
            raise ValueError("evaluate: nothing is asked; give a suite, tasks, or held_out")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: one stands there twice")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """Whom to compare, each pair once; the second minus the first."""
        first = [(self.against, name) for name in self.arms if self.against and name != self.against]
        return list(dict.fromkeys([*first, *self.compare]))

    def arm_seeds(self) -> list[tuple[str, int]]:
        """Every model that is evaluated, seed by seed; the base once, for training has no part in it."""
        return [
            (name, seed)
            for seed in self.seeds
            for name, arm in self.arms.items()
            if arm.run is not None or seed == self.seeds[0]
        ]


def find_study(path: str | Path) -> Path:
    """The file that `path` means: itself, or a packaged study of that name.

    Raises:
        RecipeError: there is neither.
    """
    return find_yaml(path, {file.stem: file for file in recipe_folder("study").glob("*.yaml")}, "study")


def read_study(path: str | Path, scale: str | None = None, overrides: Sequence[str] = ()) -> Study:
    """Read a study at one of its scales.

    A file holds the study, and under `scales` what each scale changes in it: mappings are joined key by key, null
    takes a key away, everything else is replaced.

    Args:
        scale: by default the first.
        overrides: key=value, applied last.

    Raises:
        RecipeError: naming file and key.
    """
    file = find_study(path)
    raw = read_mapping(file, "recipes/study/ablation.yaml")
    scales = raw.pop("scales", None) or {"full": {}}
    chosen = scale or next(iter(scales))
    if chosen not in scales:
        raise RecipeError(f"{file}: there is no scale {chosen!r}", f"It has: {', '.join(scales)}.")
    raw = _joined(raw, scales[chosen] or {}) | {"scale": chosen}
    for override in overrides:
        change(raw, override)
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        why = "; ".join(explained(error, Study))
        raise RecipeError(
            f"{file}, scale {chosen}: {why}", "Correct the study, or the key=value given with it."
        ) from None


def _joined(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(whole)
    for key, value in changes.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = _joined(found[key], value)
        else:
            found[key] = value
    return found
