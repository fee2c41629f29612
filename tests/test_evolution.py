"""Selection, evolution and memory bank of Star-Agents: by hand, by exact probabilities, by what always holds."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from boost_qa.star_agents import bank as bank_module
from boost_qa.star_agents.bank import MemoryBank
from boost_qa.star_agents.evolution import Evolution, lifted
from boost_qa.star_agents.selection import BASE_JUDGED, Choice, choose, dual_scores, final_scores

NAMES = list("abcdefghijkl")
NAN = math.nan
shares = st.floats(0, 1)


class Untouched(Random):
    """Chance that must not be asked."""

    def random(self):
        raise AssertionError

    def getrandbits(self, k):
        raise AssertionError


# --- Eq. 5 and 7 ---------------------------------------------------------------------------------


def test_dual_scores_by_hand():
    """Gaps 0.25, 0.5, -0.125 (clipped) and 0."""
    assert dual_scores([0.75, 1.0, 0.5, 0.5], [0.5, 0.5, 0.625, 0.5]) == [0.5, 1.0, 0.0, 0.0]


def test_final_scores_by_hand():
    assert final_scores([0.5, 1.0, 0.25], [1.0, 0.5, 0.0]) == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("large", [[0.5, 0.75], [0.75, 1.5]])
def test_without_a_positive_gap_all_dual_scores_are_zero(large):
    assert dual_scores([0.5, 0.75], large) == [0.0, 0.0]


def test_no_candidates_no_scores():
    assert dual_scores([], []) == [] and final_scores([], []) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e308), st.floats(0, 1e308)), max_size=8))
def test_dual_scores_lie_within_0_and_1_and_the_largest_gap_has_1(pairs):
    small, large = [one for one, _ in pairs], [other for _, other in pairs]
    scores = dual_scores(small, large)
    assert len(scores) == len(pairs) and all(0 <= score <= 1 for score in scores)
    if any(one > other for one, other in pairs):
        assert max(scores) == 1.0 == scores[max(range(len(pairs)), key=lambda at: small[at] - large[at])]
    else:
        assert set(scores) <= {0.0}


@pytest.mark.parametrize("bad", [NAN, math.inf, -0.1])
def test_ifd_that_is_no_ratio_of_perplexities_is_refused(bad):
    for small, large in (([0.5, bad], [0.5, 0.5]), ([0.5, 0.5], [bad, 0.5])):
        with pytest.raises(ValueError, match="no ratio"):
            dual_scores(small, large)


@pytest.mark.parametrize("bad", [NAN, -0.1, 1.1])
def test_scores_outside_0_to_1_are_refused(bad):
    with pytest.raises(ValueError, match="not within"):
        final_scores([bad], [1.0])
    with pytest.raises(ValueError, match="not within"):
        final_scores([1.0], [bad])
    with pytest.raises(ValueError, match="not within"):
        choose([0.5, bad], Random(0), base_competes=False)


def test_a_missing_score_is_refused():
    with pytest.raises(ValueError):
        dual_scores([0.5, 0.5], [0.5])
    with pytest.raises(ValueError):
        final_scores([0.5], [0.5, 1.0])
    with pytest.raises(ValueError, match="needs a score"):
        choose([], Random(0), base_competes=True)


# --- the choice ----------------------------------------------------------------------------------


def test_the_best_candidate_is_chosen_without_chance():
    assert choose([0.25, 0.75, 0.5], Untouched(), base_competes=False) == Choice(1, 0.75, 1)


@pytest.mark.parametrize("finals", [[], [0.0], [0.0, 0.0]])
def test_the_base_sample_is_kept_where_all_is_zero(finals):
    assert choose(finals, Untouched(), base_competes=False) == Choice(None, 0.0)
    assert choose([*finals, 0.0], Untouched(), base_competes=True) == Choice(None, 0.0)


def test_a_base_sample_that_competes_is_beaten_only_by_more():
    """The largest gap is the base sample's: 0.5 x 1.0."""
    dual = dual_scores([0.75, 0.625, 1.0], [0.5, 0.5, 0.5])
    finals = final_scores(dual, [1.0, 1.0, BASE_JUDGED])
    assert finals == [0.5, 0.25, 0.5]
    assert choose(finals, Untouched(), base_competes=True) == Choice(None, 0.5)
    assert choose([0.51, 0.25, 0.5], Untouched(), base_competes=True) == Choice(0, 0.51, 1)
    assert choose([0.49, 0.25, 0.5], Untouched(), base_competes=True) == Choice(None, 0.5)
    assert choose(finals[:-1], Untouched(), base_competes=False) == Choice(0, 0.5, 1)


