"""What a recipe will do, before any source or model is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boost_qa import models
from boost_qa.agents import Cast, cast_for
from boost_qa.config import Recipe
from boost_qa.errors import RecipeError, RunError
from boost_qa.recipe_file import find_recipe, load_recipe
from boost_qa.run_folder import RunFolder
from boost_qa.star_agents import pairs
from boost_qa.types import digest


@dataclass(frozen=True)
class Plan:
    """A recipe with its casts; `digest` names all settings and prompts that can change a row."""

    recipe: Recipe
    casts: Mapping[str, Cast]
    digest: str

    @property
    def folder(self) -> Path:
        """The run folder in the user's cache that belongs to this plan, and to the local files that it names."""
        named = digest(self.digest, *self.files) if self.files else self.digest
        return models.home() / "runs" / f"{self.recipe.name}-{named[:12]}"

    @property
    def files(self) -> list[str]:
        """Local sources and benchmarks, absolute: what a relative path means depends on where one is."""
        checks = self.recipe.checks
        benchmarks = checks.contamination.benchmarks if checks and checks.contamination else ()
        paths = (getattr(each, "path", None) for each in (*self.recipe.sources, *benchmarks))
        return [str(Path(path).expanduser().absolute()) for path in paths if path]

    @property
    def dialogues(self) -> int | None:
        """Dialogues that are begun, or seeds that agent pairs compete for; None where only the sources know."""
        recipe = self.recipe
        sizes = [source.most for source in recipe.sources]
        records = None if None in sizes else sum(size or 0 for size in sizes)
        known = [number for number in (recipe.dialogues, records) if number is not None]
        if not known:
            return None
        return min(known) * (len(recipe.scenarios.active()) if recipe.assign == "all" and not recipe.star else 1)

    @property
    def prompts(self) -> dict[str, str]:
        """The digest of each prompt, by scenario/role."""
        return _prompts(self.casts)


def plan(recipe: str | Path | Recipe = "demo", overrides: Sequence[str] = ()) -> Plan:
    """Read and check a recipe with its prompts.

    Raises:
        RecipeError: naming file and key.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        remedy = "Give a file or a name, or change the Recipe itself."
        raise RecipeError(f"overrides {', '.join(overrides)} were given with a Recipe", remedy)
    if recipe.star:
        casts = pairs.casts(recipe, recipe.star)
    else:
        casts = {scenario: cast_for(recipe, scenario) for scenario in recipe.scenarios.active()}
    if recipe.checks:
        if recipe.star:
            remedy = "Leave them out, and look at the finished run: boost-qa check."
            raise RecipeError("checks of a star recipe are made afterwards", remedy)
        from boost_qa.inspection import with_checks

        casts = with_checks(casts, recipe)
    return Plan(recipe, casts, digest(json.dumps([recipe.content(), _prompts(casts)], sort_keys=True)))


def find_run(run: str | Path) -> RunFolder:
    """The run that `run` means: a folder, or the run in the user's cache that belongs to a recipe.

    Raises:
        RecipeError: if the recipe cannot be read.
        RunError: if there is none.
    """
    if Path(run).is_dir():
        folder = RunFolder(run)
    else:
        try:
            file = find_recipe(run)
        except RecipeError:
            remedy = f"Give the folder of a run, or a recipe whose run is in {models.home() / 'runs'}."
            raise RunError(f"no run folder and no recipe {str(run)!r}", remedy) from None
        folder = RunFolder(plan(file).folder)
        if not folder.path.is_dir():
            changed = sorted(str(other) for other in folder.path.parent.glob(f"{plan(file).recipe.name}-*"))
            others = f"\n  Runs of it with changes: {', '.join(changed)}" if changed else ""
            raise RunError(f"recipe {str(run)!r} has no run yet", f"Make one: boost-qa generate {run}{others}")
    folder.manifest()
    return folder


def _prompts(casts: Mapping[str, Cast]) -> dict[str, str]:
    agents = ((f"{scenario}/{role}", agent) for scenario, cast in casts.items() for role, agent in cast.items())
    return {name: agent.prompt.digest for name, agent in agents}
