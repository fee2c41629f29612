"""What a run writes down of itself: who answered, for how long, and each dialogue as a line."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from boost_qa.checks.finding import Finding
from boost_qa.config import Recipe
from boost_qa.engines import Engine
from boost_qa.errors import RunError
from boost_qa.run_folder import RunFolder
from boost_qa.runner import Stats
from boost_qa.types import Dialogue, Record, Turn, Usage, digest

Found = dict[str, list[Finding]]
"""What each check that was made saw, in the order in which they were made."""


class Played(NamedTuple):
    """A dialogue with what the checks that ask saw in it."""

    dialogue: Dialogue
    found: Found


def used(recipe: Recipe) -> list[str]:
    """The aliases of the models that the recipe's agents speak with."""
    return sorted({agent.model for agent in recipe.agents().values()})


def speaking(recipe: Recipe, engines: Mapping[str, Engine], known: Mapping[str, Any]) -> dict[str, Any]:
    """What answers for each alias; a run never mixes two revisions of a model."""
    found = {}
    for alias in used(recipe):
        settings, engine = recipe.models[alias], engines[alias]
        found[alias] = {"engine": settings.engine, "model": settings.model, "revision": engine.revision}
        before = known.get(alias, {}).get("revision")
        if before is not None and before != engine.revision:
            what = f"model {settings.model!r} is now {engine.revision}, but this run was begun with {before}"
            raise RunError(what, "Bring the old model back, or begin anew with another --output.")
    return found


@contextmanager
def session(folder: RunFolder, manifest: dict[str, Any], stats: Stats) -> Iterator[None]:
    """Write into the manifest when models were asked, for how long and how much, however it ends."""
    started, began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()

    def write() -> None:
        requests = sum(model.requests for model in stats.models.values())
        tokens = sum(model.completion_tokens for model in stats.models.values())
        if requests:
            seconds = round(time.monotonic() - began, 1)
            session = {"started": started, "seconds": seconds, "requests": requests, "completion_tokens": tokens}
            manifest["sessions"].append(session)
            folder.write_manifest(manifest)

    try:
        yield
    except BaseException:
        with suppress(OSError):  # a full disk was told already
            write()
        raise
    write()


def row(dialogue: Dialogue, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A line of `dialogues.jsonl`; `facts` are model and revision by the name that requests carry."""
    turns = []
    for turn in dialogue.turns:
        row = dataclasses.asdict(turn)
        model = facts.get(turn.model or "", {})
        turns.append(row | {"model": model.get("model"), "revision": model.get("revision")})
    return {
        "id": digest(dialogue.record.id, dialogue.scenario),
        "scenario": dialogue.scenario,
        "record": dataclasses.asdict(dialogue.record),
        "related": dataclasses.asdict(dialogue.related) if dialogue.related else None,
        "turns": turns,
        "usage": dataclasses.asdict(dialogue.usage),
    }


def dialogue(line: Mapping[str, Any]) -> Dialogue:
    """The dialogue that a line of `dialogues.jsonl` is about; its turns carry the models' own names."""
    turns = []
    for turn in line["turns"]:
        spoken = {name: value for name, value in turn.items() if name != "revision"}
        turns.append(Turn(**spoken | {"usage": Usage(**turn["usage"])}))
    related = Record(**line["related"]) if line["related"] else None
    return Dialogue(Record(**line["record"]), line["scenario"], tuple(turns), related)


def nested(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Counts by two names as a mapping of mappings."""
    nested: dict[str, dict[str, int]] = {}
    for (outer, inner), count in sorted(counts.items()):
        nested.setdefault(outer, {})[inner] = count
    return nested
