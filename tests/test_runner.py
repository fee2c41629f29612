"""The runner: what it promises to scenarios, engines, and whoever reads its results."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted, echo, place, talk, talks

from boost_qa.errors import EngineError, JournalError, ModelError, Rejected
from boost_qa.journal import Journal
from boost_qa.runner import Job, Stats, call_for, run
from boost_qa.types import Call, Message, Reply, Request, Sampling


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def results(jobs, engines, journal, **options):
    if isinstance(engines, Scripted):
        engines = {"m": engines}
    return {
        (end.job.record, end.job.scenario): end.result or end.rejected for end in run(jobs, engines, journal, **options)
    }


def runner_threads():
    return [thread for thread in threading.enumerate() if thread.name == "boost_qa.runner"]


# --- replies decide everything --------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    in_flight=st.integers(1, 40),
    slots=st.integers(1, 20),
    turns=st.lists(st.integers(0, 4), max_size=30),
    slow=st.integers(1, 7),
    seed=st.integers(0, 3),
)
def test_results_do_not_depend_on_what_is_in_flight(in_flight, slots, turns, slow, seed):
    jobs = [
        Job(f"r{at}", "talk", lambda at=at, count=count: talk(f"r{at}", count), count) for at, count in enumerate(turns)
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "a") as one,
        Journal(Path(folder) / "b") as many,
    ):
        expected = results(jobs, Scripted(slots=1), one, in_flight=1, seed=seed)
        engine = Scripted(slots=slots, seconds=lambda call: call.seed % slow / 2000)
        assert results(jobs, engine, many, in_flight=in_flight, seed=seed) == expected
        assert len(many) == len(engine.asked) == sum(turns)
        assert engine.peak <= min(slots, in_flight)

        other = Scripted(lambda call: Reply("something else"))  # the journal decides, not the engine
        stats = Stats()
        assert results(jobs, other, many, in_flight=in_flight, seed=seed, stats=stats) == expected
        assert not other.asked and not other.opened and not other.closed
        assert stats.replayed == sum(turns) and stats.playing == 0


def test_another_process_replays(tmp_path):
    jobs, engine = talks(20), Scripted()
    with Journal(tmp_path / "j") as journal:
        expected = results(jobs, engine, journal)
    with Journal(tmp_path / "j") as journal:
        assert results(jobs, engine, journal) == expected
    assert len(engine.asked) == 60


def test_the_seed_of_the_run_is_part_of_the_key(journal):
    engine = Scripted()
    first = results(talks(5), engine, journal, seed=1)
    engine.opened = engine.closed = 0
    assert results(talks(5), engine, journal, seed=2) != first
    assert len(engine.asked) == 30


def test_two_equal_prompts_are_two_samples(journal):
    async def twice():
        request = Request("m", (Message("user", "Again?"),))
        return (await request).text, (await request).text

    job = Job("r", "twice", twice)
    (end,) = run([job], {"m": Scripted()}, journal)
    assert end.result[0] != end.result[1]
    assert len(journal) == 2
    (again,) = run([job], {"m": Scripted()}, journal)
    assert again.result == end.result


def test_a_changed_prompt_is_asked_anew_and_what_follows_it_too(journal):
    results(talks(3), Scripted(), journal)
    engine = Scripted()

    async def changed():
        return await talk("another beginning")

    jobs = [Job("r0", "talk", changed, 3), *talks(3)[1:]]
    results(jobs, engine, journal)
    assert engine.times() == {("r0", "talk", at): 1 for at in range(3)}


# --- calls ----------------------------------------------------------------------------------------


def call(record="r", scenario="s", ordinal=0, seed=0, model="m", text="Hello", **sampling):
    return call_for(
        Job(record, scenario, talk), ordinal, Request(model, (Message("user", text),), Sampling(**sampling)), seed
    )


def test_a_call_is_the_same_in_every_version():
    """Golden: a change of these numbers throws away the journals of all runs."""
    how = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 512}
    golden = call("source-0f", "debate", 2, 7, "Qwen/Qwen2.5-7B-Instruct", "Why is 9 odd? ½", **how)
    assert golden.digest == "9ad31c58a43976b87b75b5f1dda2c946"
    assert golden.seed == 221661695


DIFFERENT = [
    call(), call(record="r2"), call(scenario="s2"), call(ordinal=1), call(seed=1), call(model="m2"),
    call(text="Hello!"), call(temperature=0.8), call(top_p=0.5), call(max_tokens=9),
]  # fmt: skip


@pytest.mark.parametrize("one, other", list(itertools.combinations(DIFFERENT, 2)))
def test_whatever_differs_changes_the_seed(one, other):
    assert one.seed != other.seed
    assert (one.record, one.scenario, one.ordinal, one.digest) != (
        other.record,
        other.scenario,
        other.ordinal,
        other.digest,
    )


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(), st.integers(0, 99), st.integers(0, 2**63))
def test_seeds_have_31_bits(text, record, ordinal, seed):
    if record.isprintable():
        assert 0 <= call(record, "s", ordinal, seed, text=text).seed < 2**31


# --- bounds and order -----------------------------------------------------------------------------


def test_slots_and_dialogues_are_filled_and_never_exceeded(journal):
    stats, playing = Stats(), []

    def seconds(call):
        playing.append(stats.playing)
        return 0.002 + call.seed % 5 / 1000

    engines = {"a": Scripted(slots=3, seconds=seconds), "b": Scripted(slots=5, seconds=seconds)}
    jobs = [job for pair in zip(talks(60, 4, "ab")[::2], talks(60, 4, "ba")[1::2], strict=True) for job in pair]
    results(jobs, engines, journal, in_flight=12, stats=stats)
    assert (engines["a"].peak, engines["b"].peak) == (3, 5)
    assert max(playing) == 12
    for model in "ab":
        seen = stats.models[model]
        assert (seen.requests, seen.busy, seen.waiting, seen.slots) == (120, 0, 0, engines[model].slots)
        assert seen.completion_tokens == sum(echo(call).completion_tokens for call in engines[model].asked)


def test_slots_may_grow_and_shrink_while_it_runs(journal):
    engine = Scripted(slots=1, seconds=lambda call: 0.001)
    allowed = []

    def answer(call):
        allowed.append(engine.slots)
        engine.slots = [1, 2, 8, 3][len(allowed) % 4]
        return echo(call)

    engine.answer = answer
    assert len(results(talks(40), engine, journal, in_flight=20)) == 40
    assert engine.peak <= 8 and len(engine.asked) == 120


def test_what_has_most_ahead_goes_first(journal):
    """Long dialogues before short ones, and first messages before second ones, also where all came at once."""
    engine = Scripted(lambda call: Reply("x", completion_tokens=500), slots=1)
    short = [Job(f"short{at}", "talk", lambda: talk("s", 1), 1, "short") for at in range(3)]
    long = [Job(f"long{at}", "talk", lambda: talk("l", 2), 2, "long") for at in range(3)]
    results([*short, *long], engine, journal, in_flight=6)
    order = [(call.record, call.ordinal) for call in engine.asked]
    assert order[0] == ("short0", 0)  # nobody else was there yet
    assert order[1:4] == [("long0", 0), ("long1", 0), ("long2", 0)]
    assert set(order[4:]) == {("short1", 0), ("short2", 0), ("long0", 1), ("long1", 1), ("long2", 1)}


def test_lengths_are_learned(journal):
    """Two kinds that promise one call each: the one whose replies prove longer goes first from then on."""

    def answer(call):
        return Reply("x", completion_tokens=900 if call.record.startswith("wordy") else 10)

    engine = Scripted(answer, slots=2)
    kinds = ("terse", "wordy")
    jobs = [Job(f"{kind}{at}", "talk", lambda: talk("", 1), 1, kind) for at in range(10) for kind in kinds]
    results(jobs, engine, journal, in_flight=len(jobs))
    order = [call.record[:5] for call in engine.asked]
    assert order[:2] == ["terse", "wordy"]
    assert set(order[4:12]) == {"wordy"}  # two more may be asked before the first wordy reply is known
    assert set(order[-7:]) == {"terse"}


def test_alike_requests_are_asked_in_the_order_of_the_jobs(journal):
    engine = Scripted(slots=2)
    results(talks(30, turns=1), engine, journal, in_flight=30)
    assert [call.record for call in engine.asked] == [f"r{at}" for at in range(30)]


def test_a_dialogue_goes_on_while_others_wait(journal):
    """No stage and no batch: the slowest reply of all holds up its own dialogue only."""

    class Slow(Scripted):
        async def ask(self, call):
            while place(call) == ("r0", "talk", 0) and len(self.answered) < 19 * 3:
                await asyncio.sleep(0.001)
            return await super().ask(call)

    order = [end.job.record for end in run(talks(20), {"m": Slow(slots=2)}, journal, in_flight=4)]
    assert order[-1] == "r0" and len(order) == 20


# --- what a scenario may do -----------------------------------------------------------------------


class Odd:
    def __await__(self):
        yield "an odd thing"


@pytest.mark.parametrize(
    "awaited", [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.001), Odd], ids=["bare", "future", "own"]
)
@pytest.mark.parametrize("before", [0, 1])
def test_only_requests_can_be_awaited(journal, awaited, before):
    left = []

    async def wrong():
        try:
            for _ in range(before):
                await Request("m", ())
            await awaited()
        finally:
            left.append("the scenario")

    with pytest.raises(TypeError, match="debate awaited .* only a Request") as caught:
        list(run([Job("record-7", "debate", wrong)], {"m": Scripted()}, journal))
    assert caught.value.__notes__ == ["in debate for record 'record-7'"]
    assert left == ["the scenario"] and not runner_threads()


def test_a_fault_of_a_scenario_names_scenario_and_record(journal):
    async def faulty():
        await Request("m", ())
        return {}["missing"]

    with pytest.raises(KeyError) as caught:
        list(run([Job("record-7", "debate", faulty)], {"m": Scripted()}, journal))
    assert caught.value.__notes__ == ["in debate for record 'record-7'"]
    assert len(journal) == 1


def test_text_that_no_model_can_be_sent_is_a_fault_too(journal):
    with pytest.raises(TypeError, match="surrogates") as caught:
        list(run([Job("record-7", "debate", lambda: talk("half a \ud83d"))], {"m": Scripted()}, journal))
    assert caught.value.__notes__ == ["in debate for record 'record-7'"]


def test_rejected_is_data(journal):
    async def picky(record):
        reply = await Request("m", (Message("user", record),))
        if int(record[1:]) % 2:
            raise Rejected("odd", reply.text)
        return reply.text

    jobs = [Job(f"r{at}", "picky", lambda at=at: picky(f"r{at}")) for at in range(10)]
    ends = {end.job.record: end for end in run(jobs, {"m": Scripted()}, journal)}
    assert len(ends) == 10
    for at in range(10):
        end = ends[f"r{at}"]
        assert (end.result is None) == (end.rejected is not None) == bool(at % 2)
    replayed = {end.job.record: end for end in run(jobs, {"m": Scripted()}, journal)}
    assert {record: end.rejected and end.rejected.detail for record, end in replayed.items()} == {
        record: end.rejected and end.rejected.detail for record, end in ends.items()
    }


def test_scenarios_are_closed_wherever_they_stop(journal):
    closed = []

    async def careful(record):
        try:
            return await talk(record)
        finally:
            closed.append(record)

    engine = Scripted(seconds=lambda call: 0.01)
    ends = run(
        (Job(f"r{at}", "talk", lambda at=at: careful(f"r{at}"), 3) for at in itertools.count()),
        {"m": engine},
        journal,
        in_flight=6,
    )
    first = next(ends)
    ends.close()
    assert first.job.record in closed and len(closed) >= 6 and len(closed) == len(set(closed))


# --- failures -------------------------------------------------------------------------------------


class Broken(Scripted):
    """Fails at one call, once."""

    def __init__(self, record: str, error: Exception, **options) -> None:
        super().__init__(**options)
        self.record, self.error = record, error

    async def ask(self, call: Call) -> Reply:
        if call.record == self.record and call.ordinal == 1:
            self.asked.append(call)
            raise self.error
        return await super().ask(call)


@pytest.mark.parametrize(
    "error", [EngineError("the server is gone", "start it"), ZeroDivisionError("a bug in an engine")]
)
def test_an_engine_that_fails_stops_the_run_and_keeps_every_reply(journal, error):
    broken = Broken("r20", error, slots=6, seconds=lambda call: call.seed % 5 / 1000)
    other = Scripted(slots=6, seconds=lambda call: call.seed % 5 / 1000)
    jobs = talks(50, models=["n", "m"])
    with pytest.raises(type(error)) as caught:
        list(run(jobs, {"m": broken, "n": other}, journal, in_flight=16))
    assert caught.value is error
    assert error.__notes__ == ["while asking model 'm' for call 1 of record 'r20' in talk"]
    assert not runner_threads() and broken.busy == other.busy == 0
    assert broken.closed == other.closed == 1

    answered = [place(call) for engine in (broken, other) for call in engine.answered]
    kept = len(journal)
    assert kept == len(answered) > 0
    sound = Scripted(slots=6)
    assert len(results(jobs, {"m": sound, "n": sound}, journal, in_flight=16)) == 50
    assert set(sound.times()) == {(f"r{at}", "talk", turn) for at in range(50) for turn in range(3)} - set(answered)
    assert len(sound.asked) == 150 - kept


def test_one_error_for_many_calls_names_the_first(journal):
    error = EngineError("all is lost")

    def fail(call):
        raise error

    with pytest.raises(EngineError) as caught:
        list(run(talks(30), {"m": Scripted(fail, slots=30, seconds=lambda call: 0.01)}, journal))
    assert caught.value.__notes__ == ["while asking model 'm' for call 0 of record 'r0' in talk"]


def test_an_unknown_model_is_named_with_the_known_ones(journal):
    with pytest.raises(EngineError, match="talk asked model 'x', which has no engine\n.*Known: m, n"):
        list(run(talks(1, models=["x"]), {"m": Scripted(), "n": Scripted()}, journal))


def test_a_failure_of_the_jobs_is_raised(journal):
    def jobs():
        yield from talks(3)
        raise OSError("the source is gone")

    engine = Scripted()
    with pytest.raises(OSError, match="the source is gone"):
        list(run(jobs(), {"m": engine}, journal, in_flight=8))
    assert engine.closed == engine.opened


def test_a_reply_that_cannot_be_written_is_no_reply(journal, tmp_path):
    """The journal's error stops the run; what was committed stays, and a rerun asks for the rest."""
    journal._db.execute("PRAGMA max_page_count = 12")
    wordy = Scripted(lambda call: Reply("word " * 300, "stop", 1, 1), slots=4)
    with pytest.raises(JournalError, match="full") as caught:
        results(talks(60), wordy, journal, in_flight=8)
    assert str(journal.path) in str(caught.value) and "Make room" in caught.value.remedy
    assert len(caught.value.__notes__) == 1
    kept = len(journal)
    assert 0 < kept < 180
    journal._db.execute("PRAGMA max_page_count = 100000")
    again = Scripted(wordy.answer)
    assert len(results(talks(60), again, journal)) == 60
    assert len(again.asked) == 180 - kept


