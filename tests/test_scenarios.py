"""The three lessons, played by hand: who speaks when, as whom, and who is shown the reference answer."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from boost_qa.agents import cast_for, fault, loops
from boost_qa.errors import Rejected
from boost_qa.prompts import Prompt
from boost_qa.recipe_file import load_recipe
from boost_qa.scenarios import SCENARIOS, analogical_reasoning, debate
from boost_qa.types import Dialogue, Record, Reply, Request, Usage

WEAK, MIDDLE, STRONG = (f"Qwen/Qwen2.5-{size}-Instruct" for size in ("0.5B", "7B", "14B"))
RECORD = Record("s:1", "s", "How many legs have two spiders?", "SECRET-ONE sixteen", "1", final="16")
OTHER = Record("s:2", "s", "How many legs have three beetles?", "SECRET-TWO eighteen", "2")
THIRD = Record("s:3", "s", "How many wings have four bees?", "SECRET-THREE sixteen", "3")


@dataclass
class Lesson:
    """A finished lesson: the requests that it made, and its dialogue or the reason why there is none."""

    asked: list[Request] = field(default_factory=list)
    dialogue: Dialogue | None = None
    rejected: Rejected | None = None

    def task(self, place: int) -> str:
        return self.asked[place].messages[-1].content

    def text(self, place: int) -> str:
        return "\n".join(message.content for message in self.asked[place].messages)

    def shown(self, text: str) -> list[int]:
        """The requests in which `text` can be read."""
        return [place for place in range(len(self.asked)) if text in self.text(place)]

    @property
    def turns(self) -> list[tuple[str, str, str]]:
        return [(turn.side, turn.speaker, turn.text) for turn in self.dialogue.turns]


def said(place: int) -> Reply:
    return Reply(f"said-{place}.", prompt_tokens=100 + place, completion_tokens=10 + place)


def play(lesson: Coroutine[Request, Reply, Dialogue], answer: Callable[[int], Reply] = said) -> Lesson:
    """Send replies into a lesson until it ends."""
    played = Lesson()
    try:
        request = lesson.send(None)
        while True:
            assert isinstance(request, Request)
            played.asked.append(request)
            request = lesson.send(answer(len(played.asked) - 1))
    except StopIteration as end:
        played.dialogue = end.value
    except Rejected as why:
        played.rejected = why
    return played


@cache
def cast(scenario: str, *overrides: str):
    return cast_for(load_recipe("paper", overrides), scenario)


def scene(name: str, answer: Callable[[int], Reply] = said, overrides: tuple[str, ...] = (), **extra: Any) -> Lesson:
    if name == "analogical_reasoning":
        extra = {"similar": [OTHER]} | extra
    if name == "debate":
        extra = {"rounds": [1]} | extra
    return play(SCENARIOS[name](RECORD, cast(name, *overrides), random.Random(0), **extra), answer)


def speakers(lesson: Lesson) -> list[tuple[str, float]]:
    return [(request.model, request.sampling.temperature) for request in lesson.asked]


# --- error correction ----------------------------------------------------------------------------


def test_error_correction_speaks_in_order():
    lesson = scene("error_correction")
    assert speakers(lesson) == [(WEAK, 0.8), (STRONG, 0.2), (STRONG, 0.2)]
    assert lesson.turns == [
        ("human", "question", RECORD.question),
        ("gpt", "weak_student", "said-0."),
        ("human", "teacher", "said-1."),
        ("gpt", "strong_student", "said-2."),
    ]
    assert (lesson.dialogue.record, lesson.dialogue.scenario, lesson.dialogue.related) == (
        RECORD,
        "error_correction",
        None,
    )


def test_error_correction_shows_each_what_it_may_see():
    lesson = scene("error_correction")
    assert lesson.shown(RECORD.question) == [0, 1, 2]
    assert lesson.shown("said-0.") == [1, 2]
    assert lesson.shown("said-1.") == [2]
    assert lesson.shown("SECRET-ONE") == [1, 2], "the weak student never sees the reference answer"
    assert cast("error_correction")["weak_student"].prompt.blocks == {"language", "question"}


# --- debate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_debate_speaks_in_order(rounds):
    lesson = scene("debate", rounds=[rounds])
    assert speakers(lesson) == [(MIDDLE, 0.6), (MIDDLE, 0.6)] * rounds + [(STRONG, 0.2)]
    between = [("gpt", "student_a"), ("human", "student_b")] * rounds
    assert [turn[:2] for turn in lesson.turns] == [("human", "question"), *between, ("gpt", "student_c")]
    assert [turn[2] for turn in lesson.turns] == [
        RECORD.question,
        *(f"said-{place}." for place in range(2 * rounds + 1)),
    ]


@pytest.mark.parametrize("rounds", [1, 2])
def test_everybody_in_a_debate_hears_all_that_was_said(rounds):
    lesson = scene("debate", rounds=[rounds])
    assert "Nobody has spoken before you." in lesson.task(0)
    for place in range(1, len(lesson.asked)):
        heard = "\n\n".join(f"Student {'AB'[before % 2]} said:\nsaid-{before}." for before in range(place))
        assert heard in lesson.task(place) and "Nobody has spoken before you." not in lesson.task(place)
        assert lesson.shown(f"said-{place}.") == list(range(place + 1, len(lesson.asked)))
    assert lesson.shown(RECORD.question) == list(range(len(lesson.asked)))


@pytest.mark.parametrize("rounds", [1, 2])
def test_only_the_closing_student_of_a_debate_sees_the_answer(rounds):
    lesson = scene("debate", rounds=[rounds])
    assert lesson.shown("SECRET-ONE") == [2 * rounds]


def test_rounds_are_drawn_evenly_from_the_seed():
    lengths = [len(play(debate(RECORD, cast("debate"), random.Random(seed))).asked) for seed in range(200)]
    assert set(lengths) == {3, 5} and 70 <= lengths.count(3) <= 130
    assert lengths == [len(play(debate(RECORD, cast("debate"), random.Random(seed))).asked) for seed in range(200)]


# --- analogical reasoning ------------------------------------------------------------------------


def test_analogical_reasoning_speaks_in_order():
    lesson = scene("analogical_reasoning")
    assert speakers(lesson) == [(STRONG, 0.2)] * 3, "the third turn is no request"
    assert lesson.turns == [
        ("human", "teacher", RECORD.question + "said-0."),  # Figure 5: nothing in between
        ("gpt", "student", "said-1."),
        ("human", "question", "Well done. Now try a similar question: " + OTHER.question),
        ("gpt", "student", "said-2."),
    ]
    third = lesson.dialogue.turns[2]
    assert (third.model, third.temperature, third.prompt_digest, third.usage) == (None, None, None, Usage())
    assert lesson.dialogue.related is OTHER


def test_analogical_reasoning_shows_each_what_it_may_see():
    lesson = scene("analogical_reasoning")
    assert lesson.shown("SECRET-ONE") == [1], "Table 7 gives the teacher the question alone"
    assert lesson.shown("SECRET-TWO") == [2]
    assert lesson.shown(OTHER.question) == [2]
    assert lesson.shown(RECORD.question) == [0, 1]
    assert lesson.shown("said-0.") == [1] and lesson.shown("said-1.") == []
    told = {request.messages[0] for request in lesson.asked[1:]}
    assert len(told) == 1, "one prompt for both answers of the student"


def test_teacher_of_an_analogy_may_see_the_answer():
    lesson = scene("analogical_reasoning", teacher_sees_answer=True)
    assert lesson.shown("SECRET-ONE") == [0, 1] and lesson.shown("SECRET-TWO") == [2]


def test_student_of_an_analogy_may_recall_its_first_answer():
    lesson = scene("analogical_reasoning", student_recalls=True)
    assert lesson.shown("said-1.") == [2] and lesson.shown(RECORD.question) == [0, 1, 2]
    assert lesson.task(2).index("said-1.") < lesson.task(2).index(OTHER.question)
    assert lesson.shown("SECRET-ONE") == [1]


def test_bridge_and_separator_are_settings():
    lesson = scene("analogical_reasoning", bridge="Und nun: ", separator="\n--\n")
    assert lesson.turns[0][2] == f"{RECORD.question}\n--\nsaid-0."
    assert lesson.turns[2][2] == f"Und nun: {OTHER.question}"
    assert f"{RECORD.question}\n--\nsaid-0." in lesson.task(1)


def test_similar_question_is_drawn_evenly_from_the_seed():
    def drawn(seed: int) -> Record:
        lesson = analogical_reasoning(RECORD, cast("analogical_reasoning"), random.Random(seed), [OTHER, THIRD])
        return play(lesson).dialogue.related

    found = [drawn(seed) for seed in range(100)]
    assert 30 <= found.count(OTHER) <= 70 and found.count(OTHER) + found.count(THIRD) == 100
    assert found == [drawn(seed) for seed in range(100)]


def test_record_without_a_similar_one_is_rejected_before_anything_is_asked():
    lesson = scene("analogical_reasoning", similar=[])
    assert lesson.asked == [] and lesson.rejected.reason == "no similar question"


# --- what holds in all of them -------------------------------------------------------------------

SCENES = [
    ("error_correction", {}),
    ("debate", {"rounds": [1]}),
    ("debate", {"rounds": [2]}),
    ("analogical_reasoning", {}),
]


@pytest.mark.parametrize(("name", "extra"), SCENES)
def test_sides_alternate_from_human_to_gpt(name, extra):
    sides = [turn.side for turn in scene(name, **extra).dialogue.turns]
    assert sides == ["human", "gpt"] * (len(sides) // 2)


@pytest.mark.parametrize(("name", "extra"), SCENES)
def test_turns_carry_who_spoke_and_what_it_cost(name, extra):
    lesson = scene(name, **extra)
    agents = cast(name)
    spoken = [turn for turn in lesson.dialogue.turns if turn.model is not None]
    for place, (turn, request) in enumerate(zip(spoken, lesson.asked, strict=True)):
        agent = agents[turn.speaker]
        assert (turn.model, turn.temperature) == (request.model, request.sampling.temperature)
        assert (turn.model, turn.temperature) == (agent.model, agent.sampling.temperature)
        assert turn.prompt_digest == agent.prompt.digest and request.sampling == agent.sampling
        assert turn.usage == Usage(1, 100 + place, 10 + place)
        assert [message.role for message in request.messages] == ["system", "user"]
    count = len(lesson.asked)
    tokens = sum(range(100, 100 + count)), sum(range(10, 10 + count))
    assert lesson.dialogue.usage == Usage(count, *tokens)


@pytest.mark.parametrize(("name", "extra"), SCENES)
def test_settings_of_the_cast_reach_the_requests(name, extra):
    agents = cast(name)
    changes = [f"scenarios.{name}.cast.{role}.{key}" for role in agents for key in ("top_p=0.5", "max_tokens=77")]
    lesson = scene(name, overrides=("layout=user", "language=Latin", *changes), **extra)
    for place, request in enumerate(lesson.asked):
        assert (request.sampling.top_p, request.sampling.max_tokens) == (0.5, 77)
        assert [message.role for message in request.messages] == ["user"]
        assert "Reply in Latin." in lesson.text(place)


@pytest.mark.parametrize(("name", "extra"), SCENES)
@given(text=st.sampled_from(["{answer}", "{question}", "{}", "{0}", "{{x}}", "}{", "%s {answer.x}"]))
def test_braces_of_a_source_open_nothing(name, extra, text):
    record = Record("s:9", "s", f"What prints {text}?", "SECRET-NINE", "9")
    extra = extra | ({"similar": [OTHER]} if name == "analogical_reasoning" else {})
    lesson = play(SCENARIOS[name](record, cast(name), random.Random(0), **extra))
    assert record.question in lesson.task(0) and lesson.dialogue.turns[0].text.startswith(record.question)
    assert 0 not in lesson.shown("SECRET-NINE")


@pytest.mark.parametrize(("name", "extra"), SCENES)
def test_texts_lose_the_space_around_them_and_nothing_else(name, extra):
    lesson = scene(name, lambda place: Reply(f"\n  x{place}\n\n    indented\n"), **extra)
    spoken = [turn.text for turn in lesson.dialogue.turns if turn.model is not None]
    assert all(text.endswith(f"x{place}\n\n    indented") for place, text in enumerate(spoken))


# --- replies that cannot be used -----------------------------------------------------------------

LOOP = "and so the number of legs is eight " * 20
BAD = {
    "empty": Reply("  \n\t", prompt_tokens=1, completion_tokens=1),
    "truncated": Reply("The spiders have", "length", prompt_tokens=1, completion_tokens=1),
    "looping": Reply(LOOP, prompt_tokens=1, completion_tokens=1),
    "out of role": Reply("Teacher: as the reference answer says.\nStudent: Oh!", prompt_tokens=1, completion_tokens=1),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(("name", "extra"), SCENES)
def test_unusable_reply_is_asked_again(name, extra, kind):
    """Every role's first two attempts fail: the same request is made a third time, and the lesson goes on."""
    lesson = scene(name, lambda place: said(place) if place % 3 == 2 else BAD[kind], **extra)
    assert len(lesson.dialogue.turns) in (4, 6)
    groups = [lesson.asked[start : start + 3] for start in range(0, len(lesson.asked), 3)]
    assert all(first == second == third for first, second, third in groups)
    assert len({id(group[0]) for group in groups}) == len(groups) == len(scene(name, **extra).asked)
    spoken = [turn for turn in lesson.dialogue.turns if turn.model is not None]
    for turn, group in zip(spoken, itertools.count(2, 3), strict=False):
        assert turn.text.endswith(f"said-{group}.") and turn.usage == Usage(3, 102 + group, 12 + group)
    assert lesson.dialogue.usage.requests == len(lesson.asked)


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(
    ("name", "place", "role"),
    [("error_correction", 0, "weak_student"), ("error_correction", 2, "strong_student"), ("debate", 1, "student_b"),
     ("debate", 2, "student_c"), ("analogical_reasoning", 0, "teacher"), ("analogical_reasoning", 2, "student")],
)  # fmt: skip
def test_record_is_rejected_after_all_attempts(name, place, role, kind, attempts):
    lesson = scene(name, lambda at: said(at) if at < place else BAD[kind], (f"runner.attempts={attempts}",))
    assert lesson.dialogue is None and lesson.rejected.reason == f"{role}: {kind}"
    assert len(lesson.asked) == place + attempts
    assert str(attempts) in lesson.rejected.detail