def test_ties_favour_no_place():
    """Chi-square with 2 degrees of freedom; 13.8 is exceeded once in a thousand."""
    rng = Random(1)
    chosen = [choose([0.5, 0.25, 0.5, 0.5, 0.1], rng, base_competes=True) for _ in range(6000)]
    assert {(choice.score, choice.tied) for choice in chosen} == {(0.5, 3)}
    counts = Counter(choice.index for choice in chosen)
    assert set(counts) == {0, 2, 3}
    assert sum((count - 2000) ** 2 / 2000 for count in counts.values()) < 13.8


# --- Eq. 8 ---------------------------------------------------------------------------------------


def three(**more) -> Evolution:
    """Beta is 0.25: rate 1 over 4 seeds."""
    return Evolution(["a", "b", "c"], seeds=4, rate=1.0, probabilities=[0.5, 0.25, 0.25], **{"floor": 0, **more})


def test_eq_8_by_hand():
    """p_b becomes 0.25 + 0.25 x 0.5 = 0.375, the sum 1.125; then p_a 4/9 + 0.25, the sum 1.25."""
    evolution = three()
    evolution.learn({"b": 0.5}, "b")
    assert evolution.probabilities == pytest.approx({"a": 4 / 9, "b": 3 / 9, "c": 2 / 9}, abs=1e-15)
    evolution.learn({"a": 1.0}, "a")
    expected = {"a": (4 / 9 + 0.25) / 1.25, "b": 3 / 9 / 1.25, "c": 2 / 9 / 1.25}
    assert evolution.probabilities == pytest.approx(expected, abs=1e-15)


def test_the_floor_by_hand():
    """c would fall to 2/9 and is held at 0.24; a and b share 0.76 as 4 to 3."""
    evolution = three(floor=0.24)
    evolution.learn({"b": 0.5}, "b")
    assert evolution.probabilities == pytest.approx({"a": 0.76 * 4 / 7, "b": 0.76 * 3 / 7, "c": 0.24}, abs=1e-15)
    assert evolution.probabilities["c"] == 0.24


def test_raising_one_may_push_another_below():
    """a is raised first; what is left for b, 0.7 x 0.4 / 0.95, is then below the floor, and c gets what both leave."""
    assert lifted({"a": 0.05, "b": 0.4, "c": 0.55}, 0.3) == pytest.approx({"a": 0.3, "b": 0.3, "c": 0.4})


def test_winner_only_rewards_the_winner_and_nobody_where_the_base_sample_is_kept():
    evolution, other = three(), three()
    evolution.learn({"a": 0.25, "b": 0.5}, "b")
    other.learn({"b": 0.5}, "b")
    assert evolution.probabilities == other.probabilities
    evolution.learn({"a": 0.25, "c": 0.5}, None)
    assert evolution.probabilities == other.probabilities


def test_all_of_a_seed_are_rewarded_at_once():
    """a + 0.0625, b + 0.125: the sum is 1.1875, and the order of the pairs does not count."""
    for scores in ({"a": 0.25, "b": 0.5}, {"b": 0.5, "a": 0.25, "c": 0.0}):
        for winner in ("b", None):
            evolution = three(update="all")
            evolution.learn(scores, winner)
            assert list(evolution.probabilities.values()) == [0.5625 / 1.1875, 0.375 / 1.1875, 0.25 / 1.1875]


