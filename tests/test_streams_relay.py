"""Relayed streams between real clients, on each server: who may open which, by what proxy, and what is left behind."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from slixmpp_bt.messages import StreamHost
from slixmpp_bt.streams.relay import RelayStreams
from slixmpp_bt.streams.socks5 import SocketStream, Times
from slixmpp_bt.testing import LoopbackServer, carries
from slixmpp_bt.wire import StreamBroken

from .servers import Loopback, Server

NS = "http://jabber.org/protocol/bytestreams"
#: Short enough to wait for.
QUICK = Times(dial=1.0, answer=10.0, opening=20.0, grace=0.3, idle=2.0, close=0.5)
DATA = bytes(range(256)) * 4_000
ITEMS = carries("http://jabber.org/protocol/disco#items")


@dataclass
class Side:
    """A client or component, the JID that it speaks as, and the one by which the other side knows it."""

    xmpp: Any
    streams: RelayStreams
    jid: JID
    known_as: JID

    def opening(self, other: Side, sid: str = "s1", **kwargs: Any) -> asyncio.Task[SocketStream]:
        return asyncio.create_task(self.streams.open(sid, other.known_as, sender=self.jid, **kwargs))

    def expecting(self, other: Side, sid: str = "s1") -> Any:
        return self.streams.expect(sid, other.known_as, sender=self.jid)

    def leftovers(self) -> list[str]:
        """Handlers and filters that wait for something."""
        handlers = [h.name for h in self.xmpp._XMLStream__handlers if h.name.startswith("IqCallback")]
        timers = [name for name in self.xmpp.scheduled_events if name.startswith("IqTimeout")]
        return [*handlers, *timers, *map(str, self.xmpp._XMLStream__filters["in"])]


def sent(xmpp: Any) -> list[Any]:
    """The stanzas that leave from now on."""
    stanzas: list[Any] = []

    def see(stanza: Any) -> Any:
        stanzas.append(stanza)
        return stanza

    xmpp.add_filter("out", see)
    return stanzas


def side(xmpp: Any, jid: JID | None = None, *, known_as: JID | None = None, times: Times | None = None) -> Side:
    jid = jid or xmpp.boundjid
    return Side(xmpp, RelayStreams(xmpp, times=times), jid, known_as or jid)


async def pair(server: Server, times: Times | None = None) -> tuple[Side, Side]:
    a, b = server.client("alice/a"), server.client("bob/b")
    await server.connect(a, b)
    return side(a, times=times), side(b, times=times)


async def carry(requester: Side, target: Side, sid: str = "s1", data: bytes = DATA, **kwargs: Any) -> bytes:
    """Send `data` over a new stream; what arrives."""
    async with target.expecting(requester, sid) as expected:
        opening = requester.opening(target, sid, **kwargs)
        sending = asyncio.create_task(_send(opening, data))
        got = await _read(await expected.opened())
        await sending
    return got


async def _send(opening: asyncio.Task[SocketStream], data: bytes) -> None:
    stream = await opening
    await stream.send(data)
    await stream.aclose()


async def _read(stream: SocketStream) -> bytes:
    got = bytearray()
    while piece := await stream.receive():
        got += piece
    return bytes(got)


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as one:
        yield one


# On every server


async def test_stream_between_two_clients_carries_all_and_leaves_nothing(server: Server) -> None:
    alice, bob = await pair(server)
    before = alice.leftovers(), bob.leftovers()
    for sid in ("s1", "s2"):
        assert await carry(alice, bob, sid) == DATA
    assert await carry(bob, alice, "s1") == DATA
    assert (alice.leftovers(), bob.leftovers()) == before


async def test_stream_several_at_once_do_not_mix(server: Server) -> None:
    alice, bob = await pair(server)
    wanted = {f"s{number}": str(number).encode() * 300_000 for number in range(6)}
    both = [(alice, bob) if int(sid[1:]) % 2 else (bob, alice) for sid in wanted]
    got = await asyncio.gather(*(carry(*two, sid, wanted[sid]) for two, sid in zip(both, wanted, strict=True)))
    assert got == list(wanted.values())


@pytest.mark.parametrize("requester", ["client", "component"])
async def test_stream_with_a_component_by_ifrom_carries_all(server: Server, requester: str) -> None:
    a, bot = server.client("alice/a"), server.component("bot")
    await server.connect(a, bot)
    client, component = side(a), side(bot, JID(f"files@bot.{server.domain}/x"))
    if requester == "client":
        assert await carry(client, component) == DATA
    else:
        assert await carry(component, client) == DATA


async def test_stream_through_a_semi_anonymous_room_carries_all(server: Server) -> None:
    a, b = server.client("alice/a"), server.client("bob/b")
    room = JID(f"room-{secrets.token_hex(4)}@{server.conference}")
    nicks = {a: "Älice One", b: "bob two"}
    await server.connect(a, b)
    for xmpp, nick in nicks.items():
        xmpp.register_plugin("xep_0045")
        await xmpp.plugin["xep_0045"].join_muc_wait(room, nick, timeout=10)
        if xmpp is a and server.name != "loopback":
            form = await a.plugin["xep_0045"].get_room_config(room)
            await a.plugin["xep_0045"].set_room_config(room, form)
    alice, bob = (side(xmpp, known_as=JID(f"{room}/{nick}")) for xmpp, nick in nicks.items())
    assert await carry(alice, bob) == DATA


async def test_relays_are_those_of_the_own_server_and_asked_for_once(server: Server) -> None:
    alice, _ = await pair(server)
    asked = sent(alice.xmpp)
    (host,) = await alice.streams.relays(sender=alice.jid)
    assert (host.jid.domain, host.host) == (server.proxy, server.host)
    assert host.port > 0
    count = len(asked)
    assert await alice.streams.relays(sender=alice.jid) == (host,)
    assert len(asked) == count > 0
    alice.streams.session_ended()
    assert await alice.streams.relays(sender=alice.jid) == (host,)
    assert len(asked) == 2 * count


async def test_application_own_xep_0065_goes_on_beside_ours(server: Server) -> None:
    alice, bob = await pair(server)
    received: asyncio.Queue[bytes] = asyncio.Queue()
    answers = sent(bob.xmpp)
    for one in (alice, bob):
        one.xmpp.register_plugin("xep_0065", {"auto_accept": True})
        one.xmpp.add_event_handler("socks5_data", received.put_nowait)

    async def theirs() -> None:
        socket = await alice.xmpp.plugin["xep_0065"].handshake(bob.jid, sid="theirs", timeout=10)
        await socket.write(b"by slixmpp")
        assert await received.get() == b"by slixmpp"
        for one in (socket, bob.xmpp.plugin["xep_0065"].get_socket("theirs")):
            one.transport.close()

    async with asyncio.TaskGroup() as both:
        both.create_task(theirs())
        carrying = both.create_task(carry(alice, bob, "ours"))
    assert carrying.result() == DATA
    assert received.empty()
    ids = [stanza["id"] for stanza in answers]
    assert len(ids) == len(set(ids))
    assert bob.xmpp.plugin["xep_0065"].get_socket("ours") is None


# Who may


@pytest.mark.parametrize("wrong", ["sid", "peer", "nothing expected"])
async def test_open_what_is_not_expected_is_refused_and_takes_nothing(loopback: Loopback, wrong: str) -> None:
    alice, bob = await pair(loopback)
    mallory = loopback.client("carol/m")
    await loopback.connect(mallory)
    opener = side(mallory) if wrong == "peer" else alice
    if wrong == "nothing expected":
        with pytest.raises(StreamBroken) as refused:
            await opener.opening(bob)
        assert refused.value.final
        return
    async with bob.expecting(alice) as expected:
        with pytest.raises(StreamBroken, match="does not know"):
            await opener.opening(bob, "s2" if wrong == "sid" else "s1")
        # And the one that is expected still comes.
        opening = alice.opening(bob)
        sending = asyncio.create_task(_send(opening, b"x"))
        assert await _read(await expected.opened()) == b"x"
        await sending


async def test_open_component_other_ifrom_is_not_taken_for_it(loopback: Loopback) -> None:
    a, bot = loopback.client("alice/a"), loopback.component("bot")
    await loopback.connect(a, bot)
    alice, one, other = side(a), side(bot, JID("one@bot.localhost/x")), JID("other@bot.localhost/x")
    async with one.expecting(alice):
        with pytest.raises(StreamBroken, match="does not know"):
            await alice.streams.open("s1", other, sender=alice.jid)


async def test_open_a_second_time_is_refused(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    async with bob.expecting(alice) as expected:
        first = await alice.opening(bob)
        await first.send(b"one")
        stream = await expected.opened()
        with pytest.raises(StreamBroken, match="not acceptable"):
            await alice.opening(bob)
        await first.send(b"two")
        await first.aclose()
        assert await _read(stream) == b"onetwo"


async def test_expect_twice_is_refused(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    async with bob.expecting(alice):
        with pytest.raises(StreamBroken, match="already"):
            async with bob.expecting(alice):
                pass
    async with bob.expecting(alice):
        pass


async def test_expect_left_before_the_first_byte_answers_and_closes(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    before = bob.leftovers()
    async with bob.expecting(alice) as expected:
        stream = await alice.opening(bob)
        waiting = asyncio.create_task(expected.opened())
        await asyncio.sleep(0)
    with pytest.raises(StreamBroken, match="not expected any more"):
        await waiting
    assert await stream.receive() == b""
    await stream.aclose()
    assert bob.leftovers() == before


async def test_expect_left_while_connecting_refuses(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    before = bob.leftovers()
    held = loopback.server.faults.hold(lambda stanza: stanza.get("from") == bob.jid.full and ITEMS(stanza))
    async with bob.expecting(alice):
        opening = alice.opening(bob)
        while not held.hits:  # bob looks for the proxies of his own server first
            await asyncio.sleep(0)
    with pytest.raises(StreamBroken, match="not acceptable"):
        await opening
    assert bob.leftovers() == before


async def test_opened_cancelled_loses_nothing(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    async with bob.expecting(alice) as expected:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(expected.opened(), 0.05)
        sending = asyncio.create_task(_send(alice.opening(bob), DATA))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(expected.opened(), 0)
        assert await _read(await expected.opened()) == DATA
        assert await expected.opened() is await expected.opened()
        await sending


# Proxies that fail


@asynccontextmanager
async def socks(*, accepts: bool) -> AsyncIterator[int]:
    """A port that shakes hands as a proxy does and joins nobody, or that never says anything."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if accepts:
            await reader.readexactly(3)
            writer.write(b"\x05\x00")
            writer.write(b"\x05\x00" + (await reader.readexactly(47))[2:])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            await writer.wait_closed()


