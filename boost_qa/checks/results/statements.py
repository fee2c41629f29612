"""Where a text says what its result is, and what it says there: `\\boxed{x}`, `#### x`, "the (final) answer is x"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from boost_qa.checks.results.quantities import Quantity, latex, plain_text, quantities

Said = Literal["boxed", "hash", "said"]
PIECE = 300
"""Characters of a statement that are looked at."""

STATEMENTS = 50
"""Statements of a kind that are looked at, the last ones of a text."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A place where a text says what its result is: "the answer is `piece`"."""

    at: int
    piece: str
    how: Said
    final: bool = False


_NOUN = (
    r"(?P<adjective>(?:\b(?:final|correct|right|actual|best|numerical)\s+){0,2})\b(?:answer|ans)s?(?:\(s\))?"
    r"(?:\s+(?:choice|option))?"
)
_ABOUT = r"(?:\s+(?:to|for|of|in)\s[^.\n:=?!]{0,80}?)?"
_BE = r"is|are|was|equals|(?:should|must|would|will|has to) be|comes to|becomes"
_VERB = rf"(?:,[^,.\n]{{1,30}},)?\s*(?:\b(?:{_BE})\b|[:=])\s*"
_SAYS = re.compile(rf"{_NOUN}{_ABOUT}{_VERB}(?:(?:that|still|indeed|simply|then|therefore)\b)?:?", re.IGNORECASE)
_RESULT_SAYS = re.compile(
    rf"\bfinal (?:result|value|total|count|price|amount|sum|solution){_ABOUT}{_VERB}:?", re.IGNORECASE
)
_HASH = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s?\{")
# before a statement, in its clause: it is denied, or somebody else's, or supposed
_OTHERS = re.compile(
    r"(?:\b(?:not|wrong|incorrect|mistaken(?:ly)?|you (?:said|say|got|wrote|think)|your|their|his|her|student'?s?|"
    r"previous|earlier|initial|first|original|old|claimed|thought|assum\w+|if|whether|unless|suppose|what|guess\w*)\b|n't)"
    r"[^.!?,;:\n]{0,30}$",
    re.IGNORECASE,
)
_REFUTED = re.compile(
    r"[^.!?,;\n]{0,40}?\b(?:is|was|are|seems|looks)\s+(?:not (?:right|correct)|incorrect|wrong|mistaken)", re.IGNORECASE
)
# between two statements: only the second one holds
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|corrected|correcting|mistake|sorry|apolog\w+|oops|hold on|recheck\w*|reconsider\w*|"
    r"revis\w+|instead|wrong|incorrect|let me (?:re|check|try)\w*|on second thought|however|not correct)\b",
    re.IGNORECASE,
)
# before a number, what makes it a part of a formula; "a" and "I" are words, \\$ and \\, stand before numbers
_TERM = re.compile(r"[\d+*/^{√π]|\\(?![$%,;!: ]|\Z)|(?<![A-Za-z.'])[b-hj-zB-HJ-Z](?![A-Za-z.'])|\(.*[-+*/]")
# and after it; where prose follows a letter, that may be a word, and 3-5 is a range
_CONTINUES = re.compile(
    r"""\(\s?[\da-z]\b
    | [\s)]{0,3} (?: [+*^]\s?(?:\$?\d|[(\\√π]|[b-hj-zB-HJ-Z]\b(?!'|\s+[A-Za-z]{2}))
                  | \s-\s(?=[\d(\\$√π]|[b-hj-z]\b) | -(?:[(\\]|[b-hj-z]\b)
                  | /\s?(?:[\d(\\√π]|[xyzn]\b) )
    | [\s*]{0,2}[xyzn]\b(?!\s+[A-Za-z]{2})
    | \s(?:plus|minus)\s(?:[\da-z]\b|\()""",
    re.VERBOSE,
)
_SPOKEN = re.compile(r"(?:[\d)]|\b[a-z])\s(?:plus|minus|times|over)\s", re.IGNORECASE)
_CLOSING_DOLLAR = re.compile(r"(?<=[\w})\]])\$(?=[\s.,;:)]|$)")
_REASON = re.compile(r"\b(?:because|since|as in|which|where|who|after|when|if|so that|given|considering|assuming)\b")
SENTENCE_END = re.compile(r"[.!?](?=[\s\"')*\]$]|[A-Z]|$)|\n")
INLINE = re.compile(
    r"(?<![\\$\w])\$(?=[^\s$])([^$\n]{1,300}?)(?<=[^\s\\])\$(?![\d$])|\\\(([^\n]{1,300}?)\\\)|"
    r"\$\$([^$]{1,600}?)\$\$|\\\[(.{1,600}?)\\\]",
    re.DOTALL,
)
_DISPLAY = re.compile(r"\\\[.{1,600}?\\\]|\$\$.{1,600}?\$\$", re.DOTALL)
_LATEX = re.compile(r"\\[a-zA-Z{]+|\^|_\{")
_PROSE = re.compile(
    r"(?<![\\a-zA-Z])(?!(?:sin|cos|tan|log|exp|sqrt)\b)[a-zA-Z]{3,}|"
    r"(?<!\\)\b(?:or|to|an|at|of|in|is|by|if|as|so|no|km|cm|mm|kg|ml|mg|lb|oz|ft|hr|am|pm|mi)\b"
)
_NO_PROSE = re.compile(r"\\(?:text|mathrm|mbox|textbf|begin|end)\s*\{[^{}]*\}")
_FORMULA = re.compile(r"[-\\+*/^()\[\]{}|,._\d\sa-zA-Zπ√∞°=<>≤≥!]{1,120}")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s?\{([^{}]*)\}")
_ASSIGNS = re.compile(r"\b[a-zA-Z]\s*=\s*")
_LENGTH = (
    r"(?:mm|cm|dm|km|m|in|ft|yd|mi|units?|inch(?:es)?|feet|foot|yards?|miles?|(?:milli|centi|kilo)?met(?:er|re)s?)"
)
POWER_OF_UNIT = rf"(?:{_LENGTH}\^\{{?[23]\}}?|{_LENGTH}/s(?:ec)?\^\{{?2\}}?)"
_UNIT = re.compile(rf"[\s(]*(?:{POWER_OF_UNIT}|(?![xyz]\b)[A-Za-z°]{{0,4}}(?:/[A-Za-z]{{1,3}})?)?[\s).]*")
_COMPOUND = re.compile(
    r"\d\s*(?:dollars?|euros?|pounds?|hours?|h|minutes?|min|feet|foot|ft|years?|months?|weeks?|days?|kg|km|m|lbs?|degrees?)"
    r",?\s+(?:and\s+)?\d[\d.]*\s*(?:cents?|pence|minutes?|min|seconds?|s|inch(?:es)?|in|months?|weeks?|days?|hours?|ounces?|"
    r"oz|g|grams?|m|meters?|cm|centimeters?)\b",
    re.IGNORECASE,
)
_JOINS = re.compile(
    r"\W*(?:,|\band\b|\bor\b|\bto\b|-|&|;)\W*$|^(?:[^.\d]{0,60})(?:,|\band\b|\bor\b)\s[^.\d]{0,20}$", re.IGNORECASE
)
_EXPLAINED = re.compile(r"([^()=]*\d)\s+\([^()=a-zA-Z]*\d\s*[-+*/][^()=a-zA-Z]*\d[^()=a-zA-Z]*\)")
_FAINT = re.compile(r"\bnot\b|\binstead of\b|\brather than\b|\(", re.IGNORECASE)


