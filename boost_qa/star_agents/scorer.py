"""How likely a causal language model finds answers, with their prompts and without: what IFD is made of.

Both texts of a row go through the model in batches of similar length, padded on the right, where causal
attention never looks. Logits are computed for the answers' tokens only, some at a time, and reduced at once:
the memory they take depends neither on the batch nor on the length of a text.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

from boost_qa.errors import ModelError
from boost_qa.models.trainable import revision, trainable
from boost_qa.star_agents.ifd import Likelihood, Skipped
from boost_qa.star_agents.layout import Layout, Pair, Parts, Typesetter

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_outputs import MoeModelOutputWithPast
except ImportError as error:
    raise ModelError(f"scoring answers needs {error.name}", "pip install 'boost_qa[train]'") from error

_log = logging.getLogger(__name__)

TooLong = Literal["cut", "skip"]

WASTE = 0.15
"""The most of any row of a batch that may be padding."""

_LOGITS = {"cpu": 2**23, "cuda": 2**28}
"""Logits computed at once, four bytes each: what a processor's caches bear, or a GPU's memory."""


@dataclass(frozen=True)
class _Halves:
    """A model as two functions: token ids (rows, length) to states (rows, length, size), and states (n, size) to
    logits (n, vocabulary)."""

    states: Callable[[Any], Any]
    logits: Callable[[Any], Any]
    device: str
    vocabulary: int


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
        self._halves = _cut(self.model, self.device)

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

    def _score(self, window: Sequence[Pair]) -> list[Likelihood | Skipped]:
        rows = [self._row(pair) for pair in window]
        texts = [text for row in rows if isinstance(row, Parts) for text in (row.conditioned, row.alone)]
        answers = [len(row.answer) for row in rows if isinstance(row, Parts) for _ in range(2)]
        nats = iter(self._nats(texts, answers))
        return [
            row
            if isinstance(row, Skipped)
            else Likelihood(len(row.answer), next(nats), next(nats), row.prompt_left_out, row.answer_left_out)
            for row in rows
        ]

    def _row(self, pair: Pair) -> Parts | Skipped:
        row = self.typeset(pair)
        if not row.answer:
            return Skipped("empty")
        if len(row.conditioned) <= self.max_tokens:
            return row
        return Skipped("too_long") if self.too_long == "skip" else row.cut(self.max_tokens)

    def _nats(self, texts: Sequence[list[int]], answers: Sequence[int]) -> list[float]:
        """For each text the negative log-likelihood of its last tokens, as many as `answers` says."""
        found = [0.0] * len(texts)
        for batch in batches([len(text) for text in texts], self.batch_tokens):
            sums = _batch_nats(self._halves, [texts[place] for place in batch], [answers[place] for place in batch])
            for place, nats in zip(batch, sums, strict=True):
                found[place] = nats
        if not all(map(math.isfinite, found)):
            raise _no_numbers(self.name, self.dtype)
        return found


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places of texts in batches of similar length, the longest first.

    A batch has at most `budget` tokens with its padding, unless it is a single text, and no text in it is
    shorter than the longest by more than `WASTE`.
    """
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[found[-1][0]] if found else 0
        if found and longest * (len(found[-1]) + 1) <= budget and lengths[place] >= (1 - WASTE) * longest:
            found[-1].append(place)
        else:
            found.append([place])
    return found


# --- the model -----------------------------------------------------------------------------------


def _batch_nats(model: _Halves, texts: Sequence[list[int]], answers: Sequence[int]) -> list[float]:
    longest = max(map(len, texts))
    # 0 is some token: what stands on the right of a text changes nothing in it
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=model.device)
    places = [
        (row, at)
        for row, (text, answer) in enumerate(zip(texts, answers, strict=True))
        for at in range(len(text) - answer, len(text))
    ]
    row, at = torch.tensor(places, device=model.device).T
    with torch.inference_mode():
        # a token is predicted from the state before it
        states, targets = model.states(ids)[row, at - 1], ids[row, at]
        each = max(1, _LOGITS.get(torch.device(model.device).type, 2**28) // model.vocabulary)
        nats = [
            -model.logits(some).log_softmax(-1, dtype=torch.float32).gather(-1, wanted[:, None])[:, 0]
            for some, wanted in zip(states.split(each), targets.split(each), strict=True)
        ]
        return [float(part.sum()) for part in torch.cat(nats).cpu().double().split(list(answers))]


class _Given(torch.nn.Module):  # type: ignore[misc]
    """Stands in for a model's layers and gives states that were computed before."""

    states: Any = None

    @property
    def decoder(self) -> _Given:  # which some models call instead
        return self

    def forward(self, *_: Any, **__: Any) -> Any:
        return MoeModelOutputWithPast(last_hidden_state=self.states)  # has the fields of all other outputs, too


def _cut(model: Any, device: str) -> _Halves:
    """The layers apart from what the model's own forward does after them: head, scaling, capping.

    Where a model cannot be taken apart its logits are computed whole, which is as right, and larger.

    Raises:
        ModelError: if what stands behind a text changes its scores, or they are no numbers.
    """
    name = model.name_or_path
    vocabulary = int(model.config.get_text_config().vocab_size)
    whole = _Halves(lambda ids: model(input_ids=ids, use_cache=False).logits, lambda states: states, device, vocabulary)
    given, rest = _Given(), copy.copy(model)
    rest._modules = {**model._modules, model.base_model_prefix: given}  # the model itself stays as it is

    def logits(states: Any) -> Any:
        given.states = states[None]
        return rest(input_ids=torch.zeros(1, len(states), dtype=torch.long, device=device), use_cache=False).logits[0]

    layers = model.base_model
    cut = replace(whole, states=lambda ids: layers(input_ids=ids, use_cache=False).last_hidden_state, logits=logits)
    texts, answers = [[id % vocabulary for id in ids] for ids in (range(1, 9), range(9, 12))], [5, 2]
    exact = [_batch_nats(whole, [text], [answer])[0] for text, answer in zip(texts, answers, strict=True)]
    if not all(map(math.isfinite, exact)):
        raise _no_numbers(name, str(model.dtype).removeprefix("torch."))
    for halves in (cut, whole):
        try:
            found = _batch_nats(halves, texts, answers)
        except Exception as error:  # whatever a model's own code raises where its layers are replaced
            if halves is whole:
                raise
            _log.info("%s cannot be taken apart: %s", name, error)
            continue
        if all(abs(nats - right) <= 0.01 * right + 0.01 for nats, right in zip(found, exact, strict=True)):
            return halves
    raise ModelError(f"{name}: what stands behind a text changes its scores", "Give a causal language model.")


def _no_numbers(name: str, dtype: str) -> ModelError:
    return ModelError(f"{name}: scores in {dtype} are no numbers", "Use float32, or download the model again.")


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
