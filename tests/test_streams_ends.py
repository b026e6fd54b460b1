"""How in-band streams end, on purpose and otherwise: nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from slixmpp import JID

from slixmpp_bt.streams._incoming import Incoming
from slixmpp_bt.streams._outgoing import Outgoing
from slixmpp_bt.streams.window import BLOCK
from slixmpp_bt.wire import Expected, Stream, StreamBroken

from .inband import IS_CLOSE, IS_OPEN, PATIENCE, check_clean, noise, read_all, streaming, two_sides, until, write_all
from .servers import Loopback, Server


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


async def test_session_ended_breaks_everything_at_once(server: Server) -> None:
    alice, bob = await two_sides(server)
    async with alice.expect(bob, "other") as expected, streaming(alice, bob) as (outgoing, incoming):
        outgoing.window.size = 4
        waiting = [
            asyncio.ensure_future(something)
            for something in (outgoing.send(noise(100_000)), outgoing.receive(), expected.opened())
        ]
        await until(lambda: len(incoming._blocks) == 4)
        alice.streams.session_ended()
        async with asyncio.timeout(1):
            for error in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(error, StreamBroken)
        bob.streams.session_ended()
        with pytest.raises(StreamBroken, match="session"):
            await incoming.receive()
    await check_clean(alice, bob)


async def test_broken_off_streams_end_at_once_and_others_do_not(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with bob.expect(alice, "one") as one, bob.expect(alice, "two"):
        outgoing = await alice.open(bob, "one")
        incoming = await one.opened()
        bob.streams.break_off(JID(f"{alice.jid.bare}/somebody else"))
        assert not incoming.over
        bob.streams.break_off(JID(alice.jid.bare))
        for receiving in (incoming.receive(), incoming.receive()):
            with pytest.raises(StreamBroken, match="not there any more"):
                await asyncio.wait_for(receiving, PATIENCE)
        alice.streams.break_off(bob.jid)
        with pytest.raises(StreamBroken, match="not there any more"):
            await asyncio.wait_for(outgoing.send(b"x"), PATIENCE)
        with pytest.raises(StreamBroken):
            await alice.open(bob, "two")


async def test_session_ended_while_opening_and_closing_ends_both(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, _incoming):
        fault = loopback.server.faults.hold(lambda stanza: IS_OPEN(stanza) or IS_CLOSE(stanza))
        opening = asyncio.ensure_future(alice.open(bob, "new"))
        closing = asyncio.ensure_future(outgoing.aclose())
        await until(lambda: fault.hits == 2)
        alice.streams.session_ended()
        await closing
        with pytest.raises(StreamBroken, match="session"):
            await opening
        fault.drop()
    await check_clean(alice)


async def test_close_leaves_nothing_and_tells_the_other_side(server: Server) -> None:
    alice, bob = await two_sides(server)
    async with alice.expect(bob, "other"), streaming(alice, bob) as (outgoing, incoming):
        alice.streams.close()
        assert await read_all(incoming) == b""
        with pytest.raises(StreamBroken):
            await outgoing.send(b"x")
        with pytest.raises(StreamBroken, match="not-acceptable"):
            await bob.open(alice, "other")
    alice.streams.close()
    alice.before["events"]["ibb_stream_start"] = 0  # type: ignore[index]
    await check_clean(alice, bob)


async def test_aclose_receiver_first_breaks_the_sender(server: Server) -> None:
    alice, bob = await two_sides(server)
    async with bob.expect(alice) as expected:
        outgoing = await alice.open(bob)
        sending = asyncio.ensure_future(outgoing.send(noise(100_000)))
        await (await expected.opened()).receive()
    with pytest.raises(StreamBroken, match="closed"):
        await sending
    with pytest.raises(StreamBroken, match="closed"):
        await (await expected.opened()).receive()
    await check_clean(alice, bob)


async def test_aclose_both_at_once_and_again_is_quiet(server: Server) -> None:
    alice, bob = await two_sides(server)
    async with streaming(alice, bob) as (outgoing, incoming):
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(outgoing.aclose(), incoming.aclose(), outgoing.aclose())
        await outgoing.aclose()
    await check_clean(alice, bob)


async def test_aclose_cancelled_leaves_nothing(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        sending = asyncio.ensure_future(outgoing.send(bytes(BLOCK)))
        await until(lambda: incoming._blocks)
        await sending
        closing = asyncio.ensure_future(outgoing.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await check_clean(alice)
        assert await read_all(incoming) == bytes(BLOCK)


async def test_send_cancelled_closes_the_stream(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        sending = asyncio.ensure_future(outgoing.send(noise(100_000)))
        await until(lambda: incoming._blocks)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        with pytest.raises(StreamBroken, match="cancelled"):
            await outgoing.send(b"x")
        await check_clean(alice)


async def test_receive_cancelled_loses_nothing(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        writing = asyncio.create_task(write_all(outgoing, noise(60_000)))
        received = b""
        rng = random.Random(1)
        while True:
            reading = asyncio.ensure_future(incoming.receive())
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                if not (data := await reading):
                    break
                received += data
        await writing
    assert received == noise(60_000)


async def test_open_cancelled_closes_what_the_other_side_opened(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with bob.expect(alice) as expected:
        fault = loopback.server.faults.hold(IS_OPEN)
        opening = asyncio.ensure_future(alice.streams.open("sid", bob.jid, sender=alice.jid))
        await until(lambda: fault.hits)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await check_clean(alice)
        fault.release()
        assert await read_all(await expected.opened()) == b""


async def test_opened_cancelled_loses_nothing(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with bob.expect(alice) as expected:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await expected.opened()
        outgoing = await alice.open(bob)
        received, _ = await asyncio.gather(read_all(await expected.opened()), write_all(outgoing, b"x"))
    assert received == b"x"


async def test_incoming_send_raises(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (_outgoing, incoming):
        with pytest.raises(StreamBroken) as error:
            await incoming.send(b"x")
        assert error.value.final


async def test_types_implement_the_contract(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    expected: Expected
    async with bob.streams.expect("sid", alice.jid, sender=bob.jid) as expected:
        sending: Stream = await alice.open(bob)
        receiving: Stream = await expected.opened()
        assert isinstance(sending, Outgoing)
        assert isinstance(receiving, Incoming)
        await sending.aclose()
