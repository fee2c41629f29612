"""Evaluation, the pure parts: reading replies, figures and their intervals, and questions from rows."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boost_qa.errors import BoostQAError, SourceError
from boost_qa.evaluate.asking import LocalData, ask
from boost_qa.evaluate.benchmark import Benchmark, benchmarks, local_place, read_questions
from boost_qa.evaluate.formulas import verdict
from boost_qa.evaluate.intervals import difference, figure
from boost_qa.evaluate.scoring import bracket, lenient, most_likely, program, python_code

OPTIONS = ("a red fox", "12", "2", "none of these")

# --- multiple choice -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("[B]", "B"),
        ("First [A], no: [ C ]", "C"),
        ("as in [x]", None),
        ("[E]", None),
        ("[AB]", None),
        ("[b]", None),
        ("(B)", None),
        ("x[B][0]", "B"),
        ("", None),
    ],
)
def test_bracket(reply, letter):
    assert bracket(reply, "ABCD") == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer is (B).", "B"),
        ("The correct answer is: **C**", "C"),
        ("Answer: D", "D"),
        ("so I choose option B", "B"),
        ("\\boxed{B}", "B"),
        ("$\\boxed{\\text{C}}$", "C"),
        ("B", "B"),
        ("B. It says so.", "B"),
        ("It is long.\n(C) 2", "C"),
        ("The answer is none of these.", "D"),
        ("we get 12", "B"),
        ("we get 2", "C"),
        ("we get 112", None),
        ("The answer is A, no, the answer is B", "B"),
        ("so I choose option B, I choose option B", "B"),
        # options that the reply names to reject them
        ("The answer is B. Option C is wrong because it is too small.", "B"),
        ("**Answer: (C)** because choice A is wrong", "C"),
        ("Option A is wrong. Option B is wrong. Option D is wrong.", None),
        # what only looks like a letter that was chosen
        ("A fox is an animal.", None),
        ("The answer is A's.", None),
        ("The answer is A fox", "A"),  # in words as much as by its letter
        ("A. 1\nB. 2\nC. 3", None),
        ("Dear student", None),
        ("I think. A lot.", None),
        ("", None),
        ("[E] or nothing", None),
    ],
)
def test_lenient(reply, letter):
    assert lenient(reply, OPTIONS, "ABCD") == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("To answer I need to add.\nIt is 7", "G"),
        ("My answer: I get 7.", "G"),
        ("Answer: I think it is 7", "G"),
        ("I choose I am sure", None),
        ("The answer is I.", "I"),
        ("Answer: I", "I"),
        ("Answer: **I** as it is 9", "I"),
        ("so I choose option I", "I"),
        ("Answer: H as it is 8", "H"),
    ],
)
def test_who_says_i_has_not_chosen_it(reply, letter):
    assert lenient(reply, tuple("123456789"), "ABCDEFGHI") == letter


def test_of_options_that_are_the_same_none_is_said():
    assert lenient("it is 3", ("3", "3"), "AB") is None


@given(st.text(alphabet="ABCDx[]()., \nanswer is\\boxed{}12'*$", max_size=60))
def test_what_the_bracket_says_no_leniency_changes(reply):
    strict, loose = bracket(reply, "ABCD"), lenient(reply, OPTIONS, "ABCD")
    assert strict is None or strict == loose
    assert loose in (None, *"ABCD")


@given(st.text(max_size=80), st.lists(st.text(max_size=8), min_size=2, max_size=5))
def test_any_text_can_be_read(reply, options):
    letters = "ABCDE"[: len(options)]
    assert lenient(reply, options, letters) in (None, *letters)


def test_likelihood_decides_only_what_is_decided():
    assert most_likely([-3.0, -1.0, -2.0]) == 1
    assert most_likely([-1.0, -1.0, -2.0]) is None
    assert most_likely([-1.0, math.nan]) is None and most_likely([math.nan, -1.0]) is None
    assert most_likely([]) is None and most_likely([-math.inf, -1.0]) == 1


# --- code ----------------------------------------------------------------------------------------

DEFINES = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (f"Here:\n```python\n{DEFINES}```\nIt adds.", DEFINES),
        (f"```\n{DEFINES}```", DEFINES),
        (f"```python\n{DEFINES}", DEFINES),  # cut off after the code
        (f"```py\ndef g():\n    pass\n```\nand\n```python\n{DEFINES}```\nuse:\n```python\nf(1)\n```", DEFINES),
        (f"```bash\nls\n```\n```python\n{DEFINES}```", DEFINES),
        ("    return x + 1\n", "    return x + 1\n"),
        ("```python\n    return x + 1\n```", "    return x + 1\n"),
        (DEFINES, DEFINES),
        ("The function adds one.", None),
        ("adds", None),
        ("```python\ndef f(x:\n```", None),
        ("", None),
    ],
)
def test_code_of_a_reply(reply, code):
    assert python_code(reply, "f") == code


USAGE = "print(f(1))\n"
METHOD = "class C:\n    def f(self):\n        return 1\n"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (f"```python\n{DEFINES}```\nExample usage:\n```python\n{USAGE}```", DEFINES),
        (f"```python\n{METHOD}```\nExample usage:\n```python\n{USAGE}```", METHOD),
        (f"```python\n{USAGE}```\n```python\n{DEFINES}```", DEFINES),
        (f"```python\ndef g(): pass\n```\n```python\n{DEFINES}```", DEFINES),
        (f"```python\n{USAGE}```", USAGE),
    ],
)
def test_where_no_function_is_named_a_definition_comes_before_its_use(reply, code):
    assert python_code(reply) == code


@pytest.mark.parametrize("spaces", [2, 3, 4, 7])
@pytest.mark.parametrize("marker", ["", "1. ", "- "])
def test_code_in_an_item_of_a_list(spaces, marker):
    space = " " * spaces
    listed = f"{space[len(marker) :]}{marker}```python\n{indent(DEFINES, space)}{space}```\n"
    assert python_code(f"1. Write it:\n\n{listed}2. Use it.", "f") == DEFINES
    assert python_code(f"1. Write it:\n\n{listed}2. Use it.") == DEFINES
    assert python_code(f"1. Write it:\n```python\n{indent(DEFINES, space)}```\n", "f") == DEFINES
    body = "    y = x\n    return y + 1\n"
    for code in (body, indent(body, space)):
        found = python_code(f"1. Write it:\n\n{space}```python\n{code}{space}```\n2. Use it.", "f")
        assert found == body
    helper = "    def g(y):\n        return y\n    return g(x)\n"
    assert python_code(f"```python\n{helper}```", "f") == helper


def test_code_goes_on_from_a_start_or_replaces_it():
    start = 'from math import floor\n\ndef f(x):\n    """Add one."""\n'
    for code in (DEFINES, "    return floor(x) + 1\n", "def f(x):\n    return floor(x) + 1\n"):
        for first in ("", "from __future__ import annotations\n\n"):
            if first and not code.startswith("def"):
                continue
            space: dict[str, object] = {}
            exec(program(first + code, start, "f"), space)
            assert space["f"](1) == 2  # type: ignore[operator]


# --- mathematics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("final", "reply", "says"),
    [
        ("\\frac{1}{2}", "so it is \\boxed{0.5}", "right"),
        ("1 - 12i", "\\boxed{-12i + 1}", "right"),
        ("(6,31,-1)", "\\boxed{(6, 31, -1)}", "right"),
        ("(6,31,-1)", "\\boxed{(6, 31, 1)}", "wrong"),
        ("x^2+2x+1", "$(x+1)^2$ is \\boxed{(x+1)^2}", "right"),
        ("52_8", "\\boxed{52_8}", "right"),
        ("7", "I do not know.", "none"),
        ("7", "", "none"),
    ],
)
def test_formulas(final, reply, says):
    for reference in (f"\\boxed{{{final}}}", f"It follows that $x = \\boxed{{{final}}}$, not 5."):
        assert verdict(json.dumps([reference, reply])) == says


def test_a_reference_without_a_result_decides_nothing():
    assert verdict(json.dumps(["No number here.", "\\boxed{1}"])) == "undecided"


# --- figures -------------------------------------------------------------------------------------


def test_exact_interval_of_a_mean():
    none, some = figure([0.0] * 10), figure([1.0] * 7 + [0.0] * 13)
    assert (none.low, none.mean, none.n) == (0.0, 0.0, 10) and none.high == pytest.approx(0.30850, abs=1e-5)
    assert (some.low, some.high) == (pytest.approx(0.15391, abs=1e-5), pytest.approx(0.59219, abs=1e-5))
    assert some.stderr == pytest.approx(math.sqrt(0.35 * 0.65 / 19))
    assert figure([1.0]).stderr is None


def test_other_scores_are_drawn_again():
    scores = np.random.default_rng(1).normal(3, 2, 400)
    found = figure(list(scores))
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.stderr, rel=0.1)
    assert figure(list(scores)) == found


@pytest.mark.parametrize("wrong", [[], [math.nan], [math.inf], [[1.0]]])
def test_what_is_no_score(wrong):
    with pytest.raises(ValueError, match="one number for each item"):
        figure(wrong)


def test_paired_difference_and_mcnemar():
    first = [1.0] * 15 + [0.0] * 5 + [1.0] * 30
    second = [0.0] * 15 + [1.0] * 5 + [1.0] * 30
    found = difference(first, second)
    assert (found.gained, found.lost, found.n) == (5, 15, 50) and found.difference == pytest.approx(-0.2)
    assert found.p == pytest.approx(0.041389465, abs=1e-8)  # two-sided binomial of 5 in 20
    assert found.low < -0.2 < found.high < 0.02
    with pytest.raises(ValueError, match="no pairs"):
        difference([1.0], [1.0, 0.0])


def test_models_that_agree_on_few_items_are_not_known_to_be_equal():
    found = difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert found.difference == 0.0 and found.p == 1.0 and found.high == -found.low > 0.2


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_a_difference_turned_round_changes_its_sign(pairs):
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    one, other = difference(a, b), difference(b, a)
    assert one.difference == pytest.approx(-other.difference) and one.p == other.p
    assert one.low == pytest.approx(-other.high) and -1 <= one.low <= one.high <= 1
    assert one.low <= one.difference <= one.high or abs(one.difference) > 0.9  # the edges are drawn in


def test_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = held_paired = 0
    for _ in range(600):
        a, changed = rng.random(60) < 0.3, rng.random(60) < 0.2
        b = np.where(changed, rng.random(60) < 0.7, a)
        one, paired = figure(list(a.astype(float))), difference(list(a.astype(float)), list(b.astype(float)))
        held += one.low <= 0.3 <= one.high
        held_paired += paired.low <= 0.2 * (0.7 - 0.3) <= paired.high
    assert held / 600 > 0.94 and held_paired / 600 > 0.93


# --- questions -----------------------------------------------------------------------------------


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


SCIQ = [
    {"question": f"Q{n}?", "correct_answer": f"right {n}", "distractor1": "x", "distractor2": "y", "distractor3": "z"}
    for n in range(30)
]


def test_every_benchmark_can_be_had_or_says_why_not():
    found = benchmarks()
    assert {"boost_math", "boost_mmlu_pro_math", "boost_mbpp", "boost_humaneval", "boost_mmlu"} <= set(found)
    assert {"boost_arc_challenge", "boost_sciq", "boost_mathqa", "boost_tal_scq5k", "boost_math_mc"} <= set(found)
    for name, one in found.items():
        assert (one.hub is None) == (one.unknown is not None), name
        assert all(rows.columns() for rows in one.rows)
        assert one.kind != "choice" or all(rows.options and rows.answer for rows in one.rows)
        assert one.kind != "code" or all(rows.tests for rows in one.rows)
    assert sum("paper" in one.suites for one in found.values()) == 15


def test_options_stand_in_an_order_of_their_own(tmp_path):
    path = lines(tmp_path / "sciq_test.jsonl.gz", SCIQ)
    found = read_questions("boost_sciq", benchmarks()["boost_sciq"], [path])
    assert {item.options[item.letters.index(item.answer)] for item in found.items} == {f"right {n}" for n in range(30)}
    assert len({item.answer for item in found.items}) == 4
    assert found.local and found.where == "sciq_test.jsonl.gz" and found.revision.startswith("sha256:")
    assert read_questions("boost_sciq", benchmarks()["boost_sciq"], [path]) == found


def test_a_limit_takes_the_same_sample_whatever_the_order_of_the_rows(tmp_path):
    one = benchmarks()["boost_sciq"]
    there = read_questions("s", one, [lines(tmp_path / "a.jsonl", SCIQ)]).items
    back = read_questions("s", one, [lines(tmp_path / "b.jsonl", SCIQ[::-1])]).items
    assert [item.id for item in there] == [item.id for item in back]
    assert [item.question for item in there] != [row["question"] for row in SCIQ]


def test_a_question_that_stands_there_twice_is_two_items(tmp_path):
    found = read_questions("s", benchmarks()["boost_sciq"], [lines(tmp_path / "a.jsonl", [SCIQ[0], SCIQ[0]])])
    assert len({item.id for item in found.items}) == 2


def test_a_clone_of_mmlu_is_asked_once(tmp_path, caplog):
    """It holds each question twice: in the file of its subject, and in that of all of them. Two subjects share one."""
    law, art, both = ([{"question": f"{x}?", "choices": ["a", "b"], "answer": 1}] for x in ("law", "art", "both"))
    for subject, rows in {"law": law + both, "all": law + both + art + both, "art": art + both}.items():
        (tmp_path / "mmlu" / subject).mkdir(parents=True)
        lines(tmp_path / "mmlu" / subject / "test-0.jsonl", rows)
    mmlu = benchmarks()["boost_mmlu"].model_copy(update={"items": 4})
    found = read_questions("boost_mmlu", mmlu, local_place(mmlu, tmp_path)).items
    assert found == read_questions("boost_mmlu", mmlu, [tmp_path / "mmlu"]).items
    assert found == read_questions("boost_mmlu", mmlu, [tmp_path / "mmlu" / "all" / "test-0.jsonl"]).items
    assert sorted(item.question for item in found) == ["art?", "both?", "both?", "law?"]
    subjects = [tmp_path / "mmlu" / name / "test-0.jsonl" for name in ("art", "law")]
    assert found == read_questions("boost_mmlu", mmlu, subjects).items and not caplog.messages
    with pytest.raises(SourceError, match=r"3 files hold 4 questions, and the benchmark has 3: all/test-0.jsonl, art/"):
        read_questions("boost_mmlu", mmlu.model_copy(update={"items": 3}), [tmp_path / "mmlu"])
    assert len(read_questions("boost_mmlu", benchmarks()["boost_mmlu"], [tmp_path / "mmlu"]).items) == 4
    assert "3 files hold 4 questions, and the benchmark has 14,042" in caplog.messages[-1]


def test_one_benchmark_in_other_columns(tmp_path):
    arc = benchmarks()["boost_arc_easy"]
    hub = [{"question": "Q?", "choices": {"text": ["no", "yes"], "label": ["1", "2"]}, "answerKey": "2"}]
    text = (
        "Please choose the correct answer to the question: Q?\n\nAnswer1: no Answer2: yes\n\nAnswer format: answer1/2"
    )
    adapters = tmp_path / "arc_easy_test.json"
    adapters.write_text(json.dumps([{"instruction": text, "input": "", "output": "", "answer": "answer2"}]))
    one = read_questions("a", arc, [lines(tmp_path / "arc-easy.jsonl", hub)]).items
    other = read_questions("a", arc, [adapters]).items
    assert one == other and one[0].options == ("no", "yes") and one[0].answer == "B"
    assert {path.name for path in local_place(arc, tmp_path)} == {"arc-easy.jsonl", "arc_easy_test.json"}


@pytest.mark.parametrize(
    ("task", "its", "others"),
    [
        (
            "boost_mmlu_pro_math",
            ["MMLU-Pro/data/test-00000-of-00001.parquet", "mmlu_pro.jsonl", "mmlupro_test.json", "TIGER/MMLU_Pro.csv"],
            ["mmlu/professional_law/test-0.parquet", "codemmlu/programming_syntax/test-0.parquet", "mmlu_problems.csv"],
        ),
        (
            "boost_math500",
            ["math500_test.jsonl", "MATH-500/test.jsonl", "math_500.json"],
            ["MATH/test/algebra/1500.json", "math/500.json"],
        ),
        (
            "boost_humaneval",
            ["HumanEval.jsonl.gz", "openai_humaneval/test-0.parquet", "human-eval/data/HumanEval.jsonl.gz"],
            ["humanevalplus.jsonl", "HumanEval+.jsonl", "human_eval_plus.json", "humaneval-x/python.jsonl"],
        ),
    ],
)
def test_files_of_other_benchmarks_are_not_taken(tmp_path, task, its, others):
    for name in (*its, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {str(path.relative_to(tmp_path)) for path in local_place(benchmarks()[task], tmp_path)} == set(its)


def test_only_the_rows_of_the_benchmark(tmp_path):
    rows = [
        {"question": "1+1?", "options": ["1", "2"], "answer_index": 1, "category": category}
        for category in ("math", "law", "math")
    ]
    found = read_questions("m", benchmarks()["boost_mmlu_pro_math"], [lines(tmp_path / "mmlu-pro.jsonl", rows)])
    assert len(found.items) == 2


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "Q?", "choices": ["a", "b"], "answer": 2}, ":2: answer 2 is none of 2 options"),
        ({"question": "Q?", "choices": ["a", "b"], "answer": -1}, ":2: answer -1"),
        ({"question": "Q?", "choices": ["a", "b"], "answer": "AB"}, ":2: answer 'AB'"),
        ({"question": "Q?", "choices": ["a", "b"], "answer": ""}, ":2: answer ''"),
        ({"question": " ", "choices": ["a", "b"], "answer": 1}, ":2: question is empty"),
        ({"question": "Q?", "choices": ["a"], "answer": 0}, ":2: answer 0 is none of 1 options"),
        ({"question": "Q?", "choices": ["a", "b"]}, ":2: answer: 'answer' is undefined"),
        ("no object", ":2: not a JSON object"),
    ],
)
def test_a_row_that_is_no_item_is_named(tmp_path, row, named):
    good = {"question": "Q?", "choices": ["a", "b"], "answer": "b"}
    path = lines(tmp_path / "mmlu.jsonl", [good, row])  # type: ignore[list-item]
    with pytest.raises(SourceError) as caught:
        read_questions("boost_mmlu", benchmarks()["boost_mmlu"], [path])
    assert named in str(caught.value) and "boost_mmlu: mmlu.jsonl" in str(caught.value)


def test_a_cell_without_a_value_is_empty(tmp_path):
    rows: list[dict[str, object]] = [
        {"question": "1?", "answer": "\\boxed{1}", "final": None},
        {"question": "2?", "answer": None, "final": "2"},
        {"question": "3?", "answer": "\\boxed{3}", "final": math.nan},
    ]
    found = read_questions("q", benchmarks()["boost_questions"], [lines(tmp_path / "q.jsonl", rows)]).items
    assert {(item.answer, item.final) for item in found} == {("\\boxed{1}", ""), ("", "2"), ("\\boxed{3}", "")}
    mbpp = {"task_id": 11, "text": "Add.", "test_list": ["assert f"], "test_setup_code": None, "code": None}
    (code,) = read_questions("c", benchmarks()["boost_mbpp"], [lines(tmp_path / "c.jsonl", [mbpp])]).items
    assert code.tests == "\nassert f\n" and code.answer == ""
    for row, why in (
        ({"question": None, "answer": "1", "final": "1"}, "q: q.jsonl:1: question is empty"),
        ({"question": "1?", "answer": None, "final": None}, "q: q.jsonl:1: there is no answer"),
        ({"question": "1?", "answer": " ", "final": ""}, "q: q.jsonl:1: there is no answer"),
    ):
        with pytest.raises(SourceError, match=why):
            read_questions("q", benchmarks()["boost_questions"], [lines(tmp_path / "q.jsonl", [row])])


def test_other_columns_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"has the columns a; needed: answer, choices, question"):
        read_questions("boost_mmlu", benchmarks()["boost_mmlu"], [lines(tmp_path / "x.jsonl", [{"a": 1}])])
    for path in (tmp_path / "law" / "test.jsonl", tmp_path / "art" / "test.jsonl"):
        path.parent.mkdir()
        lines(path, [{"question": "Q?", "choices": ["a", "b"], "answer": 1}])
    lines(path, [{"a": 1}])
    for there in ([tmp_path / "law" / "test.jsonl", path], [path.parent]):
        with pytest.raises(SourceError, match=f"boost_mmlu: {path} has the columns"):
            read_questions("boost_mmlu", benchmarks()["boost_mmlu"], there)


def test_a_row_reaches_nothing_but_its_columns(tmp_path):
    """Expressions are sandboxed, and a text that looks like one is a text."""
    hostile = "{{ 7 * 7 }} {% for x in y %} ''.__class__"
    row = {"question": hostile, "choices": [hostile, "b"], "answer": 0}
    item = read_questions("m", benchmarks()["boost_mmlu"], [lines(tmp_path / "m.jsonl", [row])]).items[0]
    assert item.question == hostile and item.options[0] == hostile
    spec = benchmarks()["boost_mmlu"].model_dump() | {"rows": [{"question": "question.__class__.__mro__"}]}
    with pytest.raises(SourceError, match="unsafe"):
        read_questions("m", Benchmark.model_validate(spec), [tmp_path / "m.jsonl"])


# --- what is asked -------------------------------------------------------------------------------


def test_a_suite_leaves_out_what_a_folder_lacks_and_a_named_task_does_not(tmp_path):
    lines(tmp_path / "sciq_test.jsonl", SCIQ)
    asked = ask("quick", (), LocalData([str(tmp_path)]))
    assert set(asked.ours) == {"boost_sciq"}
    assert asked.left_out["boost_humaneval"].startswith("boost_humaneval: no file called *humaneval*")
    with pytest.raises(SourceError, match="boost_humaneval: no file called"):
        ask("quick", ("boost_humaneval",), LocalData([str(tmp_path)]))


@pytest.mark.parametrize(
    ("data", "tasks", "why"),
    [
        (["nowhere"], (), "nowhere does not exist"),
        (["{}", "{}"], (), "no folder, or the second"),
        (["{0}", "boost_mmlu={0}/sciq.jsonl"], ("boost_sciq",), "boost_mmlu, which is not asked"),
        (["{}"], ("boost_nothing",), "there is no task boost_nothing"),
        ([], ("boost_pythonio_mc",), "no copy on the Hub is known"),
    ],
)
def test_what_cannot_be_asked_is_said(tmp_path, data, tasks, why):
    lines(tmp_path / "sciq.jsonl", SCIQ)
    with pytest.raises(BoostQAError, match=why) as caught:
        ask("quick", tasks, LocalData([one.format(tmp_path) for one in data]))
    assert caught.value.exit_code == 2


def test_an_empty_folder_is_nothing_to_ask(tmp_path):
    lines(tmp_path / "other.jsonl", [{"a": 1}])
    with pytest.raises(BoostQAError, match="nothing can be asked"):
        ask("quick", (), LocalData([str(tmp_path)]))
