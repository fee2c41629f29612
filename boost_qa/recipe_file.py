"""Reading recipes: YAML files, `key=value` changes to them, and errors that say which key is wrong.

Unknown keys are errors that name the nearest known one.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from boost_qa.config import Recipe
from boost_qa.errors import RecipeError


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a file, or the name of one that comes with the package (`demo`).

    Args:
        path: a YAML file, or a bare name.
        overrides: `key=value` with dots between levels and list positions as numbers, such as
            `sources.0.n=100` or `scenarios.debate=null`; values are YAML.

    Raises:
        RecipeError: naming the file, the key and the nearest known key.
    """
    file = find_recipe(path)
    raw = read_mapping(file, "recipes/generate/demo.yaml")
    for override in overrides:
        change(raw, override)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(
            f"{file}: " + "; ".join(explained(error)), "Correct the recipe, or the key=value given with it."
        ) from None


def find_recipe(path: str | Path) -> Path:
    """The file that `path` means: itself, or a packaged recipe of that name.

    Raises:
        RecipeError: if there is neither.
    """
    return find_yaml(path, {file.stem: file for file in recipe_folder().glob("*.yaml")})


def find_yaml(path: str | Path, packaged: Mapping[str, Path], what: str = "recipe") -> Path:
    """The file that `path` means: itself, or one of those that come with the package, by name.

    Raises:
        RecipeError: if there is neither.
    """
    given = Path(path).expanduser()
    with contextlib.suppress(OSError):  # longer than any file name
        if given.is_file():
            return given
    if str(path) in packaged:
        return packaged[str(path)]
    raise RecipeError(f"no {what} {str(path)!r}", f"Give a YAML file, or one of: {', '.join(sorted(packaged))}.")


def read_mapping(file: Path, example: str) -> dict[str, Any]:
    """What a YAML file holds.

    Raises:
        RecipeError: it cannot be read, or holds no mapping; pointing at `example`.
    """
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{file}: {error}", f"It is read as YAML; {example} is an example.") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{file}: holds no mapping", f"It should hold `key: value` lines, as {example} does.")
    return raw


def recipe_folder(kind: str = "generate") -> Path:
    """Where recipes of a kind (`generate`, `sft`) are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    inside = package / "recipes" / kind
    return inside if inside.is_dir() else package.parent / "recipes" / kind


def change(raw: dict[str, Any], override: str) -> None:
    """Set a key of what a YAML file holds, as `key=value` says; see `load_recipe`. A list is added to under its length.

    Raises:
        RecipeError: it is not key=value, or there is no such place.
    """
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise RecipeError(f"override {override!r} is not key=value", "Write for example sources.0.n=100.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: {error}", "The value is read as YAML.") from error
    *parents, last = dotted.split(".")
    level: Any = raw
    for name in parents:
        if isinstance(level, list) and name.isdigit() and int(name) < len(level):
            level = level[int(name)]
        elif isinstance(level, dict):
            if level.get(name) is None:
                level[name] = {}
            level = level[name]
        else:
            raise RecipeError(f"override {override!r}: there is no {name!r}", "Name list entries by number, from 0.")
    if isinstance(level, list) and last.isdigit() and int(last) <= len(level):
        level[int(last) : int(last) + 1] = [value]
    elif isinstance(level, dict):
        level[last] = value
    else:
        raise RecipeError(f"override {override!r}: there is no {last!r}", "Name list entries by number, from 0.")


def explained(error: ValidationError, root: type[BaseModel] = Recipe) -> Iterator[str]:
    """What is wrong with settings of the kind `root`: each fault with its dotted key, and the nearest known one."""
    faults = error.errors()
    inside = {item["loc"][:depth] for item in faults for depth in range(len(item["loc"]))}
    for item in faults:
        if item["type"] == "too_short" and item["loc"] in inside:  # for what is in it is wrong
            continue
        location, known = _locate(item["loc"], root)
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
            yield f"unknown key {location!r}" + (f" (nearest known key: {near[0]!r})" if near else "")
        elif item["type"] == "value_error":
            yield (f"{location}: " if location else "") + item["msg"].removeprefix("Value error, ")
        else:
            yield f"{location}: {item['msg']}"


def _locate(parts: Sequence[int | str], root: type[BaseModel]) -> tuple[str, list[str]]:
    """The dotted key of a fault, and the keys that are known where it stands."""
    dotted: list[str] = []
    level: list[type[BaseModel]] = [root]
    known: list[str] = []
    entry = tag = False
    for part in parts:
        if tag:  # pydantic puts the tag of a union ("openhermes") here; it is no key of the file
            level, tag = [cls for cls in level if part in _tags(cls)], False
            continue
        dotted.append(str(part))
        if entry:  # a position or a name that users chose
            entry, tag = False, len(level) > 1
            continue
        known = sorted({name for cls in level for name in cls.model_fields})
        kinds = [cls.model_fields[str(part)].annotation for cls in level if part in cls.model_fields]
        level = [cls for kind in kinds for cls in _settings(kind)]
        entry = any(get_origin(kind) in (tuple, dict) for kind in kinds)
    return ".".join(dotted), known


def _settings(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for inner in get_args(annotation) for cls in _settings(inner)]


def _tags(cls: type[BaseModel]) -> tuple[Any, ...]:
    fields = [field for name, field in cls.model_fields.items() if name in ("source", "engine")]
    return tuple(tag for field in fields for tag in get_args(field.annotation))
