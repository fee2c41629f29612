"""Star recipes that come with the package: read, planned, and what of the paper stands in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boost_qa.config import Columns, OpenAI
from boost_qa.plan import plan
from boost_qa.star_agents import pairs
from boost_qa.star_agents.evolution import Evolution

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "recipes" / "generate"
RECIPES = ("star_demo", "star_paper", "boost_star")


def text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text("utf-8")


def test_these_are_all_star_recipes():
    assert {file.stem for file in FOLDER.glob("*.yaml") if "\nstar:" in file.read_text("utf-8")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_planned_with_a_cast_for_each_pair(name):
    planned = plan(name)
    star = planned.recipe.star
    assert planned.recipe.name == name and f"boost-qa generate {name}" in text(name)
    assert planned.casts.keys() == {"star", *map(pairs.scenario, star.pairs)}
    # a recipe that nobody uses a model of would still ask for it
    assert {agent.model for agent in planned.recipe.agents().values()} == planned.recipe.models.keys()
    assert len(star.drawable) > star.draws


def test_the_papers_recipe_has_every_published_number():
    recipe = plan("star_paper").recipe
    (source,), star = recipe.sources, recipe.star
    assert isinstance(source, Columns) and source.n == 70_000
    assert (source.question, source.answer) == ("instruction", "output")
    assert len(star.drawable) == 10 and star.draws == 5 and star.base == ("chatgpt",)
    assert (star.batch, star.floor, star.update, star.bank is not None) == (1, 0, "winner", True)
    assert star.small == "EleutherAI/pythia-1b" and star.judge.model == "chatgpt"
    speakers = {re.sub(r"[^a-z]", "", model.model.lower()) for model in recipe.models.values()}
    families = ("phi", "chatglm", "gemma", "mistral", "qwen", "gpt")
    assert len(speakers) == 6 and all(any(family in speaker for speaker in speakers) for family in families)
    assert all(isinstance(model, OpenAI) for model in recipe.models.values())
    assert recipe.models["chatgpt"].api_key_env == "OPENAI_API_KEY"
    evolution = Evolution(star.drawable, seeds=source.n, rate=star.rate, floor=star.floor, update=star.update)
    assert evolution.beta == pytest.approx(7.1e-5, rel=0.01)
    assert set(evolution.probabilities.values()) == {0.1}


def test_the_papers_recipe_marks_what_the_paper_leaves_open():
    lines = text("star_paper").splitlines()
    unknown = {found[1] for line in lines if "UNKNOWN" in line and (found := re.match(r"\s*(\w+):", line))}
    left_open = "seed pairs phi2 base large judge rate order near from_near threshold embedder base_competes models"
    assert unknown == {*left_open.split(), "layout", "attempts"}


def test_the_classrooms_recipe_draws_casts_against_the_plain_answer():
    recipe = plan("boost_star").recipe
    star = recipe.star
    assert star.base == ("plain",) and star.pairs["plain"].classroom is None
    drawn = [star.pairs[name].classroom for name in star.drawable]
    assert all(drawn) and {name for name, _ in drawn} == {"error_correction", "debate", "analogical_reasoning"}
    assert len({settings.model_dump_json() for _, settings in drawn}) == len(drawn)
    assert {settings.rounds for name, settings in drawn if name == "debate"} == {(1,), (2,)}
    assert recipe.dialogues < 72  # some are left for analogies