@pytest.mark.parametrize(("name", "extra"), SCENES)
def test_refused_prompt_is_not_asked_again(name, extra):
    lesson = scene(
        name, lambda place: said(place) if place < 1 else Reply("longer than the context", "refused"), **extra
    )
    assert len(lesson.asked) == 2
    assert lesson.rejected.reason.endswith(": refused") and lesson.rejected.detail == "longer than the context"


def test_refused_or_empty_comes_before_other_faults():
    prompt = Prompt("", "", ("whole",))
    assert fault(Reply("", "refused"), prompt) == "refused"
    assert fault(Reply("", "length"), prompt) == "empty"
    assert fault(Reply(LOOP, "length"), prompt) == "looping"
    assert fault(Reply("The whole sen", "length"), prompt) == "truncated"
    assert fault(Reply("A whole sentence."), prompt) == "out of role"
    assert fault(Reply("A sentence."), prompt) is None


# --- looping -------------------------------------------------------------------------------------

WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8).filter(
    lambda word: word.split() == [word]
)


@given(st.lists(WORDS, min_size=6, max_size=40), st.sampled_from([" ", "\n", "\n\n", " \t "]))
def test_any_text_said_twenty_times_loops(words, space):
    assume(len(set(words)) >= 6)
    assert loops(space.join([" ".join(words)] * 20))


