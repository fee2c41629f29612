"""What can be trained: a Hugging Face folder or Hub id as it is, a GGUF model once turned into such a folder.

The folder is kept beside the model in the cache, whole or not at all. Its weights are the GGUF file's own,
dequantised and rounded to bfloat16; where they were quantised, training begins from what was left of them.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boost_qa import models
from boost_qa.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def trainable(name_or_path: str, progress: models.Progress | None = None) -> str:
    """What `from_pretrained` takes for the model that a training recipe names.

    Args:
        name_or_path: a folder with config.json or a Hub id, both given back as they are; a language model of the
            catalogue, or a GGUF file, for which the folder in our cache is made if need be.
        progress: called with (bytes done, bytes in all or None, what) while a model is fetched.

    Raises:
        ModelError: if there is no such model, it is no language model, or it cannot be fetched or turned.
    """
    path = Path(name_or_path).expanduser()
    if (path / "config.json").is_file():
        return str(path)
    entry = models._entries().get(name_or_path)
    if entry is not None and entry.kind != "gguf":
        raise ModelError(f"{name_or_path} is no language model: it {entry.purpose}", _remedy())
    if entry is not None or (path.is_file() and path.suffix == ".gguf"):
        return str(_turned(models.resolve(name_or_path, progress)))
    if (path / "adapter_config.json").is_file():
        raise ModelError(f"{path} is an adapter, not a model", "Merge it into its base first, and train the result.")
    if path.exists() or not _HUB_ID.fullmatch(name_or_path):
        raise ModelError(f"{name_or_path} is no model that can be trained", _remedy())
    return name_or_path


def revision(folder: str | Path) -> str | None:
    """The revision of the GGUF file that a folder of `trainable` was made of; None for any other folder or id."""
    note = Path(folder) / "model.yaml"
    return _facts(note).get("revision") if (Path(folder) / "config.json").is_file() and note.is_file() else None


def gguf_of(folder: str | Path) -> models.Model:
    """The GGUF model that a folder of `trainable` was made of.

    Raises:
        ModelError: the folder was made of none, or that file is not there any more, or is another one.
    """
    made_of = revision(folder)
    if made_of is None:
        raise ModelError(f"{folder} was not made of a GGUF file", "Give a base of the catalogue, or a .gguf file.")
    note = Path(folder) / "model.yaml"
    own = note.parent.parent.name == "own"
    found = models.resolve(_facts(note)["origin" if own else "name"])
    if found.revision != made_of:
        what = f"{folder} was made of {made_of}, and {found.path} is {found.revision}"
        raise ModelError(what, "Give the file that it was made of as the base.")
    return found


def _turned(model: models.Model) -> Path:
    from filelock import FileLock

    folder = model.tokenizer.with_name(f"{model.tokenizer.name}-trainable")
    if revision(folder) == model.revision and _facts(folder / "model.yaml") == _about(model):
        return folder
    try:
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if revision(folder) == model.revision:
                _note(model, folder)  # the file is where it is named now
            else:
                part = folder.with_name(f"{folder.name}.part")
                for old in (part, folder):
                    shutil.rmtree(old, ignore_errors=True)
                _turn(model, part)
                part.replace(folder)
    except OSError as error:
        raise models._disk(error, model.name) from error
    return folder


def _turn(model: models.Model, into: Path) -> None:
    """Write weights, configs, tokenizer and note of a GGUF model; architectures are those that transformers reads."""
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, GenerationConfig, GgufConfig

    _log.info("%s: writing a folder that can be trained", model.name)
    try:
        weights = AutoModelForCausalLM.from_pretrained(
            model.path.parent,
            gguf_file=model.path.name,
            dtype=torch.bfloat16,
            # without it the model counts as quantised, and can neither be saved nor trained
            quantization_config=GgufConfig(dequantize=True),
        )
    except (ValueError, NotImplementedError) as error:  # what transformers raises for an architecture it cannot read
        raise ModelError(f"{model.path} cannot be turned into a model to train: {error}", _remedy()) from error
    reader = GGUFReader(model.path)
    keys = ("add_bos_token", "bos_token_id", "eos_token_id", "padding_token_id", "pre")
    fields = {key: reader.get_field(f"tokenizer.ggml.{key}") for key in keys}
    given = {key: None if field is None else field.contents() for key, field in fields.items()}
    names = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    # transformers' own copy is marked as derived: it would be made again, without what training adds to it
    weights.generation_config = GenerationConfig(**{ours: given[theirs] for ours, theirs in names.items()})
    weights.save_pretrained(into)
    _tokenizer(model.tokenizer, given).save_pretrained(into)
    _note(model, into)


def _note(model: models.Model, folder: Path) -> None:
    part = folder / "model.yaml.part"
    part.write_text(yaml.safe_dump(_about(model), sort_keys=False), encoding="utf-8")
    part.replace(folder / "model.yaml")


def _about(model: models.Model) -> dict[str, Any]:
    """What a folder says of the model that it was made of; a user's own file by its whole path."""
    own = model.tokenizer.parent.name == "own"
    origin = str(model.path.resolve()) if own else model.origin
    return {"name": model.name, "licence": model.licence, "origin": origin, "revision": model.revision}


def _tokenizer(folder: Path, given: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Our own reading of the file's tokenizer (that of transformers 5.23 lacks SmolLM2's single digits).

    A `bos_token` that the model never puts in front is left out, or our templates would write it.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    facts, template = _facts(folder / "model.yaml"), (folder / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token=facts["eos_token"],
        model_max_length=facts["context"],
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    if given["padding_token_id"] is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(given["padding_token_id"])
    # where the file does not say, llama.cpp puts it in front for this family alone
    in_front = given["pre"] == "llama-bpe" if given["add_bos_token"] is None else given["add_bos_token"]
    if (bos := facts["bos_token"]) is not None and (in_front or "bos_token" in template):
        tokenizer.bos_token = bos
        if in_front:
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A",
                pair=f"{bos} $A {bos}:1 $B:1",
                special_tokens=[(bos, given["bos_token_id"])],
            )
    return tokenizer


def _facts(note: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(note.read_text(encoding="utf-8")))


def _remedy() -> str:
    names = ", ".join(name for name, entry in models._entries().items() if entry.kind == "gguf")
    return f"Give a folder with config.json, a Hub id (organisation/name), a .gguf file, or one of: {names}."
