"""What a record would change in a model: the gradient of its answer's loss, seen through a random projection.

The loss is the mean over the answer's tokens, and the gradient that of the weights of all linear layers between
embeddings and head. Such a gradient is the product of what goes into a layer and of what comes back to it. Both are
multiplied with a random matrix of their own, as LoRA does with the first: its matrix A is random and its matrix B zero
when a training begins, so that only B has a gradient. So the weights' own gradients, as large as the model, never come
to be. The layers' products are added up. Their matrices are independent, so in expectation the vectors of two records
are to each other as their whole gradients are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boost_qa.errors import ModelError
from boost_qa.star_agents.forward import forward, no_numbers
from boost_qa.star_agents.scorer import Scorer, batches
from boost_qa.types import Record, digest

try:
    import torch
except ImportError as error:
    raise ModelError(f"gradients need {error.name}", "pip install 'boost_qa[baselines]'") from error

RANK, WIDTH = 8, 128
SIZE = RANK * WIDTH
"""Numbers of a vector."""

_REMEDY = "Give a dense language model, such as one of `boost-qa models`."
_LOGITS = 2**25
"""Logits computed at once, four bytes each, and as many for their gradients."""


class Gradients:
    """A model that gives vectors of records.

    Args:
        scorer: the model, how it lays out a record, and how long one may be.
        seed: of the projection.

    Raises:
        ModelError: if the model has no linear layers, or its scores are no numbers.
    """

    def __init__(self, scorer: Scorer, seed: int = 0) -> None:
        self.scorer = scorer
        self.model = scorer.model.requires_grad_(False)
        self.forward = forward(self.model, scorer.device)
        named, head = self.model.base_model.named_modules(), self.model.get_output_embeddings()
        layers = {name: each for name, each in named if isinstance(each, torch.nn.Linear) and each is not head}
        if not layers:
            raise ModelError(f"{scorer.name} has no linear layers", _REMEDY)
        self._layers = [(layer, *_matrices(layer, f"{seed}/{name}", scorer.device)) for name, layer in layers.items()]

    def __call__(self, records: Sequence[Record]) -> NDArray[np.float32]:
        """The vectors, (records, SIZE), each of length 1; zeros for an answer of nothing but space.

        Raises:
            ModelError: if they are no numbers.
        """
        rows = [self.scorer.typeset((record.question, record.answer)).cut(self.scorer.max_tokens) for record in records]
        some = [at for at, row in enumerate(rows) if row.answer]
        found = np.zeros((len(rows), SIZE), dtype=np.float32)
        for batch in batches([len(rows[at].conditioned) for at in some], self.scorer.batch_tokens):
            places = [some[at] for at in batch]
            texts, answers = [rows[at].conditioned for at in places], [len(rows[at].answer) for at in places]
            found[places] = self._batch(texts, answers)
        if not np.isfinite(found).all():
            raise no_numbers(self.scorer.name, self.scorer.dtype)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return found

    def _batch(self, texts: Sequence[list[int]], answers: Sequence[int]) -> NDArray[np.float32]:
        """Padded on the right, where causal attention never looks; so each text's own gradient is in its own row."""
        longest, device = max(map(len, texts)), self.scorer.device
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=device)
        places = [
            (row, at, 1 / answer)
            for row, (text, answer) in enumerate(zip(texts, answers, strict=True))
            for at in range(len(text) - answer, len(text))
        ]
        row, at, weight = (torch.tensor(each, device=device) for each in zip(*places, strict=True))
        with torch.enable_grad(), self._watched(len(texts)) as sums:
            states = self.forward.states(ids, None)[row, at - 1]  # a token is predicted from the state before it
            # the logits of some tokens at a time: what comes back to the states is all that the layers need
            head = states.detach().requires_grad_()
            targets, each = ids[row, at], max(1, _LOGITS // self.forward.vocabulary)
            for part in torch.arange(len(targets), device=device).split(each):
                chances = self.forward.logits(head[part]).log_softmax(-1, dtype=torch.float32)
                nats = -chances.gather(-1, targets[part, None])[:, 0]
                (nats * weight[part]).sum().backward()
            states.backward(head.grad)
        found: NDArray[np.float32] = sums.flatten(1).cpu().numpy()
        return found

    @contextmanager
    def _watched(self, rows: int) -> Iterator[Any]:
        """Adds what comes through each layer, forward and back, to the (rows, WIDTH, RANK) that it gives."""
        sums = torch.zeros(rows, WIDTH, RANK, device=self.scorer.device)

        def watch(inside: Any, outside: Any) -> Any:
            def after(_: Any, given: tuple[Any, ...], result: Any) -> None:
                if given[0].dim() != 3:  # of experts, each of which sees tokens of any text
                    raise ModelError(f"{self.scorer.name} does not keep texts apart in its layers", _REMEDY)
                went_in = given[0].detach().float() @ inside

                def came_back(gradient: Any) -> None:
                    sums.add_(torch.einsum("bto,btr->bor", gradient.float() @ outside, went_in))

                result.register_hook(came_back)

            return after

        embeddings = self.model.get_input_embeddings()
        hooks = [layer.register_forward_hook(watch(inside, outside)) for layer, inside, outside in self._layers]
        hooks.append(embeddings.register_forward_hook(lambda _, given, result: result.requires_grad_()))
        try:
            yield sums
        finally:
            for hook in hooks:
                hook.remove()


def _matrices(layer: Any, seed: str, device: str) -> tuple[Any, Any]:
    """Random signs: (what goes in, RANK) and (what comes out, WIDTH), scaled to keep lengths in expectation."""
    draw = torch.Generator().manual_seed(int(digest("projection", seed)[:8], 16))
    shapes = (layer.in_features, RANK), (layer.out_features, WIDTH)
    inside, outside = (torch.randint(0, 2, shape, generator=draw).mul(2.0).sub(1) / shape[1] ** 0.5 for shape in shapes)
    return inside.to(device), outside.to(device)
