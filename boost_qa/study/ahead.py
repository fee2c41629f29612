"""What a study will need after hours of generation and training, looked for before the first of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import get_args

from boost_qa import models
from boost_qa.config import ScenarioName
from boost_qa.contents import ALL, STAR
from boost_qa.derived import DERIVED
from boost_qa.errors import ModelError, RecipeError
from boost_qa.evaluate.asking import LocalData
from boost_qa.evaluate.benchmark import benchmarks
from boost_qa.study.settings import Study
from boost_qa.study.steps import HELD_OUT
from boost_qa.types import ORIGINAL

CONFIGS = (ALL, *get_args(ScenarioName), STAR, ORIGINAL, *DERIVED)


def look_ahead(study: Study) -> None:
    """Make sure that there are the datasets, tasks, files, judge, packages and the isolation which a study names.

    Raises:
        RecipeError: naming the key.
        ModelError: a package, a judge or the isolation of code is missing.
    """
    for name, arm in study.arms.items():
        if arm.run is not None and arm.config not in CONFIGS:
            raise RecipeError(f"arms.{name}.config: there is no {arm.config!r}", _nearest(arm.config, CONFIGS))
    _evaluation(study)


def _evaluation(study: Study) -> None:
    known, settings = benchmarks(), study.evaluate
    LocalData(settings.data)
    of_suite = (name for name, one in known.items() if settings.suite in one.suites)
    asked = [*(settings.tasks or of_suite), *([HELD_OUT] if study.held_out else [])]
    if unknown := [name for name in settings.tasks if name.startswith("boost_") and name not in known]:
        raise RecipeError(f"evaluate.tasks: there is no {unknown[0]!r}", _nearest(unknown[0], known))
    if not settings.suite and (strangers := [name for name in study.headline if name not in asked]):
        raise RecipeError(f"headline: {strangers[0]!r} is not asked", f"Asked are {', '.join(asked)}.")
    if study.arms and settings.backend == "vllm" and find_spec("vllm") is None:
        raise ModelError("evaluate.backend: vllm is not installed", "pip install vllm, or set evaluate.backend=hf.")
    if settings.judge is not None and settings.judge_url is None:
        models.expect(settings.judge)
    if any(known[name].kind == "code" for name in asked if name in known):
        from boost_qa.isolation import Isolation

        Isolation.find()  # an evaluation leaves code out where there is none, and the study would take that for done


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"The nearest are {', '.join(near)}." if near else f"There are {', '.join(names)}."
