"""What training gained on questions near to those trained on, and far from them.

The gain on a question is the base's loss on its reference answer less the adapter's, in nats a token, the question
being the only turn before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from boost_qa.evaluate.intervals import Figure, figure
from boost_qa.mechanism.confidence import Correlation, rank_correlation
from boost_qa.retrieval import Vectors, similar

BANDS = (0.4, 0.6, 0.8)
"""Cosines between which a band of similarity lies; below the first is far."""


@dataclass(frozen=True, slots=True)
class Band:
    """Held-out questions whose nearest trained question is `low` <= cosine < `high`; both None for trained ones.

    Args:
        base, adapter: mean loss, in nats a token of the reference answer.
        gain: base less adapter, with a bootstrap interval of the mean over questions.
        available: how many questions there were to draw from.
    """

    low: float | None
    high: float | None
    base: float
    adapter: float
    gain: Figure
    available: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Gains by band, the trained questions first and then the nearest; bands without a question are left out.

    `correlation` is of gain and similarity over the held-out questions that were drawn, as many of each band as there
    are up to the limit: None where there are too few.
    """

    bands: list[Band]
    correlation: Correlation | None


def nearest(held: Vectors, trained: Vectors) -> npt.NDArray[np.float64]:
    """The cosine of each held-out question with the nearest trained one, [held].

    Args:
        held, trained: [questions, dimensions], rows of length 1.
    """
    places = [found[0] for found in similar(held, trained, 1)]
    cosines: npt.NDArray[np.float64] = (held * trained[places]).sum(axis=1, dtype=np.float64)
    return cosines.clip(-1, 1)


def edges(bands: Sequence[float] = BANDS) -> list[tuple[float, float]]:
    """The bands' bounds, the nearest first."""
    ends = [-1.0, *bands, np.inf]
    return [(float(low), float(high)) for low, high in pairwise(ends)][::-1]


def sampled(similarity: npt.NDArray[np.float64], limit: int, seed: int) -> list[list[int]]:
    """Positions of at most `limit` questions of each band, drawn at random; bands as `edges` gives them."""
    rng = np.random.default_rng(seed)
    found = [np.flatnonzero((similarity >= low) & (similarity < high)) for low, high in edges()]
    return [sorted(int(place) for place in rng.permutation(each)[:limit]) for each in found]


def band(
    base: Sequence[float],
    adapter: Sequence[float],
    available: int,
    low: float | None = None,
    high: float | None = None,
) -> Band:
    """A band from the losses of its questions.

    Raises:
        ValueError: for no questions, or a loss that is no number.
    """
    gain = figure(np.subtract(base, adapter).tolist())
    upper = None if high is None or np.isinf(high) else high
    return Band(low, upper, float(np.mean(base)), float(np.mean(adapter)), gain, available)


def transfer(bands: Sequence[Band], gains: Sequence[float], similarity: Sequence[float]) -> Transfer:
    """Bands with the correlation over all held-out questions; gains and similarities are in the same order."""
    return Transfer(list(bands), rank_correlation(gains, similarity))
