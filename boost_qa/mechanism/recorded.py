"""How an adapter was trained, as its run.json tells; what measures it has to do the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boost_qa.errors import ModelError, RecipeError
from boost_qa.train.arguments import DialogueArguments

_DATA = ("dataset", "dataset_config", "dataset_split", "dataset_revision", "dataset_recipe")
_HELD = ("validation", "validation_split", "validation_seed", "dataset_rows")
_WRITTEN = ("template", "loss_on", "too_long")
MAX_LENGTH, SEED = 1024, 42
"""What is assumed where there is no run.json."""


@dataclass(frozen=True)
class Recorded:
    """What was trained on, and how.

    Args:
        ours: the dataset, what of it was held out, how dialogues were written, and which turns carried loss.
        max_length: tokens of a dialogue, at most.
        seed: of the training.
        fingerprint: of the rows trained on; None where the adapter does not say.
        method: `lora` or `qlora`; None where the adapter does not say.
    """

    ours: DialogueArguments
    max_length: int
    seed: int
    fingerprint: str | None
    method: str | None

    def facts(self) -> dict[str, Any]:
        """What measures depend on besides the rows."""
        written = {name: value for name, value in asdict(self.ours).items() if name in _WRITTEN}
        return written | {"max_length": self.max_length, "seed": self.seed, "method": self.method}


def recorded(
    adapter: Path, dataset: str | None = None, config: str | None = None, split: str | None = None, **changes: Any
) -> Recorded:
    """What the run.json of an adapter says; without one, this package's defaults.

    Args:
        adapter: its folder.
        dataset, config, split: in place of those trained on. What the recipe held out counts where they are the same.
        changes: `template` or `loss_on`, in place of those of the training; None changes nothing.

    Raises:
        ModelError: run.json cannot be read.
        RecipeError: neither run.json nor `dataset` names a dataset, or a change is no known value.
    """
    told = _read(adapter / "run.json")
    recipe = told.get("recipe", {})
    resolved: dict[str, Any] = recipe.get("resolved", {})
    taken = {name: resolved[name] for name in (*_DATA, *_HELD, *_WRITTEN) if resolved.get(name) is not None}
    asked = {"dataset": dataset, "dataset_config": config, "dataset_split": split}
    asked = {name: value for name, value in asked.items() if value is not None}
    if dataset is not None and not _same(dataset, taken.get("dataset")):
        taken = {name: taken[name] for name in (*_WRITTEN, "dataset_recipe") if name in taken}
    elif dataset is not None:
        del asked["dataset"]
    if any(value != taken.get(name) for name, value in asked.items()):
        taken = {name: value for name, value in taken.items() if name not in _HELD} | asked
    taken |= {name: value for name, value in changes.items() if value is not None}
    if not taken.get("dataset"):
        raise RecipeError(f"{adapter} does not say what it was trained on", "Give it with --dataset.")
    try:
        ours = DialogueArguments(**taken)
    except ValueError as error:
        raise RecipeError(str(error), "Correct that setting.") from error
    length, seed = (resolved.get(name) or other for name, other in (("max_length", MAX_LENGTH), ("seed", SEED)))
    return Recorded(ours, int(length), int(seed), told.get("data", {}).get("fingerprint"), recipe.get("method"))


def _same(one: str, other: str | None) -> bool:
    """Whether two names or paths mean the same dataset."""
    return other is not None and (
        one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
    )


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}", "Copy it again from where the training left it.") from error
