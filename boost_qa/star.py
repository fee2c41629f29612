"""Star-Agents' run: each seed record gets candidates by several agent pairs, and keeps the best of them.

Seeds go in batches: the pairs of a batch are drawn by the same probabilities, and what came of it changes them for
the next. All that models say, likelihoods included, is in the journal, so a stopped run comes to the same
probabilities again without asking anything twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from boost_qa import models
from boost_qa.config import Star
from boost_qa.errors import Rejected
from boost_qa.plan import Plan
from boost_qa.progress import Progress
from boost_qa.retrieval import Embedder, Vectors
from boost_qa.room import Room
from boost_qa.runner import Finished, Job
from boost_qa.star_agents import judge, pairs
from boost_qa.star_agents.bank import MemoryBank
from boost_qa.star_agents.evolution import Evolution
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_agents.judge import Verdict
from boost_qa.star_agents.scoring import AGAIN, FIRST, likelihood
from boost_qa.star_agents.selection import BASE_JUDGED, choose, dual_scores, final_scores
from boost_qa.types import Dialogue, Record


@dataclass
class Sample:
    """A candidate, or the base sample, with what was found out about it.

    `judged` is Eq. 6, `score` Eq. 7; both None where it could not be scored, for the reason in `why`. What the scorers
    say `again`, of the same text in another layout, is for the report alone.
    """

    pair: str
    dialogue: Dialogue | None = None
    small: Likelihood | None = None
    large: Likelihood | None = None
    small_again: Likelihood | None = None
    large_again: Likelihood | None = None
    verdict: Verdict | None = None
    judged: float | None = None
    score: float | None = None
    why: str | None = None

    @property
    def gap(self) -> float | None:
        """IFD by the small scorer less that by the large one."""
        return None if self.small is None or self.large is None else self.small.ifd - self.large.ifd


@dataclass
class Tailored:
    """What became of one seed record.

    Args:
        record: the seed.
        drawn: the pairs that competed for it.
        samples: the base sample first, then the others that were asked for.
        chosen: the best sample; None where there is not even a base sample.
        probabilities: of the pairs, after it.
    """

    record: Record
    drawn: Sequence[str]
    samples: Sequence[Sample]
    chosen: Sample | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Tailor:
    """Goes through the seeds of a star recipe in batches.

    Args:
        planned: the recipe with its casts.
        records: the seeds, in their order.
        similar: neighbours of those that a pair plays analogies with.
        room: where agents, scorers and judge answer.
        vectors: of the seeds' questions, one row for each; not needed without a memory bank.
    """

    def __init__(
        self,
        planned: Plan,
        records: Sequence[Record],
        similar: Mapping[str, Sequence[Record]],
        room: Room[Any],
        vectors: Vectors | None,
    ) -> None:
        assert planned.recipe.star is not None
        self.planned, self.star, self.seed = planned, planned.recipe.star, planned.recipe.seed
        self.records, self.similar, self.room, self.vectors = records, similar, room, vectors
        star = self.star
        self.evolution = Evolution(
            star.drawable, seeds=max(1, len(records)), rate=star.rate, floor=star.floor, update=star.update
        )
        self.bank = MemoryBank(star.bank.threshold) if star.bank else None

    def tailor(self) -> Iterator[Tailored]:
        """What becomes of each seed, in their order."""
        for start in range(0, len(self.records), self.star.batch):
            records = self.records[start : start + self.star.batch]
            batch = [self._draw(start + at, record) for at, record in enumerate(records)]
            self._generate(batch)
            self._evaluate(batch)
            for at, seed in enumerate(batch):
                self._choose(seed)
                self._learn(start + at, seed)
                yield seed

    def _draw(self, number: int, record: Record) -> Tailored:
        near: list[str] = []
        if self.bank is not None and self.star.bank and self.vectors is not None:
            near = self.bank.near(self.vectors[number], self.star.bank.near)
        from_near = self.star.bank.from_near if self.star.bank else 0
        rng = self._chance(record, "draw")
        drawn = self.evolution.draw(self.star.draws, rng, near, from_near)
        others = [pair for pair in self.star.drawable if pair not in drawn] if self.star.every_pair else []
        return Tailored(record, drawn, [Sample(pair) for pair in (*self.star.base, *drawn, *others)])

    def _generate(self, batch: Sequence[Tailored]) -> None:
        jobs, samples = [], {}
        for seed in batch:
            for sample in seed.samples:
                jobs.append(self._candidate(seed.record, sample.pair))
                samples[seed.record.id, pairs.scenario(sample.pair)] = sample
        for end in self.room.play(jobs):
            sample = samples[end.job.record, end.job.scenario]
            sample.dialogue, sample.why = end.result, _why(end)

    def _candidate(self, record: Record, pair: str) -> Job[Any]:
        settings, similar = self.star.pairs[pair], self.similar.get(record.id, ())

        def start() -> Any:
            return pairs.play(pair, settings, self.planned.casts, record, self._chance(record, pair), similar)

        return Job(record.id, pairs.scenario(pair), start, pairs.calls(settings), kind=pairs.scenario(pair))

    def _evaluate(self, batch: Sequence[Tailored]) -> None:
        """Likelihoods by both scorers, and the judge's verdict on whatever is not the base sample."""
        jobs, places = [], {}
        for seed in batch:
            base = seed.samples[0].dialogue
            if base is None:
                continue
            for sample in (sample for sample in seed.samples if sample.dialogue is not None):
                for job, what in self._questions(seed.record, sample, base, sample is seed.samples[0]):
                    jobs.append(job)
                    places[job.record, job.scenario] = sample, what
        for end in self.room.play(jobs):
            sample, what = places[end.job.record, end.job.scenario]
            setattr(sample, what, end.result)
            sample.why = sample.why or _why(end) or (f"{what}: cannot be scored" if end.result is None else None)

    def _questions(
        self, record: Record, sample: Sample, base: Dialogue, is_base: bool
    ) -> Iterator[tuple[Job[Any], str]]:
        dialogue, agent = sample.dialogue, self.planned.casts["star"]["judge"]
        assert dialogue is not None
        for suffix, layout in (("", FIRST), ("_again", AGAIN))[: 1 + self.star.retest]:
            for what, scorer in ((f"small{suffix}", self.star.small), (f"large{suffix}", self.star.large)):
                start = partial(likelihood, dialogue, scorer, layout)
                yield Job(record.id, f"{pairs.scenario(sample.pair)}/{what}", start, 1, kind=what), what
        if not is_base:
            asked = partial(judge.verdict, record, base, dialogue, agent)
            yield Job(record.id, judge.scenario(sample.pair), asked, judge.CALLS, kind=judge.KIND), "verdict"

    def _choose(self, seed: Tailored) -> None:
        """Eq. 5 to 7 over the pairs drawn, the further base pairs, and the base sample if it competes."""
        base, *others = seed.samples
        if base.dialogue is None:
            return
        competing = {*seed.drawn, *self.star.base}
        rivals = [sample for sample in others if sample.pair in competing and sample.why is None]
        base_competes = self.star.base_competes and base.why is None
        field = [*rivals, base] if base_competes else rivals
        for sample in field:
            sample.judged = BASE_JUDGED if sample is base else sample.verdict.value  # type: ignore[union-attr]
        dual = dual_scores([s.small.ifd for s in field], [s.large.ifd for s in field])  # type: ignore[union-attr]
        finals = final_scores(dual, [s.judged for s in field])  # type: ignore[misc]
        for sample, score in zip(field, finals, strict=True):
            sample.score = score
        choice = choose(finals, self._chance(seed.record, "choose"), base_competes=base_competes)
        seed.chosen = base if choice.index is None else rivals[choice.index]

    def _learn(self, number: int, seed: Tailored) -> None:
        scores = {s.pair: s.score for s in seed.samples if s.pair in seed.drawn and s.score is not None}
        winner = seed.chosen.pair if seed.chosen and seed.chosen.pair in scores else None
        self.evolution.learn(scores, winner)
        if winner and self.bank is not None and self.vectors is not None:
            self.bank.add(seed.record.id, self.vectors[number], winner, scores[winner])
        seed.probabilities = self.evolution.probabilities

    def _chance(self, record: Record, what: str) -> Random:
        return Random(f"{self.seed}/{record.id}/star/{what}")


def embedded(star: Star, records: Iterable[Record], progress: Progress) -> Vectors | None:
    """The seeds' questions as vectors; None without a memory bank.

    Raises:
        ModelError: if the embedder cannot be had.
    """
    if star.bank is None or star.bank.from_near == 0:
        return None
    model = models.resolve(star.bank.embedder, progress=progress.bytes)
    embed = Embedder(model.path, model.revision, models.home() / "embeddings", progress.texts)
    return embed([record.question for record in records])


def _why(end: Finished[Any]) -> str | None:
    rejected: Rejected | None = end.rejected
    return None if rejected is None else rejected.reason
