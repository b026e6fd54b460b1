"""A backend without a swarm, in the standard library: it stores what other routes bring.

For hosts without libtorrent, and for every mode in which another backend cannot swarm. Writing happens in threads, and
no file stays open between two pieces.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from weakref import WeakSet

from ..config import Endpoint
from ..constants import Mode
from ..errors import BackendClosed, BTError
from ..manifest import Manifest
from ..messages import Candidate
from ..threads import in_thread
from . import _store
from . import checkpoint as checkpoints
from .admission import Admission
from .base import (
    UNLIMITED,
    Backend,
    Download,
    EventStream,
    Finished,
    PieceStored,
    RateLimits,
    Seed,
    Status,
    Swarm,
)


class PlainBackend(Backend):
    """See :class:`~slixmpp_bt.backends.Backend`: one whose seeds and downloads never have a peer."""

    def __init__(
        self, listen: tuple[Endpoint, ...], rates: RateLimits = UNLIMITED, *, port_mapping: bool = False
    ) -> None:
        super().__init__(listen, rates, port_mapping=port_mapping)
        self._handles: WeakSet[PlainSeed | PlainDownload] = WeakSet()
        self._closed = False

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        self._check_open()
        return ()

    def on_candidates_changed(self, callback: Callable[[], None]) -> None:
        self._check_open()

    async def open_seed(self, manifest: Manifest, files: Mapping[int, Path], admission: Admission) -> Seed:
        self._check_new(manifest)
        admission.check(manifest)
        if not manifest.verifiable:
            raise ValueError("a seed needs the piece layers")
        seed = PlainSeed(manifest, self._handles)
        await seed.open(files)
        return seed

    async def open_download(
        self,
        manifest: Manifest,
        files: Mapping[int, Path],
        admission: Admission,
        *,
        checkpoint: bytes | None = None,
        select: frozenset[int] | None = None,
    ) -> Download:
        self._check_new(manifest)
        admission.check(manifest)
        download = PlainDownload(manifest, select, self._handles)
        await download.open(files, checkpoint)
        return download

    async def set_limits(self, rates: RateLimits) -> None:
        self._check_open()
        self.rates = rates

    async def aclose(self) -> None:
        self._closed = True
        await asyncio.gather(*(handle.aclose() for handle in tuple(self._handles)))

    def _check_new(self, manifest: Manifest) -> None:
        self._check_open()
        if any(handle.is_open_for(manifest) for handle in self._handles):
            raise BTError("this offer is already open in this backend")

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosed("the backend is closed")


class PlainSwarm(Swarm):
    """Nobody there."""

    def __init__(self, manifest: Manifest) -> None:
        self.events = EventStream()
        self._manifest = manifest
        self._closed = False

    def is_open_for(self, manifest: Manifest) -> bool:
        """Whether this is of `manifest`, and not closed."""
        return not self._closed and manifest == self._manifest

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        self._check_open()

    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        self._check_open()

    async def admit(self, admission: Admission) -> None:
        self._check_open()
        admission.check(self._manifest)

    async def pause(self) -> None:
        self._check_open()

    async def resume(self) -> None:
        self._check_open()

    async def aclose(self) -> None:
        self._closed = True
        self.events.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosed("this was closed")


class PlainSeed(PlainSwarm, Seed):
    """Complete files that nobody asks for."""

    def __init__(
        self, manifest: Manifest, handles: WeakSet[PlainSeed | PlainDownload], select: frozenset[int] | None = None
    ) -> None:
        super().__init__(manifest)
        self._select = select
        handles.add(self)

    async def open(self, files: Mapping[int, Path]) -> None:
        """Look whether the files are there."""
        try:
            await in_thread(_store.check_complete, self._manifest, files, self._select)
        except BaseException:
            await self.aclose()
            raise

    def status(self) -> Status:
        self._check_open()
        return Status(verified=self._manifest.size)


class PlainDownload(PlainSwarm, Download):
    """Part files that are written to by others only."""

    def __init__(
        self, manifest: Manifest, select: frozenset[int] | None, handles: WeakSet[PlainSeed | PlainDownload]
    ) -> None:
        super().__init__(manifest)
        handles.add(self)
        self._handles = handles
        self._select = select
        self._files: dict[int, Path] = {}
        self._had: set[int] = set()
        self._missing = set(manifest.pieces_of(select))
        self._verified = 0
        self._writing = 0
        self._idle = asyncio.Event()
        self._synced = False

    async def open(self, files: Mapping[int, Path], checkpoint: bytes | None) -> None:
        """Make the part files, and take up what a checkpoint says."""
        try:
            self._files = await in_thread(_store.prepare, self._manifest, files, self._select)
            pieces, self._manifest = await in_thread(checkpoints.decode, self._manifest, self._files, checkpoint)
        except BaseException:
            await self.aclose()
            raise
        self._had |= pieces
        self._missing -= pieces
        self._verified = sum(map(self._manifest.piece_size, self._had))
        if not self._missing:
            self.events.put(Finished())

    def status(self) -> Status:
        self._check_open()
        return Status(verified=self._verified)

    def have(self) -> frozenset[int]:
        self._check_open()
        return frozenset(self._had)

    def claim(self, pieces: Iterable[int]) -> None:
        self._check_open()

    def release(self, pieces: Iterable[int]) -> None:
        self._check_open()

    async def learn(self, manifest: Manifest) -> None:
        self._check_open()
        if manifest != self._manifest or not manifest.verifiable:
            raise ValueError("these are not the piece layers of this offer")
        self._manifest = manifest

    async def layers(self) -> Mapping[bytes, bytes]:
        self._check_open()
        return self._manifest.layers

    async def write(self, piece: int, data: bytes) -> None:
        self._check_open()
        if len(data) != self._manifest.piece_size(piece):
            raise ValueError(f"piece {piece} has {self._manifest.piece_size(piece)} bytes, not {len(data)}")
        if self._manifest.file_of(piece).index not in self._files:
            raise ValueError(f"piece {piece} is of a file that was not selected")
        if piece in self._had:
            return
        self._writing += 1
        try:
            await in_thread(self._write, piece, data)
        finally:
            self._writing -= 1
            self._idle.set()
        self._stored(piece)

    async def checkpoint(self) -> bytes:
        self._check_open()
        return await in_thread(checkpoints.encode, self._manifest, frozenset(self._had))

    async def finished(self) -> bool:
        self._check_open()
        if self._missing:
            return False
        if not self._synced:
            await in_thread(_store.sync, self._files.values())
            self._synced = True
        return True

    async def publish(self, files: Mapping[int, Path]) -> Seed:
        if not await self.finished():
            raise BTError("only a finished download can be published")
        seed = PlainSeed(self._manifest, self._handles, self._select)
        await self.aclose()
        await seed.open(files)
        return seed

    async def aclose(self) -> None:
        await super().aclose()
        while self._writing:
            self._idle.clear()
            await self._idle.wait()

    def _write(self, piece: int, data: bytes) -> None:
        file = self._manifest.file_of(piece)
        path, offset = self._files[file.index], (piece - file.first_piece) * self._manifest.piece_length
        rest = memoryview(data)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                while rest:
                    written = os.pwrite(descriptor, rest, offset)
                    rest, offset = rest[written:], offset + written
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _store.from_os_error(error, path) from error

    def _stored(self, piece: int) -> None:
        if piece in self._had:
            return
        self._had.add(piece)
        self._verified += self._manifest.piece_size(piece)
        self.events.put(PieceStored(piece))
        if piece in self._missing:
            self._missing.remove(piece)
            if not self._missing:
                self.events.put(Finished())
