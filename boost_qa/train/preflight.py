"""What must be right before anything large is loaded: the model's config, its tokenizer, the packages."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoTokenizer, PretrainedConfig

from boost_qa.errors import ModelError, RecipeError
from boost_qa.models.trainable import trainable
from boost_qa.train.settings import Settings
from boost_qa.train.template import DialogueTokenizer
from boost_qa.train.varlen import NAME as VARLEN


@dataclass(frozen=True)
class Parts:
    """The small parts of a model; `source` is where its weights are: a folder, or a name on the Hub."""

    source: str
    revision: str | None
    config: PretrainedConfig
    tokenizer: DialogueTokenizer


def read_parts(settings: Settings) -> Parts:
    """Config and tokenizer of the recipe's model, and all that they can tell beforehand.

    Raises:
        ModelError: if the model is missing, gated, not a language model, or lacks what the recipe names.
        RecipeError: if a package that the recipe needs is not installed.
    """
    _packages(settings)
    source, revision = _source(settings)
    config = read_config(settings)
    named = str(settings.model.model_name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=settings.sft.trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(named, error) from error
    _check_weights(source, named)
    return Parts(source, revision, config, DialogueTokenizer(tokenizer, settings.ours.template))  # type: ignore[arg-type]


def read_config(settings: Settings) -> PretrainedConfig:
    """The shape of the recipe's model, checked against the recipe.

    Raises:
        ModelError, RecipeError: see `read_parts`.
    """
    source, revision = _source(settings)
    named = str(settings.model.model_name_or_path)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=settings.sft.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(named, error) from error
    _check_config(config, settings, named)
    return config


def _source(settings: Settings) -> tuple[str, str | None]:
    """Where the model is, and its commit if that is the Hub: what is read now and what is read later are the same."""
    source = trainable(str(settings.model.model_name_or_path))
    if Path(source).is_dir():
        return source, None
    asked = str(settings.model.model_revision)
    try:
        return source, HfApi().model_info(source, revision=asked).sha
    except Exception:  # not reachable, or no such model: reading the config says so, unless the local cache has it
        return source, asked


def _packages(settings: Settings) -> None:
    needed = {
        "bitsandbytes": settings.model.load_in_4bit or settings.model.load_in_8bit or "8bit" in str(settings.sft.optim),
        "matplotlib": True,
        "trackio": "trackio" in settings.sft.report_to,
        "wandb": "wandb" in settings.sft.report_to,
        "tensorboard": "tensorboard" in settings.sft.report_to,
    }
    for package, wanted in needed.items():
        if wanted and importlib.util.find_spec(package) is None:
            install = "'boost_qa[qlora]'" if package == "bitsandbytes" else package
            raise RecipeError(f"the recipe needs the package {package}", f"pip install {install}")


def _check_config(config: PretrainedConfig, settings: Settings, named: str) -> None:
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{named} is not a causal language model: {config.model_type}", "Give a model that writes text."
        )
    shape = copy.deepcopy(config)
    if settings.model.attn_implementation != VARLEN:  # which `varlen.attention` replaces where it cannot run
        shape._attn_implementation = settings.model.attn_implementation
    try:
        # the class itself: `from_config` would shard it where ZeRO-3 is on
        with torch.device("meta"):
            model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](shape)
    except (ValueError, ImportError) as error:
        raise RecipeError(
            f"attn_implementation: {str(error).strip().splitlines()[0]}", "Use torch_varlen, sdpa or eager."
        ) from error
    if settings.model.use_peft:
        linear = {
            name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
        }
        missing = [name for name in settings.model.lora_target_modules or () if name not in linear]
        if missing:
            raise RecipeError(
                f"lora_target_modules: {named} has no {', '.join(missing)}",
                f"It has: {', '.join(sorted(linear - {'lm_head'}))}.",
            )


def _check_weights(source: str, named: str) -> None:
    folder = Path(source)
    patterns = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in patterns):
        raise ModelError(f"{named}: the folder has a config.json and no weights", "Download the model again.")


def _unreadable(named: str, error: Exception) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    chain: list[Any] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(each, GatedRepoError) for each in chain) or "gated repo" in str(error):
        return ModelError(
            f"{named} is gated on the Hub",
            f"Accept its licence at https://huggingface.co/{named}, run `hf auth login`, and start again; or give a "
            "folder or another copy with --model_name_or_path.",
        )
    if any(isinstance(each, RepositoryNotFoundError) for each in chain):
        return ModelError(
            f"no model {named!r} on the Hub", "Check the name; for a private model run `hf auth login` first."
        )
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{named} brings code of its own", "Read it; `--trust_remote_code true` runs it on this machine."
        )
    if Path(named).exists():
        return ModelError(f"{named}: {str(error).strip().splitlines()[0]}", "Give a folder that transformers can load.")
    return ModelError(
        f"model {named!r} is neither here nor to be had from the Hub: {str(error).strip().splitlines()[0]}",
        "Check the name and the network; HF_ENDPOINT names another Hub, and a local folder works as well.",
    )
