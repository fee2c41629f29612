"""What a fine-tuning will cost, before anything is loaded: memory, time, and what would have to change to fit.

Counts come from `boost_qa.train.layer`; this module turns them into bytes and seconds.

Memory is that of one device at its worst moment. Activations are what the layers keep at the end of the
forward pass; `working` is the larger of what one layer's backward pass and the fused loss hold for a moment.

Time is a serial model: matrix products at a share of the vendor's peak, plus all else at a share of the
memory bandwidth, plus attention by the lengths of the documents. Communication between devices is not
modelled, nor is the host: a device is taken to be never idle. The shares are set from published numbers
alone; **no GPU was measured by us**, and `run.json` of a real run says how far off they are:

* NVIDIA NeMo AutoModel, docs/performance-summary (2025-10): Llama-3-8B, LoRA r16, one H100, rows of 4,096
  tokens, two to a micro batch, 12,473 tokens/s; Qwen2.5-7B 14,110. Its kernels are fused, so the model
  should lie below this without `compile_layers` and near it with.
* torchtune README (2024-09): Llama-3.1-8B, LoRA, packed 2,048 x 2, compiled, 16.2 GiB: 3,083 tokens/s on a
  4090, which with the recomputation that 16.2 GiB imply is 84 % of its peak; hence its own share.
  The same table's 4,699 on an "A6000" is 92 % of that card's peak in matrix products alone, before anything
  else is done; it is not used.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, PretrainedConfig

from boost_qa.errors import RecipeError
from boost_qa.train.layer import LayerProfile, Training, profile_layer

__all__ = [
    "Gpu", "Prediction", "Remedy", "Training", "Work", "as_dict", "checkpoint_for", "describe", "gpu", "gpus",
    "predict", "shape",
]  # fmt: skip

GIB = 2**30

# Shares of the vendor's peak that are reached; see the module's text for what they are set from.
# Cards that run below their power limit reach more: `matmul_share` in gpus.yaml.
MATMUL_SHARE = 0.70
ATTENTION_SHARE = 0.40
BANDWIDTH_SHARE = 0.85
# How many times less a compiled layer reads and writes outside its matrix products: an estimate.
COMPILED_TRAFFIC = 2.5
# What a compiled layer keeps of what it would keep otherwise: it computes cheap steps again, casts all of them.
# Measured on the CPU with torch's partitioner, which is the same for GPUs (benchmarks/layer_memory.py).
COMPILED_SAVED = {"lora": 0.76, "qlora": 0.76, "full": 0.70}

# What is taken before the first tensor (CUDA context, cuBLAS and attention workspaces), and what the
# allocator loses to fragments of the tensors that come and go.
CONTEXT = 1.0 * GIB
FRAGMENTS = 0.03

# bitsandbytes nf4, blocks of 64 with a float32 scale each; not nested
NF4_BYTES = 0.5 + 4 / 64

# Tile of TRL's fused head: trl/kernels/chunked_logprob.py and trl/trainer/utils.py
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768

# DeepSpeed's sub_group_size: this many gradients at once become float32 for the optimizer
SUB_GROUP = 1e9

# Bytes of optimizer state per trained number, by the start of transformers' name; else two of the weight's type.
STATE_BYTES = {"adamw_8bit": 2.03, "adamw_bnb_8bit": 2.03, "paged_adamw_8bit": 2.03, "ademamix_8bit": 3.05}
STATES = {"sgd": 0, "adafactor": 0, "lion": 1, "rmsprop": 1, "adagrad": 1}

CHECKPOINTING = (0, 4, 2, 1)
# Shorter rows would cut dialogues, and leave a GPU idle between its kernels.
LEAST_ROW = 2048


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


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card: GiB as torch sees them, dense bfloat16 peak in TFLOP/s, memory bandwidth in TB/s.

    `matmul_share` is the part of the peak that matrix products reach.
    """

    name: str
    memory_gib: float
    bf16_tflops: float
    bandwidth_tbs: float
    bf16: bool = True
    matmul_share: float = MATMUL_SHARE


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that makes a training fit.

    Attributes:
        change: fields of `Training`.
        gib: memory after it.
        slower: seconds after it over seconds before it.
    """

    change: dict[str, Any]
    gib: float
    slower: float

    def __str__(self) -> str:
        words = " and ".join(_RECIPE_WORDS[key].format(value) for key, value in self.change.items())
        time = f"{abs(self.slower - 1):.0%} {'slower' if self.slower > 1 else 'faster'}"
        return f"{words}: {self.gib:.1f} GiB, {time if abs(self.slower - 1) >= 0.005 else 'as fast'}"


_RECIPE_WORDS = {
    "checkpoint_every": "checkpoint_every: {}",
    "row_tokens": "micro batches of {} tokens (max_length, per_device_train_batch_size)",
    "method": "load_in_4bit: true ({})",
    "dropout": "lora_dropout: {}",
    "input_casts": "lora_cast_inputs: {}",
    "attention": "attn_implementation: {}",
    "optimizer": "optim: {}",
    "devices": "{} devices",
    "sharding": "sharded weights ({})",
    "accumulation": "accelerator_config: {{gradient_accumulation_kwargs: {{sync_each_batch: true}}}}",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a training will take.

    Attributes:
        parameters, trainable: numbers of the base model, and those that are trained.
        linear: numbers of the base's matrices, the head with them and the embeddings not.
        flops_per_token: matrix products forward and backward, the head at every token, recomputation and
            attention apart.
        recompute_per_token: what checkpointing adds to it.
        flops: of the whole run as it is computed: loss only where it is scored, attention and recomputation.
        memory: bytes of one device: weights, adapters, gradients, optimizer, activations, working,
            attention_mask, gathered, reserve.
        time: seconds of the whole run: matmul, attention, elementwise, dequantise, optimizer.
        tokens_per_second: real tokens, all devices together.
        mfu: useful FLOPs over the peak: 4 per matrix number and token for adapters, 6 for full fine-tuning,
            and three times attention's forward pass. Recomputation is not useful.
        changes: of what does not fit, those after which it does, the least slowdown first.
    """

    training: Training
    work: Work
    gpu: Gpu
    parameters: int
    trainable: int
    linear: int
    flops_per_token: float
    recompute_per_token: float
    flops: float
    memory: dict[str, float]
    time: dict[str, float]
    tokens_per_second: float
    mfu: float
    changes: tuple[Remedy, ...] = field(default=())

    @property
    def remedies(self) -> list[str]:
        """The changes in the words of a recipe, with the memory and time after them."""
        return [str(change) for change in self.changes]

    @property
    def seconds(self) -> float:
        return sum(self.time.values())

    @property
    def tokens_per_second_per_device(self) -> float:
        return self.tokens_per_second / self.training.devices

    @property
    def allocated(self) -> float:
        """Bytes that `torch.cuda.max_memory_allocated` should show."""
        return sum(size for name, size in self.memory.items() if name != "reserve")

    @property
    def total(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.gpu.memory_gib * GIB


# --- what is known of GPUs and models ------------------------------------------------------------------


@cache
def gpus() -> dict[str, Gpu]:
    """All GPUs by name."""
    raw = yaml.safe_load(Path(__file__).with_name("gpus.yaml").read_text(encoding="utf-8"))
    return {name: Gpu(name, **facts) for name, facts in raw.items()}


def gpu(name: str) -> Gpu:
    """The GPU of that name, in any case.

    Raises:
        RecipeError: naming the nearest and all.
    """
    asked = str(name).lower().strip().replace(" ", "-").replace("_", "-")
    known = gpus()
    if asked in known:
        return known[asked]
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.3)
    raise RecipeError(
        f"no GPU {name!r}" + (f" (nearest name: {near[0]!r})" if near else ""), f"Give one of: {', '.join(known)}."
    )