# --- opening, closing, stopping -------------------------------------------------------------------


def test_engines_are_opened_once_and_together_at_the_first_miss(journal):
    jobs = talks(10, models=["m", "n"])
    results(jobs[:5], {"m": Scripted(), "n": Scripted()}, journal)
    unused, used = Scripted(), Scripted()
    results(jobs[:5], {"m": used, "n": unused}, journal)
    assert used.opened == unused.opened == used.closed == 0
    both = {"m": used, "n": used, "never asked": unused}
    results(jobs, both, journal, in_flight=10)
    assert (used.opened, used.closed) == (1, 1) == (unused.opened, unused.closed)
    assert len(used.asked) == 15


def test_an_engine_that_cannot_be_opened_stops_everything_before_it_is_asked(journal):
    class Shut(Scripted):
        async def open(self):
            raise ModelError("no such model", "fetch it")

    class Slow(Scripted):
        async def open(self):
            self.opened += 1
            await asyncio.sleep(60)

    shut, slow = Shut(), Slow()
    with pytest.raises(ModelError, match="no such model"):
        list(run(talks(20, models=["m", "n"]), {"m": shut, "n": slow}, journal))
    assert not shut.asked and not slow.asked
    assert shut.closed == slow.closed == 1


def test_closing_early_stops_threads_and_keeps_replies(journal):
    engine = Scripted(slots=4, seconds=lambda call: 0.001)
    ends = run(talks(1000), {"m": engine}, journal, in_flight=8)
    first = next(ends)
    assert runner_threads()
    ends.close()
    assert not runner_threads()
    assert engine.busy == 0 and engine.closed == 1
    assert 3 <= len(journal) == len(engine.answered) < 3000
    assert first.result == results(talks(1000), Scripted(), journal)[first.job.record, "talk"]


