"""The clock that stands still."""

from __future__ import annotations

import asyncio

from slixmpp_bt.testing.clock import Clock


async def test_clock_when_nobody_moves_it_stands_and_no_timer_fires() -> None:
    with Clock(start=1000.0) as clock:
        sleeping = asyncio.ensure_future(asyncio.sleep(0.0001))
        await asyncio.to_thread(lambda: None)
        assert clock() == 1000.0
        assert not sleeping.done()
        await clock.advance(0.001)
        assert sleeping.done()
        assert clock() == 1000.001


async def test_advance_fires_timers_in_order_each_at_its_time() -> None:
    with Clock(start=0.0) as clock:
        loop = asyncio.get_running_loop()
        fired: list[tuple[float, float]] = []

        def note(after: float) -> None:
            fired.append((after, clock()))

        for after in (3.0, 1.0, 2.5, 10.0):
            loop.call_later(after, note, after)
        await clock.advance(5.0, step=0.5)
        assert fired == [(1.0, 1.0), (2.5, 2.5), (3.0, 3.0)]
        await clock.advance(5.0)
        assert fired[-1] == (10.0, 10.0)


async def test_leaving_gives_the_loop_its_own_time_back() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    with Clock() as clock:
        assert abs(loop.time() - before) < 60
        await clock.advance(3600, step=600)
        assert loop.time() - before >= 3600
    assert loop.time() - before < 60
    await asyncio.sleep(0.0001)


def test_dice_of_two_clocks_fall_alike() -> None:
    assert Clock().rng.random() == Clock().rng.random() != Clock(seed=2).rng.random()
