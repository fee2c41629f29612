"""What is to be taught: the records of a run, which scenario each gets, and their neighbours.

Sources are read and questions embedded once for each run folder; whoever goes on with a run finds both there.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from boost_qa import models, sources
from boost_qa.bookkeeping import used
from boost_qa.config import AnalogicalReasoning, Recipe
from boost_qa.contents import STAR
from boost_qa.errors import RunError, SourceError
from boost_qa.plan import Plan
from boost_qa.progress import Progress
from boost_qa.retrieval import Embedder, neighbours
from boost_qa.run_folder import RunFolder, dump, write_whole
from boost_qa.scenarios.assignment import assign
from boost_qa.types import Record

PACKAGES = (
    "boost_qa", "datasets", "pyarrow", "aiohttp", "openvino-genai", "tokenizers",
    "sentence-transformers", "transformers", "torch", "reasoning-gym",
    "math-verify", "rensa", "phonenumbers", "py3langid",
)  # fmt: skip


@dataclass(frozen=True)
class Lessons:
    """What is to be taught."""

    pairs: Sequence[tuple[Record, str]]
    similar: Mapping[str, Sequence[Record]]
    manifest: dict[str, Any]


def prepare(folder: RunFolder, planned: Plan, progress: Progress) -> Lessons:
    """Read the sources into the run folder, or find there what was read before.

    Raises:
        SourceError, ModelError: with nothing written.
        RunError: if the folder holds the run of another recipe.
    """
    manifest = begun(folder, planned)
    if not manifest:
        manifest = _begin(folder, planned, progress)
    by_id = {record.id: record for record in folder.records()}
    ids = json.loads(folder.neighbours_file.read_text(encoding="utf-8"))
    similar = {id: [by_id[near] for near in found] for id, found in ids.items()}
    return Lessons(_pairs(planned, list(by_id.values())), similar, manifest)


def begun(folder: RunFolder, planned: Plan) -> dict[str, Any]:
    """The manifest of the run that was begun in `folder`, or {} where there is none.

    Raises:
        RunError: if it is the run of another recipe.
    """
    if not folder.begun:
        return {}
    manifest = folder.manifest()
    if manifest["digest"] != planned.digest:
        same_recipe = manifest["content"] == planned.recipe.content()
        changed = "the prompts have changed since" if same_recipe else "its recipe differs"
        remedy = "Give another --output, or the recipe.yaml in that folder."
        raise RunError(f"{folder.path} holds another run: {changed}", remedy)
    resolved = planned.recipe.model_dump(mode="json")
    if manifest["recipe"] != resolved:
        _same_names(folder, Recipe.model_validate(manifest["recipe"]), planned.recipe)
        manifest |= {"name": planned.recipe.name, "recipe": resolved}
        folder.write_recipe(resolved)
        folder.write_manifest(manifest)
    return manifest


def _same_names(folder: RunFolder, before: Recipe, now: Recipe) -> None:
    """Make sure that requests carry the model names that they carried, by which the journal finds their replies.

    Raises:
        RunError: two aliases of a model had the same settings and now differ, or the other way round.
    """
    for alias in used(now):
        if now.model_name(alias) != before.model_name(alias):
            model = now.models[alias].model
            both = " and ".join(f"models.{other}" for other, each in now.models.items() if each.model == model)
            then, today = (
                ("the same", "different now") if before.model_name(alias) == model else ("different", "the same now")
            )
            raise RunError(
                f"{both} are {model}: their settings were {then} when the run in {folder.path} was begun, are {today}",
                "Change them alike (slots, server, ...), so that replies are found, or give another --output.",
            )


def _begin(folder: RunFolder, planned: Plan, progress: Progress) -> dict[str, Any]:
    recipe = planned.recipe
    progress.say("reading the sources")
    records, bad, facts = sources.read(recipe.sources, recipe.seed)
    masked: dict[str, dict[str, int]] = {}
    if recipe.checks and recipe.checks.personal_data and recipe.checks.personal_data.mask:
        from boost_qa.inspection import without_personal_data

        records, masked = without_personal_data(records)
    similar: dict[str, list[Record]] = {}
    if settings := analogy(recipe):
        taught_in = ("analogical_reasoning", STAR)
        first = [record for record, scenario in _pairs(planned, records) if scenario in taught_in]
        similar = _neighbours(settings, first, records, recipe.assign, progress)
    folder.write_recipe(recipe.model_dump(mode="json"))
    folder.write_records(records)
    write_whole(folder.bad_rows_file, "".join(dump(dataclasses.asdict(row)) + "\n" for row in bad))
    ids = {id: [near.id for near in found] for id, found in similar.items()}
    write_whole(folder.neighbours_file, json.dumps(ids) + "\n")
    manifest = {
        "name": recipe.name,
        "digest": planned.digest,
        "finished": False,
        "versions": versions(),
        "models": {},
        "prompts": planned.prompts,
        "sources": [dataclasses.asdict(fact) for fact in facts],
        **({"masked": masked} if masked else {}),
        "sessions": [],
        "content": recipe.content(),
        "recipe": recipe.model_dump(mode="json"),
    }
    folder.write_manifest(manifest)  # last: a folder with a manifest has all of the above
    return manifest


def _pairs(planned: Plan, records: Sequence[Record]) -> list[tuple[Record, str]]:
    recipe = planned.recipe
    shares = {scenario: settings.share for scenario, settings in recipe.scenarios.active().items()}
    shares |= {STAR: 1.0} if recipe.star else {}
    return assign(records, shares, seed=recipe.seed, dialogues=recipe.dialogues, mode=recipe.assign)


def analogy(recipe: Recipe) -> AnalogicalReasoning | None:
    """How analogies are looked for: as the scenario says, or the first agent pair that plays it."""
    if recipe.star:
        played = (pair.analogical_reasoning for pair in recipe.star.pairs.values())
        return next((settings for settings in played if settings is not None), None)
    settings = recipe.scenarios.active().get("analogical_reasoning")
    return settings if isinstance(settings, AnalogicalReasoning) else None


def embedder(settings: AnalogicalReasoning, progress: Progress) -> Embedder:
    """Who embeds the questions.

    Raises:
        ModelError: if the model cannot be had.
    """
    model = models.resolve(settings.embedder, progress=progress.bytes)
    return Embedder(model.path, model.revision, models.home() / "embeddings", progress.texts)


def _neighbours(
    settings: AnalogicalReasoning, first: Sequence[Record], records: Sequence[Record], mode: str, progress: Progress
) -> dict[str, list[Record]]:
    embed = embedder(settings, progress)
    chosen = {record.id for record in first} if mode == "one" else set()
    pool = [record for record in records if record.id not in chosen]
    sources_of = [{record.source for record in side} for side in (first, pool)]
    if first and not (pool if settings.across_sources else set.intersection(*sources_of)):
        raise SourceError(
            "analogies: every record begins one, and none is left to be the similar question",
            "Set dialogues below the number of records, give more of them, or set assign: all.",
        )
    progress.say(f"looking for similar questions among {len(pool)}")
    return neighbours(
        first, pool, embed, settings.k, settings.max_similarity, settings.min_similarity, settings.across_sources
    )


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
