"""GGUF files, read, and written anew with other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boost_qa.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader

CAN_WRITE = ("llama", "qwen2")
"""Architectures whose weights are the same, by other names; files of Mistral and SmolLM2 say llama."""


def open_gguf(file: Path) -> GGUFReader:
    """A reader, which maps the file.

    Raises:
        ModelError: if it is no whole GGUF file, or `gguf` is not installed.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError("GGUF files need the package `gguf`", "pip install 'boost_qa[embedded]'") from error
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{file} is no whole GGUF file: {error}", "Download it again.") from error


def value(reader: GGUFReader, key: str) -> Any:
    """What the metadata say for a key; None if it is not there."""
    field = reader.get_field(key)
    return None if field is None else field.contents()


def to_f16(file: Path) -> None:
    """Re-encode the quantised tensors of a GGUF file to F16, in place; one-dimensional ones to F32."""
    target = file.with_suffix(".f16")
    _rewrite(open_gguf(file), target, {}, lambda name, weights: weights)
    target.replace(file)


def write_like(
    file: Path, target: Path, weights: Mapping[str, Any], changed: Mapping[str, str | int] | None = None
) -> None:
    """Write a GGUF file with other weights, in F16, and one-dimensional ones in F32.

    Args:
        file: of the same architecture and sizes; tokenizer and settings are taken from it.
        target: the file to write.
        weights: tensors of torch by their names in transformers; the output layer may be missing where it is that of
            the input.
        changed: metadata that are to be otherwise, numbers as 32 bits.

    Raises:
        ModelError: the architecture is not one of CAN_WRITE, or the weights are others than those of the file.
    """
    reader = open_gguf(file)
    import gguf

    architecture = value(reader, "general.architecture")
    if architecture not in CAN_WRITE:
        raise ModelError(
            f"{file} is of the architecture {architecture}; only {' and '.join(CAN_WRITE)} can be written as GGUF",
            "Merge into a folder, and turn it with llama.cpp's convert_hf_to_gguf.py.",
        )
    count = {key: int(value(reader, f"{architecture}.{key}")) for key in ("block_count", "attention.head_count")}
    key_heads = int(value(reader, f"{architecture}.attention.head_count_kv") or count["attention.head_count"])
    names = gguf.get_tensor_name_map(_known(architecture), count["block_count"])
    given = {names.get_name(name, try_suffixes=(".weight", ".bias")) or name: each for name, each in weights.items()}
    stored = {tensor.name for tensor in reader.tensors}
    output = given.get("output.weight")
    if "output.weight" not in stored and output is not None and output.equal(given["token_embd.weight"]):
        del given["output.weight"]  # the input's embeddings are the output's, too
    if unlike := sorted(given.keys() ^ (stored - {"rope_freqs.weight"})):
        raise ModelError(f"{file} and the weights are of different models: only one has {unlike[0]}", _OF_IT)

    def other(name: str, old: np.ndarray) -> np.ndarray:
        if name not in given:
            return old
        new: np.ndarray = given[name].detach().float().cpu().numpy()
        if new.shape != old.shape:
            raise ModelError(f"{file} and the weights differ in {name}: {old.shape} and {new.shape}", _OF_IT)
        part = name.split(".")[-2]
        if architecture == "llama" and part in ("attn_q", "attn_k"):
            heads = count["attention.head_count"] if part == "attn_q" else key_heads
            # the two halves that are turned together stand side by side here, and half a head apart in transformers
            return new.reshape(heads, 2, -1, *new.shape[1:]).swapaxes(1, 2).reshape(new.shape)
        return new

    _rewrite(reader, target, changed or {}, other)


_OF_IT = "Give the file that the base was made of."


def _known(architecture: str) -> Any:
    import gguf

    return {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]


def _rewrite(
    reader: GGUFReader,
    target: Path,
    changed: Mapping[str, str | int],
    weights: Callable[[str, np.ndarray], np.ndarray],
) -> None:
    """Write `target` with what `weights` makes of each tensor's name and numbers."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(target, value(reader, "general.architecture"))
    writer.data_alignment = int(reader.alignment)
    changed = {**changed, "general.file_type": int(gguf.LlamaFileType.MOSTLY_F16)}
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        content = changed[field.name] if field.name in changed else field.contents()
        writer.add_key_value(field.name, content, kind, field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None)
    for name in sorted(changed.keys() - reader.fields.keys()):
        kind = gguf.GGUFValueType.STRING if isinstance(changed[name], str) else gguf.GGUFValueType.UINT32
        writer.add_key_value(name, changed[name], kind)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        old = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        new = weights(tensor.name, old)
        writer.add_tensor(tensor.name, new.astype(np.float32 if new.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
