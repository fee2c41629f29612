"""Agent pairs that are drawn more often the better they score (Star-Agents, Eq. 3 and 8).

The paper adds beta x score to a pair's probability after every seed, so what beta does depends on how many seeds
there are: about 1 / beta of them, divided by the mean reward, make the pairs forget where they began. Here the
setting is `rate` = beta x seeds, which means the same for 2,000 seeds as for 70,000.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from random import Random

Update = Literal["winner", "all"]

NEVER = 1e-300  # stands for a probability of 0 in a draw: after every other pair, in any order


class Evolution:
    """The probabilities of agent pairs, and how scores change them.

    Args:
        pairs: their names, each once.
        seeds: how many seed records the run has.
        rate: beta x seeds of Eq. 8. The paper gives no beta; simulated (`benchmarks/star_evolution.py`), about 5 brings
            the best of ten pairs to the 0.30 of its Fig. 5, and more brings it there sooner, but no higher.
        floor: no probability falls below it, so that no pair dies for ever; 0 is the paper.
        update: which of a seed's pairs `learn` rewards: the winner's, or all that were drawn.
        probabilities: one per pair, to begin with; equal if left out.

    Raises:
        ValueError: if pairs repeat or are missing, or a number is out of its range.
    """

    def __init__(
        self,
        pairs: Sequence[str],
        *,
        seeds: int,
        rate: float = 6.0,
        floor: float = 0.01,
        update: Update = "winner",
        probabilities: Sequence[float] | None = None,
    ) -> None:
        if not pairs or len(set(pairs)) < len(pairs):
            raise ValueError(f"agent pairs need names of their own: {list(pairs)}")
        if seeds < 1 or not 0 <= rate < math.inf:
            raise ValueError(f"rate {rate} over {seeds} seeds is no rate of evolution")
        if not 0 <= floor <= 1 / len(pairs):
            raise ValueError(f"{len(pairs)} pairs cannot all keep a probability of {floor}")
        if update not in get_args(Update):
            raise ValueError(f"update is one of {get_args(Update)}, not {update!r}")
        self.seeds, self.rate, self.floor, self.update = seeds, rate, floor, update
        begin = [1 / len(pairs)] * len(pairs) if probabilities is None else probabilities
        self._p = dict(zip(pairs, begin, strict=True))
        if not all(p >= floor for p in begin) or abs(math.fsum(begin) - 1) > 1e-9:
            raise ValueError(f"probabilities are at least {floor} and sum to 1, not {list(begin)}")

    @property
    def beta(self) -> float:
        """The evolution rate of Eq. 8, for one seed."""
        return self.rate / self.seeds

    @property
    def probabilities(self) -> dict[str, float]:
        """By pair, in the order of the pairs; a copy."""
        return dict(self._p)

    def draw(self, m: int, rng: Random, near: Collection[str] = (), from_near: int = 0) -> list[str]:
        """`m` different pairs, one after the other, each by the probabilities of those not drawn yet (Eq. 3).

        Args:
            near: pairs of the neighbourhood, from the memory bank; how often one is named does not count.
            from_near: so many come from `near`, or all of `near` if that is less, and the rest from the pairs outside;
                where those are too few, from what is left of `near`. With 0 all pairs are alike.

        Returns:
            in the order drawn, those from `near` first; all pairs where there are not more than `m`.

        Raises:
            ValueError: if `near` names a pair that does not exist.
        """
        # A race in which each pair arrives after an exponential time of rate p: the order of arrival is that of
        # drawing without replacement, in the whole field and in every part of it.
        arrival = {pair: -math.log(1.0 - rng.random()) / max(p, NEVER) for pair, p in self._p.items()}
        order = sorted(arrival, key=arrival.__getitem__)
        if unknown := set(near) - arrival.keys():
            raise ValueError(f"no agent pair is called {sorted(unknown)}")
        pool = set(near) if from_near > 0 else set()
        inside = [pair for pair in order if pair in pool]
        outside = [pair for pair in order if pair not in pool]
        first, rest = inside[: min(m, from_near)], inside[min(m, from_near) :]
        return (first + outside + rest)[: max(0, m)]

    def learn(self, scores: Mapping[str, float], winner: str | None) -> None:
        """Eq. 8 for one seed. Of a batch, tell seeds in their order, not in the order in which they finish.

        With `update="all"` the pairs of one seed are rewarded at once, so that their order does not count.

        Args:
            scores: the final score of every pair drawn, from 0 to 1; less than 0 counts as 0, and 0 changes nothing.
            winner: the pair whose candidate was chosen; None where the base sample was kept.

        Raises:
            ValueError: there is no such pair, a score is above 1 or not a number, or the winner has none.
        """
        if winner is not None and winner not in scores:
            raise ValueError(f"the winner {winner!r} has no score")
        if self.update == "all":
            self._reward(scores)
        elif winner is not None:
            self._reward({winner: scores[winner]})

    def _reward(self, scores: Mapping[str, float]) -> None:
        for pair, pi in scores.items():
            if pair not in self._p or not pi <= 1:
                raise ValueError(f"a score of {pi} for the agent pair {pair!r}")
        gains = {pair: self.beta * pi for pair, pi in scores.items() if pi > 0}
        if not any(gains.values()):
            return  # dividing by a sum of nearly 1 would still move the last bits
        grown = {pair: p + gains.get(pair, 0.0) for pair, p in self._p.items()}
        # fsum: the built-in sum rounds differently from Python 3.12 on
        total = math.fsum(grown.values())
        self._p = lifted({pair: p / total for pair, p in grown.items()}, self.floor)


def lifted(p: Mapping[str, float], floor: float) -> dict[str, float]:
    """Probabilities with those below `floor` raised to it, the others sharing the rest in proportion.

    Args:
        p: sums to 1.
        floor: at most 1 / number of pairs.
    """
    low: set[str] = set()
    found = dict(p)
    while below := {pair for pair, share in found.items() if share < floor and pair not in low}:
        low |= below
        if len(low) == len(p):  # a floor of 1 / number of pairs, but for the last bit
            return dict.fromkeys(p, 1 / len(p))
        scale = (1 - floor * len(low)) / math.fsum(share for pair, share in p.items() if pair not in low)
        found = {pair: floor if pair in low else share * scale for pair, share in p.items()}
    return found
