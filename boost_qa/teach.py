"""The classroom at work: each record of a run in its scenario, and what the checks make of it, in the run's order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from random import Random
from typing import TYPE_CHECKING, Any

from boost_qa.bookkeeping import Played, nested, row, session, speaking
from boost_qa.config import AnalogicalReasoning, Debate, Direct
from boost_qa.engines import Engine
from boost_qa.errors import Rejected
from boost_qa.journal import Journal
from boost_qa.lessons import Lessons
from boost_qa.plan import Plan
from boost_qa.progress import Progress
from boost_qa.run_folder import RunFolder
from boost_qa.runner import Finished, Job, Play, Stats, run
from boost_qa.scenarios import SCENARIOS
from boost_qa.types import Dialogue, Record

if TYPE_CHECKING:
    from boost_qa.inspection import Inspection

CALLS = {"error_correction": 3, "debate": 5, "analogical_reasoning": 3, "direct": 1}


def teach(
    folder: RunFolder, planned: Plan, lessons: Lessons, engines: Mapping[str, Engine], progress: Progress
) -> None:
    """Play the scenarios of a run to their end, from wherever its journal is.

    Args:
        engines: by alias of the recipe.

    Raises:
        ModelError, RunError, SourceError: before anything was asked.
        EngineError, JournalError: what was done until then is kept.
    """
    recipe, manifest = planned.recipe, lessons.manifest
    inspection = _inspection(planned)
    manifest["models"] = speaking(recipe, engines, manifest["models"])
    folder.write_manifest(manifest)
    by_name = {recipe.model_name(alias): engines[alias] for alias in manifest["models"]}
    facts = {recipe.model_name(alias): found for alias, found in manifest["models"].items()}
    jobs = [_job(record, scenario, planned, lessons.similar, inspection) for record, scenario in lessons.pairs]
    stats = Stats()
    with Journal(folder.journal) as journal, folder.writing() as out, ExitStack() as stack:
        keep: Callable[[Played], None] = lambda played: out.keep(row(played.dialogue, facts))  # noqa: E731
        if inspection:
            from boost_qa.ledger import checked

            keep = stack.enter_context(checked(folder, inspection, manifest, len(jobs), out, facts))
            by_name |= inspection.engines
        stack.enter_context(session(folder, manifest, stats))
        finished = run(jobs, by_name, journal, in_flight=recipe.runner.in_flight, seed=recipe.seed, stats=stats)
        with closing(finished):  # before the journal is closed, also when the loop below is interrupted
            for end in in_order(jobs, progress.follow(finished, jobs, stats)):
                if end.result is not None:
                    keep(end.result)
                elif end.rejected is not None:
                    out.reject(end.job.record, end.job.scenario, end.rejected.reason, end.rejected.detail)
        manifest["usage"] = journal.usage()
    with folder.dialogues_file.open("rb") as file:
        manifest["dialogues_digest"] = hashlib.file_digest(file, "sha256").hexdigest()
    manifest |= {"dialogues": nested(out.kept), "rejected": nested(out.refused), "finished": True}
    folder.write_manifest(manifest)


def in_order(jobs: Sequence[Job[Played]], finished: Iterator[Finished[Played]]) -> Iterator[Finished[Played]]:
    """The same, in the order of the jobs; what comes early waits."""
    early: dict[tuple[str, str], Finished[Played]] = {}
    order = iter(jobs)
    due = next(order, None)
    for end in finished:
        early[end.job.record, end.job.scenario] = end
        while due and (ready := early.pop((due.record, due.scenario), None)):
            yield ready
            due = next(order, None)


def _inspection(planned: Plan) -> Inspection | None:
    if planned.recipe.checks is None:
        return None
    from boost_qa.inspection import inspection

    return inspection(planned.recipe, planned.casts)


def _job(
    record: Record,
    scenario: str,
    planned: Plan,
    similar: Mapping[str, Sequence[Record]],
    inspection: Inspection | None,
) -> Job[Played]:
    async def start() -> Played:
        dialogue = await _dialogue(record, scenario, planned, similar)
        return Played(dialogue, await inspection.ask(dialogue) if inspection else {})

    return Job(record.id, scenario, start, CALLS[scenario], kind=scenario)


async def _dialogue(record: Record, scenario: str, planned: Plan, similar: Mapping[str, Sequence[Record]]) -> Dialogue:
    try:
        return await _play(record, scenario, planned, similar)
    except Rejected as why:
        checks = planned.recipe.checks
        if not (checks and checks.answers and checks.answers.weak_right == "move" and why.reason == "weak right"):
            raise
        return await _play(record, "debate", planned, similar)  # a mistake that is none is worth an argument


def _play(record: Record, scenario: str, planned: Plan, similar: Mapping[str, Sequence[Record]]) -> Play[Dialogue]:
    settings = planned.recipe.scenarios.active()[scenario]
    extra: dict[str, Any] = {}
    if isinstance(settings, Debate):
        extra = {"rounds": settings.rounds}
    elif isinstance(settings, AnalogicalReasoning):
        names = ("bridge", "separator", "teacher_sees_answer", "student_recalls")
        extra = {name: getattr(settings, name) for name in names} | {"similar": similar.get(record.id, ())}
    elif isinstance(settings, Direct):
        extra = {"sees_answer": settings.sees_answer}
    play: Any = SCENARIOS[scenario]
    rng = Random(f"{planned.recipe.seed}/{record.id}/{scenario}")
    played: Play[Dialogue] = play(record, planned.casts[scenario], rng, **extra)
    return played
