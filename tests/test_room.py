"""Waves of jobs over engines that stay open."""

from __future__ import annotations

import pytest
from scripted import Scripted, echo, talk

from boost_qa.errors import EngineError
from boost_qa.journal import Journal
from boost_qa.room import Room
from boost_qa.runner import Job
from boost_qa.types import Call, Reply


def asking(record: str, turns: int) -> Job[str]:
    return Job(record, "talk", lambda: talk(record, turns), turns)


def test_a_room_plays_wave_after_wave_over_engines_that_stay_open(tmp_path):
    engine = Scripted(slots=2)
    heard = []
    with Journal(tmp_path / "journal.sqlite") as journal, Room({"m": engine}, journal, in_flight=3) as room:
        for wave in range(3):
            jobs = [asking(f"r{wave}.{number}", 2) for number in range(5)]
            heard.append(sorted(end.job.record for end in room.play(jobs)))
            assert engine.opened == 1 and not engine.closed
        assert list(room.play([])) == []
    assert heard == [[f"r{wave}.{number}" for number in range(5)] for wave in range(3)]
    assert engine.closed == 1 and len(engine.answered) == 30 and engine.peak == 2


def test_a_room_raises_what_ends_its_run_and_goes_on_from_its_journal(tmp_path):
    def answer(call: Call) -> Reply:
        if call.record == "bad":
            raise EngineError("broken")
        return echo(call)

    with Journal(tmp_path / "journal.sqlite") as journal:
        with Room({"m": Scripted(answer)}, journal) as room:
            first = [end.result for end in room.play([asking("good", 2)])]
            with pytest.raises(EngineError, match="broken"):
                list(room.play([asking("bad", 1)]))
        silent = Scripted()
        with Room({"m": silent}, journal) as room:
            assert [end.result for end in room.play([asking("good", 2)])] == first
        assert not silent.asked


def test_a_room_that_is_left_early_ends_and_closes_its_engines(tmp_path):
    engine = Scripted(seconds=lambda call: 0.0 if call.record == "quick" else 60.0)
    with Journal(tmp_path / "journal.sqlite") as journal, Room({"m": engine}, journal) as room:
        assert next(room.play([asking("quick", 1), asking("slow", 1)])).job.record == "quick"
    assert engine.closed == 1 and not engine.busy
