"""What a reply answers: the letter of an option, or Python code. Pure functions of the reply.

Multiple choice is read in two ways. `bracket` is the paper's: a letter in square brackets. `lenient` takes any way of
naming one option that cannot mean anything else; between both lies what a broken answer format costs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = ("python", "py", "python3", "")


def bracket(reply: str, letters: str) -> str | None:
    """The last of `letters` that stands in square brackets (MASTER, Figure 6); None if there is none."""
    found = re.findall(rf"\[\s*([{letters}])\s*\]", reply)
    return found[-1] if found else None


def lenient(reply: str, options: Sequence[str], letters: str) -> str | None:
    """The letter that a reply settles on, however it says so; None where it names none, or several at once.

    Tried in turn: square brackets, `\\boxed{B}` and "answer is (B)", the last of each; "option B" and its like, a line
    that is a letter alone, and one that begins with it as a label, each if the reply so names one option only; the
    text of exactly one option at the reply's end. An I before a word in lower case is whoever speaks, not an option.
    """
    if (letter := bracket(reply, letters)) is not None:
        return letter
    one = rf"[*_`\"'$({{\[]*(?:\\text(?:bf)?\{{)?([{letters}])(?![\w'\u2019]|(?<=I)[ \t]+[a-z])"
    answer = r"\b(?i:answer(?:\s+is)?)\s*[:=]?\s*(?:(?i:option|choice)\s+)?"
    for pattern in (rf"\\boxed\{{\s*{one}", answer + one):
        if found := re.findall(pattern, reply):
            return str(found[-1])
    named = rf"\b(?i:(?:option|choice|select|choose)(?:\s+is)?)\s*[:=]?\s*{one}"  # also of those that it rejects
    for pattern in (named, rf"^\W*([{letters}])\W*$", rf"^[\s*(]*([{letters}])[.):]"):
        if names := set(re.findall(pattern, reply, re.MULTILINE)):
            return str(names.pop()) if len(names) == 1 else None
    return _by_text(reply, options, letters)


def most_likely(scores: Sequence[float]) -> int | None:
    """The place of the largest score; None where two are largest, or one is not a number."""
    best = max(scores, default=float("nan"))
    places = [place for place, score in enumerate(scores) if score == best]
    return places[0] if len(places) == 1 and all(score == score for score in scores) else None


def python_code(reply: str, entry: str = "") -> str | None:
    """The Python in a reply: its last fenced block that parses and defines `entry`, or parses at all; without a
    fence, the reply itself if it parses as code that does something. None if there is none.

    Code that goes on from a function's signature and docstring parses once it is set under one.
    """
    blocks = [code for language, code in _FENCE.findall(reply) if language.lower() in _PYTHON] or [reply]
    whole = [code for code in blocks if _parses(code)]
    defining = [code for code in whole if re.search(rf"^(?:async\s+)?def\s+{re.escape(entry)}\b", code, re.MULTILINE)]
    if entry and defining:
        return str(defining[-1])
    if entry and (bodies := [code for code in blocks if _parses(f"def f():\n    pass\n{code}", inside=True)]):
        return str(bodies[-1])
    return str(whole[-1]) if whole else None


def program(code: str, start: str, entry: str) -> str:
    """Code to run before the tests.

    `start` ends in the docstring of a function: code that defines `entry` itself stands behind it, so that imports and
    helpers of `start` are there; other code is the function's body.
    """
    if not start:
        return code
    if re.search(rf"^(?:async\s+)?def\s+{re.escape(entry)}\b", code, re.MULTILINE):
        return f"{start}\n    pass\n\n{code}\n"
    return f"{start}\n{code}\n"


def _by_text(reply: str, options: Sequence[str], letters: str) -> str | None:
    last = _plain(reply.strip().rpartition("\n")[2])
    ends = [
        (len(text), letter)
        for letter, option in zip(letters, options, strict=True)
        if (text := _plain(option)) and re.search(rf"(?<!\w){re.escape(text)}$", last)
    ]
    longest = max(ends, default=(0, ""))[0]  # "12" ends in "2", too: the longer text is what is said
    found = [letter for length, letter in ends if length == longest]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"[\s.$*`\"']+", " ", text).strip().casefold()


def _parses(code: str, inside: bool = False) -> bool:
    """Whether it is Python that does something; `inside`: and has more statements than the one around it."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if inside:
        first = tree.body[0]
        return len(tree.body) == 1 and isinstance(first, ast.FunctionDef) and len(first.body) > 1
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body)
