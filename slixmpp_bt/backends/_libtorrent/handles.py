"""Seeds and downloads of the contract, each over one torrent at a time.

A download is put over a new torrent where libtorrent cannot change the old one: piece layers become known, the disk
failed (libtorrent 2.1 then counts pieces as had that were never written), or the files get their final names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import libtorrent as lt

from ...errors import BackendClosed, BTError, IntegrityError, StorageError
from ...manifest import Manifest
from ...messages import Candidate
from ...threads import in_thread
from .. import _store
from ..base import (
    AddressLearnt,
    Download,
    EventStream,
    Finished,
    PeerConnected,
    PeerRefused,
    PieceStored,
    Seed,
    Status,
    StorageFailed,
    Swarm,
)
from .params import download_params, seed_params, with_learnt_layers
from .torrent import Torrent

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger(__name__)


class TorrentSwarm(Swarm):
    """What both have in common."""

    def __init__(self, session: Session, manifest: Manifest, files: Mapping[int, Path]) -> None:
        session.handles.add(self)
        self.events = EventStream()
        self._session = session
        self._manifest = manifest
        self._files = dict(files)
        self._candidates: dict[Candidate, None] = {}
        self._torrent: Torrent | None = None
        self._paused = False
        self._closed = False
        self._failure: StorageError | None = None
        self._changing = asyncio.Lock()  # held while the torrent is looked after: exchanged, flushed, given a piece
        self._moved = (0, 0)  # bytes up and down by earlier torrents

    async def open(self) -> None:
        """Begin: connect to peers from now on. Closed if that fails."""
        try:
            await self._prepare()
            async with self._changing:
                await self._attach()
        except BaseException:
            await self.aclose()
            raise

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        self._check_open()
        new = tuple(candidates)
        self._candidates.update(dict.fromkeys(new))
        if self._torrent is not None:
            self._torrent.add_candidates(new)

    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        self._check_open()
        gone = [candidate for candidate in candidates if candidate in self._candidates]
        for candidate in gone:
            del self._candidates[candidate]
        if self._torrent is not None:
            self._torrent.remove_candidates(gone)

    async def pause(self) -> None:
        self._check_open()
        self._paused = True
        async with self._changing:
            if self._torrent is not None:
                await self._torrent.pause()

    async def resume(self) -> None:
        self._check_open()
        self._paused = False
        async with self._changing:
            self._check_open()
            if self._failure is not None or self._torrent is None:
                await self._detach()
                await self._attach()
            elif not self._torrent.running:
                self._torrent.resume()

    def status(self) -> Status:
        self._check_open()
        return self._status(self._manifest.size)

    async def aclose(self) -> None:
        self._closed = True
        torrent = self._torrent
        if torrent is not None:
            await self._session.remove(torrent)
        self._forget_torrent()
        self.events.close()

    # The listener of the torrent

    def piece_verified(self, piece: int) -> None:
        """See :class:`~slixmpp_bt.backends._libtorrent.torrent.Listener`, these six."""

    def piece_failed(self, piece: int) -> None:
        log.debug("a piece was not what it should be: %d", piece)

    def storage_failed(self, error: StorageError) -> None:
        if self._failure is None:
            self._failure = error
            if self._torrent is not None:
                self._torrent.abandon()
            self.events.put(StorageFailed(error))

    def peer_connected(self, candidate: Candidate) -> None:
        self.events.put(PeerConnected(candidate))

    def peer_refused(self, candidate: Candidate, reason: str) -> None:
        self.events.put(PeerRefused(candidate, reason))

    def address_learnt(self, candidate: Candidate) -> None:
        self.events.put(AddressLearnt(candidate))

    # Inner workings

    async def _prepare(self) -> None:
        """What comes before the first torrent."""

    def _params(self) -> lt.add_torrent_params:
        """What the next torrent is made of. Blocks."""
        raise NotImplementedError

    def _forget_torrent(self) -> None:
        if self._torrent is not None:
            up, down = self._moved
            self._moved = (up + self._torrent.figures.uploaded, down + self._torrent.figures.downloaded)
        self._torrent = None

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosed("this was closed")

    def _status(self, verified: int) -> Status:
        up, down = self._moved
        if self._torrent is None:
            return Status(up, down, verified)
        now = self._torrent.figures
        return Status(
            uploaded=up + now.uploaded,
            downloaded=down + now.downloaded,
            verified=verified,
            upload_rate=now.upload_rate,
            download_rate=now.download_rate,
            peers=now.peers,
            connected=tuple(self._torrent.connected.values()),
        )

    async def _attach(self) -> None:
        """Put this over a new torrent."""
        params = await in_thread(self._params)
        self._check_open()
        torrent = Torrent(self._session, self._manifest.info_hash, self, seeding=isinstance(self, Seed))
        self._failure = None
        self._torrent = torrent
        try:
            await self._session.add(torrent, params)
        except BaseException:
            self._forget_torrent()
            raise
        torrent.add_candidates(self._candidates)
        if not self._paused:
            torrent.resume()

    async def _detach(self) -> None:
        if self._torrent is not None:
            await self._session.remove(self._torrent)
            self._forget_torrent()


class TorrentSeed(TorrentSwarm, Seed):
    """Complete files: all of the manifest's, or those of `select`."""

    def __init__(
        self, session: Session, manifest: Manifest, files: Mapping[int, Path], select: frozenset[int] | None = None
    ) -> None:
        super().__init__(session, manifest, files)
        self._select = select

    def take_over(self, candidates: Iterable[Candidate], paused: bool) -> None:
        """Go on, when opened, where a download was."""
        self._candidates.update(dict.fromkeys(candidates))
        self._paused = paused

    def _params(self) -> lt.add_torrent_params:
        _store.check_complete(self._manifest, self._files, self._select)
        return seed_params(self._manifest, self._files, self._select)


