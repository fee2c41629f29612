"""A prediction for the human eye, and for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from boost_qa.train.cost import Prediction
from boost_qa.train.memory import GIB


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