def test_closing_while_engines_open(journal):
    opening, events = threading.Event(), []

    class Slow(Scripted):
        async def open(self):
            opening.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)  # letting go of what was half open takes its time
                events.append("opening is over")

        async def close(self):
            events.append("closed")

    slow = Slow()
    ends = run(talks(5), {"m": slow}, journal)
    interrupt = threading.Timer(0.2, lambda: opening.wait() and os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        next(ends)
    assert events == ["opening is over", "closed"] and not runner_threads()


def test_closing_reaches_dialogues_that_wait_for_nothing(journal):
    """An endless replay must hear that it is over."""

    async def nothing():
        return 1

    ends = run((Job(str(at), "none", nothing) for at in itertools.count()), {}, journal)
    assert next(ends).result == 1
    ends.close()
    assert not runner_threads()


def test_an_interrupt_while_waiting_for_a_reply(journal):
    engine = Scripted(slots=4, seconds=lambda call: 60 if call.record == "r9" else 0)
    interrupt = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), closing(run(talks(10), {"m": engine}, journal)) as ends:
        for _ in range(9):
            next(ends)
        interrupt.start()
        next(ends)
    assert not runner_threads() and engine.busy == 0 and engine.closed == 1
    assert len(journal) == 27
    again = Scripted()
    assert len(results(talks(10), again, journal)) == 10
    assert {call.record for call in again.asked} == {"r9"}


