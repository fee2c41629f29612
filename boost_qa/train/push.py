"""`push_to_hub: true`: the finished folder is published as `boost-qa publish adapter` does it."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from boost_qa.errors import BoostQAError, HubError, PublishError
from boost_qa.models import trainable
from boost_qa.publish.adapter import publish_adapter
from boost_qa.publish.base import find_base
from boost_qa.publish.repository import MAIN, Repository, Target
from boost_qa.train.preflight import Parts
from boost_qa.train.settings import Settings


def target_of(settings: Settings) -> Target | None:
    """Where the recipe wants the result; None if nowhere.

    Raises:
        PublishError: if the recipe's names cannot be those of a repository and a branch.
    """
    sft = settings.sft
    if not sft.push_to_hub:
        return None
    return Target(str(sft.hub_model_id), "model", sft.hub_revision or "main", private=bool(sft.hub_private_repo))


def check_rights(target: Target) -> None:
    """Make sure, before anything is loaded, that the result may be published.

    Raises:
        PublishError: if the name, the token or its rights stand against it.
        HubError: if the Hub cannot be reached.
    """
    Repository(target).check()


def check_base(target: Target, settings: Settings, parts: Parts) -> None:
    """Make sure, before hours of training, that the adapter's base can be named.

    Raises:
        PublishError: if it is no model of the Hub.
        HubError: if the Hub cannot be reached.
    """
    revision = parts.revision or trainable.revision(parts.source)
    try:
        named = {"name": settings.model.model_name_or_path, "revision": revision}
        find_base({"model": named}, None, Repository(target))
    except PublishError as error:
        base = "--base-model organisation/name"
        remedy = f"Leave push_to_hub out, and publish the result: {command(settings.sft.output_dir, target)} {base}"
        raise PublishError(error.what, remedy) from error


def push(folder: Path, target: Target, console: Console) -> None:
    """Publish a finished training; nothing is sent if it was published before.

    Raises:
        HubError: whatever stands against it now; it says how to publish the folder later.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    try:
        published = publish_adapter(folder, target, say=say)
    except BoostQAError as error:
        later = f"The training is done; publish it with: {command(folder, target)}"
        raise HubError(error.what, f"{error.remedy}\n  {later}".strip()) from error
    say(f"{'published' if published.change else 'published before'}: {published.url} ({published.revision})")


def command(folder: str | Path, target: Target) -> str:
    """What publishes the folder by hand."""
    private = ["--private"] if target.private else []
    branch = ["--revision", target.revision] if target.revision != MAIN else []
    return shlex.join(["boost-qa", "publish", "adapter", str(folder), target.name, *private, *branch])
