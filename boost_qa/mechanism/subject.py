"""The model that is measured: a base with its adapter, which can be taken off, begun anew, or moved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from boost_qa.errors import EngineError, ModelError
from boost_qa.evaluate.loading import Chosen
from boost_qa.mechanism.landscape import Direction, Update
from boost_qa.mechanism.material import Item
from boost_qa.mechanism.recorded import Recorded
from boost_qa.train.merge import _check_all_is_used
from boost_qa.train.supervision import IGNORED
from boost_qa.train.template import DialogueTokenizer

_NAME = "default"


class Subject:
    """A LoRA adapter on its base, in evaluation mode: no dropout.

    Args:
        model: PEFT's, whose only trainable weights are the adapter's A and B.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
        self.weights: list[torch.nn.Parameter] = [each for each in model.parameters() if each.requires_grad]
        self.device = self.weights[0].device

    def loss(self, item: Item, adapter: bool = True) -> tuple[float, int]:
        """Sum of the loss over the tokens that carry it, in nats, with the adapter or without; and how many they are.

        Raises:
            EngineError: the loss is no number.
        """
        with torch.no_grad(), nullcontext() if adapter else self.model.disable_adapter():
            return float(self._loss(item)), item.tokens

    def mean_loss(self, items: Sequence[Item]) -> float:
        """Over all tokens of the items that carry loss, in nats a token."""
        sums = [self.loss(item) for item in items]
        return sum(one for one, _ in sums) / sum(many for _, many in sums)

    def gradient(self, item: Item, per: float) -> npt.NDArray[np.float32]:
        """[parameters], of the item's summed loss over `per`, by the adapter's A and B as they lie in it."""
        gradients = torch.autograd.grad(self._loss(item) / per, self.weights)
        flat: npt.NDArray[np.float32] = torch.cat([each.flatten().float() for each in gradients]).cpu().numpy()
        return flat

    def updates(self) -> list[Update]:
        """What the adapter adds to each layer."""
        found = []
        for layer in self.layers:
            a, b, scaling = (
                layer.lora_A[_NAME].weight.detach(),
                layer.lora_B[_NAME].weight.detach(),
                layer.scaling[_NAME],
            )
            weights = layer.get_base_layer().weight.detach().float() + scaling * b @ a
            found.append(Update(a, b, scaling, weights.norm(dim=1)))
        return found

    @contextmanager
    def anew(self, seed: int) -> Iterator[None]:
        """Within it the adapter is as training begins: B is 0, A is uniform as LoRA has it, drawn on the CPU."""
        before = [weights.detach().clone() for weights in self.weights]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.layers:
                first = torch.empty(layer.lora_A[_NAME].weight.shape)
                torch.nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
                layer.lora_A[_NAME].weight.copy_(first)
                layer.lora_B[_NAME].weight.zero_()
        try:
            yield
        finally:
            with torch.no_grad():
                for weights, kept in zip(self.weights, before, strict=True):
                    weights.copy_(kept)

    @contextmanager
    def moved(self, directions: Iterable[Direction], alpha: float) -> Iterator[None]:
        """Within it the layers' weights are moved by `alpha` along the directions, one for each layer.

        The move is added to a layer's output, for weights in bfloat16 would round it away.
        """
        hooks = [
            layer.register_forward_hook(
                partial(_move, left=alpha * each.left.to(self.device), right=each.right.to(self.device))
            )
            for layer, each in zip(self.layers, directions, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _loss(self, item: Item) -> torch.Tensor:
        ids = torch.tensor([item.ids], device=self.device)
        targets = torch.tensor(item.labels[1:], device=self.device)
        logits, learned = self.model(input_ids=ids, use_cache=False).logits[0, :-1], targets != IGNORED
        loss = functional.cross_entropy(logits[learned].float(), targets[learned], reduction="sum")
        if not torch.isfinite(loss):
            raise EngineError(f"the loss on {item.name} is no number", "Use --dtype float32.")
        return loss


def _move(module: Any, given: Any, out: torch.Tensor, *, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    moved = functional.linear(functional.linear(given[0].to(right.dtype), right), left)
    return (out + moved).to(out.dtype)


def check_adapter(folder: Path) -> None:
    """That the adapter is low-rank updates of linear layers and nothing else, before a model is loaded.

    Raises:
        ModelError: it is of another kind, or its weights are not there.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder} is an adapter of type {config.get('peft_type')}", "Only LoRA can be measured.")
    others = ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias")
    if more := [name for name in others if config.get(name)] + ["bias"] * (config.get("bias", "none") != "none"):
        raise ModelError(f"{folder} trained more than low-rank matrices: {', '.join(more)}", "Give plain LoRA.")
    if not any((folder / f"adapter_model.{suffix}").is_file() for suffix in ("safetensors", "bin")):
        raise ModelError(f"{folder} holds no weights (adapter_model.safetensors)", "Finish its training.")


def load_tokenizer(chosen: Chosen, known: Recorded) -> DialogueTokenizer:
    """The adapter's own tokenizer, or the base's, with the template of the training.

    Raises:
        ModelError: it cannot be loaded, or lacks what the template needs.
    """
    own = chosen.adapter is not None and (chosen.adapter / "tokenizer_config.json").is_file()
    where, revision = (str(chosen.adapter), None) if own else (chosen.base, chosen.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"the tokenizer of {chosen.name} cannot be loaded: {_first(error)}", "Give --base.") from error
    return DialogueTokenizer(tokenizer, known.ours.template)  # type: ignore[arg-type]


def load_subject(chosen: Chosen, device: str, dtype: str) -> Subject:
    """Base and adapter on a device; A and B are in float32.

    Raises:
        ModelError: they cannot be loaded, or don't fit together.
    """
    try:
        base = AutoModelForCausalLM.from_pretrained(chosen.base, revision=chosen.revision, dtype=dtype).to(device)
        model = PeftModel.from_pretrained(base, str(chosen.adapter), is_trainable=True)
        _check_all_is_used(model, Path(str(chosen.adapter)))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        why = f"{chosen.name} cannot be loaded: {_first(error)}"
        raise ModelError(why, "Give the base that the adapter belongs to.") from error
    subject = Subject(model)
    odd = [layer for layer in subject.layers if not isinstance(layer.get_base_layer(), torch.nn.Linear)]
    if odd:
        raise ModelError(f"{chosen.name} adapts a {type(odd[0].get_base_layer()).__name__}", "Only linear layers can.")
    return subject


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
