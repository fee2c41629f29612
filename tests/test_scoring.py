"""Scorers at the engine seam, with tiny real models: the same scores as without it, kept and played again."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest
from tiny_models import tiny

from boost_qa.engines.replay import ReplayEngine
from boost_qa.errors import EngineError, ModelError
from boost_qa.journal import Journal
from boost_qa.runner import Job, call_for, run
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_agents.scorer import Scorer
from boost_qa.star_agents.scoring import AGAIN, FIRST, ScoringEngine, likelihood, model_name
from boost_qa.types import Dialogue, Message, Record, Turn


def dialogue(number: int, *sides: str) -> Dialogue:
    """Each turn has words of its own."""
    record = Record(f"r{number}", "sample", f"question {number}", "a", str(number))
    turns = [Turn(side, side, f"{side} says {number} and {at} " * (at + 1)) for at, side in enumerate(sides)]
    return Dialogue(record, "star", tuple(turns))


DIALOGUES = [
    *(dialogue(number, "human", "gpt") for number in range(4)),
    dialogue(4, "human", "gpt", "human", "gpt"),
    dialogue(5, "human", "gpt", "human"),  # whose last turn is nobody's answer
]
SPOKEN = [
    [Message("user" if turn.side == "human" else "assistant", turn.text) for turn in each.turns]
    for each in (*DIALOGUES[:5], dialogue(5, "human", "gpt"))
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny("qwen2", tmp_path_factory.mktemp("scorer") / "model", initializer_range=0.2))


def jobs(model: str, dialogues=DIALOGUES) -> list[Job]:
    return [
        Job(f"r{at}", layout, partial(likelihood, each, model, layout))
        for at, each in enumerate(dialogues)
        for layout in (FIRST, AGAIN)
    ]


def played(model: str, engine, journal: Journal, dialogues=DIALOGUES) -> dict[tuple[str, str], Likelihood | None]:
    engines = {model_name(model, layout): engine for layout in (FIRST, AGAIN)}
    return {(end.job.record, end.job.scenario): end.result for end in run(jobs(model, dialogues), engines, journal)}


def test_scores_are_those_of_the_scorer_under_both_layouts(model, tmp_path):
    with Journal(tmp_path / "journal") as journal:
        found = played(model, ScoringEngine(model), journal)
    for layout in (FIRST, AGAIN):
        right = list(Scorer(model, template=layout).score(SPOKEN))
        assert [found[f"r{at}", layout] for at in range(6)] == right
    assert all(found[f"r{at}", FIRST] != found[f"r{at}", AGAIN] for at in range(6))


def test_what_was_scored_is_played_again_to_the_last_digit(model, tmp_path):
    with Journal(tmp_path / "journal") as journal:
        first = played(model, ScoringEngine(model), journal)
        assert played(model, ReplayEngine(), journal) == first
        with pytest.raises(EngineError):
            played(model, ReplayEngine(), journal, [dialogue(9, "human", "gpt")])


def test_a_journal_of_before_there_were_halves_is_played_again(model, tmp_path):
    before = {"tokens": 7, "conditioned": 3.5, "alone": 7.0, "prompt_left_out": 0, "answer_left_out": 2}
    with Journal(tmp_path / "journal") as journal:
        played(model, ScoringEngine(model), journal)
        journal._db.execute("UPDATE replies SET text = ?", [json.dumps(before)])
        found = played(model, ReplayEngine(), journal)
    assert set(found.values()) == {Likelihood(7, 3.5, 7.0, 0, 2)} and found["r0", FIRST].halves is None


def test_an_answer_of_space_alone_has_no_likelihood(model, tmp_path):
    empty = Dialogue(DIALOGUES[0].record, "star", (Turn("q", "human", "Why?"), Turn("a", "gpt", " \n ")))
    with Journal(tmp_path / "journal") as journal:
        assert set(played(model, ScoringEngine(model), journal, [empty]).values()) == {None}


def test_a_scorer_that_fails_says_so_to_all_who_wait(model, tmp_path):
    engine = ScoringEngine(model)
    other = call_for(Job("r", "s", None), 0, likelihood(DIALOGUES[0], "somebody else").send(None), 0)
    mine = call_for(Job("r", "s", None), 0, likelihood(DIALOGUES[0], model).send(None), 0)

    async def ask() -> list:
        with pytest.raises(EngineError, match="not open"):
            await engine.ask(mine)
        await engine.open()
        failed = await asyncio.gather(engine.ask(mine), engine.ask(other), return_exceptions=True)
        whole = await engine.ask(mine)
        await engine.close()
        return [*failed, whole]

    *failed, whole = asyncio.run(ask())
    assert all(isinstance(each, EngineError) and "somebody else" in str(each) for each in failed)
    assert Likelihood(**json.loads(whole.text)).tokens > 1


def test_a_model_that_is_not_there_is_said_when_it_is_opened():
    with pytest.raises(ModelError, match="nowhere"):
        asyncio.run(ScoringEngine("nowhere").open())
