"""Tiny random models of the families that we train, whole on disk, as their makers publish base models.

They have a real byte-pair tokenizer, learnt from the package's own sample, no chat template, and a generation
config that ends at the base's own end of text.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

import boost_qa
from boost_qa.models.prepare import _WORDS

Family = Literal["llama", "qwen2", "mistral"]
FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "mistral")

_CONTROL = {
    "llama": (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "mistral": ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
}
_OWN = {
    "llama": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "qwen2": {
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "extra_special_tokens": ["<|im_start|>", "<|im_end|>"],
    },
    "mistral": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
}
_LEARNT = 1200  # tokens besides those for control


def tiny(
    family: Family,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    dtype: str = "float32",
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random model of two layers, hidden size 64, four heads on two for keys and values.

    Args:
        tokenizer: in place of the family's small one, e.g. a real one; the vocabulary then has its size.
        changes: of the model's config, e.g. `num_hidden_layers=4`, `tie_word_embeddings=True`, or
            `initializer_range=0.2` for logits that are far apart.

    Returns:
        `folder`, from which AutoModelForCausalLM and AutoTokenizer load.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = tokenizer or tiny_tokenizer(family)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family == "qwen2":  # its makers name a beginning that their tokenizer never puts in front
        ends["bos_token_id"] = tokenizer.eos_token_id
    shape = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,  # rounded up: rows that belong to no token are usual
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    shape |= {"sliding_window": None} if family == "mistral" else {}
    config = AutoConfig.for_model(family, **shape | ends | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """The family's small tokenizer; a fresh one, which the caller may change."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_learn(family)),
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **_OWN[family],
    )


@pytest.fixture(scope="session", params=FAMILIES)
def tiny_model(request, tmp_path_factory) -> Path:
    """A tiny model of each family; not to be changed."""
    return tiny(request.param, tmp_path_factory.mktemp(request.param))


# --- tokenizers ----------------------------------------------------------------------------------


@cache
def _learn(family: Family) -> str:
    control = [AddedToken(token, normalized=False, special=True) for token in _CONTROL[family]]
    if family == "mistral":
        tokenizer = _learn_sentencepiece(control)
    else:
        tokenizer = _learn_bytes("llama-bpe" if family == "llama" else "qwen2")
        tokenizer.add_special_tokens(control)
    if family != "qwen2":
        first = "<s>" if family == "mistral" else "<|begin_of_text|>"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A",
            pair=f"{first} $A {first}:1 $B:1",
            special_tokens=[(first, tokenizer.token_to_id(first))],
        )
    return tokenizer.to_str()


def _learn_bytes(words: str) -> Tokenizer:
    """Byte-level pairs; control tokens come after all others."""
    tokenizer = Tokenizer(BPE())
    if words == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_WORDS[words]), "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_LEARNT, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _learn_sentencepiece(control: list[AddedToken]) -> Tokenizer:
    """Pairs of characters, bytes for unknown ones; control tokens come before all others."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # learnt from words, single digits and signs, and ends of lines are bytes, as sentencepiece does it; when the
    # tokenizer is used, a text is not split at all
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "removed"),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    letters = [AddedToken(f"<0x{byte:02X}>", special=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=_LEARNT, special_tokens=[*control, *letters], show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(control)]  # the bytes are ordinary tokens
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _texts() -> Iterator[str]:
    file = Path(boost_qa.__file__).parent / "sources" / "sample.yaml"
    for record in yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)["records"]:
        yield f"User:\n{record['question']}\n\nAssistant:\n{record['answer']}\n"
