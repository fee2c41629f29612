"""How sure a figure is: intervals of means and of paired differences, by item. Pure functions of numbers.

Scores of 0 and 1 have intervals that also hold for few items and at the edges, where all are right or none; other
scores are drawn again (bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over `n` items, with its standard error (None for a single item) and an interval around it."""

    mean: float
    stderr: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the second mean is than the first, over the `n` items of both.

    `gained` and `lost` count items with a higher and a lower score in the second; `p` is McNemar's exact test
    (two-sided), which for other scores than 0 and 1 is the sign test.
    """

    first: float
    second: float
    difference: float
    stderr: float | None
    low: float
    high: float
    gained: int
    lost: int
    n: int
    p: float


def figure(values: Sequence[float], level: float = 0.95) -> Figure:
    """The mean; its interval is exact (Clopper and Pearson) for scores of 0 and 1.

    Raises:
        ValueError: for no values, or one that is no number.
    """
    scores = _checked(values)
    n, mean = len(scores), float(scores.mean())
    if _binary(scores):
        found = stats.binomtest(int(scores.sum()), n).proportion_ci(level, method="exact")
        return Figure(mean, _stderr(scores), float(found.low), float(found.high), n)
    return Figure(mean, _stderr(scores), *_drawn(scores, level), n)


def difference(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Difference:
    """The paired difference; its interval is Bonett and Price's (2012) for scores of 0 and 1.

    Args:
        first, second: scores of the same items, in the same order.

    Raises:
        ValueError: for no items, different numbers of them, or what is no number.
    """
    a, b = _checked(first), _checked(second)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} scores are no pairs")
    changes, n = b - a, len(a)
    gained, lost = int((changes > 0).sum()), int((changes < 0).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    if _binary(a) and _binary(b):
        low, high = _bonett_price(gained, lost, n, level)
    else:
        low, high = _drawn(changes, level)
    stderr, means = _stderr(changes), (float(a.mean()), float(b.mean()))
    return Difference(*means, float(changes.mean()), stderr, low, high, gained, lost, n, p)


@dataclass(frozen=True, slots=True)
class Trained:
    """A mean, or a difference of means, over items and over models that were trained with several seeds.

    `stderr` is None where it cannot be said; `p` is of a difference, two-sided. With a single seed `trained` is False:
    then interval and p are about the items alone, and what another training would come to is not in them.
    """

    mean: float
    stderr: float | None
    low: float
    high: float
    items: int
    seeds: int
    trained: bool
    p: float | None = None


def over_seeds(scores: np.ndarray, level: float = 0.95) -> Trained:
    """The mean of an arm.

    Args:
        scores: [seeds, items].

    Raises: ValueError as `figure`.
    """
    if len(scores) == 1:
        one = figure(scores[0], level)
        return Trained(one.mean, one.stderr, one.low, one.high, one.n, 1, False)
    items, seeds = scores.mean(axis=0), scores.mean(axis=1)
    parts = [_part(items), _part(seeds)]
    if not any(part for part, _ in parts):  # all items and all seeds have the same mean
        one = figure(scores[0], level)
        return Trained(one.mean, one.stderr, one.low, one.high, one.n, len(seeds), True)
    low, high, stderr, _ = _student(float(scores.mean()), parts, level)
    if _shares(scores):
        low, high = max(0.0, low), min(1.0, high)
    return Trained(float(scores.mean()), stderr, low, high, len(items), len(seeds), True)


def difference_over_seeds(first: np.ndarray, second: np.ndarray, level: float = 0.95) -> Trained:
    """How much higher the second arm's mean is than the first's; questions are paired, seeds are not.

    The variance is the sum of that over items (of what remains after the mean over seeds) and those over the seeds
    of either arm, which counts their common part twice and so is rather too large; degrees of freedom are
    Satterthwaite's.

    Args:
        first, second: [seeds, items], of the same items in the same order.

    Raises: ValueError as `difference`.
    """
    if len(first) == len(second) == 1:
        one = difference(first[0], second[0], level)
        return Trained(one.difference, one.stderr, one.low, one.high, one.n, 1, False, one.p)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} scores are no pairs")
    changes, seeds = second.mean(axis=0) - first.mean(axis=0), min(len(first), len(second))
    parts = [_part(changes), *(_part(arm.mean(axis=1)) for arm in (first, second) if len(arm) > 1)]
    if not any(part for part, _ in parts):  # nothing differs anywhere
        same = difference(first[0], second[0], level)
        return Trained(same.difference, same.stderr, same.low, same.high, same.n, seeds, True, same.p)
    low, high, stderr, p = _student(float(changes.mean()), parts, level)
    if _shares(first) and _shares(second):
        low, high = max(-1.0, low), min(1.0, high)
    return Trained(float(changes.mean()), stderr, low, high, len(changes), seeds, True, p)


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for how many there are (Holm, 1979), in their order."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, ps[place] * (len(ps) - rank)))
        adjusted[place] = highest
    return adjusted


def _part(values: np.ndarray) -> tuple[float, int]:
    """Variance of the mean of these values, and its degrees of freedom."""
    return (float(values.var(ddof=1)) / len(values), len(values) - 1) if len(values) > 1 else (0.0, 0)


def _student(mean: float, parts: Sequence[tuple[float, int]], level: float) -> tuple[float, float, float, float]:
    """Interval, standard error and p (against 0) of a mean whose variance is the sum of independent parts."""
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / many for part, many in parts if many)
    stderr = math.sqrt(variance)
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * stderr
    return mean - reach, mean + reach, stderr, float(2 * stats.t.sf(abs(mean) / stderr, freedom))


def _bonett_price(gained: int, lost: int, n: int, level: float) -> tuple[float, float]:
    """Wald's interval after one item more in either cell that differs: never a point, however few the items."""
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    reach = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - reach), min(1.0, up - down + reach)


def _drawn(scores: np.ndarray, level: float) -> tuple[float, float]:
    """Percentiles of the mean of as many items, drawn with replacement; the same for the same scores."""
    rng = np.random.default_rng(0)
    means = [scores[rng.integers(0, len(scores), len(scores))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _stderr(scores: np.ndarray) -> float | None:
    return float(scores.std(ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else None


def _shares(scores: np.ndarray) -> bool:
    return bool(scores.min() >= 0 and scores.max() <= 1)


def _binary(scores: np.ndarray) -> bool:
    return bool(np.isin(scores, (0.0, 1.0)).all())


def _checked(values: Sequence[float]) -> np.ndarray:
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError("scores are one number for each item, and at least one")
    return scores
