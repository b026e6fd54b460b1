"""Fallback routes between two exchanges: inline, and streams in memory; the swarm brings what a test lets it bring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt.backends.plain import PlainBackend
from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import NoRoute, SourceChanged
from slixmpp_bt.fetching import FETCH_SIZE
from slixmpp_bt.messages import Accept, Accepted, Fetch
from slixmpp_bt.routing import INLINE_MAX
from slixmpp_bt.transfer import Transfer
from slixmpp_bt.wire import StreamBroken

from .fakes import FakeStream, Party, World, finish, settled, until

ALL = ["inline", "swarm", "relay", "in-band"]
SWARM, RELAY, IN_BAND, INLINE = Route.SWARM, Route.RELAY, Route.IN_BAND, Route.INLINE


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


def plain_pair(world: World, **config: Any) -> tuple[Party, Party]:
    """Two sides without an engine."""
    alice = world.party("alice@a.example/laptop", PlainBackend(()), routes=ALL)
    bob = world.party("bob@b.example/phone", PlainBackend(()), **{"auto_accept": True, "routes": ALL, **config})
    return alice, bob


async def send(world: World, alice: Party, bob: Party, size: int) -> tuple[Path, Transfer, Transfer]:
    source = world.file(size=size)
    offer = alice.offer(bob.jid.bare, source, single=True)
    assert offer.single is not None
    return source, offer.single, await bob.expect("bt_transfer_start")


async def eventually(world: World, condition: Callable[[], object]) -> None:
    """Let a minute pass, or less."""
    for _ in range(240):
        if condition():
            return
        await world.pass_time(0.25)
    raise AssertionError("it did not come true")


async def arrive(world: World, transfer: Transfer, seconds: float = 600) -> Path:
    """The published path, after at most so many seconds of the world's time."""
    for _ in range(int(seconds / 0.25)):
        if transfer.ended:
            break
        await world.pass_time(0.25)
    return await finish(transfer.wait())


@pytest.mark.parametrize("size", [1, INLINE_MAX])
async def test_small_content_comes_inside_the_answer(world: World, size: int) -> None:
    alice, bob = world.pair(routes=ALL)
    alice.context.config = alice.context.config.replace(routes=ALL)
    source, sending, receiving = await send(world, alice, bob, size)
    path = await arrive(world, receiving)
    assert path.read_bytes() == source.read_bytes()
    await until(lambda: sending.ended)
    assert sending.routes == receiving.routes == {INLINE: size}
    assert len(bob.wire.of(Accept)) == 1
    assert alice.backend.seeds == []


