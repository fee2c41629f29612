"""`push_to_hub: true`: the finished folder is published as `boost-qa publish adapter` does it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from boost_qa.errors import BoostQAError
from boost_qa.models import trainable
from boost_qa.publish.adapter import publish_adapter
from boost_qa.publish.base import find_base
from boost_qa.publish.repository import Repository, Target
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


def check(target: Target, settings: Settings, parts: Parts) -> None:
    """Make sure, before hours of training, that the result can be published.

    Raises:
        PublishError: if the name, the token, its rights or the base stand against it.
        HubError: if the Hub cannot be reached.
    """
    repository = Repository(target)
    repository.check()
    revision = parts.revision or trainable.revision(parts.source)
    find_base({"model": {"name": settings.model.model_name_or_path, "revision": revision}}, None, repository)


def push(folder: Path, target: Target, console: Console) -> None:
    """Publish a finished training; nothing is sent if it was published before.

    Raises:
        BoostQAError: what `publish_adapter` raises; it says how to publish the folder later.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    try:
        published = publish_adapter(folder, target, say=say)
    except BoostQAError as error:
        later = f"The training is done; publish it with: boost-qa publish adapter {folder} {target.name}"
        raise type(error)(error.what, f"{error.remedy}\n  {later}".strip()) from error
    say(f"{'published' if published.change else 'published before'}: {published.url} ({published.revision})")
