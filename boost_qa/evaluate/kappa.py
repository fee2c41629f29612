"""Do two who give grades agree beyond chance? Cohen's kappa, with an interval that is drawn. A pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Kappa:
    """How far two agree beyond chance over `n` items: 1 always, 0 as by chance, below 0 less than that.

    All are None where both give every item one and the same grade: chance explains that as well. `undefined` is the
    share of draws for which the same held; they are no part of the interval.
    """

    kappa: float | None
    low: float | None
    high: float | None
    n: int
    undefined: float


def kappa(first: Sequence[str], second: Sequence[str], level: float = 0.95) -> Kappa:
    """Cohen's kappa (1960), unweighted; the interval holds the middle `level` of draws of as many items (bootstrap).

    Args:
        first, second: grades of the same items, in the same order.

    Raises:
        ValueError: for no items, or different numbers of them.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} grades are no pairs")
    grades = sorted({*first, *second})
    cells = np.zeros((len(grades), len(grades)))
    for one, other in zip(first, second, strict=True):
        cells[grades.index(one), grades.index(other)] += 1
    n = len(first)
    # items that fall into the same cell are alike, so a draw of items is a draw of cells
    drawn = np.random.default_rng(0).multinomial(n, cells.ravel() / n, size=DRAWS)
    value, values = _kappas(cells[None])[0], _kappas(drawn.reshape(DRAWS, *cells.shape))
    defined = values[~np.isnan(values)]
    undefined = 1 - len(defined) / DRAWS
    if np.isnan(value):
        return Kappa(None, None, None, n, undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Kappa(float(value), float(low), float(high), n, undefined)


def _kappas(cells: np.ndarray) -> np.ndarray:
    """Of each table of counts; NaN where chance alone agrees always. `cells`: [tables, first's grade, second's]."""
    n = cells.sum(axis=(1, 2))
    agreed = np.trace(cells, axis1=1, axis2=2) / n
    chance = (cells.sum(axis=2) * cells.sum(axis=1)).sum(axis=1) / n**2
    with np.errstate(invalid="ignore"):
        return np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan)
