"""Seconds of a training, from what it computes and moves.

A serial model: matrix products at a share of the vendor's peak, plus all else at a share of the memory
bandwidth, plus attention by the lengths of the documents. Communication between devices is not modelled, nor
is the host: a device is taken to be never idle. The shares are set from published numbers alone; **no GPU was
measured by us**, and `run.json` of a real run says how far off they are:

* NVIDIA NeMo AutoModel, docs/performance-summary (2025-10): Llama-3-8B, LoRA r16, one H100, rows of 4,096
  tokens, two to a micro batch, 12,473 tokens/s; Qwen2.5-7B 14,110. Its kernels are fused, so the model
  should lie below this without `compile_layers` and near it with.
* torchtune README (2024-09): Llama-3.1-8B, LoRA, packed 2,048 x 2, compiled, 16.2 GiB: 3,083 tokens/s on a
  4090, which with the recomputation that 16.2 GiB imply is 84 % of its peak; hence its own share.
  The same table's 4,699 on an "A6000" is 92 % of that card's peak in matrix products alone, before anything
  else is done; it is not used.

The share of matrix products is a fact of the card: `boost_qa.train.gpus`.
"""

from __future__ import annotations

from boost_qa.train.gpus import Gpu
from boost_qa.train.layer import LayerProfile
from boost_qa.train.memory import NF4_BYTES
from boost_qa.train.workload import Training, Work

# Shares of the vendor's peak that are reached.
ATTENTION_SHARE = 0.40
BANDWIDTH_SHARE = 0.85


def run_seconds(layer: LayerProfile, training: Training, work: Work, gpu: Gpu) -> dict[str, float]:
    """Seconds of the whole run by kind: matmul, attention, elementwise, dequantise, optimizer."""
    positions = work.padded_tokens * work.epochs
    flops = run_flops(layer, training, work)
    rate = gpu.bf16_tflops * 1e12 * training.devices
    bandwidth = BANDWIDTH_SHARE * gpu.bandwidth_tbs * 1e12
    return {
        "matmul": flops["matmul"] / (gpu.matmul_share * rate),
        "attention": flops["attention"] / (ATTENTION_SHARE * rate),
        "elementwise": _traffic(layer, training) * positions / (bandwidth * training.devices),
        "dequantise": _unpacked(layer, training) * positions / training.row_tokens / (bandwidth * training.devices),
        # weight, gradient and two states are read, all but the gradient written
        "optimizer": 28.0 * layer.all_trainable / training.shards * work.steps / bandwidth,
    }


def run_flops(layer: LayerProfile, training: Training, work: Work) -> dict[str, float]:
    """FLOPs of the whole run as it is computed: matmul, attention."""
    again = sum(training.recomputed(layer.layers))
    products = (layer.forward_flops + layer.backward_flops) * layer.layers + layer.forward_flops * again
    # the fused head computes its logits twice, and gradients of the states and, where it is trained, of itself
    head = (8 if training.method == "full" else 6) * layer.head
    # a dense mask's kernel computes the pairs that are masked, too
    pairs = float(work.padded_tokens) * training.row_tokens if training.dense_mask else work.pairs
    return {
        "matmul": (products * work.padded_tokens + head * work.supervised) * work.epochs,
        # a flash kernel's backward pass computes the scores again: 5 products instead of 2
        "attention": layer.attention_flops * pairs * work.epochs * (1 + 2.5 + again / layer.layers),
    }


def _traffic(layer: LayerProfile, training: Training) -> float:
    """Bytes that one position reads and writes outside the matrix products."""
    again = sum(training.recomputed(layer.layers))
    traffic = (layer.forward_traffic + layer.backward_traffic) * layer.layers + layer.forward_traffic * again
    if training.method == "qlora":
        traffic += 4.0 * layer.outputs * (layer.layers + again)  # bitsandbytes' layers copy their output
    return traffic


def _unpacked(layer: LayerProfile, training: Training) -> float:
    """Bytes that one micro batch moves to unpack nf4: each matrix is read in 4 bits, written and read in 16, once
    a pass.
    """
    if training.method != "qlora":
        return 0.0
    passes = 2 * layer.layers + sum(training.recomputed(layer.layers))
    return (NF4_BYTES + 2 + 2) * layer.linear * passes
