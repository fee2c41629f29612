"""Personal data in community text: seen, counted, and masked where a recipe says so.

Precision goes before recall, for mathematics and code are full of numbers that look like somebody's:

* Mail addresses, but for those of example domains (RFC 2606 and 6761), of files (`icon@2x.png`) and of `git@` hosts;
  only under top-level domains that mail is common under, for code has `q@k.transpose(-2, -1)` and `getty@tty1.service`.
* Phone numbers that are valid (`phonenumbers`): international ones with their `+`, and North American ones where they
  are grouped as such; none inside formulas. Numbers kept for fiction (555-01xx) are nobody's.
* IP addresses that the whole Internet routes: not private, loopback, documentation or other reserved ones, no networks
  (`.0` at the end), no well-known public resolvers, and no version numbers (after `version`, `v`, `Chrome/`, a name
  and `-`; or with no part above 30).
* Keys: the shapes of `keys`, JSON web tokens, passwords in addresses of the Web, and what is called `api_key` or the
  like and is random; not what says of itself that it is an example.
* Bank accounts (IBAN) and card numbers, by their check digits; not the numbers that payment firms give for tests.

Names and postal addresses are not looked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from boost_qa.checks.finding import Finding
from boost_qa.checks.keys import EDGE, SHAPES
from boost_qa.checks.speech.prose import without_formulas
from boost_qa.types import Dialogue

NAME = "personal_data"
VERSION = "2"
LABELS = {
    "mail address": "the address of a mailbox",
    "phone number": "a phone number",
    "IP address": "an address that the Internet routes",
    "key": "a token, password or private key",
    "bank account": "an IBAN",
    "card number": "the number of a payment card",
}

_MARKED = "(?:" + "|".join(rf"(?<=(?<![\w)\]*])[*_]{{{marks}}})" for marks in (1, 2, 3)) + ")"
"""Behind the marks with which Markdown begins bold or slanted text; after a look at what comes, for it takes long."""
_WORD = r"_*[^\W_]"
"""What goes on like a word: marks that end bold or slanted text do not."""
_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+/-])_*([A-Za-z0-9][A-Za-z0-9._%+-]{0,63})(?:@|\s?[\[(](?:at|AT)[\])]\s?)"
    r"((?:[A-Za-z0-9\u00c0-\u024f](?:[A-Za-z0-9\u00c0-\u024f-]{0,61}[A-Za-z0-9\u00c0-\u024f])?"
    r"(?:\.|\s?[\[(](?:dot|DOT)[\])]\s?)){1,6}([A-Za-z]{2,18}|xn--[A-Za-z0-9-]{2,20}))(?!_*[A-Za-z0-9@-]|\.[A-Za-z0-9])"
)
_USUAL = frozenset(("com", "org", "net", "edu", "gov"))
_TOP_LEVEL = _USUAL | frozenset((
    "mil", "int", "info", "biz", "pro", "dev", "app", "cloud", "online", "site", "store", "shop", "tech", "xyz",
    "email", "software", "digital", "agency", "academy", "company", "consulting", "solutions", "studio", "media",
    "news", "blog", "club", "team", "university", "institute", "foundation", "science", "website", "world", "life",
    "social", "travel", "museum", "coop", "aero", "mobi", "asia", "berlin", "hamburg", "london", "paris", "nyc",
    "wien"
))  # fmt: skip
"""Not all that there are: `map`, `name`, `network`, `post` and others stand behind a dot in code."""
_NO_MAILBOX = frozenset(("git", "this", "super", "return", "break", "continue"))  # all but git are Kotlin's
_SPELT = re.compile(r"[\[(]at[\])]", re.IGNORECASE)
_NOBODY = re.compile(
    r"(?:^|\.)(?:example|test|invalid|localhost|local|internal|lan)$|(?:^|\.)example\.(?:com|org|net|edu)$"
    r"|^(?:(?:your|my|some|the)-?)?(?:domain|company|website)\.(?:com|org|net|tld)$"
    r"|^(?:your|my|some|the)-?(?:site|email|mail|host|server|provider)\.(?:com|org|net|tld)$"
    r"|\.(?:png|jpe?g|gif|svg|webp|ico|css|js|mjs|ts|json|xml|html?|txt|pdf|so|dll|exe|jar|zip|git)$",
    re.IGNORECASE,
)
_NANP = r"(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}"
_PHONE = re.compile(
    rf"(?=\+)(?:(?<![^\s(\[{{\"':;,<>\u00ab/])|{_MARKED})(?<![\d)\]=] )"
    rf"(?P<plus>\+\d[\d ().\u2010-\u2015/-]{{6,20}}\d)(?!{_WORD}|%)"
    rf"|(?=[\d(])(?:(?<![\w.$#/+-])|{_MARKED})(?<!\d )(?P<grouped>(?:1[-. ])?{_NANP})"
    rf"(?!{_WORD}|%|[-.,:/]\d| \d"
    r"|[ \t]?[+=^]|[ \t]\*|[ \t]?[-*/][ \t]?[-+(]?\d|[-*/][^\W_])"  # more of a formula; `**` may end bold text
)
_V4 = re.compile(rf"(?=[0-9])(?:(?<![\w.])|{_MARKED})[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}(?!{_WORD}|[.+]\d|-[A-Za-z])")
_V6 = re.compile(
    rf"(?=[23])(?:(?<![\w:.])|{_MARKED})[23][0-9A-Fa-f]{{3}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?!{_WORD}|[:.]\w)"
)
_VERSIONED = re.compile(
    r"(?:\b(?:version|ver\.?|v|release|build|revision|assembly\w*|python|java|gcc|mysql|firmware|kernel|update)[\s\"'=:<>~]*"
    r"|[A-Za-z_]/|[A-Za-z]-v?|[=<>~^]=\s*)\Z",
    re.IGNORECASE,
)
_RESOLVERS = frozenset((
    "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
    "4.2.2.1", "4.2.2.2", "2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111",
    "2606:4700:4700::1001"
))  # fmt: skip
_SHAPED = re.compile(EDGE + "(?:" + "|".join(f"(?:{pattern})" for _, pattern in SHAPES.values()) + r")[\w-]*", re.ASCII)
_BEGINS = re.compile("|".join(re.escape(begin) for begins, _ in SHAPES.values() for begin in begins))
_PRIVATE = re.compile(
    r"(-----BEGIN ((?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?)-----)"
    r"(?:.{0,8000}?-----END \2-----"
    r"|(?:(?:\s*(?:\n|\\n)[\w-]{1,40}: [^\n\\]{0,200}){0,8}(?:(?:\s|\\n)+[A-Za-z0-9+/=]{16,})+)?)",  # headers, body
    re.DOTALL,
)
_TOKEN = re.compile(rf"(?=eyJ)(?:(?<![\w.-])|{_MARKED})eyJ[\w-]{{10,}}\.eyJ[\w-]{{10,}}\.[\w-]{{10,}}", re.ASCII)
_IN_ADDRESS = re.compile(r"(?<=://)([^\s/:@\"'<>\[\]{}$*]{1,64}):([^\s/@\"'<>\[\]{}$*]{3,128})(?=@[\w.-]+)")
_CALLED = re.compile(
    r"(?:api[_-]?key|secret[_-]?(?:access[_-]?)?key|client[_-]?secret|auth[_-]?token|access[_-]?token|private[_-]?key)"
    r"[\"']?\s*(?:[:=]|=>)\s*[\"']?([A-Za-z0-9+/_-]{20,128}={0,2})(?![\w.(\[])",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    r"example|sample|dummy|fake|your|my_?|xxxx|\.\.\.|1234567|abcdef|placeholder|changeme", re.IGNORECASE
)
_PASSWORDS = re.compile(
    r"(?:user)?(?:pass(?:word|wd)?|pwd|secret|token|x+|\*+|x-oauth-basic|port|\d{1,5})\d?", re.IGNORECASE
)
_IBAN = re.compile(
    rf"(?=[A-Z]{{2}}\d)(?:(?<!\w)|{_MARKED})"
    rf"[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?(?!{_WORD})"
)
_CARD = re.compile(
    rf"(?=\d)(?:(?<![\w.-])|{_MARKED})"
    r"(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -])\d{6}\2\d{5}|[456]\d{15})"
    rf"(?!{_WORD}|\.\d|-\w)"
)
_CARDS_FOR_TESTS = frozenset((
    "4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444", "5105105105105100",
    "378282246310005", "371449635398431", "6011111111111117", "6011000990139424", "4000056655665556",
    "5454545454545454", "4444333322221111"
))  # fmt: skip


class _Place(NamedTuple):
    start: int
    end: int
    label: str


def look(dialogue: Dialogue) -> list[Finding]:
    """What stands in the source (no turn) and in each turn; the detail says how many, and never what."""
    records = [dialogue.record, *([dialogue.related] if dialogue.related else [])]
    source = Counter[str]()
    for text in (text for record in records for text in (record.question, record.answer)):
        source += masked(text)[1]
    counts = [(None, source), *((place, masked(turn.text)[1]) for place, turn in enumerate(dialogue.turns))]
    return [Finding(label, place, str(count[label])) for place, count in counts for label in LABELS if count[label]]


def masked(text: str) -> tuple[str, Counter[str]]:
    """`text` with `[mail address]` and so on in the places of personal data, and how many of each there were.

    All else stays as it is, and what is masked stays as it is when it is masked again.
    """
    counts = Counter[str]()
    while places := list(_without_overlaps(sorted(_places(text), key=lambda place: (place.start, -place.end)))):
        pieces, reached = [], 0
        for start, end, label in places:
            pieces += [text[reached:start], f"[{label}]"]
            reached = end
            counts[label] += 1
        text = "".join([*pieces, text[reached:]])
    return text, counts


def _without_overlaps(places: list[_Place]) -> Iterator[_Place]:
    reached = 0
    for place in places:
        if place.start >= reached:
            yield place
            reached = place.end


def _places(text: str) -> Iterator[_Place]:
    yield from _keys(text)
    if "@" in text or _SPELT.search(text):
        yield from _mails(text)
    if any(letter.isdigit() for letter in text):
        yield from _phones(text)
        yield from _ip_addresses(text)
        yield from _accounts(text)


def _mails(text: str) -> Iterator[_Place]:
    for found in _MAIL.finditer(text):
        domain = re.sub(r"\s?[\[(]dot[\])]\s?", ".", found[2], flags=re.IGNORECASE)
        top = found[3].lower()
        country = len(top) == 2 and found[3] not in ("mT", "mH")  # these turn matrices over
        real = country or top in _TOP_LEVEL or top.startswith("xn--")
        member = top not in _USUAL and text[found.end() : found.end() + 1] in ("(", "[")  # X@W.to("cpu")
        if (
            real
            and not member
            and found[1] not in _NO_MAILBOX
            and not _NOBODY.search(domain)
            and text[max(0, found.start() - 3) : found.start()] != "://"
        ):
            yield _Place(found.start(1), found.end(), "mail address")


def _phones(text: str) -> Iterator[_Place]:
    candidates = list(_PHONE.finditer(text))
    if not candidates:
        return
    import phonenumbers  # the numbering plans of the world, only where something looks like a number

    outside = without_formulas(text)
    for found in candidates:
        if outside[found.start() : found.end()] != found[0]:
            continue
        bare_after_line = found[0][1:].isdigit() and text[: found.start()].endswith("\n")  # a line added in a diff
        try:
            number = phonenumbers.parse(found[0], None if found["plus"] else "US")
        except phonenumbers.NumberParseException:
            continue
        national = str(number.national_number)
        fiction = number.country_code == 1 and national[3:6] == "555"
        if phonenumbers.is_valid_number(number) and not fiction and not bare_after_line:
            yield _Place(found.start(), found.end(), "phone number")


def _ip_addresses(text: str) -> Iterator[_Place]:
    for found in _V4.finditer(text):
        parts = [int(part) for part in found[0].split(".")]
        ordinary = max(parts) > 255 or max(parts) <= 30 or parts[3] == 0 or found[0] in _RESOLVERS
        leading = any(part != "0" and part.startswith("0") for part in found[0].split("."))
        if ordinary or leading or _VERSIONED.search(text[max(0, found.start() - 24) : found.start()]):
            continue
        address = ipaddress.IPv4Address(found[0])
        if address.is_global and not address.is_multicast:
            yield _Place(found.start(), found.end(), "IP address")
    for found in _V6.finditer(text):
        try:
            six = ipaddress.IPv6Address(found[0])
        except ValueError:
            continue
        if len(re.findall(r"\w+", found[0])) >= 4 and six.is_global and found[0].lower() not in _RESOLVERS:
            yield _Place(found.start(), found.end(), "IP address")


def _keys(text: str) -> Iterator[_Place]:
    if _BEGINS.search(text):
        for found in (*_PRIVATE.finditer(text), *_SHAPED.finditer(text)):
            if not re.search("EXAMPLE", found[0]):
                yield _Place(found.start(), found.end(), "key")
    for found in _TOKEN.finditer(text):
        yield _Place(found.start(), found.end(), "key")
    for found in _IN_ADDRESS.finditer(text):
        if not _PASSWORDS.fullmatch(found[2]) and not _EXAMPLE.search(found[0]) and found[1] != found[2]:
            yield _Place(found.start(), found.end(), "key")
    for found in _CALLED.finditer(text):
        digits = sum(letter.isdigit() for letter in found[1])
        varied = len(set(found[1])) >= 10 and digits >= 3 and len(found[1]) - digits >= 3
        if varied and not _EXAMPLE.search(found[1]):
            yield _Place(found.start(1), found.end(1), "key")


def _accounts(text: str) -> Iterator[_Place]:
    for found in _IBAN.finditer(text):
        bare = found[0].replace(" ", "")
        digits = "".join(str(int(letter, 36)) for letter in bare[4:] + bare[:4])
        if 15 <= len(bare) <= 34 and int(digits) % 97 == 1:
            yield _Place(found.start(), found.end(), "bank account")
    for found in _CARD.finditer(text):
        bare = re.sub(r"\D", "", found[0])
        doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(bare))]
        issued = re.match(r"4|5[1-5]|2[2-7]|3[47]|6011|65", bare)
        if issued and sum(digit // 10 + digit % 10 for digit in doubled) % 10 == 0 and bare not in _CARDS_FOR_TESTS:
            yield _Place(found.start(), found.end(), "card number")
