"""What a fine-tuning leaves besides the weights: `run.json` and a picture of the losses."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from boost_qa.errors import RunError
from boost_qa.models import trainable
from boost_qa.train.plan import Plan, as_dict, this_gpu
from boost_qa.train.preflight import Parts
from boost_qa.train.settings import Settings

NAME = "run.json"
_PACKAGES = ["boost_qa", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes"]
_WARM_UP = 2  # steps that are not timed: allocation, autotuning, compilation


class Meter(TrainerCallback):  # type: ignore[misc]
    """Times the steps of this session, data loading included; the first ones, evaluation and saving left out."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._steps = 0
        self._seconds = 0.0
        self._timed = 0
        self._mark = 0.0
        self._started = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps += 1
        if self._steps > _WARM_UP:
            self._timed += 1
            self._seconds += _now() - self._mark
        self._mark = _now()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = _now()

    on_save = on_evaluate

    def measured(self) -> dict[str, Any]:
        """Steps and seconds of this session, and its peak memory in bytes (of the GPU, if there is one)."""
        cuda = torch.cuda.is_available()
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "steps": self._steps,
            "timed_steps": self._timed,
            "seconds_per_step": self._seconds / self._timed if self._timed else None,
            "seconds": time.time() - self._started,
            "peak_memory_bytes": int(peak),
            "processes": self._trainer.accelerator.num_processes,
            "distributed": self._trainer.accelerator.distributed_type.value,  # as accelerate names it: FSDP, ...
        }


@dataclass(frozen=True)
class Report:
    """The run.json of a folder: begun before training, finished after it."""

    folder: Path
    settings: Settings
    parts: Parts
    data: Mapping[str, Any]
    processes: int

    def is_done(self) -> bool:
        """Whether the folder holds this recipe's finished run.

        Raises:
            RunError: if it holds what another recipe, dataset or model made, or what is not ours.
        """
        if not self.folder.exists():
            return False
        earlier = _read(self.folder)
        begun = any(self.folder.glob("checkpoint-*"))
        if earlier is None:
            if any(self.folder.iterdir()):
                raise RunError(f"{self.folder} is not empty, and no run of ours", "Give another --output_dir.")
            return False
        own, other = self._identity(), earlier["identity"]
        different = sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key))
        if different and (earlier["finished"] or begun):  # a start that failed binds nobody
            changes = ", ".join(f"{key}: {other.get(key)} there, {own.get(key)} now" for key in different)
            remedy = "Give another --output_dir, or delete it."
            raise RunError(f"{self.folder} belongs to another recipe ({changes})", remedy)
        return bool(earlier["finished"])

    def begin(self, plan: Plan) -> None:
        """Mark the folder as this recipe's."""
        self._write(plan, finished=False)

    def finish(self, plan: Plan, log: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> None:
        """Write losses and measurements, and draw the losses."""
        names = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
        losses = [
            {key: entry[key] for key in names if key in entry}
            for entry in log
            if "loss" in entry or "eval_loss" in entry
        ]
        draw(losses, self.folder / "loss.png")
        self._write(plan, finished=True, losses=losses, measured=dict(measured) | _speed(plan, measured))

    def _identity(self) -> dict[str, Any]:
        """What a run must share with one that it goes on with, to come to the same losses."""
        return self.settings.material() | {
            "rows of the dataset": self.data["fingerprint"],
            "rows held out": self.data["validation_fingerprint"],
            "revision of the model": self._model_revision(),
            "processes": self.processes,
        }

    def _model_revision(self) -> str | None:
        return self.parts.revision or trainable.revision(self.parts.source)

    def _write(self, plan: Plan, **more: Any) -> None:
        content = {
            "finished": more.pop("finished"),
            "recipe": {
                "file": self.settings.file.name if self.settings.file else None,
                "given": dict(self.settings.given),
                "method": self.settings.method,
                "resolved": self.settings.resolved(),
            },
            "identity": self._identity(),
            "model": {
                "name": self.settings.model.model_name_or_path,
                "revision": self._model_revision(),
                "template": self.settings.ours.template,
                "stop_token": self.parts.tokenizer.tokenizer.eos_token,
            },
            "data": dict(self.data),
            "plan": as_dict(plan),
            "versions": _versions(),
            "machine": _machine(),
        } | more
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f".{NAME}"
        fresh.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        fresh.replace(self.folder / NAME)


def _speed(plan: Plan, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second of all processes, and the share of the peak arithmetic that they come to."""
    seconds, counts = measured["seconds_per_step"], plan.counts
    if not seconds:
        return {"tokens_per_second": None, "mfu": None}
    speed = counts.tokens * counts.epochs / counts.steps / seconds
    here, mfu = this_gpu(), None
    if here and plan.gpu and plan.prediction:  # useful FLOPs a token are the same; the plan may be for another card
        mfu = plan.prediction.mfu * speed / plan.prediction.tokens_per_second * plan.gpu.bf16_tflops / here.bf16_tflops
    return {"tokens_per_second": speed, "mfu": mfu}


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def draw(losses: Sequence[Mapping[str, Any]], file: Path) -> None:
    """The losses over the steps as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats per supervised token)")
    for key, label in (("loss", "training"), ("eval_loss", "held out")):
        points = [(entry["step"], entry[key]) for entry in losses if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 60 else "", label=label)
    axes.legend()
    fresh = file.with_name(f".{file.name}")
    figure.savefig(fresh, format="png", dpi=120)
    fresh.replace(file)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else [],
        "threads": torch.get_num_threads(),
        "platform": sys.platform,
    }
