"""Nobody is made to connect to a third party, or to what only its own machine and network should reach: by addresses
of peers (candidates), or of proxies (streamhosts)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pytest
from slixmpp import JID
from slixmpp.stanza import Iq

from slixmpp_bt.backends import Admission, Download, Seed
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.messages import Accept, Accepted, Candidate, Done, Fetch, Fetching, StreamHost
from slixmpp_bt.stanza import AnyMessage
from slixmpp_bt.streams.proxies import BYTESTREAMS, QUERY

from ..servers import Loopback
from ..test_security import set_up
from ..world import Member, member, until
from .offers import of_file, offer
from .raw import Raw, condition

SIZE = 10_000


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


class Bystander:
    """Somebody who listens, on this machine, and wants nothing to do with it.

    :ivar called: how often somebody has connected.
    """

    def __init__(self) -> None:
        self.called = 0
        self.port = 0
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Bystander:
        while len(self._servers) < 2:
            [server] = self._servers = [await asyncio.start_server(self._call, "127.0.0.1", 0)]
            self.port = server.sockets[0].getsockname()[1]
            try:
                self._servers.append(await asyncio.start_server(self._call, "::1", self.port))
            except OSError:  # somebody has that port there
                server.close()
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in self._servers:
            server.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called += 1
        writer.transport.abort()

    def at(self, *hosts: str) -> tuple[Candidate, ...]:
        return tuple(Candidate(ip_address(host), self.port) for host in hosts)


class Elsewhere(LibtorrentBackend):
    """Says that it listens at a public address, as most do.

    :ivar dialled: what it was given to dial.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dialled: list[Candidate] = []

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        return tuple(replace(c, address=ip_address("192.0.2.7")) for c in await super().candidates(mode))

    async def open_seed(self, manifest: Any, files: Mapping[int, Path], admission: Admission) -> Seed:
        seed: Seed = self._watched(await super().open_seed(manifest, files, admission))
        return seed

    async def open_download(self, manifest: Any, files: Any, admission: Any, **how: Any) -> Download:
        download: Download = self._watched(await super().open_download(manifest, files, admission, **how))
        return download

    def _watched(self, handle: Any) -> Any:
        dial = handle.add_candidates

        def add(candidates: Iterable[Candidate]) -> None:
            given = list(candidates)
            self.dialled += given
            dial(given)

        handle.add_candidates = add
        return handle


# Candidates

#: What names this machine, or nobody, or everybody, without being a loopback address.
DISGUISED = ("0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "2002:7f00:1::", "::ffff:0.0.0.0")


async def test_sender_dials_no_address_that_stands_for_something_else(loopback: Loopback, tmp_path: Path) -> None:
    async with Bystander() as bystander, Bystander() as bob:
        named = (*bystander.at(*DISGUISED), *bob.at("127.0.0.1"))
        scene = await set_up(loopback, tmp_path, named=named)
        await until(lambda: bob.called)  # the last of them is dialled
        await scene.own.withdraw()
        await scene.alice.bt.aclose()
        assert bystander.called == 0


OWN = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "fe80::1", "169.254.169.254")


async def test_sender_that_listens_elsewhere_dials_nobody_on_its_own_machine(
    loopback: Loopback, tmp_path: Path
) -> None:
    async with Bystander() as bystander:
        scene = await set_up(loopback, tmp_path, named=bystander.at(*OWN), backend=Elsewhere)
        backend: Any = scene.alice.bt._backend
        await scene.own.withdraw()
        await scene.alice.bt.aclose()
        assert backend.dialled == []
        assert bystander.called == 0


class Hostile:
    """A sender that speaks by hand, and offers a file too large for an answer."""

    def __init__(self, loopback: Loopback, candidates: tuple[Candidate, ...] = ()) -> None:
        self.raw = Raw(loopback.component("gateway"), self._answer)
        self.jid = JID(f"eve@{self.raw.jid.domain}/x")
        self.proxy_is_at: int | None = None
        self._candidates = candidates

    async def enter(self, loopback: Loopback, bob: Member) -> None:
        await loopback.connect(self.raw.xmpp)
        # As a proxy would: it is one, if it says so.
        self.raw.xmpp.add_filter("in", self._confirm)
        content = bytes(SIZE)
        self.raw.tell(bob.jid, offer(of_file("file.bin", content), SIZE), ifrom=self.jid)

    def _answer(self, request: AnyMessage, iq: Iq) -> AnyMessage:
        if isinstance(request, Accept):
            return Accepted(request.id, request.transfer, self._candidates, self._candidates)
        if isinstance(request, Fetch):
            return Fetching(request.id, request.transfer, SIZE)
        return Done()

    def _confirm(self, stanza: Any) -> Any:
        asks = isinstance(stanza, Iq) and stanza["type"] == "get" and stanza.xml.find(QUERY) is not None
        if asks and self.proxy_is_at:
            reply = stanza.reply()
            query = Element(QUERY)
            where = {"jid": self.raw.jid.domain, "host": "127.0.0.1", "port": str(self.proxy_is_at)}
            SubElement(query, f"{BYTESTREAMS}streamhost", where)
            reply.append(query)
            reply.send()
            return None
        return stanza

    async def invite(self, bob: Member, hosts: Iterable[tuple[str, str, int]]) -> Element:
        """Name proxies for the stream that Bob has asked for; his answer."""
        fetch = await self.raw.expect_asked(Fetch)
        query = Element(QUERY, {"sid": fetch.sid, "mode": "tcp"})
        for jid, host, port in hosts:
            SubElement(query, f"{BYTESTREAMS}streamhost", {"jid": jid, "host": host, "port": str(port)})
        return await self.raw.ask(bob.jid, query, ifrom=self.jid)


