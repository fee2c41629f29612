"""The final result that a text comes to, as it says so itself, or in its last line or sentence.

Nothing is computed and nothing is guessed: a text that names different results, or says "either 3 or 4", gives them
all, and a number that only happens to stand in the last sentence is not `firm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from boost_qa.checks.results.quantities import Quantity, plain_text, quantities
from boost_qa.checks.results.statements import (
    INLINE,
    POWER_OF_UNIT,
    SENTENCE_END,
    bare,
    different,
    in_prose,
    read,
    result,
    side,
    statements,
)

How = Literal["bare", "boxed", "hash", "said", "bold", "last line", "equals", "last sentence", "nothing"]


@dataclass(frozen=True, slots=True)
class Final:
    """What a text comes to.

    `results` are its different final results in their order: none, one, or several. `firm` says that the text presents
    them as its result; where it does not they may confirm an answer, but not refute it. `either` says that several are
    alternatives, such as roots, whose order means nothing.
    """

    results: tuple[Quantity, ...]
    how: How
    firm: bool = True
    either: bool = False


_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*|__([^_\n]{1,80})__")
_LEADING_REASON = re.compile(
    r"^\W*(?:because|since|as|if|when|after)\b[^,=]{1,120},(?=\s.*\d)", re.IGNORECASE | re.DOTALL
)
_REASON = re.compile(r",? \b(?:because|since)\b|, which (?:is|was) (?:the|how|what|when)\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"^\W*(?:and )?(?:so|therefore|thus|hence|consequently|finally|overall|this means|that means|in conclusion|"
    r"it follows|we (?:get|find|have|conclude)|altogether|in total|in all)\b|"
    r"\b(?:in total|altogether|in all|total|therefore|thus|hence|means that|gives|leaving|equals|amounts to)\b",
    re.IGNORECASE,
)
_VERIFIES = re.compile(
    r"^\W*(?:(?:to|let[' ]?u?s|let me|we can|you can|we|i|now|quick|and)\s+){0,3}(?:double[- ]?)?"
    r"(?:check(?:ing)?|verif(?:y|ying|ication))\b(?! (?:out|in|how|whether|if|account|interest)\b)",
    re.IGNORECASE,
)
_EITHER = re.compile(r"\bor\b|\b([a-zA-Z])(?:_\{?\d\}?)?\s*=[^=]{1,60}[,; ]\s*\$?\1(?:_\{?\d\}?)?\s*=")
_AND = re.compile(r"\band\b(?! (?:so|then|thus|therefore|hence)\b)|;", re.IGNORECASE)
_NAME = r"(?P<name>[a-zA-Z])(?:_\{?\d\}?)?\s*"
_NAMED = re.compile(rf"(?:^|[\s($,]){_NAME}$")
_AGAIN = re.compile(rf"[\s$,;]*(?:,|;|\bor\b|\band\b)\s*(?:or\s+|and\s+)?\$?{_NAME}$")  # x = 2 or x = 3


def final(text: str, question: str = "") -> Final:
    """What `text` comes to; numbers of `question` are passed over where the last sentence has several."""
    text = plain_text(text)
    said = statements(text)
    if said:
        results = [(each, result(each)) for each in said]
        known = [(each, found) for each, found in results if any(one.math for one in found)] or results[-1:]
        ways = {each.how for each, _ in known}
        if any(found for _, found in known):
            either = all(_EITHER.search(each.piece) for each, _ in known)
            named = different([one for _, found in known for one in found])
            return Final(named, min(ways, key=_rank), either=either)
    if (line := _last_line(text)) and (only := _whole(line)):
        return Final((only,), "bare" if line == text.strip() else "last line")
    if (
        len(line) <= 80
        and line == text.strip()
        and "=" not in line
        and not in_prose(re.sub(POWER_OF_UNIT, "", line))
        and (formula := bare(line)).math
        and not formula.value
    ):
        return Final((formula,), "bare")
    return _bold(text) or _last_sentence(text, question)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()


def _whole(line: str) -> Quantity | None:
    """The quantity that a line consists of, but for a unit of up to three words."""
    if len(line) > 80:
        return None
    line = line.replace("**", "").strip(" .*`")
    found = quantities(line)
    if len(found) == 1 and not line[: found[0].start].strip(" ($") and len(line[found[0].end :].split()) <= 3:
        return found[0] if not re.search(r"[=\d]", line[found[0].end :]) else None
    return None


def _bold(text: str) -> Final | None:
    """A quantity in bold in the last paragraph."""
    paragraph = text.strip().rpartition("\n\n")[2]
    found = [one for a, b in _BOLD.findall(paragraph) if (one := _whole((a or b).rpartition("=")[2].strip()))]
    return Final(different(found), "bold") if found else None


def _last_sentence(text: str, question: str) -> Final:
    """What one of the last four sentences comes to; what only proves a result that stands before it is none."""
    text = text.replace("**", "")
    sentences = [each for each in _sentences(text) if each.strip()]
    proof, proves = None, ""
    for at in reversed(range(max(0, len(sentences) - 4), len(sentences))):
        found = _in_sentence(sentences, at, question)
        if found is not None and _verifies(sentences, at):
            proof, proves = proof or found, proves + sentences[at].partition("=")[0]
        elif found is not None:
            return proof if proof and not _stands_in(proves, found) else found
    return proof or Final((), "nothing", False)


def _in_sentence(sentences: list[str], at: int, question: str) -> Final | None:
    sentence = sentences[at]
    if sentence.rstrip().endswith("?"):
        return None
    sentence = _LEADING_REASON.sub("", sentence)
    reason = _REASON.search(sentence)
    if reason and quantities(sentence[: reason.start()]):
        sentence = sentence[: reason.start()]
    if "=" in sentence and (results := _after_equals(sentence)):
        firm = len(results) == 1 and bool(re.search(r"\d", results[0].math))
        return Final(results, "equals", firm, bool(_EITHER.search(sentence)))
    if math := INLINE.findall(sentence):
        formula = next(group for group in math[-1] if group)
        return Final(read(f"${formula}$"), "last sentence", bool(_CONCLUDES.search(sentence)))
    found = quantities(sentence)
    if found and len({one.key for one in found}) > 1:
        given = {one.key for one in quantities(plain_text(question))}
        found = [one for one in found if one.key not in given] or found
    if not found:
        return None
    computed = [one for one in found if one.key == _computed("".join(sentences[:at]))]
    results = different(computed or found)
    firm = bool(computed or _CONCLUDES.search(sentence)) or len(sentences) == 1
    return Final(results, "last sentence", firm and len(results) == 1)


def _verifies(sentences: list[str], at: int) -> bool:
    """Whether an equation is announced as a proof: "Check: 18 - 9 = 9", "Let us check. 18 - 9 = 9"."""
    before = sentences[at - 1] if at else ""
    announced = _VERIFIES.search(sentences[at]) or (_VERIFIES.search(before) and not quantities(before))
    return "=" in sentences[at] and bool(announced)


def _stands_in(left: str, found: Final) -> bool:
    """Whether the one result is among what an equation is made of."""
    (written,) = {one.written for one in found.results} if len(found.results) == 1 else {""}
    return bool(written) and re.search(rf"(?<![\d.]){re.escape(written)}(?!\d|\.\d)", left) is not None


def _after_equals(sentence: str) -> tuple[Quantity, ...]:
    """What the last equation comes to, and those that are joined to it by "and", or are values of the same letter."""
    first, *parts, last = sentence.split("=")
    name = _name(first)
    joined: list[Quantity] = []
    for part in parts:
        again = _AGAIN.search(part)
        if again and again["name"] == name:
            joined += side(part[: again.start()])
        elif (found := quantities(part)) and _AND.search(part, found[0].end):
            joined.append(found[0])
        name = _name(part)
    return different([*joined, *side(last)])


def _name(text: str) -> str:
    """The letter at the end of a text to which the next side of an equation is assigned, or ""."""
    found = _NAMED.search(text)
    return found["name"] if found else ""


def _computed(text: str) -> str:
    """The key of what stands after the last `=`."""
    after = quantities(text.rpartition("=")[2][:80]) if "=" in text else []
    return after[0].key if after else ""


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in SENTENCE_END.finditer(text):
        yield text[start : end.end()]
        start = end.end()
    yield text[start:]


def _rank(how: How) -> int:
    return ("boxed", "hash", "said").index(how)
