"""Role prompts: what each role is told, what it is shown, and that shown text is never read as a template."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boost_qa.agents import Agent
from boost_qa.config import AnalogyCast, DebateCast, DirectCast, ErrorCorrectionCast
from boost_qa.errors import RecipeError
from boost_qa.prompts import Prompt, load_prompt
from boost_qa.types import Sampling

# What each role is shown (MASTER, section 3; methods, A1.0): only those with `answer` see the reference answer.
# `reference` of the analogy's teacher is filled only where the recipe says so, that of the writer unless it says no.
BLOCKS = {
    ("error_correction", "weak_student"): {"question"},
    ("error_correction", "teacher"): {"question", "attempt", "answer"},
    ("error_correction", "strong_student"): {"question", "attempt", "guidance", "answer"},
    ("debate", "student_a"): {"question", "history"},
    ("debate", "student_b"): {"question", "history"},
    ("debate", "student_c"): {"question", "history", "answer"},
    ("analogical_reasoning", "teacher"): {"question", "reference"},
    ("analogical_reasoning", "student"): {"question", "history", "answer"},
    ("direct", "writer"): {"question", "reference"},
    # Star-Agents (methods, B1 and B2)
    ("star", "instruct"): {"question"},
    ("star", "respond"): {"question"},
    ("star", "respond_from_reference"): {"question", "answer"},
    ("star", "judge"): {"question", "answer_a", "answer_b"},
    ("checks", "answer_judge"): {"question", "answer", "reference"},
    ("checks", "analogy_judge"): {"first", "first_answer", "second", "second_answer"},
}
ROLES = sorted(BLOCKS)
CASTS = {
    "error_correction": ErrorCorrectionCast,
    "debate": DebateCast,
    "analogical_reasoning": AnalogyCast,
    "direct": DirectCast,
}


def agent(scenario: str, role: str, **changes) -> Agent:
    return Agent(role, "a model", Sampling(), load_prompt(scenario, role), **changes)


def shown(scenario: str, role: str, **changes) -> list[str]:
    """The texts of the messages, every block filled with its own name in angle brackets."""
    blocks = {name: f"<{name}>" for name in BLOCKS[scenario, role]}
    return [message.content for message in agent(scenario, role, **changes).messages(**blocks)]


# --- the packaged prompts ------------------------------------------------------------------------


def test_one_file_for_each_role_and_nothing_else():
    folder = resources.files("boost_qa.prompts")
    files = {
        (scenario.name, file.name)
        for scenario in folder.iterdir()
        if scenario.is_dir() and scenario.name != "__pycache__"
        for file in scenario.iterdir()
        if file.name != "__pycache__"
    }
    assert files == {(scenario, f"{role}.yaml") for scenario, role in BLOCKS}
    classroom = {(scenario, role) for scenario, cast in CASTS.items() for role in cast.model_fields}
    assert {(scenario, role) for scenario, role in BLOCKS if scenario not in ("star", "checks")} == classroom


@pytest.mark.parametrize(("scenario", "role"), ROLES)
def test_file_holds_two_texts_and_what_is_never_said(scenario, role):
    text = (resources.files("boost_qa.prompts") / scenario / f"{role}.yaml").read_text(encoding="utf-8")
    fields = yaml.safe_load(text)
    never = fields.pop("never", [])
    assert set(fields) == {"role", "task"} and all(isinstance(value, str) and value for value in fields.values())
    assert load_prompt(scenario, role) == Prompt(fields["role"], fields["task"], tuple(never))
    assert text.startswith("# "), "says what the role is for"


@pytest.mark.parametrize(("scenario", "role"), ROLES)
def test_role_is_shown_what_the_paper_says(scenario, role):
    prompt = load_prompt(scenario, role)
    assert prompt.blocks - {"language"} == BLOCKS[scenario, role]
    assert "{language}" in prompt.role and "{language}" not in prompt.task
    assert not re.search(r"\{(?!language\})", prompt.role), "what is shown belongs into the task"


@pytest.mark.parametrize("role", ["weak_student", "student_a", "student_b"])
def test_roles_that_must_not_see_the_answer_have_no_place_for_it(role):
    scenario = "debate" if role.startswith("student_") else "error_correction"
    prompt = load_prompt(scenario, role)
    assert not {"answer", "reference", "guidance"} & prompt.blocks
    assert "reference" not in (prompt.role + prompt.task).lower()


def test_debaters_differ_in_the_letter_alone():
    a, b = load_prompt("debate", "student_a"), load_prompt("debate", "student_b")
    for ours, theirs in ((a.role, b.role), (a.task, b.task)):  # a line may break in the middle of the name
        assert re.sub(r"Student(\s)A\b", r"Student\1B", ours) == theirs != ours
    assert a.never == b.never
    assert a.digest != b.digest
    assert load_prompt("debate", "student_c").task != b.task


@pytest.mark.parametrize(("scenario", "role"), ROLES)
@pytest.mark.parametrize("language", ["English", "Swiss German"])
@pytest.mark.parametrize("layout", ["system_and_user", "user"])
def test_every_role_is_asked_for_the_language(scenario, role, language, layout):
    first = shown(scenario, role, language=language, layout=layout)[0]
    assert f"Reply in {language}." in first


@pytest.mark.parametrize(("scenario", "role"), ROLES)
def test_all_blocks_are_shown_once_under_a_heading(scenario, role):
    told, task = shown(scenario, role)
    for name in BLOCKS[scenario, role]:
        assert task.count(f"<{name}>") == 1 and f"<{name}>" not in told
    assert "{" not in told + task


@pytest.mark.parametrize(("scenario", "role"), ROLES)
def test_user_layout_holds_both_texts_in_one_message(scenario, role):
    told, task = shown(scenario, role)
    assert shown(scenario, role, layout="user") == [f"{told}\n\n{task}"]
    messages = agent(scenario, role).messages(**dict.fromkeys(BLOCKS[scenario, role], "x"))
    assert [message.role for message in messages] == ["system", "user"]


# --- text of sources and agents ------------------------------------------------------------------

TEMPLATE_LIKE = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "{{",
            "}}",
            "{question}",
            "{answer}",
            "{0}",
            "{}",
            "%s",
            "$x",
            "{question!r:>{answer}}",
            "\n",
            "a",
            "{language}",
        ]
    )
).map("".join)


@given(TEMPLATE_LIKE, st.text(max_size=30))
def test_braces_in_a_text_stay_what_they_are(question, attempt):
    messages = agent("error_correction", "teacher").messages(question=question, attempt=attempt, answer="SECRET")
    empty = agent("error_correction", "teacher").prompt.task
    expected = (
        empty.replace("{attempt}", "\0")
        .replace("{answer}", "SECRET")
        .replace("{question}", question)
        .replace("\0", attempt)
    )
    assert messages[1].content == expected.strip()


def test_role_text_is_one_line_and_shown_text_keeps_its_own():
    text = "def f():\n\n    return 1\n\t# indented"
    told, task = agent("error_correction", "weak_student").messages(question=text)
    assert "\n" not in told.content and text in task.content


# --- the digest ----------------------------------------------------------------------------------


def test_digest_names_the_exact_wording():
    prompt = Prompt("You are {language}.", "{question}")
    digests = {
        prompt.digest,
        Prompt("You are  {language}.", "{question}").digest,
        Prompt("You are {language}.{question}", "").digest,
        Prompt("{question}", "You are {language}.").digest,
        Prompt("You are {language}.", "{question}", ("x",)).digest,
        Prompt("You are {language}.", "{question}", ("x", "y")).digest,
        Prompt("You are {language}.", "{question}", ("xy",)).digest,
    }
    assert len(digests) == 7 and all(re.fullmatch(r"[0-9a-f]{16}", each) for each in digests)
    assert Prompt("You are {language}.", "{question}").digest == prompt.digest


def test_digests_of_all_roles_differ():
    assert len({load_prompt(scenario, role).digest for scenario, role in ROLES}) == len(ROLES)


# --- prompts of one's own ------------------------------------------------------------------------


def own(folder, role="Reply in {language}.", task="{question}") -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"role": role, "task": task}), encoding="utf-8")
    return str(path)


def test_own_prompt_replaces_the_packaged_one(tmp_path):
    prompt = load_prompt("error_correction", "teacher", own(tmp_path, task="{question} {attempt} {{as it is}}"))
    messages = Agent("teacher", "m", Sampling(), prompt).messages(question="1+1?", attempt="3", answer="2")
    assert [message.content for message in messages] == ["Reply in English.", "1+1? 3 {as it is}"]
    assert prompt.digest != load_prompt("error_correction", "teacher").digest


def test_own_prompt_in_the_home_folder(tmp_path, monkeypatch):
    own(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_prompt("debate", "student_a", "~/own.yaml").task == "{question}"


@pytest.mark.parametrize(
    ("role", "task"),
    [
        ("x", "{answer}"),  # the weak student must not be shown it
        ("x", "{qestion}"),
        ("x", "{question.upper}"),
        ("x", "{question[0]}"),
        ("x", "{}"),
        ("x", "{0}"),
        ("x", "{question:d}"),
        ("x", "{question:{answer}}"),
        ("x", "{question"),
        ("x", "question}"),
        ("x", "{language}"),  # belongs into the role text
        ("{question}", "x"),  # belongs into the task
        ("{}", "x"),
        ("{", "x"),
        (None, "{question}"),
        ("x", None),
        ("x", ["{question}"]),
        (1, "{question}"),
    ],
)
def test_own_prompt_that_cannot_be_filled_in_is_refused(tmp_path, role, task):
    path = own(tmp_path, role, task)
    with pytest.raises(RecipeError) as caught:
        load_prompt("error_correction", "weak_student", path)
    assert path in caught.value.what and caught.value.remedy


def test_unknown_block_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown block .*guidance") as caught:
        load_prompt("error_correction", "teacher", own(tmp_path, task="{question}{guidance}"))
    assert "`task` answer, attempt, question" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "role: x\n",
        "role: x\ntask: y\nmore: z\n",
        "- role\n",
        "role: [",
        "just words",
        "role: x\ntask: y\nnever: word\n",
        "role: x\ntask: y\nnever: [1]\n",
        "role: x\ntask: y\nnever: ['(']\n",
        "never: []\n",
    ],
)
def test_file_that_is_no_prompt_is_refused(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"own\.yaml"):
        load_prompt("debate", "student_a", str(path))


def test_missing_or_unreadable_file_is_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere.yaml", "binary.yaml", "."):
        with pytest.raises(RecipeError, match=re.escape(str(tmp_path / name))):
            load_prompt("debate", "student_a", str(tmp_path / name))


def test_own_prompt_says_what_is_never_said(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("role: x\ntask: y\nnever: ['as an ai', '^teacher:']\n", encoding="utf-8")
    prompt = load_prompt("debate", "student_a", str(path))
    assert prompt.slip("Well, As An AI model I") == "As An AI" and prompt.slip("Teacher: no") == "Teacher:"
    assert prompt.slip("I asked my teacher: no") is None and prompt.slip("") is None


# --- what nobody in a role says ------------------------------------------------------------------

IN_ROLE = [
    "Your working is not correct yet. You added the two speeds, but they go in the same direction.",
    "I took the weekly price for a daily one. Let me solve it again: 3 * 7 = 21. The final number is 21.",
    "I agree with Student A about the first step, but not about the second. 6 + 6 is 12, so I say 12.",
    "1. There are 20 legs.\n2. Each spider has 8.\nFinal answer: 2.5",
    "Use `dict.get(key, default)`:\n```python\nvalue = d.get('a', 0)\n```",
]


@pytest.mark.parametrize(("scenario", "role"), ROLES)
@pytest.mark.parametrize("text", IN_ROLE)
def test_what_is_said_in_role_is_no_slip(scenario, role, text):
    assert load_prompt(scenario, role).slip(text) is None


@pytest.mark.parametrize("role", ["teacher", "strong_student"])
def test_speaking_for_others_is_a_slip(role):
    prompt = load_prompt("error_correction", role)
    assert prompt.slip("Your working is not correct yet.\nStudent: Oh, I see.") is not None
    assert prompt.slip("As the reference answer says, it is 5.") is not None