def shape(model_id: str) -> PretrainedConfig | None:
    """The config of a base model of the recipes, without the Hub; None for another model.

    A mirror counts as the original: `NousResearch/Meta-Llama-3-8B`, or a folder of that name.
    """
    raw = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text(encoding="utf-8"))
    asked = model_id.rstrip("/").rpartition("/")[2].lower()
    for name, facts in raw.items():
        if asked == name.rpartition("/")[2].lower():
            return AutoConfig.for_model(**facts)
    return None


# --- predicting ----------------------------------------------------------------------------------------


def predict(
    config: PretrainedConfig, training: Training, work: Work, gpu: Gpu, layer: LayerProfile | None = None
) -> Prediction:
    """Memory and time of `training` for `work` on `gpu`s, and remedies where it does not fit.

    Args:
        layer: counts to use instead of those of the shape.

    Raises:
        RecipeError: if the card has no bfloat16 and the training asks for it.
    """
    if not gpu.bf16 and (training.dtype == "bfloat16" or training.autocast):
        raise RecipeError(f"{gpu.name} has no bfloat16", "Choose a GPU of Ampere or later: a100-40, a10g, 3090, ...")
    prediction = _predict(config, training, work, gpu, layer)
    if prediction.fits:
        return prediction
    return replace(prediction, changes=_remedies(config, prediction))


