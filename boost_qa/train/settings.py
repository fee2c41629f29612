"""Reading the recipe of a fine-tuning, and errors that name the key.

A recipe is flat YAML. Its keys are ours (`DialogueArguments`), TRL's `SFTConfig` (and with it transformers'
`TrainingArguments`) and TRL's `ModelConfig`; `--key value` on the command line changes them. TRL's own
script drops a key it does not know without a word; here it is an error that names the nearest known one.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from trl import ModelConfig, SFTConfig, TrlParser

from boost_qa.errors import RecipeError
from boost_qa.recipe_file import find_yaml, read_mapping, recipe_folder
from boost_qa.train.arguments import DialogueArguments
from boost_qa.train.keys import EXAMPLE, IMMATERIAL, refuse, refuse_secrets


@dataclass(frozen=True)
class Settings:
    """A recipe, read.

    `given` is what the recipe file and the command line set, by key, as plain values; `file` is the recipe's path.
    """

    ours: DialogueArguments
    sft: SFTConfig
    model: ModelConfig
    given: Mapping[str, Any]
    file: Path | None

    @property
    def method(self) -> Literal["lora", "qlora", "full"]:
        if not self.model.use_peft:
            return "full"
        return "qlora" if self.model.load_in_4bit or self.model.load_in_8bit else "lora"

    def resolved(self) -> dict[str, Any]:
        """Every setting with the value it has, defaults of the installed TRL included; no token is among them."""
        whole = asdict(self.ours) | asdict(self.model) | self.sft.to_dict()
        return dict(json.loads(json.dumps(whole, default=str)))

    def material(self) -> dict[str, Any]:
        """What decides the weights that come out: the settings that a resumed run must share."""
        return {key: value for key, value in sorted(self.given.items()) if not IMMATERIAL.fullmatch(key)}


def read_settings(arguments: Sequence[str], *, plan_only: bool = False) -> Settings:
    """The settings of `--config RECIPE [--key value]...`.

    Args:
        arguments: the command line, without the program's name; `null` takes a key of the recipe away.
        plan_only: nothing will be trained, so no GPU is needed; `--dry_run true` has the same effect.

    Raises:
        RecipeError: naming the file, the key, and the nearest known key.
        SystemExit: after `--help`.
    """
    recipe, changes = _split(arguments)
    file = find_recipe(recipe) if recipe else None
    raw = read_mapping(file, "recipes/sft/llama-3-8b/lora_best.yaml") if file else {}
    values = {str(key): value for key, value in raw.items()}
    for key in [key for key, given in changes.items() if given == ["null"]]:
        refuse(key, None)
        del changes[key]
        values.pop(key, None)
    for key in (*values, *changes):
        refuse(key, file if key in values else None)
    parser = _Parser((DialogueArguments, SFTConfig, ModelConfig), prog="python -m boost_qa.train")
    words = [word for key, given in changes.items() for word in (f"--{key}", *given)]
    if plan_only or (_is_true(values, changes) and not torch.cuda.is_available()):
        # transformers refuses bf16 without a GPU, and `_faults` several GPUs, even where nothing is run
        words += ["--use_cpu", "true"]
    parser.set_defaults_with_config(**{key: _as_text(key, value) for key, value in values.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a default that TRL itself sets
            ours, sft, model = parser.parse_args_into_dataclasses(args=words)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{file or 'command line'}: {_device(error)}", f"Correct that key. {EXAMPLE}") from error
    if isinstance(model.lora_target_modules, str):  # what TRL makes of a list of one
        model.lora_target_modules = [model.lora_target_modules]
    given = _values((*values, *changes), ours, sft, model)
    refuse_secrets(given, file)
    _complete(ours, sft, model, file)
    return Settings(ours, sft, model, given, file)


class _Parser(TrlParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise RecipeError(message, f"Correct that key. {EXAMPLE}")


def _split(arguments: Sequence[str]) -> tuple[str | None, dict[str, list[str]]]:
    """The recipe's path or name, and the words of each `--key value...`."""
    changes: dict[str, list[str]] = {}
    key: str | None = None
    for word in arguments:
        if word.startswith("--") or word == "-h":
            name, equals, value = word.lstrip("-").partition("=")
            key = name.replace("-", "_")
            changes[key] = [value] if equals else []
        elif key is None:
            raise RecipeError(f"{word!r} is not --key", f"Write --config RECIPE [--key value]... {EXAMPLE}")
        else:
            changes[key].append(word)
    if "h" in changes:
        changes["help"] = changes.pop("h")
    return " ".join(changes.pop("config", [])) or None, changes


