"""Pieces over streams, by relay or in-band: asks for what is missing, verifies it, stores it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from slixmpp import JID

from . import blocks
from .backends import Download
from .blocks import Blocks
from .constants import Route
from .context import Context
from .errors import IntegrityError, PeerGone, ProtocolError
from .manifest import Manifest
from .messages import BLOCK, MAX_FETCH, Fetch, Fetching
from .outbox import NOT_NOW
from .sealing import Unit
from .seals import Opener
from .wire import Stream, StreamBroken

#: So many bytes are asked for at once: that is the back-pressure (protocol section 1, Fetch).
FETCH_SIZE = {Route.IN_BAND: 256 * 1024, Route.RELAY: MAX_FETCH}
#: At most so many ranges are asked for at once: they have to fit a stanza.
_MAX_RANGES = 100
#: How long the sender may take to open a stream, and to close one of which everything came, in seconds.
_OPENING, _CLOSING = 60.0, 10.0
#: A piece of so many bytes is verified at once, a longer one in a thread.
_VERIFIED_AT_ONCE = 64 * 1024


class Strike(StreamBroken):
    """The sender sent something else than what was asked for; three of these end a route."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for next."""

    blocks: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()


class Fetcher:
    """Fetches what one download misses, by one stream at a time.

    What has come of a piece outlasts a stream that breaks, but for its last block of 16 KiB.

    :ivar stored: bytes by the route that brought them, of pieces that are verified and stored.
    :ivar received: all bytes that came.
    """

    def __init__(
        self, context: Context, manifest: Manifest, download: Download, wanted: frozenset[int], *,
        offer: str, transfer: str, peer: Callable[[], JID], local: JID, moved: Callable[[], None],
        opener: Opener | None = None,
    ) -> None:  # fmt: skip
        self.stored: dict[Route, int] = {}
        self.received = 0
        self._context = context
        self._manifest = manifest
        self._download = download
        self._wanted = wanted
        self._offer, self._transfer = offer, transfer
        self._peer, self._local = peer, local
        self._moved = moved
        self._opener = opener
        self._blocks = Blocks(manifest)
        self._layers = bytearray()
        self._partial: dict[int, bytearray] = {}
        self._buffer = bytearray()

    @property
    def under_way(self) -> int:
        """Bytes that have come of pieces that are not complete."""
        return sum(map(len, self._partial.values())) + (len(self._buffer) if self._partial else 0)

    async def run(self, route: Route) -> None:
        """Fetch by `route` until nothing is missing. Cancelling it keeps every whole block.

        :raises Strike: the sender sent what was not asked for.
        :raises StreamBroken: it goes no further by this route; `final` if for good.
        :raises StorageError: the disk.
        :raises ProtocolError: ``gone``: the sender says that it is over.
        """
        while (plan := await self._plan(route)) is not None:
            pieces = {self._blocks.piece_of(block) for block in plan.blocks}
            self._download.claim(pieces)
            try:
                await self._fetch(route, plan)
            finally:
                self._buffer.clear()
                self._download.release(pieces)

    # what to ask for

    async def _plan(self, route: Route) -> Plan | None:
        if not self._wanted - self._download.have():
            return None
        room, layers = FETCH_SIZE[route] // BLOCK, range(0)
        if not self._manifest.verifiable:
            known = await self._download.layers()  # the swarm may know them
            if known:
                self._manifest = self._manifest.with_layers(known)
            else:
                layers = range(len(self._layers) // BLOCK, -(-self._blocks.layers_size // BLOCK))
        return Plan(tuple(self._missing(room - len(layers))), tuple(layers[:room]))

    def _missing(self, room: int) -> Iterator[int]:
        """Blocks in their order, those of pieces that have begun first."""
        had = self._download.have()
        for done in self._partial.keys() & had:  # by another route
            del self._partial[done]
        ranges, before = 0, -2
        for piece in [*self._partial, *sorted(self._wanted - had - self._partial.keys())]:
            for block in self._blocks.of_piece(piece)[len(self._partial.get(piece, b"")) // BLOCK :]:
                ranges += block != before + 1
                if room <= 0 or ranges > _MAX_RANGES:
                    return
                yield block
                room, before = room - 1, block

    # one stream

    async def _fetch(self, route: Route, plan: Plan) -> None:
        peer, sid = self._peer(), secrets.token_urlsafe(12)
        hosts = await self._context.wire.relays(sender=self._local) if route is Route.RELAY else ()
        fetch = Fetch(
            self._offer, self._transfer, sid, route,
            blocks.ranges_of(plan.blocks), blocks.ranges_of(plan.layers), hosts,
        )  # fmt: skip
        length = sum(map(self._blocks.layer_size, plan.layers)) + sum(map(self._blocks.size, plan.blocks))
        if self._opener is not None:
            length += self._opener.overhead * (len(plan.layers) + len(plan.blocks))
        async with self._context.wire.expect_stream(route, sid, peer, sender=self._local) as expected:
            announced = await self._ask(fetch, peer)
            if announced.length != length:
                raise Strike(f"the sender announced {announced.length} bytes, not {length}")
            try:
                async with asyncio.timeout(_OPENING):
                    stream = await expected.opened()
            except TimeoutError:
                raise StreamBroken("the sender did not open a stream in time") from None
            await self._read(stream, route, plan)

    async def _ask(self, fetch: Fetch, peer: JID) -> Fetching:
        try:
            reply = await self._context.wire.request(fetch, peer, sender=self._local)
        except PeerGone as error:
            raise StreamBroken(f"the sender cannot be reached: {error}") from error
        except ProtocolError as error:
            if error.condition == "gone":
                raise
            raise StreamBroken(f"the sender refuses: {error}", final=error.condition not in NOT_NOW) from error
        assert isinstance(reply, Fetching)
        return reply

    async def _read(self, stream: Stream, route: Route, plan: Plan) -> None:
        for number in plan.layers:
            self._layers += await self._unit(stream, "layers", number, self._blocks.layer_size(number))
        if plan.layers and len(self._layers) == self._blocks.layers_size:
            await self._learn()
        for number in plan.blocks:
            await self._add(number, await self._unit(stream, "block", number, self._blocks.size(number)), route)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                if self._buffer or await stream.receive():
                    raise Strike("the sender sent more than it announced")

    async def _unit(self, stream: Stream, what: Unit, number: int, size: int) -> bytes:
        """The next block, opened if it was sealed."""
        if self._opener is None:
            return await self._take(stream, size)
        sealed = await self._take(stream, size + self._opener.overhead)
        try:
            return self._opener.open(what, number, sealed)
        except IntegrityError as error:
            raise Strike(str(error)) from error

    async def _take(self, stream: Stream, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._buffer) < size:
            data = await stream.receive()
            if not data:
                # Perhaps the sender has paused, or a proxy was stopped.
                raise StreamBroken("the stream was closed before everything had come")
            self.received += len(data)
            await self._context.download_pace.take(len(data))
            self._buffer += data
            self._moved()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _learn(self) -> None:
        joined, self._layers = bytes(self._layers), bytearray()
        try:
            self._manifest = await asyncio.to_thread(self._manifest.with_layers, self._blocks.layers(joined))
        except IntegrityError as error:
            raise Strike(str(error)) from error
        await self._download.learn(self._manifest)

    async def _add(self, number: int, data: bytes, route: Route) -> None:
        piece = self._blocks.piece_of(number)
        partial = self._partial.setdefault(piece, bytearray())
        if len(partial) != (number % self._blocks.per_piece) * BLOCK:
            return  # it was completed by another route meanwhile, or belongs to a piece that was dropped
        partial += data
        if len(partial) == self._manifest.piece_size(piece):
            del self._partial[piece]
            await self._store(piece, bytes(partial), route)

    async def _store(self, piece: int, data: bytes, route: Route) -> None:
        if len(data) <= _VERIFIED_AT_ONCE:
            right = self._manifest.verify(piece, data)
        else:
            right = await asyncio.to_thread(self._manifest.verify, piece, data)
        if not right:
            raise Strike("a piece is not what was offered")
        if piece not in self._download.have():
            before = self.stored.get(route, 0)
            self.stored[route] = before + len(data)  # first, as the download counts it before write() returns
            try:
                await self._download.write(piece, data)
            except BaseException:
                self.stored[route] = before
                raise
        self._moved()


def split(manifest: Manifest, wanted: frozenset[int], content: bytes) -> list[tuple[int, bytes]]:
    """All wanted pieces, verified, out of their bytes one after another. For files that are no longer than a piece.

    :raises IntegrityError: it is not what was offered.
    """
    pieces, start = [], 0
    for piece in sorted(wanted):
        data = content[start : start + manifest.piece_size(piece)]
        start += len(data)
        if not manifest.verifiable or not manifest.verify(piece, data):
            raise IntegrityError("it is not what was offered")
        pieces.append((piece, data))
    if start != len(content):
        raise IntegrityError("it is longer than what was offered")
    return pieces
