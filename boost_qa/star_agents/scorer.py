"""How likely a causal language model finds answers, with their prompts and without: what IFD is made of.

Both texts of a row go through the model in batches of similar length. Where many answers follow the same prompt, as
the candidates of one seed record do, the prompt goes through it once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Self, get_args

from boost_qa.errors import ModelError
from boost_qa.models.trainable import revision, trainable
from boost_qa.star_agents.forward import Nats, answer_nats, beginning, forward, no_numbers
from boost_qa.star_agents.ifd import Likelihood, Skipped
from boost_qa.star_agents.layout import Layout, Pair, Parts, Typesetter

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    raise ModelError(f"scoring answers needs {error.name}", "pip install 'boost_qa[train]'") from error

TooLong = Literal["cut", "skip"]

WASTE = 0.15
"""The most of any row of a batch that may be padding."""

WORTH = 0.2
"""A prompt is computed once for several answers where that saves this share of their tokens; below it larger batches
are as quick (`benchmarks/ifd.py`)."""


class Scorer:
    """A causal language model that says how likely answers are.

    Scores of two models are comparable in nats per token of each model's own tokenizer: where the tokenizers
    differ, so do the tokens of an answer, and where a long row is cut.

    Args:
        name: a language model of the catalogue, a GGUF file, a folder with config.json, or a Hub id.
        device: of torch; the first GPU if there is one, else the CPU.
        dtype: "float32" or "bfloat16"; bfloat16 if not given and the device has instructions for it, which is
            about twice as fast. IFD then differs from that in float32 by some 0.005 (SmolLM2-135M on the packaged
            records, whose IFDs have a standard deviation of 0.09), and by 0.001 with the rows of its batch; in
            float32 by less than 0.00001.
        template: what stands before an answer, see `layout`; scores under different ones are not comparable.
        max_tokens: of one text; no more than the model's own context. The paper trains with 2048.
        too_long: "cut" the answer's end and the prompt's beginning (see `Parts.cut`), or "skip" the row.
        batch_tokens: padded tokens of a batch, at most, unless a single text is longer.
        window: rows read ahead, to find texts of similar length.
        model_revision: branch, tag or commit on the Hub.
        trust_remote_code: whether code that comes with the model may run.

    Attributes:
        typeset: lays a row out in tokens, uncut.
        revision: what names the weights: the commit, or the revision of the catalogue; None for a plain folder.

    Raises:
        ModelError: if the model can't be had, is no causal language model, or its weights or tokenizer can't be used.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str | None = None,
        dtype: Literal["float32", "bfloat16"] | None = None,
        template: Layout = "plain",
        max_tokens: int = 2048,
        too_long: TooLong = "cut",
        batch_tokens: int = 4096,
        window: int = 256,
        model_revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if too_long not in get_args(TooLong):
            raise ValueError(f"too_long {too_long!r} is none of {', '.join(get_args(TooLong))}")
        if min(max_tokens, batch_tokens, window) < 1:
            raise ValueError("max_tokens, batch_tokens and window are at least 1")
        self.name, self.too_long, self.batch_tokens, self.window = name, too_long, batch_tokens, window
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype or ("bfloat16" if _quick_in_bfloat16(self.device) else "float32")
        source = trainable(name)
        given = {"revision": model_revision, "trust_remote_code": trust_remote_code}
        self.model, tokenizer = _load(source, name, getattr(torch, self.dtype), given)
        self.model.to(self.device).eval()
        self.revision: str | None = revision(source) or getattr(self.model.config, "_commit_hash", None)
        self.max_tokens = min(max_tokens, _context(self.model.config) or max_tokens)
        self.typeset = Typesetter(tokenizer, template)
        self._forward = forward(self.model, self.device)

    def score(self, pairs: Iterable[Pair]) -> Iterator[Likelihood | Skipped]:
        """One result for each row, in order, as soon as the row's window is done.

        Args:
            pairs: (prompt, answer), or messages of which the last is the answer and all others its prompt.

        Raises:
            SourceError: for messages that do not end in an answer.
            ModelError: if the model's chat template refuses the messages, or its scores are no numbers.
        """
        rows = iter(pairs)
        while window := list(islice(rows, self.window)):
            yield from self._score(window)

    def arranged(self, template: Layout) -> Self:
        """The same model, with another layout before an answer. Raises ModelError as the class itself."""
        other = copy.copy(self)
        other.typeset = Typesetter(self.typeset.tokenizer, template)
        return other

    def _score(self, window: Sequence[Pair]) -> list[Likelihood | Skipped]:
        rows = [self._row(pair) for pair in window]
        texts = [text for row in rows if isinstance(row, Parts) for text in (row.conditioned, row.alone)]
        answers = [len(row.answer) for row in rows if isinstance(row, Parts) for _ in range(2)]
        nats = iter(self._nats(texts, answers))
        return [row if isinstance(row, Skipped) else _likelihood(row, next(nats), next(nats)) for row in rows]

    def _row(self, pair: Pair) -> Parts | Skipped:
        row = self.typeset(pair)
        if not row.answer:
            return Skipped("empty")
        if len(row.conditioned) <= self.max_tokens:
            return row
        return Skipped("too_long") if self.too_long == "skip" else row.cut(self.max_tokens)

    def _nats(self, texts: Sequence[list[int]], answers: Sequence[int]) -> list[Nats]:
        """For each text the negative log-likelihood of its last tokens, as many as `answers` says."""
        found = [(math.nan, math.nan)] * len(texts)
        begun = self._forward.before is not None
        for shared, places in alike(texts, answers) if begun else [(0, list(range(len(texts))))]:
            before = beginning(self._forward, texts[places[0]][:shared]) if shared else None
            for batch in batches([len(texts[place]) - shared for place in places], self.batch_tokens, shared):
                some = [places[at] for at in batch]
                args = [texts[place] for place in some], [answers[place] for place in some]
                for place, nats in zip(some, answer_nats(self._forward, *args, shared, before), strict=True):
                    found[place] = nats
        if not all(math.isfinite(nats) for nats, _ in found):
            raise no_numbers(self.name, self.dtype)
        return found


