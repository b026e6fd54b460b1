"""What there is, and that it is forgotten in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slixmpp_bt import registry

from .fakes import World, finish, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def test_ended_offers_are_forgotten_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MAX_ENDED", 3)
    alice, bob = world.pair(limits={"max_transfers": 100})
    for index in range(8):
        offer = alice.offer(bob.jid.bare, world.file(f"file {index}"))
        receiving = await bob.expect("bt_transfer_start", index + 1)
        await until(lambda: len(bob.backend.downloads) == index + 1)  # noqa: B023
        await finish(receiving.cancel())
        await finish(offer.withdraw())
    await world.pass_time(31, step=5)
    assert len(alice.exchange.registry.outgoing) == 3
    assert len(bob.exchange.registry.incoming) <= 3
    await world.pass_time(8 * 86_400, step=3600)
    assert alice.exchange.registry.outgoing == {}
    assert bob.exchange.registry.incoming == {}
    assert bob.exchange.registry.past == {}
    assert bob.exchange.registry._sweeper is None
