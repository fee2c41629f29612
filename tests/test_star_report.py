"""The report of a star run: on runs over engines without models, and on four seeds reckoned by hand."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest
from rich.console import Console
from scripted import Scripted
from test_star_run import PAIRS, engines, recipe

from boost_qa.config import Star
from boost_qa.generate import generate
from boost_qa.run_folder import RunFolder
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_agents.scoring import model_name
from boost_qa.star_policies import AGAINST, Candidate, Matrix, Seed, ablation, mean
from boost_qa.star_report import regret, report
from boost_qa.star_signal import correlation, reliability
from boost_qa.summary import summary
from boost_qa.types import Call, Reply

# --- rank correlations ---------------------------------------------------------------------------


def rho(x, y, groups=None, where="all"):
    return correlation(x, y, range(len(x)) if groups is None else groups)[where]["rho"]


def test_rank_correlations_by_hand():
    assert rho([1, 2, 3, 4], [10, 30, 20, 40]) == 0.8  # 1 - 6 x 2 / (4 x 15)
    assert rho([1, 2, 3, 4], [4, 3, 2, -math.inf]) == -1
    # ranks of the ties 2.5: 4.5 / sqrt(4.5 x 5)
    assert rho([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(math.sqrt(0.9), rel=1e-5)
    assert rho([5, 5, 5], [1, 2, 3]) is None and rho([], []) is None


def test_within_groups_what_differs_between_them_does_not_count():
    """Two seeds whose own candidates agree, and whose levels are opposed: 1 - 6 x 54 / (6 x 35) over all."""
    found = correlation([1, 2, 3, 11, 12, 13], [11, 12, 13, 1, 2, 3], [7, 7, 7, 4, 4, 4])
    assert found["within"]["rho"] == 1 and found["all"]["rho"] == pytest.approx(-114 / 210, rel=1e-5)
    assert found["groups"] == 2 and found["n"] == 6
    # a group of one says nothing about what is within
    assert rho([1, 2, 9], [1, 2, 0], [0, 0, 1], "within") == 1


def plain_rho(x, y) -> float:
    ranks = [[sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values] for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_intervals_are_those_of_whole_groups_drawn_again():
    """Against a slow bootstrap that repeats the rows of the groups drawn, with the same draws."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 4, 3, 2, 1])
    x = rng.integers(0, 6, 25) + groups
    y = x + rng.integers(0, 9, 25)
    found = correlation(x, y, groups, resamples=200)
    draws, slow, within = np.random.default_rng(0), [], []
    for _ in range(200):
        drawn = draws.integers(0, 9, 9)
        rows = [row for group in drawn for row in np.flatnonzero(groups == group)]
        slow.append(plain_rho(x[rows], y[rows]))
        sums = np.zeros(3)
        for group in drawn:
            one, other = ([sum(b < a for b in v) + sum(b == a for b in v) / 2 for a in v]
                          for v in (x[groups == group], y[groups == group]))  # fmt: skip
            one, other = np.array(one) - np.mean(one), np.array(other) - np.mean(other)
            sums += [one @ other, one @ one, other @ other]
        within.append(sums[0] / math.sqrt(sums[1] * sums[2]))
    assert found["resamples"] == 200
    for name, values in (("all", slow), ("within", within)):
        low, high = np.percentile(values, [2.5, 97.5])
        assert found[name]["low"] == pytest.approx(low, rel=1e-5)
        assert found[name]["high"] == pytest.approx(high, rel=1e-5)


def test_copies_of_a_candidate_make_no_interval_narrower():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20))
    once = correlation(x, x + y, np.arange(20))
    twice = correlation(np.repeat(x, 2), np.repeat(x + y, 2), np.repeat(np.arange(20), 2))
    assert twice["all"] == once["all"] and once["all"]["low"] < once["all"]["rho"] < once["all"]["high"]
    assert correlation(x, y, np.zeros(20))["all"]["low"] is None  # one group cannot be drawn again


def test_reliability_by_hand():
    """Over all 1 - 6 x 2 / (4 x 15) = 0.8, stepped up 1.6 / 1.8; within groups 1 and -1, together 0."""
    found = reliability([1, 2, 4, 3], [10, 20, 30, 40], [0, 0, 5, 5], half=True)
    assert found["all"]["rho"] == 0.8 and found["all"]["whole"]["rho"] == pytest.approx(8 / 9, rel=1e-5)
    assert found["within"]["rho"] == 0 and found["within"]["whole"]["rho"] == 0
    assert found["same_best"] == {"groups": 2, "share": 0.5, "by_chance": 0.5}
    assert "whole" not in reliability([1, 2, 4, 3], [10, 20, 30, 40], [0, 0, 5, 5], half=False)["all"]


