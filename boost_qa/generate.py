"""From a recipe to a finished run: what is to be taught, engines, then the classroom.

`generate` may be stopped anywhere and called again. What was read is in the run folder, what was asked
is in the journal, and the scenarios are played again from both, so only the missing requests are asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from boost_qa import models
from boost_qa.bookkeeping import nested, row, session, speaking, used
from boost_qa.config import AnalogicalReasoning, Debate, Embedded, Recipe
from boost_qa.engines import Engine
from boost_qa.errors import RunError
from boost_qa.journal import Journal
from boost_qa.lessons import Lessons, begun, prepare
from boost_qa.plan import Plan, plan
from boost_qa.progress import Progress
from boost_qa.run_folder import RunFolder
from boost_qa.runner import Finished, Job, Stats, run
from boost_qa.scenarios import SCENARIOS
from boost_qa.types import Dialogue, Record

CALLS = {"error_correction": 3, "debate": 5, "analogical_reasoning": 3}


def generate(
    recipe: str | Path | Recipe = "demo",
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    engines: Mapping[str, Engine] | None = None,
    replay: str | Path | None = None,
    show: bool = True,
    wait: bool = False,
) -> RunFolder:
    """Generate the dialogues of a recipe, or finish those of a run that was stopped.

    Args:
        recipe: a YAML file, the name of a packaged recipe, or a Recipe.
        output: the run folder; by default one in the user's cache that belongs to the recipe.
        overrides: `key=value` changes to the recipe, such as `seed=3`.
        engines: used in place of the recipe's, by its model aliases.
        replay: a run folder whose journal gives all replies; no model is asked.
        show: show progress on standard error.
        wait: wait for another process that works in the folder, in place of an error.

    Returns:
        The finished run. A finished run is returned at once, without touching sources or models.

    Raises:
        RecipeError, SourceError, ModelError, RunError: before anything was asked.
        EngineError, JournalError: what was done until then is kept; call again to go on.
    """
    planned = plan(recipe, overrides)
    folder = RunFolder(planned.folder if output is None else output)
    with folder.lock(-1 if wait else 0), Progress(show) as progress:
        before = begun(folder, planned)
        if before and folder.finished:
            return folder
        if replay is not None and folder.journal.exists() and not before.get("replayed"):
            raise RunError(f"{folder.path} has a journal of its own", "Replay into a new --output.")
        if engines is not None and (missing := set(used(planned.recipe)) - set(engines)):
            raise RunError(f"no engine for {', '.join(sorted(missing))}", "Give one for each model that a cast names.")
        lessons = prepare(folder, planned, progress)
        if replay is not None:
            engines = _recorded(RunFolder(replay), folder, lessons.manifest, planned.recipe)
        elif engines is None:
            engines = _engines(planned.recipe, progress)
        if planned.recipe.star:
            from boost_qa.star_run import tailor

            tailor(folder, planned, lessons, engines, progress)
        else:
            _teach(folder, planned, lessons, engines, progress)
    return folder


def _engines(recipe: Recipe, progress: Progress) -> dict[str, Engine]:
    """An engine for each alias; aliases that mean the same model share one."""
    from boost_qa.engines.embedded import EmbeddedEngine
    from boost_qa.engines.openai import OpenAIEngine

    built: dict[str, Engine] = {}
    for alias in used(recipe):
        name, settings = recipe.model_name(alias), recipe.models[alias]
        if name not in built:
            if isinstance(settings, Embedded):
                built[name] = EmbeddedEngine(settings, models.resolve(settings.model, progress=progress.bytes))
            else:
                built[name] = OpenAIEngine(settings)
    return {alias: built[recipe.model_name(alias)] for alias in used(recipe)}


def _recorded(source: RunFolder, folder: RunFolder, manifest: dict[str, Any], recipe: Recipe) -> dict[str, Engine]:
    """Engines that answer nothing: all replies come from the journal of `source`, which is copied."""
    from boost_qa.engines.replay import ReplayEngine

    recorded = source.manifest()["models"]
    manifest["replayed"] = True  # written first: a journal that comes from elsewhere may be copied again
    folder.write_manifest(manifest)
    Journal.copy(source.journal, folder.journal)
    return {alias: ReplayEngine(recorded.get(alias, {}).get("revision")) for alias in used(recipe)}


def _teach(
    folder: RunFolder, planned: Plan, lessons: Lessons, engines: Mapping[str, Engine], progress: Progress
) -> None:
    recipe, manifest = planned.recipe, lessons.manifest
    manifest["models"] = speaking(recipe, engines, manifest["models"])
    folder.write_manifest(manifest)
    by_name = {recipe.model_name(alias): engines[alias] for alias in manifest["models"]}
    facts = {recipe.model_name(alias): found for alias, found in manifest["models"].items()}
    jobs = [_job(record, scenario, planned, lessons.similar) for record, scenario in lessons.pairs]
    stats = Stats()
    with Journal(folder.journal) as journal, folder.writing() as out, session(folder, manifest, stats):
        finished = run(jobs, by_name, journal, in_flight=recipe.runner.in_flight, seed=recipe.seed, stats=stats)
        with closing(finished):  # before the journal is closed, also when the loop below is interrupted
            for end in in_order(jobs, progress.follow(finished, jobs, stats)):
                if end.result is not None:
                    out.keep(row(end.result, facts))
                elif end.rejected is not None:
                    out.reject(end.job.record, end.job.scenario, end.rejected.reason, end.rejected.detail)
        manifest["usage"] = journal.usage()
    with folder.dialogues_file.open("rb") as file:
        manifest["dialogues_digest"] = hashlib.file_digest(file, "sha256").hexdigest()
    manifest |= {"dialogues": nested(out.kept), "rejected": nested(out.refused), "finished": True}
    folder.write_manifest(manifest)


def _job(record: Record, scenario: str, planned: Plan, similar: Mapping[str, Sequence[Record]]) -> Job[Dialogue]:
    settings = planned.recipe.scenarios.active()[scenario]
    extra: dict[str, Any] = {}
    if isinstance(settings, Debate):
        extra = {"rounds": settings.rounds}
    elif isinstance(settings, AnalogicalReasoning):
        names = ("bridge", "separator", "teacher_sees_answer", "student_recalls")
        extra = {name: getattr(settings, name) for name in names} | {"similar": similar.get(record.id, ())}
    play: Any = SCENARIOS[scenario]

    def start() -> Any:
        rng = Random(f"{planned.recipe.seed}/{record.id}/{scenario}")
        return play(record, planned.casts[scenario], rng, **extra)

    return Job(record.id, scenario, start, CALLS[scenario], kind=scenario)


def in_order(jobs: Sequence[Job[Dialogue]], finished: Iterator[Finished[Dialogue]]) -> Iterator[Finished[Dialogue]]:
    """The same, in the order of the jobs; what comes early waits."""
    early: dict[tuple[str, str], Finished[Dialogue]] = {}
    order = iter(jobs)
    due = next(order, None)
    for end in finished:
        early[end.job.record, end.job.scenario] = end
        while due and (ready := early.pop((due.record, due.scenario), None)):
            yield ready
            due = next(order, None)
