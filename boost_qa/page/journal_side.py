"""The journal's side of a turn: the request behind it, and the replies before it that could not be used.

A reply that cannot be used is asked for again by the same request, so replies under one digest are attempts at one
thing. A turn says what one of them says; a teacher's may have the question before it. A turn in which personal data is
masked says it in other words: what it cost tells which request it was.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from boost_qa.errors import JournalError
from boost_qa.types import Usage

SHORT = 24
"""Texts of fewer characters are recognised in a prompt only where they have their lines for themselves."""

_ASKED = """SELECT ordinal, digest, request, text, finish, prompt_tokens, completion_tokens FROM replies
WHERE record = ? AND scenario = ? ORDER BY ordinal, digest"""

Piece = str | int
"""A piece of a prompt: its own words, or the number of a text of the dialogue that stands there whole."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reply; `finish` is stop, length or refused."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with all replies to it; `sampling` is temperature, top_p and max_tokens."""

    model: str
    messages: list[tuple[str, str]]
    sampling: list[float]
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """What all replies cost."""
        return sum((Usage(1, each.prompt_tokens, each.completion_tokens) for each in self.attempts), Usage())


class Replies:
    """The journal of a run, to be read only.

    Args:
        path: of the journal; nothing was asked where there is none.
        models: whose requests count; those of scorers and checks, which say no turn, are passed over. Empty: all.
    """

    def __init__(self, path: Path, db: sqlite3.Connection | None, models: Collection[str]) -> None:
        self.path, self._db, self._models = path, db, models

    def __bool__(self) -> bool:
        return self._db is not None

    def asked(self, record: str, scenario: str) -> list[Asked]:
        """What was asked for a record in a scenario, in order.

        Raises:
            JournalError: if the journal cannot be read.
        """
        if self._db is None:
            return []
        found: dict[str, Asked] = {}
        try:
            for ordinal, digest, request, *reply in self._db.execute(_ASKED, (record, scenario)):
                what = f"call {ordinal} of record {record!r} in {scenario}"
                if digest not in found:
                    body = orjson.loads(request)
                    messages = [(role, text) for role, text in body["messages"]]
                    found[digest] = Asked(body["model"], messages, body["sampling"])
                found[digest].attempts.append(Attempt(*reply))
        except sqlite3.Error as error:
            raise _damaged(self.path, error) from error
        except (ValueError, LookupError, TypeError) as error:
            remedy = "It was not written by this package; move the journal away."
            raise JournalError(f"{self.path}: {what} holds no request: {error}", remedy) from error
        return [each for each in found.values() if not self._models or each.model in self._models]


@contextmanager
def replies(path: Path, models: Collection[str] = ()) -> Iterator[Replies]:
    """Open a journal, also one that is being written to; nothing is changed in it or beside it."""
    if not path.is_file():
        yield Replies(path, None, models)
        return
    db = None
    try:
        db = _open(path)
        yield Replies(path, db, models)
    finally:
        if db is not None:
            db.close()


def behind(turns: Sequence[tuple[str, Usage] | None], asked: Sequence[Asked]) -> list[tuple[Asked, int] | None]:
    """The request behind each turn, and which of its attempts the turn says.

    Args:
        turns: text and cost of each, in their order; None where no agent spoke.
        asked: what was asked for this dialogue, in order.

    Returns:
        None for a turn that no agent said, or that no reply fits.
    """
    found: list[tuple[Asked, int] | None] = []
    place = 0
    for turn in turns:
        hit = _said(*turn, asked, place) if turn else None
        found.append((asked[hit[0]], hit[1]) if hit else None)
        place = hit[0] + 1 if hit else place
    return found


def pieces(content: str, known: Sequence[str]) -> list[Piece]:
    """`content` cut at the texts of `known` that stand in it, the longest first; joined again it is the same."""
    cut: list[Piece] = [content] if content else []
    for number in sorted(range(len(known)), key=lambda number: -len(known[number])):
        text = known[number]
        if text:
            cut = [part for piece in cut for part in (_cut(piece, text, number) if isinstance(piece, str) else [piece])]
    return cut


def _said(text: str, usage: Usage, asked: Sequence[Asked], place: int) -> tuple[int, int] | None:
    """The first request from `place` on with a reply that is the text, or else its end, or else has cost as much."""
    replies = [
        (number, attempt, each.attempts[attempt].text.strip())
        for number, each in enumerate(asked[place:], place)
        for attempt in reversed(range(len(each.attempts)))  # what could not be used comes first
    ]
    whole = ((number, attempt) for number, attempt, reply in replies if reply == text)
    end = ((number, attempt) for number, attempt, reply in replies if reply and text.endswith(reply))
    cost = ((number, attempt) for number, attempt, _ in replies if asked[number].usage == usage)
    return next(itertools.chain(whole, end, cost), None)


def _cut(piece: str, text: str, number: int) -> list[Piece]:
    parts: list[Piece] = []
    done = start = 0
    while (start := piece.find(text, start)) >= 0:
        end = start + len(text)
        alone = piece[start - 1 : start] in ("", "\n") and piece[end : end + 1] in ("", "\n")
        if len(text) >= SHORT or alone:
            parts += [piece[done:start], number]
            done = end
        start = end
    return [part for part in (*parts, piece[done:]) if part != ""]


def _open(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing. With `mode=ro` alone SQLite leaves two files beside a journal that nobody has
    open; such a one is read as what cannot change, from a folder that nothing can be written to, too."""
    in_use = path.with_name(path.name + "-wal").exists()
    options = "mode=ro" if in_use else "mode=ro&immutable=1"
    db = sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True, isolation_level=None)
    try:
        db.execute("SELECT 1 FROM replies LIMIT 1")
    except sqlite3.Error as error:
        db.close()
        raise _damaged(path, error) from error
    return db


def _damaged(path: Path, error: Exception) -> JournalError:
    remedy = "It is no journal, or a damaged one: move it away or bring a copy back. Without one, no prompts are shown."
    return JournalError(f"{path}: {error}", remedy)