def checkpoint_for(config: PretrainedConfig, training: Training, work: Work, gpu: Gpu) -> int:
    """The least checkpointing that fits: 0, else every 4th layer, every 2nd, every one (fit or not)."""
    for every in CHECKPOINTING:
        if _predict(config, replace(training, checkpoint_every=every), work, gpu).fits:
            return every
    return 1


def _predict(
    config: PretrainedConfig, training: Training, work: Work, gpu: Gpu, layer: LayerProfile | None = None
) -> Prediction:
    layer = layer or _profile(config, training)
    head = layer.vocabulary * layer.hidden
    full = training.method == "full"
    forward, backward = (each * layer.layers for each in (layer.forward_flops, layer.backward_flops))
    recompute = layer.forward_flops * _recomputed(layer, training)
    linear = layer.linear * layer.layers + head
    time, flops = _time(layer, training, work, gpu)
    seconds = sum(time.values())
    useful = (6 if full else 4) * linear * work.tokens + 3 * _attention(layer) * work.pairs
    peak = gpu.bf16_tflops * 1e12 * training.devices
    return Prediction(
        training=training,
        work=work,
        gpu=gpu,
        parameters=layer.parameters * layer.layers + layer.outside_parameters,
        trainable=layer.trainable * layer.layers + layer.outside_trainable,
        linear=linear,
        flops_per_token=forward + backward + (6 if full else 4) * head,
        recompute_per_token=recompute,
        flops=flops,
        memory=_memory(layer, training, work),
        time=time,
        tokens_per_second=work.tokens * work.epochs / seconds,
        mfu=useful * work.epochs / (seconds * peak),
    )


def _profile(config: PretrainedConfig, training: Training) -> LayerProfile:
    if not training.compile_layers:
        return profile_layer(config, training)
    layer = profile_layer(config, replace(training, input_casts=False))  # the compiler fuses the casts away
    return replace(
        layer,
        saved=layer.saved * COMPILED_SAVED[training.method],
        forward_traffic=layer.forward_traffic / COMPILED_TRAFFIC,
        backward_traffic=layer.backward_traffic / COMPILED_TRAFFIC,
    )


def _recomputed(layer: LayerProfile, training: Training) -> int:
    """How many layers are computed twice: transformers recomputes those whose number `every` divides."""
    every = training.checkpoint_every
    return len(range(0, layer.layers, every)) if every else 0


def _attention(layer: LayerProfile) -> float:
    """Forward FLOPs for one pair of tokens in all layers: query by key, and weight by value."""
    return 4.0 * layer.layers * layer.heads * layer.head_dim


# --- memory --------------------------------------------------------------------------------------------