def alike(texts: Sequence[list[int]], answers: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Places of texts that begin alike, with the number of tokens to compute once; 0 for all others, together.

    A beginning is all that stands before an answer but the last token, from whose state the answer is predicted.
    """
    by_beginning: dict[tuple[int, ...], list[int]] = {}
    for place, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        by_beginning.setdefault(tuple(text[: -answer - 1]), []).append(place)
    found: list[tuple[int, list[int]]] = []
    others: list[int] = []
    for ids, places in by_beginning.items():
        if len(ids) * (len(places) - 1) > WORTH * sum(len(texts[place]) for place in places):
            found.append((len(ids), places))
        else:
            others += places
    return [(0, others), *found] if others else found


def batches(lengths: Sequence[int], budget: int, before: int = 0) -> list[list[int]]:
    """Places of texts in batches of similar length, the longest first.

    A batch has at most `budget` tokens with its padding and the `before` that stand before each text, unless it is a
    single text, and no text in it is shorter than the longest by more than `WASTE`.
    """
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[found[-1][0]] if found else 0
        fits = found and (before + longest) * (len(found[-1]) + 1) <= budget
        if fits and lengths[place] >= (1 - WASTE) * longest:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _likelihood(row: Parts, conditioned: Nats, alone: Nats) -> Likelihood:
    (given, given_odd), (bare, bare_odd) = conditioned, alone
    left_out = row.prompt_left_out, row.answer_left_out
    return Likelihood(len(row.answer), given, bare, *left_out, conditioned_odd=given_odd, alone_odd=bare_odd)


# --- the model -----------------------------------------------------------------------------------


def _load(source: str, name: str, dtype: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **given)
        return model, AutoTokenizer.from_pretrained(source, **given)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{name} cannot be loaded as a causal language model: {first}",
            "Give a language model of the catalogue, a folder that transformers can load, or a name on the Hub; for a "
            "gated or private one run `hf auth login` first.",
        ) from error


def _quick_in_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32, instead of converting it."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.device(device).type == "cpu" and bool(quick)


def _context(config: Any) -> int | None:
    """The longest text in tokens, where the model has a limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
