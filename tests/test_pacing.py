"""The cap on streams, by a clock that stands still."""

from __future__ import annotations

import asyncio

from slixmpp_bt.pacing import Pace
from slixmpp_bt.testing.clock import Clock


async def test_pace_without_limit_lets_everything_through_at_once() -> None:
    with Clock():
        await Pace(lambda: None).take(10**12)


async def test_pace_lets_through_what_is_allowed_and_no_more() -> None:
    limit: list[int | None] = [1_000]
    passed = 0

    async def take() -> None:
        nonlocal passed
        pace = Pace(lambda: limit[0])
        while True:
            await pace.take(100)
            passed += 100

    with Clock() as clock:
        taker = asyncio.ensure_future(take())
        await clock.advance(10, 0.05)
        assert 9_000 <= passed <= 10_400
        limit[0] = 10_000
        await clock.advance(10, 0.01)
        assert 100_000 <= passed <= 115_000
        taker.cancel()
        await asyncio.wait([taker])