@given(st.lists(WORDS, min_size=6, max_size=20, unique=True), st.lists(WORDS, max_size=40, unique=True))
def test_text_that_ends_in_a_loop_loops(words, beginning):
    tail = words * (2 + (2 * len(beginning) + 48) // len(words))
    assert loops(" ".join(beginning + tail))


@given(st.lists(WORDS, max_size=300, unique=True))
def test_text_that_never_says_a_word_twice_does_not_loop(words):
    assert not loops(" ".join(words))


@given(st.lists(WORDS, min_size=1, max_size=60, unique=True))
def test_saying_it_all_again_once_at_the_end_is_no_loop(words):
    """A solution that is followed by a short summary, or a question that is quoted first."""
    quoted = words[: len(words) // 3]
    assert not loops(" ".join(words + quoted))


ORDINARY = {
    "solution": """Let us find out how long both pipes need together. The first pipe fills 1/20 of the pool in a
minute and the second pipe fills 1/12 of the pool in a minute. Together they fill 1/20 + 1/12 = 3/60 + 5/60 = 8/60 of
the pool in a minute. The whole pool therefore takes 60/8 = 7.5 minutes. So the final answer is 7.5 minutes.""",
    "steps": "\n".join(
        f"Step {n}: the price in year {n} is that of the year before times 1.05, which is {100 * 1.05**n:.2f} dollars."
        for n in range(1, 15)
    ),
    "multiplication table": "\n".join(" ".join(f"{a * b}" for b in range(1, 13)) for a in range(1, 13)),
    "markdown table": "| n | square | cube |\n|---|---|---|\n"
    + "\n".join(f"| {n} | {n**2} | {n**3} |" for n in range(1, 40)),
    "comma separated": "id,name,score\n" + "\n".join(f"{n},person{n},{n * 37 % 101}" for n in range(60)),
    "primes": ", ".join(str(n) for n in range(2, 700) if all(n % d for d in range(2, n))),
    "countdown": "".join(f"{n} sheep are left in the field, " for n in range(99, 60, -1)),
    "truth table": "\n".join(
        f"| {a} | {b} | {c} | {d} | {int(a and b)} | {int(c or d)} |"
        for a, b, c, d in itertools.product((0, 1), repeat=4)
    ),
    "short truth table": "\n".join(
        " ".join("FT"[x] for x in (a, b, a and b)) for a, b in itertools.product((0, 1), repeat=2)
    ),
    "identity matrix": " \\\\\n".join(" & ".join(str(int(row == column)) for column in range(6)) for row in range(6)),
    "sieve": """def sieve(limit):
    is_prime = [True] * (limit + 1)
    is_prime[0] = is_prime[1] = False
    for number in range(2, int(limit ** 0.5) + 1):
        if is_prime[number]:
            for multiple in range(number * number, limit + 1, number):
                is_prime[multiple] = False
    return [number for number, prime in enumerate(is_prime) if prime]


def test_sieve():
    assert sieve(10) == [2, 3, 5, 7]
    assert sieve(1) == []
    assert sieve(2) == [2]
""",
    "json": json.dumps([{"id": n, "name": f"n{n}", "tags": ["a", "b"]} for n in range(12)], indent=2),
    "branches": "\n".join(
        f"    elif (year % {n} == 0 and month == {n % 12}):\n        return {n * n}" for n in range(2, 20)
    ),
    "html": "<ul>\n"
    + "\n".join(f'  <li class="item"><a href="/page/{n}">Page {n}</a></li>' for n in range(30))
    + "\n</ul>",
    "refrain": "\n".join(
        f"{line}\nand the river runs, and the river runs."
        for line in (
            "The mill stands still at the foot of the hill,",
            "The miller has gone to the town on the bay,",
            "His cat keeps watch from the window sill,",
            "And the corn has waited since yesterday,",
        )
    ),
    "cases": "\n".join(
        f"Case {n}: if the remainder is {n}, then the square leaves {n * n % 11} when it is divided by 11."
        for n in range(11)
    ),
}
DEGENERATE = {
    "sentence": "The answer is 16. " * 40,
    "word": "the " * 200,
    "number": "0 " * 300,
    "list": "\n".join("- The spider has eight legs and the spider has eight legs" for _ in range(20)),
    "counting nothing": "So we add 8 and 8 and get 16, but wait, let me check that once more. " * 12,
    "two by turns": "Student A: I think it is 16. Student B: No, I think that it is 18. " * 15,
    "code": "    x = x + 1\n    y = y + 1\n" * 40,
    "after a good start": "Two spiders have eight legs each, sixteen in all. " + "Thank you for the question! " * 30,
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_text_does_not_loop(name):
    assert not loops(ORDINARY[name])


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_text_loops(name):
    assert loops(DEGENERATE[name])


def test_sample_records_do_not_loop():
    from boost_qa.config import Sample
    from boost_qa.sources import read

    for record in read([Sample(source="sample")], 0).records:
        assert (
            not loops(record.question) and not loops(record.answer) and not loops(f"{record.question}\n{record.answer}")
        )
