"""A LoRA adapter added into its base: one folder of plain weights, or one GGUF file, for engines without adapters."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from boost_qa.errors import RunError
from boost_qa.models.gguf_file import write_like
from boost_qa.models.trainable import gguf_of, trainable

_WEIGHTS = "adapter_model.safetensors"


def merge(
    adapter: Path,
    output: Path,
    *,
    base: str | None = None,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
) -> Path:
    """Write base and adapter as one model, with the adapter's tokenizer, chat template and generation config.

    The sums are made in float32, one layer after the other, and rounded once. An adapter that was trained on a
    quantised base is added to the base as it was before.

    Args:
        adapter: a folder with adapter_config.json and its weights.
        output: the folder to write; it appears whole, or not at all.
        base: a folder, Hub id or model of the catalogue, in place of the base that the adapter names.
        dtype: of the weights written.

    Returns:
        `output`.

    Raises:
        RunError: if a folder is not what it should be, or the base isn't there or doesn't fit.
        ModelError: if `base` is no model that can be trained, or cannot be fetched.
    """
    config = _adapter_config(adapter)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise RunError(f"{output} is there already, and not empty", "Give another folder, or delete it.")
    source, revision = _base(adapter, config, base)
    model = _merged(adapter, source, revision, getattr(torch, dtype))
    part = output.with_name(f".{output.name}.merging")
    shutil.rmtree(part, ignore_errors=True)  # left by a kill
    try:
        _write(model, adapter, source, revision, part)
        if output.is_dir():
            output.rmdir()
        part.replace(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return output


def merge_to_gguf(adapter: Path, output: Path, *, base: str | None = None) -> Path:
    """Write base and adapter as one GGUF file in F16, with the adapter's chat template and end of a turn.

    Args:
        adapter: of a base that was itself a GGUF file or a model of the catalogue, whose tokenizer is kept.
        output: the file to write; it appears whole, or not at all.
        base: see `merge`.

    Returns:
        `output`.

    Raises:
        RunError, ModelError: as `merge`, or the base is no GGUF model, or the training added tokens.
    """
    config = _adapter_config(adapter)
    if output.exists():
        raise RunError(f"{output} is there already", "Give another file, or delete it.")
    source, revision = _base(adapter, config, base)
    like = gguf_of(source)
    output.parent.mkdir(parents=True, exist_ok=True)
    model, tokenizer = _merged(adapter, source, revision, torch.float32), _tokenizer(adapter, source, revision)
    known = Tokenizer.from_file(str(like.tokenizer / "tokenizer.json")).get_vocab()
    if added := sorted(tokenizer.get_vocab().items() - known.items()):
        raise RunError(f"{adapter} has a token that {like.path} has not: {added[0][0]}", "Merge it into a folder.")
    changed = {"tokenizer.ggml.eos_token_id": _end(model, adapter), "tokenizer.chat_template": _plain(tokenizer)}
    part = output.with_name(f".{output.name}.merging")
    try:
        write_like(like.path, part, model.state_dict(), {name: one for name, one in changed.items() if one is not None})
        part.replace(output)
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error}", "Free some space, or give another place.") from error
    finally:
        part.unlink(missing_ok=True)
    return output


def _adapter_config(adapter: Path) -> dict[str, Any]:
    file = adapter / "adapter_config.json"
    if not file.is_file():
        whole = " (it holds a whole model, with nothing to merge)" if (adapter / "config.json").is_file() else ""
        raise RunError(f"{adapter} has no adapter_config.json{whole}", "Give the folder of a finished LoRA training.")
    config = dict(json.loads(file.read_text(encoding="utf-8")))
    if config.get("peft_type") != "LORA":
        raise RunError(f"{adapter} is an adapter of type {config.get('peft_type')}", "Only LoRA can be merged.")
    if not (adapter / _WEIGHTS).is_file():
        raise RunError(f"{adapter} holds no weights ({_WEIGHTS})", "Finish its training, or copy them there.")
    return config


def _base(adapter: Path, config: dict[str, Any], given: str | None) -> tuple[str, str | None]:
    """What `from_pretrained` takes for the base, and its revision."""
    named = given or config.get("base_model_name_or_path")
    if not named:
        raise RunError(f"{adapter} names no base model", "Give it: base=...")
    source, revision = trainable(str(named)), None if given else config.get("revision")
    try:
        found = AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        origin = "" if given else f", which {adapter / 'adapter_config.json'} names,"
        raise RunError(
            f"the base model {source}{origin} cannot be loaded: {error}",
            "Give the folder or Hub id where it is now: base=...",
        ) from error
    if getattr(found, "quantization_config", None) is not None:
        raise RunError(
            f"the base model {source} is quantised, so that nothing can be added to its weights",
            "Give the model that it was made of: base=...",
        )
    return source, revision


def _merged(adapter: Path, source: str, revision: str | None, dtype: torch.dtype) -> Any:
    base = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype="auto")
    try:
        model = PeftModel.from_pretrained(base, str(adapter))
        _check_all_is_used(model, adapter)
        _check_none_is_tied(model)
        layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.float()
            layer.merge(safe_merge=True)
            layer.get_base_layer().to(dtype)
    except (ValueError, RuntimeError) as error:  # other layers, other shapes, or not finite
        raise RunError(
            f"{adapter} cannot be merged into {source}: {error}",
            "Give the base that it was trained on: base=...",
        ) from error
    return model.unload().to(dtype)  # takes the layers as they are: merged


def _check_all_is_used(model: Any, adapter: Path) -> None:
    """PEFT only warns when base and adapter don't have the same layers."""
    with safe_open(adapter / _WEIGHTS, framework="pt") as file:
        stored = set(file.keys())
    loaded = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if different := sorted(name for name in stored ^ loaded if "lora_" in name):
        raise ValueError(f"only one of them has {different[0]}")


def _check_none_is_tied(model: Any) -> None:
    """Input and output embeddings that are one would both get what was trained for the one."""
    if model.config.tie_word_embeddings:
        for name, module in model.named_modules():
            last = name.rpartition(".")[2]
            if last in ("lm_head", "embed_tokens") and isinstance(module, BaseTunerLayer):
                raise ValueError(f"{last} was adapted, and is tied to the other embeddings")


def _write(model: Any, adapter: Path, source: str, revision: str | None, into: Path) -> None:
    model.config.eos_token_id = _end(model, adapter)
    model.save_pretrained(into)
    _tokenizer(adapter, source, revision).save_pretrained(into)


def _plain(tokenizer: Any) -> str | None:
    """The chat template as others understand it: without what marks the replies for training, and without a first
    token where training had none, although the GGUF file names one."""
    if not tokenizer.chat_template:
        return None
    begun = re.sub(r"({%-?\s*)generation(\s*-?%})", r"\1if true\2", tokenizer.chat_template)
    whole = re.sub(r"({%-?\s*)endgeneration(\s*-?%})", r"\1endif\2", begun)
    return whole if tokenizer.bos_token or "bos_token" not in whole else "{%- set bos_token = '' %}" + whole


def _end(model: Any, adapter: Path) -> int | None:
    """The token that ends a turn; the model gets the adapter's generation config."""
    if (adapter / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(adapter)
    end: int | list[int] | None = model.generation_config.eos_token_id
    return end[0] if isinstance(end, list) else end


def _tokenizer(adapter: Path, source: str, revision: str | None) -> Any:
    own = (adapter / "tokenizer_config.json").is_file()
    return AutoTokenizer.from_pretrained(str(adapter) if own else source, revision=None if own else revision)