def test_an_interrupt_in_the_callers_own_code(journal):
    engine = Scripted(seconds=lambda call: 0.001)
    with pytest.raises(KeyboardInterrupt), closing(run(talks(100), {"m": engine}, journal)) as ends:
        for _ in ends:
            raise KeyboardInterrupt
    assert not runner_threads() and engine.closed == 1 and len(journal) == len(engine.answered)


def test_inside_a_running_event_loop(journal):
    async def notebook():
        return results(talks(5), Scripted(), journal)

    assert len(asyncio.run(notebook())) == 5


def test_no_jobs(journal):
    engine = Scripted()
    assert list(run([], {"m": engine}, journal)) == []
    assert not engine.opened and not engine.closed


def test_a_dialogue_goes_on_when_its_reply_is_on_disk(journal):
    """Seen from another connection at the moment of the next request."""
    missing = []

    class Looking(Scripted):
        async def ask(self, call):
            with closing(sqlite3.connect(journal.path)) as other:
                (kept,) = other.execute("SELECT count(*) FROM replies WHERE record = ?", (call.record,)).fetchone()
            missing.append(call.ordinal - kept)
            return await super().ask(call)

    results(talks(20, turns=4), Looking(slots=8), journal, in_flight=16)
    assert missing == [0] * 80


def test_nobody_is_overtaken_for_ever(tmp_path):
    """A last turn that is known to be short waits for longer ones, but not for more than some jobs."""

    class Engine:
        slots, revision = 2, None

        async def open(self):
            pass

        async def close(self):
            pass

        async def ask(self, call):
            await asyncio.sleep(0)
            return Reply("x", "stop", 1, 1 if call.ordinal and int(call.record) % 20 == 0 else 10)

    async def two_turns():
        for turn in "ab":
            await Request("model", (Message("user", turn),))

    jobs = [Job(str(n), "talk", two_turns, 2, "rare" if n % 20 == 0 else "usual") for n in range(600)]
    with Journal(tmp_path / "journal.sqlite") as journal:
        finished = list(run(jobs, {"model": Engine()}, journal, in_flight=8))
    assert max(place - int(end.job.record) for place, end in enumerate(finished)) <= 4 * 8
