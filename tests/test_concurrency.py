import asyncio

from hypothesis import given
from hypothesis import strategies as st

from boost_qa.engines.concurrency import AdaptiveLimit
from boost_qa.engines.gate import Gate


def round_trip(limit: AdaptiveLimit, capacity: int) -> int:
    """As many requests as are allowed, all sent before the first outcome; how many met an overload."""
    era, sent = limit.era, limit.slots
    for number in range(sent):
        if number < capacity:
            limit.success(era)
        else:
            limit.overload(era)
    return max(0, sent - capacity)


@given(st.integers(1, 2000), st.integers(1, 64), st.lists(st.tuples(st.booleans(), st.integers(0, 3))))
def test_stays_within_bounds_whatever_comes_in_whatever_order(most, start, outcomes):
    limit = AdaptiveLimit(most, start)
    for good, age in outcomes:
        era = limit.era - age
        if good:
            limit.success(era)
        else:
            limit.overload(era)
        assert 1 <= limit.slots <= most


def test_doubles_until_the_first_overload():
    limit = AdaptiveLimit(256, 32)
    sizes = [limit.slots]
    while limit.slots < 256:
        round_trip(limit, 10_000)
        sizes.append(limit.slots)
    assert sizes == [32, 64, 128, 256]


def test_one_round_trip_of_overloads_halves_once():
    limit = AdaptiveLimit(256, 256)
    assert round_trip(limit, 0) == 256
    assert limit.slots == 128


def test_outcomes_of_an_earlier_era_count_for_nothing():
    limit = AdaptiveLimit(64, 64)
    assert limit.overload(0)
    assert not limit.overload(0)
    for _ in range(1000):
        limit.success(0)
    assert limit.slots == 32


def test_grows_by_a_sixteenth_after_an_overload():
    limit = AdaptiveLimit(160, 160)
    limit.overload(0)
    round_trip(limit, 10_000)
    assert 88 <= limit.slots <= 91  # 80 and about 10 more
    for _ in range(10):
        round_trip(limit, 10_000)
    assert limit.slots == 160


@given(st.integers(1, 400), st.integers(2, 400))
def test_converges_around_the_capacity(capacity, most):
    limit = AdaptiveLimit(most)
    for _ in range(200):
        round_trip(limit, capacity)
    sizes, refused, sent = [], 0, 0
    for _ in range(200):
        sizes.append(limit.slots)
        sent += limit.slots
        refused += round_trip(limit, capacity)
    if most <= capacity:
        assert set(sizes) == {most}
    else:
        assert max(sizes) <= (capacity + 1) * 1.25
        assert max(sizes) >= min(capacity, most)
        assert refused < sent / 4


def test_gate_lets_in_no_more_than_the_limit_and_in_order():
    async def play():
        gate, entered, most = Gate(AdaptiveLimit(4, 4)), [], 0

        async def visit(number):
            nonlocal most
            await gate.enter()
            entered.append(number)
            most = max(most, gate.inside)
            await asyncio.sleep(0)
            gate.leave()

        await asyncio.gather(*(visit(number) for number in range(50)))
        return entered, most, gate.inside

    entered, most, inside = asyncio.run(play())
    assert entered == list(range(50))
    assert (most, inside) == (4, 0)


@given(st.lists(st.integers(0, 19), max_size=40), st.integers(1, 3), st.booleans())
def test_gate_loses_no_place_to_visitors_that_are_cancelled(cancelled, size, halve):
    async def play():
        gate, finished = Gate(AdaptiveLimit(size, size)), []

        async def visit(number):
            era = await gate.enter()
            try:
                await asyncio.sleep(0)
                if halve:
                    gate.limit.overload(era)
                await asyncio.sleep(0)
            finally:
                gate.leave()
            finished.append(number)

        tasks = [asyncio.create_task(visit(number)) for number in range(20)]
        for number in cancelled:
            await asyncio.sleep(0)
            tasks[number].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert gate.inside == 0
        assert {*finished, *cancelled} == set(range(20))

    asyncio.run(play())


def test_gate_is_shut_during_a_pause_even_to_those_who_waited_before():
    async def play():
        loop, gate = asyncio.get_running_loop(), Gate(AdaptiveLimit(1, 1))
        await gate.enter()
        waiting = [asyncio.create_task(gate.enter()) for _ in range(2)]
        await asyncio.sleep(0)
        began = loop.time()
        gate.pause(0.2)
        gate.pause(0.01)  # the longer pause stays
        gate.leave()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        first = loop.time() - began
        gate.leave()
        await asyncio.gather(*waiting)
        return first

    assert asyncio.run(play()) >= 0.19
