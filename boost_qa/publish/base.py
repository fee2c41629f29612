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
from boost_qa.errors import PublishError
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
    base = Base(id, info.sha, licence, name, link, gated=bool(info.gated))
    if id == trained_on or _same_weights(Path(trained_on).expanduser(), there.listing(info.sha)):
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
        HubError: if the Hub fails.
    """
    shape = json.loads(hub.other(base.id).read("config.json", str(base.revision)))
    shape = shape.get("text_config") or shape
    layers, width = _reach(adapter)
    wanted = {"num_hidden_layers": None if config.get("layers_to_transform") else layers, "hidden_size": width}
    for key, value in wanted.items():
        if value is not None and shape.get(key, value) != value:
            raise PublishError(f"{base.id} is not its base: {key} is {shape[key]} there, {value} in the adapter", _GIVE)


_GIVE = "Name the model that it was trained on: --base-model organisation/name, or organisation/name@revision."


def _named(trained_on: str, trained_at: str | None, given: str | None) -> tuple[str, str | None]:
    if given:
        id, _, revision = given.partition("@")
        return id, revision or (trained_at if id == trained_on else None)
    if of_catalogue := models.base(trained_on):
        return of_catalogue, None
    if cached := _SNAPSHOT.fullmatch(Path(trained_on).expanduser().as_posix()):
        return f"{cached['user']}/{cached['name']}", cached["commit"]
    if _ID.fullmatch(trained_on) and not Path(trained_on).exists():
        return trained_on, trained_at
    raise PublishError(f"the adapter was trained on {trained_on}, which is no model of the Hub", _GIVE)


def _same_weights(folder: Path, there: Mapping[str, Remote]) -> bool:
    """Whether a local folder has the very weights that the Hub has."""
    here = [Local(path.name, path) for path in sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
    return bool(here) and all(file.is_there(there.get(file.path)) for file in here)


def _reach(adapter: Path) -> tuple[int | None, int | None]:
    """How many layers an adapter is for, and how wide they are; None where its names do not say."""
    from safetensors import safe_open

    layers, width = set(), None
    with safe_open(adapter, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  not a mapping
            if found := re.search(r"\.layers\.(\d+)\.", name):
                layers.add(int(found[1]))
            if re.search(r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_A\b", name):
                width = file.get_slice(name).get_shape()[1]
    return (max(layers) + 1 if layers else None), width
