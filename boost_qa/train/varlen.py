"""`attn_implementation: torch_varlen`: packed rows on the flash kernels that torch itself brings.

A packed row holds several dialogues one after another, and none may look into another. `sdpa` keeps them
apart with a mask of length x length and then cannot use a flash kernel; flash-attn needs a wheel that has to be
built. `torch.nn.attention.varlen.varlen_attn` (torch 2.11 and newer) needs neither: it takes the boundaries that
TRL's collator sends with every packed row.

    cu_seq_lens_q, cu_seq_lens_k    int32 [documents + 1], where each document begins, and the length of the row
    max_length_q, max_length_k      int, the longest document

A call without them (generation, padded batches with a mask) goes to `sdpa`, with the mask that `sdpa` gets.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from boost_qa.errors import RecipeError

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch < 2.10
    varlen_attn = None

NAME = "torch_varlen"

# torch 2.10 has no windows and no scale; since 2.12 fewer key heads than query heads must be asked for
_ARGUMENTS = frozenset(inspect.signature(varlen_attn).parameters) if varlen_attn else frozenset()
_MUST_ASK_FOR_GQA = "enable_gqa" in _ARGUMENTS
# What some models add to their attention and the kernel does not know
_UNKNOWN = ("softcap", "s_aux", "position_bias")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attention:
    """What to give transformers as `attn_implementation`; `reason` says why it is not what the recipe names."""

    name: str
    reason: str | None = None


def attention(name: str) -> Attention:
    """The attention to use on this machine, registered where transformers does not know it.

    Any name but `torch_varlen` is passed on as it is. Where `torch_varlen` cannot run, the next best that is
    installed takes its place (flash_attention_3, flash_attention_2, sdpa); all of them keep packed dialogues apart.
    """
    if name != NAME:
        return Attention(name)
    if (missing := _missing()) is None:
        register()
        return Attention(NAME)
    instead = "sdpa"
    if is_flash_attn_2_available():
        instead = "flash_attention_2"
    if is_flash_attn_3_available():
        instead = "flash_attention_3"
    reason = f"{NAME} cannot run here ({missing}); {instead} is used"
    _log.warning(reason)
    return Attention(instead, reason)


def register() -> None:
    """Make `torch_varlen` a name that transformers knows, whether or not its kernel can run here."""
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, varlen_mask)


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of one layer, as transformers calls it.

    Args:
        query: [batch, query heads, tokens, width]; `key` and `value` may have fewer heads.
        attention_mask: what `varlen_mask` returned.
        sliding_window: a token sees itself and the `sliding_window - 1` before it; None for all before it.

    Returns:
        [batch, tokens, query heads, width], and None for the weights, which are never formed.

    Raises:
        RecipeError: for packed rows without boundaries, or something that the kernel does not know.
    """
    if cu_seq_lens_q is None:
        if attention_mask is not None and attention_mask.numel() == 0:
            raise RecipeError(
                f"{NAME}: the positions start anew within a row, but cu_seq_lens_q is missing: "
                "the dialogues of a row would look into each other",
                "Use TRL's own collator (padding_free), or set `attn_implementation: sdpa`.",
            )
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    unknown = [name for name in _UNKNOWN if kwargs.get(name) is not None]
    if dropout or unknown or not getattr(module, "is_causal", True):
        raise RecipeError(
            f"{NAME} has causal attention only, without dropout and without {', '.join(_UNKNOWN)}",
            "Set `attn_implementation: sdpa` for this model.",
        )
    batch, _, tokens, _ = query.shape
    # The values are as the projection left them; rotary embeddings may have widened the others under autocast.
    rows = [each.to(value.dtype).transpose(1, 2).flatten(0, 1) for each in (query, key, value)]
    # A window that no document outgrows is no window: the kernel is faster without
    left = sliding_window - 1 if sliding_window and max_length_k and sliding_window < max_length_k else -1
    extra = {"enable_gqa": rows[0].size(1) != rows[1].size(1)} if _MUST_ASK_FOR_GQA else {}
    out = varlen_attn(
        *rows,
        cu_seq_lens_q,
        cu_seq_lens_k,
        max_length_q,
        max_length_k,
        scale=scaling,
        window_size=(left, 0),
        **extra,
    )
    return out.unflatten(0, (batch, tokens)), None


def varlen_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> torch.Tensor | None:
    """The mask of a forward pass: `sdpa`'s, but none of length x length for packed rows.

    Whether the boundaries will come is not known here. So packed rows get an empty tensor, not None: without
    boundaries `varlen_attention` then raises, where None would let the dialogues of a row see each other.
    """
    # transformers forbids the skip when the positions start anew within a row; a custom mask asks for `use_vmap`
    packed = attention_mask is None and not allow_is_causal_skip and not use_vmap
    if packed and q_length == kv_length and q_length > 1:
        return torch.empty(batch_size, 1, 0, 0, dtype=torch.bool, device=device)
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        use_vmap=use_vmap,
        device=device,
        **kwargs,
    )


def _missing() -> str | None:
    """What this machine lacks for the kernel; None where nothing is lacking."""
    if "window_size" not in _ARGUMENTS:
        return f"torch {torch.__version__} is older than 2.11"
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "no CUDA GPU"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} is older than Ampere"
    if not torch.backends.cuda.is_flash_attention_available():
        return "this torch is built without flash attention"
    return None