@pytest.mark.parametrize("score", [0.0, -0.5, -math.inf, 5e-324])
def test_nothing_gained_moves_no_bit(score):
    evolution = Evolution(NAMES[:3], seeds=10, probabilities=[0.1, 0.2, 0.7000000000000001])
    before = evolution.probabilities
    evolution.learn({"a": score}, "a")
    assert evolution.probabilities == before


def test_wrong_rewards_are_refused():
    evolution = three(update="all")
    for pair, score in (("d", 0.5), ("a", 1.01), ("a", NAN)):
        with pytest.raises(ValueError, match="score of"):
            evolution.learn({pair: score}, pair)
        with pytest.raises(ValueError):
            evolution.learn({"b": 0.5, pair: score}, None)
    with pytest.raises(ValueError, match="no score"):
        evolution.learn({"b": 0.5}, "a")
    assert evolution.probabilities == three(update="all").probabilities


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": []},
        {"pairs": ["a", "b", "a"]},
        {"seeds": 0},
        {"rate": -1.0},
        {"rate": NAN},
        {"rate": math.inf},
        {"floor": 0.34},
        {"floor": -0.01},
        {"floor": NAN},
        {"update": "best"},
        {"probabilities": [0.5, 0.5]},
        {"probabilities": [0.5, 0.25, 0.2500001]},
        {"probabilities": [0.5, 0.495, 0.005]},
        {"probabilities": [1.5, -0.5, 0.0], "floor": 0},
        {"probabilities": [0.5, 0.5, NAN]},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Evolution(**{"pairs": ["a", "b", "c"], "seeds": 4, **wrong})


@st.composite
def evolutions(draw) -> Evolution:
    count = draw(st.integers(1, 12))
    floor = draw(st.sampled_from([0, 0.01, 0.5 / count, 1 / count]) | st.floats(0, 1 / count))
    assume(floor <= 1 / count)
    return Evolution(
        NAMES[:count],
        seeds=draw(st.integers(1, 100_000)),
        rate=draw(st.sampled_from([0, 6.0, 1e6]) | st.floats(0, 1e5)),
        floor=floor,
        update=draw(st.sampled_from(["winner", "all"])),
    )


@settings(deadline=None)
@given(evolutions(), st.data())
def test_what_always_holds(evolution, data):
    for _ in range(data.draw(st.integers(1, 15))):
        drawn = evolution.draw(data.draw(st.integers(0, 13)), Random(data.draw(st.integers(0, 9))))
        scores = {pair: data.draw(shares) for pair in drawn}
        before = evolution.probabilities
        evolution.learn(scores, max(drawn, key=scores.__getitem__, default=None))
        p = evolution.probabilities
        assert list(p) == list(before)
        assert abs(math.fsum(p.values()) - 1) < 1e-12
        assert all(evolution.floor <= share <= 1 + 1e-12 for share in p.values())
        if evolution.update == "winner" and drawn:
            best = max(drawn, key=scores.__getitem__)
            assert p[best] >= before[best] - 1e-15
        elif not drawn:
            assert p == before


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12), shares)
def test_lifted_keeps_the_sum_the_floor_and_the_proportions(weights, share):
    total = math.fsum(weights)
    p = {name: weight / total for name, weight in zip(NAMES, weights, strict=False)}
    floor = share / len(p)
    found = lifted(p, floor)
    assert abs(math.fsum(found.values()) - 1) < 1e-12 and min(found.values()) >= floor
    free = [found[name] / p[name] for name in p if found[name] > floor * (1 + 1e-9)]
    assert not free or max(free) == pytest.approx(min(free), rel=1e-9)
    assert all(found[name] == pytest.approx(floor) for name in p if p[name] < floor)
    assert lifted(found, floor) == found


def test_rate_means_the_same_for_every_number_of_seeds():
    """The same reward to the same pair for every seed: 1 - p shrinks by exp(-rate), almost, for many or few seeds."""
    for seeds in (2_000, 20_000):
        evolution = Evolution(NAMES[:10], seeds=seeds, rate=2.0, floor=0)
        for _ in range(seeds):
            evolution.learn({"a": 1.0}, "a")
        assert 1 - evolution.probabilities["a"] == pytest.approx(0.9 * math.exp(-2), rel=2e-3)


