"""Wires that are tapped: what passes between two ports is written down."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.constants import Mode
from slixmpp_bt.messages import Candidate
from slixmpp_bt.testing import LoopbackServer

from ..world import until

KIB = 1024


class Tap:
    """Listens at a port of its own, and joins whoever comes to another port of this machine.

    :ivar heard: what passed, a list entry for each direction of each connection.
    """

    def __init__(self, behind: int = 0) -> None:
        self.heard: list[bytearray] = []
        self.port = 0
        self.behind = behind
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut what passes, and listen no more."""
        if self._server is not None:
            self._server.close()
        for writer in self._passing:
            writer.transport.abort()
        await until(lambda: not self._passing)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passing.add(writer)
        try:
            # From elsewhere, or an engine behind would learn where the other one really listens (BEP 10, "p").
            far, inner = await asyncio.open_connection("127.0.0.1", self.behind, local_addr=("127.0.0.2", 0))
        except OSError:
            writer.transport.abort()
            self._passing.discard(writer)
            return
        self._passing.add(inner)
        await asyncio.gather(self._carry(reader, inner), self._carry(far, writer))
        for each in (writer, inner):
            each.transport.abort()
            self._passing.discard(each)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.heard.append(heard)
        with suppress(OSError):
            while data := await reader.read(64 * KIB):
                heard += data
                writer.write(data)
                await writer.drain()
            writer.write_eof()


class Taps:
    """All the wires of one scenario: the streams to the server, its proxy, and the engines that it makes."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []

    async def before(self, server: LoopbackServer) -> int:
        """Tap the server, which has started, and its proxy. Returns the port for clients."""
        proxy: Any = server._proxy
        clients, relay = Tap(server.port), Tap(proxy.port)
        for tap in (clients, relay):
            self._taps.append(tap)
            await tap.open()
        proxy.port = relay.port
        return clients.port

    async def close(self) -> None:
        for tap in self._taps:
            await tap.close()

    def engine(self, *args: Any, **kwargs: Any) -> LibtorrentBackend:
        """A backend that names a tapped port as the one where it can be reached."""
        return _Tapped(self._taps, *args, **kwargs)

    @property
    def heard(self) -> list[bytes]:
        """All that passed."""
        return [bytes(heard) for tap in self._taps for heard in tap.heard]


class _Tapped(LibtorrentBackend):
    def __init__(self, taps: list[Tap], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taps = taps
        self._before: dict[int, Tap] = {}

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        found = []
        for candidate in await super().candidates(mode):
            if candidate.address == IPv4Address("127.0.0.1"):
                if candidate.port not in self._before:
                    tap = self._before[candidate.port] = Tap(candidate.port)
                    self._taps.append(tap)
                    await tap.open()
                found.append(Candidate(candidate.address, self._before[candidate.port].port))
        return tuple(found)


def traces(content: bytes, heard: list[bytes], length: int = 24, step: int = 509) -> int:
    """In how many places of `content` some bytes of it were heard, as they are or in base64, however that is aligned.

    A place is `length` bytes: nobody hears those by chance.
    """
    return sum(
        any(mark in stream for stream in heard for mark in _marks(place)) for place in _places(content, length, step)
    )


def _places(content: bytes, length: int, step: int) -> Iterator[bytes]:
    for start in range(0, len(content) - length + 1, step):
        yield content[start : start + length]


def _marks(place: bytes) -> Iterator[bytes]:
    yield place
    for alignment in range(3):
        whole = (len(place) - alignment) // 3 * 3
        yield b64encode(place[alignment : alignment + whole])