def statements(text: str) -> list[Statement]:
    """Where the text says what its result is; what it takes back, or ascribes to somebody else, is left out."""
    found = sorted([*_boxed(text), *_hashes(text), *_sayings(text)], key=lambda each: each.at)
    if any(each.final for each in found):
        found = [each for each in found if each.final or each.how in ("boxed", "hash")]
    kept: list[Statement] = []
    for each in found:
        if kept and _TAKEN_BACK.search(text, kept[-1].at, each.at):
            kept.clear()
        kept.append(each)
    return kept


def result(statement: Statement) -> tuple[Quantity, ...]:
    """The result or results that a statement names."""
    if statement.how == "boxed" and not in_prose(statement.piece):
        return (_formula(statement.piece),)
    return read(_TEXT.sub(r" \1 ", statement.piece))


def read(piece: str) -> tuple[Quantity, ...]:
    """The results in a few words: `12 - 11 = 1` is 1, `2 or 3` are two, other words are themselves."""
    piece = piece.replace("**", "").replace("__", "").strip(" \t\r\n\"'`*:")
    if (explained := _EXPLAINED.fullmatch(piece)) and (said := quantities(explained[1])):  # 18 (9 + 9): or is it 324?
        return (said[0], _formula(piece))
    if whole := INLINE.fullmatch(piece.rstrip(" .")):
        return (_formula(next(group for group in whole.groups() if group)),)
    numbers = quantities(piece)
    if len(numbers) == 1 and _alone(numbers[0], piece):
        return (numbers[0],)
    if inline := [next(group for group in each if group) for each in INLINE.findall(piece)]:
        return different([_formula(each.strip()) for each in inline[-1:]])
    if _LATEX.search(piece) and not in_prose(piece):
        return (_formula(piece),)
    if len(_ASSIGNS.findall(piece)) > 1:  # x = 5, y = 3
        values = [quantities(part) for part in _ASSIGNS.split(piece)[1:]]
        return tuple(each[0] for each in values if each)
    piece = piece.rpartition("=")[2].strip()
    if reason := _REASON.search(piece):
        piece = piece[: reason.start()] or piece
    numbers = quantities(piece)
    if _COMPOUND.search(piece):
        return (Quantity(piece.strip(" ."), ""),)
    if not numbers:
        words = piece.strip(" .,;:!*\"'")
        return (_formula(words) if _looks_like_formula(words) else Quantity(words, ""),) if words else ()
    if len(numbers) == 1 and _alone(numbers[0], piece):
        return (numbers[0],)
    return (_formula(piece),) if _looks_like_formula(piece) else side(piece)


