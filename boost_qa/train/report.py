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

from boost_qa.models import trainable
from boost_qa.train.plan import Plan, as_dict
from boost_qa.train.preflight import Parts
from boost_qa.train.settings import Settings

NAME = "run.json"
_PACKAGES = ["boost_qa", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes"]
_WARM_UP = 2  # steps that are not timed: allocation, autotuning, compilation


class Meter(TrainerCallback):  # type: ignore[misc]
    """Times the steps of this process's part of a run; the first ones, and evaluation and saving, apart."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._steps = 0
        self._seconds = 0.0
        self._timed = 0
        self._began = 0.0
        self._started = time.time()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps += 1
        if self._steps > _WARM_UP:
            self._timed += 1
            self._seconds += _now() - self._began

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
        }


@dataclass(frozen=True)
class Report:
    """The run.json of a folder: begun before training, finished after it."""

    folder: Path
    settings: Settings
    parts: Parts
    data: Mapping[str, Any]
    plan: Plan

    def begin(self) -> None:
        """Mark the folder as this recipe's; a resumed run keeps nothing else of an earlier begin."""
        self._write(finished=False)

    def finish(self, log: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> None:
        """Write losses and measurements, and draw the losses."""
        losses = [
            {
                key: entry[key]
                for key in ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
                if key in entry
            }
            for entry in log
            if "loss" in entry or "eval_loss" in entry
        ]
        draw(losses, self.folder / "loss.png")
        self._write(finished=True, losses=losses, measured=dict(measured) | self._speed(measured))

    def _speed(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Tokens a second of all processes, and the share of the peak arithmetic they come to."""
        counts, seconds = self.plan.counts, measured["seconds_per_step"]
        if not seconds:
            return {"tokens_per_second": None, "mfu": None}
        a_step = counts.tokens * counts.epochs / counts.steps
        speed = a_step / seconds
        predicted, mfu = self.plan.prediction, None
        if predicted and torch.cuda.is_available():
            mfu = predicted.mfu * speed / predicted.tokens_per_second  # useful FLOPs a token and peak are the same
        return {"tokens_per_second": speed, "mfu": mfu}

    def _write(self, **more: Any) -> None:
        content = {
            "finished": more.pop("finished"),
            "recipe": {
                "file": self.settings.file.name if self.settings.file else None,
                "material": self.settings.material(),
                "given": dict(self.settings.given),
                "method": self.settings.method,
            },
            "model": {
                "name": self.settings.model.model_name_or_path,
                "revision": self.parts.revision or trainable.revision(self.parts.source),
                "template": self.settings.ours.template,
                "stop_token": self.parts.tokenizer.tokenizer.eos_token,
            },
            "data": dict(self.data),
            "plan": as_dict(self.plan),
            "versions": _versions(),
            "machine": _machine(),
        } | more
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f".{NAME}"
        fresh.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        fresh.replace(self.folder / NAME)


def read_report(folder: Path) -> dict[str, Any] | None:
    """The run.json of a folder; None if it has none."""
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
