"""Dialogues to train on: from a run, an exported folder, a file or the Hub, as rows of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset

from boost_qa.builder import load
from boost_qa.contents import ALL
from boost_qa.errors import SourceError
from boost_qa.plan import find_run
from boost_qa.rows import ROLES
from boost_qa.run_folder import RunFolder
from boost_qa.splits import validation_records
from boost_qa.train.arguments import DialogueArguments
from boost_qa.train.supervision import need_speakers
from boost_qa.types import digest

# ShareGPT's names and those of messages; a name that is not here is an error, for a model would learn to write it.
_ROLES = ROLES | {"user": "user", "assistant": "assistant", "system": "system"}
_FILES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Dialogues:
    """What is trained and evaluated on; `facts` says where it came from."""

    train: Dataset
    validation: Dataset | None
    facts: dict[str, Any]


def load_dialogues(ours: DialogueArguments) -> Dialogues:
    """The dataset of a recipe, split into what is trained on and what is held out.

    Raises:
        SourceError: if the dataset, its config, split or columns are not there, or it is empty.
        RunError: `dataset: boost_qa`, and its recipe has no run yet.
    """
    revision = _commit(ours)
    train = _load(ours, ours.dataset_split, revision)
    if not len(train):
        raise SourceError(f"{ours.dataset}: split {ours.dataset_split!r} has no rows", "Give another dataset_split.")
    need_speakers(ours.loss_on, train.column_names, ours.dataset)  # type: ignore[arg-type]
    held: Dataset | None = None
    if ours.validation_split:
        held = _load(ours, ours.validation_split, revision)
    elif ours.validation:
        train, held = hold_out(train, ours.validation, ours.validation_seed)
    if ours.dataset_rows is not None:
        train = draw(train, ours.dataset_rows, ours.dataset)
    facts = {
        "dataset": ours.dataset,
        "config": ours.dataset_config,
        "split": ours.dataset_split,
        "revision": revision,
        "fingerprint": digest_rows(train),
        "validation_fingerprint": digest_rows(held) if held is not None else None,
        "rows": len(train),
        "validation_rows": len(held) if held is not None else 0,
    }
    return Dialogues(train, held, facts)


def hold_out(rows: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split rows for training and validation by records, so that no record is in both.

    All dialogues about a record, and about records it is the analogue of, stay together. TRL's own
    `test_split_size` draws with no seed, and each process of a job for itself.

    Raises:
        SourceError: if nothing or everything would be held out.
    """
    of = [_record(row, number) for number, row in enumerate(_light(rows))]
    pairs = [(own, other) for own, other in of if other]
    names = {f"{seed}:{id}" for pair in of for id in pair if id}
    held = validation_records(sorted(names), [(f"{seed}:{a}", f"{seed}:{b}") for a, b in pairs], share)
    inside = [f"{seed}:{own}" in held for own, _ in of]
    if not any(inside) or all(inside):
        raise SourceError(
            f"validation: {share} of {len(rows)} rows holds out {sum(inside)} of them",
            "Give a larger share, another validation_seed, or a validation_split.",
        )
    numbers = range(len(rows))
    return rows.select([n for n in numbers if not inside[n]]), rows.select([n for n in numbers if inside[n]])


def draw(rows: Dataset, n: int, name: str) -> Dataset:
    """`n` rows, drawn at random, the same ones each time; smaller draws are parts of larger ones.

    Raises:
        SourceError: if there are fewer.
    """
    if n > len(rows):
        raise SourceError(f"dataset_rows: {n}, and {name} has {len(rows)} to train on", f"Give at most {len(rows)}.")
    return rows.select(sorted(np.random.default_rng(0).permutation(len(rows))[:n]))


def to_messages(row: Mapping[str, Any], number: int) -> tuple[list[dict[str, str]], list[str]]:
    """A row as messages (role/content), and who speaks each assistant turn (`assistant` if the row does not say).

    Raises:
        SourceError: naming the row and what is wrong with it.
    """
    where = f"row {row.get('id') or number}"
    turns, names = (
        (row["messages"], ("role", "content")) if row.get("messages") else (row.get("conversations"), ("from", "value"))
    )
    if not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise SourceError(
            f"{where}: no messages", "A row has `messages` (role/content) or `conversations` (from/value)."
        )
    said = [tuple(turn.get(name) for name in names) for turn in turns]
    for role, text in said:
        if role not in _ROLES:
            raise SourceError(f"{where}: unknown speaker {role!r}", f"Known are: {', '.join(_ROLES)}.")
        if not isinstance(text, str) or not text.strip():
            raise SourceError(f"{where}: a turn of {role!r} is empty", "Remove the row, or give the turn its text.")
    messages = [{"role": _ROLES[str(role)], "content": str(text)} for role, text in said]
    _check_order([message["role"] for message in messages], where)
    speakers = row.get("speakers") or [message["role"] for message in messages]
    if len(speakers) != len(messages):
        raise SourceError(f"{where}: {len(messages)} messages and {len(speakers)} speakers", "Give one for each.")
    pairs = zip(messages, speakers, strict=True)
    return messages, [speaker for message, speaker in pairs if message["role"] == "assistant"]


