"""What a fine-tuning will do and cost, said before it begins."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from transformers import PretrainedConfig

from boost_qa.errors import RecipeError
from boost_qa.train import cost, telling
from boost_qa.train.dialogues import load_dialogues
from boost_qa.train.gpus import Gpu, gpus
from boost_qa.train.gpus import gpu as known_gpu
from boost_qa.train.preflight import read_config, read_parts
from boost_qa.train.prepare import Counts, assume, prepare
from boost_qa.train.settings import Settings
from boost_qa.train.shapes import shape
from boost_qa.train.template import UNTRAINED
from boost_qa.train.varlen import Attention
from boost_qa.train.workload import Sharding, Training, Work


@dataclass(frozen=True)
class Plan:
    """What is known beforehand; `prediction` is None where no GPU is named or here."""

    counts: Counts
    attention: str
    checkpoint_every: int
    gpu: Gpu | None
    prediction: cost.Prediction | None
    warnings: tuple[str, ...]


def make_plan(
    settings: Settings,
    config: PretrainedConfig,
    counts: Counts,
    devices: int,
    sharding: Sharding | None = None,
    attention: Attention | None = None,
) -> Plan:
    """Counts joined with a prediction of memory and time.

    Args:
        devices: GPUs that share each step.
        sharding: how they share the model; by default what `accelerate launch` has been told.
        attention: what will run here in place of the recipe's; None if nothing will.

    Raises:
        RecipeError: if a dialogue is longer than the model allows, or there are fewer layers than
            `checkpoint_every` names.
    """
    longest = getattr(config, "max_position_embeddings", None)
    if longest and counts.longest > longest:
        raise RecipeError(
            f"a dialogue of {counts.longest} tokens, and the model was made for {longest}",
            f"Set max_length: {longest}, and too_long: drop or cut.",
        )
    used = attention.name if attention else str(settings.model.attn_implementation or "sdpa")
    gpu = this_gpu() if settings.ours.gpu is None else known_gpu(settings.ours.gpu)
    if gpu and attention and torch.cuda.is_available():  # it will run here, whatever the speed is reckoned with
        gpu = replace(gpu, memory_gib=_memory())
    training = _training(settings, counts, used, devices, sharding or _sharding(devices))
    work = Work(
        tokens=counts.tokens,
        padded_tokens=counts.padded,
        supervised=counts.supervised,
        pairs=counts.pairs,
        steps=counts.steps,
        epochs=counts.epochs,
    )
    every = _checkpoint(settings, config, training, work, gpu)
    training = replace(training, checkpoint_every=every)
    prediction = cost.predict(config, training, work, gpu) if gpu else None
    warnings = _warnings(settings, prediction)
    if attention and attention.reason:
        warnings.append(attention.reason)
    return Plan(counts, used, every, gpu, prediction, tuple(warnings))


def plan_recipe(
    settings: Settings, devices: int, sharding: Sharding | None, dialogues: int | None = None, tokens: int = 600
) -> Plan:
    """The plan of a recipe, without loading its weights.

    Args:
        dialogues: reckon with so many dialogues of `tokens` tokens on average, instead of reading the dataset; then
            the tokenizer is not needed either, nor the Hub for the models whose shape is known.

    Raises:
        BoostQAError: for whatever is wrong with the recipe, its model or its dataset.
    """
    if dialogues is not None:
        config = shape(str(settings.model.model_name_or_path)) or read_config(settings)
        return make_plan(settings, config, assume(dialogues, tokens, settings, devices), devices, sharding)
    parts, data = read_parts(settings), load_dialogues(settings.ours)
    rows = prepare(data.train, data.validation, parts.tokenizer, settings, devices)
    return make_plan(settings, parts.config, rows.counts, devices, sharding)


def recognise(name: str, gib: float) -> Gpu | None:
    """The GPU that a driver calls `name`, with the memory it has; None if its speed is not known.

    Args:
        name: such as `NVIDIA H100 80GB HBM3`.
        gib: total memory, as torch sees it.
    """
    written = name.lower()
    words = re.split(r"[^a-z0-9]+", written)

    def is_meant(key: str) -> bool:
        first, *more = key.split("-")
        return first in words and all(word in written for word in more)

    meant = [each for key, each in gpus().items() if is_meant(key)]
    return replace(max(meant, key=lambda each: len(each.name)), memory_gib=gib) if meant else None


def this_gpu() -> Gpu | None:
    """The GPU of this machine; None without one, or if its speed is not known."""
    if not torch.cuda.is_available():
        return None
    return recognise(torch.cuda.get_device_properties(0).name, _memory())


def _memory() -> float:
    """Of this machine's first GPU, in GiB."""
    return float(torch.cuda.get_device_properties(0).total_memory) / 2**30


