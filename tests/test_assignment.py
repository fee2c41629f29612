"""Who is taught what: shares, sources, the number of dialogues, and that the order of the rows does not matter."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boost_qa.scenarios.assignment import assign
from boost_qa.types import Record

THIRDS = {"error_correction": 1.0, "debate": 1.0, "analogical_reasoning": 1.0}
SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1)
SHARES = st.dictionaries(st.sampled_from(list(THIRDS)), st.sampled_from([0.5, 1.0, 1.5, 2.0, 7.0]), min_size=1)


def records(sizes: dict[str, int]) -> list[Record]:
    return [
        Record(f"{source}:{n}", source, f"q{n}", "a", str(n)) for source, size in sizes.items() for n in range(size)
    ]


def counts(pairs) -> Counter[str]:
    return Counter(scenario for _, scenario in pairs)


def by_source(pairs) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for record, scenario in pairs:
        found.setdefault(record.source, Counter())[scenario] += 1
    return found


# --- shares --------------------------------------------------------------------------------------


def test_paper_splits_evenly_in_all_and_in_every_source():
    """19,000 records (section 4.2): 6,333 or 6,334 dialogues of each scenario, a third of each source."""
    pairs = assign(records({"orca_math": 5000, "procqa": 5000, "openhermes": 9000}), THIRDS)
    assert sorted(counts(pairs).values()) == [6333, 6333, 6334]
    for source, size in (("orca_math", 5000), ("procqa", 5000), ("openhermes", 9000)):
        assert all(abs(count - size / 3) < 1 for count in by_source(pairs)[source].values())


@given(SIZES, st.integers(0, 3))
def test_equal_shares_differ_by_one_at_most(sizes, seed):
    pairs = assign(records(sizes), THIRDS, seed=seed)
    for found in (counts(pairs), *by_source(pairs).values()):
        each = [found[scenario] for scenario in THIRDS]
        assert max(each) - min(each) <= 1


@given(SIZES, SHARES)
def test_other_shares_are_kept_in_all_and_in_every_source(sizes, shares):
    pairs = assign(records(sizes), shares)
    for found, size in [
        (counts(pairs), sum(sizes.values())),
        *((found, sizes[source]) for source, found in by_source(pairs).items()),
    ]:
        for scenario, share in shares.items():
            assert abs(found[scenario] - size * share / sum(shares.values())) < 2


@given(SIZES, SHARES)
def test_every_record_is_taught_once(sizes, shares):
    pairs = assign(records(sizes), shares)
    assert sorted(record.id for record, _ in pairs) == sorted(record.id for record in records(sizes))
    assert {scenario for _, scenario in pairs} <= set(shares)


def test_only_the_ratio_of_shares_counts():
    rows = records({"a": 50, "b": 31})
    assert assign(rows, {"debate": 1, "error_correction": 3}) == assign(rows, {"debate": 10, "error_correction": 30})
    found = counts(assign(rows, {"debate": 1, "error_correction": 3}))
    assert found == {"debate": 20, "error_correction": 61}


def test_single_scenario_gets_all():
    assert counts(assign(records({"a": 7}), {"debate": 0.1})) == {"debate": 7}


# --- dialogues -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "dialogues", "taught"),
    [
        ({"a": 24, "b": 24, "c": 24}, 36, {"a": 12, "b": 12, "c": 12}),
        ({"a": 24, "b": 24, "c": 24}, 37, {"a": 13, "b": 12, "c": 12}),
        ({"a": 2, "b": 100, "c": 100}, 50, {"a": 2, "b": 24, "c": 24}),
        ({"a": 1, "b": 2, "c": 100}, 9, {"a": 1, "b": 2, "c": 6}),
        ({"a": 5, "b": 5}, 1, {"a": 1}),
        ({"a": 5, "b": 5}, 10, {"a": 5, "b": 5}),
        ({"a": 5, "b": 5}, 99, {"a": 5, "b": 5}),
        ({"a": 5, "b": 5}, None, {"a": 5, "b": 5}),
    ],
)
def test_dialogues_are_spread_over_the_sources(sizes, dialogues, taught):
    pairs = assign(records(sizes), THIRDS, dialogues=dialogues)
    assert Counter(record.source for record, _ in pairs) == taught


@given(SIZES, st.integers(1, 400))
def test_spread_is_as_even_as_the_sizes_allow(sizes, dialogues):
    pairs = assign(records(sizes), THIRDS, dialogues=dialogues)
    taught = Counter(record.source for record, _ in pairs)
    assert taught.total() == min(dialogues, sum(sizes.values()))
    most = max(taught.values())
    assert all(taught[source] >= min(sizes[source], most - 1) for source in sizes)


def test_fewer_dialogues_are_taught_to_the_same_records():
    rows = records({"a": 40, "b": 40})
    few = {record.id for record, _ in assign(rows, THIRDS, dialogues=20)}
    assert few < {record.id for record, _ in assign(rows, THIRDS, dialogues=50)}


# --- what it depends on --------------------------------------------------------------------------


@given(st.permutations(records({"a": 9, "b": 4, "c": 1})), st.sampled_from([None, 5]), st.sampled_from(["one", "all"]))
def test_order_of_the_rows_does_not_matter(rows, dialogues, mode):
    ordered = assign(records({"a": 9, "b": 4, "c": 1}), THIRDS, seed=3, dialogues=dialogues, mode=mode)
    assert assign(rows, THIRDS, seed=3, dialogues=dialogues, mode=mode) == ordered


def test_seed_deals_anew():
    rows = records({"a": 60})
    dealt = [tuple((record.id, scenario) for record, scenario in assign(rows, THIRDS, seed=seed)) for seed in range(5)]
    assert len(set(dealt)) == 5
    assert dealt[0] == tuple((record.id, scenario) for record, scenario in assign(rows, THIRDS, seed=0))


def test_dealing_is_the_same_everywhere():
    """Golden: a change here gives every run other dialogues."""
    pairs = assign(records({"a": 6}), THIRDS, seed=0)
    assert [(record.id, scenario) for record, scenario in pairs] == [
        ("a:5", "error_correction"),
        ("a:2", "debate"),
        ("a:1", "analogical_reasoning"),
        ("a:0", "error_correction"),
        ("a:3", "debate"),
        ("a:4", "analogical_reasoning"),
    ]


# --- all scenarios for each ----------------------------------------------------------------------


def test_mode_all_teaches_every_scenario_to_each():
    rows = records({"a": 5, "b": 3})
    pairs = assign(rows, THIRDS, mode="all")
    assert len(pairs) == len({(record.id, scenario) for record, scenario in pairs}) == 24
    assert counts(pairs) == dict.fromkeys(THIRDS, 8)


def test_mode_all_counts_records_and_ignores_the_sizes_of_shares():
    pairs = assign(records({"a": 5, "b": 3}), {"debate": 5, "error_correction": 0.1}, dialogues=4, mode="all")
    assert counts(pairs) == {"debate": 4, "error_correction": 4}
    assert Counter(record.source for record, _ in pairs) == {"a": 4, "b": 4}
