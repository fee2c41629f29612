"""What a fine-tuning will cost, before anything is loaded: memory, time, and what would have to change to fit.

`boost_qa.train.layer` counts one layer of the model; `memory` and `speed` turn the counts into bytes and
seconds, and say what they leave out; `remedies` proposes changes, which are tried here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from transformers import PretrainedConfig

from boost_qa.errors import RecipeError
from boost_qa.train.gpus import Gpu
from boost_qa.train.layer import LayerProfile, profile_layer
from boost_qa.train.memory import GIB, device_memory
from boost_qa.train.remedies import CHECKPOINTING, Remedy, changes, choose
from boost_qa.train.speed import run_flops, run_seconds
from boost_qa.train.workload import Training, Work


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
        memory: bytes of one device by kind, as `device_memory` names them.
        time: seconds of the whole run by kind, as `run_seconds` names them.
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
    def allocated(self) -> float:
        """Bytes that `torch.cuda.max_memory_allocated` should show."""
        return sum(size for name, size in self.memory.items() if name != "reserve")

    @property
    def total(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.gpu.memory_gib * GIB


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
    prediction = _estimate(config, training, work, gpu, layer)
    if prediction.fits:
        return prediction
    return replace(prediction, changes=_remedies(config, prediction))


def checkpoint_for(config: PretrainedConfig, training: Training, work: Work, gpu: Gpu) -> int:
    """The least checkpointing that fits: 0, else every 4th layer, every 2nd, every one (fit or not)."""
    for every in CHECKPOINTING:
        if _estimate(config, replace(training, checkpoint_every=every), work, gpu).fits:
            return every
    return 1


def _estimate(
    config: PretrainedConfig, training: Training, work: Work, gpu: Gpu, layer: LayerProfile | None = None
) -> Prediction:
    layer = layer or profile_layer(config, training)
    linear = layer.linear * layer.layers + layer.head
    for_each = 6 if training.method == "full" else 4  # FLOPs a token for each number of a matrix
    time = run_seconds(layer, training, work, gpu)
    seconds = sum(time.values())
    useful = for_each * linear * work.tokens + 3 * layer.attention_flops * work.pairs
    peak = gpu.bf16_tflops * 1e12 * training.devices
    return Prediction(
        training=training,
        work=work,
        gpu=gpu,
        parameters=layer.all_parameters,
        trainable=layer.all_trainable,
        linear=linear,
        flops_per_token=(layer.forward_flops + layer.backward_flops) * layer.layers + for_each * layer.head,
        recompute_per_token=layer.forward_flops * sum(training.recomputed(layer.layers)),
        flops=sum(run_flops(layer, training, work).values()),
        memory=device_memory(layer, training, work),
        time=time,
        tokens_per_second=work.tokens * work.epochs / seconds,
        mfu=useful * work.epochs / (seconds * peak),
    )


def _remedies(config: PretrainedConfig, before: Prediction) -> tuple[Remedy, ...]:
    """Those changes after which it fits: single ones, else two or three together."""
    found = []
    for change in changes(before.training):
        after = _estimate(config, replace(before.training, **change), before.work, before.gpu)
        if after.fits:
            found.append(Remedy(change, after.total / GIB, after.seconds / before.seconds))
    return choose(found)
