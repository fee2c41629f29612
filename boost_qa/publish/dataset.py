"""A run, or what was exported of one, as a dataset on the Hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from boost_qa.cards.dataset import PLACE, TAG
from boost_qa.contents import ALL, SPLITS
from boost_qa.errors import HubError, PublishError
from boost_qa.export import content_digest, export
from boost_qa.plan import find_run
from boost_qa.publish.patience import Patience
from boost_qa.publish.release import CARD, Local, Release
from boost_qa.publish.repository import Repository, Target
from boost_qa.publish.secrets import known_secrets, refuse_secrets, without
from boost_qa.publish.send import Published, send
from boost_qa.publish.upload import Say, megabytes

_EXPORTED = re.compile(r"recipe\.yaml|data/[a-z_]+/[a-z]+-\d{5}-of-\d{5}\.parquet")


def publish_dataset(
    source: str | Path, target: Target, *, dry_run: bool = False, say: Say = lambda text: None
) -> Published:
    """Publish all configs and splits of a dataset in one commit, and load a row of each config back from it.

    Args:
        source: a run folder, the recipe name of a run in the user's cache, or a folder that `export` wrote.
        target: where to.
        dry_run: say what would change, and change nothing.
        say: is told what is going on.

    Raises:
        PublishError: if the name, the token, its rights or the source stand against it; nothing was sent.
        RunError: if there is no such run, or it is not finished.
        HubError: if the Hub fails; the repository is as it was, or has the whole release.
    """
    if not _is_export(source):
        find_run(source)  # what is wrong here is said before the Hub is asked
    repository = Repository(target, patience=Patience(say=say))
    repository.check()
    with exported(source) as folder:
        release = dataset_release(folder, target.name)
        refuse_secrets(release.contents(), known=known_secrets(token=repository.token))
        say(f"{len(release.files)} files, {megabytes(sum(file.size for file in release.files))}")

        def look(revision: str) -> None:
            loaded = read_back(folder, target.name, revision, repository.token)
            say(f"loaded back from {revision[:12]}: a row of {', '.join(loaded)}")

        return send(release, repository, dry_run=dry_run, look=look, say=say)


@contextmanager
def exported(source: str | Path) -> Iterator[Path]:
    """The folder of an export: `source` itself, or one made of a run for the time being.

    Raises:
        PublishError: if `source` is an export whose files are not those that its card names.
        RunError: if it is neither an export nor a finished run.
    """
    if _is_export(source):
        folder = Path(source).expanduser()
        _check(folder)
        yield folder
    else:
        run = find_run(source)
        with tempfile.TemporaryDirectory(prefix="boost_qa-") as scratch:
            yield export(run, Path(scratch) / "dataset")


def _is_export(source: str | Path) -> bool:
    folder = Path(source).expanduser()
    return (folder / CARD).is_file() and not (folder / "manifest.json").exists()


def dataset_release(folder: Path, name: str) -> Release:
    """The release of an exported folder under a name on the Hub; files that are no part of an export stay here."""
    card = (folder / CARD).read_text(encoding="utf-8")
    data = _front_matter(card)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = "|".join(re.escape(info["config_name"]) for info in data["dataset_info"])
    shards = rf"data/({names})/({'|'.join(SPLITS)})-[^/]*"
    dialogues = next(info["splits"] for info in data["dataset_info"] if info["config_name"] == ALL)
    return Release(
        [Local(path, folder / path) for path in paths if _EXPORTED.fullmatch(path)],
        card.replace(PLACE, name),
        re.compile(rf"recipe\.yaml|\.boost_qa/.*|{shards}"),
        f"{data.pretty_name}: {sum(split['num_examples'] for split in dialogues)} dialogues",
        f"{_digest(data)}\nMade with boost_qa: https://arxiv.org/abs/2506.02689",
        re.compile(shards),  # `load_dataset` would read them with those of the release
    )


def read_back(folder: Path, name: str, revision: str, token: str | None) -> list[str]:
    """Load the first row of each config from the Hub, and compare it with that of the folder.

    Returns:
        The configs.

    Raises:
        HubError: if a config cannot be loaded, or has another row.
    """
    from datasets import load_dataset

    configs = _front_matter((folder / CARD).read_text(encoding="utf-8"))["configs"]
    splits = {config["config_name"]: config["data_files"][0]["split"] for config in configs}
    for config, split in splits.items():
        here = load_dataset(str(folder), config, split=split, streaming=True)
        try:
            # by its address: a folder of the same name here is not asked for
            address = f"hf://datasets/{name}"
            there = load_dataset(address, config, split=split, streaming=True, revision=revision, token=token)
            same = next(iter(there)) == next(iter(here))
        except Exception as error:
            said = without(str(error).strip().partition("\n")[0], known_secrets(token=token))
            raise HubError(f"published as {revision}, but config {config} does not load back: {said}", _LOAD) from error
        if not same:
            raise HubError(f"published as {revision}, but config {config} loads back with other rows", _LOAD)
    return list(splits)


_LOAD = 'Try load_dataset("user/name", "config", revision="...") by hand; the release itself is complete.'


def _check(folder: Path) -> None:
    """Raises PublishError if the folder is no whole export."""
    data = _front_matter((folder / CARD).read_text(encoding="utf-8"))
    if TAG not in (data.get("tags") or ()) or not (folder / "data").is_dir():
        raise PublishError(f"{folder} is neither a run nor an export", "Give what `boost-qa export RUN DIR` wrote.")
    if _digest(data) != f"content {content_digest(folder / 'data')}":
        raise PublishError(
            f"the files under {folder / 'data'} are not those that {folder / CARD} was written for",
            "Export the run again: boost-qa export RUN DIR",
        )


def _front_matter(card: str) -> DatasetCardData:
    try:
        data = DatasetCard(card, ignore_metadata_errors=True).data
    except (ValueError, yaml.YAMLError):  # not the card of an export
        return DatasetCardData()
    assert isinstance(data, DatasetCardData)
    return data


def _digest(data: DatasetCardData) -> str:
    """What the card says of the content of all files."""
    match data.get("configs"):
        case [{"description": description}, *_]:
            return str(description)
    return "content unknown"
