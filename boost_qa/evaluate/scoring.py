"""What a reply answers: the letter of an option, or Python code. Pure functions of the reply.

Multiple choice is read in two ways. `bracket` is the paper's: a letter in square brackets. `lenient` takes any way of
naming one option that cannot mean anything else; between both lies what a broken answer format costs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from textwrap import dedent

_FENCE = re.compile(
    r"^([ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?)```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("python", "py", "python3", "")
_NAMED = """__import__("sys").modules["candidate"] = __import__("sys").modules[__name__]
__name__ = "candidate"
"""
"""Another name for the module, under which what looks for the module of a class finds it (`dataclass` does)."""


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
    """The Python in a reply: its last fenced block that parses and defines `entry`, or any function or class where no
    name is given, or parses at all; without a fence, the reply itself if it parses as code that does something. None if
    there is none.

    Code that goes on from a function's signature and docstring parses once it is set under one. A block in an item of a
    list is indented as a whole.
    """
    fenced = [(before, code) for before, language, code in _FENCE.findall(reply) if language.lower() in _PYTHON]
    blocks = fenced or [("", reply)]
    whole: list[str] = [text for _, code in blocks if (text := next(filter(_parses, (code, dedent(code))), None))]
    if defining := [text for text in whole if _defines(text, entry)]:
        return defining[-1]
    if entry:
        both = [(code, re.sub(rf"^[ \t]{{,{len(before)}}}", "", code, flags=re.MULTILINE)) for before, code in blocks]
        bodies: list[str] = [text for texts in both if (text := next(filter(_is_body, texts), None))]
        if bodies:
            return bodies[-1]
    return whole[-1] if whole else None


def program(code: str, start: str, entry: str) -> str:
    """Code to run before the tests. It is not the main program: what it does only as one is a demonstration.

    `start` ends in the docstring of a function: code that defines `entry` itself stands behind it, so that imports and
    helpers of `start` are there; other code is the function's body.
    """
    future, rest = _future(code)
    named = f"{future}{_NAMED}"
    if not start:
        return f"{named}{rest}"
    if _defines(code, entry):
        return f"{named}{start}\n    pass\n\n{rest}\n"
    return f"{named}{start}\n{rest}\n"


def _future(code: str) -> tuple[str, str]:
    """Its imports from `__future__`, which have to stand before all else in a program, and the rest."""
    tree = _tree(code)
    body = [] if tree is None else tree.body  # that of a function does not parse alone
    first = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    if not first:
        return "", code
    rest: list[ast.stmt] = [node for node in body if node not in first]
    return f"{ast.unparse(ast.Module([*first], []))}\n", f"{ast.unparse(ast.Module(rest, []))}\n"


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


def _defines(code: str, entry: str) -> bool:
    """Whether it has the function `entry`, or any function or class where no name is given."""
    what = rf"def\s+{re.escape(entry)}\b" if entry else r"(?:def|class)\b"
    return re.search(rf"^(?:async\s+)?{what}", code, re.MULTILINE) is not None


def _parses(code: str) -> bool:
    """Whether it is Python that does something."""
    tree = _tree(code)
    return tree is not None and any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body
    )


def _is_body(code: str) -> bool:
    """Whether it is Python once it stands in a function, and has statements for it."""
    tree = _tree(f"def f():\n    pass\n{code}")
    if tree is None or len(tree.body) != 1:
        return False
    first = tree.body[0]
    return isinstance(first, ast.FunctionDef) and len(first.body) > 1


def _tree(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
