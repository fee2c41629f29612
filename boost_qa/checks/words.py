"""Text as the words and signs by which texts are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

END = "|"  # of a sentence or line
SIGNS = frozenset("+-*^=<>%±") | {"<=", ">=", "<>", END}
_TOKEN = re.compile(
    r"""[^\W\d_\u3040-\u30ff\u3400-\u9fff]+ | [\u3040-\u30ff\u3400-\u9fff]  # a word, a Han or Kana character
    | \d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d) | \d+(?:\.\d+)? | (?<!\w)\.\d+   # a number
    | \\(?:begin|end)\{[a-z]+\*?\} | \^\s?\{?\\circ\b\}? | \\[a-z]+     # LaTeX
    | [<>!]= | <> | [+^=<>%±] | (?<=[\d)}$])[-*] | (?<=[\d)}$]\s)[-*] | [-*](?=\s?[\d({\\$.])
    | [.?!:;\n"“”。]""",
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!])(?=\d{3}(?!\d))")
_SPELLED = {"*": "times cdot", "±": "pm", "<=": "le leq", ">=": "ge geq", "<>": "ne neq", "binom": "dbinom tbinom"}
_LATEX = {name: token for token, names in _SPELLED.items() for name in names.split()}
_LAYOUT = re.compile(
    r"[dtc]?frac|div|left|right|bigg?|text\w{0,3}|math[a-z]{2,3}|operatorname|displaystyle|q?quad|boxed|hline|circ"
)
_GREEK = {chr(code): unicodedata.name(chr(code)).split()[-1].lower() for code in range(0x3B1, 0x3CA)} | {"λ": "lambda"}
_REPLACED = str.maketrans(
    {"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MULTIPLICATION SIGN}": "*", "\N{MIDDLE DOT}": "*"}
    | dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}", "-")
    | {"≤": "<=", "≥": ">=", "≠": "<>"}
    | {"√": " sqrt ", "∞": " infty ", "∠": " angle ", "△": " triangle "}
    | {
        code: {"<super>": "^", "<sub>": " ", "<fraction>": " "}[kind] + unicodedata.normalize("NFKC", chr(code))
        for code in range(0xB2, 0x2190)
        if (kind := unicodedata.decomposition(chr(code)).split(" ")[0]) in ("<super>", "<sub>", "<fraction>")
    }
)


def tokens(text: str) -> list[str]:
    """The words and signs of a text, and `END` where a sentence, a line or a quotation begins or ends.

    Case, punctuation and the form of characters do not count. "1,000", LaTeX's "1{,}000" and "1000.0" are one number;
    letters and digits part ("5cm" is two words); a Han or Kana character is a word. Of LaTeX, commands are words
    (\\sqrt, and "√" with it), signs ("\\times", "*") or, where they are layout, nothing; "/" is nothing as well,
    as \\frac{1}{2} has none. A hyphen or star is a sign beside digits and brackets only.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_REPLACED))
    text = text.casefold().replace("'", "")
    if "\\" in text or "{,}" in text:
        text = _THOUSANDS.sub(",", text)
    return list(filter(None, map(_token, _TOKEN.findall(text))))


def words(found: Sequence[str]) -> list[str]:
    """Tokens without the signs."""
    return [token for token in found if token not in SIGNS]


@lru_cache(2**16)
def _token(found: str) -> str:
    first = found[0]
    if first == "\\":
        return "" if "{" in found or _LAYOUT.fullmatch(found[1:]) else _LATEX.get(found[1:], found[1:])
    if first.isdigit() or (first == "." and len(found) > 1):
        number = found.replace(",", "")
        number = number.rstrip("0").rstrip(".") if "." in number else number
        return number.lstrip("0") or "0"
    if found in SIGNS or first.isalpha():
        return _GREEK.get(found, found)
    if first == "^":  # of degrees
        return ""
    return "<>" if found == "!=" else END
