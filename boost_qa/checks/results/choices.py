"""Multiple choice: the options that a question lists, and which of them a text chooses.

A letter counts, and so does the text of an option. An answer that gives one letter and the text of another chooses
both, which is to say none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from boost_qa.checks.results.extract import final
from boost_qa.checks.results.quantities import plain_text, quantities
from boost_qa.checks.results.statements import read, statements

_OPTION = re.compile(r"(?:^|(?<=[\s,;:]))(?:\(([A-Ja-j])\)|\[([A-Ja-j])\]|([A-Ja-j])[).:](?=\s))\s*", re.MULTILINE)
# `A)7`: not a ratio `a:b`, nor a factor of `(x - a)(x - b)`
_TIGHT = re.compile(
    r"(?:^|(?<=[\s,;:])(?<![-+*/=(^][ ]))([A-Ja-j])(?:[).](?=[^\s).,(])|:(?=[^\s:=])(?![A-Za-z]\b))", re.MULTILINE
)
_BOLD = re.compile(r"(?<![\w)*])\*\*(?=[^\s*])([^*\n]{1,300}?)(?<=\S)\*\*")
_LETTER = r"(?:\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]|\b([A-Z])\b(?!'))"
_LEADING = re.compile(
    rf"\W*?(?:the\s+)?(?:(?:option|choice|letter|answer)s?\s+)?{_LETTER}"
    r"(?=\W*$|\s*[).:,;\-]|\s+(?:and|or|is|because|since|as)\b)",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"(?:\b(?:option|choice|answer)s?\s+(?:is\s+)?{_LETTER})|(?<![\w)])(?:\(([A-Z])\)|\[([A-Z])\])")
_REJECTED = re.compile(
    rf"\b(?:as|because|since|while|whereas|unlike)\s+(?:options?\s+|choices?\s+)?{_LETTER}(?=\W)[^.;,\n]*"
    rf"|(?:\b(?:option|choice|answer)s?\s+)?{_LETTER}\s+(?:is|was)"
    r"(?:n't|\s+not|\s+(?:clearly\s+|obviously\s+|therefore\s+)?"
    r"(?:wrong|incorrect|false|impossible|ruled out|eliminated))\b[^.;,\n]*"
    rf"|\b(?:cannot|can't|not)\s+(?:be\s+)?(?:the\s+)?(?:(?:option|choice|answer)s?\s+)?{_LETTER}(?=\W|$)"
)
_SENTENCES = re.compile(r"[.!?]\s|\n")
_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_HEDGE = re.compile(rf"^[\s,)\].]*\b(?:and|or)\b\s*(?:option\s+)?{_LETTER}(?=\W|$)")


class _Place(NamedTuple):
    """Where an option begins; `style` is how its letter is marked off: `(A)`, `A)`, `A.`."""

    letter: str
    style: str
    start: int
    end: int


def options(question: str) -> dict[str, str]:
    """The options of a question by their letters, A first; empty where it lists none.

    Letters must begin with A and follow one another; of several such lists the last one counts. Where no space follows
    a letter, there must be three or more, or each must begin a line.
    """
    question = _BOLD.sub(r"\1", plain_text(question))
    best = _run(_OPTION, question)
    if not best:
        best = _run(_TIGHT, question)
        lines = all(not question[: place.start].rpartition("\n")[2].strip() for place in best)
        best = best if len(best) > 2 or lines else []
    ends = [place.start for place in best[1:]] + [len(question)]
    listed = {each.letter: question[each.end : end].strip(" \t\n,;") for each, end in zip(best, ends, strict=False)}
    if best:
        listed[best[-1].letter] = listed[best[-1].letter].partition("\n\n")[0].strip()
    return listed if all(listed.values()) else {}


def _run(pattern: re.Pattern[str], question: str) -> list[_Place]:
    """The last places whose letters run from A on, in one style; two at least, or none."""
    best: list[_Place] = []
    run: list[_Place] = []
    for found in pattern.finditer(question):
        letter = next(filter(None, found.groups()))
        place = _Place(letter.upper(), re.sub(r"\w|\s", "", found[0]) + "Aa"[letter.islower()], *found.span())
        if place.letter == "A":
            run = [place]
        elif run and ord(place.letter) == ord(run[-1].letter) + 1 and place.style == run[0].style:
            run.append(place)
        if len(run) > 1:
            best = list(run)
    return best


def chosen(text: str, listed: Mapping[str, str], bare: bool = False) -> tuple[str, ...]:
    """The letters of the options that `text` chooses; empty where it names none, several where it names several.

    Args:
        text: an answer, or with `bare` nothing but a result.
        listed: what `options` gave.
    """
    text = _without_rejected(plain_text(text), listed)
    if alone := _ALONE.fullmatch(text):
        return _known([alone[1].upper()], listed)
    if bare:
        return _in_piece(text, listed)
    if said := [letter for each in statements(text) for letter in _in_piece(each.piece, listed)]:
        return tuple(dict.fromkeys(said))
    if not _SENTENCES.search(text.strip(), 3) and _LEADING.match(text.strip()) and (found := _in_piece(text, listed)):
        return found
    sentences = [each for each in re.split(r"(?<=[.!?])\s+|\n+", text.strip()) if each.strip()]
    for sentence in reversed(sentences[-3:]):
        named = ["".join(filter(None, found.groups())) for found in _NAMED.finditer(sentence)]
        if letters := _known(named, listed):
            return letters
    last = final(text)
    return _by_text(last.results[0].written, listed) if last.firm and len(last.results) == 1 else ()


def _without_rejected(text: str, listed: Mapping[str, str]) -> str:
    """Without what is said of options that are not chosen."""

    def kept(found: re.Match[str]) -> str:
        letter = next(filter(None, found.groups())).upper()
        return " " if letter in listed else found[0]

    return _REJECTED.sub(kept, text)


def _in_piece(piece: str, listed: Mapping[str, str]) -> tuple[str, ...]:
    """The option that a statement names: by its letter, with its text or without, or by its text."""
    piece = re.sub(r"\*\*|__|\\(?:text|textbf|mathrm|mathbf)\b|[${}]", "", piece).strip()
    letters: tuple[str, ...] = ()
    rest = piece
    if found := _LEADING.match(piece):
        letter = next(filter(None, found.groups()))
        rest = piece[found.end() :].strip(" ).:,;-]")
        # the article "a" is no letter, unless the text of its option follows
        if letter.isupper() or _ALONE.fullmatch(piece) or re.match(r"\W*[(\[]", found[0]) or _by_text(rest, listed):
            letters = _known([letter.upper()], listed)
        if letters and (hedge := _HEDGE.match(piece[found.end() :])):
            letters = _known([*letters, next(filter(None, hedge.groups())).upper()], listed)
    by_text = _by_text(rest if letters else piece, listed)
    if letters and by_text and not set(letters) & set(by_text):
        return tuple(dict.fromkeys([*letters, *by_text]))
    return letters or by_text


def _by_text(text: str, listed: Mapping[str, str]) -> tuple[str, ...]:
    """The options that say the same as `text`: the same words, or the same one number."""
    words = _words(text)
    same = [letter for letter, option in listed.items() if words and _words(option) == words]
    if same:
        return tuple(same[:1])  # two equal options are one
    numbers = read(text) if text.strip() else ()
    if len(numbers) != 1 or not numbers[0].math:
        return ()
    keys = {letter: [one.key for one in quantities(option)] for letter, option in listed.items()}
    same = [letter for letter, found in keys.items() if found == [numbers[0].key]]
    return tuple(same) if len(same) == 1 else ()  # 2% profit, 2% loss


def _words(text: str) -> str:
    text = " ".join(re.sub(r"[^\w%/+\-^*=()\s.]|(?<!\d)\.|\.(?!\d)", " ", text.lower()).split())
    return re.sub(r"\s*([-/+^*=()])\s*", r"\1", text)


def _known(letters: list[str], listed: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(letter for letter in letters if letter in listed))
