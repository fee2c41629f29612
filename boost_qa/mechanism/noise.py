"""The gradient noise scale of McCandlish et al. (2018, arXiv 1812.06162): how much single dialogues disagree.

B = tr(Sigma) / |G|^2 (section 2.2, "simple"), with G the mean gradient and Sigma the covariance of the
gradient of one dialogue. In batches much smaller than B dialogues a step is mostly noise; in much larger ones another
dialogue adds little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from boost_qa.mechanism.confidence import student

Floats = npt.NDArray[np.float64]

BLOCKS = 16
"""Groups of dialogues that are left out in turn; as many gradients are in memory."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is needed of the gradients.

    Args:
        squares: [dialogues], squared length of each dialogue's gradient.
        block: [dialogues], the number of each one's group.
        gram: [groups, groups], inner products of the groups' summed gradients.
    """

    squares: Floats
    block: npt.NDArray[np.int64]
    gram: Floats


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise scale.

    Args:
        scale: B in dialogues; None where the estimate of |G|^2 is not positive: the noise hides the gradient.
        low, high: of B; a `high` of None is no upper bound, a `low` of None tells nothing.
        trace: tr(Sigma).
        squared_gradient: |G|^2, without bias, so it may be below 0.
        dialogues: how many there were.
        groups: how many were left out in turn for the interval.
    """

    scale: float | None
    low: float | None
    high: float | None
    trace: float
    squared_gradient: float
    dialogues: int
    groups: int


def gather(gradients: Iterable[npt.NDArray[np.float32]], dialogues: int) -> Gathered:
    """Take in the gradients of `dialogues` dialogues, one after the other, each [parameters]."""
    groups = min(BLOCKS, dialogues)
    block = np.arange(dialogues) * groups // dialogues
    squares = np.zeros(dialogues)
    sums: list[npt.NDArray[np.float32]] = []
    for number, gradient in enumerate(gradients):
        squares[number] = np.dot(gradient, gradient)
        if block[number] == len(sums):
            sums.append(gradient.copy())
        else:
            sums[-1] += gradient
    return Gathered(squares, block, np.array([[float(np.dot(a, b)) for a in sums] for b in sums]))


def noise_scale(gathered: Gathered, level: float = 0.95) -> Noise:
    """B without bias in its two parts, and an interval.

    The parts are those of appendix A.1 with a small batch of one dialogue and a big one of all:
    |G|^2 = (n |G_n|^2 - mean |g|^2) / (n - 1) and tr(Sigma) = (mean |g|^2 - |G_n|^2) / (1 - 1/n). The interval is the
    jackknife's over groups of dialogues, of 1/B: that has a denominator far from 0, and where its interval reaches 0,
    B has no upper bound.

    Raises:
        ValueError: for fewer than three dialogues, or gradients that are all the same or no numbers.
    """
    dialogues, groups = len(gathered.squares), len(gathered.gram)
    if dialogues < 3 or not np.isfinite(gathered.gram).all():
        raise ValueError("a noise scale needs the finite gradients of three dialogues or more")
    every = np.ones(groups, dtype=bool)
    signal, trace = _parts(gathered, every)
    if trace <= 0:
        raise ValueError("gradients that are all the same have no noise")
    without = [_parts(gathered, every & (np.arange(groups) != left)) for left in range(groups)]
    inverse = signal / trace
    pseudo = [groups * inverse - (groups - 1) * one / other for one, other in without if other > 0]
    reach, _ = student(pseudo, level)
    low, high = (1 / end if end > 0 else None for end in (inverse + reach, inverse - reach))
    return Noise(1 / inverse if inverse > 0 else None, low, high, trace, signal, dialogues, groups)


def _parts(gathered: Gathered, chosen: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """|G|^2 and tr(Sigma) from the dialogues of the chosen groups."""
    squares = gathered.squares[chosen[gathered.block]]
    n, single = len(squares), float(squares.mean())
    whole = float(gathered.gram[np.ix_(chosen, chosen)].sum()) / n**2
    return (n * whole - single) / (n - 1), (single - whole) / (1 - 1 / n)
