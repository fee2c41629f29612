"""Changes of a training that make it smaller, in the words of its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from boost_qa.train.workload import Training

# Values of `checkpoint_every`, from none to all.
CHECKPOINTING = (0, 4, 2, 1)
# Shorter rows would cut dialogues, and leave a GPU idle between its kernels.
LEAST_ROW = 2048

Change = dict[str, Any]

# Keys of a recipe, or options of the command, for each field of `Training` that a change may name.
WORDS = {
    "checkpoint_every": "checkpoint_every: {}",
    "row_tokens": "max_length times per_device_train_batch_size: {}",
    "method": "load_in_4bit: true",
    "dropout": "lora_dropout: {}",
    "input_casts": "input_casts: false",
    "attention": "attn_implementation: {}",
    "optimizer": "optim: {}",
    "devices": "--gpus {}",
    "sharding": "--sharding {}",
    "accumulation": "accelerator_config: {{gradient_accumulation_kwargs: {{sync_each_batch: true}}}}",
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that makes a training fit.

    Attributes:
        change: fields of `Training`.
        gib: memory after it.
        slower: seconds after it over seconds before it.
    """

    change: Change
    gib: float
    slower: float

    def __str__(self) -> str:
        words = " and ".join(WORDS[key].format(value) for key, value in self.change.items())
        time = f"{abs(self.slower - 1):.0%} {'slower' if self.slower > 1 else 'faster'}"
        return f"{words}: {self.gib:.1f} GiB, {time if abs(self.slower - 1) >= 0.005 else 'as fast'}"


def changes(training: Training) -> Iterator[Change]:
    """Changes of the training, of one kind and of two or three together; in each kind from mild to severe."""
    every, rows, storage = _checkpointing(training), _rows(training), _storage(training)
    yield from (*every, *rows, *storage, *_habits(training))
    for first in every:
        for second in (*storage, *rows):
            yield first | second
    for first in every[-1:]:
        for second in storage:
            for third in rows:
                yield first | second | third
    yield from _devices(training)


def choose(found: Iterable[Remedy]) -> tuple[Remedy, ...]:
    """Of remedies in the order of `changes`: those of the fewest kinds and those with more devices, of each kind
    the mildest; the least slowdown first, more devices last.
    """
    found = list(found)
    fewest = min((len(each.change) for each in found if "devices" not in each.change), default=0)
    mildest: dict[tuple[str, ...], Remedy] = {}
    for each in found:
        if len(each.change) == fewest or "devices" in each.change:
            mildest.setdefault(tuple(each.change), each)
    return tuple(sorted(mildest.values(), key=lambda each: ("devices" in each.change, each.slower)))


def _checkpointing(training: Training) -> list[Change]:
    now = training.checkpoint_every
    return [{"checkpoint_every": every} for every in CHECKPOINTING if every and (every < now or not now)]


def _rows(training: Training) -> list[Change]:
    shorter = [training.row_tokens // part for part in (2, 4)]
    return [{"row_tokens": row} for row in shorter if row >= LEAST_ROW]


def _storage(training: Training) -> list[Change]:
    """Weights or optimizer states of fewer bits."""
    if training.method == "lora" and training.sharding in ("none", "ddp"):
        return [{"method": "qlora"}]
    if training.method == "full" and "8bit" not in training.optimizer and training.sharding != "zero3":
        return [{"optimizer": "adamw_8bit"}]
    return []


def _habits(training: Training) -> list[Change]:
    """What takes memory and can be left."""
    found: list[Change] = []
    if training.method != "full" and training.dropout:
        found.append({"dropout": 0.0})
    if training.method != "full" and training.input_casts:
        found.append({"input_casts": False})
    if training.sharding == "fsdp" and training.accumulation > 1:
        found.append({"accumulation": 1})  # as gradients are then reduced after every micro batch
    if training.dense_mask:
        found.append({"attention": "torch_varlen"})
    return found


def _devices(training: Training) -> Iterator[Change]:
    if training.method == "qlora":
        return
    sharding = training.sharding if training.sharded else "fsdp"
    for devices in (2, 4, 8, 16):
        if devices > training.devices:
            yield {"devices": devices, "sharding": sharding}
            yield {"devices": devices, "sharding": sharding, "checkpoint_every": 1}
