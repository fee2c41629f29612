"""Which results of lm-evaluation-harness are published with a model, and what of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boost_qa.errors import RunError
from boost_qa.portable import last_name, portable_value
from boost_qa.publish.upload import Say

# Not how the model was called there, nor what the machine is.
_MEASURED = re.compile(
    r"results|groups?|group_subtasks|configs|versions|n-shot|n-samples|higher_is_better|date|\w+_version"
)


def find_results(folder: Path, given: Sequence[Path], say: Say = lambda text: None) -> dict[str, Path]:
    """The results files given, and those in a training's folder that were measured on what is in it; by name.

    Args:
        folder: of the training.
        given: taken as they are.
        say: is told which are left out.

    Raises:
        RunError: if two have the same name.
    """
    own = []
    for path in sorted(folder.rglob("results_*.json")):
        if _measures(path, folder):
            own.append(path)
        else:
            say(f"{path} is left out: it does not say that it measured {folder}; --results takes it all the same")
    found = sorted({path.expanduser().resolve() for path in (*own, *given)})
    by_name = {path.name: path for path in found}
    if len(by_name) < len(found):
        twice = next(path for path in found if by_name[path.name] != path)
        raise RunError(f"{twice} and {by_name[twice.name]} have the same name", "Rename one of them, or leave it out.")
    return by_name


def measured(file: Path) -> dict[str, Any]:
    """What a results file says of the model, without the places and settings of the machine."""
    content = {key: value for key, value in json.loads(file.read_bytes()).items() if _MEASURED.fullmatch(key)}
    for task in content["configs"].values():
        if isinstance(task, dict) and isinstance(task.get("metadata"), dict):  # has the model's arguments, too
            task["metadata"] = {key: value for key, value in task["metadata"].items() if key == "version"}
    return dict(portable_value(content))


def _measures(file: Path, folder: Path) -> bool:
    """Whether a file is one of the harness, and names the folder as the model."""
    try:
        content = json.loads(file.read_bytes())
        arguments = content["config"]["model_args"]
    except (ValueError, KeyError, TypeError):
        return False
    if isinstance(arguments, str):
        arguments = dict(part.partition("=")[::2] for part in arguments.split(","))
    named = [arguments[key] for key in ("peft", "lora_local_path", "pretrained") if arguments.get(key)]
    return bool(named) and last_name(str(named[0])) == folder.resolve().name
