"""Does a text come to the result that its question has? Decided by math-verify, or by the letter of an option.

Three answers: right, wrong, and unknown, which is said with its reason wherever the text or the reference leaves room
for doubt. "Wrong" needs more than that no equality was found: both sides must have numbers that differ. Free text and
code are unknown here; a judge reads the one (`answers.judged`), and the other is a check of its own.

This can hang or exhaust the memory (`9^{9^{9^9}}`), so it runs in `engines.workers`; nothing heavy is imported before
two formulas meet.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from boost_qa.checks.results.choices import chosen, options
from boost_qa.checks.results.extract import Final, final
from boost_qa.checks.results.notation import in_order, plain_words, without_units
from boost_qa.checks.results.quantities import FACTORS, Quantity
from boost_qa.checks.results.statements import bare

Kind = Literal["math", "choice", "code", "text"]
LONGEST = 100_000
"""Characters of question, reference and text together; more are not compared."""
FORMULA = 600
"""Characters of a formula that is given to math-verify."""

_ASKS_FOR_A_NUMBER = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|fast|often|big|wide|deep|heavy|large)\b|"
    r"\b(?:find|calculate|compute|determine|evaluate|solve|simplify|estimate)\b|"
    r"\b(?:what|which) (?:is|are|was|will be|would be|percent\w*|fraction|number|time|age|value)\b.*(?:\d|\b(?:value|"
    r"number|sum|total|cost|price|difference|product|ratio|average|probability|perimeter|area|volume|age))",
    re.IGNORECASE | re.DOTALL,
)  # fmt: skip
_CODE = re.compile(r"^\s*(?:```|def \w+\(|class \w+[:(]|import \w+|#include|public |function \w+\()", re.MULTILINE)
_LETTER = re.compile(r"[\s(\[]*[A-J][\s).\]]*")
_SAID = ("boxed", "hash", "said", "bare")
_ORDER = "equal but for the order"
_CALCULATED = (*_SAID, "equals", "last line")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether a text agrees with the reference answer of its question.

    `expected` and `found` are the two results as they are written, empty where there is none; `why` says how it was
    decided, or why it was not.
    """

    verdict: Literal["right", "wrong", "unknown"]
    kind: Kind
    expected: str
    found: str
    why: str = ""


def compare(question: str, reference: str, result: str | None, text: str) -> Agreement:
    """Compare the result of `text` with the one of `reference`, or with `result` where that is known."""
    if len(question) + len(reference) + len(text) + len(result or "") > LONGEST:
        return Agreement("unknown", "text", "", "", f"longer than {LONGEST:,} characters")
    if (listed := options(question)) and (agreed := _by_choice(listed, reference, result, text)):
        return agreed
    expected = Final((bare(result),), "bare") if result and result.strip() else final(reference, question)
    kind = _kind(question, reference, result, expected)
    if kind == "code":
        return Agreement("unknown", kind, "", "", "code: another check runs it")
    if kind == "text":
        return _by_words(expected, reference, text)
    agreed = _by_math(expected, final(text, question), "math")
    if agreed.verdict != "right" and "".join((result or "").split()) == "".join(text.split()) != "":
        return dataclasses.replace(agreed, verdict="right", why="")
    if agreed.verdict == "wrong" and _LETTER.fullmatch(agreed.expected):
        return dataclasses.replace(agreed, verdict="unknown", why="the result is a letter, and no options were found")
    return agreed


def prepare() -> None:
    """Import what takes long to import; raises ModuleNotFoundError where math-verify is not installed."""
    import math_verify

    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)  # it warns of having no time limit


def answer(payload: str) -> str:
    """`compare` from JSON to JSON: `question`, `reference`, `final`, `text`; gives the fields of Agreement."""
    asked = json.loads(payload)
    agreed = compare(asked["question"], asked["reference"], asked["final"], asked["text"])
    return json.dumps(dataclasses.asdict(agreed), ensure_ascii=False)


def _kind(question: str, reference: str, result: str | None, expected: Final) -> Kind:
    if result and result.strip():
        return "math" if expected.results[0].math else "text"
    math = bool(expected.results) and all(one.math for one in expected.results)
    if _CODE.search(reference) and not (math and expected.how in ("boxed", "hash")):
        return "code"
    if not math:
        return "text"
    return "math" if expected.how in _CALCULATED or _ASKS_FOR_A_NUMBER.search(question) else "text"


# --- multiple choice -----------------------------------------------------------------------------


