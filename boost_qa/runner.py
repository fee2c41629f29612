"""Drives thousands of scenarios at once over engines that are all busy.

A request goes to its model's desk the moment it exists, and a dialogue goes on the moment its reply
is in the journal: there is no batch and no stage. Two bounds hold. `in_flight` is the number of
dialogues at once, because their histories share the engines' key-value caches; an engine's `slots` is
the number of requests that it works on at once. Where more dialogues are ready than there are slots,
the one with the longest expected rest goes first, so that none is left over at the end, and none is
overtaken for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import orjson

from boost_qa.desk import Desk, Lengths, ModelStats
from boost_qa.engines import Engine
from boost_qa.errors import EngineError, Rejected
from boost_qa.feed import Feed
from boost_qa.journal import Journal
from boost_qa.types import Call, Reply, Request

try:
    from uvloop import new_event_loop
except ImportError:  # no uvloop on this platform
    from asyncio import new_event_loop

T = TypeVar("T")
Play = Coroutine[Request, Reply, T]


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A scenario to be played for one record.

    `start` makes the coroutine; `calls` is how many requests it makes when none is asked again;
    jobs of one `kind` are alike in length (`debate/2`).
    """

    record: str
    scenario: str
    start: Callable[[], Play[T]]
    calls: int = 1
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """What became of a job: its result, or the reason why it was rejected."""

    job: Job[T]
    result: T | None
    rejected: Rejected | None = None


@dataclass
class Stats:
    """What a run is doing, to be read at any time from any thread."""

    playing: int = 0
    replayed: int = 0
    models: dict[str, ModelStats] = field(default_factory=lambda: defaultdict(ModelStats))


def run(
    jobs: Iterable[Job[T]] | Feed[Job[T]],
    engines: Mapping[str, Engine],
    journal: Journal,
    *,
    in_flight: int = 256,
    seed: int = 0,
    stats: Stats | None = None,
) -> Generator[Finished[T], None, None]:
    """Play all jobs; yield each as it finishes, in no fixed order.

    A plain generator for its caller: the event loop lives in a thread of its own. Engines are opened
    at the first request that the journal cannot answer, all together, and closed at the end.

    Args:
        jobs: taken one by one as others finish; may be endless, or a Feed.
        engines: by the model name that requests carry.
        journal: answers what it knows and keeps every new reply.
        in_flight: dialogues at once.
        seed: of the run; each call's own seed derives from it and the call's key.
        stats: kept up to date while the run goes on.

    Raises:
        EngineError, ModelError, JournalError: what was done until then is in the journal.
    """
    done: SimpleQueue[Finished[T] | None] = SimpleQueue()
    failure: list[BaseException] = []
    class_room = _Classroom(engines, journal, seed, stats or Stats(), patience=2 * in_flight)
    loop = new_event_loop()
    if isinstance(jobs, Feed):
        jobs.bind(loop)
    main = loop.create_task(class_room.teach(jobs if isinstance(jobs, Feed) else _Listed(jobs), in_flight, done.put))

    def work() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(main)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            failure.append(error)
        finally:
            done.put(None)

    thread = threading.Thread(target=work, name="boost_qa.runner", daemon=True)
    thread.start()
    try:
        while (finished := done.get()) is not None:
            yield finished
    finally:
        with contextlib.suppress(RuntimeError):  # the loop may be over already
            loop.call_soon_threadsafe(main.cancel)
        thread.join()
        loop.close()
    if failure:
        raise failure[0]


def call_for(job: Job[T], ordinal: int, request: Request, seed: int) -> Call:
    """The call that asks `request` as the `ordinal`-th of `job`, with its digest and own seed."""
    sampling = request.sampling
    body = orjson.dumps(
        {
            "model": request.model,
            "messages": [[message.role, message.content] for message in request.messages],
            "sampling": [sampling.temperature, sampling.top_p, sampling.max_tokens],
        }
    )
    digest = blake2b(b"%d\0%b" % (seed, body), digest_size=16).hexdigest()
    key = f"{job.record}\0{job.scenario}\0{ordinal}\0{digest}".encode()
    own_seed = int.from_bytes(blake2b(key, digest_size=4).digest(), "big") >> 1
    return Call(job.record, job.scenario, ordinal, request, digest, own_seed, body)


