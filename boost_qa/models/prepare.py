"""What a GGUF file needs before it can be asked: F16 weights where its own are not computed rightly,
and the tokenizer and chat template from its metadata as the usual files beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boost_qa.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

_log = logging.getLogger(__name__)

_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type

# how each family splits text before byte-pair merging, as the pattern for words that its makers gave
_WORDS = {
    family: rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for family, digits in (("qwen2", r"\p{N}"), ("llama-bpe", r"\p{N}{1,3}"))
}
_WORDS["deepseek-r1-qwen"] = _WORDS["qwen2"]


def prepare_gguf(file: Path, into: Path, facts: Mapping[str, str | None]) -> None:
    """Write tokenizer.json, chat_template.jinja and model.yaml for a GGUF file.

    Args:
        facts: name, licence, revision and, where known, origin; they go into model.yaml together with
            `context` (tokens), `bos_token`, `eos_token` (text or None) and `stop_ids`.

    Raises:
        ModelError: if the file is broken, or its tokenizer or template is not one that we can read.
    """
    reader = _open(file)
    template = _value(reader, "tokenizer.chat_template")
    if not template:
        raise ModelError(f"{file} has no chat template", "Give a model made for chat, usually named ...-Instruct.")
    tokens, kinds = _value(reader, "tokenizer.ggml.tokens"), _value(reader, "tokenizer.ggml.token_type")
    if any(tensor.tensor_type.name == "Q4_1" for tensor in reader.tensors):
        _log.warning("%s holds Q4_1 weights, which OpenVINO computes wrongly: prefer F16, Q8_0 or Q4_K_M", file)
    tokenizer = _tokenizer(reader, file)
    eos = _value(reader, "tokenizer.ggml.eos_token_id")
    bos = _value(reader, "tokenizer.ggml.bos_token_id")
    stops = {number for number, kind in enumerate(kinds) if kind == _CONTROL} | ({eos} if eos is not None else set())
    architecture = _value(reader, "general.architecture")
    details = {
        "licence": facts.get("licence") or _value(reader, "general.license"),
        "context": int(_value(reader, f"{architecture}.context_length")),
        "bos_token": None if bos is None else tokens[bos],
        "eos_token": None if eos is None else tokens[eos],
        "stop_ids": sorted(int(number) for number in stops),
    }
    tokenizer.save(str(into / "tokenizer.json"))
    (into / "chat_template.jinja").write_text(template, encoding="utf-8")
    (into / "model.yaml").write_text(yaml.safe_dump(dict(facts) | details, sort_keys=False), encoding="utf-8")


def to_f16(file: Path) -> None:
    """Re-encode the quantised tensors of a GGUF file to F16, in place; one-dimensional ones to F32."""
    import gguf
    import numpy as np

    reader = _open(file)
    target = file.with_suffix(".f16")
    writer = gguf.GGUFWriter(target, _value(reader, "general.architecture"))
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        value = int(gguf.LlamaFileType.MOSTLY_F16) if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        writer.add_tensor(tensor.name, weights.astype(np.float32 if weights.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    del reader, tensor, field  # they map the file that is now replaced
    target.replace(file)


def _tokenizer(reader: GGUFReader, file: Path) -> Tokenizer:
    """The byte-level BPE tokenizer that the metadata describe."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    family, split = _value(reader, "tokenizer.ggml.model"), _value(reader, "tokenizer.ggml.pre")
    if family != "gpt2" or split not in (*_WORDS, "smollm", "gpt-2"):
        raise ModelError(
            f"{file} has a tokenizer of kind {family}/{split}",
            f"Known for GGUF files: {', '.join((*_WORDS, 'smollm', 'gpt-2'))}. Give the model as an OpenVINO folder, "
            "or serve it and use the engine `openai`.",
        )
    tokens, kinds = _value(reader, "tokenizer.ggml.tokens"), _value(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe"))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split not in _WORDS)
    if split in _WORDS:
        words = pre_tokenizers.Split(Regex(_WORDS[split]), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, whole])
    elif split == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    else:
        tokenizer.pre_tokenizer = whole
    if split in ("qwen2", "deepseek-r1-qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
    return tokenizer


def _open(file: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError("GGUF files need the package `gguf`", "pip install 'boost_qa[embedded]'") from error
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{file} is no whole GGUF file: {error}", "Download it again.") from error


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()
