"""What a sender gives a receiver over a stream, or inside the answer to its Accept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from slixmpp import JID

from . import blocks
from .blocks import Blocks
from .constants import Route
from .context import Context
from .errors import BTError
from .manifest import Made
from .messages import BLOCK, Fetch, Fetching
from .sealing import OVERHEAD, Unit
from .seals import Sealer
from .sources import read_range
from .wire import Stream

log = logging.getLogger(__name__)

#: So many bytes are read from the disk at once.
_READ = 16 * BLOCK


class Serving:
    """The stream to one receiver; a new one takes the place of the one before.

    :ivar sent: bytes by route.
    :ivar why_not: why the last stream broke.
    """

    def __init__(self, context: Context, made: Made, moved: Callable[[], None], sealer: Sealer | None = None) -> None:
        self.sent: dict[Route, int] = {}
        self.why_not: dict[Route, str] = {}
        self._context = context
        self._made = made
        self._blocks = Blocks(made.manifest)
        self._moved = moved
        self.sealer = sealer
        self._task: asyncio.Task[None] | None = None

    async def content(self, select: frozenset[int] | None) -> bytes:
        """All bytes of the selected files, in their order: for the answer to an Accept.

        :raises SourceChanged: a file cannot be read any more.
        """
        made = self._made
        chosen = [file for file in made.manifest.files if file.size and (select is None or file.index in select)]
        data = b"".join([await asyncio.to_thread(read_range, made.paths[file.index], 0, file.size) for file in chosen])
        self._count(Route.INLINE, len(data))
        return self._seal("content", 0, data)

    def begin(self, fetch: Fetch, peer: JID, local: JID) -> Fetching:
        """Answer `fetch`, and open the stream that it asks for.

        :raises ProtocolError: a block is asked for that is not there.
        """
        length = sum(map(self._blocks.layer_size, blocks.numbers_of(fetch.layers)))
        length += sum(map(self._blocks.size, blocks.numbers_of(fetch.blocks)))
        if self.sealer is not None:
            length += OVERHEAD * sum(last - first + 1 for first, last in (*fetch.layers, *fetch.blocks))
        before, self._task = (
            self._task,
            self._context.tasks.spawn(self._run(fetch, peer, local, self._task), f"stream {fetch.sid}"),
        )
        if before is not None:
            before.cancel()
        return Fetching(fetch.id, fetch.transfer, length)

    async def stop(self) -> None:
        """Close the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, fetch: Fetch, peer: JID, local: JID, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            stream = await self._context.wire.open_stream(fetch.kind, fetch.sid, peer, sender=local, hosts=fetch.hosts)
            try:
                await self._send(fetch, stream)
            finally:
                await stream.aclose()
        except BTError as error:
            self.why_not[fetch.kind] = str(error)
            log.info("a stream to %s ended early: %s", peer, error)
        else:
            self.why_not.pop(fetch.kind, None)

    async def _send(self, fetch: Fetch, stream: Stream) -> None:
        if fetch.layers:
            joined = self._blocks.join(self._made.manifest.layers)
            for block in blocks.numbers_of(fetch.layers):
                await stream.send(self._seal("layers", block, joined[block * BLOCK : (block + 1) * BLOCK]))
        for run in self._runs(fetch.blocks):
            for data in await asyncio.to_thread(self._read, run):
                await self._context.upload_pace.take(len(data))
                await stream.send(data)
                self._count(fetch.kind, len(data) - (OVERHEAD if self.sealer is not None else 0))

    def _runs(self, ranges: blocks.Ranges) -> Iterator[range]:
        """Blocks of one piece that follow on each other, not too many at once."""
        for first, last in ranges:
            while first <= last:
                piece_end = self._blocks.of_piece(self._blocks.piece_of(first)).stop
                end = min(last + 1, piece_end, first + _READ // BLOCK)
                yield range(first, end)
                first = end

    def _read(self, run: range) -> list[bytes]:
        """Some blocks, sealed if need be. Blocks."""
        manifest = self._made.manifest
        piece = self._blocks.piece_of(run.start)
        file = manifest.file_of(piece)
        offset = (piece - file.first_piece) * manifest.piece_length + (run.start % self._blocks.per_piece) * BLOCK
        data = read_range(self._made.paths[file.index], offset, sum(map(self._blocks.size, run)))
        starts = range(0, len(data), BLOCK)
        return [self._seal("block", n, data[at : at + BLOCK]) for n, at in zip(run, starts, strict=True)]

    def _seal(self, what: Unit, index: int, data: bytes) -> bytes:
        return data if self.sealer is None else self.sealer.seal(what, index, data)

    def _count(self, route: Route, count: int) -> None:
        self.sent[route] = self.sent.get(route, 0) + count
        self._moved()
