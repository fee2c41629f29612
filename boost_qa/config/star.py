"""Star-Agents (arXiv 2411.14497): agent pairs that compete for each seed record, and who scores their samples."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from boost_qa.config.classroom import (
    AgentSettings,
    AnalogicalReasoning,
    Debate,
    ErrorCorrection,
    MasterScenario,
)
from boost_qa.config.strict import Strict


class Pair(Strict):
    """What makes a candidate of a seed record: an agent pair of the paper, or a classroom in the part of one.

    Exactly one of `respond` and the scenarios is given. A scenario keeps its settings; its `share` means nothing here.
    """

    instruct: AgentSettings | None = Field(
        None, description="rewrites the instruction (A^I of Eq. 2); null keeps it, as the paper's experiments did"
    )
    respond: AgentSettings | None = Field(None, description="gives the response (A^R of Eq. 2)")
    sees_reference: bool = Field(
        False,
        description="`respond` rewrites the reference answer, as Eq. 2 writes it; otherwise it answers from the "
        "instruction alone, as the text says (which was done: UNKNOWN)",
    )
    error_correction: ErrorCorrection | None = None
    debate: Debate | None = None
    analogical_reasoning: AnalogicalReasoning | None = None

    @property
    def classroom(self) -> tuple[MasterScenario, ErrorCorrection | Debate | AnalogicalReasoning] | None:
        """The scenario that is played, with its settings; None where `respond` answers."""
        named = ((name, getattr(self, name)) for name in get_args(MasterScenario))
        return next(((name, settings) for name, settings in named if settings is not None), None)

    def agents(self) -> dict[str, AgentSettings]:
        """Everybody who speaks, by key of these settings."""
        if self.classroom is not None:
            name, settings = self.classroom
            return {f"{name}.cast.{role}": agent for role, agent in settings.cast}
        named = {"instruct": self.instruct, "respond": self.respond}
        return {name: agent for name, agent in named.items() if agent is not None}

    @model_validator(mode="after")
    def _one_kind(self) -> Pair:
        kinds = ("respond", *get_args(MasterScenario))
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(kinds)} (given: {', '.join(given) or 'none'})")
        if self.classroom is not None:
            if self.instruct is not None or self.sees_reference:
                raise ValueError(f"instruct and sees_reference go with respond, not with {given[0]}")
            if self.classroom[1].share != 1:  # a recipe that was written out has the default
                raise ValueError(f"{given[0]}.share means nothing in a pair: leave it out")
        return self


class Bank(Strict):
    """The Instruction Memory Bank: pairs that did well on similar instructions are drawn from first."""

    near: int = Field(10, ge=1, description="n: seeds of the bank whose pairs are the neighbourhood (UNKNOWN)")
    from_near: int = Field(2, ge=0, description="l: so many of the draws come from the neighbourhood (UNKNOWN)")
    threshold: float = Field(0.5, ge=0, le=1, description="final score from which a seed enters the bank (UNKNOWN)")
    embedder: str = Field(
        "all-minilm-l6-v2",
        min_length=1,
        description="name in `boost-qa models`, or a sentence-transformers folder (UNKNOWN)",
    )


class Star(Strict):
    """Each seed record gets candidates by several agent pairs, and keeps the best."""

    pairs: dict[str, Pair] = Field(description="by name; ten in the paper")
    base: tuple[str, ...] = Field(
        min_length=1,
        description="pairs that every seed gets and that are not drawn; the judge compares with the first one's "
        "sample (which: UNKNOWN)",
    )
    draws: int = Field(5, ge=1, description="M: pairs drawn for each seed, or all where there are fewer")
    small: str = Field(
        min_length=1, description="scorer: name in `boost-qa models`, folder or Hub id; the target model"
    )
    large: str = Field(min_length=1, description="scorer: the larger model, with the small one's tokenizer (UNKNOWN)")
    judge: AgentSettings = Field(description="compares each candidate with the base sample, in both orders")
    rate: float = Field(
        6, ge=0, allow_inf_nan=False, description="evolution rate beta of Eq. 8 x number of seeds (beta: UNKNOWN)"
    )
    floor: float = Field(
        0.01, ge=0, allow_inf_nan=False, description="no probability falls below it; 0 as in the paper"
    )
    update: Literal["winner", "all"] = Field("winner", description='pairs rewarded: "the selected" one, or all drawn')
    order: Literal["shuffled", "given"] = Field(
        "shuffled",
        description="of the seeds, which the probabilities depend on: by the run's seed, or as read (UNKNOWN)",
    )
    batch: int = Field(1, ge=1, description="seeds between two updates of the probabilities; 1 in the paper")
    bank: Bank | None = Field(Bank(), description="null: no Instruction Memory Bank")
    base_competes: bool = Field(True, description="the base sample is a candidate, judged as a tie (UNKNOWN)")
    every_pair: bool = Field(
        False, description="ask all pairs for each seed, so that policies can be compared on the same candidates"
    )
    retest: bool = Field(
        False, description="score each sample once more under another layout, to see how well the gap repeats"
    )

    @property
    def drawable(self) -> list[str]:
        """The pairs that are drawn, sorted: their order counts in a draw, and must not depend on that of a file."""
        return sorted(self.pairs.keys() - set(self.base))

    def agents(self) -> dict[str, AgentSettings]:
        """Everybody who speaks, by key of these settings."""
        pairs = {
            f"pairs.{name}.{key}": agent for name, pair in self.pairs.items() for key, agent in pair.agents().items()
        }
        return pairs | {"judge": self.judge}

    @field_validator("pairs")
    @classmethod
    def _plain_names(cls, pairs: dict[str, Pair]) -> dict[str, Pair]:
        for name in pairs:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise ValueError(f"{name!r} is no name of a pair: a-z, 0-9 and _")
        return pairs

    @model_validator(mode="after")
    def _complete(self) -> Star:
        for place, name in enumerate(self.base):
            if name not in self.pairs:
                raise ValueError(f"base.{place}: {name!r} is not in pairs ({', '.join(self.pairs)})")
            if name in self.base[:place]:
                raise ValueError(f"base.{place}: {name!r} is named twice")
        if not self.drawable:
            raise ValueError("pairs: all of them are in base, and none is left to draw")
        if self.floor * len(self.drawable) >= 1:
            raise ValueError(f"floor: {len(self.drawable)} pairs cannot all keep {self.floor:g} and change")
        if self.bank is not None and self.bank.from_near > self.draws:
            raise ValueError(f"bank.from_near: {self.bank.from_near} is more than draws ({self.draws})")
        if self.small == self.large:
            raise ValueError(f"small and large are the same model ({self.small}): their gap would be 0 everywhere")
        return self
