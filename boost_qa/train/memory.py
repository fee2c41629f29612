"""Bytes of one device at its worst moment.

Activations are what the layers keep at the end of the forward pass; `working` is the larger of what one
layer's backward pass and the fused loss hold for a moment.
"""

from __future__ import annotations

from boost_qa.train.layer import LayerProfile
from boost_qa.train.workload import Training, Work

GIB = 2**30

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


def device_memory(layer: LayerProfile, training: Training, work: Work) -> dict[str, float]:
    """Bytes of one device by kind: weights, adapters, gradients, optimizer, activations, working, attention_mask,
    gathered, reserve.
    """
    memory = _states(layer, training)
    memory["activations"], memory["working"] = _activations(layer, training, work)
    memory["attention_mask"] = _mask(training)
    memory["gathered"] = _gathered(layer, training)
    passing = memory["activations"] + memory["working"] + memory["gathered"]
    memory["reserve"] = CONTEXT + FRAGMENTS * passing
    return memory


def _states(layer: LayerProfile, training: Training) -> dict[str, float]:
    """What stays from step to step.

    FSDP2 under accelerate 1.15 (utils/fsdp_utils.py, fsdp2_prepare_model): trained parameters become float32,
    frozen ones stay; gradients and states are float32. Parameters of nf4 are not sharded.
    DeepSpeed ZeRO-3 with bf16 (runtime/engine.py get_data_types, runtime/zero/stage3.py): bfloat16 weights and
    gradients, and a float32 master copy with two float32 states.
    """
    trained, size = layer.all_trainable / training.shards, _trained_bytes(training)
    return {
        "weights": _weights(layer, training),
        "adapters": 0.0 if training.method == "full" else size * trained,
        "gradients": _gradients(layer, training),
        "optimizer": _state_bytes(training, size) * trained,
    }


def _weights(layer: LayerProfile, training: Training) -> float:
    size = 4 if training.dtype == "float32" else 2
    if training.method == "qlora":
        matrices = layer.linear * layer.layers
        return matrices * NF4_BYTES + (layer.all_parameters - matrices) * size
    if training.sharding == "zero3":
        size = 2
    elif training.sharding == "fsdp" and training.method == "full":
        size = 4
    return size * layer.all_parameters / training.shards


def _trained_bytes(training: Training) -> int:
    """Of one trained number, and of its gradient."""
    if training.sharded:
        return 4 if training.sharding == "fsdp" else 2
    if training.method == "full":
        return 4 if training.dtype == "float32" else 2
    return int(training.adapter_dtype.itemsize)


def _gradients(layer: LayerProfile, training: Training) -> float:
    shard = layer.all_trainable / training.shards
    gradients = _trained_bytes(training) * shard
    if training.sharding == "ddp":
        return 2 * gradients  # the buckets that are sent are copies
    if training.sharding == "zero3":
        return gradients + 4 * min(SUB_GROUP, shard)
    if training.sharding == "fsdp" and training.accumulation > 1:
        # transformers defers the reduction: whole bfloat16 gradients on every device
        return gradients + 2 * layer.all_trainable
    return gradients


def _state_bytes(training: Training, weight: int) -> float:
    """Of the optimizer, for one trained number of `weight` bytes."""
    if training.sharding == "zero3":
        return 4 + 8
    for start, size in STATE_BYTES.items():
        if training.optimizer.startswith(start):
            return size
    count = next((count for start, count in STATES.items() if training.optimizer.startswith(start)), 2)
    return count * weight


def _activations(layer: LayerProfile, training: Training, work: Work) -> tuple[float, float]:
    """What the layers keep, and what the worst moment needs on top."""
    rows = training.row_tokens
    saved, extra = layer.saved, layer.working * rows
    if training.method == "qlora":
        extra += 2 * layer.largest  # one matrix at a time in bfloat16
    if training.attention == "eager":
        saved += 6.0 * layer.heads * rows  # weights of all pairs, before and after their cast
        extra += 8.0 * layer.heads * rows * rows
    again = training.recomputed(layer.layers)
    kept = [rows * (layer.entering if each else saved) for each in again]
    whole = sum(kept)
    moments = [whole + _loss(layer, training, work)]
    for number in range(layer.layers):
        moments.append(sum(kept[: number + 1]) + (rows * saved if again[number] else 0) + extra)
    outside = rows * (layer.outside_saved + layer.entering)  # the last layer's output is held, too
    return whole + outside + layer.copies * layer.layers, max(moments) - whole


def _loss(layer: LayerProfile, training: Training, work: Work) -> float:
    """TRL's fused head: a tile of logits, hidden states of scored tokens with their gradient, never all logits."""
    scored = training.row_tokens * work.supervised / max(1, work.padded_tokens)
    tile = 2 * min(scored, TILE_TOKENS) * min(layer.vocabulary, TILE_VOCABULARY)
    states = scored * layer.hidden * (2 + 4 + 2) + 2 * training.row_tokens * layer.hidden
    # a trained head's gradient is summed in float32, then cast
    return tile + states + (6 * layer.head if training.method == "full" else 0)


def _mask(training: Training) -> float:
    """Without a kernel that knows documents, a row's mask is dense; sdpa turns the booleans into numbers again."""
    pairs = float(training.row_tokens) ** 2
    return {"sdpa": 3 * pairs, "eager": 2 * pairs}.get(training.attention, 0.0)


def _gathered(layer: LayerProfile, training: Training) -> float:
    """Whole bfloat16 parameters on a sharded device: two layers (one is fetched ahead), and the head twice.

    accelerate does not free the head after the forward pass, and TRL's fused head gathers it once more.
    """
    if not training.sharded:
        return 0.0
    inside = 0 if training.method == "qlora" else 2 * layer.parameters
    gradients = 2 * layer.trainable + layer.head if training.method == "full" else layer.trainable
    return 2.0 * (inside + 2 * layer.head + gradients)
