"""Dialogues to training rows: token ids and labels, packed, and counted on the way."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from datasets import Dataset
from trl import pack_dataset

from boost_qa.errors import SourceError
from boost_qa.train.dialogues import to_messages
from boost_qa.train.settings import Settings
from boost_qa.train.supervision import labels, supervised
from boost_qa.train.template import DialogueTokenizer


@dataclass(frozen=True)
class Counts:
    """What the training rows hold. Tokens are those of one epoch.

    Args:
        dialogues: rows of the dataset that are trained on.
        dropped: rows left out, by reason.
        tokens: of all dialogues; `supervised` of them carry loss; `padded` with what fills up the batches.
        speakers: by who spoke: tokens of assistant turns, and how many of them carry loss.
        longest: tokens of the longest dialogue.
        pairs: pairs of tokens that attend to each other, half the squares of the dialogues' lengths.
        rows: rows that are fed, packed or not.
        fill: share of the packed rows that is not empty; None without packing.
        accumulation: gradient_accumulation_steps.
        steps: optimiser steps of all epochs.
        epochs: number of epochs.
    """

    dialogues: int
    dropped: dict[str, int]
    tokens: int
    supervised: int
    padded: int
    speakers: dict[str, tuple[int, int]]
    longest: int
    pairs: int
    rows: int
    fill: float | None
    accumulation: int
    steps: int
    epochs: float


@dataclass(frozen=True)
class Rows:
    """Rows of `input_ids` and `labels` (and `seq_lengths` where packed), ready for the trainer."""

    train: Dataset
    validation: Dataset | None
    counts: Counts


def prepare(
    train: Dataset, validation: Dataset | None, tokenizer: DialogueTokenizer, settings: Settings, devices: int
) -> Rows:
    """Tokenise, mark what carries loss, leave out what is too long, pack, and count.

    Args:
        devices: processes that share each step.

    Raises:
        SourceError: naming the row, if one is not a dialogue or too long, or no row is left.
    """
    encoded = _encode(train, tokenizer, settings)
    kept, dropped = _select(encoded, settings, tokenizer)
    if not len(kept):
        raise SourceError(
            f"{settings.ours.dataset}: of {len(train)} rows none is left to train on ({_reasons(dropped)})",
            "Raise max_length, or choose another loss_on.",
        )
    held = None
    if validation is not None:
        held, _ = _select(_encode(validation, tokenizer, settings), settings, tokenizer)
    rows = _pack(kept, *_packing(settings))
    held_rows = None if held is None else _pack(held, *_packing(settings))
    return Rows(rows, held_rows, _count(kept, rows, dropped, settings, devices))


def assume(dialogues: int, tokens: int, settings: Settings, devices: int) -> Counts:
    """Counts for a dataset that is not at hand: log-normal lengths around a mean, two thirds of the tokens with loss.

    Args:
        dialogues: how many.
        tokens: of a dialogue, on average.
    """
    fake, rows = _assumed(dialogues, tokens, *_packing(settings))
    return _count(fake, rows, {}, settings, devices)


@cache
def _assumed(dialogues: int, tokens: int, most: int, strategy: str | None) -> tuple[Dataset, Dataset]:
    spread = 0.5  # of the logarithm
    drawn = np.random.default_rng(0).lognormal(math.log(tokens) - spread**2 / 2, spread, dialogues)
    lengths = np.clip(drawn.round().astype(int), 8, most).tolist()
    fake = Dataset.from_dict(
        {
            "input_ids": [[0] * length for length in lengths],
            "labels": [[0] * length for length in lengths],
            "speakers": [["assistant"]] * dialogues,
            "turns": [[[length - length * 2 // 3, length]] for length in lengths],
            "chosen": [[True]] * dialogues,
        }
    )
    return fake, _pack(fake, most, strategy)


def _encode(rows: Dataset, tokenizer: DialogueTokenizer, settings: Settings) -> Dataset:
    loss_on = settings.ours.loss_on

    def encode(row: dict[str, Any], number: int) -> dict[str, Any]:
        messages, speakers = to_messages(row, number)
        if loss_on == "not_weak" and not row.get("speakers"):
            raise SourceError(
                f"row {row.get('id') or number}: no speakers, which loss_on: not_weak needs", "Drop the row."
            )
        encoded = tokenizer.encode(messages)
        chosen = supervised(speakers, loss_on)  # type: ignore[arg-type]
        return {
            "name": str(row.get("id") or number),
            "input_ids": encoded.ids,
            "labels": labels(encoded.ids, encoded.turns, chosen),
            "speakers": speakers,
            "turns": encoded.turns,
            "chosen": chosen,
        }

    # Not cached: the cache's key would not change with our code or templates.
    return rows.map(
        encode,
        with_indices=True,
        remove_columns=rows.column_names,
        num_proc=settings.sft.dataset_num_proc,
        load_from_cache_file=False,
        desc="Tokenising",
    )


def _select(encoded: Dataset, settings: Settings, tokenizer: DialogueTokenizer) -> tuple[Dataset, dict[str, int]]:
    most, what = int(settings.sft.max_length), settings.ours.too_long
    lengths = _lengths(encoded)
    long = [number for number, length in enumerate(lengths) if length > most]
    dropped: Counter[str] = Counter()
    if long and what == "error":
        worst = max(long, key=lambda number: lengths[number])
        raise SourceError(
            f"{len(long)} of {len(encoded)} dialogues are longer than max_length ({most} tokens); the longest is row "
            f"{encoded[worst]['name']} with {lengths[worst]}",
            "Raise max_length, or set too_long: drop or too_long: cut.",
        )
    if long and what == "drop":
        dropped["too long"] = len(long)
        away = frozenset(long)
        encoded = encoded.select([number for number in range(len(encoded)) if number not in away])
    elif long:
        encoded = encoded.map(lambda row: _cut(row, most), load_from_cache_file=False, desc="Cutting")
    silent = [number for number, row in enumerate(encoded.select_columns(["turns", "chosen"])) if not _learned(row)]
    if silent:
        dropped["no turn carries loss"] = len(silent)
        away = frozenset(silent)
        encoded = encoded.select([number for number in range(len(encoded)) if number not in away])
    return encoded, dict(dropped)


def _learned(row: dict[str, Any]) -> int:
    """Tokens of the row that carry loss."""
    return sum((end - begin) * yes for (begin, end), yes in zip(row["turns"], row["chosen"], strict=True))


def _cut(row: dict[str, Any], most: int) -> dict[str, Any]:
    """The row's first `most` tokens, and what of its turns lies in them."""
    turns = [[min(begin, most), min(end, most)] for begin, end in row["turns"]]
    return {"input_ids": row["input_ids"][:most], "labels": row["labels"][:most], "turns": turns}