async def second_proxy(server: Server, port: int) -> None:
    """A service of the server, found before its real proxy, that says it is one at `port`; it activates nothing."""
    bot = server.component("bot")

    def answer(iq: Any) -> None:
        name, _, kind = str(iq.get_payload()[0].tag).rpartition("}")
        if iq["type"] not in ("get", "set"):
            return
        if name.endswith("disco#info"):
            payload = f"<query xmlns='{name[1:]}'><identity category='proxy' type='bytestreams'/></query>"
        else:
            assert kind == "query"
            host = f"<streamhost jid='{bot.boundjid}' host='127.0.0.1' port='{port}'/>"
            payload = f"<query xmlns='{NS}'>{host}</query>"
        outcome = "result" if iq["type"] == "get" else "error"
        if outcome == "error":
            payload = "<error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        bot.send_raw(f"<iq type='{outcome}' id='{iq['id']}' from='{iq['to']}' to='{iq['from']}'>{payload}</iq>")

    bot.register_handler(Callback("proxy", StanzaPath("iq"), answer))
    await server.connect(bot)


@pytest.mark.parametrize("fault", ["nobody listens", "says nothing", "does not activate"])
async def test_stream_first_proxy_fails_takes_the_next(loopback: Loopback, fault: str) -> None:
    alice, bob = await pair(loopback, QUICK)
    async with socks(accepts=fault == "does not activate") as port:
        await second_proxy(loopback, 1 if fault == "nobody listens" else port)
        first, _ = await alice.streams.relays(sender=alice.jid)
        assert first.jid == "bot.localhost"
        assert await carry(alice, bob) == DATA


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nobody listens", "reach none of the relays"),
        ("says nothing", "reach none of the relays"),
        ("does not activate", "bot.localhost refused: forbidden"),
    ],
)
async def test_stream_no_proxy_works_is_broken_on_both_sides(fault: str, words: str) -> None:
    async with LoopbackServer(
        users={"alice": "x", "bob": "x"}, components={"bot.localhost": "component-secret"}
    ) as one:
        a, b = one.client("alice/a"), one.client("bob/b")
        for xmpp in (a, b):
            await one.connect(xmpp)
        alice, bob = side(a, times=QUICK), side(b, times=QUICK)
        before = alice.leftovers(), bob.leftovers()
        async with socks(accepts=fault == "does not activate") as port:
            await second_proxy(_view(one), 1 if fault == "nobody listens" else port)
            async with bob.expecting(alice) as expected:
                with pytest.raises(StreamBroken, match=words) as broken:
                    await alice.opening(bob)
                assert not broken.value.final
                with pytest.raises(StreamBroken, match=r"cannot be reached|nothing answers|nothing came"):
                    await expected.opened()
        assert (alice.leftovers(), bob.leftovers()) == before


