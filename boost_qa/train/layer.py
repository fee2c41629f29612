"""One decoder layer, taken apart without memory: what it computes, moves and keeps for every token.

The layer is built in its real shape and trained for one step under torch's FakeTensorMode, where tensors
have shapes and types but no contents. Everything is counted as torch dispatches it, so casts that PEFT and
autocast slip in are counted too. Attention is replaced by a stand-in that keeps what a flash kernel keeps
and costs nothing: its FLOPs depend on the lengths of the documents and are added in `boost_qa.train.speed`.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig

from boost_qa.train.counting import TOKENS, Meter
from boost_qa.train.stand_ins import COUNTED, COUNTED_REPEATED, FusedDropout
from boost_qa.train.workload import Training

# How many times less a compiled layer reads and writes outside its matrix products: an estimate.
COMPILED_TRAFFIC = 2.5
# What a compiled layer keeps of what it would keep otherwise: it computes cheap steps again, casts all of them.
# Measured on the CPU with torch's partitioner, which is the same for GPUs (benchmarks/layer_memory.py).
COMPILED_SAVED = {"lora": 0.76, "qlora": 0.76, "full": 0.70}


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One decoder layer, and what stands around the layers.

    Attributes:
        layers, heads, head_dim, hidden, vocabulary: of the model.
        parameters, trainable, linear: numbers of one layer; `linear` are the base's matrices.
        outside_parameters, outside_trainable: of embeddings, final norm and head.
        forward_flops, backward_flops: matrix products of one layer, per token, attention apart.
        forward_traffic, backward_traffic: bytes read and written by all else in one layer, per token.
        saved: bytes that one layer keeps for its backward pass, per token.
        entering: bytes of one layer's input, per token: what is kept of a layer that is recomputed.
        working: bytes that one layer holds at once on top of what it keeps, per token.
        outside_saved: bytes kept by embeddings, rotary angles and final norm, per token.
        copies: bytes of one layer's weights kept in another type for the backward pass.
        outputs: columns of all matrices with an adapter, in one layer.
        largest: parameters of the largest matrix.
    """

    layers: int
    heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    parameters: int
    trainable: int
    linear: int
    outside_parameters: int
    outside_trainable: int
    forward_flops: float
    backward_flops: float
    forward_traffic: float
    backward_traffic: float
    saved: float
    entering: float
    working: float
    outside_saved: float
    copies: int
    outputs: int
    largest: int

    @property
    def all_parameters(self) -> int:
        """Of the whole model, without adapters."""
        return self.parameters * self.layers + self.outside_parameters

    @property
    def all_trainable(self) -> int:
        return self.trainable * self.layers + self.outside_trainable

    @property
    def head(self) -> int:
        """Numbers of the matrix that turns hidden states into logits."""
        return self.vocabulary * self.hidden

    @property
    def attention_flops(self) -> float:
        """Of the forward pass for one pair of tokens in all layers: query by key, and weight by value."""
        return 4.0 * self.layers * self.heads * self.head_dim


_profiles: dict[tuple[str, Training, bool], LayerProfile] = {}


def profile_layer(config: PretrainedConfig, training: Training, *, fused_dropout: bool = True) -> LayerProfile:
    """Count one decoder layer of `config`, trained as `training` says. Takes well under a second.

    Args:
        config: of any causal language model whose decoder has `layers`.
        fused_dropout: CUDA's dropout keeps a mask of one byte an element; the CPU's keeps the input's type.
    """
    if training.compile_layers:
        plain = replace(training, compile_layers=False, input_casts=False)  # the compiler fuses the casts away
        return _compiled(profile_layer(config, plain, fused_dropout=fused_dropout), training)
    # What follows changes nothing in a single layer, and plans try many of its values.
    training = replace(training, checkpoint_every=0, optimizer="", row_tokens=0, devices=1, accumulation=1)
    key = (config.to_json_string(use_diff=False), training, fused_dropout)
    if key not in _profiles:
        _profiles[key] = _profile(config, training, fused_dropout)
    return _profiles[key]


def _compiled(layer: LayerProfile, training: Training) -> LayerProfile:
    return replace(
        layer,
        saved=layer.saved * COMPILED_SAVED[training.method],
        forward_traffic=layer.forward_traffic / COMPILED_TRAFFIC,
        backward_traffic=layer.backward_traffic / COMPILED_TRAFFIC,
    )


