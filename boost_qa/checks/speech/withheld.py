"""Does a teacher say the result that the student is to find?

A number may stand in a text without being the result, so that what counts depends on the result:

* one that stands neither in the question nor in what was said before: any mention of it;
* a whole number up to 12, which is in every text: where it is what something comes to ("you get 3", "= 3");
* one that stands in the question, "yes", or the letter of a choice: where it is called the answer, result or solution.

A student who has come to the result already is given nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from boost_qa.checks.speech.prose import without_code

SMALL = 12
"""The largest whole number that is taken for an ordinary one."""
LONGEST = 100
"""Characters of a number."""

_NUMBER = re.compile(
    r"(?<![\w.,^_])(\d{1,3}(?:,\d{3})+(?!\d)|\d+)(\.\d+)?(?:\s?/\s?([1-9]\d*)(?![\d/]))?(?![.,]?\d)(?!(?:st|nd|rd|th)\b)"
    r"(\s?\\?%|\s+per ?cent\b)?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*([1-9]\d*)\s*\}")
_MIXED = re.compile(r"(?<![\w.,/])(\d+)\s+(\d+)/([1-9]\d*)(?![\d/])")
_WRAPPED = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\s*\{([^{}]*)\}|\\[,;!() ]|[$£€]")
_UNIT = re.compile(r"[\s\u00b0]*[A-Za-z\u00b0\u00b2\u00b3/^2. -]{0,30}")
_COMMON = frozenset((
    "yes", "no", "true", "false", "none", "all", "both", "more", "less", "same", "left", "right", "even", "odd",
    "zero", "one", "two", "three"
))  # fmt: skip
_LABEL = re.compile(
    r"(?:\b(?:step|line|part|question|problem|equation|figure|section|page|chapter|item|row|column|exercise|rule|no\.)"
    r"\s*\(?|#)\Z",
    re.IGNORECASE,
)
_COMES_TO = re.compile(
    r"(?:=|\u2248|\b(?:gets?|got|obtain|gives?|makes?|leaves?|yields?|equals?|is|are|was|be|been|find|found|"
    r"totals?|comes? to|adds? up to|amounts? to))[\s:$£€*(]*"
    r"(?:(?:exactly|only|just|about|to|a total of|equal to)\s+)*\Z",
    re.IGNORECASE,
)
_CALLED = re.compile(
    r"\b(?:answer|result|solution|correct (?:option|choice|one))\b(?![^.!?\n]*\b(?:not|isn)\b)(?![^.!?\n]*n't\b)"
    r"[^.!?\n]{0,40}?(?:\b(?:is|was|be|been|equals)\b|[=:])[\s:$£€*\"'(]*"
    r"(?:\w+\s+){0,2}[\s$£€*\"'(]*\Z",
    re.IGNORECASE,
)
_CALLED_AFTER = re.compile(
    r"[\s)*\"'.]*(?:\w+\s+)?\bis\s+(?:indeed\s+)?(?:the\s+)?(?:correct|right|final|answer|result|solution)\b",
    re.IGNORECASE,
)


def gives_away(text: str, final: str, question: str, earlier: Sequence[str] = ()) -> str | None:
    """The words by which `text` says the result `final`; None where it does not.

    Args:
        text: what the teacher said, without the question.
        final: the bare result, as `Record.final` has it.
        question: what was asked.
        earlier: what was said before, the last turn last.
    """
    value = _value(final)
    if value is None:
        return _text_given(text, final, question, earlier)
    if earlier and (reached := [number for _, _, number in _numbers(earlier[-1])]) and reached[-1] == value:
        return None
    known = {number for said in (question, *earlier) for _, _, number in _numbers(said)}
    small = value.denominator == 1 and abs(value) <= SMALL
    text = without_code(text)
    for start, end, number in _numbers(text):
        divides = number.denominator == 1 and "/" in text[start:end]  # "What is 24/4?" leaves it to the student
        if number == value and not divides and not _is_label(text, start, end):
            before = text[max(0, start - 100) : start].rstrip("-\u2212")
            called = _CALLED.search(before) or _CALLED_AFTER.match(text, end)
            if called or (value not in known and (not small or _COMES_TO.search(before))):
                return text[max(0, start - 60) : end + 20]
    return None


def _text_given(text: str, final: str, question: str, earlier: Sequence[str]) -> str | None:
    """The same for a result that is no number: words, a choice, a list, an expression."""
    tokens = re.findall(r"\w+|[^\w\s]", _bare(final))
    if not tokens:
        return None
    edges = [r"(?<!\w)" if tokens[0][0].isalnum() else "", r"(?!\w)" if tokens[-1][-1].isalnum() else ""]
    wanted = re.compile(edges[0] + r"\s*".join(map(re.escape, tokens)) + edges[1], re.IGNORECASE)
    ordinary = len("".join(tokens)) < 4 or "".join(tokens).lower() in _COMMON
    if earlier and any(wanted.search(line) for line in earlier[-1].splitlines()[-1:]):
        return None
    known = any(wanted.search(said) for said in (question, *earlier))
    for found in wanted.finditer(text):
        before = text[max(0, found.start() - 100) : found.start()]
        if not (known or ordinary) or _CALLED.search(before) or _CALLED_AFTER.match(text, found.end()):
            return text[max(0, found.start() - 60) : found.end() + 20]
    return None


def _bare(final: str) -> str:
    r"""A result without `\boxed{}`, signs of money and the full stop."""
    return _WRAPPED.sub(lambda found: found[1] or "", final).strip().rstrip(".")


def _value(final: str) -> Fraction | None:
    """The number that a result is, its unit left aside; None where it is none, or several."""
    bare = _bare(final)
    whole = _MIXED.match(bare, _unsigned(bare)) or _FRACTION.match(bare, _unsigned(bare))
    whole = whole or _NUMBER.match(bare, _unsigned(bare))
    if whole is None or not _UNIT.fullmatch(bare[whole.end() :]):
        return None
    return next((value for start, end, value in _numbers(bare) if (start, end) == whole.span()), None)


def _unsigned(bare: str) -> int:
    return len(bare) - len(bare.lstrip("-\u2212 "))


def _numbers(text: str) -> Iterator[tuple[int, int, Fraction]]:
    """Where numbers stand, and their values; a percentage has two: 25 and 1/4."""
    for found in _short(_NUMBER, text):
        sign = _sign(text, found.start())
        value = sign * Fraction(found[1].replace(",", "") + (found[2] or "")) / int(found[3] or 1)
        yield found.start(), found.end(), value
        if found[4]:
            yield found.start(), found.end(), value / 100
    for found in _short(_FRACTION, text):
        yield found.start(), found.end(), _sign(text, found.start()) * Fraction(int(found[1]), int(found[2]))
    for found in _short(_MIXED, text):
        value = int(found[1]) + Fraction(int(found[2]), int(found[3]))
        yield found.start(), found.end(), _sign(text, found.start()) * value


def _short(number: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Those that can be a result; Python refuses to read a number of more than 4,300 digits."""
    return (found for found in number.finditer(text) if found.end() - found.start() <= LONGEST)


def _sign(text: str, start: int) -> int:
    """-1 where a minus stands before the number and nothing that it would be taken from."""
    return -1 if re.search(r"(?:\A|[^\w)\]}])[-\u2212]\Z", text[max(0, start - 3) : start].rstrip("$£€")) else 1


def _is_label(text: str, start: int, end: int) -> bool:
    """Whether a number counts steps, lines or items rather than anything of the question."""
    begins_item = text[end : end + 1] in (".", ")") and not text[text.rfind("\n", 0, start) + 1 : start].strip(" \t*(")
    return begins_item or _LABEL.search(text[max(0, start - 20) : start]) is not None
