"""One decoder layer, taken apart without memory: what it computes, moves and keeps for every token.

The layer is built in its real shape and trained for one step under torch's FakeTensorMode, where tensors
have shapes and types but no contents. Everything is counted as torch dispatches it, so casts that PEFT and
autocast slip in are counted too. Attention is replaced by a stand-in that keeps what a flash kernel keeps
and costs nothing: its FLOPs depend on the lengths of the documents and are added in `boost_qa.train.cost`.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface

Method = Literal["lora", "qlora", "full"]
Sharding = Literal["none", "ddp", "fsdp", "zero3"]
Attention = Literal["torch_varlen", "flash", "sdpa", "eager"]

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# A prime: no width of a model has this size, so a tensor has a token axis exactly if it has an axis this long.
TOKENS = 1021

FREE = ("view", "expand", "detach", "alias", "empty", "reshape", "lift_fresh", "new_zeros")


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
        return torch.bfloat16 if self.sharding in ("fsdp", "zero3") else getattr(torch, self.dtype)


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


_profiles: dict[tuple[str, Training, bool], LayerProfile] = {}


def profile_layer(config: PretrainedConfig, training: Training, *, fused_dropout: bool = True) -> LayerProfile:
    """Count one decoder layer of `config`, trained as `training` says. Takes well under a second.

    Args:
        config: of any causal language model whose decoder has `layers`.
        fused_dropout: CUDA's dropout keeps a mask of one byte an element; the CPU's keeps the input's type.
    """
    # What follows changes nothing in a single layer, and plans try many of its values.
    training = replace(
        training, checkpoint_every=0, compile_layers=False, optimizer="", row_tokens=0, devices=1, accumulation=1
    )
    key = (config.to_json_string(use_diff=False), training, fused_dropout)
    if key not in _profiles:
        _profiles[key] = _profile(config, training, fused_dropout)
    return _profiles[key]


def _profile(config: PretrainedConfig, training: Training, fused_dropout: bool) -> LayerProfile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, trained = _one_layer(config, training, fused_dropout)
    decoder = model.get_decoder()
    layer = decoder.layers[0]
    with FakeTensorMode():
        for part in trained.modules():
            _materialise(part)
        meter = _Meter(layer)
        with (
            meter.watching(),
            _autocast(training),
            torch.autograd.graph.saved_tensors_hooks(meter.keep, lambda kept: kept),
        ):
            ids = torch.zeros(1, TOKENS, dtype=torch.long)
            output = decoder(input_ids=ids, use_cache=False).last_hidden_state
        with meter:
            output.backward(torch.empty_like(output))
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


def _one_layer(config: PretrainedConfig, training: Training, fused_dropout: bool) -> tuple[Any, nn.Module]:
    """The causal language model with one layer, and the same with its adapters, on the meta device."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    attention = "counted" if training.attention in ("torch_varlen", "flash") else "counted_repeated"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=training.compute_dtype, attn_implementation=attention)
        trained = model if training.method == "full" else _adapted(model, training)
    trained.train()
    tuners: list[Any] = [part for part in trained.modules() if isinstance(part, BaseTunerLayer)]
    for tuner in tuners:
        # bitsandbytes' layers do not cast their input under autocast either
        tuner.cast_input_dtype_enabled = training.input_casts and training.method != "qlora"
        for name, dropout in tuner.lora_dropout.items():
            if fused_dropout and isinstance(dropout, nn.Dropout):
                tuner.lora_dropout[name] = _FusedDropout(dropout.p)
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


# --- what takes the place of kernels ----------------------------------------------------------------


class _FusedDropout(nn.Module):  # type: ignore[misc]
    """Dropout as CUDA computes it."""

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


for _name, _function in (("counted", _counted), ("counted_repeated", _counted_repeated)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, lambda *_, **__: None)


# --- counting ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Count:
    flops: int = 0
    traffic: int = 0
    peak: int = 0


class _Meter(TorchDispatchMode):  # type: ignore[misc]
    """Counts what is dispatched inside one layer, forward and backward apart."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.forward, self.backward, self._now = _Count(), _Count(), _Count()
        self.saved = self.outside_saved = self.entering = self.copies = self.after_forward = 0
        self._layer = layer
        self._inside = False
        self._live = 0
        self._known: set[int] = set()
        self._kept: set[int] = {each.untyped_storage()._cdata for each in layer.parameters()}
        self._foreign: set[int] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The layer's forward pass is counted inside; the backward pass is set up."""
        hooks = (
            self._layer.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._layer.register_forward_hook(self._leave),
        )
        with self:
            yield
        for hook in hooks:
            hook.remove()

    def keep(self, tensor: Tensor) -> Tensor:
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
        hidden.register_hook(lambda _: self._switch(_Count(), inside=False))
        self._switch(self.forward, inside=True)

    def _leave(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.after_forward = self._live
        self._switch(_Count(), inside=False)
        hidden = output if isinstance(output, Tensor) else output[0]
        hidden.register_hook(lambda _: self._switch(self.backward, inside=True))

    def _switch(self, count: _Count, *, inside: bool) -> None:
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