def _memory(layer: LayerProfile, training: Training, work: Work) -> dict[str, float]:
    kept, working = _activations(layer, training, work)
    memory = _states(layer, training) | {"activations": kept, "working": working}
    memory["attention_mask"] = _mask(training)
    memory["gathered"] = _gathered(layer, training)
    memory["reserve"] = CONTEXT + FRAGMENTS * (kept + working + memory["gathered"])
    return memory


def _states(layer: LayerProfile, training: Training) -> dict[str, float]:
    """Weights, adapters, gradients and optimizer of one device.

    FSDP2 under accelerate 1.15 (utils/fsdp_utils.py, fsdp2_prepare_model): trained parameters become float32,
    frozen ones stay; gradients and states are float32. Parameters of nf4 are not sharded.
    DeepSpeed ZeRO-3 with bf16 (runtime/engine.py get_data_types, runtime/zero/stage3.py): bfloat16 weights and
    gradients, and a float32 master copy with two float32 states.
    """
    full, sharding = training.method == "full", training.sharding
    trained = layer.trainable * layer.layers + layer.outside_trainable
    base = layer.parameters * layer.layers + layer.outside_parameters
    matrices = layer.linear * layer.layers
    shards = training.devices if sharding in ("fsdp", "zero3") else 1
    size = 4 if training.dtype == "float32" else 2
    if training.method == "qlora":
        weights = matrices * NF4_BYTES + (base - matrices) * size
    elif full and sharding == "fsdp":
        weights = 4 * base / shards
    else:
        weights = (2 if sharding == "zero3" else size) * base / shards
    own = size if full else training.adapter_dtype.itemsize
    if sharding == "fsdp":
        own = 4
    elif sharding == "zero3":
        own = 2
    gradients = own * trained / shards
    if sharding == "ddp":
        gradients *= 2  # the buckets that are sent are copies
    if sharding == "fsdp" and training.accumulation > 1:
        gradients += 2 * trained  # transformers defers the reduction: whole bfloat16 gradients on every device
    if sharding == "zero3":
        gradients += 4 * min(SUB_GROUP, trained / shards)
        optimizer = (4 + 8) * trained / shards
    else:
        optimizer = _state_bytes(training.optimizer, own) * trained / shards
    adapters = 0.0 if full else own * trained / shards
    return {"weights": weights, "adapters": adapters, "gradients": gradients, "optimizer": optimizer}


def _state_bytes(optimizer: str, weight: int) -> float:
    for start, size in STATE_BYTES.items():
        if optimizer.startswith(start):
            return size
    return next((count * weight for start, count in STATES.items() if optimizer.startswith(start)), 2 * weight)


def _activations(layer: LayerProfile, training: Training, work: Work) -> tuple[float, float]:
    """What the layers keep, and what the worst moment needs on top."""
    rows = training.row_tokens
    saved, entering = layer.saved, layer.entering
    extra = layer.working * rows
    if training.method == "qlora":
        extra += 2 * layer.largest  # one matrix at a time in bfloat16
    if training.attention == "eager":
        saved += 6.0 * layer.heads * rows  # weights of all pairs, before and after their cast
        extra += 8.0 * layer.heads * rows * rows
    every = training.checkpoint_every
    again = [bool(every) and number % every == 0 for number in range(layer.layers)]
    kept = [rows * (entering if each else saved) for each in again]
    copies = layer.copies * layer.layers
    whole = sum(kept)
    moments = [whole + _loss(layer, training, work)]
    for number in range(layer.layers):
        moments.append(sum(kept[: number + 1]) + (rows * saved if again[number] else 0) + extra)
    outside = rows * (layer.outside_saved + entering)  # the last layer's output is held, too
    return whole + outside + copies, max(moments) - whole


def _loss(layer: LayerProfile, training: Training, work: Work) -> float:
    """TRL's fused head: a tile of logits, hidden states of scored tokens with their gradient, never all logits."""
    scored = training.row_tokens * work.supervised / max(1, work.padded_tokens)
    tile = 2 * min(scored, TILE_TOKENS) * min(layer.vocabulary, TILE_VOCABULARY)
    states = scored * layer.hidden * (2 + 4 + 2) + 2 * training.row_tokens * layer.hidden
    # a trained head's gradient is summed in float32, then cast
    return tile + states + (6 * layer.vocabulary * layer.hidden if training.method == "full" else 0)


