"""What seeds and downloads have in common: each is over one torrent at a time.

It is put over a new one where libtorrent cannot change the old one: the disk failed (libtorrent 2.1 then counts pieces
as had that were never written), piece layers become known, or the files get their final names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import libtorrent as lt

from ...constants import Mode
from ...errors import BackendClosed, StorageError
from ...manifest import Manifest
from ...messages import Candidate
from ...threads import in_thread
from ..admission import Admission
from ..base import AddressLearnt, EventStream, PeerConnected, PeerRefused, Seed, Status, StorageFailed, Swarm
from .torrent import Torrent

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger(__name__)


class TorrentSwarm(Swarm):
    """What both have in common."""

    def __init__(self, session: Session, manifest: Manifest, files: Mapping[int, Path], admission: Admission) -> None:
        session.handles.add(self)
        self.events = EventStream()
        self._session = session
        self._manifest = manifest
        self._files = dict(files)
        self._admission = admission
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
        gone = [candidate for candidate in dict.fromkeys(candidates) if candidate in self._candidates]
        for candidate in gone:
            del self._candidates[candidate]
        if self._torrent is not None:
            self._torrent.remove_candidates(gone)

    async def admit(self, admission: Admission) -> None:
        self._check_open()
        admission.check(self._manifest)
        if admission.mode is Mode.PRIVATE:
            return
        if admission.certificate is None:
            raise ValueError("there is no certificate in it")
        self._admission = admission
        async with self._changing:
            self._check_open()
            if self._torrent is not None and self._failure is None:
                self._start(self._torrent)

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
            else:
                self._start(self._torrent)

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
        """See :class:`~slixmpp_bt.backends._libtorrent.torrent.Listener`, these eight."""

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

    def beat(self) -> None:
        pass

    def availability_known(self, peers: Sequence[int]) -> None:
        pass

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
            peers=len(self._torrent.connected),
            connected=tuple(self._torrent.connected.values()),
        )

    async def _attach(self) -> None:
        """Put this over a new torrent."""
        params = await in_thread(self._params)
        self._check_open()
        mode, seeding = self._admission.mode, isinstance(self, Seed)
        torrent = Torrent(self._session, self._manifest.info_hash, mode, self, seeding=seeding)
        self._failure = None
        self._torrent = torrent
        try:
            await self._session.add(torrent, params)
        except BaseException:
            self._forget_torrent()
            raise
        torrent.add_candidates(self._candidates)
        self._start(torrent)

    def _start(self, torrent: Torrent) -> None:
        """Let `torrent` have our certificate, and run if it may."""
        certificate, key = self._admission.certificate, self._admission.key
        if certificate is not None and key is not None:
            torrent.admit(certificate, key)
        elif self._admission.mode is Mode.SEALED:
            return
        if not self._paused and not torrent.running:
            torrent.resume()

    async def _detach(self) -> None:
        if self._torrent is not None:
            await self._session.remove(self._torrent)
            self._forget_torrent()
