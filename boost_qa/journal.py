"""The journal: every request and its reply, on disk before the dialogue goes on.

One idea gives crash resume, replay without a model, and golden tests: a scenario is a pure function
of its record, cast, seed and replies, so the replies are all that has to be kept. SQLite in WAL mode
holds them; its checksums drop a torn tail. Replies that arrive together are committed together.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any

from boost_qa.errors import JournalError
from boost_qa.types import Call, Reply

GROUP_SECONDS = 0.002

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    record TEXT NOT NULL, scenario TEXT NOT NULL, ordinal INTEGER NOT NULL, digest TEXT NOT NULL,
    seed INTEGER NOT NULL, request TEXT NOT NULL,
    text TEXT NOT NULL, finish TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (record, scenario, ordinal, digest)
)
"""
_FIND = """SELECT text, finish, prompt_tokens, completion_tokens FROM replies
WHERE record = ? AND scenario = ? AND ordinal = ? AND digest = ?"""
_ADD = "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Journal:
    """The replies of one run, keyed by record, scenario, ordinal of the call and digest of the request.

    Raises:
        JournalError: on opening, if the file is no journal or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[tuple[str | int, ...]] = []
        self._waiting: list[asyncio.Future[None]] = []
        try:
            # one connection, used by whichever single thread runs the event loop
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA page_size = 8192")  # a row is 2 to 6 KB: pages of 4 KB would hold one each
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            if hasattr(self, "_db"):
                self._db.close()
            raise self._error(error) from error

    @classmethod
    def copy(cls, source: Path, target: Path) -> None:
        """Copy a journal, also one that is being written to.

        Raises:
            JournalError: if `source` is no journal.
        """
        if not source.is_file():
            raise JournalError(f"there is no journal at {source}", "Give a run folder that `boost-qa generate` wrote.")
        with cls(source) as old, cls(target) as new:
            old._db.backup(new._db)

    def find(self, call: Call) -> Reply | None:
        """The reply to exactly this call, if it was ever given."""
        row = self._row(_FIND, call.record, call.scenario, call.ordinal, call.digest)
        return Reply(*row) if row else None

    def add(self, call: Call, reply: Reply) -> asyncio.Future[None]:
        """Keep a reply; it survives a crash of this process once the returned future is done.

        The future raises JournalError if the reply could not be written.
        """
        loop = asyncio.get_running_loop()
        if not self._rows:
            loop.call_later(GROUP_SECONDS, self.commit)
        self._rows.append(
            (call.record, call.scenario, call.ordinal, call.digest, call.seed, call.body.decode(),
             reply.text, reply.finish, reply.prompt_tokens, reply.completion_tokens)
        )  # fmt: skip
        kept = loop.create_future()
        self._waiting.append(kept)
        return kept

    def commit(self) -> None:
        """Write all that waits, as one transaction, and wake whoever waits for it."""
        rows, waiting, self._rows, self._waiting = self._rows, self._waiting, [], []
        if not rows:
            return
        failure = None
        try:
            self._db.execute("BEGIN")
            self._db.executemany(_ADD, rows)
            self._db.execute("COMMIT")
        except Exception as error:  # whatever it is, the waiting must hear of it
            failure = self._error(error)
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        for kept in waiting:
            if not kept.done():
                kept.set_exception(failure) if failure else kept.set_result(None)

    def usage(self) -> dict[str, int]:
        """Requests answered, and the tokens read and written for them, over all sessions."""
        totals = self._row("SELECT count(*), total(prompt_tokens), total(completion_tokens) FROM replies")
        return dict(zip(("requests", "prompt_tokens", "completion_tokens"), map(int, totals), strict=True))

    def close(self) -> None:
        self._db.close()

    def __len__(self) -> int:
        """Replies on disk."""
        return int(self._row("SELECT count(*) FROM replies")[0])

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row(self, question: str, *values: str | int) -> Any:
        try:
            return self._db.execute(question, values).fetchone()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> JournalError:
        if isinstance(error, sqlite3.OperationalError):
            remedy = "Make room or mend the folder's permissions, then start again: all that was committed is kept."
        else:
            remedy = "It is no journal, or a damaged one: move it away or bring a copy back, then start again."
        return JournalError(f"{self.path}: {error}", remedy)
