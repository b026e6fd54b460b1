"""Hostile members of a swarm, and crowds at its door: what holds, and what does not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from slixmpp_bt.backends import PeerConnected, PieceStored
from slixmpp_bt.backends._libtorrent import settings
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.constants import Mode
from slixmpp_bt.messages import BLOCK, Candidate, Share
from slixmpp_bt.testing._material import LOOPBACK, Material, event, material, running, until
from slixmpp_bt.testing._swarming import fetched

from ..servers import Loopback
from ..test_security import set_up
from .leech import PIECE, REQUEST, UNCHOKE, connect, context, handshake, leech, message, request

KIB = 1024


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


def invited(directory: Path, given: Material) -> ssl.SSLContext:
    return context(directory, given.admission())


# Wrong pieces


class Liar:
    """A member with a good certificate, who has everything, and gives something else.

    :ivar given: blocks that it gave.
    """

    def __init__(self, directory: Path, given: Material) -> None:
        self.given = 0
        admission = given.admission()
        assert admission.certificate is not None
        assert admission.key is not None
        (directory / "liar").write_bytes(admission.certificate + admission.key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(directory / "liar")
        self._hash = given.manifest.info_hash
        self._pieces = given.manifest.piece_count

    async def __aenter__(self) -> Candidate:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()
        return Candidate(ip_address(host), port)

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            await reader.readexactly(68)
            have = (1 + -(-self._pieces // 8)).to_bytes(4, "big") + b"\5" + self._bits()
            writer.write(handshake(self._hash) + have + (1).to_bytes(4, "big") + bytes([UNCHOKE]))
            while True:
                kind, body = await message(reader)
                if kind == REQUEST:
                    length = int.from_bytes(body[8:12], "big")
                    writer.write((9 + length).to_bytes(4, "big") + bytes([PIECE]) + body[:8] + b"\xee" * length)
                    self.given += 1
        writer.transport.abort()

    def _bits(self) -> bytes:
        bits = ("1" * self._pieces).ljust(-(-self._pieces // 8) * 8, "0")
        return int(bits, 2).to_bytes(len(bits) // 8, "big")


async def test_member_that_gives_wrong_pieces_delays_and_no_more(tmp_path: Path) -> None:
    given = await material(tmp_path, 20 * BLOCK, mode=Mode.SEALED)
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(running(LibtorrentBackend))
        receiver = await stack.enter_async_context(running(LibtorrentBackend))
        liar = Liar(tmp_path, given)
        candidate = await stack.enter_async_context(liar)
        await sender.open_seed(given.manifest, given.paths, given.admission())
        download = await receiver.open_download(given.manifest, given.parts, given.admission())
        download.add_candidates([candidate])
        await until(lambda: liar.given > 0, "the liar being asked")
        assert download.have() == frozenset()
        download.add_candidates(await sender.candidates(Mode.SEALED))
        await fetched(download)
    assert given.arrived()


# Receivers with shares (slixmpp_bt.shares), one of whom is not what it should be


async def test_share_of_a_member_that_lies_about_it_is_fetched_from_others(tmp_path: Path) -> None:
    """It claims everything, and gives something else."""
    given = await material(tmp_path, 40 * BLOCK, mode=Mode.SEALED)
    async with AsyncExitStack() as stack:
        sender, receiver = [await stack.enter_async_context(running(LibtorrentBackend)) for _ in range(2)]
        liar = Liar(tmp_path, given)
        there = await stack.enter_async_context(liar)
        await sender.open_seed(given.manifest, given.paths, given.admission())
        download = await receiver.open_download(given.manifest, given.parts, given.admission())
        download.prefer(Share(0, 2))
        download.add_candidates([there])
        await until(lambda: liar.given > 0, "the liar being asked")
        download.add_candidates(await sender.candidates(Mode.SEALED))
        await fetched(download)
    assert given.arrived()


async def test_share_of_a_member_that_vanishes_or_is_slow_is_fetched_by_others(tmp_path: Path) -> None:
    given = await material(tmp_path, 60 * BLOCK, mode=Mode.SEALED)
    others = [given.at(tmp_path / str(number)) for number in range(4)]
    async with AsyncExitStack() as stack:
        sender, *members = [await stack.enter_async_context(running(LibtorrentBackend)) for _ in range(5)]
        await sender.open_seed(given.manifest, given.paths, given.admission())
        everybody = [(await backend.candidates(Mode.SEALED))[0] for backend in (sender, *members)]
        downloads = []
        for number, (backend, other) in enumerate(zip(members, others, strict=True)):
            downloads.append(await backend.open_download(other.bare, other.parts, other.admission()))
            downloads[-1].prefer(Share(number, 4))
        vanishing, slow, *good = downloads
        slow.claim(range(60))  # it takes nothing, and so has nothing to give
        for download in downloads:
            download.add_candidates(everybody)
        await event(vanishing, PieceStored)
        await vanishing.aclose()
        await asyncio.gather(*map(fetched, good))
    assert all(other.arrived() for other in others[2:])


# Slowness and crowds


async def test_members_that_say_nothing_and_read_nothing_hold_up_nobody(tmp_path: Path) -> None:
    """They have certificates, are let in, ask for everything, and take none of it."""
    given = await material(tmp_path, 40 * BLOCK, mode=Mode.SEALED)
    async with running(LibtorrentBackend) as sender, running(LibtorrentBackend) as receiver:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.SEALED)
        tls, slow = invited(tmp_path / "slow", given), []
        for _ in range(30):
            reader, writer = await connect(candidate, given.manifest.info_hash, tls)
            writer.write(handshake(given.manifest.info_hash) + (1).to_bytes(4, "big") + b"\2")
            await reader.readexactly(68)
            while (await message(reader))[0] != UNCHOKE:
                pass
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            for piece in range(given.manifest.piece_count):
                writer.write(request(piece, 0))
            slow.append(writer)
        await event(seed, PeerConnected)
        await until(lambda: len(seed.status().connected) >= 30, "all of them being let in")
        download = await receiver.open_download(given.manifest, given.parts, given.admission())
        download.add_candidates([candidate])
        await fetched(download)
        for writer in slow:
            writer.transport.abort()
    assert given.arrived()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_unfinished_handshakes_hold_up_no_invited_member(tmp_path: Path) -> None:
    """Each costs a descriptor until it is hung up on; who is invited is served beside them."""
    given = await material(tmp_path, 40 * BLOCK, mode=Mode.SEALED)
    count = 100
    async with running(LibtorrentBackend) as sender, running(LibtorrentBackend) as receiver:
        await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.SEALED)
        before = descriptors()
        strangers = [socket.create_connection((str(candidate.address), candidate.port)) for _ in range(count)]
        await until(lambda: descriptors() >= before + 2 * count, "both ends being open")
        download = await receiver.open_download(given.manifest, given.parts, given.admission())
        download.add_candidates([candidate])
        await fetched(download)
        print(f"{count} unfinished handshakes: {descriptors() - before - count} descriptors")
        for stranger in strangers:
            stranger.close()
        await until(lambda: descriptors() < before + 20, "the descriptors being let go of")
    assert given.arrived()


async def test_connections_to_the_plain_port_that_say_nothing_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no TLS, libtorrent hangs up after its ``handshake_timeout``, else 10 seconds."""
    monkeypatch.setitem(settings._FIXED, "handshake_timeout", 1)
    given = await material(tmp_path, 4 * BLOCK)
    async with running(LibtorrentBackend, LOOPBACK) as sender:
        await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.PRIVATE)
        reader, writer = await asyncio.open_connection(str(candidate.address), candidate.port)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


