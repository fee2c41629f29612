"""Which run a call of `load_dataset("boost_qa")` means: a finished one, or one to generate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boost_qa.config import SECRET
from boost_qa.errors import RecipeError, RunError
from boost_qa.run_folder import RunFolder
from boost_qa.types import digest


@dataclass(frozen=True)
class ChosenRun:
    """A run by its recipe, its folder, or both.

    With a folder alone, the run in it is served, and resumed first if it is unfinished. With a recipe
    (`demo` if nothing at all is given) its run is generated, unless that is done already.

    Args:
        recipe: a YAML file, or the name of one that comes with the package.
        folder: a run folder, to serve or to generate into.
        overrides: `key=value` changes to the recipe.
    """

    recipe: str | None = None
    folder: str | None = None
    overrides: tuple[str, ...] = ()

    def key(self) -> str:
        """16 hex characters that name the dialogues which `open` gives.

        Covers the resolved recipe, prompts and models, or the dialogues of a run that is given by its
        folder and finished. Asks no model.

        Raises:
            RecipeError, RunError: see `open`.
        """
        _refuse_secrets(self.overrides)
        finished = self._finished()
        if finished:
            manifest = finished.manifest()
            splits = str(manifest["recipe"]["validation"])  # which can change while the dialogues stay
            return digest("run", manifest["digest"], manifest["dialogues_digest"], splits)[:16]
        from boost_qa.plan import plan

        planned = plan(self._recipe(), self.overrides)
        place = str(Path(self.folder).expanduser().resolve() if self.folder else planned.folder)
        return digest("plan", planned.digest, planned.recipe.model_dump_json(include={"validation"}), place)[:16]

    @property
    def run(self) -> RunFolder:
        """Where the run is, or will be. Raises RecipeError as `key`."""
        if self.folder is not None:
            return RunFolder(Path(self.folder).expanduser())
        from boost_qa.plan import plan

        return RunFolder(plan(self._recipe(), self.overrides).folder)

    def open(self) -> RunFolder:
        """The finished run: generated or resumed if need be.

        Raises:
            RecipeError: if the recipe or an override does not parse.
            RunError: if there is no run in the folder and no recipe for one, or it has another recipe.
            BoostQAError: what generation raises.
        """
        _refuse_secrets(self.overrides)
        finished = self._finished()
        if finished:
            return finished
        from boost_qa.generate import generate

        # several processes may ask for the same run at once: one generates, the others wait for it
        return generate(self._recipe(), self.folder, overrides=self.overrides, wait=True)

    def _finished(self) -> RunFolder | None:
        """The run in the folder, if it is finished and no recipe was named that it must agree with."""
        if self.folder is None or self.recipe is not None or self.overrides:
            return None
        run = RunFolder(Path(self.folder).expanduser())
        return run if run.finished else None

    def _recipe(self) -> str:
        if self.recipe is not None:
            return self.recipe
        if self.folder is None:
            return "demo"
        own = RunFolder(Path(self.folder).expanduser()).recipe
        if not own.is_file():
            remedy = "Name a recipe as well, such as demo, to generate one there."
            raise RunError(f"there is no run in {self.folder}", remedy)
        return str(own)


def chosen(
    recipe: str | None = None,
    run: str | Path | None = None,
    overrides: str | Sequence[str] = (),
    seed: int | None = None,
    n: int | None = None,
) -> ChosenRun:
    """The run of these settings; `seed` and `n` (dialogues) are short for `seed=` and `dialogues=` in `overrides`."""
    listed = [overrides] if isinstance(overrides, str) else list(overrides)
    short = [f"{key}={value}" for key, value in (("seed", seed), ("dialogues", n)) if value is not None]
    return ChosenRun(recipe, None if run is None else str(run), (*listed, *short))


def _refuse_secrets(overrides: Sequence[str]) -> None:
    for override in overrides:
        name = override.partition("=")[0]
        if SECRET.search(name):
            remedy = "Put it into an environment variable, and the variable's name into models.<name>.api_key_env."
            raise RecipeError(f"override {name}=...: a secret is no part of a recipe", remedy)
