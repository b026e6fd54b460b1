"""In-band streams between real clients, components and occupants, beside the application's own ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from slixmpp import JID
from slixmpp.exceptions import IqError

from slixmpp_bt.streams import _outgoing
from slixmpp_bt.streams.window import BLOCK
from slixmpp_bt.wire import StreamBroken

from .inband import (
    IS_OPEN,
    PATIENCE,
    Side,
    carry,
    check_clean,
    connected,
    noise,
    read_all,
    streaming,
    two_sides,
    write_all,
)
from .servers import Loopback, Server


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


@pytest.mark.parametrize("size", [0, 1, BLOCK, 100_000])
async def test_stream_any_size_arrives_and_nothing_is_left(server: Server, size: int) -> None:
    alice, bob = await two_sides(server)
    assert await carry(alice, bob, noise(size)) == noise(size)
    await check_clean(alice, bob)


async def test_stream_again_and_both_ways_arrives(server: Server) -> None:
    alice, bob = await two_sides(server)
    for size in (10_000, 20_000):
        assert await carry(alice, bob, noise(size)) == noise(size)
        assert await carry(bob, alice, noise(size)) == noise(size)
    await check_clean(alice, bob)


async def test_stream_from_a_component_with_ifrom_arrives_both_ways(server: Server) -> None:
    alice = await connected(server, "alice")
    xmpp = server.component("bot")
    xmpp.register_plugin("xep_0047")
    await server.connect(xmpp)
    bot = Side(xmpp, JID(f"file@{xmpp.boundjid}/store"))
    assert await carry(bot, alice, noise(20_000)) == noise(20_000)
    assert await carry(alice, bot, noise(20_000)) == noise(20_000)
    await check_clean(alice, bot)


async def test_stream_through_a_room_arrives(server: Server) -> None:
    sides = await two_sides(server)
    room = JID(f"{sides[0].jid.user}@{server.conference}")
    for side, nick in zip(sides, ("one", "other"), strict=True):
        side.xmpp.register_plugin("xep_0045")
        await side.xmpp.plugin["xep_0045"].join_muc_wait(room, nick, timeout=PATIENCE)
    alice, bob = sides
    async with bob.expect(JID(f"{room}/one")) as expected:
        outgoing = await alice.open(JID(f"{room}/other"))
        received, _ = await asyncio.gather(read_all(await expected.opened()), write_all(outgoing, noise(20_000)))
    assert received == noise(20_000)


async def test_stream_many_at_once_do_not_mix(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)

    async def one(number: int) -> bytes:
        async with bob.expect(alice, f"s{number}") as expected:
            outgoing = await alice.open(bob, f"s{number}")
            reading = read_all(await expected.opened())
            received, _ = await asyncio.gather(reading, write_all(outgoing, noise(30_000 + number)))
        return received

    assert await asyncio.gather(*map(one, range(5))) == [noise(30_000 + number) for number in range(5)]
    await check_clean(alice, bob)


async def test_send_small_pieces_fill_blocks(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        reader = asyncio.create_task(read_all(incoming))
        for _ in range(1_000):
            await outgoing.send(b"0123456789")
        await outgoing.aclose()
        assert await reader == b"0123456789" * 1_000
        assert incoming._next <= 10_000 / BLOCK + 3


async def test_send_last_bytes_arrive_without_closing(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        await outgoing.send(b"ping")
        async with asyncio.timeout(PATIENCE):
            assert await incoming.receive() == b"ping"


async def test_send_block_numbers_wrap(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        outgoing._next = incoming._next = 65_533
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, noise(10 * BLOCK)))
    assert received == noise(10 * BLOCK)
    assert (outgoing._next, incoming._next) == (7, 7)


# Who may open


async def test_open_unexpected_is_refused_for_good(server: Server) -> None:
    alice, bob = await two_sides(server)
    with pytest.raises(StreamBroken, match="not-acceptable") as error:
        await alice.open(bob)
    assert error.value.final
    await check_clean(alice, bob)


async def test_expect_other_peer_or_sid_is_refused_and_the_right_one_let_in(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    carol = await connected(loopback, "carol")
    async with bob.expect(alice) as expected:
        for side, sid in ((carol, "sid"), (alice, "another")):
            with pytest.raises(StreamBroken, match="not-acceptable"):
                await side.open(bob, sid)
        outgoing = await alice.open(bob)
        assert (await expected.opened()).peer_jid == alice.jid
        await outgoing.aclose()
    await check_clean(alice, bob, carol)


@pytest.mark.parametrize("lenient", [False, True])
async def test_expect_second_opening_is_refused(loopback: Loopback, lenient: bool) -> None:
    alice, bob = await two_sides(loopback)
    bob.ibb.auto_accept = lenient
    async with streaming(alice, bob) as (outgoing, incoming):
        with pytest.raises(IqError, match="not-acceptable"):
            await alice.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, b"still there"))
        assert received == b"still there"
        with pytest.raises(IqError, match="not-acceptable"):
            await alice.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")


async def test_expect_application_lets_in_whatever_comes_ours_is_still_ours(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    carol = await connected(loopback, "carol")
    bob.ibb.auto_accept = True
    started: asyncio.Queue[Any] = asyncio.Queue()
    bob.xmpp.add_event_handler("ibb_stream_start", started.put_nowait)
    async with streaming(alice, bob) as (outgoing, incoming):
        assert (await started.get()).peer_jid == alice.jid
        theirs = await carol.ibb.open_stream(bob.jid, sid="sid", timeout=PATIENCE)
        await theirs.sendall(b"theirs", timeout=PATIENCE)
        assert (await started.get()).read() == b"theirs"
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, b"ours"))
        assert received == b"ours"


async def test_expect_message_stream_is_refused(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with bob.expect(alice):
        with pytest.raises(IqError, match="not-acceptable"):
            await alice.ask(bob, "ibb_open", block_size=BLOCK, stanza="message")
        await (await alice.open(bob)).aclose()


async def test_expect_left_unopened_withdraws_permission(server: Server) -> None:
    alice, bob = await two_sides(server)
    async with bob.expect(alice):
        pass
    await check_clean(bob)
    with pytest.raises(StreamBroken, match="not-acceptable"):
        await alice.open(bob)


async def test_expect_sid_in_use_raises(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    async with bob.expect(alice):
        with pytest.raises(StreamBroken, match="already"):
            async with bob.expect(alice):
                pass
        with pytest.raises(StreamBroken, match="already"):
            async with bob.expect(JID("carol@localhost/x")):
                pass
        await (await alice.open(bob)).aclose()


async def test_open_name_of_the_applications_stream_leaves_it_alone(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    bob.ibb.auto_accept = True
    theirs = await alice.ibb.open_stream(bob.jid, sid="sid", timeout=PATIENCE)
    with pytest.raises(StreamBroken, match="already"):
        await alice.open(bob)
    assert alice.ibb._streams[(alice.jid, "sid", bob.jid)] is theirs


async def test_application_its_streams_go_on_and_ours_do_not_hold_it_up(server: Server) -> None:
    alice, bob = await two_sides(server)
    started: asyncio.Queue[Any] = asyncio.Queue()
    bob.xmpp.add_event_handler("ibb_stream_start", started.put_nowait)
    await bob.ibb.api["preauthorize_sid"](bob.jid, "theirs", alice.jid, None)
    async with streaming(alice, bob) as (outgoing, incoming):
        ours = await started.get()
        assert await ours.gather(timeout=PATIENCE) == b""
        theirs = await alice.ibb.open_stream(bob.jid, sid="theirs", timeout=PATIENCE)
        gathered = asyncio.create_task((await started.get()).gather(timeout=PATIENCE))
        received, _, _ = await asyncio.gather(
            read_all(incoming), write_all(outgoing, noise(50_000)), theirs.sendall(noise(9_000), timeout=PATIENCE)
        )
        await theirs.close(timeout=PATIENCE)
        assert (received, await gathered) == (noise(50_000), noise(9_000))
    assert not bob.ibb.auto_accept


@pytest.mark.parametrize("largest", [4_095, 1_024, 512])
async def test_open_peer_wants_smaller_blocks_gets_them(loopback: Loopback, largest: int) -> None:
    alice, bob = await two_sides(loopback)
    bob.ibb.max_block_size = largest
    async with streaming(alice, bob) as (outgoing, incoming):
        assert 512 <= outgoing.block_size == incoming.block_size <= largest
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, noise(10_000)))
    assert received == noise(10_000)


async def test_open_peer_wants_tiny_blocks_raises(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outgoing, "PAUSES", (0.01,))
    alice, bob = await two_sides(loopback)
    bob.ibb.max_block_size = 511
    async with bob.expect(alice):
        with pytest.raises(StreamBroken, match="resource-constraint"):
            await alice.open(bob)
    await check_clean(alice, bob)


async def test_open_peer_without_in_band_streams_is_final(server: Server) -> None:
    alice = await connected(server, "alice")
    plain = server.client(f"{await server.add_user('bob')}/here")
    await server.connect(plain)
    with pytest.raises(StreamBroken, match="feature-not-implemented") as error:
        await alice.open(plain.boundjid)
    assert error.value.final
    await check_clean(alice)


async def test_open_no_answer_breaks_in_time(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outgoing, "_OPEN_TIMEOUT", 0.1)
    alice, bob = await two_sides(loopback)
    loopback.server.faults.lose(IS_OPEN)
    with pytest.raises(StreamBroken, match="did not answer") as error:
        await alice.open(bob)
    assert not error.value.final
    await check_clean(alice)


async def test_open_peer_not_there_is_not_final(server: Server) -> None:
    alice = await connected(server, "alice")
    with pytest.raises(StreamBroken) as error:
        await alice.open(JID(f"{alice.jid.bare}/elsewhere"))
    assert not error.value.final
    await check_clean(alice)
