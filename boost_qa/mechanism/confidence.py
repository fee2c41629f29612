"""How sure a mean of few values, and a rank correlation, is. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation over `n` pairs, with an interval."""

    rho: float
    low: float
    high: float
    n: int


def student(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """How far Student's interval reaches around the mean of independent values, and their standard error.

    Raises:
        ValueError: for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("one value has no spread")
    stderr = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * stderr, stderr


def rank_correlation(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Correlation | None:
    """Spearman's; the interval is of percentiles of pairs drawn again (bootstrap), the same for the same pairs.

    Returns:
        None for fewer than four pairs, or where one side is the same throughout.
    """
    pairs = np.array([first, second], dtype=float)
    if pairs.shape[1] < 4 or any(len(np.unique(side)) < 2 for side in pairs):
        return None
    rng, n = np.random.default_rng(0), pairs.shape[1]
    drawn = _spearman(pairs[:, rng.integers(0, n, (DRAWS, n))])
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Correlation(float(_spearman(pairs[:, None])[0]), float(low), float(high), n)


def _spearman(pairs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[2, draws, n] to a correlation of each draw; NaN where a side is the same throughout."""
    ranks = stats.rankdata(pairs, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.float64] = (ranks[0] * ranks[1]).sum(-1) / np.sqrt((ranks**2).sum(-1).prod(0))
    return found