def in_prose(text: str) -> bool:
    """Whether a text has words outside of LaTeX's."""
    return bool(_PROSE.search(_NO_PROSE.sub("", text)))


def bare(text: str) -> Quantity:
    """A result that stands alone, such as `Record.final`: a quantity, a formula, or words."""
    text = plain_text(text).strip()
    if len(found := read(text)) == 1 and (found[0].math or not _LATEX.search(text)):
        rest = text.replace(found[0].written, "", 1)
        if in_prose(without_unit := re.sub(POWER_OF_UNIT, "", rest)):  # "12 cm^2" itself may be algebra
            rest = without_unit
        if found[0].math and not any(character.isdigit() for character in rest) and len(rest.split()) <= 4:
            return found[0]
    return _formula(text) if _looks_like_formula(text) or _LATEX.search(text) else Quantity(text, "")


def _alone(number: Quantity, piece: str) -> bool:
    """Whether a piece is this number, with a short unit or none."""
    return not piece[: number.start].strip(" ($") and bool(_UNIT.fullmatch(piece, number.end))


def side(text: str) -> tuple[Quantity, ...]:
    """What stands on one side of an equation: its number or numbers, or else the formula that begins it.

    Where there are variables or operators beside a number, and no formula can be told from the prose, the result is
    all of it, in words: a number in `6x + 2` is not what it comes to.
    """
    numbers = quantities(text)
    if numbers:
        before = text[: numbers[0].start]
        *_, near = _PROSE.split(before)  # in "x is 12" the x is no factor
        if not _TERM.search(near) and not _SPOKEN.search(before) and not _CONTINUES.match(text, numbers[0].end):
            return leading(text, numbers)
    head = text[: prose.start()] if (prose := _PROSE.search(text)) else text
    head = _CLOSING_DOLLAR.split(head)[0].strip(" \t\r\n.,;:$*")
    whole = bool(head) and head[-1] not in "+-*/^=(" and all(head.count(a) == head.count(b) for a, b in ("()", "{}"))
    if whole and len(head) > 1 and _looks_like_formula(head):  # "12 = x" comes to 12
        return (_formula(head),)
    words = text.strip(" \t\r\n.,;:$*")
    return (Quantity(words, ""),) if numbers and words else ()