def _packing(settings: Settings) -> tuple[int, str | None]:
    """Tokens of a row at most, and how rows are packed, if they are."""
    return int(settings.sft.max_length), settings.sft.packing_strategy if settings.sft.packing else None


def _pack(encoded: Dataset, most: int, strategy: str | None) -> Dataset:
    """TRL's own packing, done here so that the plan counts the very rows that are trained on."""
    rows = encoded.select_columns(["input_ids", "labels"])
    if strategy is None:
        return rows
    return pack_dataset(rows, most, strategy, {"load_from_cache_file": False, "desc": "Packing"})


def _count(kept: Dataset, rows: Dataset, dropped: dict[str, int], settings: Settings, devices: int) -> Counts:
    lengths = _lengths(kept)
    spoken: Counter[str] = Counter()
    learned: Counter[str] = Counter()
    for row in kept.select_columns(["speakers", "turns", "chosen"]):
        for speaker, (begin, end), yes in zip(row["speakers"], row["turns"], row["chosen"], strict=True):
            spoken[speaker] += end - begin
            learned[speaker] += (end - begin) * yes
    sft, tokens = settings.sft, int(lengths.sum())
    per_step = sft.per_device_train_batch_size * devices
    accumulation = int(sft.gradient_accumulation_steps)
    if settings.ours.dialogues_per_step:
        accumulation = max(1, round(settings.ours.dialogues_per_step / (len(kept) / len(rows) * per_step)))
    batches = math.ceil(len(rows) / per_step)
    steps = math.ceil(sft.num_train_epochs * math.ceil(batches / accumulation))
    epochs = float(sft.num_train_epochs)
    if sft.max_steps > 0:
        epochs, steps = epochs * sft.max_steps / steps, int(sft.max_steps)
    return Counts(
        dialogues=len(kept),
        dropped=dropped,
        tokens=tokens,
        supervised=learned.total(),
        padded=_padded(_lengths(rows), settings),
        speakers={speaker: (spoken[speaker], learned[speaker]) for speaker in sorted(spoken)},
        longest=int(lengths.max()),
        pairs=int((lengths.astype(np.int64) ** 2).sum() // 2),
        rows=len(rows),
        fill=tokens / (len(rows) * int(sft.max_length)) if sft.packing else None,
        accumulation=accumulation,
        steps=steps,
        epochs=epochs,
    )


def _lengths(rows: Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([len(ids) for ids in rows.with_format("arrow")["input_ids"]], dtype=np.int64)


def _padded(lengths: np.ndarray[Any, np.dtype[np.int64]], settings: Settings) -> int:
    """Tokens with padding that one epoch computes: each batch is as long as its longest row.

    Packed rows are put end to end, so only the end of a batch is filled up.
    """
    size, multiple = settings.sft.per_device_train_batch_size, settings.sft.pad_to_multiple_of or 1
    order = np.random.default_rng(settings.sft.seed).permutation(len(lengths))
    total = 0
    for begin in range(0, len(order), size):
        batch = lengths[order[begin : begin + size]]
        length = int(batch.sum() if settings.sft.packing else batch.max())
        total += math.ceil(length / multiple) * multiple * (1 if settings.sft.packing else len(batch))
    return total


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