async def test_inline_content_that_is_wrong_is_not_taken_and_fetched_otherwise(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = plain_pair(world)
    receive = alice.exchange.receive

    async def lie(request: Any, peer: Any, local: Any) -> Any:
        reply = await receive(request, peer, local)
        return replace(reply, content=b"x" * 100) if isinstance(reply, Accepted) else reply

    monkeypatch.setattr(alice.exchange, "receive", lie)
    source, _, receiving = await send(world, alice, bob, 100)
    path = await arrive(world, receiving)
    assert path.read_bytes() == source.read_bytes()
    assert receiving.routes == {IN_BAND: 100}


@pytest.mark.parametrize("route", [RELAY, IN_BAND])
@pytest.mark.parametrize("size", [INLINE_MAX + 1, 16_384, 100_000, 1_200_000])
async def test_stream_brings_the_file_where_there_is_no_engine(world: World, route: Route, size: int) -> None:
    alice, bob = plain_pair(world)
    if route is RELAY:
        bob.wire.no_streams.clear()
    source, sending, receiving = await send(world, alice, bob, size)
    path = await arrive(world, receiving)
    assert path.read_bytes() == source.read_bytes()
    await until(lambda: sending.ended)
    assert sending.routes == receiving.routes == {route: size}
    assert all(fetch.kind is route for fetch in bob.wire.of(Fetch)[1 if route is IN_BAND else 0 :])
    asked = [b for fetch in bob.wire.of(Fetch) for first, last in fetch.blocks for b in range(first, last + 1)]
    assert len(asked) == len(set(asked))
    assert all(stream.closed for stream in alice.wire.streams)


async def test_stream_that_breaks_in_mid_piece_goes_on_from_the_last_block(world: World) -> None:
    alice, bob = plain_pair(world)
    source, _, receiving = await send(world, alice, bob, 1_500_000)
    breaks = 0
    asked: list[int] = []
    while not receiving.ended:
        await world.pass_time(0.25)
        for stream in alice.wire.streams[breaks:]:
            if receiving.progress.transferred >= 200_000 * (breaks + 1) and breaks < 4:
                await stream.break_off(StreamBroken("the wire was cut"))
                breaks += 1
    path = await finish(receiving.wait())
    assert path.read_bytes() == source.read_bytes()
    asked = [b for f in bob.wire.of(Fetch) for first, last in f.blocks for b in range(first, last + 1)]
    # Of what was asked for in the broken fetches only what had not come is asked for again.
    assert breaks >= 1
    assert len(asked) - len(set(asked)) <= breaks * FETCH_SIZE[IN_BAND] // 16_384


class Liar(FakeStream):
    """Brings something else."""

    def __init__(self, route: Route, how: str) -> None:
        super().__init__(route)
        self._how, self._count = how, 0

    async def send(self, data: bytes) -> None:
        self._count += 1
        if self._how == "wrong" and self._count == 3:
            data = bytes(len(data))
        if self._how == "more" and self._count == 3:
            data += b"!"
        if self._how == "less" and self._count == 3:
            await self.aclose()
        await super().send(data)


@pytest.mark.parametrize("how", ["wrong", "more"])
async def test_three_strikes_end_a_route(world: World, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = plain_pair(world)
    monkeypatch.setattr("tests.fakes.FakeStream", lambda route: Liar(route, how))
    _, sending, receiving = await send(world, alice, bob, 200_000)
    with pytest.raises(NoRoute) as caught:
        await arrive(world, receiving)
    assert IN_BAND in caught.value.reasons
    assert len(alice.wire.streams) == 3
    await until(lambda: sending.ended)
    assert list(bob.inbox.iterdir()) == []


async def test_stream_that_ends_too_early_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = plain_pair(world)
    monkeypatch.setattr("tests.fakes.FakeStream", lambda route: Liar(route, "less"))
    source, _, receiving = await send(world, alice, bob, 100_000)
    path = await arrive(world, receiving)
    assert path.read_bytes() == source.read_bytes()
    assert len(alice.wire.streams) > 2


async def test_swarm_that_brings_nothing_is_helped_out_and_takes_over_when_it_moves(world: World) -> None:
    alice, bob = world.pair(routes=ALL)
    alice.context.config = alice.context.config.replace(routes=ALL)
    source = world.file(size=1_500_000)
    offer = alice.offer(bob.jid.bare, source, single=True)
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: bob.backend.downloads)
    for party in (alice, bob):
        party.context.config = party.context.config.replace(
            **{"download_limit" if party is bob else "upload_limit": 100_000}
        )
    await world.pass_time(2.5)
    assert bob.wire.of(Fetch) == []
    await eventually(world, lambda: receiving.routes)
    assert receiving.routes.keys() == {IN_BAND}
    assert "nothing" not in receiving.diagnosis.get(IN_BAND, "")
    assert IN_BAND not in receiving.diagnosis
    await world.carry(offer, bob, 2)
    await world.pass_time(1)
    before = len(bob.wire.of(Fetch))
    assert SWARM not in receiving.diagnosis
    assert "not needed" in receiving.diagnosis[IN_BAND]
    await world.pass_time(2)
    assert len(bob.wire.of(Fetch)) == before
    await eventually(world, lambda: len(bob.wire.of(Fetch)) > before)
    path = await arrive(world, receiving)
    assert path.read_bytes() == source.read_bytes()
    assert sum(receiving.routes.values()) == 1_500_000
    assert receiving.routes.keys() == {SWARM, IN_BAND}


async def test_file_too_large_for_in_band_has_no_route_left_and_says_why(world: World) -> None:
    alice, bob = plain_pair(world, limits={"in_band_max_size": 99_999})
    _, sending, receiving = await send(world, alice, bob, 100_000)
    with pytest.raises(NoRoute, match="in_band_max_size") as caught:
        await arrive(world, receiving)
    assert caught.value.reasons == {
        SWARM: "this side has no BitTorrent engine",
        RELAY: "there is no proxy",
        IN_BAND: "100000 bytes are left, and in_band_max_size is 99999",
        INLINE: "it is too large for a stanza",
    }
    await until(lambda: sending.ended)
    assert isinstance(sending.error, NoRoute)


async def test_routes_of_the_configuration_are_the_only_ones(world: World) -> None:
    alice, bob = plain_pair(world, routes=["relay"])
    _, _, receiving = await send(world, alice, bob, 100)
    with pytest.raises(NoRoute, match="there is no proxy"):
        await arrive(world, receiving)
    assert {fetch.kind for fetch in bob.wire.of(Fetch)} <= {RELAY}
    assert all(accept.inline == 0 for accept in bob.wire.of(Accept))


async def test_pause_holds_a_stream_and_resume_goes_on(world: World) -> None:
    alice, bob = plain_pair(world, download_limit=50_000)
    source, sending, receiving = await send(world, alice, bob, 500_000)
    for who in (receiving, sending):
        await world.pass_time(2)
        await who.pause()
        await settled()
        before = receiving.progress.transferred
        await world.pass_time(20)
        assert receiving.progress.transferred - before <= 20_000
        assert all(stream.closed for stream in alice.wire.streams)
        await who.resume()
    path = await arrive(world, receiving)
    assert path.read_bytes() == source.read_bytes()


async def test_source_that_changes_while_a_stream_runs_ends_both_sides(world: World) -> None:
    alice, bob = plain_pair(world, download_limit=50_000)
    source, sending, receiving = await send(world, alice, bob, 500_000)
    await world.pass_time(2)
    source.write_bytes(b"something else")
    for _ in range(200):
        await world.pass_time(0.25)
    for transfer in (sending, receiving):
        assert transfer.state is State.FAILED
        assert isinstance(transfer.error, SourceChanged)
    assert list(bob.inbox.iterdir()) == []


async def test_cancel_in_mid_stream_leaves_nothing(world: World) -> None:
    alice, bob = plain_pair(world, download_limit=50_000)
    _, sending, receiving = await send(world, alice, bob, 500_000)
    await world.pass_time(2)
    await finish(sending.cancel())
    await until(lambda: receiving.ended)
    await finish(receiving.released())
    assert list(bob.inbox.iterdir()) == []
    assert bob.wire.expected == {}


async def test_relay_without_a_proxy_on_either_side_is_given_up_at_once(world: World) -> None:
    alice, bob = plain_pair(world)
    bob.wire.no_streams.clear()
    alice.wire.proxies = bob.wire.proxies = ()
    source, _, receiving = await send(world, alice, bob, 100_000)
    path = await arrive(world, receiving, seconds=5)
    assert path.read_bytes() == source.read_bytes()
    assert receiving.routes == {IN_BAND: 100_000}
