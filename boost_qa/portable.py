"""What leaves this machine names no place on it: paths become names, addresses of servers a neutral one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

SERVER = "http://localhost:8000/v1"
"""Stands for the address of any server of a recipe."""

# `/a/b`, `~/a`, `~user/a`, `./a`, `../a`, `C:\a`, `\\server\a`, `file:///a`; one line, from its first character on
_PATH = re.compile(r"(/+[^\s/]|~[\w.-]*([/\\]|$)|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\\w|file:)[^\n\r]*")


def portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe for generation, as `Recipe.model_dump(mode="json")` gives it, that is good on any machine.

    Local paths are reduced to their last names, and the address of each server is `SERVER`. It is a recipe still.
    """
    whole = _neutral(recipe)
    for source in whole["sources"]:
        _reduce(source, "path")
        _each(source, portable_value, "tasks")
    for model in whole["models"].values():
        _reduce(model, "tokenizer")
        _each(model, portable_model, "model")
        _each(model, portable_value, "extra_body", "revision")
    star = whole.get("star") or {}
    _each(star, portable_model, "small", "large")
    _each(star.get("bank") or {}, portable_model, "embedder")
    pairs = [part for pair in star.get("pairs", {}).values() for part in pair.values() if isinstance(part, dict)]
    for scenario in filter(None, (*whole["scenarios"].values(), *(part for part in pairs if "cast" in part))):
        _each(scenario, portable_model, "embedder")
        for agent in scenario["cast"].values():
            _reduce(agent, "prompt")
    checks = whole.get("checks") or {}
    for benchmark in (checks.get("contamination") or {}).get("benchmarks") or ():
        _reduce(benchmark, "path")
    judges = filter(None, [star.get("judge"), (checks.get("answers") or {}).get("judge")])
    for agent in (*(part for part in pairs if "cast" not in part), *judges):
        _reduce(agent, "prompt")
    return whole


def names_files(recipe: Mapping[str, Any]) -> bool:
    """Whether the recipe needs files of its user's, which its portable form only has the names of."""
    return portable(recipe) != _neutral(recipe)


def portable_value(value: Any) -> Any:
    """JSON in which absolute paths, however deep, are reduced to their last names.

    Paths are those of any system (`~/...`, drives and file:// addresses, too), and those that begin with `./` or
    `../`. Inside longer text the user's home directory becomes `~`. Doing it twice changes nothing more.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): portable_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [portable_value(inner) for inner in value]
    return value


def portable_study(study: Mapping[str, Any]) -> dict[str, Any]:
    """A study's settings for reading elsewhere: also what stands behind `=`, and without addresses of servers."""

    def neutral(key: str, value: Any) -> Any:
        if isinstance(value, str):
            name, equals, text = value.partition("=")
            if equals and re.fullmatch(r"[\w.\-]+", name):
                return f"{name}={neutral(name, text)}"
            return SERVER if key.endswith("_url") else _text(value)
        if isinstance(value, Mapping):
            return {inner: neutral(inner, each) for inner, each in value.items()}
        return [neutral(key, each) for each in value] if isinstance(value, list | tuple) else value

    return {key: neutral(key, value) for key, value in study.items()}


def portable_model(name: str | None) -> str | None:
    """A model's name or Hub id as it is; the last name of a folder or GGUF file."""
    return name if name is None else last_name(name) if name.endswith(".gguf") else _text(name)


def last_name(path: str) -> str:
    """The last part of a path, absolute or not, of any system; of a file:// address without its escapes."""
    plain = unquote(re.sub(r"^(file:)+", "", path)) if path.startswith("file:") else path
    parts = [part for part in re.split(r"[/\\]", plain) if part]
    return parts[-1] if parts else path


def _neutral(recipe: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = copy.deepcopy(dict(recipe))
    for model in whole["models"].values():
        _each(model, lambda _: SERVER, "base_url")
    return whole


def _text(text: str) -> str:
    home = str(Path.home())
    if len(home) > 1:  # a home of `/` says nothing about anybody
        text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
    return last_name(text) if _PATH.fullmatch(text) else text


def _reduce(settings: dict[str, Any], key: str) -> None:
    _each(settings, last_name, key)


def _each(settings: dict[str, Any], change: Callable[[Any], Any], *keys: str) -> None:
    """Change the values of those keys that are there and not null."""
    settings.update({key: change(settings[key]) for key in keys if settings.get(key) is not None})
