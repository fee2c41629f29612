"""What a recipe is said to ask beforehand, held against what a run of it asks."""

from __future__ import annotations

import pytest
import test_generate
import test_star_run
from scripted import Scripted
from typer.testing import CliRunner

from boost_qa.cli import app
from boost_qa.config import Recipe
from boost_qa.forecast import forecast
from boost_qa.generate import generate
from boost_qa.plan import plan
from boost_qa.star_agents.scoring import model_name


def agent(model: str, max_tokens: int = 100) -> dict:
    return {"model": model, "temperature": 0.5, "max_tokens": max_tokens}


def classroom(**changes) -> Recipe:
    """Every scenario that needs no embedder, half of it error correction; debates of two rounds."""
    scenarios = {
        "error_correction": {"share": 2, "cast": {"weak_student": agent("weak", 50), "teacher": agent("middle")}},
        "debate": {"rounds": [2]},
        "analogical_reasoning": None,
        "direct": {},
    }
    return test_generate.recipe(**{"scenarios": scenarios} | changes)


@pytest.mark.parametrize("changes", [{}, {"dialogues": 20}, {"assign": "all", "dialogues": 8}])
def test_a_classroom_asks_what_it_is_said_to_ask(tmp_path, changes):
    planned = plan(classroom(**changes))
    engines = {alias: Scripted() for alias in test_generate.ALIASES}
    generate(planned.recipe, tmp_path / "run", engines=engines, show=False)
    said = {each.name: each.requests for each in forecast(planned)}
    assert said == {alias: pytest.approx(len(engine.asked)) for alias, engine in engines.items()}
    assert planned.dialogues == {0: 36, 1: 20, 2: 24}[len(changes)]


def test_tokens_are_those_of_replies_that_reach_their_limit():
    weak, middle, strong = forecast(plan(classroom()))
    assert (weak.roles, weak.requests, weak.tokens) == (("weak_student",), 18, 18 * 50)
    assert (middle.roles, middle.tokens) == (("teacher", "student_a", "student_b"), 18 * 100 + 9 * 4 * 1024)
    assert (strong.roles, strong.requests) == (("strong_student", "student_c", "writer"), 18 + 9 + 9)


def test_rounds_count_with_their_mean_and_an_analogy_has_two_answers():
    drawn = {each.name: each.requests for each in forecast(plan("paper"))}
    third = 19000 / 3
    assert drawn == pytest.approx({"weak": third, "middle": third * 3, "strong": third * (2 + 1 + 3)})


@pytest.mark.parametrize(
    "changes", [{"every_pair": True, "retest": True}, {"draws": 3}, {"draws": 9, "base": ["plain", "good"]}]
)
def test_a_contest_of_all_pairs_asks_what_it_is_said_to_ask(tmp_path, changes):
    planned = plan(test_star_run.recipe(**changes))
    engines = test_star_run.engines()
    generate(planned.recipe, tmp_path / "run", engines=engines, show=False)
    said = {each.name: each.requests for each in forecast(planned)}
    alias = {"small": model_name("s"), "large": model_name("l")}
    assert said == {name: pytest.approx(len(engines[alias.get(name, name)].asked)) for name in said}
    assert set(said) == {*planned.recipe.models, "small", "large"}


def test_pairs_that_are_drawn_count_as_if_drawn_alike():
    said = {each.name: each.requests for each in forecast(plan(test_star_run.recipe(draws=2)))}
    pairs = {"plain": 24, **dict.fromkeys(("good", "fair", "poor"), 16)}
    assert said == pytest.approx({**pairs, "judge": 2 * 2 * 24, "small": 3 * 24, "large": 3 * 24})


def test_where_only_the_source_knows_how_much_there_is_a_dialogue_is_reckoned():
    planned = plan(classroom(sources=[{"source": "sample"}]))
    assert planned.dialogues is None
    assert sum(each.requests for each in forecast(planned)) == pytest.approx((2 * 3 + 5 + 1) / 4)
    gym = {"source": "reasoning_gym", "n": 5, "tasks": {"lcm": {}, "gcd": {}}}
    assert plan(classroom(sources=[gym])).dialogues == 10
    assert plan(classroom(sources=[gym], dialogues=100)).dialogues == 10, "no more than there are records"
    judged = {"answers": {"judge": agent("strong")}}
    assert plan(classroom(sources=[gym], assign="all", checks=judged)).dialogues == 30, "a judge makes none"


def test_plan_on_the_command_line_does_nothing_else(tmp_path):
    shown = CliRunner().invoke(
        app, ["generate", "paper", "--plan", "--output", str(tmp_path / "run")], terminal_width=140
    )
    assert shown.exit_code == 0 and not (tmp_path / "run").exists()
    assert "19,000 dialogues" in shown.output and "38,000" in shown.output and str(tmp_path / "run") in shown.output