def _profile(config: PretrainedConfig, training: Training, fused_dropout: bool) -> LayerProfile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, trained = _one_layer(config, training, fused_dropout)
    decoder = model.get_decoder()
    layer = decoder.layers[0]
    meter = _count(decoder, trained, training)
    linear = [part for name, part in layer.named_modules() if isinstance(part, nn.Linear) and "lora_" not in name]
    adapted = [part for part in layer.modules() if isinstance(part, BaseTunerLayer)]
    inside, inside_trained = _numbers(layer)
    whole, whole_trained = _numbers(trained)
    return LayerProfile(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        parameters=inside - (inside_trained if adapted else 0),
        trainable=inside_trained,
        linear=sum(part.weight.numel() for part in linear),
        outside_parameters=whole - inside,
        outside_trainable=whole_trained - inside_trained,
        forward_flops=meter.forward.flops / TOKENS,
        backward_flops=meter.backward.flops / TOKENS,
        forward_traffic=meter.forward.traffic / TOKENS,
        backward_traffic=meter.backward.traffic / TOKENS,
        saved=meter.saved / TOKENS,
        entering=meter.entering / TOKENS,
        working=(max(meter.forward.peak, meter.backward.peak) - meter.after_forward) / TOKENS,
        outside_saved=meter.outside_saved / TOKENS,
        copies=meter.copies,
        outputs=sum(part.get_base_layer().out_features for part in adapted),
        largest=max(part.weight.numel() for part in linear),
    )


def _count(decoder: Any, trained: nn.Module, training: Training) -> Meter:
    """One forward and one backward pass of the decoder's one layer, counted."""
    with FakeTensorMode():
        for part in trained.modules():
            _materialise(part)
        meter = Meter(decoder.layers[0])
        with meter.watching(), _autocast(training):
            ids = torch.zeros(1, TOKENS, dtype=torch.long)
            output = decoder(input_ids=ids, use_cache=False).last_hidden_state
        with meter:
            output.backward(torch.empty_like(output))
    return meter


def _one_layer(config: PretrainedConfig, training: Training, fused_dropout: bool) -> tuple[Any, nn.Module]:
    """The causal language model with one layer, and the same with its adapters, on the meta device."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    config._attn_implementation = COUNTED_REPEATED if training.dense_mask else COUNTED
    with torch.device("meta"):
        # the class itself: `from_config` would shard it where ZeRO-3 is on
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).to(training.compute_dtype)
        trained = model if training.method == "full" else _adapted(model, training)
    trained.train()
    tuners: list[Any] = [part for part in trained.modules() if isinstance(part, BaseTunerLayer)]
    for tuner in tuners:
        # bitsandbytes' layers do not cast their input under autocast either
        tuner.cast_input_dtype_enabled = training.input_casts and training.method != "qlora"
        for name, dropout in tuner.lora_dropout.items():
            if fused_dropout and isinstance(dropout, nn.Dropout):
                tuner.lora_dropout[name] = FusedDropout(dropout.p)
    if training.method != "full":
        # an adapter below makes every layer's input require a gradient
        model.get_input_embeddings().register_forward_hook(lambda _, __, output: output.requires_grad_(True))
    return model, trained


def _adapted(model: nn.Module, training: Training) -> nn.Module:
    targets = "all-linear" if training.targets == ("all-linear",) else list(training.targets)
    # under sharding the products see adapters that were gathered in bfloat16
    in_float32 = training.adapter_dtype == torch.float32 and training.sharding != "fsdp"
    lora = LoraConfig(task_type="CAUSAL_LM", r=training.rank, lora_dropout=training.dropout, target_modules=targets)
    adapted: nn.Module = get_peft_model(model, lora, autocast_adapter_dtype=in_float32)
    return adapted


def _autocast(training: Training) -> contextlib.AbstractContextManager[Any]:
    enabled = training.autocast and training.sharding != "zero3"  # accelerate leaves types to DeepSpeed
    context: contextlib.AbstractContextManager[Any] = torch.autocast("cpu", torch.bfloat16, enabled=enabled)
    return context


def _materialise(part: nn.Module) -> None:
    """Parameters and buffers of the meta device become fake ones of the CPU, where autocast acts."""
    for name, value in part._parameters.items():
        if value is not None:
            part._parameters[name] = nn.Parameter(torch.empty(value.shape, dtype=value.dtype), value.requires_grad)
    for name, buffer in part._buffers.items():
        if buffer is not None:
            part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _numbers(module: nn.Module) -> tuple[int, int]:
    """Parameters, and those of them that are trained."""
    parameters = list(module.parameters())
    return sum(each.numel() for each in parameters), sum(each.numel() for each in parameters if each.requires_grad)
