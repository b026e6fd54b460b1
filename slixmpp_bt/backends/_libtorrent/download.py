"""Downloads: part files, filled by the swarm and by whoever else brings pieces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import libtorrent as lt

from ...errors import BackendClosed, BTError, IntegrityError, StorageError
from ...manifest import Manifest
from ...messages import Share
from ...shares import WHOLE, Turns, own
from ...threads import in_thread, settle
from .. import _store
from .. import checkpoint as checkpoints
from ..admission import Admission
from ..base import Download, Finished, PieceStored, Seed, Status
from .nudging import Nudge
from .params import download_params, learnt_layers
from .seed import TorrentSeed
from .swarm import TorrentSwarm
from .torrent import Torrent
from .waiting import answer, fail

if TYPE_CHECKING:
    from .session import Session


log = logging.getLogger(__name__)

#: What arrived is handed to the operating system after so many seconds.
_WRITE_BEHIND = 0.02
#: The engine's priorities, of 0 (not asked for) to 7: of a share's own pieces, and of all others.
_FIRST, _USUAL = 7, 4
#: Availability is asked for at most once in so many seconds, times one more for each so many pieces: what comes is a
#: number for each.
_LOOK, _LOOKED_AT = 0.1, 4_096


class TorrentDownload(TorrentSwarm, Download):
    """Part files."""

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        files: Mapping[int, Path],
        admission: Admission,
        checkpoint: bytes | None,
        select: frozenset[int] | None,
    ) -> None:
        super().__init__(session, manifest, files, admission)
        self._checkpoint = checkpoint
        self._select = select
        self._wanted = manifest.pieces_of(select)
        self._had: set[int] = set()
        self._flushed: set[int] = set()
        self._claimed: set[int] = set()
        self._missing = set(self._wanted)
        self._verified = 0
        self._writes: dict[int, asyncio.Future[None]] = {}
        self._synced = False
        self._writer: asyncio.Task[None] | None = None
        self._share = WHOLE
        self._turns: Turns | None = None
        self._look_at = 0.0
        self._nudge = Nudge()

    async def open(self) -> None:
        await super().open()
        if not self._missing:
            self.events.put(Finished())

    def have(self) -> frozenset[int]:
        self._check_open()
        return frozenset(self._had)

    def claim(self, pieces: Iterable[int]) -> None:
        self._check_open()
        new = self._missing.intersection(pieces) - self._claimed
        self._claimed |= new
        self._prioritise(new, 0)

    def release(self, pieces: Iterable[int]) -> None:
        self._check_open()
        freed = self._claimed.intersection(pieces)
        self._claimed -= freed
        self._prioritise((freed & self._missing) - self._others, _USUAL)

    def prefer(self, share: Share) -> None:
        self._check_open()
        if share == self._share:
            return
        self._share = share
        before, wanted = self._others, self._missing - self._claimed
        self._turns = Turns(share, self._missing, random.SystemRandom()) if share.count > 1 else None
        self._prioritise(wanted & before - self._others, _USUAL)
        self._prioritise(wanted & self._others, 0)
        self._prioritise(own(share, wanted), _FIRST)

    async def learn(self, manifest: Manifest) -> None:
        self._check_open()
        if manifest != self._manifest or not manifest.verifiable:
            raise ValueError("these are not the piece layers of this offer")
        async with self._changing:
            self._check_usable()
            if self._manifest.verifiable:
                return
            await self._flush()
            await self._detach()
            self._manifest = manifest
            self._restart_from(self._flushed)
            await self._attach()

    async def layers(self) -> Mapping[bytes, bytes]:
        self._check_open()
        if not self._manifest.verifiable:
            learnt = await self._learnt()
            with contextlib.suppress(IntegrityError):  # some are missing
                self._manifest = self._manifest.with_layers(learnt)
        return self._manifest.layers

    async def write(self, piece: int, data: bytes) -> None:
        self._check_usable()
        if len(data) != self._manifest.piece_size(piece):
            raise ValueError(f"piece {piece} has {self._manifest.piece_size(piece)} bytes, not {len(data)}")
        if piece not in self._wanted:
            raise ValueError(f"piece {piece} is of a file that was not selected")
        if not self._manifest.verifiable:
            raise ValueError("the piece layers are not known: learn() them first")
        async with self._changing:
            torrent = self._usable_torrent()
            if piece in self._had:
                return
            if piece not in self._writes:
                self._writes[piece] = asyncio.get_running_loop().create_future()
                torrent.add_piece(piece, data, self._manifest.piece_length)
            stored = self._writes[piece]
        await asyncio.shield(stored)

    async def checkpoint(self) -> bytes:
        self._check_usable()
        async with self._changing:
            await self._flush()
        return await in_thread(checkpoints.encode, self._manifest, frozenset(self._flushed))

    async def finished(self) -> bool:
        self._check_usable()
        if self._missing:
            return False
        if not self._synced:
            async with self._changing:
                self._session.refresh()
                await self._flush()
            await in_thread(_store.sync, self._files.values())
            self._synced = not self._missing
        return self._synced

    async def publish(self, files: Mapping[int, Path]) -> Seed:
        if not await self.finished():
            raise BTError("only a finished download can be published")
        layers = self._manifest.layers if self._manifest.verifiable else await self._learnt()
        async with self._changing:
            self._check_usable()
            seed = TorrentSeed(self._session, self._manifest, files, self._admission, layers, self._select)
            seed.take_over(self._candidates, self._paused)
            await self.aclose()
        await seed.open()
        return seed

    def status(self) -> Status:
        self._check_open()
        return self._status(self._verified)

    # The listener of the torrent

    def piece_verified(self, piece: int) -> None:
        if piece in self._had or self._failure is not None:
            return
        self._had.add(piece)
        self._verified += self._manifest.piece_size(piece)
        self._claimed.discard(piece)
        self._end_write(piece, None)
        self.events.put(PieceStored(piece))
        self._look()
        if piece in self._missing:
            self._missing.remove(piece)
            if not self._missing:
                self.events.put(Finished())
        if not self._closed and (self._writer is None or self._writer.done()):
            writing = self._write_behind()
            self._writer = asyncio.get_running_loop().create_task(writing, name="slixmpp_bt: libtorrent's writer")

    def beat(self) -> None:
        self._look()
        self._nudge_if_due()

    def availability_known(self, peers: Sequence[int]) -> None:
        if self._turns is None or self._torrent is None or self._failure is not None:
            return
        now, wanted = asyncio.get_running_loop().time(), self._missing - self._claimed
        self._prioritise(self._turns.look(wanted, peers, self._torrent.figures.downloaded, now), _USUAL)
        if not self._turns.closed:
            self._turns = None

    def piece_failed(self, piece: int) -> None:
        super().piece_failed(piece)
        self._end_write(piece, IntegrityError(f"piece {piece} is not what was offered"))

    def storage_failed(self, error: StorageError) -> None:
        if self._failure is not None:
            return
        super().storage_failed(error)
        for piece in tuple(self._writes):
            self._end_write(piece, error)
        # What was verified but not flushed is lost: resume() has it fetched again.
        self._restart_from(self._flushed)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            if self._writer is not None:
                self._writer.cancel()
                await settle([self._writer])

    # Inner workings

    async def _write_behind(self) -> None:
        """Have it written soon: the engine keeps it in memory for seconds, where a kill of the process takes it."""
        with contextlib.suppress(BTError):  # who asks for a flush is told
            while not self._had <= self._flushed:
                await asyncio.sleep(_WRITE_BEHIND)
                async with self._changing:
                    await self._flush()

    @property
    def _others(self) -> set[int]:
        """What is left to other receivers for now."""
        return self._turns.closed if self._turns is not None else set()

    def _look(self) -> None:
        """See what others have by now, unless that was done just before."""
        now = asyncio.get_running_loop().time()
        if self._turns is None or now < self._look_at or self._torrent is None or not self._torrent.connected:
            return
        self._look_at = now + _LOOK * (1 + self._manifest.piece_count // _LOOKED_AT)
        with contextlib.suppress(BackendClosed):
            self._torrent.ask_availability()

    def _nudge_if_due(self) -> None:
        torrent = self._torrent
        if torrent is None or not torrent.connected or self._manifest.verifiable or not self._missing - self._claimed:
            return
        if self._nudge.due(torrent.figures.downloaded, self._verified, asyncio.get_running_loop().time()):
            log.debug("nothing moves: dialling everybody again")
            with contextlib.suppress(BackendClosed):
                torrent.reconnect()

    def _params(self) -> lt.add_torrent_params:
        wanted = self._missing - self._claimed - self._others
        return download_params(self._manifest, self._files, self._manifest.layers, self._flushed, wanted)

    async def _prepare(self) -> None:
        self._files = await in_thread(_store.prepare, self._manifest, self._files, self._select)
        pieces, self._manifest = await in_thread(checkpoints.decode, self._manifest, self._files, self._checkpoint)
        self._checkpoint = None
        self._restart_from(pieces)

    def _restart_from(self, pieces: Iterable[int]) -> None:
        """Count exactly `pieces` as had and flushed."""
        self._had = set(pieces)
        self._flushed = set(self._had)
        self._missing = set(self._wanted - self._had)
        self._claimed &= self._missing
        self._verified = sum(map(self._manifest.piece_size, self._had))
        self._synced = False

    def _forget_torrent(self) -> None:
        super()._forget_torrent()
        for piece in tuple(self._writes):
            self._end_write(piece, BackendClosed("this was closed"))

    async def _learnt(self) -> Mapping[bytes, bytes]:
        """The piece layers that the engine knows by now."""
        if self._torrent is None or self._failure is not None:
            return {}
        data = await self._torrent.resume_data()
        return {} if data is None else await in_thread(learnt_layers, self._manifest, data)

    def _check_usable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise StorageError(str(self._failure), self._failure.code)

    def _usable_torrent(self) -> Torrent:
        self._check_usable()
        if self._torrent is None:
            raise BackendClosed("this could not go on: resume() it")
        return self._torrent

    async def _flush(self) -> None:
        """Flush, and count what was verified before as flushed."""
        torrent = self._usable_torrent()
        before = self._had - self._flushed
        if before:
            await torrent.flush()
            self._check_usable()
            self._flushed |= before

    def _prioritise(self, pieces: Iterable[int], priority: int) -> None:
        changes = [(piece, priority) for piece in pieces]
        if changes and self._torrent is not None and self._failure is None:
            self._torrent.handle.prioritize_pieces(changes)

    def _end_write(self, piece: int, error: BTError | None) -> None:
        future = self._writes.pop(piece, None)
        if future is None:
            return
        if error is None:
            answer(future)
        else:
            fail(future, error)