def leading(piece: str, numbers: list[Quantity]) -> tuple[Quantity, ...]:
    """The first number, and those that are joined to it by "and", "or" or a comma."""
    kept = numbers[:1]
    for one in numbers[1:]:
        between = piece[kept[-1].end : one.start]
        if _FAINT.search(between) or not _JOINS.search(between):
            break
        kept.append(one)
    return different(kept)


def different(found: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """Those that do not look like an earlier one."""
    kept: dict[str, Quantity] = {}
    for one in found:
        kept.setdefault(one.key or one.written.lower(), one)
    return tuple(kept.values())


# --- ways of saying it ---------------------------------------------------------------------------


def _boxed(text: str) -> Iterator[Statement]:
    for opened in list(_BOXED.finditer(text))[-STATEMENTS:]:
        depth, at = 1, opened.end()
        while at < len(text) and at < opened.end() + 10 * PIECE:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                yield Statement(opened.start(), text[opened.end() : at].strip(" $"), "boxed")
                break
            at += 2 if text[at] == "\\" else 1


def _hashes(text: str) -> Iterator[Statement]:
    for found in _HASH.finditer(text):
        yield Statement(found.start(), found[1].strip()[:PIECE], "hash")


def _sayings(text: str) -> Iterator[Statement]:
    for pattern in (_SAYS, _RESULT_SAYS):
        for found in list(pattern.finditer(text))[-STATEMENTS:]:
            before = text[max(0, found.start() - 60) : found.start()]
            clause = _clause(text, found.end())
            if not clause or _OTHERS.search(before) or re.match(r"\W*not\b", clause) or _REFUTED.match(clause):
                continue
            if "\\boxed" in clause:  # it is found as such
                continue
            adjective = found.groupdict().get("adjective") or ""
            yield Statement(found.start(), clause, "said", "final" in adjective.lower() or pattern is _RESULT_SAYS)


def _clause(text: str, start: int) -> str:
    """From `start` to the end of the sentence; a formula on lines of its own counts whole."""
    while start < len(text) and text[start] in ' \t\r\n*:_"':
        start += 1
    if display := _DISPLAY.match(text, start):
        return display[0]
    for end in SENTENCE_END.finditer(text, start, start + PIECE):
        return text[start : end.start()]
    return text[start : start + PIECE]


def _formula(text: str) -> Quantity:
    """LaTeX as it is; a plain number in it as such, and words in it as words."""
    text = text.strip().rstrip(".,;")
    if words := _TEXT.fullmatch(text):
        text = words[1].strip()
        if _PROSE.search(text):
            return Quantity(text, "")
    numbers = quantities(text)
    if len(numbers) == 1 and not text.replace(numbers[0].written, "", 1).strip(" ($)"):
        return numbers[0]
    return Quantity(text, re.sub(r"\^(-?\d{2,})", r"^{\1}", latex(text)))


def _looks_like_formula(text: str) -> bool:
    return (
        bool(re.search(r"[\d=^+*/]|\b[a-zA-Z]\b", text)) and not _PROSE.search(text) and bool(_FORMULA.fullmatch(text))
    )
