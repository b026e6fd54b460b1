"""The routes of one transfer over time; which is chosen when is tested in test_routing.py, what they bring in
test_fetching.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from slixmpp_bt.constants import Route
from slixmpp_bt.messages import Fetch, Peers

from .fakes import FakeStream, World, finish, settled, until

ALL = ["inline", "swarm", "relay", "in-band"]


class SlowToClose(FakeStream):
    """Closing it takes until the gate opens, as where the other side answers late."""

    gate: asyncio.Event

    async def aclose(self) -> None:
        await self.gate.wait()
        await super().aclose()


async def test_stream_that_is_still_closing_keeps_its_pieces_from_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowToClose.gate = asyncio.Event()
    monkeypatch.setattr("tests.fakes.FakeStream", SlowToClose)
    async with World(tmp_path) as world:
        alice, bob = world.pair(routes=ALL, download_limit=50_000)
        alice.context.config = alice.context.config.replace(routes=ALL)
        source = world.file(size=500_000)
        alice.offer(bob.jid.bare, source, single=True)
        receiving = await bob.expect("bt_transfer_start")
        while not receiving.routes.get(Route.IN_BAND):
            await world.pass_time(0.25)
        assert receiving.id is not None
        before = len(bob.wire.of(Fetch))
        left = Peers(receiving.offer.id, receiving.id, left=alice.backend.own)
        stopping = asyncio.ensure_future(bob.exchange.receive(left, bob.know(alice), bob.jid))
        await settled()
        assert not stopping.done()
        await bob.exchange.receive(Peers(receiving.offer.id, receiving.id), bob.know(alice), bob.jid)
        await world.pass_time(10)
        assert len(bob.wire.of(Fetch)) == before
        SlowToClose.gate.set()
        await until(stopping.done)
        while not receiving.ended:
            await world.pass_time(0.25)
        assert (await finish(receiving.wait())).read_bytes() == source.read_bytes()
        await until(lambda: all(stream.closed for stream in alice.wire.streams))
        assert bob.backend.downloads[-1].claimed_twice == set()