class _Listed(Generic[T]):
    """Jobs that are known from the beginning."""

    def __init__(self, jobs: Iterable[Job[T]]) -> None:
        self._jobs = iter(jobs)

    async def take(self) -> Job[T] | None:
        return next(self._jobs, None)


class _Classroom:
    """One run while it goes on."""

    def __init__(self, engines: Mapping[str, Engine], journal: Journal, seed: int, stats: Stats, patience: int) -> None:
        self.journal, self.seed, self.stats = journal, seed, stats
        self.fresh = len(journal) == 0  # then it has no answer to any call: none is asked twice in a run
        self.lengths = Lengths()
        self.desks = {
            model: Desk(engine, stats.models[model], self.lengths, patience) for model, engine in engines.items()
        }
        self.opened: asyncio.Task[None] | None = None

    async def teach(self, jobs: _Listed[T] | Feed[Job[T]], in_flight: int, tell: Callable[[Finished[T]], None]) -> None:
        numbers = itertools.count()

        async def seat() -> None:
            while (job := await jobs.take()) is not None:  # whoever is free takes the next
                tell(await self.play(job, next(numbers)))
                await asyncio.sleep(0)  # a replayed dialogue has waited for nothing; others, and the end, must get in

        try:
            await _together(seat() for _ in range(in_flight))
        finally:
            self.journal.commit()
            if self.opened:
                self.opened.cancel()  # in case that they are still being opened
                await asyncio.wait([self.opened])
                await asyncio.gather(*(engine.close() for engine in self.engines()), return_exceptions=True)

    async def play(self, job: Job[T], number: int) -> Finished[T]:
        self.stats.playing += 1
        coroutine, reply = job.start(), None
        try:
            for ordinal in itertools.count():
                call = self.next_call(job, coroutine, ordinal, reply)
                reply = None if self.fresh else self.journal.find(call)
                if reply is None:
                    reply = await self.ask(job, number, call)
                else:
                    self.stats.replayed += 1
        except StopIteration as end:
            return Finished(job, end.value)
        except Rejected as why:
            return Finished(job, None, why)
        finally:
            coroutine.close()
            self.stats.playing -= 1
        raise AssertionError("unreachable")

    def next_call(self, job: Job[T], coroutine: Play[T], ordinal: int, reply: Reply | None) -> Call:
        """What the scenario asks after `reply`, or first of all. Raises StopIteration at its end."""
        try:
            request = coroutine.send(reply)  # type: ignore[arg-type]
            if not isinstance(request, Request):
                raise TypeError(f"{job.scenario} awaited {request!r}, but only a Request can be awaited")
            return call_for(job, ordinal, request, self.seed)
        except (StopIteration, Rejected):
            raise
        except Exception as error:
            error.add_note(f"in {job.scenario} for record {job.record!r}")
            raise

    async def ask(self, job: Job[T], number: int, call: Call) -> Reply:
        """Ask the model, in turn, and give its reply once the journal has it."""
        model = call.request.model
        if model not in self.desks:
            raise EngineError(
                f"{job.scenario} asked model {model!r}, which has no engine", f"Known: {', '.join(self.desks)}."
            )
        if self.opened is None:
            self.opened = asyncio.create_task(self.open())
        await asyncio.shield(self.opened)
        desk = self.desks[model]
        line = (job.kind, job.calls, call.ordinal)
        await desk.enter(line, number)
        try:
            reply = await desk.engine.ask(call)
            await self.journal.add(call, reply)  # still in its slot: at most `slots` replies can be lost
        except Exception as error:
            if not hasattr(error, "__notes__"):  # one error can end many calls
                error.add_note(
                    f"while asking model {model!r} for call {call.ordinal} of record {call.record!r} in {call.scenario}"
                )
            raise  # and keep the slot: a run that ends asks nothing more
        self.lengths.learn(line, reply.completion_tokens)
        desk.leave()
        desk.count(reply)
        return reply

    async def open(self) -> None:
        await _together(engine.open() for engine in self.engines())

    def engines(self) -> list[Engine]:
        """Each engine once, also where it answers for several models."""
        return list({id(desk.engine): desk.engine for desk in self.desks.values()}.values())


async def _together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first error cancels the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