# --- drawing -------------------------------------------------------------------------------------

EIGHTHS = {"a": Fraction(1, 2), "b": Fraction(1, 4), "c": Fraction(1, 8), "d": Fraction(1, 8)}


def of_eighths() -> Evolution:
    return Evolution(list(EIGHTHS), seeds=1, probabilities=[float(p) for p in EIGHTHS.values()])


def exactly(order, p) -> Fraction:
    """The probability of drawing these, one after the other, without replacement."""
    found, left = Fraction(1), sum(p.values())
    for name in order:
        found, left = found * p[name] / left, left - p[name]
    return found


def chi_square(counts: Counter, expected: dict) -> float:
    total = counts.total()
    assert sum(expected.values()) == 1 and set(counts) <= set(expected)
    return sum((counts[key] - total * float(p)) ** 2 / (total * float(p)) for key, p in expected.items())


@pytest.mark.parametrize(("m", "limit"), [(1, 16.3), (2, 31.3), (3, 49.7)])
def test_draws_have_the_exact_probabilities(m, limit):
    """In their order, 4, 12 and 24 outcomes; each limit is exceeded once in a thousand."""
    evolution, rng = of_eighths(), Random(m)
    counts = Counter(tuple(evolution.draw(m, rng)) for _ in range(20_000))
    expected = {order: exactly(order, EIGHTHS) for order in itertools.permutations(EIGHTHS, m)}
    assert chi_square(counts, expected) < limit


def test_draws_from_the_neighbourhood_have_the_exact_probabilities():
    """One of b and c by 2 to 1, then two of a and d in either order by 4 to 1: 4 outcomes, 3 degrees of freedom."""
    evolution, rng = of_eighths(), Random(5)
    counts = Counter(tuple(evolution.draw(3, rng, ["c", "b", "c"], 1)) for _ in range(20_000))
    near, far = ({name: EIGHTHS[name] for name in names} for names in ("bc", "ad"))
    expected = {
        (one, *rest): exactly([one], near) * exactly(rest, far) for one in near for rest in itertools.permutations(far)
    }
    assert chi_square(counts, expected) < 16.3


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 14), st.sets(st.sampled_from(NAMES)), st.integers(0, 14), st.integers())
def test_draws_are_different_and_as_many_near_ones_as_asked_for(count, m, near, from_near, seed):
    evolution = Evolution(NAMES[:count], seeds=1)
    near &= set(evolution.probabilities)
    drawn = evolution.draw(m, Random(seed), sorted(near) * 2, from_near)
    assert len(drawn) == len(set(drawn)) == min(m, count) and set(drawn) <= set(evolution.probabilities)
    if from_near:
        wanted = min(from_near, m, len(near))
        filled = max(0, min(m, count) - wanted - (count - len(near)))  # too few pairs outside
        assert len(near & set(drawn)) == wanted + filled
        assert near >= set(drawn[:wanted])
    else:
        assert drawn == evolution.draw(m, Random(seed))


def test_draws_need_no_chance_of_their_own():
    evolution = of_eighths()
    first = [evolution.draw(2, Random(number)) for number in range(50)]
    assert first == [evolution.draw(2, Random(number)) for number in range(50)]
    assert len({tuple(drawn) for drawn in first}) > 3


def test_a_pair_without_probability_comes_after_all_others():
    evolution = Evolution(NAMES[:5], seeds=1, floor=0, probabilities=[0, 1e-12, 0, 1.0, 0])
    last = set()
    for number in range(60):
        drawn = evolution.draw(5, Random(number))
        assert set(drawn[:2]) == {"b", "d"}
        last.add(drawn[2])
    assert last == {"a", "c", "e"}


def test_unknown_neighbours_are_refused():
    with pytest.raises(ValueError, match="'z'"):
        of_eighths().draw(2, Random(0), ["a", "z"], 1)


# --- a run: stopped, in batches ------------------------------------------------------------------


