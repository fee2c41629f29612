"""Which of a seed's candidates is kept (Star-Agents, Eq. 5 and 7), from scores that are already there.

What the paper leaves open is settled so: a gap below 0 counts as 0; where no gap is above 0 every dual score
is 0; where no candidate scores above 0 the base sample is kept; a base sample that competes has the verdict
`BASE_JUDGED`, a tie with itself, and is kept unless a candidate scores more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

BASE_JUDGED = 0.5


def dual_scores(small: Sequence[float], large: Sequence[float]) -> list[float]:
    """Eq. 5 for one seed: each candidate's gap between the scorers, in shares of the seed's largest.

    Args:
        small: IFD by the small scorer, one per candidate (the base sample's among them if it competes).
        large: IFD by the large scorer, in the same order.

    Returns:
        from 0 to 1; the largest gap has 1.0, and all have 0.0 where no gap is above 0.

    Raises:
        ValueError: if an IFD is negative, infinite or not a number, or one is missing.
    """
    for ifd in (*small, *large):
        if not 0 <= ifd < math.inf:
            raise ValueError(f"an IFD of {ifd} is no ratio of perplexities")
    gaps = [max(0.0, one - other) for one, other in zip(small, large, strict=True)]
    largest = max(gaps, default=0.0)
    return [gap / largest for gap in gaps] if largest else [0.0] * len(gaps)


def final_scores(dual: Sequence[float], judged: Sequence[float]) -> list[float]:
    """Eq. 7: the product of both evaluations, one per candidate.

    Args:
        dual: from `dual_scores`.
        judged: the verdict against the base sample: 1 candidate better, 0.5 tie, 0 base better.

    Raises:
        ValueError: if a score is outside 0 to 1 or not a number, or one is missing.
    """
    for score in (*dual, *judged):
        _check(score)
    return [one * other for one, other in zip(dual, judged, strict=True)]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a seed gets: candidate `index`, or the base sample where that is None.

    `score` is the final score of what was chosen (0.0 for a base sample that did not compete), `tied` how many
    candidates shared the best score when one of them was chosen.
    """

    index: int | None
    score: float
    tied: int = 0


def choose(finals: Sequence[float], rng: Random, *, base_competes: bool) -> Choice:
    """The best candidate of one seed (Eq. 1), or the base sample.

    Candidates that share the best score have equal chances by `rng`: the earlier would be the one more often drawn
    first, which is the pair with the higher probability. `rng` is asked only then. A tie with the base sample
    keeps the base sample.

    Args:
        finals: one score per candidate, and last the base sample's where that competes.

    Raises:
        ValueError: if a score is outside 0 to 1 or not a number, or the base sample's is missing.
    """
    for score in finals:
        _check(score)
    if base_competes and not finals:
        raise ValueError("a base sample that competes needs a score")
    candidates, base = (finals[:-1], finals[-1]) if base_competes else (finals, 0.0)
    best = max(candidates, default=0.0)
    if best <= base:
        return Choice(None, base)
    tied = [index for index, score in enumerate(candidates) if score == best]
    return Choice(tied[0] if len(tied) == 1 else rng.choice(tied), best, len(tied))


def _check(score: float) -> None:
    if not 0 <= score <= 1:
        raise ValueError(f"a score of {score} is not within 0 and 1")
