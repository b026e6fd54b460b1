"""In-band streams between real clients, components and occupants, beside the application's own ones."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from slixmpp import JID, Iq
from slixmpp.exceptions import IqError, XMPPError
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import StanzaPath

from slixmpp_bt.streams import _incoming, _outgoing
from slixmpp_bt.streams._incoming import Incoming
from slixmpp_bt.streams._outgoing import Outgoing
from slixmpp_bt.streams.inband import InBandStreams
from slixmpp_bt.streams.window import BLOCK, LARGEST, Window
from slixmpp_bt.testing.faults import carries
from slixmpp_bt.wire import Expected, Stream, StreamBroken

from .servers import Loopback, Server

PATIENCE = 15.0
IBB = "http://jabber.org/protocol/ibb"
IS_OPEN, IS_DATA, IS_CLOSE = (carries(f"{{{IBB}}}{name}") for name in ("open", "data", "close"))


class Side:
    """A client or component with ``xep_0047`` and in-band streams. `jid` is what it speaks as."""

    def __init__(self, xmpp: Any, jid: JID | None = None) -> None:
        xmpp.register_plugin("xep_0047")
        self.xmpp = xmpp
        self.own = jid
        self.streams = InBandStreams(xmpp)
        self.before = self.footprint()

    @property
    def jid(self) -> JID:
        return self.own or self.xmpp.boundjid

    @property
    def ibb(self) -> Any:
        return self.xmpp.plugin["xep_0047"]

    def expect(self, peer: Side | JID, sid: str = "sid") -> Any:
        return self.streams.expect(sid, peer.jid if isinstance(peer, Side) else peer, sender=self.jid)

    async def open(self, peer: Side | JID, sid: str = "sid") -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self.streams.open(sid, peer.jid if isinstance(peer, Side) else peer, sender=self.jid)

    def footprint(self) -> dict[str, object]:
        """What slixmpp holds: handlers, timers, hooks and streams."""
        events = self.xmpp._XMLStream__event_handlers
        return {
            "handlers": sorted(handler.name for handler in self.xmpp._XMLStream__handlers),
            "events": {name: len(handlers) for name, handlers in events.items()},
            "timers": sorted(name for name in self.xmpp.scheduled_events if name.startswith("Iq")),
            "hooks": {op: list(kinds["node"]) for op, kinds in self.xmpp.api._handlers["xep_0047"].items()},
            "streams": list(self.ibb._streams),
            "permissions": list(self.ibb._preauthed_sids),
            "tasks": len(self.streams._live) + len(self.streams._expected),
        }

    async def ask(self, peer: Side, payload: str, sid: str = "sid", **values: object) -> Iq:
        """What any client could send: an iq with an element of the protocol."""
        iq = self.xmpp.make_iq_set(ito=peer.jid)
        for name, value in {"sid": sid, **values}.items():
            iq[payload][name] = value
        answer: Iq = await iq.send(timeout=PATIENCE)
        return answer

    async def ask_data(self, peer: Side, seq: str, text: str) -> Iq:
        iq = self.xmpp.make_iq_set(ito=peer.jid)
        iq["ibb_data"]["sid"] = "sid"
        iq["ibb_data"].xml.set("seq", seq)
        iq["ibb_data"].xml.text = text
        answer: Iq = await iq.send(timeout=PATIENCE)
        return answer


async def _side(server: Server, name: str) -> Side:
    jid = await server.add_user(name)
    xmpp = server.client(f"{jid}/here")
    xmpp.register_plugin("xep_0047")
    await server.connect(xmpp)
    return Side(xmpp)


async def _two(server: Server) -> tuple[Side, Side]:
    return await _side(server, "alice"), await _side(server, "bob")


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


@asynccontextmanager
async def _stream(sender: Side, receiver: Side) -> AsyncIterator[tuple[Any, Any]]:
    """Both ends of a stream."""
    async with receiver.expect(sender) as expected:
        outgoing = await sender.open(receiver)
        async with asyncio.timeout(PATIENCE):
            incoming = await expected.opened()
        try:
            yield outgoing, incoming
        finally:
            await outgoing.aclose()


async def _read(stream: Stream) -> bytes:
    """All until the other side closes."""
    received = b""
    async with asyncio.timeout(PATIENCE):
        while data := await stream.receive():
            received += data
    return received


async def _write(stream: Stream, data: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await stream.send(data)
        await stream.aclose()


async def _carry(sender: Side, receiver: Side, data: bytes) -> bytes:
    async with _stream(sender, receiver) as (outgoing, incoming):
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, data))
    return received


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def _clean(*sides: Side) -> None:
    """Wait until slixmpp holds what it held before."""
    try:
        await _until(lambda: all(side.footprint() == side.before for side in sides))
    except TimeoutError:
        for side in sides:
            assert side.footprint() == side.before


def _data(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# Bytes


@pytest.mark.parametrize("size", [0, 1, BLOCK, 100_000])
async def test_stream_any_size_arrives_and_nothing_is_left(server: Server, size: int) -> None:
    alice, bob = await _two(server)
    assert await _carry(alice, bob, _data(size)) == _data(size)
    await _clean(alice, bob)


async def test_stream_again_and_both_ways_arrives(server: Server) -> None:
    alice, bob = await _two(server)
    for size in (10_000, 20_000):
        assert await _carry(alice, bob, _data(size)) == _data(size)
        assert await _carry(bob, alice, _data(size)) == _data(size)
    await _clean(alice, bob)


async def test_stream_from_a_component_with_ifrom_arrives_both_ways(server: Server) -> None:
    alice = await _side(server, "alice")
    xmpp = server.component("bot")
    xmpp.register_plugin("xep_0047")
    await server.connect(xmpp)
    bot = Side(xmpp, JID(f"file@{xmpp.boundjid}/store"))
    assert await _carry(bot, alice, _data(20_000)) == _data(20_000)
    assert await _carry(alice, bot, _data(20_000)) == _data(20_000)
    await _clean(alice, bot)


async def test_stream_through_a_room_arrives(server: Server) -> None:
    sides = await _two(server)
    room = JID(f"{sides[0].jid.user}@{server.conference}")
    for side, nick in zip(sides, ("one", "other"), strict=True):
        side.xmpp.register_plugin("xep_0045")
        await side.xmpp.plugin["xep_0045"].join_muc_wait(room, nick, timeout=PATIENCE)
    alice, bob = sides
    async with bob.expect(JID(f"{room}/one")) as expected:
        outgoing = await alice.open(JID(f"{room}/other"))
        received, _ = await asyncio.gather(_read(await expected.opened()), _write(outgoing, _data(20_000)))
    assert received == _data(20_000)


async def test_stream_many_at_once_do_not_mix(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)

    async def one(number: int) -> bytes:
        async with bob.expect(alice, f"s{number}") as expected:
            outgoing = await alice.open(bob, f"s{number}")
            received, _ = await asyncio.gather(_read(await expected.opened()), _write(outgoing, _data(30_000 + number)))
        return received

    assert await asyncio.gather(*map(one, range(5))) == [_data(30_000 + number) for number in range(5)]
    await _clean(alice, bob)


async def test_send_small_pieces_fill_blocks(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        reader = asyncio.create_task(_read(incoming))
        for _ in range(1_000):
            await outgoing.send(b"0123456789")
        await outgoing.aclose()
        assert await reader == b"0123456789" * 1_000
        assert incoming._next <= 10_000 / BLOCK + 3


async def test_send_last_bytes_arrive_without_closing(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        await outgoing.send(b"ping")
        async with asyncio.timeout(PATIENCE):
            assert await incoming.receive() == b"ping"


async def test_send_block_numbers_wrap(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        outgoing._next = incoming._next = 65_533
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, _data(10 * BLOCK)))
    assert received == _data(10 * BLOCK)
    assert (outgoing._next, incoming._next) == (7, 7)


# Who may open


async def test_open_unexpected_is_refused_for_good(server: Server) -> None:
    alice, bob = await _two(server)
    with pytest.raises(StreamBroken, match="not-acceptable") as error:
        await alice.open(bob)
    assert error.value.final
    await _clean(alice, bob)


async def test_expect_other_peer_or_sid_is_refused_and_the_right_one_let_in(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    carol = await _side(loopback, "carol")
    async with bob.expect(alice) as expected:
        for side, sid in ((carol, "sid"), (alice, "another")):
            with pytest.raises(StreamBroken, match="not-acceptable"):
                await side.open(bob, sid)
        outgoing = await alice.open(bob)
        assert (await expected.opened()).peer_jid == alice.jid
        await outgoing.aclose()
    await _clean(alice, bob, carol)


@pytest.mark.parametrize("lenient", [False, True])
async def test_expect_second_opening_is_refused(loopback: Loopback, lenient: bool) -> None:
    alice, bob = await _two(loopback)
    bob.ibb.auto_accept = lenient
    async with _stream(alice, bob) as (outgoing, incoming):
        with pytest.raises(IqError, match="not-acceptable"):
            await alice.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, b"still there"))
        assert received == b"still there"
        with pytest.raises(IqError, match="not-acceptable"):
            await alice.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")


async def test_expect_application_lets_in_whatever_comes_ours_is_still_ours(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    carol = await _side(loopback, "carol")
    bob.ibb.auto_accept = True
    started: asyncio.Queue[Any] = asyncio.Queue()
    bob.xmpp.add_event_handler("ibb_stream_start", started.put_nowait)
    async with _stream(alice, bob) as (outgoing, incoming):
        assert (await started.get()).peer_jid == alice.jid
        theirs = await carol.ibb.open_stream(bob.jid, sid="sid", timeout=PATIENCE)
        await theirs.sendall(b"theirs", timeout=PATIENCE)
        assert (await started.get()).read() == b"theirs"
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, b"ours"))
        assert received == b"ours"


async def test_expect_message_stream_is_refused(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with bob.expect(alice):
        with pytest.raises(IqError, match="not-acceptable"):
            await alice.ask(bob, "ibb_open", block_size=BLOCK, stanza="message")
        await (await alice.open(bob)).aclose()


async def test_expect_left_unopened_withdraws_permission(server: Server) -> None:
    alice, bob = await _two(server)
    async with bob.expect(alice):
        pass
    await _clean(bob)
    with pytest.raises(StreamBroken, match="not-acceptable"):
        await alice.open(bob)


async def test_expect_sid_in_use_raises(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with bob.expect(alice):
        with pytest.raises(StreamBroken, match="already"):
            async with bob.expect(alice):
                pass
        with pytest.raises(StreamBroken, match="already"):
            async with bob.expect(JID("carol@localhost/x")):
                pass
        await (await alice.open(bob)).aclose()


async def test_open_name_of_the_applications_stream_leaves_it_alone(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    bob.ibb.auto_accept = True
    theirs = await alice.ibb.open_stream(bob.jid, sid="sid", timeout=PATIENCE)
    with pytest.raises(StreamBroken, match="already"):
        await alice.open(bob)
    assert alice.ibb._streams[(alice.jid, "sid", bob.jid)] is theirs


async def test_application_its_streams_go_on_and_ours_do_not_hold_it_up(server: Server) -> None:
    alice, bob = await _two(server)
    started: asyncio.Queue[Any] = asyncio.Queue()
    bob.xmpp.add_event_handler("ibb_stream_start", started.put_nowait)
    await bob.ibb.api["preauthorize_sid"](bob.jid, "theirs", alice.jid, None)
    async with _stream(alice, bob) as (outgoing, incoming):
        ours = await started.get()
        assert await ours.gather(timeout=PATIENCE) == b""
        theirs = await alice.ibb.open_stream(bob.jid, sid="theirs", timeout=PATIENCE)
        gathered = asyncio.create_task((await started.get()).gather(timeout=PATIENCE))
        received, _, _ = await asyncio.gather(
            _read(incoming), _write(outgoing, _data(50_000)), theirs.sendall(_data(9_000), timeout=PATIENCE)
        )
        await theirs.close(timeout=PATIENCE)
        assert (received, await gathered) == (_data(50_000), _data(9_000))
    assert not bob.ibb.auto_accept


@pytest.mark.parametrize("largest", [4_095, 1_024, 512])
async def test_open_peer_wants_smaller_blocks_gets_them(loopback: Loopback, largest: int) -> None:
    alice, bob = await _two(loopback)
    bob.ibb.max_block_size = largest
    async with _stream(alice, bob) as (outgoing, incoming):
        assert 512 <= outgoing.block_size == incoming.block_size <= largest
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, _data(10_000)))
    assert received == _data(10_000)


async def test_open_peer_wants_tiny_blocks_raises(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outgoing, "PAUSES", (0.01,))
    alice, bob = await _two(loopback)
    bob.ibb.max_block_size = 511
    async with bob.expect(alice):
        with pytest.raises(StreamBroken, match="resource-constraint"):
            await alice.open(bob)
    await _clean(alice, bob)


async def test_open_peer_without_in_band_streams_is_final(server: Server) -> None:
    alice = await _side(server, "alice")
    plain = server.client(f"{await server.add_user('bob')}/here")
    await server.connect(plain)
    with pytest.raises(StreamBroken, match="feature-not-implemented") as error:
        await alice.open(plain.boundjid)
    assert error.value.final
    await _clean(alice)


async def test_open_no_answer_breaks_in_time(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outgoing, "_OPEN_TIMEOUT", 0.1)
    alice, bob = await _two(loopback)
    loopback.server.faults.lose(IS_OPEN)
    with pytest.raises(StreamBroken, match="did not answer") as error:
        await alice.open(bob)
    assert not error.value.final
    await _clean(alice)


async def test_open_peer_not_there_is_not_final(server: Server) -> None:
    alice = await _side(server, "alice")
    with pytest.raises(StreamBroken) as error:
        await alice.open(JID(f"{alice.jid.bare}/elsewhere"))
    assert not error.value.final
    await _clean(alice)


# What a peer may send


GOOD = base64.b64encode(b"good").decode()
BAD_BLOCKS = {
    "out of order": ("1", GOOD, "unexpected-request"),
    "before the first": ("65535", GOOD, "unexpected-request"),
    "no number": ("", GOOD, "bad-request"),
    "not a number": ("zero", GOOD, "bad-request"),
    "negative": ("-1", GOOD, "bad-request"),
    "huge number": ("9" * 5_000, GOOD, "bad-request"),
    "too large": ("0", base64.b64encode(bytes(BLOCK + 1)).decode(), "bad-request"),
    "empty": ("0", "", "bad-request"),
    "not base64": ("0", "g*od", "bad-request"),
    "misplaced padding": ("0", "Z29=vZA==", "bad-request"),
    "padding missing": ("0", "Z29vZA", "bad-request"),
    "space within": ("0", "Z29v ZA==", "bad-request"),
    "not ASCII": ("0", "Z29vZÄ==", "bad-request"),
}


@pytest.mark.parametrize("seq, text, condition", BAD_BLOCKS.values(), ids=BAD_BLOCKS)  # noqa: PT006
async def test_receive_bad_block_breaks_the_stream(loopback: Loopback, seq: str, text: str, condition: str) -> None:
    mallory, bob = await _two(loopback)
    async with bob.expect(mallory) as expected:
        await mallory.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        stream = await expected.opened()
        with pytest.raises(IqError, match=condition):
            await mallory.ask_data(bob, seq, text)
        with pytest.raises(StreamBroken, match=condition):
            await stream.receive()
        with pytest.raises(IqError, match="item-not-found"):
            await mallory.ask_data(bob, "0", GOOD)
    await _clean(bob)


async def test_receive_somebody_elses_block_is_refused_and_harmless(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    mallory = await _side(loopback, "mallory")
    async with _stream(alice, bob) as (outgoing, incoming):
        with pytest.raises(IqError, match="item-not-found"):
            await mallory.ask(bob, "ibb_data", seq=0, data=b"evil")
        with pytest.raises(IqError, match="item-not-found"):
            await mallory.ask(bob, "ibb_close")
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, b"good"))
    assert received == b"good"


async def test_receive_block_as_message_breaks_the_stream(loopback: Loopback) -> None:
    mallory, bob = await _two(loopback)
    async with bob.expect(mallory) as expected:
        await mallory.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        stream = await expected.opened()
        message = mallory.xmpp.make_message(bob.jid)
        message["ibb_data"]["sid"], message["ibb_data"]["seq"], message["ibb_data"]["data"] = "sid", 0, b"x"
        message.send()
        with pytest.raises(StreamBroken, match="not-acceptable"):
            await stream.receive()


async def test_receive_flood_is_cut_off(loopback: Loopback) -> None:
    mallory, bob = await _two(loopback)
    text = base64.b64encode(bytes(BLOCK)).decode()
    async with bob.expect(mallory) as expected:
        await mallory.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        stream = await expected.opened()
        flood = [asyncio.ensure_future(mallory.ask_data(bob, str(seq), text)) for seq in range(200)]
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(answer) for answer in answers} == {IqError}
        with pytest.raises(StreamBroken, match="resource-constraint"):
            await stream.receive()
        assert stream._next == _incoming.MAX_HELD // BLOCK
    await _clean(bob)


async def test_receive_nothing_for_too_long_breaks_the_stream(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_incoming, "_IDLE", (0.05, 0.05))
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        with pytest.raises(StreamBroken, match="nothing came"):
            await incoming.receive()
        with pytest.raises(StreamBroken, match="closed"):
            await outgoing.receive()


async def test_send_peer_sends_back_breaks_the_stream(loopback: Loopback) -> None:
    alice, mallory = await _two(loopback)
    async with mallory.expect(alice):
        stream = await alice.open(mallory)
        with pytest.raises(IqError, match="not-acceptable"):
            await mallory.ask_data(alice, "0", GOOD)
        with pytest.raises(StreamBroken):
            await stream.send(b"x")
    await _clean(alice, mallory)


# Back-pressure and rates


async def test_send_consumer_does_not_take_waits(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        sending = asyncio.create_task(_write(outgoing, _data(300_000)))
        for _ in range(40):
            await incoming.receive()
        await _until(lambda: len(incoming._blocks) == outgoing.window.size)
        assert 1 < outgoing.window.size <= LARGEST
        done, _ = await asyncio.wait({sending}, timeout=0.1)
        assert not done
        assert len(incoming._blocks) == outgoing.window.size
        assert await _read(incoming) == _data(300_000)[40 * BLOCK :]
        await sending


async def test_send_first_block_is_alone(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        sending = asyncio.create_task(_write(outgoing, _data(100_000)))
        await _until(lambda: incoming._blocks)
        assert (len(outgoing._flight), len(incoming._blocks)) == (1, 1)
        assert await _read(incoming) == _data(100_000)
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
        async with _stream(alice, bob) as (outgoing, incoming):
            sending = asyncio.create_task(_write(outgoing, _data(80_000)))
            received = b""
            while data := await incoming.receive():
                received += data
                largest = max(largest, outgoing.window.size)
            await sending
        assert received == _data(80_000)
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
    alice, bob = await _two(loopback)
    seen = _refuse(bob, "ibb_data", 3)
    assert await _carry(alice, bob, _data(3 * BLOCK)) == _data(3 * BLOCK)
    assert seen == [0, 0, 0, 0, 1, 2]
    await _clean(alice)


@pytest.mark.usefixtures("_no_pauses")
async def test_send_whole_window_refused_for_now_is_sent_again_in_order(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        outgoing.window.size = 4
        seen = _refuse(bob, "ibb_data", 4)
        received, _ = await asyncio.gather(_read(incoming), _write(outgoing, _data(6 * BLOCK)))
    assert received == _data(6 * BLOCK)
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("_no_pauses")
async def test_send_refused_again_and_again_breaks(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, _incoming):
        seen = _refuse(bob, "ibb_data", 1_000)
        with pytest.raises(StreamBroken, match="recipient-unavailable"):
            await outgoing.send(_data(3 * BLOCK))
    assert len(seen) == 5
    await _clean(alice)


@pytest.mark.usefixtures("_no_pauses")
async def test_open_refused_for_now_asks_again(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    seen = _refuse(bob, "ibb_open", 2)
    assert await _carry(alice, bob, b"x") == b"x"
    assert len(seen) == 3


async def test_send_block_refused_breaks(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, _incoming):
        _refuse(bob, "ibb_data", 1, "cancel")
        with pytest.raises(StreamBroken, match="recipient-unavailable"):
            await outgoing.send(_data(3 * BLOCK))
    await _clean(alice)


async def test_send_answer_lost_breaks_after_patience(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "patience", 0.1)
    alice, bob = await _two(loopback)
    loopback.server.faults.lose(IS_DATA, None)
    async with _stream(alice, bob) as (outgoing, _incoming):
        with pytest.raises(StreamBroken, match="no answer"):
            await outgoing.send(_data(3 * BLOCK))
    await _clean(alice, bob)


# Ends


async def test_session_ended_breaks_everything_at_once(server: Server) -> None:
    alice, bob = await _two(server)
    async with alice.expect(bob, "other") as expected, _stream(alice, bob) as (outgoing, incoming):
        outgoing.window.size = 4
        waiting = [
            asyncio.ensure_future(something)
            for something in (outgoing.send(_data(100_000)), outgoing.receive(), expected.opened())
        ]
        await _until(lambda: len(incoming._blocks) == 4)
        alice.streams.session_ended()
        async with asyncio.timeout(1):
            for error in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(error, StreamBroken)
        bob.streams.session_ended()
        with pytest.raises(StreamBroken, match="session"):
            await incoming.receive()
    await _clean(alice, bob)


async def test_broken_off_streams_end_at_once_and_others_do_not(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
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
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, _incoming):
        fault = loopback.server.faults.hold(lambda stanza: IS_OPEN(stanza) or IS_CLOSE(stanza))
        opening = asyncio.ensure_future(alice.open(bob, "new"))
        closing = asyncio.ensure_future(outgoing.aclose())
        await _until(lambda: fault.hits == 2)
        alice.streams.session_ended()
        await closing
        with pytest.raises(StreamBroken, match="session"):
            await opening
        fault.drop()
    await _clean(alice)


async def test_close_leaves_nothing_and_tells_the_other_side(server: Server) -> None:
    alice, bob = await _two(server)
    async with alice.expect(bob, "other"), _stream(alice, bob) as (outgoing, incoming):
        alice.streams.close()
        assert await _read(incoming) == b""
        with pytest.raises(StreamBroken):
            await outgoing.send(b"x")
        with pytest.raises(StreamBroken, match="not-acceptable"):
            await bob.open(alice, "other")
    alice.streams.close()
    alice.before["events"]["ibb_stream_start"] = 0  # type: ignore[index]
    await _clean(alice, bob)


async def test_aclose_receiver_first_breaks_the_sender(server: Server) -> None:
    alice, bob = await _two(server)
    async with bob.expect(alice) as expected:
        outgoing = await alice.open(bob)
        sending = asyncio.ensure_future(outgoing.send(_data(100_000)))
        await (await expected.opened()).receive()
    with pytest.raises(StreamBroken, match="closed"):
        await sending
    with pytest.raises(StreamBroken, match="closed"):
        await (await expected.opened()).receive()
    await _clean(alice, bob)


async def test_aclose_both_at_once_and_again_is_quiet(server: Server) -> None:
    alice, bob = await _two(server)
    async with _stream(alice, bob) as (outgoing, incoming):
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(outgoing.aclose(), incoming.aclose(), outgoing.aclose())
        await outgoing.aclose()
    await _clean(alice, bob)


async def test_aclose_cancelled_leaves_nothing(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        sending = asyncio.ensure_future(outgoing.send(bytes(BLOCK)))
        await _until(lambda: incoming._blocks)
        await sending
        closing = asyncio.ensure_future(outgoing.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await _clean(alice)
        assert await _read(incoming) == bytes(BLOCK)


async def test_send_cancelled_closes_the_stream(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        sending = asyncio.ensure_future(outgoing.send(_data(100_000)))
        await _until(lambda: incoming._blocks)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        with pytest.raises(StreamBroken, match="cancelled"):
            await outgoing.send(b"x")
        await _clean(alice)


async def test_receive_cancelled_loses_nothing(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (outgoing, incoming):
        writing = asyncio.create_task(_write(outgoing, _data(60_000)))
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
    assert received == _data(60_000)


async def test_open_cancelled_closes_what_the_other_side_opened(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with bob.expect(alice) as expected:
        fault = loopback.server.faults.hold(IS_OPEN)
        opening = asyncio.ensure_future(alice.streams.open("sid", bob.jid, sender=alice.jid))
        await _until(lambda: fault.hits)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await _clean(alice)
        fault.release()
        assert await _read(await expected.opened()) == b""


async def test_opened_cancelled_loses_nothing(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with bob.expect(alice) as expected:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await expected.opened()
        outgoing = await alice.open(bob)
        received, _ = await asyncio.gather(_read(await expected.opened()), _write(outgoing, b"x"))
    assert received == b"x"


async def test_incoming_send_raises(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    async with _stream(alice, bob) as (_outgoing, incoming):
        with pytest.raises(StreamBroken) as error:
            await incoming.send(b"x")
        assert error.value.final


async def test_types_implement_the_contract(loopback: Loopback) -> None:
    alice, bob = await _two(loopback)
    expected: Expected
    async with bob.streams.expect("sid", alice.jid, sender=bob.jid) as expected:
        sending: Stream = await alice.open(bob)
        receiving: Stream = await expected.opened()
        assert isinstance(sending, Outgoing)
        assert isinstance(receiving, Incoming)
        await sending.aclose()
