"""The routes on servers: where the swarm does not pass, everything arrives inline, by relay or in-band.

Two servers, joined: tests/servers. The networks in between: tests/networks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import slixmpp
from slixmpp.xmlstream.stanzabase import StanzaBase

from slixmpp_bt import NoRoute, Transfer, TransferError
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.constants import NS, Mode, Route
from slixmpp_bt.messages import BLOCK, Candidate, Fetch
from slixmpp_bt.stanza.fetch import read_fetch
from slixmpp_bt.testing.faults import carries

from .servers import Ejabberd, Loopback, Options, Process, Prosody, RealServer, Server, joined, started
from .servers.process import free_ports
from .world import Member, digest, done, make_file, member, until, visible

KIB, MIB = 1024, 1024**2


class Gate:
    """A port of 127.0.0.1 before another one: as long as it is open, what connects to it gets there.

    It has to be shut in the end.
    """

    def __init__(self) -> None:
        [self.port] = free_ports("127.0.0.1", 1)
        self.behind = 0
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Cut what passes, and let nothing through."""
        if self._server is not None:
            self._server.close()
        for writer in self._passing:
            writer.transport.abort()
        await until(lambda: not self._passing)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passing.add(writer)
        try:
            # From elsewhere, or the engine behind would learn where the other one really listens (BEP 10, "p").
            inner = await asyncio.open_connection("127.0.0.1", self.behind, local_addr=("127.0.0.2", 0))
        except OSError:
            writer.transport.abort()
            self._passing.discard(writer)
            return
        self._passing.add(inner[1])
        await asyncio.gather(self._carry(reader, inner[1]), self._carry(inner[0], writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(64 * KIB):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._passing.discard(writer)


class Gated(LibtorrentBackend):
    """Can be reached through its gate only, which is shut at first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate = Gate()

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        for candidate in await super().candidates(mode):
            if candidate.address == IPv4Address("127.0.0.1"):
                self.gate.behind = candidate.port
        return (Candidate(IPv4Address("127.0.0.1"), self.gate.port),)

    async def aclose(self) -> None:
        await super().aclose()
        await self.gate.shut()


class Gates(list[Gate]):
    """A backend's factory, and the gates of all it made."""

    def __call__(self, *args: Any, **kwargs: Any) -> Gated:
        backend = Gated(*args, **kwargs)
        self.append(backend.gate)
        return backend

    async def open(self) -> None:
        for gate in self:
            await gate.open()

    async def shut(self) -> None:
        for gate in self:
            await gate.shut()


async def two(server: Server, tmp_path: Path, alice: dict[str, Any], bob: dict[str, Any]) -> tuple[Member, Member]:
    """A sender and a receiver, each with a configuration of its own, who see each other; the receiver accepts all."""
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    one = await member(server, f"{a}/laptop", tmp_path / "alice", **alice)
    other = await member(server, f"{b}/phone", tmp_path / "bob", auto_accept=True, **bob)
    await visible(one, other)
    return one, other


async def plain_pair(server: Server, tmp_path: Path, **both: Any) -> tuple[Member, Member]:
    """A sender and a receiver without an engine."""
    return await two(server, tmp_path, {"backend": "plain", **both}, {"backend": "plain", **both})


async def arrives(alice: Member, bob: Member, source: Path, **how: Any) -> tuple[Transfer, Transfer]:
    """Send `source`, see it arrive as it is; the transfer on both sides."""
    before = len(bob.told("bt_transfer_start"))
    sending = await alice.bt.send_file(bob.jid, source, **how)
    receiving = await bob.expect("bt_transfer_start", before + 1)
    await done(sending, receiving)
    assert digest(bob.inbox / source.name) == digest(source)
    return sending, receiving


# Each route


@pytest.mark.parametrize(
    ("routes", "size"),
    [
        pytest.param(["inline"], 4_000, id="inline"),
        pytest.param(["relay"], 8 * MIB, id="relay"),
        pytest.param(["in-band"], 1 * MIB, id="in-band"),
    ],
)
async def test_file_arrives_by_each_route_alone(server: Server, tmp_path: Path, routes: list[str], size: int) -> None:
    alice, bob = await plain_pair(server, tmp_path, routes=routes)
    sending, receiving = await arrives(alice, bob, make_file(tmp_path / "file", size))
    assert sending.routes == receiving.routes == {Route(routes[0]): size}


@pytest.mark.parametrize("engine", ["sender", "receiver"])
async def test_one_side_without_engine_file_arrives_by_relay(server: Server, tmp_path: Path, engine: str) -> None:
    plain: dict[str, Any] = {"backend": "plain"}
    alice, bob = await two(server, tmp_path, *(({}, plain) if engine == "sender" else (plain, {})))
    sending, receiving = await arrives(alice, bob, make_file(tmp_path / "file", 300 * KIB))
    assert sending.routes == receiving.routes == {Route.RELAY: 300 * KIB}
    sending, receiving = await arrives(alice, bob, make_file(tmp_path / "small", 3_000))
    assert sending.routes == receiving.routes == {Route.INLINE: 3_000}


async def test_swarm_unreachable_relay_takes_over_and_says_why(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = Gates()
    alice, bob = await two(server, tmp_path, {"backend": gates}, {"backend": gates})
    alice.bt.configure(upload_limit=2 * MIB)
    begun = time.monotonic()
    sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", 2 * MIB))
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred)
    first = time.monotonic() - begun
    assert "address does not answer" in receiving.diagnosis[Route.SWARM]
    assert Route.RELAY not in receiving.diagnosis
    await done(sending, receiving)
    assert digest(bob.inbox / "file") == digest(tmp_path / "file")
    assert sending.routes == receiving.routes == {Route.RELAY: 2 * MIB}
    with capsys.disabled():
        print(f"\n{server.name}: the first byte by relay after {first:.1f} s")


# Components


@pytest.mark.parametrize("route", [Route.RELAY, Route.IN_BAND])
async def test_component_sends_and_receives_by_stream(server: Server, tmp_path: Path, route: Route) -> None:
    b = await server.add_user("bob")
    plain: dict[str, Any] = {"backend": "plain", "routes": [route], "auto_accept": True}
    bot = Member(server.component("bot"), tmp_path / "bot")
    bot.register(**plain)
    await server.connect(bot.xmpp)
    bob = await member(server, f"{b}/phone", tmp_path / "bob", **plain)
    size = 200 * KIB
    there, back = make_file(tmp_path / "there", size, 1), make_file(tmp_path / "back", size, 2)
    speaker = slixmpp.JID(f"speaker@{bot.jid.bare}")
    sending = await bob.bt.send_file(bot.jid.bare, there)
    await done(sending, await bot.expect("bt_transfer_start"))
    assert digest(bot.inbox / "there") == digest(there)
    assert sending.routes == {route: size}
    sending, receiving = await arrives(bot, bob, back, ifrom=speaker)
    assert sending.routes == receiving.routes == {route: size}
    assert receiving.peer.bare == speaker.bare


# Several at once


async def test_several_by_relay_beside_the_applications_own_streams_do_not_mix(server: Server, tmp_path: Path) -> None:
    alice, bob = await plain_pair(server, tmp_path, routes=["relay"])
    for one in (alice, bob):
        one.xmpp.register_plugin("xep_0065", {"auto_accept": True})
        one.xmpp.plugin["xep_0047"].auto_accept = True
    alice.bt.configure(upload_limit=500 * KIB)  # so that they are still under way then
    files = [make_file(tmp_path / f"file {number}", 1 * MIB + number, number) for number in range(5)]
    sendings = [await alice.bt.send_file(bob.jid, file) for file in files]
    own = tuple(make_file(tmp_path / f"own {number}", 100 * KIB, number).read_bytes() for number in range(2))
    heard = await asyncio.gather(_by_xep_0065(alice, bob, own[0]), _by_xep_0047(alice, bob, own[1]))
    assert not any(sending.ended for sending in sendings)
    alice.bt.configure(upload_limit=None)
    await done(*sendings)
    await until(lambda: len(bob.told("bt_transfer_end")) == len(files))
    assert tuple(heard) == own
    for file, sending in zip(files, sendings, strict=True):
        assert digest(bob.inbox / file.name) == digest(file)
        assert sending.routes == {Route.RELAY: file.stat().st_size}


async def _by_xep_0047(alice: Member, bob: Member, data: bytes) -> bytes:
    """What arrives of `data` over an in-band stream of the application's own."""
    opened: asyncio.Queue[Any] = asyncio.Queue()
    bob.xmpp.add_event_handler("ibb_stream_start", opened.put_nowait)
    out = await alice.xmpp.plugin["xep_0047"].open_stream(bob.jid, sid="application", timeout=10)
    stream = await asyncio.wait_for(opened.get(), 10)
    reading = asyncio.ensure_future(stream.gather(max_data=len(data), timeout=20))
    await out.sendall(data, timeout=20)
    await out.close()
    return bytes(await reading)


async def _by_xep_0065(alice: Member, bob: Member, data: bytes) -> bytes:
    """What arrives of `data` over a relayed stream of the application's own."""
    received = bytearray()
    bob.xmpp.add_event_handler("socks5_data", received.extend)
    out = await alice.xmpp.plugin["xep_0065"].handshake(bob.jid, sid="application", timeout=10)
    await out.write(data)
    await until(lambda: len(received) >= len(data))
    for one in (out, bob.xmpp.plugin["xep_0065"].get_socket("application")):
        one.transport.close()
    return bytes(received)


# Changes of route in mid-file


class Asked:
    """What a receiver asks for over streams, seen on the wire, and what it has of it each time."""

    def __init__(self, receiver: Member) -> None:
        self._receiver = receiver
        self._asked: list[tuple[Fetch, int]] = []
        receiver.xmpp.add_filter("out", self._look)

    def again(self) -> list[Fetch]:
        """The requests that ask for more than was missing."""
        return [
            fetch
            for fetch, missing in self._asked
            if sum(high - low + 1 for low, high in fetch.blocks) > -(-missing // BLOCK)
        ]

    def _look(self, stanza: StanzaBase) -> StanzaBase:
        fetch = stanza.xml.find(f"{{{NS}}}fetch")
        if fetch is not None and stanza["type"] == "set":
            [transfer] = self._receiver.bt.transfers
            progress = transfer.progress
            self._asked.append((read_fetch(fetch), progress.total - progress.transferred))
        return stanza


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


async def test_routes_change_in_mid_file_nothing_verified_is_fetched_again(loopback: Loopback, tmp_path: Path) -> None:
    """By relay until the proxy vanishes, in-band until the swarm is there, the rest by the swarm."""
    gates, size = Gates(), 3 * MIB
    alice, bob = await two(loopback, tmp_path, {"backend": gates}, {"backend": gates})
    asked = Asked(bob)
    alice.bt.configure(upload_limit=500 * KIB)
    sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", size))
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.routes.get(Route.RELAY, 0) > 1.2 * MIB)
    await loopback.stop_proxy()
    await until(lambda: receiving.routes.get(Route.IN_BAND, 0) > 0.2 * MIB)
    await gates.open()
    await until(lambda: receiving.routes.get(Route.SWARM, 0) > 0)
    await done(sending, receiving)
    assert digest(bob.inbox / "file") == digest(tmp_path / "file")
    assert set(receiving.routes) == {Route.RELAY, Route.IN_BAND, Route.SWARM}
    assert sum(receiving.routes.values()) == size
    assert asked.again() == []


async def test_swarm_that_dies_in_mid_file_goes_on_by_relay_and_back(loopback: Loopback, tmp_path: Path) -> None:
    gates, size = Gates(), 24 * MIB
    alice, bob = await two(loopback, tmp_path, {"backend": gates}, {"backend": gates})
    await gates.open()
    asked = Asked(bob)
    alice.bt.configure(upload_limit=1 * MIB)
    sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", size))
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.routes.get(Route.SWARM, 0) > 1 * MIB)
    await gates.shut()
    await until(lambda: receiving.routes.get(Route.RELAY, 0) > 1 * MIB)
    await until(lambda: "address does not answer" in receiving.diagnosis.get(Route.SWARM, ""))
    died = receiving.routes[Route.SWARM]
    await gates.open()
    await until(lambda: receiving.routes[Route.SWARM] > died + 1 * MIB)
    alice.bt.configure(upload_limit=None)
    await done(sending, receiving)
    assert digest(bob.inbox / "file") == digest(tmp_path / "file")
    assert set(receiving.routes) == {Route.RELAY, Route.SWARM}
    assert sum(receiving.routes.values()) == size
    assert asked.again() == []


@pytest.mark.acceptance
async def test_in_band_that_rests_for_half_a_minute_goes_on(loopback: Loopback, tmp_path: Path) -> None:
    """A rate is judged by the whole of a stream, not by a moment."""
    alice, bob = await plain_pair(loopback, tmp_path, routes=["in-band"])
    alice.bt.configure(upload_limit=20_000)
    sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", 1 * MIB))
    receiving = await bob.expect("bt_transfer_start")
    await asyncio.sleep(22)
    held = loopback.server.faults.hold(carries("{http://jabber.org/protocol/ibb}data"))
    await asyncio.sleep(40)
    held.release()
    alice.bt.configure(upload_limit=None)
    await done(sending, receiving)
    assert digest(bob.inbox / "file") == digest(tmp_path / "file")


# Two servers


@pytest.fixture(scope="module")
def federation() -> Iterator[tuple[RealServer, RealServer]]:
    """Prosody and ejabberd, which find each other; in this order."""
    prosody, ejabberd = Prosody(Options(domain="prosody.test")), Ejabberd(Options(domain="ejabberd.test"))
    with joined(prosody, ejabberd):
        yield prosody, ejabberd


@pytest.mark.server
@pytest.mark.parametrize("sender", ["prosody", "ejabberd"])
@pytest.mark.parametrize(
    ("route", "size"),
    [
        (Route.INLINE, 4_000),
        (Route.SWARM, 64 * KIB),
        (Route.SWARM, 3 * MIB),
        (Route.RELAY, 64 * KIB),
        (Route.RELAY, 3 * MIB),
        (Route.IN_BAND, 64 * KIB),
        (Route.IN_BAND, 1 * MIB),
    ],
)
async def test_file_between_two_servers_arrives(
    federation: tuple[RealServer, RealServer], tmp_path: Path, sender: str, route: Route, size: int
) -> None:
    here, there = federation if sender == "prosody" else reversed(federation)
    async with Process(here) as ours, Process(there) as theirs:
        a, b = await ours.add_user("alice"), await theirs.add_user("bob")
        await ours.befriend(a, theirs, b)
        alice = await member(ours, f"{a}/laptop", tmp_path / "alice", routes=[route])
        bob = await member(theirs, f"{b}/phone", tmp_path / "bob", routes=[route], auto_accept=True)
        await visible(alice, bob)
        sending, receiving = await arrives(alice, bob, make_file(tmp_path / "file", size))
        assert sending.routes == receiving.routes == {route: size}


# The limits that Debian ships


class Chat:
    """A message from one to another each second, which is answered at once, and how long each answer took."""

    def __init__(self, one: Member, other: Member) -> None:
        self.sent = 0
        self.answers: list[float] = []
        self._one, self._other = one, other
        self._waiting: dict[str, float] = {}
        other.xmpp.add_event_handler("message", self._answer)
        one.xmpp.add_event_handler("message", self._hear)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send no more, and wait for what has not been answered."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await until(lambda: not self._waiting)

    async def _run(self) -> None:
        while True:
            self.sent += 1
            word = f"{self._one.jid.user} {self.sent}"
            self._waiting[f"yes, {word}"] = time.monotonic()
            self._one.xmpp.send_message(self._other.jid, word)
            await asyncio.sleep(1)

    def _answer(self, message: slixmpp.Message) -> None:
        if message["body"].startswith(self._one.jid.user):
            self._other.xmpp.send_message(self._one.jid, f"yes, {message['body']}")

    def _hear(self, message: slixmpp.Message) -> None:
        asked = self._waiting.pop(message["body"], None)
        if asked is not None:
            self.answers.append(time.monotonic() - asked)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param(Prosody, 64 * KIB, marks=pytest.mark.server),
        pytest.param(Ejabberd, 24 * KIB, marks=pytest.mark.server),
        pytest.param(Ejabberd, 64 * KIB, marks=[pytest.mark.server, pytest.mark.acceptance]),
    ],
)
async def test_shipped_limits_in_band_file_arrives_and_chat_goes_on(
    kind: type[RealServer], size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(kind(Options(rate_limits=True))) as process:
        async with Process(process) as server:
            alice, bob = await plain_pair(server, tmp_path, routes=["in-band"])
            begun = time.monotonic()
            sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", size))
            chats = [Chat(alice, bob), Chat(bob, alice)]
            async with asyncio.timeout(100):
                await sending.wait()
            took = time.monotonic() - begun
            for chat in chats:
                await chat.stop()
    assert digest(bob.inbox / "file") == digest(tmp_path / "file")
    with capsys.disabled():
        print(f"\n{kind.name}: {size} bytes in {took:.1f} s; the longest waits in the chat:", end="")
        print(*(f" {max(chat.answers):.1f} s of {chat.sent}" for chat in chats), sep=",")
    for chat in chats:
        assert len(chat.answers) == chat.sent
        assert max(chat.answers) < 10


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Prosody, marks=pytest.mark.server),
        pytest.param(Ejabberd, marks=[pytest.mark.server, pytest.mark.acceptance]),
    ],
)
async def test_shipped_limits_what_cannot_arrive_in_time_is_refused(kind: type[RealServer], tmp_path: Path) -> None:
    with started(kind(Options(rate_limits=True))) as process:
        async with Process(process) as server:
            alice, bob = await plain_pair(server, tmp_path, routes=["in-band"], limits={"transfer_ttl": 60})
            sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", 1 * MIB))
            receiving = await bob.expect("bt_transfer_start")
            async with asyncio.timeout(45):
                with pytest.raises(NoRoute, match="longer than the transfer may live") as caught:
                    await receiving.wait()
            assert "kB/s" in caught.value.reasons[Route.IN_BAND]
            with pytest.raises(TransferError):
                await done(sending)
