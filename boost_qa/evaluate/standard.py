"""The harness's own tasks, as they are; their questions from the Hub, or from a local file in the same columns."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from boost_qa.errors import RecipeError, SourceError

_KINDS = {".parquet": "parquet", ".csv": "csv"}


def standard_tasks(name: str, file: Path | None = None) -> list[Any]:
    """A task, group or tag of the harness, with its questions.

    Args:
        name: of it.
        file: local file of a task's test split.

    Raises:
        RecipeError: there is none of that name, or it runs code as it comes, which only ours do in isolation.
        SourceError: its questions cannot be had.
    """
    manager = _manager(name)
    try:
        loaded = manager.load([name if file is None else _local(name, file)])
    except Exception as error:  # whatever a task's own functions raise
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        remedy = f"Give --data {name}=FILE with the columns of the Hub's dataset, or leave the task out."
        raise SourceError(f"{name}: its questions cannot be read: {why}", remedy) from error
    if unsafe := [task for task, one in loaded["tasks"].items() if getattr(one, "UNSAFE_CODE", False)]:
        what = f"{unsafe[0]} runs what a model wrote without isolation"
        raise RecipeError(what, "Take boost_humaneval or boost_mbpp, which run it in isolation.")
    groups = {} if file is not None else loaded.get("groups", {})
    return [groups[name]] if name in groups else list(loaded["tasks"].values())


def _local(name: str, file: Path) -> dict[str, Any]:
    """A group of the one task, for only a task of a group takes other settings than its own."""
    local = {
        "dataset_path": _KINDS.get(file.suffix.lower(), "json"),
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "training_split": None,
        "validation_split": None,
        "fewshot_split": None,
        "test_split": "test",
    }
    return {"group": f"local_{name}", "task": [{"task": name, **local}]}


@cache
def _manager(name: str) -> Any:
    """What finds a task: by the folder that it is called after, for to look at all folders takes many seconds."""
    import lm_eval.tasks

    folders = [path for path in Path(lm_eval.tasks.__file__).parent.iterdir() if path.is_dir()]
    own = [path for path in folders if f"{name}_".startswith(f"{path.name}_")]
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=own)
    if name not in manager.all_tasks:
        manager = lm_eval.tasks.TaskManager()
    if name not in manager.all_tasks:
        raise RecipeError(f"there is no task {name}", "The harness's tasks are listed by `lm_eval ls tasks`.")
    return manager
