"""The journal: what is in it survives, and nothing else is ever found."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_run import results
from scripted import Scripted

from boost_qa.errors import JournalError
from boost_qa.journal import Journal
from boost_qa.types import Call, Message, Reply, Request

KILLED_RUN = Path(__file__).with_name("killed_run.py")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # no lone surrogates: JSON has none
CALL = Call("record", "scenario", 0, Request("m", (Message("user", "Hello"),)), "digest", 17, b'{"model":"m"}')


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def add(journal: Journal, *pairs: tuple[Call, Reply]) -> None:
    """Add replies that arrive together, and wait until they are kept."""

    async def adding() -> None:
        await asyncio.gather(*(journal.add(call, reply) for call, reply in pairs))

    asyncio.run(adding())


def nth(number: int, text: str = "x") -> tuple[Call, Reply]:
    return replace(CALL, record=f"r{number}"), Reply(f"{number} {text}", "stop", number, 2 * number)


# --- finding --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.tuples(TEXT, TEXT, st.integers(0, 9), TEXT),
        st.builds(
            Reply, TEXT, st.sampled_from(["stop", "length", "refused"]), st.integers(0, 2**40), st.integers(0, 9)
        ),
        min_size=1,
        max_size=20,
    ),
    st.tuples(TEXT, TEXT, st.integers(0, 9), TEXT),
)
def test_exactly_what_was_added_is_found(replies, other):
    pairs = [
        (replace(CALL, record=r, scenario=s, ordinal=o, digest=d), reply) for (r, s, o, d), reply in replies.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        with Journal(Path(folder) / "j") as journal:
            add(journal, *pairs)
            assert journal.usage() == {
                "requests": len(replies),
                "prompt_tokens": sum(reply.prompt_tokens for reply in replies.values()),
                "completion_tokens": sum(reply.completion_tokens for reply in replies.values()),
            }
        with Journal(Path(folder) / "j") as journal:
            assert [journal.find(call) for call, _ in pairs] == list(replies.values())
            r, s, o, d = other
            assert journal.find(replace(CALL, record=r, scenario=s, ordinal=o, digest=d)) == replies.get(other)
            assert len(journal) == len(replies)


def test_the_file_can_be_read_without_this_package(journal):
    add(journal, (CALL, Reply("Hi", "length", 3, 1)))
    with closing(sqlite3.connect(journal.path)) as db:
        db.row_factory = sqlite3.Row
        (row,) = map(dict, db.execute("SELECT * FROM replies"))
    assert row == {
        "record": "record", "scenario": "scenario", "ordinal": 0, "digest": "digest", "seed": 17,
        "request": '{"model":"m"}', "text": "Hi", "finish": "length", "prompt_tokens": 3, "completion_tokens": 1,
    }  # fmt: skip


def test_a_copy_has_what_was_committed(journal, tmp_path):
    add(journal, nth(1), nth(2))
    Journal.copy(journal.path, tmp_path / "copy.sqlite")  # while the first is still open
    with Journal(tmp_path / "copy.sqlite") as copied:
        assert [copied.find(nth(number)[0]) for number in (1, 2)] == [nth(1)[1], nth(2)[1]]
    with pytest.raises(JournalError, match="no journal at"):
        Journal.copy(tmp_path / "nothing", tmp_path / "copy2.sqlite")


# --- keeping --------------------------------------------------------------------------------------


def test_replies_that_arrive_together_are_committed_together(journal):
    statements = []
    journal._db.set_trace_callback(statements.append)
    add(journal, *(nth(number) for number in range(50)))
    assert statements.count("COMMIT") == 1
    assert len(journal) == 50


def test_a_reply_is_kept_when_its_future_is_done_and_not_before(journal):
    def on_disk() -> int:
        with closing(sqlite3.connect(journal.path)) as other:
            return other.execute("SELECT count(*) FROM replies").fetchone()[0]

    async def adding():
        kept = journal.add(*nth(1))
        before = on_disk(), kept.done()
        await kept
        return before, on_disk()

    assert asyncio.run(adding()) == ((0, False), 1)


def test_a_cancelled_wait_does_not_lose_the_reply(journal):
    async def adding():
        journal.add(*nth(1)).cancel()
        await journal.add(*nth(2))

    asyncio.run(adding())
    assert len(journal) == 2


# --- what can go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"no database at all, " * 99, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_journal(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(JournalError) as caught:
        Journal(path)
    assert str(path) in caught.value.what and "move it away" in caught.value.remedy
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["", "no/such/folder/journal.sqlite"])
def test_a_place_where_no_journal_can_be(tmp_path, name):
    with pytest.raises(JournalError) as caught:
        Journal(tmp_path / name)
    assert str(tmp_path / name) in caught.value.what and "folder's permissions" in caught.value.remedy


def test_damage_is_named(tmp_path):
    with Journal(tmp_path / "j") as journal:
        add(journal, *(nth(number, "text " * 500) for number in range(40)))
    raw = bytearray((tmp_path / "j").read_bytes())
    raw[8192:] = b"\xa5" * len(raw[8192:])  # all but the first page
    (tmp_path / "j").write_bytes(raw)
    with Journal(tmp_path / "j") as journal:
        for use in (journal.__len__, journal.usage, lambda: journal.find(nth(7)[0])):
            with pytest.raises(JournalError, match="malformed") as caught:
                use()
            assert str(tmp_path / "j") in caught.value.what and "damaged" in caught.value.remedy


def test_a_full_disk_loses_nothing_that_was_kept(journal):
    add(journal, *(nth(number) for number in range(9)))
    journal._db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(JournalError, match="full") as caught:
        add(journal, *(nth(number, "text " * 999) for number in range(100, 140)))
    assert str(journal.path) in caught.value.what and "Make room" in caught.value.remedy
    assert len(journal) == 9
    assert all(journal.find(nth(number)[0]) == nth(number)[1] for number in range(9))
    journal._db.execute("PRAGMA max_page_count = 9999")
    add(journal, *(nth(number, "text " * 999) for number in range(100, 140)))
    assert len(journal) == 49


def test_a_reply_that_is_no_text_fails_its_group_at_once(journal):
    """Whoever waits must hear of every failure, or the run would stand still."""
    with pytest.raises(JournalError, match="surrogates"):
        add(journal, nth(1), (CALL, Reply("half a \ud83d")))
    assert len(journal) == 0
    add(journal, nth(1))
    assert len(journal) == 1


# --- torn tails -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unclosed(tmp_path_factory):
    """A journal as a crash leaves it: nothing in the main file, 30 commits of 3 replies in the log beside it."""
    folder = tmp_path_factory.mktemp("unclosed")
    with Journal(folder / "j") as journal:
        for commit in range(30):
            add(journal, *(nth(3 * commit + number, "text " * 200) for number in range(3)))
        crashed = tmp_path_factory.mktemp("crashed")
        for name in ("j", "j-wal"):
            shutil.copy(folder / name, crashed / name)
    return crashed


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_torn_tail_costs_the_last_commits_only(unclosed, data):
    wal = (unclosed / "j-wal").read_bytes()
    place = data.draw(st.integers(0, len(wal)), "place")
    garbage = data.draw(st.binary(max_size=9), "garbage")
    torn = wal[:place] if not garbage else wal[:place] + garbage + wal[place + len(garbage) :]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(unclosed / "j", folder)
        (Path(folder) / "j-wal").write_bytes(torn)
        with Journal(Path(folder) / "j") as journal:
            found = [journal.find(nth(number)[0]) for number in range(90)]
            kept = len(journal)
            assert kept % 3 == 0  # commits are whole or not there
            assert found == [nth(number, "text " * 200)[1] for number in range(kept)] + [None] * (90 - kept)
            assert place < len(wal) or kept == 90
            # a commit is three replies of more than a kilobyte: what lies before the tear is all there
            assert kept >= 3 * (place * 30 // len(wal) - 2)
            add(journal, *(nth(number, "text " * 200) for number in range(90)))
        with Journal(Path(folder) / "j") as journal:
            assert len(journal) == 90
            assert journal._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- kill -9 --------------------------------------------------------------------------------------

RECORDS, SLOTS = 80, 8


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with Journal(tmp_path_factory.mktemp("undisturbed") / "j") as journal:
        return results(journal, Scripted(), RECORDS)


def play(folder: Path, last: int = -1, **options) -> subprocess.CompletedProcess[str]:
    """The run in a process of its own, which kills itself soon after its `last`th request."""
    settings = map(str, (folder / "j", folder / "log", RECORDS, SLOTS, last))
    return subprocess.run([sys.executable, str(KILLED_RUN), *settings], capture_output=True, text=True, **options)


def asked(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def kept(folder: Path) -> int:
    """Replies in a journal whose process is dead, read from a copy so that its files stay as they are."""
    with tempfile.TemporaryDirectory() as copied:
        for file in folder.glob("j*"):
            shutil.copy(file, copied)
        with Journal(Path(copied) / "j") as journal:
            return len(journal)


def test_killed_three_times(tmp_path, undisturbed):
    known = 0  # asked, and not in the journal: each kill may add as many as there are slots
    for last in (33, 61, 94):
        assert play(tmp_path, last).returncode == -signal.SIGKILL
        missing = len(asked(tmp_path)) - kept(tmp_path)
        assert 0 <= missing - known <= SLOTS
        known = missing
    end = play(tmp_path)
    assert json.loads(end.stdout) == undisturbed, end.stderr
    times = Counter(asked(tmp_path))
    assert len(times) == 3 * RECORDS
    assert times.total() - len(times) == known


def test_a_disk_that_is_really_full(tmp_path, undisturbed):
    """The file system refuses to write: here, because no file may grow beyond a limit."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    full = play(tmp_path, preexec_fn=small_files)
    assert full.returncode == 1 and not full.stdout
    assert str(tmp_path / "j") in full.stderr and "Make room" in full.stderr and "Traceback" not in full.stderr
    before = kept(tmp_path)
    assert 0 < before < 3 * RECORDS
    assert len(asked(tmp_path)) - before <= SLOTS
    end = play(tmp_path)
    assert json.loads(end.stdout) == undisturbed, end.stderr
    assert len(asked(tmp_path)) <= 3 * RECORDS + SLOTS