def _by_choice(listed: dict[str, str], reference: str, result: str | None, text: str) -> Agreement | None:
    """None where the reference is none of the options: then the question only looks like multiple choice."""
    known = bool(result and result.strip())
    wanted = chosen(result or "", listed, bare=True) if known else chosen(reference, listed)
    if len(wanted) != 1:
        return None
    letter = wanted[0]
    given = chosen(text, listed)
    if len(given) == 1:
        equal = given[0] == letter or " ".join(listed[given[0]].split()) == " ".join(listed[letter].split())
        return Agreement("right" if equal else "wrong", "choice", letter, given[0])
    if len(given) > 1:
        return Agreement("unknown", "choice", letter, ", ".join(given), "it names several options")
    option = Final((bare(listed[letter]),), "bare")
    agreed = _by_math(option, final(text), "choice")
    if agreed.verdict == "unknown":
        return Agreement("unknown", "choice", letter, agreed.found, "it names none of the options")
    return dataclasses.replace(agreed, expected=f"{letter}: {agreed.expected}")


# --- numbers and formulas ------------------------------------------------------------------------


def _by_math(expected: Final, found: Final, kind: Kind) -> Agreement:
    wanted, given = expected.results, found.results
    said, got = "; ".join(one.written for one in wanted), "; ".join(one.written for one in given)

    def say(verdict: Literal["right", "wrong", "unknown"], why: str = "") -> Agreement:
        return Agreement(verdict, kind, said[:FORMULA], got[:FORMULA], why)

    if (len(wanted) > 1) != (len(given) > 1):  # {2, 3}, and "2 or 3"
        together = same(_together(expected), _together(found))
        if together in ("equal", "reordered"):
            return say("right") if together == "equal" else say("unknown", _ORDER)
    if not wanted:
        return say("unknown", "the reference has no final result")
    if not given:
        return say("unknown", "it has no final result")
    if len(wanted) > 1:
        pairs = [same(a, b) for a, b in zip(wanted, given, strict=False)]
        if len(wanted) == len(given) and all(pair == "equal" for pair in pairs):
            return say("right")
        if expected.either and found.either and same(_together(expected), _together(found)) == "equal":
            return say("right")
        return say("unknown", "the reference names several results")
    verdicts = {same(wanted[0], one) for one in given}
    if verdicts == {"equal"}:
        return say("right")
    if verdicts == {"different"}:
        if not found.firm or not expected.firm:
            return say("unknown", "it may not be the final result" if expected.firm else "of the reference's result")
        return say("wrong", "it names several results, none of them right" if len(given) > 1 else "")
    if len(given) > 1:
        return say("unknown", "it names several results")
    if verdicts == {"near"}:
        return say("unknown", "equal only as rounded")
    return say("unknown", _ORDER if verdicts == {"reordered"} else "the two cannot be compared")


def _together(found: Final) -> Quantity:
    """All results as one formula, if they all are formulas: a set where they are alternatives."""
    math = ", ".join(one.math for one in found.results)
    if found.either and len(found.results) > 1:
        math = rf"\{{{math}\}}"
    return Quantity(math, math if all(one.math for one in found.results) else "")


@lru_cache(maxsize=4096)
def same(wanted: Quantity, given: Quantity) -> Literal["equal", "near", "reordered", "different", "unclear"]:
    """Compare two results by math-verify; `near` are numbers that one of them rounds, `reordered` the same numbers."""
    if not wanted.math or not given.math:
        alike = " ".join(wanted.written.lower().split()) == " ".join(given.written.lower().split())
        return "equal" if alike else "unclear"
    if numbers := without_units(wanted.math, given.math):
        verdict = same(*numbers[:2])
        return "unclear" if numbers[2] in ("all", verdict) else verdict
    if (ordered := in_order(wanted.math, given.math)) is not None:
        return ordered
    if wanted.unit == given.unit and wanted.value is not None and given.value is not None:
        return _formulas(f"{wanted.value:f}", f"{given.value:f}")  # 24% are not 20%, though 0.24 may be rounded to 0.2
    verdicts = [_formulas(a, b) for a in _forms(wanted) for b in _forms(given)]
    ranked: tuple[Literal["equal", "near", "unclear"], ...] = ("equal", "near", "unclear")
    return next((verdict for verdict in ranked if verdict in verdicts), "different")


def _forms(one: Quantity) -> list[str]:
    """A number in its unit, and as the number that it comes to: 50 cents are 0.5, too."""
    if one.value is None:
        return [one.math]
    values = [one.value, one.value * FACTORS[one.unit]] if one.unit else [one.value]
    return [f"{value:f}" for value in values]