def _mask(training: Training) -> float:
    """Without a kernel that knows documents, a row's mask is dense; sdpa turns the booleans into numbers again."""
    pairs = float(training.row_tokens) ** 2
    return {"sdpa": 3 * pairs, "eager": 2 * pairs}.get(training.attention, 0.0)


def _gathered(layer: LayerProfile, training: Training) -> float:
    """Whole bfloat16 parameters on a sharded device: two layers (one is fetched ahead), and the head twice.

    accelerate does not free the head after the forward pass, and TRL's fused head gathers it once more.
    """
    if training.sharding not in ("fsdp", "zero3"):
        return 0.0
    head = layer.vocabulary * layer.hidden
    inside = 0 if training.method == "qlora" else 2 * layer.parameters
    gradients = 2 * layer.trainable + head if training.method == "full" else layer.trainable
    return 2.0 * (inside + 2 * head + gradients)


# --- time ----------------------------------------------------------------------------------------------


def _time(layer: LayerProfile, training: Training, work: Work, gpu: Gpu) -> tuple[dict[str, float], float]:
    """Seconds of the whole run by kind, and the FLOPs that are computed in it."""
    again = _recomputed(layer, training)
    positions = work.padded_tokens * work.epochs
    products = (layer.forward_flops + layer.backward_flops) * layer.layers + layer.forward_flops * again
    full = training.method == "full"
    # the fused head computes its logits twice, and gradients of the states and, where it is trained, of itself
    head = (8 if full else 6) * layer.vocabulary * layer.hidden
    matmul = products * positions + head * work.supervised * work.epochs
    # a flash kernel's backward pass computes the scores again: 5 products instead of 2
    pairs = _pairs(training, work) * work.epochs
    attention = _attention(layer) * pairs * (1 + 2.5 + again / layer.layers)
    traffic = (layer.forward_traffic + layer.backward_traffic) * layer.layers + layer.forward_traffic * again
    if training.method == "qlora":
        traffic += 4.0 * layer.outputs * (layer.layers + again)  # bitsandbytes' layers copy their output
    # each matrix is read in 4 bits, written and read in 16, once a pass
    unpacked = (NF4_BYTES + 2 + 2) * layer.linear * (2 * layer.layers + again) if training.method == "qlora" else 0
    trained = layer.trainable * layer.layers + layer.outside_trainable
    shards = training.devices if training.sharding in ("fsdp", "zero3") else 1
    rate = gpu.bf16_tflops * 1e12 * training.devices
    bandwidth = BANDWIDTH_SHARE * gpu.bandwidth_tbs * 1e12
    seconds = {
        "matmul": matmul / (gpu.matmul_share * rate),
        "attention": attention / (ATTENTION_SHARE * rate),
        "elementwise": traffic * positions / (bandwidth * training.devices),
        "dequantise": unpacked * positions / training.row_tokens / (bandwidth * training.devices),
        # weight, gradient and two states are read, all but the gradient written
        "optimizer": 28.0 * trained / shards * work.steps / bandwidth,
    }
    return seconds, matmul + attention


def _pairs(training: Training, work: Work) -> float:
    """Pairs of tokens that the kernel computes; with a dense mask it computes those that are masked, too."""
    if training.attention in ("sdpa", "eager"):
        return float(work.padded_tokens) * training.row_tokens
    return work.pairs


# --- remedies ------------------------------------------------------------------------------------------


