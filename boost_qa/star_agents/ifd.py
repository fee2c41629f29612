"""Instruction-following difficulty (IFD) of an answer: how much the prompt helps a model to predict it.

Star-Agents (arXiv 2411.14497), Eq. 4. Everything stays in logarithms until the end, so that no text is
too improbable for a float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How well a model predicts an answer, with its prompt and without.

    `conditioned` and `alone` are sums of negative log-likelihoods in nats over the answer's `tokens`, the same
    tokens in both. `prompt_left_out` and `answer_left_out` count the tokens of prompt and answer that were
    cut away and had no part in it. `conditioned_odd` and `alone_odd` are the parts of both sums that the first,
    third, ... of the answer's tokens make up; None where nobody kept them.

    Raises:
        ValueError: for no tokens, for a sum that is negative, infinite or not a number, or a part above its sum.
    """

    tokens: int
    conditioned: float
    alone: float
    prompt_left_out: int = 0
    answer_left_out: int = 0
    conditioned_odd: float | None = None
    alone_odd: float | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError("an answer without tokens has no likelihood")
        for name, nats, odd in (
            ("conditioned", self.conditioned, self.conditioned_odd),
            ("alone", self.alone, self.alone_odd),
        ):
            if not 0 <= nats < math.inf:
                raise ValueError(f"{name}: {nats} is no sum of negative log-likelihoods")
            if odd is not None and not 0 <= odd <= nats * (1 + 1e-9):  # sums in another order differ in the last bits
                raise ValueError(f"{name}_odd: {odd} is no part of {nats}")

    @property
    def perplexity(self) -> float:
        """Of the answer given its prompt, per token; at least 1."""
        return _exp(self.conditioned / self.tokens)

    @property
    def perplexity_alone(self) -> float:
        """Of the answer without its prompt, per token; at least 1."""
        return _exp(self.alone / self.tokens)

    @property
    def log_ifd(self) -> float:
        """Mean nats per token that the prompt takes (below 0: it helps) or adds."""
        return (self.conditioned - self.alone) / self.tokens

    @property
    def ifd(self) -> float:
        """Perplexity given the prompt over perplexity alone: below 1 where the prompt helps.

        A ratio of perplexities, as in Eq. 4. The first public code for IFD divides the mean losses instead,
        which ranks answers differently.
        """
        return _exp(self.log_ifd)

    @property
    def halves(self) -> tuple[Likelihood, Likelihood] | None:
        """As if every second token of the answer were all of it: the odd ones, the even ones.

        Each token is still predicted from all before it. None where the parts were not kept, or for a single token.
        """
        if self.conditioned_odd is None or self.alone_odd is None or self.tokens < 2:
            return None
        even = (max(0.0, self.conditioned - self.conditioned_odd), max(0.0, self.alone - self.alone_odd))
        odd = Likelihood((self.tokens + 1) // 2, self.conditioned_odd, self.alone_odd)
        return odd, Likelihood(self.tokens // 2, *even)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was not scored, and why: its answer is empty, or with its prompt it is too long."""

    reason: Literal["empty", "too_long"]


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