class TorrentDownload(TorrentSwarm, Download):
    """Part files."""

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        files: Mapping[int, Path],
        checkpoint: bytes | None,
        select: frozenset[int] | None,
    ) -> None:
        super().__init__(session, manifest, files)
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
        self._prioritise(freed & self._missing, 4)

    async def learn(self, manifest: Manifest) -> None:
        self._check_open()
        if manifest != self._manifest or not manifest.verifiable:
            raise ValueError("these are not the piece layers of this offer")
        async with self._changing:
            self._check_open()
            if self._manifest.verifiable:
                return
            if self._failure is None:
                await self._flush()
            await self._detach()
            self._manifest = manifest
            self._restart_from(self._flushed)
            await self._attach()

    async def layers(self) -> Mapping[bytes, bytes]:
        self._check_open()
        if not self._manifest.verifiable and self._torrent is not None and self._failure is None:
            data = await self._torrent.resume_data()
            if data is not None:
                self._manifest = await in_thread(with_learnt_layers, self._manifest, data)
        return self._manifest.layers

    async def write(self, piece: int, data: bytes) -> None:
        self._check_usable()
        if len(data) != self._manifest.piece_size(piece):
            raise ValueError(f"piece {piece} has {self._manifest.piece_size(piece)} bytes, not {len(data)}")
        if not self._manifest.verifiable:
            raise ValueError("the piece layers are not known: learn() them first")
        async with self._changing:
            torrent = self._usable_torrent()
            if piece in self._had:
                return
            if piece not in self._writes:
                self._writes[piece] = asyncio.get_running_loop().create_future()
                torrent.handle.add_piece(piece, data, lt.add_piece_flags_t.overwrite_existing)
            stored = self._writes[piece]
        await asyncio.shield(stored)

    async def checkpoint(self) -> bytes:
        self._check_usable()
        async with self._changing:
            await self._flush()
        return await in_thread(_store.encode_checkpoint, self._manifest, frozenset(self._flushed))

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
        await self.layers()
        async with self._changing:
            self._check_open()
            seed = TorrentSeed(self._session, self._manifest, files, self._select)
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
        if piece in self._missing:
            self._missing.remove(piece)
            if not self._missing:
                self.events.put(Finished())

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

    # Inner workings

    def _params(self) -> lt.add_torrent_params:
        return download_params(self._manifest, self._files, self._flushed, self._missing - self._claimed)

    async def _prepare(self) -> None:
        self._files = await in_thread(_store.prepare, self._manifest, self._files, self._select)
        pieces, self._manifest = await in_thread(
            _store.decode_checkpoint, self._manifest, self._files, self._checkpoint
        )
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

    def _check_usable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise StorageError(str(self._failure))

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
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            future.exception()  # who waited may be gone
