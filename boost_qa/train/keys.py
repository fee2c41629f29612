"""Which keys a training recipe may have: ours and TRL's, less those that would undo what is done here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from trl import ModelConfig, SFTConfig

from boost_qa.config import SECRET
from boost_qa.errors import RecipeError
from boost_qa.train.arguments import DialogueArguments

EXAMPLE = "An example is recipes/sft/llama-3-8b/lora.yaml."

# TRL's keys whose work is done here, and the key of ours that replaces them.
REPLACED = {
    "assistant_only_loss": "loss_on",
    "completion_only_loss": "loss_on",
    "chat_template_path": "template",
    "eos_token": "template",
    "pad_token": "template",
    "dataset_text_field": "dataset",
    "dataset_kwargs": "dataset",
    "truncation_mode": "too_long",
    "shuffle_dataset": "seed",
    "eval_packing": "packing",
    "padding_free": "packing",
    "gradient_checkpointing": "checkpoint_every",
    "gradient_checkpointing_kwargs": "checkpoint_every",
    "activation_checkpointing": "checkpoint_every",
    "activation_checkpointing_kwargs": "checkpoint_every",
    "torch_compile": "compile_layers",
    "resume_from_checkpoint": "output_dir",
    "fsdp": "the file that `accelerate launch --config_file` reads",
    "fsdp_config": "the file that `accelerate launch --config_file` reads",
    "deepspeed": "the file that `accelerate launch --config_file` reads",
}

# What changes no weight: a run may be resumed with other values.
IMMATERIAL = re.compile(
    r"(log|logging|save|trackio)_\w+|dataloader_(num_workers|pin_memory|prefetch_factor|persistent_workers)"
    r"|dry_run|gpu|checkpoint_every|input_casts|report_to|run_name|project|disable_tqdm|dataset_num_proc|output_dir"
    r"|per_device_eval_batch_size|push_to_hub|hub_\w+"
)

# TRL's keys that would break a promise of ours, and why.
REFUSED = {
    "save_only_model": "A checkpoint without its optimizer resumes to other losses.",
    "ignore_data_skip": "A run that forgets which rows it has seen resumes to other losses.",
    "hub_strategy": "With push_to_hub the finished output_dir is published, once and in one commit.",
    "hub_always_push": "With push_to_hub the finished output_dir is published, once and in one commit.",
}


def known_keys() -> frozenset[str]:
    """Every key a recipe may have."""
    return frozenset(_names()) - REPLACED.keys() - REFUSED.keys()


def _names() -> Iterator[str]:
    for cls in (DialogueArguments, SFTConfig, ModelConfig):
        yield from (each.name for each in fields(cls) if each.init)


def refuse(key: str, file: Path | None) -> None:
    """Raises RecipeError if a recipe may not have the key, saying what to write instead."""
    where = f"{file}: " if file else ""
    if key == "help":
        return
    if key in REPLACED:
        raise RecipeError(f"{where}{key} is not used here", f"Its work is done by: {REPLACED[key]}.")
    if key in REFUSED:
        raise RecipeError(f"{where}{key} is not used here", REFUSED[key])
    if SECRET.search(key):
        raise RecipeError(
            f"{where}{key}: a secret is no part of a recipe", "Run `hf auth login`, or set HF_TOKEN in the environment."
        )
    if key not in known_keys():
        near = difflib.get_close_matches(key, sorted(known_keys()), n=1, cutoff=0.5)
        nearest = f" (nearest known key: {near[0]!r})" if near else ""
        hint = _GONE.get(key, f"`python -m boost_qa.train --help` lists them. {EXAMPLE}")
        raise RecipeError(f"{where}unknown key {key!r}{nearest}", hint)


def refuse_secrets(value: Any, file: Path | None) -> None:
    """Also those within a key, as in model_init_kwargs: all that is given stands in run.json."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if SECRET.search(str(key)):
            where = f"{file}: " if file else ""
            raise RecipeError(f"{where}{key}: a secret is no part of a recipe", "Set HF_TOKEN in the environment.")
        refuse_secrets(inner, file)


# Keys that other recipes on the web still have, and what became of them.
_GONE = {
    "warmup_ratio": "Write warmup_steps: 0.1; below 1 it is a ratio.",
    "max_seq_length": "It is called max_length now.",
    "torch_dtype": "It is called dtype now.",
    "overwrite_output_dir": "Give another output_dir, or delete the old one.",
    "push_to_hub_model_id": "It is called hub_model_id now: user/name.",
    "push_to_hub_organization": "Write hub_model_id: organisation/name.",
    "group_by_length": "It is called train_sampling_strategy now.",
    "lora_rank": "It is called lora_r here.",
    "lora_target": "It is called lora_target_modules here, and lists the layers.",
    "cutoff_len": "It is called max_length here.",
}
