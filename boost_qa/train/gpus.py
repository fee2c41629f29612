"""GPUs that a plan can reckon with: their memory and their speed, from the vendors' own papers."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from boost_qa.errors import RecipeError

# Share of the vendor's peak that matrix products reach; `boost_qa.train.speed` says what it is set from.
# Cards that run below their power limit reach more: `matmul_share` in gpus.yaml.
MATMUL_SHARE = 0.70


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