def _remedies(config: PretrainedConfig, before: Prediction) -> tuple[Remedy, ...]:
    """Single changes that fit; if there is none, changes of two or three kinds together."""
    found: list[Remedy] = []
    for change in _changes(before.training):
        after = _predict(config, replace(before.training, **change), before.work, before.gpu)
        if after.fits:
            found.append(Remedy(change, after.total / GIB, after.seconds / before.seconds))
    fewest = min((len(remedy.change) for remedy in found if "devices" not in remedy.change), default=9)
    kept = [remedy for remedy in found if len(remedy.change) == fewest or "devices" in remedy.change]
    best: dict[tuple[str, ...], Remedy] = {}  # of each kind the mildest, as `_changes` goes from mild to severe
    for remedy in kept:
        best.setdefault(tuple(remedy.change), remedy)
    return tuple(sorted(best.values(), key=lambda remedy: ("devices" in remedy.change, remedy.slower)))


def _changes(training: Training) -> Iterator[dict[str, Any]]:
    """Changes of the training from mild to severe, within each number of kinds."""
    now = training.checkpoint_every
    every: list[dict[str, Any]] = [{"checkpoint_every": n} for n in CHECKPOINTING if n and (n < now or not now)]
    rows: list[dict[str, Any]] = [
        {"row_tokens": training.row_tokens // part} for part in (2, 4) if training.row_tokens // part >= LEAST_ROW
    ]
    small: list[dict[str, Any]] = []
    if training.method == "lora" and training.sharding in ("none", "ddp"):
        small.append({"method": "qlora"})
    if training.method == "full" and "8bit" not in training.optimizer and training.sharding != "zero3":
        small.append({"optimizer": "adamw_8bit"})
    kinds: list[list[dict[str, Any]]] = [every, rows, small]
    if training.method != "full":
        kinds += [
            [{"dropout": 0.0}] if training.dropout else [],
            [{"input_casts": False}] if training.input_casts else [],
        ]
    if training.sharding == "fsdp" and training.accumulation > 1:
        kinds += [[{"accumulation": 1}]]  # as gradients are then reduced after every micro batch
    kinds += [[{"attention": "torch_varlen"}] if training.attention in ("sdpa", "eager") else []]
    for kind in kinds:
        yield from kind
    for first in every:
        for second in (*small, *rows):
            yield first | second
    for first in every[-1:]:
        for second in small:
            for third in rows:
                yield first | second | third
    sharding = training.sharding if training.sharding in ("fsdp", "zero3") else "fsdp"
    if training.method != "qlora":
        for devices in (2, 4, 8, 16):
            if devices > training.devices:
                yield {"devices": devices, "sharding": sharding}
                yield {"devices": devices, "sharding": sharding, "checkpoint_every": 1}


# --- telling -------------------------------------------------------------------------------------------


def describe(prediction: Prediction) -> list[tuple[str, str]]:
    """The prediction as rows of a table: what, and how much with its unit."""
    memory = [(f"memory: {name.replace('_', ' ')}", _gib(size)) for name, size in prediction.memory.items() if size]
    room = f"{_gib(prediction.total)} of {prediction.gpu.memory_gib:.1f} GiB"
    devices = f"{prediction.training.devices} x {prediction.gpu.name}"
    return [
        ("parameters", f"{prediction.parameters / 1e9:.2f} B"),
        ("trained", f"{prediction.trainable / 1e6:,.1f} M"),
        (
            "FLOPs a token",
            f"{prediction.flops_per_token / 1e9:.1f} G + {prediction.recompute_per_token / 1e9:.1f} G again",
        ),
        ("FLOPs of the run", f"{prediction.flops / 1e15:,.1f} P"),
        *memory,
        ("memory of one device", room + ("" if prediction.fits else ": does not fit")),
        ("tokens a second", f"{prediction.tokens_per_second:,.0f} on {devices}"),
        ("MFU", f"{prediction.mfu:.0%}"),
        ("time", _duration(prediction.seconds)),
        *(("would fit with", remedy) for remedy in prediction.remedies),
    ]


def as_dict(prediction: Prediction) -> dict[str, Any]:
    """The prediction for JSON: bytes, seconds and FLOPs."""
    facts: dict[str, Any] = asdict(prediction)
    del facts["changes"]
    for name in ("allocated", "total", "fits", "seconds", "remedies"):
        facts[name] = getattr(prediction, name)
    return facts


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size < 10 * GIB else f"{size / GIB:.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