def _view(server: LoopbackServer) -> Any:
    """As much of a :class:`~tests.servers.Server` as :func:`second_proxy` needs."""

    class View:
        @staticmethod
        def component(_: str) -> Any:
            return server.component("bot.localhost")

        connect = staticmethod(server.connect)

    return View()


async def test_open_no_proxy_anywhere_is_final() -> None:
    async with LoopbackServer(users={"alice": "x"}) as one:
        a = one.client("alice/a")
        await one.connect(a)
        alice = side(a)
        assert await alice.streams.relays(sender=alice.jid) == ()
        with pytest.raises(StreamBroken, match="neither side's server") as broken:
            await alice.opening(alice)
        assert broken.value.final


async def test_open_nobody_answers_is_broken_in_time(loopback: Loopback) -> None:
    alice, bob = await pair(loopback, replace(QUICK, answer=0.3))
    loopback.server.faults.lose(lambda stanza: stanza.get("to") == bob.jid.full, count=None)
    before = alice.leftovers()
    with pytest.raises(StreamBroken, match=r"did not answer within 0\.3 s"):
        await alice.opening(bob)
    assert alice.leftovers() == before


@pytest.mark.parametrize(
    "query",
    [
        "<query xmlns='{ns}' sid='s1'/>",
        "<query xmlns='{ns}' sid='s1' mode='udp'><streamhost jid='{proxy}' host='127.0.0.1' port='{port}'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='{proxy}' host='127.0.0.1' port='1'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='a@b@c' host='127.0.0.1' port='{port}'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='{proxy}' host='127.0.0.1' port='many'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='{proxy}' host='' port='{port}'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='evil.localhost' host='127.0.0.1' port='{port}'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='alice@localhost/a' host='127.0.0.1' port='{port}'/></query>",
        "<query xmlns='{ns}' sid='s1'><streamhost jid='{proxy}' host='localhost' port='{port}'/></query>",
    ],
)
async def test_expect_request_without_a_usable_proxy_connects_nowhere(loopback: Loopback, query: str) -> None:
    alice, bob = await pair(loopback, QUICK)
    (host,) = await alice.streams.relays(sender=alice.jid)
    connected: list[object] = []
    async with await asyncio.start_server(lambda *_: connected.append(_), "127.0.0.1", 0) as trap:
        port = host.port if "udp" in query else trap.sockets[0].getsockname()[1]
        async with bob.expecting(alice) as expected:
            with pytest.raises(IqError, match="item-not-found"):
                await _ask(alice, bob, query.format(ns=NS, proxy=host.jid, port=port))
            with pytest.raises(StreamBroken):
                await expected.opened()
    assert connected == []