async def receiver(loopback: Loopback, tmp_path: Path, **config: Any) -> Member:
    bob = await loopback.add_user("bob")
    return await member(loopback, f"{bob}/phone", tmp_path / "bob", auto_accept=True, **config)


async def test_receiver_that_listens_elsewhere_dials_nobody_on_its_own_machine(
    loopback: Loopback, tmp_path: Path
) -> None:
    async with Bystander() as bystander:
        bob = await receiver(loopback, tmp_path, backend=Elsewhere, routes=["swarm"])
        eve = Hostile(loopback, bystander.at(*OWN))
        await eve.enter(loopback, bob)
        transfer = await bob.expect("bt_transfer_start")
        await until(lambda: transfer.ended)  # there is no way to such a sender
        backend: Any = bob.bt._backend
        await bob.bt.aclose()
        assert backend.dialled == []
        assert bystander.called == 0


# Streamhosts


LOCAL = ("127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "[::1]")


@pytest.mark.parametrize("names", [LOCAL[:3], LOCAL[3:6], LOCAL[6:]], ids=" ".join)
@pytest.mark.parametrize("reveal", ["invited", "never"])
async def test_receiver_connects_to_no_local_address_that_a_sender_calls_a_proxy(
    loopback: Loopback, tmp_path: Path, reveal: str, names: tuple[str, ...]
) -> None:
    async with Bystander() as bystander:
        bob = await receiver(loopback, tmp_path, routes=["relay"], reveal_address=reveal)
        eve = Hostile(loopback)
        await eve.enter(loopback, bob)
        answer = await eve.invite(bob, [("proxy.gateway.localhost", name, bystander.port) for name in names])
        assert condition(answer) == "item-not-found"
        await bob.bt.aclose()
        assert bystander.called == 0


async def test_hidden_receiver_connects_to_no_proxy_but_its_own_servers(loopback: Loopback, tmp_path: Path) -> None:
    """Not even to one that confirms itself, beside the own one: see the next test."""
    async with Bystander() as bystander:
        bob = await receiver(loopback, tmp_path, routes=["relay"], reveal_address="never")
        eve = Hostile(loopback)
        eve.proxy_is_at = bystander.port
        await eve.enter(loopback, bob)
        hosts = [(eve.raw.jid.domain, "127.0.0.1", bystander.port), ("proxy.example.org", "192.0.2.1", 1080)]
        assert condition(await eve.invite(bob, hosts)) == "item-not-found"
        await bob.bt.aclose()
        assert bystander.called == 0


async def test_receiver_beside_its_own_proxy_connects_to_one_that_confirms_itself(
    loopback: Loopback, tmp_path: Path
) -> None:
    """A known limit: where the own server's proxy has a private address, who offers can have a port of that network
    connected to, by a proxy that says it is there."""
    async with Bystander() as bystander:
        bob = await receiver(loopback, tmp_path, routes=["relay"])
        eve = Hostile(loopback)
        eve.proxy_is_at = bystander.port
        await eve.enter(loopback, bob)
        await eve.invite(bob, [(eve.raw.jid.domain, "127.0.0.1", bystander.port)])
        await until(lambda: bystander.called)


@pytest.mark.parametrize("reveal", ["invited", "never"])
async def test_sender_connects_to_no_local_address_that_a_receiver_calls_a_proxy(
    loopback: Loopback, tmp_path: Path, reveal: str
) -> None:
    async with Bystander() as bystander:
        scene = await set_up(loopback, tmp_path, reveal_address=reveal)
        asked: list[list[str | None]] = []

        def choose(stanza: Any) -> Any:
            """Whatever Alice offers, Bob takes the bystander."""
            query = stanza.xml.find(QUERY) if isinstance(stanza, Iq) and stanza["type"] == "set" else None
            if query is None:
                return stanza
            asked.append([host.get("port") for host in query.findall(f"{BYTESTREAMS}streamhost")])
            reply = stanza.reply()
            used = Element(QUERY, {"sid": query.get("sid", "")})
            SubElement(used, f"{BYTESTREAMS}streamhost-used", {"jid": "proxy.gateway.localhost"})
            reply.append(used)
            reply.send()
            return None

        scene.bob.xmpp.add_filter("in", choose)
        hosts = tuple(StreamHost(JID("proxy.gateway.localhost"), host, bystander.port) for host in LOCAL[:3])
        fetch = Fetch(scene.own.id, "t-1", "sid", Route.RELAY, ((0, 3),), (), hosts)
        assert condition(await scene.bob.ask(scene.alice.jid, fetch)) is None
        await until(lambda: asked)
        await scene.own.withdraw()
        await scene.alice.bt.aclose()
        assert str(bystander.port) not in asked[0]
        assert bystander.called == 0
        assert scene.nothing_was_sent()


async def test_address_for_the_roster_only_is_not_shown_to_a_strangers_proxy(
    loopback: Loopback, tmp_path: Path
) -> None:
    async with Bystander() as bystander:
        bob = await receiver(loopback, tmp_path, routes=["relay"], reveal_address="roster")
        eve = Hostile(loopback)
        eve.proxy_is_at = bystander.port
        await eve.enter(loopback, bob)
        await eve.invite(bob, [(eve.raw.jid.domain, "127.0.0.1", bystander.port)])
        await bob.bt.aclose()
        assert bystander.called == 0