def go(evolution: Evolution, seeds, batch: int = 1, order=list) -> list[list[str]]:
    """Draw for each of `seeds`, and learn after every `batch` of them, in this order of the batch."""
    drawn, waiting = [], []
    for seed in seeds:
        rng = Random(f"seed {seed}")
        drawn.append(evolution.draw(3, rng))
        finals = [rng.random() * (1 + NAMES.index(pair)) / len(NAMES) for pair in drawn[-1]]
        choice = choose(finals, rng, base_competes=False)
        waiting.append((dict(zip(drawn[-1], finals, strict=True)), drawn[-1][choice.index]))
        if len(waiting) == batch:
            for scores, winner in order(waiting):
                evolution.learn(scores, winner)
            waiting = []
    return drawn


def test_probabilities_are_a_copy():
    evolution = of_eighths()
    evolution.probabilities["a"] = 0.0
    assert evolution.probabilities["a"] == 0.5


def test_a_batch_draws_by_what_was_learned_before_it():
    """A batch of 1 is what the paper does; a batch of all seeds is uniform drawing; what is between differs."""
    runs = {batch: Evolution(NAMES, seeds=240, rate=24.0) for batch in (1, 8, 240)}
    drawn = {batch: go(evolution, range(240), batch) for batch, evolution in runs.items()}
    by_hand = Evolution(NAMES, seeds=240, rate=24.0)
    for seed in range(240):
        assert go(by_hand, [seed]) == [drawn[1][seed]]
    assert by_hand.probabilities == runs[1].probabilities
    assert drawn[240] == go(Evolution(NAMES, seeds=240, rate=0), range(240))
    assert drawn[8] != drawn[1] and drawn[8][:8] == drawn[240][:8] != drawn[8][-8:]


def test_order_within_a_batch_changes_little_and_the_same_order_nothing():
    """Two rewards exchanged differ by beta squared: 0.01 x 0.01 here, and the floats differ."""
    found = []
    for order in (["a", "b"], ["b", "a"], ["a", "b"]):
        evolution = Evolution(NAMES[:4], seeds=100, rate=1.0)
        for pair in order:
            evolution.learn({pair: 1.0}, pair)
        found.append(evolution.probabilities)
    assert found[0] == found[2] != found[1]
    assert max(abs(found[0][pair] - found[1][pair]) for pair in found[0]) < 1.1e-4
    assert found[0]["b"] > found[0]["a"] and found[1]["a"] > found[1]["b"]  # the later one shrinks less


def test_the_better_pair_is_drawn_more_often_in_the_end():
    evolution = Evolution(NAMES, seeds=3000)
    go(evolution, range(3000))
    p = list(evolution.probabilities.values())
    assert p[-1] > 0.25 and p[0] == evolution.floor == 0.01
    assert p[-1] > p[-2] > p[-4] > p[-6] > p[1]


# --- the memory bank -----------------------------------------------------------------------------


def unit(rng: np.random.Generator, rows: int, dimensions: int = 384) -> np.ndarray:
    drawn = rng.standard_normal((rows, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def filled(vectors, threshold: float = 0.5) -> MemoryBank:
    """The pair of the 7th vector is `7`."""
    bank = MemoryBank(threshold)
    for number, vector in enumerate(vectors):
        assert bank.add(f"s{number}", vector, str(number), 1.0)
    return bank


def test_the_nearest_by_cosine_as_float64_has_them():
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 3000), unit(rng, 40)
    bank = filled(vectors)
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    expected = [[str(row) for row in np.argsort(-cosine, kind="stable")[:10]] for cosine in exact]
    assert bank.near_each(queries, 10) == expected
    assert [bank.near(query, 10) for query in queries] == expected


def test_neighbours_closer_than_float32_can_tell_are_told_apart():
    """Cosines with the query within 1e-7 of each other, which float32 puts into another order."""
    rng = np.random.default_rng(2)
    for query in unit(rng, 5):
        vectors = query + (2e-8 * rng.standard_normal((500, 384))).astype(np.float32)
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        nearest = [int(row) for row in np.argsort(-exact)[:10]]
        assert set(nearest) != {int(row) for row in np.argsort(-(vectors @ query), kind="stable")[:10]}
        assert filled(vectors).near(query, 10) == [str(row) for row in nearest]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 12), st.integers(0, 1000))
