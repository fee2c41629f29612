"""Which model on the Hub an adapter belongs to: by id and commit, never by a path of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from boost_qa import models
from boost_qa.cards.adapter import Base
from boost_qa.errors import PublishError, RunError
from boost_qa.publish.release import Local, Remote
from boost_qa.publish.repository import Repository

_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_SNAPSHOT = re.compile(r".*/models--(?P<user>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/?")


def find_base(run: Mapping[str, Any], given: str | None, hub: Repository) -> Base:
    """The base of a finished training, as the Hub has it.

    Args:
        run: its run.json.
        given: ID or ID@REVISION, where run.json names no model of the Hub.
        hub: any repository of that Hub.

    Raises:
        PublishError: if run.json names none and none is given, or there is none by that name.
        HubError: if the Hub fails.
    """
    trained_on, trained_at = str(run["model"]["name"]), run["model"]["revision"]
    id, revision = _named(trained_on, trained_at, given)
    there = hub.other(id)
    info = there.info(revision)
    if info is None or info.sha is None:
        raise PublishError(f"there is no model {id}{f' at {revision}' if revision else ''} on the Hub", _GIVE)
    card: Any = info.card_data or {}
    licence, name, link = (card.get(key) for key in ("license", "license_name", "license_link"))
    # by the name that it has now: an older one and one in other letters lead there, too
    base = Base(info.id, info.sha, licence, name, link, gated=bool(info.gated))
    same = _cached(trained_on) == (id, info.sha) or (id == trained_on and trained_at in (revision, info.sha))
    if same or _same_weights(Path(trained_on).expanduser(), there.listing(info.sha)):
        return base
    local = Path(trained_on).name
    return replace(base, trained_on=f"{local} ({trained_at})" if trained_at else local)


def check_fit(base: Base, adapter: Path, config: Mapping[str, Any], hub: Repository) -> None:
    """Make sure that the adapter's layers are those of the base.

    Args:
        base: the model on the Hub.
        adapter: adapter_model.safetensors.
        config: adapter_config.json.
        hub: any repository of that Hub.

    Raises:
        PublishError: if they are not, or the base is gated and this user has no access.
        RunError: if the adapter cannot be read.
        HubError: if the Hub fails.
    """
    shape = json.loads(hub.other(base.id).read("config.json", str(base.revision)))
    shape = shape.get("text_config") or shape
    wanted = _reach(adapter)
    if config.get("layers_to_transform"):
        wanted.pop("num_hidden_layers", None)
    for key, value in wanted.items():
        if shape.get(key, value) != value:
            raise PublishError(f"{base.id} is not its base: {key} is {shape[key]} there, {value} in the adapter", _GIVE)


def shapes(file: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a safetensors file.

    Raises:
        RunError: if there is no such file, or it is not whole.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} cannot be read: {error}", "Give the whole output_dir of a training.") from error


_GIVE = "Name the model that it was trained on: --base-model organisation/name, or organisation/name@revision."


def _named(trained_on: str, trained_at: str | None, given: str | None) -> tuple[str, str | None]:
    if given:
        id, _, revision = given.partition("@")
        return id, revision or (trained_at if id == trained_on else None)
    if of_catalogue := models.base(trained_on):
        return of_catalogue, None
    if cached := _cached(trained_on):
        return cached
    if trained_at and _ID.fullmatch(trained_on) and not Path(trained_on).exists():
        return trained_on, trained_at
    raise PublishError(f"the adapter was trained on {trained_on}, which is no model of the Hub", _GIVE)


def _cached(trained_on: str) -> tuple[str, str] | None:
    """Id and commit of a model in the client's cache; None for any other folder or name."""
    found = _SNAPSHOT.fullmatch(Path(trained_on).expanduser().as_posix())
    return (f"{found['user']}/{found['name']}", found["commit"]) if found else None


def _same_weights(folder: Path, there: Mapping[str, Remote]) -> bool:
    """Whether a local folder has the very weights that the Hub has."""
    here = [Local(path.name, path) for path in sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
    return bool(here) and all(file.is_there(there.get(file.path)) for file in here)


def _reach(adapter: Path) -> dict[str, int]:
    """What the names and shapes in an adapter say of its base, by the keys of config.json."""
    layers, reach = set(), dict[str, int]()
    for name, shape in shapes(adapter).items():
        if found := re.search(r"\.layers\.(\d+)\.", name):
            layers.add(int(found[1]))
        if re.search(r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_A\b", name):
            reach["hidden_size"] = shape[1]
        if re.search(r"\.mlp\.down_proj\.lora_A\b", name):
            reach["intermediate_size"] = shape[1]
    return reach | ({"num_hidden_layers": max(layers) + 1} if layers else {})