def test_reliability_where_there_is_none():
    """A half that says the opposite cannot be stepped up; a group of one has no best."""
    found = reliability([1, 2, 3], [3, 2, 1], [0, 0, 0], half=True)
    assert found["all"]["rho"] == -1 and found["all"]["whole"]["rho"] is None
    assert found["same_best"] == {"groups": 1, "share": 0.0, "by_chance": pytest.approx(1 / 3, rel=1e-5)}
    alone = reliability([1, 2], [1, 2], [0, 1], half=True)["same_best"]
    assert alone == {"groups": 0, "share": None, "by_chance": None}


def test_the_step_up_finds_what_the_whole_would_reach():
    """Of 2,000 rows, each with as much noise as truth in each of two halves: halves 1/2, wholes 2/3."""
    rng = np.random.default_rng(5)
    truth, groups = rng.normal(size=2000), np.arange(2000) // 5
    half, other, whole, again = truth + rng.normal(size=(4, 2000)) * np.array([[1, 1, 0.5**0.5, 0.5**0.5]]).T
    stepped = reliability(half, other, groups, half=True)["all"]
    assert stepped["rho"] == pytest.approx(0.5, abs=0.06)
    assert stepped["whole"]["rho"] == pytest.approx(rho(whole, again), abs=0.05)
    assert stepped["whole"]["low"] < stepped["whole"]["rho"] < stepped["whole"]["high"]


# --- policies, on four seeds ---------------------------------------------------------------------

BY_HAND = {  # (gap, judged) of each pair; the base sample's verdict is 0.5
    "s1": {"plain": (0.2, None), "a": (0.4, 1.0), "b": (0.1, 1.0), "c": (0.3, 1.0)},  # scores .25  1   .25 .75
    "s2": {"plain": (0.1, None), "a": (0.4, 1.0), "b": (0.2, 0.0), "c": (0.2, 1.0)},  # .125 1   0   .5
    "s3": {"plain": (0.2, None), "a": (-0.3, 1.0), "b": (0.4, 0.5), "c": (0.1, 1.0)},  # .25  0   .5  .25
    "s4": {"plain": (0.4, None), "a": (0.1, 0.0), "b": (0.4, 1.0), "c": (0.15, 1.0)},  # .5   0   1   .375
}
CHOSEN = {"s1": "c", "s2": "a", "s3": "plain", "s4": "b"}


def candidate(pair: str, gap: float, judged: float | None) -> Candidate:
    """IFD 0.5 by the large scorer."""
    small, large = (Likelihood(10, 10 * (3 + math.log(ifd)), 30.0) for ifd in (0.5 + gap, 0.5))
    return Candidate(pair, small, large, judged, None, None)


def seeds() -> list[Seed]:
    return [
        Seed(name, ("a", "b"), CHOSEN[name], {}, [candidate(pair, *found) for pair, found in row.items()])
        for name, row in BY_HAND.items()
    ]


def star(draws: int, **changes) -> Star:
    pairs = {name: {"respond": {"model": "plain", "temperature": 0.5}} for name in ("plain", "a", "b", "c")}
    found = recipe(pairs=pairs, draws=draws, every_pair=True, **changes).star
    assert found is not None
    return found


def compared(draws: int, **changes):
    matrix = Matrix(seeds(), star(draws, **changes))
    policies, _ = matrix.policies(1)
    return matrix, policies, ablation(policies)


