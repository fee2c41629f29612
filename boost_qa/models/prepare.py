"""What a GGUF file needs before it can be asked: tokenizer and chat template of its metadata as the usual files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from boost_qa.errors import ModelError
from boost_qa.models.gguf_file import open_gguf, value

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
    reader = open_gguf(file)
    template = value(reader, "tokenizer.chat_template")
    if not template:
        raise ModelError(f"{file} has no chat template", "Give a model made for chat, usually named ...-Instruct.")
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    if any(tensor.tensor_type.name == "Q4_1" for tensor in reader.tensors):
        _log.warning("%s holds Q4_1 weights, which OpenVINO computes wrongly: prefer F16, Q8_0 or Q4_K_M", file)
    tokenizer = _tokenizer(reader, file)
    eos = value(reader, "tokenizer.ggml.eos_token_id")
    bos = value(reader, "tokenizer.ggml.bos_token_id")
    stops = {number for number, kind in enumerate(kinds) if kind == _CONTROL} | ({eos} if eos is not None else set())
    architecture = value(reader, "general.architecture")
    details = {
        "licence": facts.get("licence") or value(reader, "general.license"),
        "context": int(value(reader, f"{architecture}.context_length")),
        "bos_token": None if bos is None else tokens[bos],
        "eos_token": None if eos is None else tokens[eos],
        "stop_ids": sorted(int(number) for number in stops),
    }
    tokenizer.save(str(into / "tokenizer.json"))
    (into / "chat_template.jinja").write_text(template, encoding="utf-8")
    (into / "model.yaml").write_text(yaml.safe_dump(dict(facts) | details, sort_keys=False), encoding="utf-8")


def _tokenizer(reader: GGUFReader, file: Path) -> Tokenizer:
    """The byte-level BPE tokenizer that the metadata describe."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    family, split = value(reader, "tokenizer.ggml.model"), value(reader, "tokenizer.ggml.pre")
    if family != "gpt2" or split not in (*_WORDS, "smollm", "gpt-2"):
        raise ModelError(
            f"{file} has a tokenizer of kind {family}/{split}",
            f"Known for GGUF files: {', '.join((*_WORDS, 'smollm', 'gpt-2'))}. Give the model as an OpenVINO folder, "
            "or serve it and use the engine `openai`.",
        )
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in value(reader, "tokenizer.ggml.merges")]
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
