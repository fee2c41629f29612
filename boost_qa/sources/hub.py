"""Data files of a source, on the Hub.

Files are downloaded into the Hub's cache and read by `formats`, not by the readers of `datasets`: these
load a JSON list as a whole (OpenHermes 2.5 is one of 1.9 GB), and one bad value stops them without
saying where. `datasets` says which files a config and split consist of.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from boost_qa.errors import SourceError
from boost_qa.sources.files import SUFFIXES, DataFile


@dataclass(frozen=True, slots=True)
class HubFiles:
    """The data files of one split at one commit; `licence` as the dataset card declares it."""

    files: list[DataFile]
    commit: str
    licence: str | None


def hub_files(repo: str, revision: str | None, config: str | None, split: str) -> HubFiles:
    """Find the files of a dataset on the Hub; nothing large is read yet.

    Raises:
        SourceError: the Hub cannot be reached, or there is no such dataset, revision, config or split, or
            its files are of a kind that cannot be read.
    """
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetsError
    from huggingface_hub import HfApi, HfFileSystem
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        info = HfApi().dataset_info(repo, revision=revision)
        commit = cast(str, info.sha)
        builder = load_dataset_builder(repo, config, revision=commit)
    except HFValidationError as error:
        raise SourceError(f"{repo!r} is no dataset id: {error}", "Write it as owner/name.") from error
    except (OSError, HTTPError, DatasetsError, ValueError, RuntimeError) as error:
        remedy = (
            "Check repo, revision and config, and HF_TOKEN where the dataset is private or gated. Without the "
            "Hub: download the files elsewhere and give their path instead of repo."
        )
        raise SourceError(f"{repo}: cannot be read from the Hub: {error}", remedy) from error
    splits: dict[str, list[str]] = dict(builder.config.data_files or {})
    if split not in splits:
        known = ", ".join(map(str, splits)) or "none"
        raise SourceError(f"{repo}: no split {split!r}", f"Set split to one of: {known}.")
    filesystem = HfFileSystem()
    names = sorted(url.split(f"@{commit}/", 1)[1] for url in splits[split])
    files = [_remote(filesystem, repo, commit, name, (OSError, HTTPError)) for name in names]
    unknown = [file.name for file in files if not file.suffix]
    if unknown:
        remedy = f"Convert it to one of {', '.join(SUFFIXES)} and give its path."
        raise SourceError(f"{repo}: {unknown[0]} is not a kind of file that can be read", remedy)
    declared = info.card_data.get("license") if info.card_data else None
    return HubFiles(files, commit, declared if isinstance(declared, str) else None)


def _remote(filesystem: Any, repo: str, commit: str, name: str, errors: tuple[type[Exception], ...]) -> DataFile:
    peek = partial(filesystem.open, f"datasets/{repo}@{commit}/{name}", "rb", block_size=2**20)
    return DataFile(name, partial(_downloaded, repo, commit, name), peek, errors)


def _downloaded(repo: str, commit: str, name: str) -> IO[bytes]:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit)).open("rb")
