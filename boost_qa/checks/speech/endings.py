r"""Does a text end before its end? What is cut off in the middle of code, of a formula or of a sentence.

Only what cannot be an end counts. Answers end well without a full stop: in a formula, an item of a list, a number, a
line of code, an address. So a missing full stop alone says something only behind two sentences or paragraphs that have
theirs, where no paragraph lacks it, and what was begun is nothing but words.
"""

from __future__ import annotations

import re

from boost_qa.checks.speech.prose import open_fence, without_code, without_formulas

_PAIRS = (("\\[", "\\]"), ("\\(", "\\)"))
# No sentence ends in these; in verbs such as "is" and in words such as "of" and "for" it can.
_GOES_ON = frozenset((
    "a", "an", "the", "and", "or", "nor", "but", "because", "although", "whereas", "whose", "into", "than",
    "between", "every", "my", "your", "our", "their", "unless", "whether", "e.g.", "i.e."
))  # fmt: skip
_DANGLING = re.compile(r"(?:[,(\[{=\u00d7\u00f7]|(?<=\s)[-+*/\u2013\u2014&|<]|\\)\Z")
_EMPTY_ITEM = re.compile(r"\n[ \t]*(\d{1,2})[.)][ \t]*\Z")
_ITEM = re.compile(r"[ \t]*(?:[-*+\u2022]|\d{1,3}[.)]|\(?[a-z][.)])[ \t]|[ \t]*[#|>]|[ \t]{4}")
_WORD = re.compile(r"[A-Za-z][A-Za-z'\u2019-]*[,;:]?")
_STOP = re.compile(r"[.!?\u2026:][\"'\u201d\u2019)\]*_]*\Z")
_BEGUN, _LONG = 3, 6  # words: of a sentence without its end, of a paragraph that should have a full stop


def cut_off(text: str) -> str | None:
    """What is unfinished at the end of `text`: `code`, `formula`, `list` or `sentence`; None where nothing is.

    Of scripts other than Latin only code, formulas and lists are looked at.
    """
    text = text.rstrip()
    if open_fence(text):
        return "code"
    bare = without_code(text)
    if _open_formula(bare):
        return "formula"
    bare = without_formulas(bare)
    if not bare or bare[-1].isspace():  # ends in code or in a formula, and that is whole
        return None
    item = _EMPTY_ITEM.search(bare)
    if item and re.search(rf"^[ \t]*{int(item[1]) - 1}[.)][ \t]", bare, re.MULTILINE):
        return "list"
    return "sentence" if _open_sentence(bare) else None


def _open_formula(text: str) -> bool:
    r"""Whether the last formula that was begun has no end. In a regular expression, `\(` follows upon a letter."""
    for begin, end in _PAIRS:
        place = text.rfind(begin)
        if place >= 0 and end not in text[place:] and (place == 0 or text[place - 1] in " \n\t(:"):
            return True
    if text.count("$$") % 2 and not re.search(r"\w \$\$ [a-z]{2}", text):  # as in a shell: `echo $$ says`
        return True
    begun = set(re.findall(r"\\begin\{(\w+\*?)\}", text))
    return any(text.count(f"\\begin{{{name}}}") > text.count(f"\\end{{{name}}}") for name in begun)


def _open_sentence(text: str) -> bool:
    line = text[text.rfind("\n") + 1 :]
    said = line.split()
    if _ITEM.match(line) or len(said) < 4:
        return False
    if _DANGLING.search(text) or said[-1] in _GOES_ON:
        return True
    sentences = re.split(r"[.!?][\"\u201d)]* +", line)
    last = sentences[-1].split()
    if len(last) < _BEGUN or not all(map(_WORD.fullmatch, last)):
        return False
    paragraphs = [part.rstrip() for part in text[: -len(line)].splitlines() if len(part.split()) >= _LONG]
    paragraphs = [part for part in paragraphs if not _ITEM.match(part)]
    return len(paragraphs) + len(sentences) > 2 and all(map(_STOP.search, paragraphs))
