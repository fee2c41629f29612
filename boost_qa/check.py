"""The checks of any run, afterwards: what they see in its dialogues. The dialogues stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from boost_qa.bookkeeping import Found, Played, dialogue
from boost_qa.config import Checks, Recipe
from boost_qa.engines import Engine
from boost_qa.errors import RecipeError, RunError
from boost_qa.generate import engines_for
from boost_qa.inspection import MODULES, inspection, with_checks
from boost_qa.journal import Journal
from boost_qa.ledger import earlier, funnel, ledger, write_summary
from boost_qa.plan import plan
from boost_qa.progress import Progress
from boost_qa.recipe_file import load_recipe
from boost_qa.run_folder import RunFolder
from boost_qa.runner import Job, Stats, run
from boost_qa.teach import in_order
from boost_qa.types import Dialogue


def check(
    folder: RunFolder, *, only: Sequence[str] = (), overrides: Sequence[str] = (), show: bool = True
) -> dict[str, Any]:
    """Make the checks of a finished run, and write `checks.jsonl`, `overlaps.jsonl` and `checks.json` into it.

    What was asked before is taken from the run's `checks.sqlite`, so a check that was stopped goes on.

    Args:
        only: the checks to make, beside what others saw before; by default all that the settings have.
        overrides: `key=value` changes to the settings, such as `duplicates.threshold=0.7`. They begin as the run's
            recipe has them, or at their defaults.

    Returns:
        what `checks.json` holds.

    Raises:
        RunError: if the folder is no finished run, or its own checks made dialogues leave already.
        RecipeError, SourceError, ModelError: before anything was looked at.
        EngineError, JournalError: what was asked is kept.
    """
    manifest = folder.manifest()
    if not folder.finished:
        raise RunError(f"the run in {folder.path} is not finished", "Run `boost-qa generate` again to finish it.")
    if folder.dropped_file.exists():
        what = f"{folder.path} was checked while it was made, and its checks.jsonl knows what left"
        remedy = "Look at it: boost-qa report. Other settings: generate --replay this folder into another --output."
        raise RunError(what, remedy)
    recipe = _recipe(folder, only, overrides)
    casts = with_checks(plan(recipe.model_copy(update={"checks": None})).casts, recipe)
    looking = inspection(recipe, casts)
    with folder.lock(), Progress(show) as progress:
        dialogues = [dialogue(line) for line in folder.dialogues()]
        judges = {agent.model for agent in recipe.checks.agents().values()} if recipe.checks else set()
        engines: dict[str, Engine] = dict(looking.engines)
        engines |= {recipe.model_name(alias): engine for alias, engine in engines_for(recipe, judges, progress).items()}
        jobs = [
            Job(each.record.id, each.scenario, partial(_asked, looking.ask, each), 4, "check") for each in dialogues
        ]
        stats, in_flight = Stats(), recipe.runner.in_flight
        before = earlier(folder, looking.settings.made()) if only else None
        with Journal(folder.path / "checks.sqlite") as journal, ledger(folder, looking, before) as entries:
            finished = run(jobs, engines, journal, in_flight=in_flight, seed=recipe.seed, stats=stats)
            with closing(finished):
                for end in in_order(jobs, progress.follow(finished, jobs, stats)):
                    assert end.result is not None  # checks reject nothing
                    entries.enter(end.result, leaves=False)
            records = len(dialogues) + sum(sum(reasons.values()) for reasons in manifest["rejected"].values())
            summary = entries.summary(funnel(manifest, records, len(dialogues), len(dialogues)))
        write_summary(folder, summary)
    return summary


def _recipe(folder: RunFolder, only: Sequence[str], overrides: Sequence[str]) -> Recipe:
    """The run's recipe with the settings of the checks that are to be made."""
    recipe = load_recipe(folder.recipe, [f"checks.{change}" for change in overrides])
    settings = recipe.checks or Checks()
    for name in only:
        if name not in MODULES:
            raise RecipeError(f"no check is called {name!r}", f"There are: {', '.join(MODULES)}.")
        if name not in settings.made():
            remedy = "Give it settings, such as contamination.benchmarks='[{name: mine, path: questions.jsonl}]'."
            raise RecipeError(f"the check {name} is off", remedy)
    if only:
        left_out: dict[str, Any] = {name: None for name in settings.made() if name not in only}
        left_out |= {"roles": False} if "roles" in left_out else {}
        drop = tuple(label for label in settings.drop if any(label in MODULES[name].LABELS for name in only))
        settings = settings.model_copy(update=left_out | {"drop": drop})
    return recipe.model_copy(update={"checks": settings})


async def _asked(ask: Callable[[Dialogue], Coroutine[Any, Any, Found]], dialogue: Dialogue) -> Played:
    return Played(dialogue, await ask(dialogue))
