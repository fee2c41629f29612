"""A causal language model's forward pass, as far as scores need it.

Logits are computed for the answers' tokens only, some at a time, and reduced at once: the memory they take depends
neither on the batch nor on the length of a text. What several texts begin with can be computed once: its keys and
values are kept while the rest of each text goes through the model.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boost_qa.errors import ModelError

try:
    import torch
    from transformers.modeling_outputs import MoeModelOutputWithPast
except ImportError as error:
    raise ModelError(f"scoring answers needs {error.name}", "pip install 'boost_qa[train]'") from error

_log = logging.getLogger(__name__)

_LOGITS = {"cpu": 2**23, "cuda": 2**28}
"""Logits computed at once, four bytes each: what a processor's caches bear, or a GPU's memory."""

Nats = tuple[float, float]
"""The negative log-likelihood of an answer, and the part that its first, third, ... token have in it."""


@dataclass(frozen=True)
class Forward:
    """A model as functions.

    `states` takes token ids (rows, length) and what stands before them (None, or keys and values, which it adds to),
    and gives states (rows, length, size); `logits` makes (n, vocabulary) of states (n, size). `before` makes keys and
    values of ids (1, length); None for a model that can't go on from them.
    """

    states: Callable[[Any, Any], Any]
    logits: Callable[[Any], Any]
    before: Callable[[Any], Any] | None
    device: str
    vocabulary: int


def answer_nats(
    model: Forward, texts: Sequence[list[int]], answers: Sequence[int], shared: int = 0, before: Any = None
) -> list[Nats]:
    """How unlikely the end of each text is, in one batch, padded on the right, where causal attention never looks.

    Args:
        answers: of each text, how many of its last tokens are meant.
        shared: so many first tokens, the same in all texts, are in `before` already; the answers' are not among
            them, nor the last token before an answer.
        before: of one row, from `beginning`; it is not changed.
    """
    rest = [text[shared:] for text in texts]
    longest = max(map(len, rest))
    # 0 is some token: what stands on the right of a text changes nothing in it
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in rest], device=model.device)
    places = [
        (row, at)
        for row, (text, answer) in enumerate(zip(rest, answers, strict=True))
        for at in range(len(text) - answer, len(text))
    ]
    row, at = torch.tensor(places, device=model.device).T
    with torch.inference_mode():
        if before is not None:
            before = copy.deepcopy(before)
            before.batch_repeat_interleave(len(texts))
        # a token is predicted from the state before it
        states, targets = model.states(ids, before)[row, at - 1], ids[row, at]
        each = max(1, _LOGITS.get(torch.device(model.device).type, 2**28) // model.vocabulary)
        nats = [
            -model.logits(some).log_softmax(-1, dtype=torch.float32).gather(-1, wanted[:, None])[:, 0]
            for some, wanted in zip(states.split(each), targets.split(each), strict=True)
        ]
        parts = torch.cat(nats).cpu().double().split(list(answers))
        return [(float(part.sum()), float(part[::2].sum())) for part in parts]


def beginning(model: Forward, ids: list[int]) -> Any:
    """Keys and values of what texts begin with, for a model that has `before`."""
    assert model.before is not None
    with torch.inference_mode():
        return model.before(torch.tensor([ids], device=model.device))


class _Given(torch.nn.Module):  # type: ignore[misc]
    """Stands in for a model's layers and gives states that were computed before."""

    states: Any = None

    @property
    def decoder(self) -> _Given:  # which some models call instead
        return self

    def forward(self, *_: Any, **__: Any) -> Any:
        return MoeModelOutputWithPast(last_hidden_state=self.states)  # has the fields of all other outputs, too


def forward(model: Any, device: str) -> Forward:
    """The layers apart from what the model's own forward does after them: head, scaling, capping.

    Where a model cannot be taken apart its logits are computed whole, which is as right, and larger; where it cannot
    go on from keys and values, every text is computed whole. Both are tried on a few tokens.

    Raises:
        ModelError: if what stands behind a text changes its scores, or they are no numbers.
    """
    name = model.name_or_path
    vocabulary = int(model.config.get_text_config().vocab_size)
    given, rest = _Given(), copy.copy(model)
    rest._modules = {**model._modules, model.base_model_prefix: given}  # the model itself stays as it is

    def logits(states: Any) -> Any:
        given.states = states[None]
        return rest(input_ids=torch.zeros(1, len(states), dtype=torch.long, device=device), use_cache=False).logits[0]

    def whole(ids: Any, before: Any) -> Any:
        return model(input_ids=ids, **_kept(before)).logits

    layers = model.base_model
    all_logits = Forward(whole, lambda states: states, None, device, vocabulary)
    apart = replace(
        all_logits,
        states=lambda ids, before: layers(input_ids=ids, **_kept(before)).last_hidden_state,
        logits=logits,
    )
    texts, answers = [[id % vocabulary for id in ids] for ids in (range(1, 9), (1, 2, 9, 10, 11))], [5, 2]
    exact = [answer_nats(all_logits, [text], [answer])[0][0] for text, answer in zip(texts, answers, strict=True)]
    if not all(map(math.isfinite, exact)):
        raise no_numbers(name, str(model.dtype).removeprefix("torch."))

    def right(found: Sequence[Nats]) -> bool:
        return all(abs(nats - other) <= 0.01 * other + 0.01 for (nats, _), other in zip(found, exact, strict=True))

    for tried in (apart, all_logits):
        try:
            found = answer_nats(tried, texts, answers)
        except Exception as error:  # whatever a model's own code raises where its layers are replaced
            if tried is all_logits:
                raise
            _log.info("%s cannot be taken apart: %s", name, error)
            continue
        if right(found):
            break
    else:
        raise ModelError(f"{name}: what stands behind a text changes its scores", "Give a causal language model.")
    going_on = replace(tried, before=lambda ids: layers(input_ids=ids, use_cache=True).past_key_values)
    try:
        if right(answer_nats(going_on, texts, answers, 2, beginning(going_on, texts[0][:2]))):
            return going_on
        _log.info("%s: keys and values of a beginning are not used: they change its scores", name)
    except Exception as error:  # it has none, or none that can be repeated
        _log.info("%s: keys and values of a beginning are not used: %s", name, error)
    return tried


def no_numbers(name: str, dtype: str) -> ModelError:
    return ModelError(f"{name}: scores in {dtype} are no numbers", "Use float32, or download the model again.")


def _kept(before: Any) -> dict[str, Any]:
    return {"use_cache": False} if before is None else {"past_key_values": before, "use_cache": True}
