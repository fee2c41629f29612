"""A star recipe's run folder: the best sample of each record, all candidates with their scores, and the history."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

from boost_qa.bookkeeping import nested, row, session, speaking
from boost_qa.config import Star
from boost_qa.contents import STAR
from boost_qa.engines import Engine
from boost_qa.engines.replay import ReplayEngine
from boost_qa.errors import RunError
from boost_qa.journal import Journal
from boost_qa.lessons import Lessons
from boost_qa.plan import Plan
from boost_qa.progress import Progress
from boost_qa.room import Room
from boost_qa.run_folder import RunFolder, dump
from boost_qa.runner import Stats
from boost_qa.star import Sample, Tailor, Tailored, embedded
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_agents.scoring import AGAIN, ScoringEngine, model_name
from boost_qa.star_report import report


def tailor(
    folder: RunFolder, planned: Plan, lessons: Lessons, engines: Mapping[str, Engine], progress: Progress
) -> None:
    """Play a star recipe to its end, from wherever its journal is.

    Args:
        engines: by alias of the recipe; those of the scorers by `scoring.model_name`, or else they are loaded.

    Raises:
        ModelError, RunError: before anything was asked.
        EngineError, JournalError: what was done until then is kept.
    """
    recipe, manifest, star = planned.recipe, lessons.manifest, planned.recipe.star
    assert star is not None
    scorers = _scorers(star, engines)
    manifest["models"] = speaking(recipe, engines, manifest["models"])
    manifest["scorers"] = _revisions(scorers, manifest.get("scorers", {}))
    folder.write_manifest(manifest)
    by_name = {recipe.model_name(alias): engines[alias] for alias in manifest["models"]}
    facts = {recipe.model_name(alias): found for alias, found in manifest["models"].items()}
    records = [record for record, _ in lessons.pairs]
    if star.order == "shuffled":  # or the pairs would learn from one source first, and then from the next
        Random(f"{recipe.seed}/star/order").shuffle(records)
    vectors, stats = embedded(star, records, progress), Stats()
    counted: Counter[tuple[str, str]] = Counter()
    with (
        Journal(folder.journal) as journal,
        folder.writing() as out,
        folder.writing_star() as (candidates, history),
        session(folder, manifest, stats),
    ):
        in_flight = recipe.runner.in_flight
        room: Room[Any]
        with Room(by_name | scorers, journal, in_flight=in_flight, seed=recipe.seed, stats=stats) as room:
            tailoring = Tailor(planned, records, lessons.similar, room, vectors)
            for done, seed in enumerate(tailoring.tailor(), 1):
                history.write(dump(_passage(seed)) + "\n")
                candidates.writelines(dump(_candidate(seed, sample)) + "\n" for sample in seed.samples)
                counted.update((sample.pair, sample.why) for sample in seed.samples if sample.why)
                if seed.chosen is not None and seed.chosen.dialogue is not None:
                    out.keep(_best(seed, facts))
                    counted["chosen", seed.chosen.pair] += 1
                else:
                    out.reject(seed.record.id, STAR, f"{star.base[0]}: {seed.samples[0].why}", "no base sample")
                progress.seeds(done, len(records), seed.probabilities)
            manifest["probabilities"] = tailoring.evolution.probabilities
        manifest["usage"] = journal.usage()
    with folder.dialogues_file.open("rb") as file:
        manifest["dialogues_digest"] = hashlib.file_digest(file, "sha256").hexdigest()
    report(folder, recipe, progress.say)
    manifest["star"] = nested(counted)
    manifest |= {"dialogues": nested(out.kept), "rejected": nested(out.refused), "finished": True}
    folder.write_manifest(manifest)


def _scorers(star: Star, engines: Mapping[str, Engine]) -> dict[str, Engine]:
    """An engine for each scorer, by the names that requests carry. Where all is replayed, so is this."""
    found: dict[str, Engine] = {}
    replayed = all(isinstance(engine, ReplayEngine) for engine in engines.values())
    for name in (star.small, star.large):
        given = engines.get(model_name(name))
        found[model_name(name)] = given or (ReplayEngine() if replayed else ScoringEngine(name))
        if star.retest:
            again = model_name(name, AGAIN)
            found[again] = engines.get(again) or found[model_name(name)]
    return found


def _revisions(scorers: Mapping[str, Engine], known: Mapping[str, str | None]) -> dict[str, str | None]:
    found = {name: engine.revision for name, engine in scorers.items()}
    for name, revision in found.items():
        if known.get(name) is not None and revision is not None and known[name] != revision:
            what = f"{name} is now {revision}, but this run was begun with {known[name]}"
            raise RunError(what, "Bring the old model back, or begin anew with another --output.")
    return found | {name: revision for name, revision in known.items() if revision is not None}


def _best(seed: Tailored, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    assert seed.chosen is not None and seed.chosen.dialogue is not None
    return row(replace(seed.chosen.dialogue, scenario=STAR), facts) | {
        "pair": seed.chosen.pair,
        "score": seed.chosen.score,
        "candidates": [_scores(sample) for sample in seed.samples],
    }


def _passage(seed: Tailored) -> dict[str, Any]:
    """A line of `history.jsonl`."""
    return {
        "record": seed.record.id,
        "drawn": list(seed.drawn),
        "chosen": seed.chosen.pair if seed.chosen else None,
        "score": seed.chosen.score if seed.chosen else None,
        "probabilities": dict(seed.probabilities),
    }


def _candidate(seed: Tailored, sample: Sample) -> dict[str, Any]:
    """A line of `candidates.jsonl`: a sample with what was found out about it."""
    turns = sample.dialogue.turns if sample.dialogue else ()
    return {
        "record": seed.record.id,
        **_scores(sample),
        "drawn": sample.pair in seed.drawn,
        **{name: _fields(getattr(sample, name)) for name in ("small", "large", "small_again", "large_again")},
        "verdicts": [sample.verdict.first, sample.verdict.second] if sample.verdict else None,
        "turns": [{"speaker": turn.speaker, "side": turn.side, "text": turn.text} for turn in turns],
    }


def _fields(found: Likelihood | None) -> dict[str, Any] | None:
    return dataclasses.asdict(found) if found else None


def _scores(sample: Sample) -> dict[str, Any]:
    return {
        "pair": sample.pair,
        "ifd_small": sample.small.ifd if sample.small else None,
        "ifd_large": sample.large.ifd if sample.large else None,
        "judged": sample.judged if sample.judged is not None else (sample.verdict.value if sample.verdict else None),
        "score": sample.score,
        "why": sample.why,
    }
