"""From a recipe to a finished run: what is to be taught, engines, then the classroom.

`generate` may be stopped anywhere and called again. What was read is in the run folder, what was asked
is in the journal, and the scenarios are played again from both, so only the missing requests are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boost_qa import models
from boost_qa.bookkeeping import used
from boost_qa.config import Embedded, Recipe
from boost_qa.engines import Engine
from boost_qa.errors import RunError
from boost_qa.journal import Journal
from boost_qa.lessons import begun, prepare
from boost_qa.plan import plan
from boost_qa.preflight import look_ahead
from boost_qa.progress import Progress
from boost_qa.run_folder import RunFolder
from boost_qa.teach import teach


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
    if strangers := folder.strangers():
        what = f"{folder.path} holds files that no run wrote, and that one would replace: {', '.join(strangers)}"
        raise RunError(what, "Give an --output of its own.")
    with folder.lock(-1 if wait else 0), Progress(show) as progress:
        before = begun(folder, planned)
        if before and folder.finished:
            progress.say(f"the run in {folder.path} is finished; sources are not read again")
            return folder
        if replay is not None and folder.journal.exists() and not before.get("replayed"):
            raise RunError(f"{folder.path} has a journal of its own", "Replay into a new --output.")
        if engines is not None and (missing := set(used(planned.recipe)) - set(engines)):
            raise RunError(f"no engine for {', '.join(sorted(missing))}", "Give one for each model that a cast names.")
        look_ahead(planned.recipe, embeds=not before, asks=engines is None and replay is None)
        lessons = prepare(folder, planned, progress)
        if replay is not None:
            engines = _recorded(RunFolder(replay), folder, lessons.manifest, planned.recipe)
        else:
            if lessons.manifest.pop("replayed", None):  # from here on the journal holds replies of its own
                folder.write_manifest(lessons.manifest)
            if engines is None:
                engines = engines_for(planned.recipe, used(planned.recipe), progress)
        if planned.recipe.star:
            from boost_qa.star_run import tailor

            tailor(folder, planned, lessons, engines, progress)
        else:
            teach(folder, planned, lessons, engines, progress)
    return folder


def engines_for(recipe: Recipe, aliases: Iterable[str], progress: Progress) -> dict[str, Engine]:
    """An engine for each of these aliases of a recipe; aliases that mean the same model share one.

    Raises:
        ModelError: if a model cannot be had.
    """
    from boost_qa.engines.embedded import EmbeddedEngine
    from boost_qa.engines.openai import OpenAIEngine

    built: dict[str, Engine] = {}
    aliases = list(aliases)
    for alias in aliases:
        name, settings = recipe.model_name(alias), recipe.models[alias]
        if name not in built:
            if isinstance(settings, Embedded):
                built[name] = EmbeddedEngine(settings, models.resolve(settings.model, progress=progress.bytes))
            else:
                built[name] = OpenAIEngine(settings)
    return {alias: built[recipe.model_name(alias)] for alias in aliases}


def _recorded(source: RunFolder, folder: RunFolder, manifest: dict[str, Any], recipe: Recipe) -> dict[str, Engine]:
    """Engines that answer nothing: all replies come from the journal of `source`, which is copied."""
    from boost_qa.engines.replay import ReplayEngine

    recorded = source.manifest()["models"]
    manifest["replayed"] = True  # written first: a journal that comes from elsewhere may be copied again
    folder.write_manifest(manifest)
    Journal.copy(source.journal, folder.journal)
    return {alias: ReplayEngine(recorded.get(alias, {}).get("revision")) for alias in used(recipe)}
