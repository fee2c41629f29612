"""What a prediction is asked of: how a model is trained, and on how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Method = Literal["lora", "qlora", "full"]
Sharding = Literal["none", "ddp", "fsdp", "zero3"]
Attention = Literal["torch_varlen", "flash", "sdpa", "eager"]

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Training:
    """How a model is trained, as far as it changes the cost.

    Args:
        targets: names of the linear layers that get an adapter; ("all-linear",) for all but the head.
        dtype: of the weights as they are loaded: "bfloat16", "float16" or "float32".
        autocast: whether the forward pass runs under bfloat16 autocast (transformers' `bf16: true`).
        input_casts: PEFT's copy of every adapter's input in the adapter's own type.
        checkpoint_every: 0 keeps all activations, 1 recomputes every layer, n every n-th.
        compile_layers: whether each layer is compiled.
        optimizer: transformers' name, such as "adamw_torch_fused".
        row_tokens: tokens of one micro batch on one device, all its rows together.
        devices: in all; more than 1 with `sharding` "none" is an error of the caller.
        attention: "torch_varlen" and "flash" see documents, "sdpa" and "eager" a mask of rows by rows.
        accumulation: micro batches of one step on one device.
    """

    method: Method = "lora"
    rank: int = 16
    targets: tuple[str, ...] = LINEAR
    dropout: float = 0.0
    dtype: str = "bfloat16"
    autocast: bool = True
    input_casts: bool = False
    checkpoint_every: int = 0
    compile_layers: bool = False
    optimizer: str = "adamw_torch_fused"
    row_tokens: int = 8192
    sharding: Sharding = "none"
    devices: int = 1
    attention: Attention = "torch_varlen"
    accumulation: int = 1

    @property
    def adapter_dtype(self) -> torch.dtype:
        """Type in which adapters are stored: PEFT makes them float32, TRL bfloat16 again under nf4 and ZeRO-3."""
        return torch.bfloat16 if self.method == "qlora" or self.sharding == "zero3" else torch.float32

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of the base weights that the matrix products see; sharding gathers bfloat16."""
        return torch.bfloat16 if self.sharded else getattr(torch, self.dtype)

    @property
    def sharded(self) -> bool:
        """Whether parameters, gradients and optimizer are divided among the devices."""
        return self.sharding in ("fsdp", "zero3")

    @property
    def shards(self) -> int:
        return self.devices if self.sharded else 1

    @property
    def dense_mask(self) -> bool:
        """Whether attention computes a whole row by itself, because it does not know documents."""
        return self.attention in ("sdpa", "eager")

    def recomputed(self, layers: int) -> list[bool]:
        """Which of the layers are computed twice: transformers takes those whose number `checkpoint_every` divides."""
        every = self.checkpoint_every
        return [every > 0 and number % every == 0 for number in range(layers)]


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be trained on.

    Args:
        tokens: real ones of one epoch, on all devices together.
        padded_tokens: positions that are computed in one epoch, with padding.
        supervised: tokens of one epoch that carry loss.
        pairs: sum over the documents of one epoch of length squared, halved.
        steps: optimizer steps of all epochs.
        epochs: may be a fraction.
    """

    tokens: int
    padded_tokens: int
    supervised: int
    pairs: float
    steps: int
    epochs: float = 1.0
