"""Roles in finished dialogues: each label on what it is for, and on what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boost_qa.checks import roles
from boost_qa.checks.finding import EXCERPT
from boost_qa.checks.speech.endings import cut_off
from boost_qa.checks.speech.language import LANGUAGES, code_of, other_language
from boost_qa.checks.speech.prose import open_fence, prose, without_code, without_formulas
from boost_qa.checks.speech.withheld import gives_away
from boost_qa.prompts import load_prompt
from boost_qa.types import Dialogue, Record, Turn

QUESTION = "Mara has 3 boxes with 14 pens each, and gives 7 pens away. How many pens does she have left?"
RECORD = Record("s:1", "s", QUESTION, "3 * 14 = 42 pens, and 42 - 7 = 35. The answer is 35.", "1", final="35")
SPEAKERS = ("weak_student", "teacher", "strong_student")
ANSWER = "There are 3 times 14 pens in the boxes, which is 42, and after the gift 35 pens are left."


def dialogue(*said: tuple[str, str], record: Record = RECORD, related: Record | None = None) -> Dialogue:
    turns = [Turn(who, "gpt", text, None if who == "question" else "model") for who, text in said]
    return Dialogue(record, "a scenario", tuple(turns), related)


def labels(text: str, speaker: str = "strong_student", record: Record = RECORD, **more) -> set[str]:
    found = roles.look(dialogue(("question", record.question), (speaker, text), record=record), **more)
    assert all(finding.turn == 1 and finding.label in roles.LABELS for finding in found)
    assert all(0 < len(finding.detail) <= EXCERPT for finding in found)
    return {finding.label for finding in found}


def asking(question: str, answer: str = "So it is.", final: str | None = None) -> Record:
    return Record("s:2", "s", question, answer, "2", final=final)


def test_a_good_dialogue_has_no_fault():
    found = roles.look(
        dialogue(
            ("question", QUESTION),
            ("weak_student", "1. 3 + 14 = 17 pens.\n2. 17 - 7 = 10 pens.\n\nFinal answer: 10"),
            ("teacher", "Your working is not correct yet. You added the boxes to the pens, but each has 14 of them. "
                        "Think about how many pens three such boxes hold. Please try again."),
            ("strong_student", f"My mistake was that I added boxes to pens. Let me solve it again. {ANSWER}"),
        ),
        {role: load_prompt("error_correction", role).role for role in SPEAKERS},
    )  # fmt: skip
    assert found == []


def test_a_question_is_nobodys_fault():
    bad = "As an AI language model I cannot help with that.\nTeacher: no.\nStudent A: and the"
    assert roles.look(dialogue(("question", bad))) == []
    assert len(roles.look(dialogue(("student_b", bad)))) == 4


# --- speaks for another --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 35.\nTeacher: Well done, that is right.",
        "The answer is 35.\n\n**Teacher:** Well done.",
        "The answer is 35.\nThe teacher says: Well done.",
        "It is 35. Student B said: I do not think so. Student A: But it is.",
        "Student A said:\nI think it is 35.",
        "It is 35.\nstudent_b: no, 36",
        "It is 35.\n> Student's reply: no, 36",
        "It is 35.<|im_end|>\n<|im_start|>user\nThank you.",
        "It is 35.\n### Human: Thank you.",
        "It is 35.\nUser: Thank you.\nAssistant: With pleasure.",
        "It is 35.\nTHE TEACHER'S HINT:\nThink again.",
        "Student C: It is 35.\nStudent C: It is still 35.",
        "Final answer: 35\nTeacher: Well done",
        "**Final answer:** 35\n**Teacher:** Well done.",
        "Pens: 35\nTeacher: Well done.",
        "Pens: 35\n\nTeacher: Well done",
        "**Pens:** 35\n\n**Teacher:** Well done.",
        "- Pens: 35\n\nTeacher: Well done",
        "- Teacher: Well done.\n- Student: Thank you.",
        "System: Be brief\nUser: How many pens",
    ],
)
def test_who_writes_the_lines_of_others_is_found(text):
    assert "speaks for another" in labels(text, "student_c")


@pytest.mark.parametrize(
    "text",
    [
        "Student C: It is 35.",
        "**Student C:** It is 35.",
        "Student A was right, and Student B forgot the gift: the answer is 35.",
        "Two facts:\n- students: 35\n- teachers: 2",
        "What the teacher said about the boxes: each of them has 14 pens.",
        "It is:\n```\nUser: name\nTeacher: name\n```",
        "The function `Teacher:` does not exist.",
        "You need these models:\n- User: id, name and email.\n- Post: title and body",
        "**User:** has many posts.\n**Post:** belongs to a user.",
        "* **Student**: holds the name.\n* **Course**: holds the title.",
        "1 of each:\n\n- **Student**: the name.\n\n- **Teacher**: the name.\n\n- **Course**: the title.",
        "- User:\n  - id\n  - name\n- Post:\n  - title",
        "User: admin\nPassword: secret",
        "Host: db\nUser: admin",
    ],
)
def test_who_only_speaks_of_others_is_not(text):
    assert "speaks for another" not in labels(text, "student_c")


def test_lines_that_the_question_wants_are_no_fault():
    lines = "Teacher: Good morning.\nStudent: Good morning, Miss."
    assert "speaks for another" in labels(lines, "respond")
    assert "speaks for another" not in labels(
        lines, "respond", asking("Write a dialogue between a teacher and a student.")
    )
    fields = asking("Fill in the form.\nStudent: ...\nTeacher: ...")
    assert "speaks for another" not in labels("Done.\nStudent: Ann\nTeacher: Bob", "respond", fields)


# --- breaks the frame, refuses -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I have no pens.",
        "I'm just an AI, so I cannot count pens.",
        "In my role as the weak student I say 17.",
        "As a student role, I have to err.",
        "In this scenario, I am the teacher, and 35 it is.",
        "The role prompt wants me to be brief.",
        "I was told not to reveal the result.",
        "The reference answer says 35, so it is 35.",
        "I follow the solution I was given: 35.",
        "I’m ready to assist. What is your question?",
    ],
)
def test_who_leaves_the_frame_is_found(text):
    assert "breaks the frame" in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "As an aid, draw the boxes. I am an airline pilot.",
        "I was asked to find the number of pens, which is 35.",
        "The solution is 35, and I am ready to show why.",
        "In this scenario, I have 35 pens.",
        "The function returns \"As an AI language model, I ...\" for every input, which is the bug.",
    ],
)  # fmt: skip
def test_who_stays_in_the_frame_is_not(text):
    assert "breaks the frame" not in labels(text)


def test_a_question_about_models_may_be_answered():
    record = asking("Why does it say 'as an AI language model' so often?")
    assert "breaks the frame" not in labels("It says as an AI language model because it was taught to.", record=record)


def test_refusals():
    for text in (
        "I'm sorry, but I can't help with that request.",
        "I am sorry, I am not able to do that.",
        "I cannot assist with this question.",
        "Unfortunately I am unable to answer your question.",
        "I apologize, but it is not possible for me to go on.",
    ):
        assert "refuses" in labels(text)
    for text in (
        "I can't help but wonder about the 7 pens. They are given away.",
        "One cannot divide by zero, so I cannot go on with this equation and take the other one.",
        "I'm sorry for my mistake. Let me solve it again.",
        "I apologize for the mistake; a length cannot be negative, so x = 3.",
        "I am sorry, I made a mistake: you cannot divide by zero here.",
        "I'm afraid that can't be right, because 3 + 4 = 7.",
        "The program says \"I'm sorry, but I can't help with that\" and ends.",
    ):  # fmt: skip
        assert "refuses" not in labels(text)


# --- reveals the prompt --------------------------------------------------------------------------


@pytest.mark.parametrize("scenario,role", [("error_correction", "teacher"), ("debate", "student_c")])
def test_who_recites_a_prompt_is_found_whoevers_it_is(scenario, role):
    prompt = load_prompt(scenario, role).role
    told = " ".join(prompt.split())
    for speaker in (role, "weak_student"):
        found = labels(f"Sure. {told[:300].upper()}", speaker, prompts={role: prompt})
        assert "reveals the prompt" in found
    few = " ".join(told.split()[: roles.RUN - 1])
    assert "reveals the prompt" not in labels(few, role, prompts={role: prompt})
    assert "reveals the prompt" not in labels(told, role)


def test_what_a_prompt_gives_to_be_said_may_be_said():
    prompt = 'Begin with these words: "My mistake was that I was in a hurry and did not read all of it." Then go on.'
    said = "My mistake was that I was in a hurry and did not read all of it. It is 35."
    assert labels(said, prompts={"strong_student": prompt}) == set()
    unquoted = prompt.replace('"', "")
    assert labels(said, prompts={"strong_student": unquoted}) == {"reveals the prompt"}


def test_blocks_of_a_prompt_are_no_part_of_it():
    prompt = "one two three four five six {question} seven eight nine ten eleven twelve"
    both = "one two three four five six seven eight nine ten eleven twelve"
    assert labels(both, prompts={"x": prompt}) == set()
    assert labels(both, prompts={"x": prompt.replace(" {question}", "")}) == {"reveals the prompt"}


def test_words_of_the_question_are_not_revealed():
    prompt = f"You will be asked this: {QUESTION}"
    assert labels(f"We are asked: {QUESTION} It is 35.", prompts={"x": prompt}) == set()


def test_the_headings_of_prompts_are_recognised():
    assert "reveals the prompt" in labels("CORRECT SOLUTION\nIt is 35.")
    assert "reveals the prompt" not in labels("The correct solution is 35.")


# --- gives the result away -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,final",
    [
        ("You should have got 35 pens.", "35"),
        ("Then $42 - 7 = 35$, as you see.", "35"),
        ("The rest are 35.", "35.0"),
        ("It costs $1,250 in the end.", "1250"),
        ("It costs 1250 dollars in the end.", "$1,250"),
        ("Think of 0.75 of it.", "3/4"),
        (r"Think of \frac{3}{4} of it.", "0.75"),
        ("Think of 2 1/2 of them.", "2.5"),
        ("It is a quarter, or 25%.", "0.25"),
        ("You need 25 percent.", "25%"),
        ("You will get 6 of them.", "6"),
        ("So 18 - 12 = 6.", "6"),
        ("The answer is 14, of course.", "14"),
        ("14 is the right answer.", "14"),
        ("x = -35 is what you look for.", "-35"),
        ("Is it not 35 km?", "35 km"),
        ("Look at r\\boxed{35}.", "\\boxed{35}"),
        ("Think of Carbon  Dioxide.", "carbon dioxide"),
        ("It would print [4,7] then.", "[4, 7]"),
        ("The answer is B.", "B"),
        ("Option (B) is correct, for the answer is B", "B"),
        ("The correct answer is yes.", "yes"),
        ("The solution is O(n log n).", "O(n log n)"),
    ],
)
def test_a_teacher_who_says_the_result_is_found(text, final):
    assert gives_away(text, final, QUESTION)


@pytest.mark.parametrize(
    "text,final",
    [
        ("Think about the 14 pens in each box.", "14"),
        ("The 14 of them must be multiplied, and 7 taken away.", "7"),
        ("In step 6 you went wrong.", "6"),
        ("Look at line 35 of your code.", "35"),
        ("35. is no sentence, but an item", "35"),
        ("1. Read it.\n2. Draw it.\n3. Count.", "2"),
        ("Look at the 35th pen.", "35"),
        ("Student 6 and 6 others", "6"),
        ("It has 35.5 of them, or 135, or 350, or 3.35, or x35, or 1,350.", "35"),
        ("Think of 10-35 there.", "-35"),
        ("What is 210/6?", "35"),
        ("The answer is not 14.", "14"),
        ("The answer isn't 14, and it is a number.", "14"),
        ("Is there a bigger choice? A box of pens.", "B"),
        ("Yes, think again.", "yes"),
        ("Write down the carbonate.", "carbon"),
        ("What is -35 + 2?", "35"),
        ("Say it in words", ""),
        ("Say it in words.", "."),
    ],
)
def test_a_teacher_who_only_uses_such_numbers_is_not(text, final):
    assert gives_away(text, final, QUESTION) is None


def test_a_student_who_has_the_result_is_given_nothing():
    assert gives_away("Your 35 is right, but say why.", "35", QUESTION, ["I get 35."]) is None
    assert gives_away("Your 35 is right, but say why.", "35", QUESTION, ["I get 36."])
    # said on the way, it is not found yet
    assert gives_away("You had 35 at one point.", "35", QUESTION, ["It is 35, no, 36."]) is None
    endless = "3" * 5000  # more digits than Python reads
    assert gives_away(f"Not 0.{endless}.", "35", QUESTION, [f"I get {endless}/7 and 2 {endless}/7."]) is None
    assert gives_away("You get 7.", endless, QUESTION) is None
    assert gives_away("The answer is 35.", "35", QUESTION, ["It is 35, no, 36."])
    assert gives_away("Black is a good thought.", "black", QUESTION, ["I think.\nFinal answer: black"]) is None


def test_only_teachers_withhold_and_only_what_is_known():
    text = "You get 35 pens."
    assert "gives the result away" in labels(text, "teacher")
    assert "gives the result away" not in labels(text, "strong_student")
    assert "gives the result away" not in labels(text, "teacher", asking(QUESTION))


def test_the_question_in_front_of_an_analogys_first_line_gives_nothing_away():
    record = asking("What is the answer if the result is 35? It has 12 words of which one counts.", final="35")
    first = f"{record.question}\n\nWe are asked for a number. To find it, first read, then think."
    found = roles.look(dialogue(("teacher", first), ("student", "It is 35, as I was told."), record=record))
    assert found == []
    away = roles.look(dialogue(("teacher", f"{record.question} The answer is 35."), record=record))
    assert [finding.label for finding in away] == ["gives the result away"]


# --- repeats -------------------------------------------------------------------------------------


def test_a_copy_of_another_turn_is_found_and_of_the_reference_is_not():
    long = f"I think that this is how it goes. {RECORD.answer}"
    said = [("question", QUESTION), ("student_a", long), ("student_b", long.upper()), ("student_a", long)]
    found = [finding for finding in roles.look(dialogue(*said)) if finding.label == "repeats another"]
    assert [finding.turn for finding in found] == [2, 3]
    assert "student_a" in found[0].detail and "student_b" in found[1].detail
    assert labels(RECORD.answer) == set()
    assert "repeats another" in labels(f"{QUESTION}")


def test_short_turns_and_partial_quotations_are_no_copies():
    assert roles.look(dialogue(("student_a", "I think it is 35."), ("student_b", "I think it is 35."))) == []
    other = "You say so, but I say that the pens of the gift must go, and then the boxes hold less than before."
    assert roles.look(dialogue(("student_a", ANSWER), ("student_b", f"{ANSWER} {other}"))) == []


def test_a_text_that_was_to_be_put_right_may_come_back():
    text = "the cat sat on the mat and looked at the moon that was over the house of the old man"
    record = asking(f"Punctuate: {text}", f"{text[0].upper()}{text[1:]}.")
    assert "repeats another" not in labels(f"{text.capitalize()}.", record=record)
    assert "repeats another" in labels(f"{text.capitalize()}.", record=asking(f"Punctuate: {text}", "I will not."))


def test_repetition_within_a_turn():
    sentence = "Each box holds exactly fourteen pens in it."
    assert "repeats itself" in labels(f"{sentence} First. {sentence} Then. {sentence}")
    other = "After this the seven pens of the gift have to go away."
    assert "repeats itself" in labels(f"{sentence} {other} {sentence} {other}")
    assert "repeats itself" not in labels(f"{sentence} {other} So it is 35, and I am done with it. {sentence}")
    fifteen = "This is the one long sentence that comes again, and it has fifteen words in all."
    others = " ".join(f"Here is number {n}, which is a sentence of its own." for n in range(9))
    assert "repeats itself" not in labels(f"{fifteen} {others} {fifteen}")
    assert "repeats itself" in labels(f"{fifteen} {fifteen}")
    counting = " ".join(f"The chance of drawing a {n} is one in six." for n in range(1, 7))
    assert "repeats itself" not in labels(counting)
    code = "\n".join(["    result = result.replace(first, second, and_third)"] * 9)
    assert "repeats itself" not in labels(f"It is:\n```python\n{code}\n```")
    assert "repeats itself" not in labels("|---|---|---|---|---|---|---|---|\n" * 9)


# --- truncated -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,what",
    [
        ("So we write\n```python\nprint(1)", "code"),
        ("So we write\n````\n```\nprint(1)\n```", "code"),
        ("~~~\nx", "code"),
        ("So we write: ```python\nprint(1)", "code"),
        ("Therefore \\[ x = 2", "formula"),
        ("Therefore \\( x = 2", "formula"),
        ("Therefore $$ x = 2", "formula"),
        ("Therefore $$x = 2", "formula"),
        ("\\begin{align} x &= 2", "formula"),
        ("1. Count the boxes.\n2. Count the pens.\n3.", "list"),
        ("The pens are in the boxes, and the boxes are in the", "sentence"),
        ("The pens are in the boxes, because", "sentence"),
        ("Now we have to calculate 3 times 14 +", "sentence"),
        ("The boxes hold pens (and also,", "sentence"),
        (
            "The boxes hold a lot of pens.\nThey are quite full of them.\nAll of them are full of what she bought",
            "sentence",
        ),
    ],
)
def test_what_is_cut_off_is_seen(text, what):
    assert cut_off(text) == what and cut_off(text + " \n") == what
    assert "truncated" in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "35",
        "There are 35 pens left",
        "The answer is 35.",
        "So she has $42 - 7 = 35$",
        "So she has \\(42 - 7 = 35\\)",
        "So she has\n\\[42 - 7 = 35\\]",
        "$$x = 35$$",
        "It costs $5 or $6, so $30",
        "1. Count the boxes.\n2. Count the pens.\n3. Take the gift away",
        "- boxes\n- pens\n- what is left of",
        "Final answer:\n42 - 7 = 35 pens",
        "This is the way:\n```python\nprint(42 - 7)\n```",
        "This is the way: ```python\nprint(42 - 7)\n```",
        "This is the way:\n```python\nprint(42 - 7) ```",
        "Use `counts.get(key,` with a default, such as `0,`",
        "Escape it: in a regular expression a\\( is a bracket, and so is x\\[ too",
        "Have a look at https://example.org/the/page/of-the",
        "| pens | boxes |\n|---|---|\n| 14 | 3 |",
        "It is what the boxes are for. That is what I was thinking of",
        "Do this and it works. Then just restart the server and reload the page",
        "hope this helps you to find what you are looking for",
        "Restart the server and reload it\n\nIt worked for me at once. It did so always. Hope this helps",
        "They differ in what they are made from! Yes (really)",
        "\u4e00\u5171\u6709\u4e09\u5341\u4e94\u652f\u7b14",
        "## Steps\n\nCount the pens of the\n\n## End",
    ],
)
def test_what_is_whole_is_not_taken_for_cut_off(text):
    assert cut_off(text) is None


def test_a_teacher_may_leave_a_calculation_to_the_student():
    assert "truncated" not in labels("So 3 boxes of 14 pens, 3 x 14 =", "teacher")
    assert "truncated" in labels("So 3 boxes of 14 pens, 3 x 14 =", "student")


# --- language ------------------------------------------------------------------------------------

GERMAN = ("In den drei Schachteln sind zusammen zweiundvierzig Stifte. Davon verschenkt sie sieben, deshalb bleiben "
          "ihr am Ende noch genau so viele Stifte, wie in der Antwort steht.")  # fmt: skip
CHINESE = "盒子里一共有四十二支笔，送走七支，剩下三十五支。"


def test_another_language_is_found_by_its_words_or_letters():
    assert other_language(GERMAN, "English", QUESTION) and "other language" in labels(GERMAN)
    assert other_language(CHINESE, "English", QUESTION) == "Chinese or Japanese letters"
    assert other_language("So it is 42 - 7 \u7b49\u4e8e 35 pens.", "English", QUESTION) == "Chinese or Japanese letters"
    assert (
        other_language("\u0412 \u043a\u043e\u0440\u043e\u0431\u043a\u0430\u0445", "English", QUESTION)
        == "Cyrillic letters"
    )
    assert other_language(ANSWER * 2, "German", "Wie viele Stifte hat Mara noch?")
    assert other_language(CHINESE * 2, "German", "Wie viele Stifte hat Mara noch?")


def test_the_language_that_is_wanted_is_none():
    assert other_language(GERMAN, "German", QUESTION) is None
    assert other_language(CHINESE, "Simplified Chinese", QUESTION) is None
    assert other_language(ANSWER, "simple English", QUESTION) is None
    assert other_language(GERMAN, "Klingon", QUESTION) is None  # has no code: not looked at


def test_what_the_question_has_an_answer_may_have():
    assert other_language(CHINESE, "English", "What does \u76d2\u5b50 mean?") is None
    assert other_language(GERMAN, "English", f"{QUESTION} Answer in German.") is None
    assert other_language(GERMAN, "English", GERMAN) is None


@pytest.mark.parametrize(
    "text",
    [
        "Guten Tag, das sind wenige Worte.",
        "\u03b1 + \u03b2 = \u03c0, and \u2203x \u2208 \u211d: \u03b1x > 0",
        f"It says \u201c{GERMAN}\u201d on the box.",
        f"```\n{GERMAN}\n{CHINESE}\n```",
        "x = 5, y = 7, x + y = 12, 12 - 3 = 9, 9 / 3 = 3, so n = 3 km " * 3,
        "\\frac{a}{b} \\cdot \\sin(x) " * 20,
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. " * 2,
        "we use it in this sentence because the teacher said that das Auto der Hund die Katze das Haus der Baum die "
        "Blume das Kind der Mann das Auto der Hund die Katze",
        "int main(void) { return printf(x); } " * 8,
        "Café, naïve and Zürich are words that one may use in an English text, and so is déjà vu.",
        "",
    ],
)
def test_nothing_is_said_where_nothing_is_sure(text):
    assert other_language(text, "English", QUESTION) is None


def test_every_name_of_a_language_has_a_code_of_its_own():
    assert len(set(LANGUAGES.values())) == len(LANGUAGES) > 60
    assert [code_of(name) for name in ("English", "brazilian portuguese", "Klingon", "")] == ["en", "pt", None, None]


# --- prose ---------------------------------------------------------------------------------------


def test_money_is_no_formula():
    assert without_formulas("It costs $5 and $6.") == "It costs $5 and $6."
    assert without_formulas("It is $x$ and $6.").replace(" ", "") == "Itisand$6."
    assert prose('a "quoted text" `code` <b>b</b> https://x.org/y c').split() == ["a", "b", "c"]


@given(st.text(alphabet=st.sampled_from(list('ab `~\n$\\[]()"<>\u00e9\u4e00\r\u2028')), max_size=60))
def test_places_stay_whatever_is_blanked(text):
    for blank in (without_code, without_formulas, prose):
        left = blank(text)
        assert len(left) == len(text)
        assert all(new in (old, " ") for new, old in zip(left, text, strict=True))
    assert without_code(without_code(text)) == without_code(text) or "`" in text or "~" in text


@given(st.lists(st.sampled_from(["```", "```py", "~~~", "x", "", "````", "> ```"]), max_size=8))
def test_a_fence_that_is_open_hides_what_follows(lines):
    text = "\n".join(lines)
    hidden = without_code(f"{text}\nWORD")
    assert ("WORD" not in hidden) == open_fence(text)


# --- any text ------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [*QUESTION.split(), "35", "14", "the answer is", "Teacher:", "\n", "```", "$", "\\[", "\\]", "I", "cannot help",
     "as an AI", "\u4e00\u4e8c", "\u0000", "\ud800", "- ", "1.", "**", "\"", "<|im_start|>", "%", "1/0", "\\frac{1}{0}"]
)  # fmt: skip
SPOKEN = st.lists(WORDS, max_size=25).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(SPOKEN, min_size=1, max_size=4), SPOKEN, st.none() | SPOKEN)
def test_any_dialogue_can_be_looked_at_and_always_gives_the_same(said, question, final):
    record = asking(question, "It is so.", final)
    one = dialogue(*(("teacher", text) for text in said), record=record, related=RECORD)
    found = roles.look(one, {"teacher": question})
    assert found == roles.look(one, {"teacher": question})
    assert all(finding.label in roles.LABELS and 0 <= finding.turn < len(said) for finding in found)


@pytest.mark.parametrize(
    "piece", ["\\(", "$", "```", '"', "<a", "1 ", "1/", "(", "- ", "answer is ", "a.", "\n", "Student", "\\begin{a}"]
)
def test_long_text_of_one_kind_ends_in_time(piece):
    """Patterns that go back and forth would take hours here."""
    labels(piece * 20_000, "teacher")
