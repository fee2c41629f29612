"""Counting what one decoder layer computes, moves and keeps, as torch dispatches it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# A prime: no width of a model has this size, so a tensor has a token axis exactly if it has an axis this long.
TOKENS = 1021

# Operations that move nothing.
FREE = ("view", "expand", "detach", "alias", "empty", "reshape", "lift_fresh", "new_zeros")


@dataclass(slots=True)
class Count:
    """FLOPs of matrix products, bytes that all else reads and writes, and the most bytes alive at once."""

    flops: int = 0
    traffic: int = 0
    peak: int = 0


class Meter(TorchDispatchMode):  # type: ignore[misc]
    """Counts what is dispatched inside one layer, forward and backward apart.

    Attributes:
        saved, outside_saved: bytes with a token axis that autograd keeps of the layer, and of what is around it.
        copies: bytes without one that it keeps of the layer: weights in another type.
        entering: bytes of the layer's input.
        after_forward: bytes alive when the layer has been computed.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.forward, self.backward, self._now = Count(), Count(), Count()
        self.saved = self.outside_saved = self.entering = self.copies = self.after_forward = 0
        self._layer = layer
        self._inside = False
        self._live = 0
        self._known: set[int] = set()
        self._kept: set[int] = {each.untyped_storage()._cdata for each in layer.parameters()}
        self._foreign: set[int] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The layer's forward pass is counted inside, with what autograd saves; the backward pass is set up."""
        hooks = (
            self._layer.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._layer.register_forward_hook(self._leave),
        )
        with self, torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept):
            yield
        for hook in hooks:
            hook.remove()

    def _keep(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd saves; each storage counts once."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._kept or isinstance(tensor, nn.Parameter):
            return tensor
        self._kept.add(storage._cdata)
        if not self._inside or storage._cdata in self._foreign:
            self.outside_saved += storage.nbytes() if TOKENS in tensor.shape else 0
        elif TOKENS in tensor.shape:
            self.saved += storage.nbytes()
        else:
            self.copies += storage.nbytes()
        return tensor

    def _enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.entering = hidden.untyped_storage().nbytes()
        others = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each is not hidden]
        self._foreign = {each.untyped_storage()._cdata for each in others}  # one set of angles serves all layers
        hidden.register_hook(lambda _: self._switch(Count(), inside=False))
        self._switch(self.forward, inside=True)

    def _leave(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.after_forward = self._live
        self._switch(Count(), inside=False)
        hidden = output if isinstance(output, Tensor) else output[0]
        hidden.register_hook(lambda _: self._switch(self.backward, inside=True))

    def _switch(self, count: Count, *, inside: bool) -> None:
        self._now, self._inside = count, inside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self._now.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif func.namespace == "aten" and not func.is_view and not any(word in str(packet) for word in FREE):
            tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)]
            self._now.traffic += sum(each.nbytes for each in tensors if TOKENS in each.shape)
        for each in tree_leaves(out):
            if isinstance(each, Tensor) and TOKENS in each.shape:
                self._born(each.untyped_storage())
        self._now.peak = max(self._now.peak, self._live)
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._live += storage.nbytes()
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size
