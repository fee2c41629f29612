"""In what language a text is written, where it is long enough for that to be sure.

Two looks: the script of the letters (a model slips into Chinese in the middle of an English sentence), and py3langid
over the prose. Latin letters in a text of another script are no fault: names, code and mathematics are written so.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from boost_qa.checks.speech.prose import prose

WORDS = 20
"""Least number of words that py3langid is asked about; of a script without spaces, three times as many letters."""

SURE = 0.99
"""Least probability, by py3langid, of another language."""

_NAMES = """af Afrikaans, ar Arabic, az Azerbaijani, be Belarusian, bg Bulgarian, bn Bengali, bs Bosnian, ca Catalan,
cs Czech, cy Welsh, da Danish, de German, el Greek, en English, eo Esperanto, es Spanish, et Estonian, eu Basque,
fa Persian, fi Finnish, fr French, ga Irish, gl Galician, gu Gujarati, ha Hausa, he Hebrew, hi Hindi, hr Croatian,
hu Hungarian, hy Armenian, id Indonesian, is Icelandic, it Italian, ja Japanese, ka Georgian, kk Kazakh, km Khmer,
kn Kannada, ko Korean, lt Lithuanian, lv Latvian, mk Macedonian, ml Malayalam, mn Mongolian, mr Marathi,
ms Malay, my Burmese, ne Nepali, nl Dutch, no Norwegian, pa Punjabi, pl Polish, pt Portuguese, ro Romanian, ru Russian,
sk Slovak, sl Slovene, sq Albanian, sr Serbian, sv Swedish, sw Swahili, ta Tamil, te Telugu, th Thai, tl Tagalog,
tr Turkish, uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, xh Xhosa, yo Yoruba, zh Chinese, zu Zulu"""
LANGUAGES = {name: code for code, name in (pair.split() for pair in _NAMES.split(","))}
"""Codes of ISO 639 by the languages' English names. Latin is left out: a text that is there for its length is in it."""

# Languages that are taken for each other in short texts, and what py3langid has more than one label for.
_ALIKE = (
    {"no", "da", "nn", "sv"},
    {"hr", "sr", "bs", "sl"},
    {"id", "ms", "jv"},
    {"es", "gl", "ca", "pt", "an", "ext"},
    {"zh", "wuu", "yue", "ja"},
    {"cs", "sk"},
    {"en", "pcm"},
    {"ru", "uk", "be", "bg", "mk"},
    {"de", "lb"},
    {"hi", "mr", "ne", "sa"},
    {"nl", "af"},
)
# Letters of each script, and the languages that are written in it.
_SCRIPTS = {
    "Chinese or Japanese": (r"[\u3041-\u30fa\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]", {"zh", "ja", "ko"}),
    "Korean": (r"[\u1100-\u11ff\uac00-\ud7af]", {"ko"}),
    "Cyrillic": (r"[\u0400-\u052f]", {"ru", "uk", "be", "bg", "mk", "sr", "kk", "mn", "uz", "az"}),
    "Arabic": (r"[\u0620-\u064a\u0671-\u06d3\u06fa-\u06ff]", {"ar", "fa", "ur"}),
    "Hebrew": (r"[\u05d0-\u05ea]", {"he"}),
    "Devanagari": (r"[\u0904-\u0939]", {"hi", "mr", "ne"}),
    "Thai": (r"[\u0e01-\u0e2e]", {"th"}),
}
_LETTERS = {name: (re.compile(pattern), own) for name, (pattern, own) in _SCRIPTS.items()}


def code_of(language: str) -> str | None:
    """The code of a recipe's `language`, such as `English` or `Brazilian Portuguese`; None if none is known."""
    return next((LANGUAGES[word] for word in re.findall(r"\w+", language.title()) if word in LANGUAGES), None)


def other_language(text: str, expected: str, given: str) -> str | None:
    """What tells that `text` is not in the language `expected`; None where it is, or where nothing is sure.

    Args:
        text: what was said.
        expected: an English name, as in `Recipe.language`. Where it has no code, nothing is ever found.
        given: the question with its reference answer: a script, a language or the name of one that stands there may
            stand in an answer.
    """
    code, plain = code_of(expected), prose(text)
    if code is None or not plain.strip():
        return None
    if not plain.isascii():
        for script, (letters, own) in _LETTERS.items():
            if code not in own and len(letters.findall(plain)) >= 2 and not letters.search(given):
                return f"{script} letters"
    if len(plain.split()) < WORDS and len(re.sub(r"[\s\x00-\x7f]", "", plain)) < 3 * WORDS:
        return None
    found, probability = _classified(plain)
    if probability < SURE or _alike(found, code):
        return None
    name = next((name for name, known in LANGUAGES.items() if known == found), None)
    if name is None or re.search(rf"\b{name}\b", given) or _alike(_classified(prose(given))[0], found):
        return None
    return f"{name}, {probability:.3f}"


def _alike(one: str, other: str) -> bool:
    return one == other or any(one in group and other in group for group in _ALIKE)


def _classified(text: str) -> tuple[str, float]:
    """The likeliest language of a text and its probability, by its words alone."""
    language, probability = _identifier().classify(" ".join(re.sub(r"[^\w\s'\u2019-]|[\d_]", " ", text).split()))
    return str(language), float(probability)


@cache
def _identifier() -> Any:
    # a second to load, so only when it is asked for; it keeps nothing between texts
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
