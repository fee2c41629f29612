"""The scenario `direct`: the strong model's worked answer as a control, off until a recipe names it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import test_checked_run
import test_scenarios

from boost_qa.agents import cast_for
from boost_qa.config import Pair, Recipe
from boost_qa.generate import generate
from boost_qa.plan import plan
from boost_qa.recipe_file import load_recipe
from boost_qa.scenarios import SCENARIOS, direct
from boost_qa.types import Reply

RECIPES = sorted((Path(__file__).parents[1] / "recipes" / "generate").glob("*.yaml"))
ALONE = ["scenarios.error_correction=null", "scenarios.debate=null", "scenarios.analogical_reasoning=null"]
RECORD, STRONG = test_scenarios.RECORD, test_scenarios.STRONG


def lesson(*overrides: str, answer=test_scenarios.said, **extra):
    cast = cast_for(load_recipe("paper", ["scenarios.direct={}", *overrides]), "direct")
    return test_scenarios.play(direct(RECORD, cast, random.Random(0), **extra), answer)


def test_the_strong_model_answers_once_with_the_reference_in_view():
    played = lesson()
    assert test_scenarios.speakers(played) == [(STRONG, 0.2)]
    assert played.turns == [("human", "question", RECORD.question), ("gpt", "writer", "said-0.")]
    assert played.shown("SECRET-ONE") == [0] and played.task(0).endswith(RECORD.answer), "the answer stands last"
    assert (played.dialogue.scenario, played.dialogue.usage.requests) == ("direct", 1)
    blind = lesson(sees_answer=False)
    assert blind.shown("SECRET-ONE") == [] and "solution" not in blind.task(0)


def test_what_cannot_be_used_is_asked_for_again():
    bad = test_scenarios.BAD["out of role"]
    assert len(lesson(answer=lambda place: bad if place < 2 else test_scenarios.said(place)).asked) == 3
    assert lesson(answer=lambda place: bad).rejected.reason == "writer: out of role"
    assert lesson(answer=lambda place: Reply("The reference answer is 16.")).rejected is not None


# --- recipes that do not name it -----------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_leaves_no_trace_in_recipes_without_it(path):
    planned = plan(path)
    for written in (planned.recipe.model_dump(mode="json"), planned.recipe.content(), planned.prompts):
        assert '"direct' not in json.dumps(written)
    assert plan(Recipe.model_validate(planned.recipe.model_dump(mode="json"))).digest == planned.digest
    off = load_recipe(path, ["scenarios.direct=null"]) if not planned.recipe.star else planned.recipe
    assert plan(off).digest == planned.digest


def test_it_is_written_out_and_read_where_it_is_named():
    whole = load_recipe("paper", ["scenarios.direct={sees_answer: false}"])
    assert list(whole.scenarios.active()) == ["error_correction", "debate", "analogical_reasoning", "direct"]
    assert Recipe.model_validate(whole.model_dump(mode="json")) == whole
    assert plan(whole).digest != plan("paper").digest != plan("paper", ["scenarios.direct={}"]).digest
    alone = plan("paper", ["scenarios.direct={}", *ALONE])
    assert list(alone.casts) == ["direct"] and list(alone.prompts) == ["direct/writer"]
    assert "direct" not in Pair.model_fields, "a pair has `respond` with `sees_reference` for it"


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checked run in which a wrong answer is asked for again, and what the strong model was asked."""
    folder = tmp_path_factory.mktemp("direct")
    scenarios = {"error_correction": None, "debate": None, "analogical_reasoning": None, "direct": {}}
    checks = test_checked_run.ANSWERS_ONLY | {"roles": True, "answers": {"final_wrong": "ask_again"}}
    what = test_checked_run.recipe(folder, checks, n=8, scenarios=scenarios)

    def slow(a: int, times: int, told: str) -> str:
        return (test_checked_run.right if times > 1 else test_checked_run.wrong)(a, times, told)

    engines = test_checked_run.engines(strong=slow)
    return generate(what, folder / "run", engines=engines, show=False), engines["strong"]


def test_its_last_word_is_held_against_the_reference(made):
    run, strong = made
    dialogues = list(run.dialogues())
    assert len(dialogues) == 8 and {call.scenario for call in strong.calls} == {"direct"}
    assert all(line["usage"]["requests"] >= 2 for line in dialogues), "the first answer was wrong"
    labels = [check["label"] for line in dialogues for check in line["checks"] if check["check"] == "answers"]
    assert labels == ["final right"] * 8


def test_a_run_of_it_is_served_exported_and_shown(made, tmp_path):
    from datasets import load_dataset

    import boost_qa
    from boost_qa.page import write
    from boost_qa.summary import browse, summary

    run, _ = made
    rows = boost_qa.load("direct", run=run.path, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) and set(rows["scenario"]) == {"direct"} and rows["speakers"][0] == ["question", "writer"]
    exported = boost_qa.export(run, tmp_path / "export")
    assert "one model writes a worked answer" in (exported / "README.md").read_text("utf-8")
    there = load_dataset(str(exported), "direct", split="train", cache_dir=str(tmp_path / "cache"))
    assert there.to_list() == rows.to_list()
    assert write(run, tmp_path / "report.html").is_file()
    assert summary(run) and len(list(browse(run, limit=99))) == 8


def test_scenarios_are_known_everywhere():
    from boost_qa.builder import BoostQA
    from boost_qa.cards.dataset import _MEANING
    from boost_qa.inspection import LAST_SPEAKERS
    from boost_qa.teach import CALLS

    assert set(CALLS) == set(SCENARIOS) <= set(_MEANING) & {config.name for config in BoostQA.BUILDER_CONFIGS}
    assert "writer" in LAST_SPEAKERS