async def test_expect_many_hosts_looks_at_three(loopback: Loopback) -> None:
    alice, bob = await pair(loopback, QUICK)
    (host,) = await alice.streams.relays(sender=alice.jid)
    bad = "".join(f"<streamhost jid='evil{n}.localhost' host='127.0.0.1' port='1'/>" for n in range(3))
    good = f"<streamhost jid='{host.jid}' host='{host.host}' port='{host.port}'/>"
    async with bob.expecting(alice):
        with pytest.raises(IqError, match="item-not-found"):
            await _ask(alice, bob, f"<query xmlns='{NS}' sid='s1'>{bad}{good}</query>")


async def test_expect_requests_without_end_are_refused(loopback: Loopback) -> None:
    alice, bob = await pair(loopback, replace(QUICK, idle=10))
    (host,) = await alice.streams.relays(sender=alice.jid)
    good = f"<streamhost jid='{host.jid}' host='{host.host}' port='{host.port}'/>"
    # Each with a name of its own, as if by another proxy.
    queries = [f"<query xmlns='{NS}' sid='s1' dstaddr='{n:040x}'>{good}</query>" for n in range(4)]
    async with bob.expecting(alice):
        for query in queries[:3]:
            answer = await _ask(alice, bob, query)
            assert answer.xml.find(f"{{{NS}}}query/{{{NS}}}streamhost-used").get("jid") == host.jid
        with pytest.raises(IqError, match="not-acceptable"):
            await _ask(alice, bob, queries[3])