def test_policies_and_their_standard_errors_by_hand():
    """All pairs drawn, so that nothing is left to chance but the one that "diversity only" takes."""
    _, policies, found = compared(3)
    assert policies["base only"].tolist() == pytest.approx(
        np.array([[0.5, 0.2, 0.25], [0.5, 0.1, 0.125], [0.5, 0.2, 0.25], [0.5, 0.4, 0.5]])
    )
    for policy in (AGAINST, "oracle"):
        assert policies[policy][:, 2] == pytest.approx([1, 1, 0.5, 1])
        assert found[policy]["judged"]["mean"] == 0.875 and found[policy]["judged"]["se"] == 0.125
    assert policies["full"][:, 2] == pytest.approx([0.75, 1, 0.25, 1])
    assert found["full"]["score"]["mean"] == pytest.approx(0.75)
    assert found["full"]["score"]["se"] == pytest.approx(math.sqrt(0.125) / 2, rel=1e-5)
    # seed by seed -1/4, 0, -1/4, 0
    assert found["full"]["score"]["difference"]["mean"] == pytest.approx(-0.125)
    assert found["full"]["score"]["difference"]["se"] == pytest.approx(math.sqrt(1 / 48) / 2, rel=1e-5)
    assert found["diversity only"]["score"]["mean"] == pytest.approx(11.25 / 24, abs=0.02)


def test_uniform_draws_come_to_the_mean_of_all_sets():
    _, policies, _ = compared(2)
    assert policies[AGAINST][:, 2] == pytest.approx([11 / 12, 10 / 12, 5 / 12, 10 / 12], abs=0.03)
    # in s4 the base sample is better than a and c
    assert policies[AGAINST][3, 0] == pytest.approx((1 + 0.5 + 1) / 3, abs=0.03)
    _, policies, _ = compared(2, base_competes=False)
    assert policies[AGAINST][3].tolist() == pytest.approx([1, (0.4 + 0.15 + 0.4) / 3, 9.5 / 12], abs=0.03)


