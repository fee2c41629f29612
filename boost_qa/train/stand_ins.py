"""What stands in for CUDA's kernels where a layer is only counted: it keeps and allocates as they do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

# transformers' names of the two stand-ins for attention
COUNTED, COUNTED_REPEATED = "counted", "counted_repeated"


class FusedDropout(nn.Module):  # type: ignore[misc]
    """Dropout as CUDA computes it: the mask that it keeps has one byte an element."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, True)[0]


class _KernelLike(torch.autograd.Function):  # type: ignore[misc]
    """Keeps and allocates what a flash attention kernel does, and computes nothing.

    Tensors are [1, heads, tokens, head_dim]; the output is [1, tokens, heads, head_dim].
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, tokens, size = query.shape
        output = query.new_empty(batch, tokens, heads, size)
        logsumexp = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, logsumexp)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        # FlashAttention-2 sums the query's gradient in float32, and those of shared heads apart
        scratch = [torch.empty_like(query, dtype=torch.float32)]
        scratch += [torch.empty_like(query) for each in (key, value) if each.shape != query.shape]
        del scratch
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _counted(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    if torch.is_autocast_enabled("cpu"):  # attention is among the operations that autocast casts
        query, key, value = (each.to(torch.bfloat16) for each in (query, key, value))
    return _KernelLike.apply(query, key, value), None


def _counted_repeated(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    """transformers' sdpa copies shared heads wherever there is a mask."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    return _counted(module, query, key, value)


for _name, _function in ((COUNTED, _counted), (COUNTED_REPEATED, _counted_repeated)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, lambda *_, **__: None)
