"""What mathematics would misread: words with signs, lists that have an order, numbers in squared units.

math-verify reads "1, 2, 3" as a set, "3 2 1" as a product, and cm^2 as c times m^2.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from boost_qa.checks.results.quantities import Quantity, plain_text
from boost_qa.checks.results.statements import POWER_OF_UNIT

_AROUND = re.compile(r"(?<!\w)(\*{1,3}|`{1,3}|\$\$?|[\"'])(?=\S)([^\n]{0,300}?[^\s*`$])\1(?!\w)")
_IN_ORDER = re.compile(r"-?\d+(?:\.\d+)?(?:(?:\s*,\s*-?\d+(?:\.\d+)?)+|(?P<spaced>(?:\s+\d+(?:\.\d+)?)+))")
_NUMBER = re.compile(r"(?P<number>-?(?:\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\})?(?:\\pi|\\sqrt\{\d+\})?)(?<=[\w}])")
_MEASURE = re.compile(rf"{_NUMBER.pattern}\s*(?P<unit>{POWER_OF_UNIT})")
_TEXT_OR_SPACE = re.compile(r"\\(?:text|mathrm|mbox)\s?\{\s*([^{}]*)\}|\\[,;!: ]")


def plain_words(text: str) -> str:
    """The words of a text without the quotation, punctuation and Markdown around them; signs stay: C# is not C."""
    text = re.sub("[\u201c\u201d\u00ab\u00bb]", '"', plain_text(text.replace("\u2018", "'")).lower()).strip()
    text = _AROUND.sub(r"\2", re.sub(r"[,;](?!\d)", " ", text))
    words = (word.rstrip(".,;:!?") for word in text.split())
    text = " ".join(word for word in words if word)
    return text[1:-1] if re.fullmatch(r"\([^()]*\)", text) else text


def in_order(wanted: str, given: str) -> Literal["equal", "reordered", "different", "unclear"] | None:
    """Compare two lists of numbers without brackets, member by member; None where there is no such list."""
    lists = [_IN_ORDER.fullmatch(math.strip()) for math in (wanted, given)]
    if not all(lists):
        return "unclear" if any(each and each["spaced"] for each in lists) else None
    a, b = ([Decimal(each) for each in re.split(r"\s*,\s*|\s+", math.strip())] for math in (wanted, given))
    if a == b:
        return "equal"
    return "reordered" if sorted(a) == sorted(b) else "different"


def without_units(wanted: str, given: str) -> tuple[Quantity, Quantity, Literal["", "equal", "all"]] | None:
    """Two numbers, of which one at least is in a squared or cubed unit, without it, and which verdict is in doubt.

    The unit of one may have been left out, or stand before the number. All is in doubt between different units;
    that the two are equal is if a unit may be algebra: `5m^2` is 5 times m^2. None where neither has a unit, or one is
    no number.
    """
    maths = [_TEXT_OR_SPACE.sub(r" \1", math).strip() for math in (wanted, given)]
    a, b = (_MEASURE.fullmatch(math) for math in maths)
    one, other = (_MEASURE.fullmatch(math) or _NUMBER.fullmatch(math) for math in maths)
    if not (a or b) or not one or not other:
        return None
    doubt: Literal["", "equal", "all"] = ""
    if a and b:
        doubt = "" if a["unit"] == b["unit"] else "all"
    elif re.search(r"\d[a-z]\^", " ".join(maths)):
        doubt = "equal"
    return Quantity(one["number"], one["number"]), Quantity(other["number"], other["number"]), doubt