def find_recipe(path: str) -> Path:
    """The file that `path` means: itself, or the packaged recipe of that name, such as `llama-3-8b/lora`.

    Raises:
        RecipeError: if there is neither.
    """
    folder = recipe_folder("sft")
    return find_yaml(
        path, {each.relative_to(folder).with_suffix("").as_posix(): each for each in folder.glob("*/*.yaml")}
    )


def _values(keys: Iterable[str], *read: Any) -> dict[str, Any]:
    """The values of the given keys as they were read, so that 1e-4 and 0.0001 are the same."""
    values = {key: next(getattr(each, key) for each in read if hasattr(each, key)) for key in keys}
    return dict(json.loads(json.dumps(values, default=str)))


def _as_text(key: str, value: Any) -> Any:
    """A scalar of the file as text, so that the parser's types check it as they check the command line."""
    if value is False and key.endswith("_strategy"):
        return "no"  # which YAML reads as false
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else value


def _is_true(values: Mapping[str, Any], changes: Mapping[str, Sequence[str]]) -> bool:
    """Whether `dry_run` is asked for."""
    said = " ".join(changes["dry_run"]) or "true" if "dry_run" in changes else str(values.get("dry_run"))
    return said.lower() in ("true", "1", "yes", "y", "t")


def _device(error: Exception) -> str:
    if "setup doesn't support bf16" not in str(error):
        return str(error)
    return (
        "there is no GPU here, and the recipe is for one (bf16: true without use_cpu: true); "
        "recipes/sft/smollm2-135m/lora_cpu.yaml is for a CPU, and --dry_run true plans without one"
    )


def _complete(ours: DialogueArguments, sft: SFTConfig, model: ModelConfig, file: Path | None) -> None:
    """What the keys together must say."""
    where = f"{file}: " if file else ""
    for what, remedy in _faults(ours, sft, model):
        raise RecipeError(where + what, remedy)


def _faults(ours: DialogueArguments, sft: SFTConfig, model: ModelConfig) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do about it."""
    for key, value in (("dataset", ours.dataset), ("model_name_or_path", model.model_name_or_path)):
        if not value:
            yield f"{key} is missing", f"Add {key}: ... to the recipe. {EXAMPLE}"
    if sft.max_length is None:
        yield "max_length: null", "Give the longest dialogue in tokens, such as max_length: 2048."
    if sft.push_to_hub and "/" not in str(sft.hub_model_id):
        yield f"push_to_hub: hub_model_id is {sft.hub_model_id}", "Name the repository: hub_model_id: user/name."
    positive = {"per_device_train_batch_size": sft.per_device_train_batch_size, "lora_r": model.lora_r}
    positive |= {"gradient_accumulation_steps": sft.gradient_accumulation_steps, "max_length": sft.max_length}
    for key, value in positive.items():
        if value < 1:
            yield f"{key}: {value}", "Give a number above 0."
    layers = "[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]"
    if model.use_peft and not model.lora_target_modules:
        yield "lora_target_modules is missing", f"Name the linear layers: {layers}."
    for name in {"all-linear", "lm_head"} & set(model.lora_target_modules or ()) if model.use_peft else ():
        yield f"lora_target_modules: {name}", f"Name the linear layers within the decoder: {layers}."
    if sft.packing_strategy == "wrapped":
        yield "packing_strategy: wrapped lets dialogues of a row see each other", "Use bfd."
    if str(getattr(sft.eval_strategy, "value", sft.eval_strategy)) != "no" and not (
        ours.validation or ours.validation_split
    ):
        yield (
            "eval_strategy needs something to evaluate on",
            "Set validation: 0.02, or validation_split, or eval_strategy: no.",
        )
    if ours.dialogues_per_step and not sft.packing:
        yield (
            "dialogues_per_step is for packing: true",
            "Without packing a step holds per_device_train_batch_size x gradient_accumulation_steps x GPUs.",
        )
    if not sft.use_cpu and torch.cuda.is_available():
        # torch says yes for older cards, too, which then only imitate it
        if sft.bf16 and torch.version.cuda and torch.cuda.get_device_capability() < (8, 0):
            yield (
                f"bf16: {torch.cuda.get_device_name()} has no bfloat16",
                "Use a GPU of Ampere or later (A100, 3090, L4, ...).",
            )
        if sft.n_gpu > 1 and "RANK" not in os.environ:
            yield (
                f"{sft.n_gpu} GPUs are visible to one process",
                "Start with `accelerate launch --config_file recipes/accelerate/ddp.yaml -m boost_qa.train ...`, or "
                "make one visible with CUDA_VISIBLE_DEVICES=0.",
            )
