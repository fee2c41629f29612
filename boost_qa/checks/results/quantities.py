"""Numbers as people write them, each in a form that math-verify reads.

Thousands separators, currencies, percent, fractions, mixed numbers, powers of ten, number words, signs, units and
simple arithmetic. Nothing is evaluated here, and no pattern can take more than linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

# what may follow a number without a space; `k` and `x` are dealt with below
_UNITS = re.compile(
    "mm|cm|dm|m|km|in|ft|yd|mi|mg|g|kg|t|ml|cl|l|s|sec|h|hrs?|mins?|mph|kmh|lbs?|oz|[gmkt]b|am|pm|st|nd|rd|th|"
    "c|f|k|w|kw|kwh|v|a|n|j|hz|sq|cents?"
)
EXPRESSION = 300
"""Characters of one arithmetic expression in prose, at most."""

_CURRENCY = "$€£¥₹₩₽¢"
_PLAIN = r"(?:\d{1,3}(?:(?:,\d{3})+|(?:[ ]\d{3})+)(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"""(?<![\w.,:/^√])(?<!sqrt[({{])(?<!√[({{])
    (?P<sign>[-+](?=[\s{_CURRENCY}]?[\d.{_CURRENCY}])\s?)? (?P<currency>US\$|[{_CURRENCY}])?\s? (?P<sign2>-)?
    (?: (?P<whole>\d+)(?:\s{{1,3}}|-)(?P<top2>\d+)\s?/\s?(?P<bottom2>\d+)
      | (?P<top>\d+)/(?P<bottom>\d+)
      | (?P<plain>{_PLAIN}) )
    (?: e(?P<e>[-+]?\d{{1,4}})\b | \s?(?:[x*]|\\times)\s?10\s?\^\s?[{{(]?(?P<power>-?\d{{1,4}})[)}}]? )?
    (?P<percent>\s?\\?%|\s(?:percent|per\ cent|pct)\b)?
    (?:\s?(?P<scale>hundred|thousand|million|billion|trillion|dozen)\b)?
    (?! [\d^] | [.,:/]\d | \s?/\s?(?:√|π|\\?(?:sqrt|pi)(?![A-Za-z])) )
    (?P<tail>[A-Za-z²³°]*)""",
    re.VERBOSE | re.IGNORECASE,
)
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PLAIN_LETTERS = {0x131: "i", 0x17F: "s", 0x307: None}  # "İ".lower() has a combining dot
FACTORS = {name: Decimal(10) ** power for name, power in SCALES.items()}
FACTORS |= {"percent": Decimal("0.01"), "cents": Decimal("0.01"), "dozen": Decimal(12)}
# what follows a number makes another of it: 12π, 3√2
_ROOT = r"(?:\\sqrt\s?(?:\{\d+\}|\d)|(?:√|sqrt)\s?(?:\(\d+\)|\{\d+\})|√\s?\d+)"
_IRRATIONAL = re.compile(
    rf"\s?(?:(?:[*·]|\\cdot|\\times)\s?)?(?:{_ROOT}|π|\\?pi(?![A-Za-z]))"
    r"(?:\s?/\s?(?P<bottom>\d+)(?![\d.,]\d))?(?!\s?\^)"
)
_ROOTS = re.compile(
    rf"(?:(?<![\w)}}])(?<![\d)}}]\s)(?<!\b[a-zA-Z]\s)-)?(?<![\w)}}/±]){_ROOT}(?:\s?/\s?\d+(?![.,]\d))?(?![\w^(/])"
)
_OPERAND = re.compile(r"(?:[\d)}²³π]|(?<![A-Za-z])(?:[A-Za-z]|pi))\s{0,3}$")
_OPERATOR = re.compile(r"\s*(?P<op>[-+*/]|\\times|\\div|\\cdot)\s*(?=[(\s]*(?:[-$€£.\d√]|\\?sqrt))")

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: at for at, word in enumerate(_ONES)} | {word: 20 + 10 * at for at, word in enumerate(_TENS)}
_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(reversed(_ONES))})"
_HUNDREDS = rf"(?:(?:{_SMALL}|a) hundred(?:(?: and)? {_SMALL})?|{_SMALL})"
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10}
_PART = rf"(?:{'|'.join(_PARTS)})"
_WORDS_OF_ENGLISH = re.IGNORECASE | re.ASCII  # without ASCII, IGNORECASE takes a dotless i for an i
_WORDS = re.compile(rf"\b{_HUNDREDS}(?: thousand(?:,? (?:and )?{_HUNDREDS})?| million)?\b", _WORDS_OF_ENGLISH)
_OF_PARTS = re.compile(rf"[\s-]*(?:and (?:a|one)[ -])?{_PART}", _WORDS_OF_ENGLISH)
# "a fifth chair" and "five quarters", coins, are no fractions
_FRACTION = re.compile(
    rf"\b(?:(?P<whole>{_SMALL}) and )?(?:(?:a|one)[- ](?P<one>half|quarter)|one-(?P<joined>{_PART})|"
    rf"(?:a|one) (?P<alone>{_PART})(?= of\b|[.,;!]|\s*\Z)|"
    rf"(?P<top>{'|'.join(_ONES[2:10])})(?:-(?P<many>{_PART})s|[ ](?P<several>(?!quarter){_PART}|quarter(?=s of\b))s)|"
    rf"half)\b(?! (?:a )?dozen\b)",
    _WORDS_OF_ENGLISH,
)
_DOZENS = re.compile(r" dozen\b", _WORDS_OF_ENGLISH)
_DOZEN = re.compile(r"(?<!and )\b(?P<half>half )?a dozen\b", _WORDS_OF_ENGLISH)
_MINUS = re.compile(r"(?:\bnegative|(?:^|[:=] |\b(?:is|equals|be|to|get|gives) )minus)[ ]\Z", _WORDS_OF_ENGLISH)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or expression in a text.

    `math` is LaTeX, empty for what is none (`written` is then compared as words). `unit` is a key of `FACTORS`, by
    which the value may or may not have to be multiplied ("how many millions"), or "". `start` and `end` are its place
    in the text that was read.
    """

    written: str
    math: str
    unit: str = ""
    start: int = 0
    end: int = 0

    @property
    def value(self) -> Decimal | None:
        """The value of a plain decimal number, None for every other expression."""
        return Decimal(self.math) if re.fullmatch(r"-?(?:\d+(?:\.\d*)?|\.\d+)", self.math) else None

    @property
    def key(self) -> str:
        """The same for quantities that look alike, `4` and `4.0` included."""
        value = self.value
        scale = self.unit if self.unit in SCALES else ""
        return (re.sub(r"\s", "", self.math) if value is None else f"{value.normalize():f}") + scale


def quantities(text: str) -> list[Quantity]:
    """All quantities of a text in their order; number words only where there is no number in digits.

    Numbers with operators between them are one quantity. What looks like a time, a date, a version or a term (`5x`)
    is none.
    """
    joined = list(_joined(text, list(_numbers(text))))
    return joined or _in_words(text)


def plain_text(text: str) -> str:
    """`text` with typographic operators, spaces, fractions, exponents and apostrophes in plain characters."""
    text = text.translate(_TYPOGRAPHY)
    text = re.sub(r"(\d?)([¼-¾⅐-⅞])", _vulgar, text)
    text = re.sub(r"\bnegative (?=\d)|(?:(?<=[:=] )|(?<=\bis )|(?<=\bequals ))minus (?=\d)", "-", text)
    text = re.sub(rf"(?<=\d) and (?:a|one)[- ]({_PART})\b", lambda found: f" 1/{_PARTS[found[1].lower()]}", text)
    text = re.sub(r"(?<=\d),?(?:\\[!,;]\s?|\{,\})(?=\d{3})", ",", text)  # LaTeX's ways to part thousands
    return re.sub(r"([²³])(?=\W|$)", lambda found: "^" + ("2" if found[1] == "²" else "3"), text)


_TYPOGRAPHY = str.maketrans(
    {"\u2212": "-", "\u2011": "-", "\u2013": "-", "\u00d7": "*", "\u00f7": "/", "\u2215": "/"}
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
    | {"\u2019": "'"}
)


def _vulgar(found: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", found[2]).partition("\u2044")
    return f"{found[1]} {top}/{bottom}" if found[1] else f"{top}/{bottom}"


def latex(text: str) -> str:
    """`text` with π and roots, and an x between numbers, in LaTeX: math-verify reads pi as p times i."""
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])|π", lambda _: r"\pi ", text)
    text = re.sub(r"(?:√|(?<![\\A-Za-z])sqrt)\s?(?:[({]([^(){}]*)[)}]|(\d+|[a-z]\b))", r"\\sqrt{\1\2}", text)
    return re.sub(r"(?<=\d) x (?=\d)", r" \\times ", text).strip()


def _numbers(text: str) -> Iterator[Quantity]:
    """Numbers and roots of numbers, in their order."""
    roots = [Quantity(found[0], latex(found[0]), "", *found.span()) for found in _ROOTS.finditer(text)]
    plain = list(_plain_numbers(text))
    inside = {at for one in plain for at in range(one.start, one.end)} if roots else set()
    yield from sorted([*plain, *(one for one in roots if one.start not in inside)], key=lambda one: one.start)


def _plain_numbers(text: str) -> Iterator[Quantity]:
    for found in _NUMBER.finditer(text):
        tail = found["tail"].lower()
        factor = None if found["percent"] or found["scale"] else _IRRATIONAL.match(text, found.start("tail"))
        if factor:
            tail = ""
        if tail and not _UNITS.fullmatch(tail) and not found["percent"] and not found["scale"] and "°" not in tail:
            continue
        if tail in {"a", "n", "t"} and not text[found.end() : found.end() + 1].isspace():
            continue  # a term, not a unit
        minus, start = bool(found["sign2"]), found.start()
        if found["sign"] and _OPERAND.search(
            text[max(0, found.start() - 6) : found.start()]
        ):  # an operator: it belongs to no number
            start += len(found["sign"])
        elif found["sign"]:
            minus ^= found["sign"].startswith("-")
        math = ("-" if minus else "") + _latex(found, tail)
        if factor:
            by = latex(factor[0].partition("/")[0].strip(" *·"))
            math = rf"\frac{{{math}{by}}}{{{factor['bottom']}}}" if factor["bottom"] else math + by
            yield Quantity(text[start : factor.end()].strip(), math, "", start, factor.end())
            continue
        unit = _unit(found, text)
        yield Quantity(text[start : found.end()].strip(), math, unit, start, found.end())


def _latex(found: re.Match[str], tail: str) -> str:
    if found["whole"]:
        return rf"({found['whole']}+\frac{{{found['top2']}}}{{{found['bottom2']}}})"
    if found["top"]:
        number = rf"\frac{{{found['top']}}}{{{found['bottom']}}}"
    else:
        number = re.sub("[, ]", "", found["plain"])
        number = "0" + number if number.startswith(".") else number
    power = int(found["e"] or found["power"] or 0) + (3 if tail == "k" and not found["scale"] else 0)
    power += SCALES.get(_scale(found), 0) if found["top"] else 0
    if power and not found["top"] and abs(power) <= 30:
        number = f"{Decimal(number).scaleb(power):f}"
    elif power:
        number = rf"{number}\times 10^{{{power}}}"
    return number


def _unit(found: re.Match[str], text: str) -> str:
    after = text[found.end("tail") - len(found["tail"]) :][:8].lower().lstrip()
    if found["currency"] == "¢" or re.match(r"cents?\b|¢", after):
        return "cents"
    if found["percent"]:
        return "percent"
    return "" if found["top"] else _scale(found)


def _scale(found: re.Match[str]) -> str:
    """The word for a power of ten, in plain letters: IGNORECASE takes a dotless or dotted i and a long s for them."""
    return (found["scale"] or "").lower().translate(_PLAIN_LETTERS)


def _joined(text: str, numbers: list[Quantity]) -> Iterator[Quantity]:
    """Numbers that stand in one arithmetic expression become one quantity."""
    at = 0
    while at < len(numbers):
        first = last = numbers[at]
        while at + 1 < len(numbers):
            between = text[last.end : numbers[at + 1].start]
            operator = _OPERATOR.match(text, last.end)
            if operator is None or between.strip(" ()") != operator["op"] or between == "-":  # 3-5 is a range
                break
            if numbers[at + 1].end - first.start > EXPRESSION:
                break
            at += 1
            last = numbers[at]
        at += 1
        if first is last:
            yield first
            continue
        start, end = first.start, last.end
        while text[start:end].count(")") > text[start:end].count("(") and text[start - 1 : start] == "(":
            start -= 1
        while text[start:end].count("(") > text[start:end].count(")") and text[end : end + 1] == ")":
            end += 1
        written = text[start:end]
        math = re.sub(r"[$€£¥]|(?<=\d),(?=\d{3})|(?<=\d)\s*[A-Za-z]+", "", latex(written))
        yield Quantity(written, math.replace("%", r"\%"), "", start, end)


def _in_words(text: str) -> list[Quantity]:
    found = [*_whole_numbers(text), *_dozens(text), *_fractions(text)]
    return sorted(found, key=lambda one: one.start)


def _whole_numbers(text: str) -> Iterator[Quantity]:
    for found in _WORDS.finditer(text):
        if _OF_PARTS.match(text, found.end()):
            continue
        total = part = 0
        for word in re.findall(r"[a-z]+", found[0].lower()):
            if word in _VALUES:
                part += _VALUES[word]
            elif word == "hundred":
                part = max(part, 1) * 100
            elif word in SCALES:
                total, part = total + max(part, 1) * 10 ** SCALES[word], 0
        minus = _MINUS.search(text, max(0, found.start() - 20), found.start())
        dozen = _DOZENS.match(text, found.end())
        start, end = minus.start() if minus else found.start(), dozen.end() if dozen else found.end()
        math = f"{'-' if minus else ''}{total + part}"
        yield Quantity(text[start:end].strip(), math, "dozen" if dozen else "", start, end)


def _dozens(text: str) -> Iterator[Quantity]:
    for found in _DOZEN.finditer(text):
        yield Quantity(found[0], "6" if found["half"] else "12", "", *found.span())


def _fractions(text: str) -> Iterator[Quantity]:
    for found in _FRACTION.finditer(text):
        top = _VALUES[(found["top"] or "one").lower()]
        part = next((found[name] for name in ("one", "joined", "alone", "many", "several") if found[name]), "half")
        math = rf"\frac{{{top}}}{{{_PARTS[part.lower()]}}}"
        if found["whole"]:
            math = f"({next(_whole_numbers(found['whole'])).math}+{math})"
        yield Quantity(found[0], math, "", *found.span())