def shown(plan: Plan) -> Group:
    """The plan for the human eye."""
    counts = plan.counts
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, value in _counted(counts):
        table.add_row(label, value)
    if plan.prediction and plan.gpu:
        table.add_row("", "")
        table.add_row("predicted for", f"{plan.gpu.name}, checkpoint_every: {plan.checkpoint_every}")
        for label, value in telling.describe(plan.prediction):
            table.add_row(label, value)
    speakers = Table("speaker (assistant turns)", "tokens", "with loss", box=None, padding=(0, 2, 0, 0))
    for speaker, (spoken, learned) in counts.speakers.items():
        speakers.add_row(speaker, f"{spoken:,}", f"{learned:,}")
    notes = [Text(f"note: {warning}", style="yellow") for warning in plan.warnings]
    return Group(table, "", speakers, *notes)


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, for run.json and `--json`."""
    return {
        "counts": asdict(plan.counts),
        "attention": plan.attention,
        "checkpoint_every": plan.checkpoint_every,
        "gpu": plan.gpu.name if plan.gpu else None,
        "prediction": telling.as_dict(plan.prediction) if plan.prediction else None,
        "warnings": list(plan.warnings),
    }


def _counted(counts: Counts) -> list[tuple[str, str]]:
    dropped = "".join(f"; {count:,} left out: {reason}" for reason, count in counts.dropped.items())
    fill = "" if counts.fill is None else f", {counts.fill:.1%} full"
    return [
        ("dialogues", f"{counts.dialogues:,}, the longest {counts.longest:,} tokens{dropped}"),
        ("tokens an epoch", f"{counts.tokens:,}, of them {counts.supervised:,} with loss"),
        ("with padding", f"{counts.padded:,}"),
        ("rows", f"{counts.rows:,}{fill}"),
        ("steps", f"{counts.steps:,} ({counts.epochs:g} epochs, gradient accumulation {counts.accumulation})"),
    ]


def _training(settings: Settings, counts: Counts, attention: str, devices: int, sharding: Sharding) -> Training:
    sft, model = settings.sft, settings.model
    row = int(sft.max_length) if sft.packing else counts.longest
    multiple = sft.pad_to_multiple_of or 1
    return Training(
        method=settings.method,
        rank=model.lora_r if model.use_peft else 0,
        targets=tuple(model.lora_target_modules or ()),
        dropout=model.lora_dropout if model.use_peft else 0.0,
        dtype=str(model.dtype),
        autocast=bool(sft.bf16),
        input_casts=settings.ours.input_casts,
        checkpoint_every=0,
        compile_layers=settings.ours.compile_layers,
        optimizer=str(getattr(sft.optim, "value", sft.optim)),
        row_tokens=-(-row // multiple) * multiple * sft.per_device_train_batch_size,
        sharding=sharding,
        devices=devices,
        accumulation=1 if _syncs_each_batch(settings) else counts.accumulation,
        attention=_attention(attention),
    )


def _syncs_each_batch(settings: Settings) -> bool:
    """Whether gradients are shared after each micro batch, so that none waits whole on a device for the step."""
    given = getattr(settings.sft.accelerator_config, "gradient_accumulation_kwargs", None) or {}
    return bool(given.get("sync_each_batch"))


def _attention(name: str) -> Any:
    return "flash" if name.startswith("flash") else name if name in ("torch_varlen", "eager") else "sdpa"


def _sharding(devices: int) -> Sharding:
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        return "fsdp"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        return "zero3"
    return "ddp" if devices > 1 else "none"


def _checkpoint(settings: Settings, config: PretrainedConfig, training: Training, work: Work, gpu: Gpu | None) -> int:
    if settings.ours.checkpoint_every == "auto":
        if gpu is None:  # a card that is not known may be small
            return 1 if torch.cuda.is_available() else 0
        return cost.checkpoint_for(config, training, work, gpu)
    every = int(settings.ours.checkpoint_every)
    if every > config.num_hidden_layers:
        raise RecipeError(
            f"checkpoint_every: {every}, but the model has {config.num_hidden_layers} layers", "0 means none, 1 each."
        )
    return every


def _warnings(settings: Settings, prediction: cost.Prediction | None) -> list[str]:
    found = []
    if settings.method != "full" and settings.ours.template in UNTRAINED:
        found.append(UNTRAINED[settings.ours.template])
    if settings.model.use_peft and (settings.model.lora_modules_to_save or settings.model.use_dora):
        found.append("vLLM refuses adapters with lora_modules_to_save or use_dora; boost-qa merge makes a model of one")
    if prediction is None and torch.cuda.is_available():
        found.append("the speed of this GPU is not known, so nothing is predicted; name one like it with --gpu")
    if prediction and not prediction.fits:
        found.append("this does not fit" + ("" if prediction.remedies else ", and no change was found that does"))
    return found