def _formulas(a: str, b: str) -> Literal["equal", "near", "different", "unclear"]:
    from math_verify import verify

    gold, target = _parsed(a), _parsed(b)
    if gold is None or target is None:
        return "equal" if "".join(a.split()) == "".join(b.split()) else "unclear"
    if verify(gold, target, timeout_seconds=None):
        return "equal"
    x, y = _real(a, gold), _real(b, target)
    if x is not None and y is not None:
        return _rounded(x if _decimal(a) is None else x.normalize(), y)
    return "different" if _differ(gold, target) else "unclear"


@lru_cache(maxsize=4096)
def _parsed(math: str) -> Any:
    """What math-verify reads in a formula; None if it reads nothing, or only words."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    if len(math) > FORMULA:
        return None
    if _decimal(math) is not None:
        found = parse(math, [ExprExtractionConfig()], parsing_timeout=None, fallback_mode="no_fallback")
    else:
        config = [LatexExtractionConfig()]
        found = parse(f"${math}$", config, parsing_timeout=None, fallback_mode="no_fallback")
    if not found or any(len(str(symbol)) > 6 for symbol in getattr(found[0], "free_symbols", ())):
        return None  # a long symbol is a word
    return found[0]


def _decimal(math: str) -> Decimal | None:
    return Quantity(math, math).value


def _real(math: str, expression: Any) -> Decimal | None:
    """A number as it is written, or the value of an expression to 15 decimals; None for all but real numbers."""
    if (written := _decimal(math)) is not None:
        return written
    values = None if getattr(expression, "free_symbols", True) else _numbers(expression)
    return Decimal(f"{values[0].real:.15f}") if values and len(values) == 1 and not values[0].imag else None


def _rounded(wanted: Decimal, given: Decimal) -> Literal["equal", "near", "different"]:
    """Of two numbers that differ: whether one is the other, rounded; equal if that is to two decimals at least."""
    exact, said = _decimals(wanted), _decimals(given)
    places = min(exact, said)
    if exact == said or exact == 0 or abs(wanted - given) > Decimal("0.50001").scaleb(-places):
        return "different"  # for seven, 7.4 is wrong
    return "equal" if places >= 2 and abs(wanted - given) <= abs(wanted) * Decimal("0.005") else "near"


def _decimals(number: Decimal) -> int:
    return max(0, -int(number.as_tuple().exponent))


def _differ(a: Any, b: Any) -> bool:
    """Whether two expressions have numbers that differ, at one place of their variables; not if any has no number."""
    x, y = _numbers(a), _numbers(b)
    if x is None or y is None:
        return False
    return len(x) != len(y) or any(abs(p - q) > 1e-6 * max(1.0, abs(p), abs(q)) for p, q in zip(x, y, strict=True))


def _numbers(expression: Any) -> list[complex] | None:
    """The value of an expression, or those of the members of a set or tuple, sorted; None if it has none."""
    if getattr(expression, "is_Relational", False):
        if not getattr(expression.lhs, "is_Symbol", False):
            return None
        expression = expression.rhs
    kind = type(expression).__name__
    parts = expression.args if kind in ("FiniteSet", "Tuple") else (expression,)
    parts = (expression.start, expression.end) if kind == "Interval" else parts
    try:
        values = []
        for part in parts:
            symbols = sorted(part.free_symbols, key=str)
            place = {symbol: 0.7391 + 0.1237 * at for at, symbol in enumerate(symbols)}
            values.append(complex(part.subs(place).evalf()))
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        return None
    if any(value != value or abs(value) == float("inf") for value in values):
        return None
    return sorted(values, key=lambda value: (value.real, value.imag))


# --- words ---------------------------------------------------------------------------------------


def _by_words(expected: Final, reference: str, text: str) -> Agreement:
    """The same short words are right; all else is for a judge."""
    wanted = expected.results[0].written if expected.how in _SAID and len(expected.results) == 1 else reference
    said = final(text)
    given = said.results[0].written if said.how in _SAID and len(said.results) == 1 else text
    words = plain_words(wanted) if len(wanted) <= FORMULA else ""
    if words and words in (plain_words(each) for each in (given, text) if len(each) <= 2 * FORMULA):
        return Agreement("right", "text", wanted, given, "the same words")
    return Agreement("unknown", "text", wanted[:FORMULA], "", "free text: a judge decides")
