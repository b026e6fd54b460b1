"""How fast an in-band stream is sent, and what is done when the other side refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from slixmpp import Iq
from slixmpp.exceptions import XMPPError
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import StanzaPath

from slixmpp_bt.streams import _outgoing
from slixmpp_bt.streams.window import BLOCK, LARGEST, Window
from slixmpp_bt.wire import StreamBroken

from .inband import IS_DATA, Side, carry, check_clean, noise, read_all, streaming, two_sides, until, write_all
from .servers import Loopback


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


async def test_send_consumer_does_not_take_waits(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        sending = asyncio.create_task(write_all(outgoing, noise(300_000)))
        for _ in range(40):
            await incoming.receive()
        await until(lambda: len(incoming._blocks) == outgoing.window.size)
        assert 1 < outgoing.window.size <= LARGEST
        done, _ = await asyncio.wait({sending}, timeout=0.1)
        assert not done
        assert len(incoming._blocks) == outgoing.window.size
        assert await read_all(incoming) == noise(300_000)[40 * BLOCK :]
        await sending


async def test_send_first_block_is_alone(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        sending = asyncio.create_task(write_all(outgoing, noise(100_000)))
        await until(lambda: incoming._blocks)
        assert (len(outgoing._flight), len(incoming._blocks)) == (1, 1)
        assert await read_all(incoming) == noise(100_000)
        await sending


async def test_send_rate_limit_begins_window_stays_at_one_block() -> None:
    from slixmpp_bt.testing import LoopbackServer

    users = {"alice": "secret", "bob": "secret"}
    async with LoopbackServer(users=users, rate=20_000, burst=40_000) as server:
        sides = []
        for name in users:
            xmpp = server.client(f"{name}@localhost/here")
            xmpp.register_plugin("xep_0047")
            await server.connect(xmpp)
            sides.append(Side(xmpp))
        alice, bob = sides
        largest = 0
        async with streaming(alice, bob) as (outgoing, incoming):
            sending = asyncio.create_task(write_all(outgoing, noise(80_000)))
            received = b""
            while data := await incoming.receive():
                received += data
                largest = max(largest, outgoing.window.size)
            await sending
        assert received == noise(80_000)
        assert largest <= 2
        for side in sides:
            await side.xmpp.disconnect()


# Refusals for now, and lost answers


def _refuse(side: Side, payload: str, count: int, etype: str = "wait") -> list[int]:
    """Let `side` refuse the next `count` iqs with this payload; the sequence numbers of all, as they come."""
    seen: list[int] = []
    method = {"ibb_data": "_handle_data", "ibb_open": "_handle_open_request"}[payload]
    original = getattr(side.ibb, method)

    async def handle(iq: Iq) -> None:
        seen.append(iq["ibb_data"]["seq"] if payload == "ibb_data" else 0)
        if len(seen) <= count:
            raise XMPPError("recipient-unavailable", etype=etype)  # type: ignore[arg-type]
        await original(iq)

    name = {"ibb_data": "IBB Data", "ibb_open": "IBB Open"}[payload]
    side.xmpp.remove_handler(name)
    side.xmpp.register_handler(CoroutineCallback(name, StanzaPath(f"iq@type=set/{payload}"), handle))  # type: ignore[arg-type]
    return seen


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outgoing, "PAUSES", (0.01,) * 4)


@pytest.mark.usefixtures("_no_pauses")
async def test_send_block_refused_for_now_is_sent_again(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    seen = _refuse(bob, "ibb_data", 3)
    assert await carry(alice, bob, noise(3 * BLOCK)) == noise(3 * BLOCK)
    assert seen == [0, 0, 0, 0, 1, 2]
    await check_clean(alice)


@pytest.mark.usefixtures("_no_pauses")
async def test_send_whole_window_refused_for_now_is_sent_again_in_order(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        outgoing.window.size = 4
        seen = _refuse(bob, "ibb_data", 4)
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, noise(6 * BLOCK)))
    assert received == noise(6 * BLOCK)
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("_no_pauses")
async def test_send_refused_again_and_again_breaks(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, _incoming):
        seen = _refuse(bob, "ibb_data", 1_000)
        with pytest.raises(StreamBroken, match="recipient-unavailable"):
            await outgoing.send(noise(3 * BLOCK))
    assert len(seen) == 5
    await check_clean(alice)


@pytest.mark.usefixtures("_no_pauses")
async def test_open_refused_for_now_asks_again(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    seen = _refuse(bob, "ibb_open", 2)
    assert await carry(alice, bob, b"x") == b"x"
    assert len(seen) == 3


async def test_send_block_refused_breaks(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, _incoming):
        _refuse(bob, "ibb_data", 1, "cancel")
        with pytest.raises(StreamBroken, match="recipient-unavailable"):
            await outgoing.send(noise(3 * BLOCK))
    await check_clean(alice)


async def test_send_answer_lost_breaks_after_patience(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "patience", 0.1)
    alice, bob = await two_sides(loopback)
    loopback.server.faults.lose(IS_DATA, None)
    async with streaming(alice, bob) as (outgoing, _incoming):
        with pytest.raises(StreamBroken, match="no answer"):
            await outgoing.send(noise(3 * BLOCK))
    await check_clean(alice, bob)