async def _ask(alice: Side, bob: Side, query: str) -> Any:
    iq = alice.xmpp.make_iq_set(ito=bob.jid)
    iq.append(slixmpp.xmlstream.ET.fromstring(query))
    return await iq.send(timeout=10)


async def test_open_other_side_chooses_what_was_not_offered_is_broken(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)

    def answer(iq: Any) -> None:
        used = f"<query xmlns='{NS}'><streamhost-used jid='{bob.jid}'/></query>"
        bob.xmpp.send_raw(f"<iq type='result' id='{iq['id']}' to='{iq['from']}'>{used}</iq>")

    bob.xmpp.register_handler(Callback("liar", StanzaPath("iq@type=set"), answer))
    with pytest.raises(StreamBroken, match="not offered"):
        await alice.opening(bob)


async def test_open_hosts_that_may_not_be_used_are_not_offered(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    seen: list[bytes] = []
    loopback.server.tap(lambda _from, _to, xml: seen.append(xml))
    bad = StreamHost(JID("evil.example"), "10.1.2.3", 5000), StreamHost(JID("proxy.localhost"), "127.0.0.1", 1)
    assert await carry(alice, bob, hosts=bad) == DATA
    assert not any(b"10.1.2.3" in xml or b'port="1"' in xml for xml in seen)


# The end of things


async def test_session_ended_breaks_what_is_open_and_what_is_waited_for(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    before = alice.leftovers(), bob.leftovers()
    async with bob.expecting(alice) as expected, bob.expecting(alice, "s2") as waiting:
        sender = await alice.opening(bob)
        await sender.send(b"x")
        receiver = await expected.opened()
        assert await receiver.receive() == b"x"
        receiving, opened = asyncio.create_task(receiver.receive()), asyncio.create_task(waiting.opened())
        loopback.server.faults.lose(lambda stanza: stanza.get("to") == bob.jid.full, count=None)
        opening = alice.opening(bob, "s3")
        while len(alice.leftovers()) == len(before[0]):
            await asyncio.sleep(0)
        alice.streams.session_ended()
        bob.streams.session_ended()
        for task in (receiving, opened, opening):
            with pytest.raises(StreamBroken, match="session has ended"):
                await task
        with pytest.raises(StreamBroken, match="session has ended"):
            await sender.send(b"y")
        assert not sender.is_open
        assert not receiver.is_open
        for stream in (sender, receiver):
            await stream.aclose()
    assert (alice.leftovers(), bob.leftovers()) == before
    loopback.server.faults.clear()
    assert await carry(alice, bob) == DATA


async def test_close_is_the_end(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    before = alice.leftovers()
    sending = asyncio.create_task(carry(alice, bob, data=bytes(100_000_000)))
    while not alice.streams._open:
        await asyncio.sleep(0)
    alice.streams.close()
    alice.streams.close()
    with pytest.raises(StreamBroken, match="this side has been closed"):
        await _outcome(sending)
    with pytest.raises(StreamBroken) as closed:
        await alice.opening(bob)
    assert closed.value.final
    assert await alice.streams.relays(sender=alice.jid) == ()
    async with alice.expecting(bob) as expected:
        with pytest.raises(StreamBroken, match="closed"):
            await expected.opened()
    assert alice.leftovers() == before


async def _outcome(carrying: asyncio.Task[bytes]) -> None:
    """A stream that the other side closes may have ended in good order for the receiver; its sender was told."""
    await carrying


async def test_open_cancelled_at_any_step_leaves_nothing(loopback: Loopback) -> None:
    alice, bob = await pair(loopback)
    before = alice.leftovers()
    steps = 0
    while True:
        async with bob.expecting(alice, f"s{steps}"):
            opening = alice.opening(bob, f"s{steps}")
            for _ in range(steps):
                await asyncio.sleep(0)
            if opening.done():
                await (await opening).aclose()
                break
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert not any(stream.is_open for stream in alice.streams._open)
        assert alice.leftovers() == before
        alice.streams.session_ended()
        steps += 1
    assert steps > 10
