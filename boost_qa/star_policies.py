"""What other ways of drawing would have come to on the candidates of a star run that asked every pair.

A candidate's score is here normalised over all candidates of its seed, not over those that a policy drew: only so do
two policies mean the same by it. The order of candidates, and so the choice, is that of the run. The base sample counts
as a tie with itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Any, NamedTuple

import numpy as np

from boost_qa.config import Star
from boost_qa.star_agents.evolution import Evolution
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_agents.selection import BASE_JUDGED, choose, dual_scores, final_scores
from boost_qa.star_signal import Numbers, rounded

MEASURES = ("judged", "gap", "score")
AGAINST = "no evolution"
_REDRAWS = 1000  # of each seed, for the policies that draw uniformly
_MOST = 200_000  # redraws in all
_SETS = 20_000  # of pairs that are tried to find the best one


@dataclass(frozen=True, slots=True)
class Candidate:
    """A line of `candidates.jsonl` without its text; `score` is the run's."""

    pair: str
    small: Likelihood | None
    large: Likelihood | None
    judged: float | None
    score: float | None
    why: str | None
    small_again: Likelihood | None = None
    large_again: Likelihood | None = None

    @property
    def gap(self) -> float | None:
        """IFD by the small scorer less that by the large one; None where it is not known."""
        gap = math.nan if self.small is None or self.large is None else self.small.ifd - self.large.ifd
        return gap if math.isfinite(gap) else None


@dataclass(slots=True)
class Seed:
    """A line of `history.jsonl` with the candidates, the base sample first."""

    record: str
    drawn: Sequence[str]
    chosen: str | None
    probabilities: Mapping[str, float]
    candidates: list[Candidate] = field(default_factory=list)


class Values(NamedTuple):
    """Of one candidate: Eq. 6, the gap before it is clipped, and Eq. 7 among all candidates of the seed."""

    judged: float
    gap: float
    score: float


class Matrix:
    """The values of every candidate of the seeds whose base sample was scored.

    Args:
        seeds: of a run with `every_pair`.
    """

    def __init__(self, seeds: Iterable[Seed], star: Star) -> None:
        self.star = star
        self.seeds = [seed for seed in seeds if seed.candidates and seed.candidates[0].gap is not None]
        self.rows = [_values(seed) for seed in self.seeds]

    def best(self, at: int, drawn: Iterable[str], rng: Random) -> str:
        """The pair that the run would have chosen for seed `at` if it had drawn these."""
        (base, *further), row, competes = self.star.base, self.rows[at], self.star.base_competes
        rivals = [pair for pair in (*further, *drawn) if pair in row]
        finals = [row[pair].score for pair in (*rivals, base)]
        choice = choose(finals if competes else finals[:-1], rng, base_competes=competes)
        return base if choice.index is None else rivals[choice.index]

    def policies(self, seed: int) -> tuple[dict[str, Numbers], int]:
        """Mean values of each seed under each policy, (seeds, 3), and the number of redraws of the uniform ones.

        "diversity only" takes any of the candidates drawn that were scored, or the base sample if none was.
        """
        star, redraws = self.star, max(10, min(_REDRAWS, _MOST // max(1, len(self.seeds))))
        uniform = Evolution(star.drawable, seeds=1, rate=0, floor=0)
        found: dict[str, list[Any]] = {name: [] for name in ("base only", "diversity only", AGAINST, "full", "oracle")}
        for at, (each, row) in enumerate(zip(self.seeds, self.rows, strict=True)):
            rng, some, best = Random(f"{seed}/{each.record}/star/report"), [], []
            for _ in range(redraws):
                drawn = uniform.draw(star.draws, rng)
                some.append(row[rng.choice([pair for pair in drawn if pair in row] or [star.base[0]])])
                best.append(row[self.best(at, drawn, rng)])
            found["base only"].append(row[star.base[0]])
            found["diversity only"].append(np.mean(some, axis=0))
            found[AGAINST].append(np.mean(best, axis=0))
            found["full"].append(row[each.chosen or star.base[0]])
            found["oracle"].append(row[self.best(at, star.drawable, rng)])
        return {name: np.array(values, float).reshape(-1, len(MEASURES)) for name, values in found.items()}, redraws

    def best_set(self) -> tuple[tuple[str, ...], Numbers] | None:
        """The pairs that, drawn for every seed, would have had the highest sum of scores, and the score of each seed.

        None where there are no seeds, or too many sets to try them all.
        """
        star = self.star
        m = min(star.draws, len(star.drawable))
        if not self.rows or math.comb(len(star.drawable), m) > _SETS:
            return None
        scores = {
            pair: np.array([row[pair].score if pair in row else 0.0 for row in self.rows])
            for pair in (*star.base, *star.drawable)
        }
        base, always = scores[star.base[0]], star.base if star.base_competes else star.base[1:]
        best: tuple[tuple[str, ...], Numbers] | None = None
        for names in combinations(star.drawable, m):
            value = np.maximum.reduce([scores[pair] for pair in (*always, *names)])
            value = np.where(value > 0, value, base)  # nobody scored: the base sample is kept
            if best is None or value.sum() > best[1].sum():
                best = names, value
        return best


def ablation(policies: Mapping[str, Numbers]) -> dict[str, Any]:
    """For each policy the mean of each measure, and of its difference to "no evolution" seed by seed.

    Args:
        policies: (seeds, 3), from `Matrix.policies`.
    """
    return {
        name: {
            measure: mean(values[:, at]) | {"difference": mean(values[:, at] - policies[AGAINST][:, at])}
            for at, measure in enumerate(MEASURES)
        }
        for name, values in policies.items()
    }


def mean(values: Numbers) -> dict[str, Any]:
    """Mean and its standard error, from the deviation between seeds; None where there are too few."""
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return {"mean": rounded(float(np.mean(values)) if n else math.nan), "se": rounded(error)}


def _values(seed: Seed) -> dict[str, Values]:
    base, *others = seed.candidates
    scored = {base: BASE_JUDGED} | {one: one.judged for one in others if one.judged is not None and one.gap is not None}
    dual = dual_scores([one.small.ifd for one in scored], [one.large.ifd for one in scored])  # type: ignore[union-attr]
    finals = final_scores(dual, list(scored.values()))
    return {
        one.pair: Values(judged, one.gap or 0.0, score)
        for (one, judged), score in zip(scored.items(), finals, strict=True)
    }
