"""Rank correlations of scores whose rows belong together in groups, with intervals that respect the groups.

Candidates of one seed record are alike, so an interval comes from drawing whole seeds again (a cluster bootstrap), not
single candidates. Eq. 5 compares only candidates of one seed: `within` ranks each seed's own and leaves out what
differs between seeds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]

RESAMPLES = 1000
_WORK = 2**20  # weights held at once
_MOST = 50_000_000  # weights in all: large runs, whose intervals are narrow, are drawn again less often


def correlation(x: ArrayLike, y: ArrayLike, groups: ArrayLike, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Spearman's rank correlation of `x` and `y`, over all rows and within groups, each with a 95 % interval.

    Args:
        x, y: (n,) numbers; equal ones share the mean of their ranks, and an infinite one is a number.
        groups: (n,) the group of each row, as any integers.
        resamples: of the groups, with a fixed seed; fewer for many rows.

    Returns:
        `n`, `groups`, `resamples`, and under `all` and `within` each `rho`, `low`, `high`: None where one side
        does not vary, the interval's also with fewer than two groups.
    """
    _, names = np.unique(np.asarray(groups), return_inverse=True)
    size, n = int(names.max(initial=-1)) + 1, len(names)
    resamples = max(100, min(resamples, _MOST // max(1, n)))
    one, other = _places(x), _places(y)
    moments = _moments(one, other, names)
    block, rng = max(1, _WORK // max(1, n)), np.random.default_rng(0)
    over_all, within = [_pooled(one, other, np.ones((1, n)))], [_ratio(moments.sum(axis=0)[None])]
    for start in range(0, resamples if size > 1 else 0, block):
        rows = min(block, resamples - start)
        weights = np.array([np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(rows)], float)
        over_all.append(_pooled(one, other, weights[:, names]))
        within.append(_ratio(weights @ moments))
    found = {"all": _interval(np.concatenate(over_all)), "within": _interval(np.concatenate(within))}
    return {"n": n, "groups": size, "resamples": resamples if size > 1 else 0, **found}


def reliability(one: ArrayLike, other: ArrayLike, groups: ArrayLike, *, half: bool) -> dict[str, Any]:
    """How well one measurement of the same rows repeats another: their `correlation`, and how often the best repeats.

    Args:
        one, other: (n,) both measurements.
        half: whether each is from half of what is measured. Then `whole` is what the whole would reach by Spearman and
            Brown's formula, 2 rho / (1 + rho): it takes the halves for two samples that are alike and independent, and
            is meant for products of moments, so that on ranks it is an approximation.

    Returns:
        `correlation`, and `same_best`: among `groups` of two rows or more, the share in which the same row is the
        largest both times, and the share that chance alone would give. The first row counts where several are largest.
    """
    found = correlation(one, other, groups)
    if half:
        for each in (found["all"], found["within"]):
            each["whole"] = {name: _stepped_up(each[name]) for name in ("rho", "low", "high")}
    names, x, y = np.asarray(groups), np.asarray(one, float), np.asarray(other, float)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    several = [each for each in rows if len(each) > 1]
    same = [int(np.argmax(x[each]) == np.argmax(y[each])) for each in several]
    by_chance = [1 / len(each) for each in several]
    found["same_best"] = {
        "groups": len(several),
        "share": rounded(float(np.mean(same)) if same else math.nan),
        "by_chance": rounded(float(np.mean(by_chance)) if same else math.nan),
    }
    return found


def _stepped_up(rho: float | None) -> float | None:
    return None if rho is None or rho <= -1 else rounded(2 * rho / (1 + rho))


def rounded(value: float) -> float | None:
    """Six digits, which are the same wherever it was computed; None for what is no number."""
    return float(f"{value:.6g}") + 0.0 if math.isfinite(value) else None


def _places(values: ArrayLike) -> Places:
    """The place of each value among the distinct ones."""
    return np.unique(np.asarray(values, float), return_inverse=True)[1].astype(np.intp)


def _pooled(x: Places, y: Places, weights: Numbers) -> Numbers:
    """One correlation for each row of `weights`, (times, n): how often each value is there."""
    if not len(x):
        return np.full(len(weights), np.nan)
    one, other = _centred(_ranks(x, weights), weights), _centred(_ranks(y, weights), weights)
    sums = [(weights * a * b).sum(axis=1) for a, b in ((one, other), (one, one), (other, other))]
    return _ratio(np.stack(sums, axis=1))


def _ranks(places: Places, weights: Numbers) -> Numbers:
    """Mean ranks, less one half, of values that are there several times or not at all."""
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    return np.asarray((np.cumsum(mass, axis=1) - mass / 2)[:, places], float)


def _centred(ranks: Numbers, weights: Numbers) -> Numbers:
    means = (weights * ranks).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    return np.asarray(ranks - means, float)


def _moments(x: Places, y: Places, names: Places) -> Numbers:
    """For each group the sums of products xy, xx, yy of its own ranks about their means, (groups, 3)."""
    one, other = (_own_ranks(places, names) for places in (x, y))
    return np.stack([np.bincount(names, a * b) for a, b in ((one, other), (one, one), (other, other))], axis=1)


def _own_ranks(places: Places, names: Places) -> Numbers:
    codes = names * (places.max(initial=0) + 1) + places
    _, at, counts = np.unique(codes, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2)[at]  # of all groups, one after the other
    return np.asarray(ranks - (np.bincount(names, ranks) / np.bincount(names))[names], float)


def _ratio(sums: Numbers) -> Numbers:
    """Correlations from sums of xy, xx, yy, (times, 3); what does not vary has none."""
    scale = np.sqrt(sums[:, 1] * sums[:, 2])
    return np.asarray(np.divide(sums[:, 0], scale, out=np.full(len(sums), np.nan), where=scale > 0), float)


def _interval(found: Numbers) -> dict[str, float | None]:
    rho, again = found[0], found[1:][np.isfinite(found[1:])]
    known = math.isfinite(rho) and len(again) > 0
    low, high = np.percentile(again, [2.5, 97.5]) if known else (math.nan, math.nan)
    return {"rho": rounded(float(rho)), "low": rounded(float(low)), "high": rounded(float(high))}
