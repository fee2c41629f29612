"""Which dataset on the Hub a training's rows are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from boost_qa.cards.adapter import Data
from boost_qa.errors import BoostQAError, PublishError
from boost_qa.publish.repository import Repository, Target
from boost_qa.publish.upload import Say

_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


def find_data(run: Mapping[str, Any], given: str | None, hub: Repository, say: Say = lambda text: None) -> Data | None:
    """The dataset of a finished training, as the Hub has it; None if it is one of this machine.

    Args:
        run: its run.json.
        given: ID or ID@REVISION, where run.json names a local one.
        hub: where the model is published.
        say: is told why a dataset that run.json names is left out.

    Raises:
        PublishError: if there is no such dataset, or its rows are not those that were trained on.
        HubError: if the Hub fails.
    """
    facts = run["data"]
    named, at = str(facts["dataset"]), facts["revision"]
    if not given:
        # what lay on the machine of the training has no revision; a folder of that name may be here by chance
        return _named(named, at, hub, say) if at and _ID.fullmatch(named) else None
    id, _, revision = given.partition("@")
    info = Repository(Target(id, "dataset"), hub.api, hub.patience).info(revision or None)
    if info is None:
        raise PublishError(f"there is no dataset {given} on the Hub", "Publish it first: boost-qa publish dataset ...")
    if (named, at) not in ((id, info.sha), (info.id, info.sha)):
        _check_rows(run, id, str(info.sha))
    return Data(info.id, info.sha)  # by the name that it has now


def _named(id: str, revision: str, hub: Repository, say: Say) -> Data | None:
    """The dataset that was trained on, unless the card would name what its readers cannot see."""
    info, model = Repository(Target(id, "dataset"), hub.api, hub.patience).info(revision), hub.info()
    private = hub.target.private if model is None else bool(model.private)
    if info is None or (info.private and not private):
        why = "is private" if info else "is not on this Hub (any more)"
        say(f"the dataset {id} {why}, so the card does not name it")
        return None
    return Data(info.id, revision)


def _check_rows(run: Mapping[str, Any], id: str, revision: str) -> None:
    from boost_qa.train.arguments import DialogueArguments
    from boost_qa.train.dialogues import load_dialogues

    known = {each.name for each in fields(DialogueArguments)}
    settings = run["recipe"].get("resolved") or run["recipe"]["given"]  # older ones have no other
    same = {key: value for key, value in settings.items() if key in known}
    try:
        facts = load_dialogues(DialogueArguments(**same | {"dataset": id, "dataset_revision": revision})).facts
    except BoostQAError as error:
        raise PublishError(f"{id} cannot be what was trained on: {error.what}", error.remedy) from error
    for key in ("fingerprint", "validation_fingerprint"):
        if facts[key] != run["data"].get(key):
            raise PublishError(
                f"the rows of {id} at {revision} are not those that were trained on",
                "Name the dataset and the revision that was trained on, or leave --dataset out.",
            )
