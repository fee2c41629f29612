"""Near-duplicates: what counts as one, against a comparison of all pairs."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boost_qa.checks.duplicates import LABELS, LEAST, Duplicates, Seen, bands
from boost_qa.checks.finding import Finding
from boost_qa.checks.words import END, SIGNS, tokens, words
from boost_qa.types import Dialogue, Record, Turn

STORY = (
    "Julia played tag with 16 kids on monday after school. If she played tag with 12 more kids on monday than on "
    "tuesday, and her brother watched them from the old garden wall, how many kids did she play with on tuesday?"
)
ESSAY = (
    "Explain how the harbour of a small town on the coast changed while the railway was built, and why the people "
    "who lived there before did not want the trains to stop near the old market."
)


def record(question: str, id: str = "") -> Record:
    return Record(id or f"s:{question}", "s", question, "an answer", "")


def dialogue(question: str, *said: str, scenario: str = "debate", id: str = "", related: Record | None = None):
    sides = itertools.cycle(["gpt", "human"])
    turns = [
        Turn("question", "human", question),
        *(Turn("student", side, text) for side, text in zip(sides, said, strict=False)),
    ]
    return Dialogue(record(question, id), scenario, tuple(turns), related)


def labels(findings: list[Finding]) -> list[str]:
    assert all(finding.label in LABELS for finding in findings)
    return [finding.label for finding in findings]


def same_question(first: str, second: str, threshold: float = 0.8) -> bool:
    check = Duplicates(threshold)
    assert not check.look(dialogue(first, id="s:first"))
    return "same question" in labels(check.look(dialogue(second, id="s:second")))


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It costs $1,234,567.50", "it costs 1234567.5"),
        ("1{,}000 and 1\\,000 and 1,\\!000", "1000 and 1000 and 1000.00"),
        ("007 and 2.0 and 0.50", "7 and 2 and .5"),
        ("1,2345 and 12,34", "1 2345 and 12 34"),
        ("ＦＵＬＬ width １２", "full width 12"),
        ("don\u2019t", "DON'T"),
        ("x² − 3·x ÷ 2 ≥ ½", "$x^2 - 3\\times x \\div 2 \\geq \\frac{1}{2}$"),
        ("√2 ≠ π", "\\sqrt{2} \\neq \\pi"),
        ("an angle of 90°", "an angle of $90^{\\circ}$"),
        ("\\begin{align*} \\left( \\mathbf{v} \\right) \\end{align*}", "(v)"),
        ("5cm", "5 cm"),
        ("東京 2020", "東 京 2020"),
    ],
)
def test_forms_of_the_same_text_are_the_same_words(one, other):
    assert tokens(one) == tokens(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 + 3", "5 - 3"), ("2.5", "25"), ("1,23", "123"), ("x < 3", "x <= 3"), ("10²", "102"), ("50%", "50"),
        ("\\sin", "\\cos"),
    ],
)  # fmt: skip
def test_what_means_something_else_is_something_else(one, other):
    assert [token for token in tokens(one) if token != END] != [token for token in tokens(other) if token != END]


def test_hyphens_and_stars_are_signs_in_formulas_only():
    assert words(tokens("- a well-known **bold** item\n* another - dash")) == [
        *"a well known bold item another dash".split()
    ]
    assert not SIGNS & set(tokens("a well-known **bold** item")) and "*" in tokens("2*x") and "-" in tokens("3 - x")


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_words_of_any_text_are_words(text):
    found = tokens(text)
    assert all(token in SIGNS or (token and not set(token) & set(" \n|'")) for token in found)
    assert words(tokens(" ".join(words(found)))) == words(found)  # nothing is taken apart twice
    " ".join(found).encode()  # no lone surrogate is a word


# --- questions -----------------------------------------------------------------------------------


def test_one_that_is_nearly_the_same_is_found_and_named():
    check = Duplicates()
    assert not check.look(dialogue(STORY, id="s:first"))
    again = STORY.replace("old garden wall", "garden wall").upper()
    found = check.look(dialogue(again, id="s:second"))
    one, other = ([t for t in tokens(text) if t != END] for text in (STORY, again))
    runs = [
        {tuple(p[i : i + 3]) for i in range(len(p) - 2)} for p in (["", "", *text, "", ""] for text in (one, other))
    ]
    jaccard = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    assert found == [Finding("same question", 0, f"s:second is like s:first, Jaccard {jaccard:.3f}")]


@pytest.mark.parametrize(
    ("what", "instead"),
    [("16", "19"), ("12", "twelve hundred"), ("12 more", "12 fewer"), ("with 16", "with 1.6"), ("16 kids", "-16 kids")],
)
def test_numbers_and_what_is_asked_of_them_count(what, instead):
    assert what in STORY and not same_question(STORY, STORY.replace(what, instead))


def test_numbers_in_another_place_are_another_question():
    swapped = STORY.replace("16", "x").replace("12", "16").replace("x", "12")
    assert sorted(tokens(swapped)) == sorted(tokens(STORY)) and not same_question(STORY, swapped)


def test_numbers_in_words_are_numbers():
    assert not same_question(STORY.replace("16", "six"), STORY.replace("16", "nine"))
    assert same_question(STORY.replace("16", "sixteen"), STORY, 0.7)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Calculate 5 + 3.", "Calculate 5 - 3."),
        ("Given that 3A5-2B=364 holds, which number is A?", "Given that 3A5-2B=364 holds, which number is B?"),
        ("Write a function to find the area of a sphere.", "Write a function to find the area of a cube."),
        ("What is the second largest number?", "What is the second smallest number?"),
        ("東京はどこにありますか", "京都はどこにありますか"),
    ],
)  # fmt: skip
def test_short_questions_of_one_form_are_different(one, other):
    assert not same_question(one, other)


def test_the_threshold_is_met_exactly():
    """Ten different words have 12 runs; two words less, at the end, leave 8 of 14 in both."""
    base = [f"{word}word" for word in "abcdefghij"]
    one, other = " ".join(base), " ".join(base[:-2])
    assert same_question(one, other, 8 / 14) and not same_question(one, other, 8 / 14 + 1e-9)


def test_the_same_record_in_another_scenario_is_no_duplicate():
    check = Duplicates()
    assert not check.look(dialogue(STORY, id="s:1", scenario="debate"))
    assert not check.look(dialogue(STORY, id="s:1", scenario="error_correction"))
    assert labels(check.look(dialogue(STORY, id="s:2"))) == ["same question"]
    assert labels(check.look(dialogue(STORY, id="s:2", scenario="error_correction"))) == ["same question"]


def test_both_records_of_an_analogy_are_compared():
    check = Duplicates()
    similar = record("How many legs have seven hens and two foxes in the yard?", "s:hens")
    first = dialogue(STORY, "", f"Now this: {similar.question}", id="s:1", related=similar)
    assert not check.look(first)
    assert not check.look(dialogue(similar.question, id="s:hens"))  # it is the record itself
    found = check.look(
        dialogue(ESSAY, "", f"Now: {similar.question}", id="s:3", related=record(similar.question, "s:4"))
    )
    assert found == [Finding("same question", 2, "s:4 is like s:hens, Jaccard 1.000")]


def test_an_analogy_with_itself_is_a_duplicate():
    found = Duplicates().look(dialogue(STORY, id="s:1", related=record(STORY.upper(), "s:2")))
    assert found == [Finding("same question", None, "s:2 is like s:1, Jaccard 1.000")]


LETTERS = [f"{letter}word" for letter in "abcdefghijklmnopqrstuvwxyz"]


def test_a_duplicate_does_not_stand_for_the_first():
    """C is like B, and B like A; but C is not like A, which is the one that stays."""
    a, b, c = (" ".join(LETTERS[:size]) for size in (26, 25, 24))
    assert same_question(a, b, 0.81) and same_question(b, c, 0.81) and not same_question(a, c, 0.81)
    check = Duplicates(0.81)
    found = [labels(check.look(dialogue(text, id=f"s:{n}"))) for n, text in enumerate((a, b, c))]
    assert found == [[], ["same question"], []]


def test_the_nearest_is_named():
    seen = Seen(0.81, lambda text: [])
    assert seen.look("far", LETTERS) is None and seen.look("near", LETTERS[:-2]) is None
    assert seen.look("new", LETTERS[:-3]) == ("near", 23 / 28)


def test_of_those_that_are_equally_near_the_first_is_named():
    one, other = ([*LETTERS[:at], "instead", *LETTERS[at + 1 :]] for at in (5, 15))
    for first, second in ((one, other), (other, one)):
        seen = Seen(0.8, lambda text: [])
        assert seen.look("first", first) is None and seen.look("second", second) is None
        assert seen.look("new", LETTERS) == ("first", 25 / 31)


@pytest.mark.parametrize("question", ["", "???", "\n", "🙂", "\ud800"])
def test_texts_without_words_are_like_none(question):
    check = Duplicates()
    assert not check.look(dialogue(question, id="s:1")) and not check.look(dialogue(question, id="s:2"))


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_thresholds_out_of_bounds_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        Duplicates(threshold)


# --- what was said -------------------------------------------------------------------------------

SAID = "She played with 16 kids on monday, which is 12 more than on tuesday, so take 12 away from 16: 4 kids are left."


def test_the_same_said_about_different_questions_is_found():
    check = Duplicates()
    assert not check.look(dialogue(STORY, SAID, id="s:1"))
    found = check.look(dialogue(ESSAY, SAID.replace(",", ";").upper(), id="s:2"))
    assert labels(found) == ["same dialogue"] and "s:1 (debate)" in found[0].detail and found[0].turn is None


def test_the_question_alone_makes_no_dialogue_the_same():
    """Nor where turns hold the question, as those of an analogy do."""
    check = Duplicates()
    similar = record(ESSAY, "s:2")
    said = [
        "First think of what is left when the younger ones go home, and write it down with a pencil on some paper.",
        "Let me draw all the people as dots, strike out those that were not there, and count whatever remains now.",
    ]
    for scenario, text in zip(("debate", "analogical_reasoning"), said, strict=True):
        turns = (Turn("teacher", "human", STORY + text), Turn("question", "human", "Now: " + ESSAY))
        assert not check.look(Dialogue(record(STORY, "s:1"), scenario, turns, similar))


def test_another_number_makes_another_dialogue_and_a_repeated_one_does_not():
    check = Duplicates()
    check.look(dialogue(STORY, SAID * 3, id="s:1"))
    assert not check.look(dialogue(ESSAY, SAID * 2 + SAID.replace("4 kids", "5 kids"), id="s:2"))
    assert check.look(dialogue("Why?", SAID * 3 + " 16 again", id="s:3"))


@pytest.mark.parametrize(("count", "found"), [(LEAST - 1, []), (LEAST, ["same dialogue"])])
def test_short_answers_are_not_compared(count, found):
    said = " ".join(f"word{'x' * n}" for n in range(count))
    check = Duplicates()
    check.look(dialogue(STORY, said, id="s:1"))
    assert labels(check.look(dialogue(ESSAY, said, id="s:2"))) == found


# --- against all pairs ---------------------------------------------------------------------------


def variants(seed: int, count: int) -> list[list[str]]:
    """Texts of which many are edited from earlier ones, so that similarities of every size occur."""
    draw = random.Random(seed)
    vocabulary = [f"{a}{b}x" for a in "bcdfgklm" for b in "aeiou"]
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and draw.random() < 0.7:
            text = list(draw.choice(texts))
            for _ in range(draw.randint(0, 4)):
                text[draw.randrange(len(text))] = draw.choice(vocabulary)
        else:
            text = [draw.choice(vocabulary) for _ in range(draw.randint(5, 60))]
        texts.append(text)
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_all_pairs_are_found_and_no_others(threshold):
    texts = variants(3, 700)
    seen, kept = Seen(threshold, lambda text: []), []
    found = missed = 0
    for number, text in enumerate(texts):
        padded = ["", "", *text, "", ""]
        runs = {tuple(padded[at : at + 3]) for at in range(len(padded) - 2)}
        exact = [(len(runs & other) / len(runs | other), name) for name, other in kept]
        best = max((jaccard for jaccard, _ in exact), default=0)
        alike = seen.look(str(number), text)
        if alike is None:
            missed += best >= threshold
            kept.append((str(number), runs))
        else:
            found += 1
            assert alike.jaccard == pytest.approx(best) and best >= threshold
            assert alike.name == next(name for jaccard, name in exact if jaccard == best)
    assert missed == 0 and found > 30


def test_few_bands_miss_few():
    assert [bands(threshold) for threshold in (0.01, 0.5, 0.8, 1.0)] == [120, 60, 24, 1]
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        count = bands(threshold)
        assert (1 - threshold ** (120 // count)) ** count <= 1e-4 or count == 120


def test_the_same_in_every_process():
    """Whatever Python's hashes of strings are."""
    code = (
        "import json, sys\n"
        "from boost_qa.checks.duplicates import Seen\n"
        "seen = Seen(0.6, lambda text: [])\n"
        "print(json.dumps([seen.look(str(n), text) for n, text in enumerate(json.load(sys.stdin))]))"
    )
    texts, seen = variants(5, 300), Seen(0.6, lambda text: [])
    here = [seen.look(str(n), text) for n, text in enumerate(texts)]
    there = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, input=json.dumps(texts),
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
    ).stdout  # fmt: skip
    assert there.strip() == json.dumps(here) and sum(alike is not None for alike in here) > 20


# --- real rows, where there are some -------------------------------------------------------------


@pytest.mark.skipif("BOOST_QA_REAL_DATA" not in os.environ, reason="BOOST_QA_REAL_DATA names no folder of real rows")
def test_real_word_problems_are_different_questions():
    folder = Path(os.environ["BOOST_QA_REAL_DATA"])
    check = Duplicates()
    files = sorted(folder.glob("orca_math_like.*[0-9].jsonl"))
    assert files
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            assert not check.look(dialogue(row["question"], row["answer"], id=f"{file.name}:{number}"))