# A certificate that is given away


async def test_certificate_given_away_admits_whoever_has_it(loopback: Loopback, tmp_path: Path) -> None:
    """A known limit: it is the offer's, not a person's. It ends with the offer."""
    scene = await set_up(loopback, tmp_path)
    accomplice = context(tmp_path / "accomplice", scene.invited())
    (candidate, *_) = scene.accepted.candidates
    assert (await leech(candidate, scene.offer.info_hash, accomplice))[1]
    await scene.own.withdraw()
    await until(lambda: not scene.alice.bt.transfers, "the end of the transfers")
    assert await leech(candidate, scene.offer.info_hash, accomplice) == (b"", b"")


async def test_certificate_whose_time_is_over_cuts_no_connection_and_makes_no_new_one(tmp_path: Path) -> None:
    """A known limit: who is connected stays; the sender's closing of its seed ends that."""
    given = await material(tmp_path, 4 * BLOCK, mode=Mode.SEALED)
    assert given.authority is not None
    async with running(LibtorrentBackend) as sender:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.SEALED)
        reader, writer = await connect(candidate, given.manifest.info_hash, invited(tmp_path / "bob", given))
        writer.write(handshake(given.manifest.info_hash))
        await reader.readexactly(68)
        await event(seed, PeerConnected)
        await seed.admit(given.admission())  # as the sender does before its own ends
        assert len(seed.status().connected) == 1
        await seed.pause()  # which hangs up
        with suppress(ConnectionError, ssl.SSLError):
            async with asyncio.timeout(20):
                while await reader.read(4096):
                    pass
        writer.transport.abort()


# What a sender says of others


async def test_candidate_that_is_said_twice_to_have_left_is_forgotten_once(tmp_path: Path) -> None:
    """Found by tests/fuzz/test_stanzas.py."""
    given = await material(tmp_path, 4 * BLOCK)
    gone = Candidate(ip_address("127.0.0.1"), 9)
    async with running(LibtorrentBackend) as receiver:
        download = await receiver.open_download(given.manifest, given.parts, given.admission())
        download.add_candidates([gone])
        download.remove_candidates([gone, gone])