def test_ties_go_to_the_earlier(count, n, seed):
    """Few directions in the plane, so that most vectors have copies."""
    angles = np.random.default_rng(seed).integers(0, 5, count + 3)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    bank = filled(vectors[3:])
    for query in vectors[:3]:
        cosine = [float(np.float64(vector) @ np.float64(query)) for vector in vectors[3:]]
        expected = sorted(range(count), key=lambda row: (-round(cosine[row], 9), row))[:n]
        assert bank.near(query, n) == [str(row) for row in expected]


def test_copies_of_real_width_are_tied_wherever_they_lie(monkeypatch):
    """A matrix product may round the same row differently in another place; neighbours must not show it."""
    rng = np.random.default_rng(3)
    few = unit(rng, 5)
    places = rng.integers(0, 5, 999)
    queries = unit(rng, 33)
    expected = []
    for query in queries.astype(np.float64):
        nearest = np.argsort(-(few.astype(np.float64) @ query))
        expected.append([str(row) for one in nearest for row in np.flatnonzero(places == one)][:250])
    for block_bytes in (bank_module.BLOCK_BYTES, 4 * 999 * 7, 1):
        monkeypatch.setattr(bank_module, "BLOCK_BYTES", block_bytes)
        assert filled(few[places]).near_each(queries, 250) == expected


def test_only_seeds_that_reach_the_threshold_are_kept():
    bank = MemoryBank(0.5)
    vectors = np.eye(4, dtype=np.float32)
    assert [bank.add(f"s{row}", vectors[row], f"p{row}", score) for row, score in enumerate((0.49, 0.5, 0.0, 1.0))] == [
        False,
        True,
        False,
        True,
    ]
    assert len(bank) == 2 and bank.near(vectors[0], 9) == ["p1", "p3"] and bank.near(vectors[3], 1) == ["p3"]
    assert MemoryBank(0).add("s", vectors[0], "p", 0.0)


def test_an_empty_bank_has_no_neighbours():
    vectors = np.eye(3, dtype=np.float32)
    assert MemoryBank().near(vectors[0], 5) == [] and MemoryBank().near_each(vectors, 5) == [[], [], []]
    assert filled(vectors).near_each(vectors[:0], 5) == [] and filled(vectors).near(vectors[0], 0) == []


def test_a_pair_is_named_once_for_each_neighbour():
    bank = MemoryBank()
    for row in range(3):
        bank.add(f"s{row}", np.eye(3, dtype=np.float32)[row], "same" if row else "first", 1.0)
    assert bank.near(np.eye(3, dtype=np.float32)[2], 3) == ["same", "first", "same"]


@pytest.mark.parametrize("vector", [[1.0, 1.0], [0.0, 0.0], [NAN, 1.0], [1.0], [1.0, 0.0, 0.0]])
def test_wrong_vectors_are_refused(vector):
    bank = filled(np.eye(2, dtype=np.float32))
    wrong = np.array(vector, np.float32)
    with pytest.raises(ValueError):
        bank.add("new", wrong, "p", 1.0)
    with pytest.raises(ValueError):
        bank.near(wrong, 1)
    assert len(bank) == 2 and bank.add("new", np.array([1.0, 0.0], np.float32), "p", 1.0)


def test_wrong_seeds_and_scores_are_refused():
    bank, vector = filled(np.eye(2, dtype=np.float32)), np.array([1.0, 0.0], np.float32)
    with pytest.raises(ValueError, match="s1 is in the memory bank"):
        bank.add("s1", vector, "p", 1.0)
    with pytest.raises(ValueError, match="not a number"):
        bank.add("s2", vector, "p", NAN)
    with pytest.raises(ValueError):
        MemoryBank(NAN)


def test_what_is_given_later_changes_nothing_kept():
    """An array that was added is not held."""
    vectors = np.eye(2, dtype=np.float32)
    bank = filled(vectors)
    vectors[:] = vectors[::-1].copy()
    query = np.array([1.0, 0.0], np.float32)
    assert bank.near(query, 1) == ["0"]