def digest_rows(rows: Dataset) -> str:
    """16 hex characters of what is said in the rows, in their order."""
    columns = [name for name in ("messages", "conversations", "speakers") if name in rows.column_names]
    return digest(*(repr(row) for row in rows.select_columns(columns)))[:16] if columns else ""


def _check_order(roles: Sequence[str], where: str) -> None:
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in turns:
        raise SourceError(f"{where}: no assistant turn, so nothing to learn", "Give a dataset of dialogues.")
    expected = ["user", "assistant"] * (len(turns) // 2)
    if list(turns) != expected:
        raise SourceError(
            f"{where}: turns are {', '.join(roles)}",
            "After an optional system turn, user and assistant take turns, and the assistant is last.",
        )


def _record(row: Mapping[str, Any], number: int) -> tuple[str, str | None]:
    """The record a row is about and its analogue; the row itself if it does not say."""
    own = row.get("source_id")
    if own is None:
        return f"row:{number}", None
    source = row.get("source") or ""
    other = row.get("related_source_id")
    return f"{source}/{own}", f"{source}/{other}" if other else None


def _light(rows: Dataset) -> Dataset:
    keep = [name for name in ("source", "source_id", "related_source_id") if name in rows.column_names]
    return rows.select_columns(keep) if keep else [{} for _ in range(len(rows))]


def _load(ours: DialogueArguments, split: str, revision: str | None) -> Dataset:
    path = Path(ours.dataset).expanduser()
    try:
        if ours.dataset == "boost_qa":
            return _from_run(find_run(ours.dataset_recipe), ours, split)
        if path.is_file():
            if path.suffix not in _FILES:
                raise SourceError(f"{path}: not a file of dialogues", f"Give one of {', '.join(_FILES)}.")
            if split == ours.validation_split and "[" not in split:
                remedy = "Set validation: 0.02 to hold records out, or a slice such as validation_split: train[:5%]."
                raise SourceError(f"{path}: a file is one split, so all of it is trained on", remedy)
            # that split, whatever it is called; slices work
            return datasets.load_dataset(
                _FILES[path.suffix], data_files={split.partition("[")[0]: str(path)}, split=split
            )
        if RunFolder(path).begun:  # an export has a recipe.yaml, too
            return _from_run(RunFolder(path), ours, split)
        name = str(path) if path.is_dir() else ours.dataset
        return datasets.load_dataset(name, ours.dataset_config, split=split, revision=revision)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"dataset {ours.dataset!r}"
            + (f", config {ours.dataset_config!r}" if ours.dataset_config else "")
            + f", split {split!r}: {first}",
            "Give `boost_qa`, a folder, a file, or a dataset of the Hub (`org/name`; private: `hf auth login`).",
        ) from error


def _from_run(run: RunFolder, ours: DialogueArguments, split: str) -> Dataset:
    if not run.finished:  # `load` would finish it: hours of generation, at the start of a training
        remedy = f"boost-qa generate {run.recipe} --output {run.path}"
        raise SourceError(f"the run in {run.path} is not finished", remedy)
    return load(ours.dataset_config or ALL, split=split, run=str(run.path))


def _commit(ours: DialogueArguments) -> str | None:
    """The commit of a dataset on the Hub; None for what is here."""
    if ours.dataset == "boost_qa" or Path(ours.dataset).expanduser().exists():
        return None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return HfApi().dataset_info(ours.dataset, revision=ours.dataset_revision).sha
    except HFValidationError as error:
        raise SourceError(
            f"no dataset {ours.dataset!r}", "No such path, and no name on the Hub (`org/name`)."
        ) from error
    except HfHubHTTPError as error:
        raise SourceError(
            f"dataset {ours.dataset!r} on the Hub: {str(error).strip().splitlines()[0]}",
            "Check the name and dataset_revision; for a private or gated one run `hf auth login` first.",
        ) from error
    except Exception:  # not reachable; what the local cache has of it will be read, and `_load` says if that is nothing
        return ours.dataset_revision