def test_regret_by_hand():
    matrix, policies, _ = compared(2)
    found, courses = regret(matrix, policies)
    assert found["best_set"] == ["a", "b"], "c scores well everywhere, but is never needed beside them"
    assert courses["the best fixed set"] == pytest.approx([0.25, 0.25, 0.5, 0.5])
    assert found["against"]["the best fixed set"] == pytest.approx(0.5)
    assert found["against"]["uniform drawing"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("competes", [True, False])
@pytest.mark.parametrize("draws", [1, 2, 5])
def test_the_best_set_is_the_best_of_all(draws, competes):
    matrix = Matrix(seeds(), star(draws, base_competes=competes))
    rng = Random(0)
    values = {
        names: [row[matrix.best(at, names, rng)].score for at, row in enumerate(matrix.rows)]
        for names in combinations("abc", min(draws, 3))
    }
    best = max(values, key=lambda names: sum(values[names]))
    names, scores = matrix.best_set()
    assert names == best and scores.tolist() == values[best]


def test_a_seed_whose_base_sample_has_no_score_is_left_out():
    some = seeds()
    some[1].candidates[0] = Candidate("plain", None, None, None, None, "small: cannot be scored")
    some[2].candidates = []
    matrix = Matrix(some, star(3))
    assert [seed.record for seed in matrix.seeds] == ["s1", "s4"]


def test_nothing_is_known_of_no_seeds_and_no_error_of_one():
    matrix = Matrix([], star(2))
    policies, _ = matrix.policies(1)
    assert ablation(policies)["full"]["score"]["mean"] is None and matrix.best_set() is None
    assert mean(np.array([2.0])) == {"mean": 2.0, "se": None}


# --- whole runs ----------------------------------------------------------------------------------


def weighed(size: str):
    """The gap grows with the length of the answer, and the perplexity alone falls."""

    def answer(call: Call) -> Reply:
        pair = call.request.messages[-1].content.split()[0]
        tokens = 10 + 20 * PAIRS.index(pair) + ord(call.record[-1]) % 10
        alone = 3 - tokens / 1000
        conditioned = alone + math.log(0.4 + tokens / (200 if size == "small" else 1000))
        cut = int(pair == "poor")
        return Reply(json.dumps({
            "tokens": tokens, "conditioned": tokens * conditioned, "alone": tokens * alone, "answer_left_out": cut
        }))  # fmt: skip

    return answer


def picky(call: Call) -> Reply:
    """Prefers `good` to `plain`, and that to `poor`; `fair` is a tie."""
    text = call.request.messages[-1].content
    name = next(name for name in PAIRS[1:] if f"| {name}" in text)
    other_first = text.index(f"| {name}") < text.index("| plain")
    return Reply("[[C]]" if name == "fair" else "[[A]]" if other_first == (name == "good") else "[[B]]")


def lengths() -> dict[str, Scripted]:
    scorers = {model_name(name): Scripted(weighed(size), slots=8) for name, size in (("s", "small"), ("l", "large"))}
    return engines(judge=Scripted(picky, slots=8), **scorers)


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("every") / "run"
    return generate(recipe(every_pair=True), folder, engines=lengths(), show=False)


def result(run: RunFolder) -> dict:
    return json.loads(run.report_file.read_text("utf-8"))


def test_a_gap_that_is_length_is_found_out(every):
    found = result(every)["signal"]
    assert found["candidates"] == 96 and found["cut"] == 24 and found["not_above_0"] == 0
    for name, right in (("tokens", 1), ("perplexity", 1), ("perplexity_alone", -1), ("ifd_small", 1)):
        for where in ("all", "within"):
            assert found["gap_with"][name][where] == {"rho": right, "low": right, "high": right}, name
    # longest is poor, then fair, then good
    judged = found["gap_with"]["judged"]
    assert judged["n"] == 72 and judged["within"]["rho"] == -1 and -1 < judged["all"]["rho"] < -0.9
    assert found["ifd_small_with_ifd_large"]["all"]["rho"] == 1
    # whose journal has no halves, as those of before
    assert found["halves"].startswith("not measured") and "another --output" in found["halves"]
    assert found["retest"].startswith("not measured") and "star.retest" in found["retest"]


def halved(size: str, even_says: int):
    """As `weighed`, with tokens that say all of the gap in the odd half and `even_says` times as much in the even one.

    An answer under headings has the half as long a gap in reverse."""

    def answer(call: Call) -> Reply:
        found = json.loads(weighed(size)(call).text)
        gap, tokens = found["conditioned"] - found["alone"], found["tokens"]
        assert tokens % 2 == 0
        if "headings" in call.request.model:
            found["conditioned"] = found["alone"] - gap / 2
        else:
            found["conditioned"] = found["alone"] + gap / 2 * (1 + even_says)
        return Reply(
            json.dumps(found | {"alone_odd": found["alone"] / 2, "conditioned_odd": found["alone"] / 2 + gap / 2})
        )

    return answer


def even(call: Call) -> Call:
    """The record's last digit makes the length odd or even."""
    return replace(call, record=call.record[:-1] + "02468"[ord(call.record[-1]) % 5])


@pytest.mark.parametrize("even_says", [1, -1])
def test_halves_and_the_other_layout_are_told_apart(tmp_path, even_says):
    names = {f"likelihood by {name}{more}": size
             for name, size in (("s", "small"), ("l", "large")) for more in ("", " under headings")}  # fmt: skip
    scorers = {
        name: Scripted(lambda call, size=size: halved(size, even_says)(even(call)), slots=8)
        for name, size in names.items()
    }
    run = generate(recipe(every_pair=True, retest=True), tmp_path / "run", engines=lengths() | scorers, show=False)
    found = result(run)["signal"]
    assert found["halves"]["candidates"] == found["retest"]["candidates"] == 96
    for name in ("ifd_small", "ifd_large", "gap"):
        assert found["halves"][name]["within"]["rho"] == even_says, name
        assert found["halves"][name]["same_best"]["share"] == (even_says > 0)
    assert found["halves"]["gap"]["same_best"] == {"groups": 24, "share": float(even_says > 0), "by_chance": 0.25}
    rows = [json.loads(line) for line in run.candidates_file.read_text("utf-8").splitlines()]
    assert all(row["small_again"]["tokens"] == row["small"]["tokens"] for row in rows)
    if even_says > 0:
        assert found["retest"]["gap"]["within"]["rho"] == -1


def test_a_retest_changes_no_choice(every, tmp_path):
    asked = lengths()
    asked |= {
        f"{name} under headings": Scripted(engine.answer) for name, engine in asked.items() if "likelihood" in name
    }
    run = generate(recipe(every_pair=True, retest=True), tmp_path / "run", engines=asked, show=False)
    for file in ("dialogues_file", "history_file"):
        assert getattr(run, file).read_bytes() == getattr(every, file).read_bytes()
    found = result(run)["signal"]["retest"]
    assert found["gap"]["all"]["rho"] == found["gap"]["within"]["rho"] == found["gap"]["same_best"]["share"] == 1
    assert "whole" not in found["gap"]["all"]


def test_every_candidate_of_such_a_run_is_judged(every):
    rows = [json.loads(line) for line in every.candidates_file.read_text("utf-8").splitlines()]
    assert len(rows) == 96 and any(not row["drawn"] for row in rows)
    assert {(row["pair"], row["judged"]) for row in rows} == {("plain", 0.5), ("good", 1), ("fair", 0.5), ("poor", 0)}


def test_policies_of_a_run_are_ordered_as_its_pairs_are_made(tmp_path):
    run = generate(recipe(every_pair=True), tmp_path / "run", engines=engines(), show=False)
    found = result(run)["ablation"]
    assert found["seeds"] == 24 and found["left_out"] == 0
    scores = [row["score"]["mean"] for row in found["policies"].values()]
    assert scores == sorted(set(scores)) and scores[0] == 0 and scores[-1] == 1
    base, some, best, _, oracle = (row["gap"]["mean"] for row in found["policies"].values())
    assert base == 0 and some == pytest.approx(0.25, abs=0.01) and oracle == pytest.approx(0.45)
    assert best == pytest.approx((0.45 + 0.45 + 0.25) / 3, abs=0.01)  # of good, fair and poor two are drawn
    assert "good" in result(run)["regret"]["best_set"]
    against = result(run)["regret"]["against"]
    assert against["uniform drawing"] < 0 < against["the best fixed set"]


def test_the_report_of_a_run_is_always_the_same(every):
    names = ["report.json", *result(every)["pictures"]]
    assert names[1:] == ["probabilities.png", "scores.png", "regret.png"]
    before = {name: (every.path / name).read_bytes() for name in names}
    assert all(before[name].startswith(b"\x89PNG") for name in names[1:])
    for name in names:
        (every.path / name).unlink()
    said: list[str] = []
    report(every, recipe(every_pair=True), said.append)
    assert {name: (every.path / name).read_bytes() for name in names} == before and not said
    assert not list(every.path.glob("*.part"))


def test_without_matplotlib_there_are_figures_alone(every, monkeypatch):
    before = result(every)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said: list[str] = []
    report(every, recipe(every_pair=True), said.append)
    assert len(said) == 1 and "pip install 'boost_qa[train]'" in said[0]
    found = result(every)
    assert found.pop("pictures") == [] and before.pop("pictures") and found == before


def test_a_run_that_asked_some_pairs_says_what_it_cannot_tell(tmp_path):
    """Here the judge cannot be read about one pair, and some records have no base sample."""
    silent = Scripted(
        lambda call: Reply("" if int(call.record[-1], 16) < 6 else f"plain answers {call.record}", "stop")
    )
    mute = Scripted(lambda call: Reply("?") if "| good" in call.request.messages[-1].content else picky(call))
    run = generate(recipe(), tmp_path / "run", engines=lengths() | {"plain": silent, "judge": mute}, show=False)
    found = result(run)
    assert found["ablation"].startswith("not measured") and found["regret"].startswith("not measured")
    assert found["pictures"] == ["probabilities.png", "scores.png"]
    rejected = len(list(run.rejected()))
    history = [json.loads(line) for line in run.history_file.read_text("utf-8").splitlines()]
    assert rejected and found["pairs"]["plain"]["unscored"] == {"respond: empty": rejected}
    good = found["pairs"]["good"]
    assert good["unscored"].keys() == {"judge: unreadable verdict", "no base sample"}
    assert good["drawn"] == sum("good" in line["drawn"] for line in history) == sum(good["unscored"].values())
    assert good["mean_score"] is None and good["scored"] == good["chosen"] == 0
    assert sum(pair["chosen"] for pair in found["pairs"].values()) == 24 - rejected
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(run))
    shown = next(line for line in console.export_text().splitlines() if "unreadable verdict (" in line)
    assert f"{good['drawn']} " in shown and f"{good['probability']:.3f}" in shown


def test_an_unscored_candidate_is_no_choice(tmp_path):
    """Where no pair but one has a score, any that is drawn is that one or the base sample."""
    mute = Scripted(lambda call: picky(call) if "| fair" in call.request.messages[-1].content else Reply("?"))
    run = generate(recipe(every_pair=True), tmp_path / "run", engines=engines(judge=mute), show=False)
    found = result(run)["ablation"]["policies"]
    assert found["oracle"]["gap"]["mean"] == pytest.approx(0.25)
    for policy in ("diversity only", AGAINST):
        assert found[policy]["gap"]["mean"] == pytest.approx(0.25 * 2 / 3, abs=0.02)
