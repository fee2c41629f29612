"""Nothing secret leaves: the last look at all files of a release, and the cleaning of error messages."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from boost_qa.checks.keys import EDGE, SHAPES
from boost_qa.config import SECRET
from boost_qa.errors import PublishError

_MINE = "a token or password of this environment"
_REMEDY = "Take it out of the file; if it was ever published, revoke it, for the history keeps it."
_BINARY = frozenset((".parquet", ".safetensors", ".png"))
_SNIFFED = 4096  # bytes at the beginning in which a NUL means that the file is no text
_OVERLAP = 4096  # bytes; longer than any shape with what is looked at around it
_BEFORE = 8  # bytes before a token that its shape looks at
_NAME = re.compile(r"ACCESS_?KEY$|^[A-Z0-9_]*(TOKEN|SECRET|PASSWD)S?$")
_WORD = re.compile(r"[a-z]{1,15}")
_SHORTEST = 8  # characters; anything shorter in the environment is a setting rather than a secret

_PATTERNS = {
    kind: (tuple(begin.encode() for begin in begins), re.compile((EDGE + pattern).encode()))
    for kind, (begins, pattern) in SHAPES.items()
}


class _Wanted(NamedTuple):
    """Secrets as they are, and as text has them."""

    plain: list[bytes]
    written: list[bytes]
    piece_bytes: int


class _Found(NamedTuple):
    kind: str
    where: str


class _Piece(NamedTuple):
    """Part of a file: its bytes, where they begin in the file, and whether the file ends with them."""

    data: bytes
    start: int
    last: bool


def refuse_secrets(
    files: Mapping[str, bytes | Path], *, known: Sequence[str], piece_bytes: int = 8 * 1024 * 1024
) -> None:
    """Look for secrets in all files, their names included.

    Text is searched for `known` and for whatever has the shape of a token or of a private key; other files, which are
    Parquet, safetensors, PNG, and those with a NUL in their first 4 kB, for the bytes of `known` only. What a file has
    compressed, as Parquet has its columns, is not unpacked.

    Args:
        files: by their path in the release, the content or where it is.
        known: secrets by themselves, as `known_secrets` gives them.
        piece_bytes: how much of a file is read at a time; more than 8 kB.

    Raises:
        PublishError: at the first one, naming file, line (in files that are no text: byte) and kind, not the secret.
    """
    plain = [secret.encode(errors="surrogateescape") for secret in known if secret]
    written = [form.encode(errors="surrogateescape") for secret in known for form in _forms(secret)]
    wanted = _Wanted(plain, written, piece_bytes)
    for path, content in files.items():
        if found := _first(path.encode(), "", wanted):
            raise PublishError(f"the name of a file holds {found.kind}", _REMEDY)
        if found := _first(content, path, wanted):
            raise PublishError(f"{path}, {found.where}: {found.kind}", _REMEDY)


def without(text: str, known: Sequence[str]) -> str:
    """`text` with `***` for each known secret, be it plain, escaped as in JSON, URL-quoted, or in base64."""
    forms = {form for secret in known for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def known_secrets(environ: Mapping[str, str] = os.environ, token: str | None = None) -> list[str]:
    """The values of variables with a secret's name, from 8 characters on, and `token`; the longest first.

    A word in small letters is none: text would be full of it.
    """
    values = (value.strip() for name, value in environ.items() if _NAME.search(name) or SECRET.search(name))
    found = {value for value in values if len(value) >= _SHORTEST and not _WORD.fullmatch(value)}
    found |= {(token or "").strip()} - {""}
    return sorted(found, key=lambda secret: (-len(secret), secret))


# --- search --------------------------------------------------------------------------------------


def _first(content: bytes | Path, path: str, wanted: _Wanted) -> _Found | None:
    overlap = max([_OVERLAP, *map(len, wanted.written)])
    lines, is_text = 0, False
    for piece in _pieces(content, max(wanted.piece_bytes, 2 * overlap), overlap):
        if piece.start == 0:
            is_text = Path(path).suffix.lower() not in _BINARY and b"\0" not in piece.data[:_SNIFFED]
        places = [(piece.data.find(secret), _MINE) for secret in (wanted.written if is_text else wanted.plain)]
        places = [*filter(lambda found: found[0] >= 0, places), *(_shaped(piece) if is_text else ())]
        if places:
            place, kind = min(places, key=lambda found: found[0])
            line = lines + piece.data.count(b"\n", 0, place) + 1
            return _Found(kind, f"line {line}" if is_text else f"byte {piece.start + place}")
        if is_text and not piece.last:
            lines += piece.data.count(b"\n", 0, len(piece.data) - overlap)
    return None


def _pieces(content: bytes | Path, size: int, overlap: int) -> Iterator[_Piece]:
    """A file piece by piece; each begins with the last `overlap` bytes of the one before."""
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        data, start = file.read(size), 0
        while more := file.read(size):
            yield _Piece(data, start, False)
            start += len(data) - overlap
            data = data[-overlap:] + more
        yield _Piece(data, start, True)


def _shaped(piece: _Piece) -> Iterator[tuple[int, str]]:
    """The first of each shape in a piece, but for those that another piece shows with more around them."""
    for kind, (begins, pattern) in _PATTERNS.items():
        for begin in begins:
            place = piece.data.find(begin, _BEFORE if piece.start else 0)
            while place >= 0:
                found = pattern.match(piece.data, place)
                if found and (piece.last or found.end() < len(piece.data)):
                    yield place, kind
                    break
                place = piece.data.find(begin, place + 1)


def _forms(secret: str) -> set[str]:
    """How a secret is written in messages and files. Of a short one, base64 would have too few letters."""
    if not secret:
        return set()
    raw = secret.encode(errors="surrogateescape")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    quoted |= {re.sub("%..", lambda code: code[0].lower(), form) for form in quoted}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret} | quoted | escaped | (_in_base64(raw) if len(secret) >= _SHORTEST else set())


def _in_base64(secret: bytes) -> set[str]:
    """What base64 makes of it, also amid other bytes (`user:secret`): the letters that depend on nothing else."""
    forms = set()
    for before in range(3):
        whole = bytes(before) + secret
        inner = slice((0, 2, 3)[before], len(whole) * 8 // 6)
        forms |= {base64.b64encode(whole).decode()[inner], base64.urlsafe_b64encode(whole).decode()[inner]}
    return forms
