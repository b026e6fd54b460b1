"""The default backend: libtorrent 2.0 or 2.1, closed to the public.

No DHT, no local discovery, no peer exchange, no trackers; UPnP and NAT-PMP only if asked for.

A ``private`` offer is served on a plain port: who does not know the info-hash and an address does not find it, and the
handshake gives neither away (message stream encryption). A ``sealed`` one is an SSL torrent, served on a TLS port only:
each side of a connection demands a certificate of the other that the offer's authority signed. The info-hash passes in
the clear there (as the name of the server asked for), the peers' certificates only with TLS 1.2.

Known limits of ``sealed``: a certificate that ends cuts no connection; who refused the other's certificate is known to
the side that dialled, not to the one dialled; one certificate admits whoever holds it and its key; and libtorrent waits
without end for a TLS handshake that somebody began and leaves unfinished, each of which holds a descriptor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Endpoint
from ..constants import Mode
from ..errors import BackendClosed, BackendUnavailable
from ..manifest import Manifest
from ..messages import Candidate
from .admission import Admission
from .base import UNLIMITED, Backend, Download, RateLimits, Seed
from .plain import PlainBackend

if TYPE_CHECKING:
    from ._libtorrent.session import Session


class LibtorrentBackend(Backend):
    """See :class:`~slixmpp_bt.backends.Backend`. It costs three threads and about a megabyte once it has started."""

    modes = frozenset({Mode.PRIVATE, Mode.SEALED})

    def __init__(
        self, listen: tuple[Endpoint, ...], rates: RateLimits = UNLIMITED, *, port_mapping: bool = False
    ) -> None:
        super().__init__(listen, rates, port_mapping=port_mapping)
        self._plain = PlainBackend(listen)
        self._session: Session | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._callbacks: list[Callable[[], None]] = []
        self._told: dict[Mode, tuple[Candidate, ...]] = {}

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        if mode not in self.modes:
            return ()
        session = await self._started()
        self._told[mode] = session.listening.candidates(mode)
        return self._told[mode]

    def on_candidates_changed(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def open_seed(self, manifest: Manifest, files: Mapping[int, Path], admission: Admission) -> Seed:
        if not self._swarms(manifest, admission):
            return await self._plain.open_seed(manifest, files, admission)
        if not manifest.verifiable:
            raise ValueError("a seed needs the piece layers")
        from ._libtorrent.seed import TorrentSeed

        seed = TorrentSeed(await self._started(), manifest, files, admission, manifest.layers)
        await seed.open()
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
        if not self._swarms(manifest, admission):
            return await self._plain.open_download(manifest, files, admission, checkpoint=checkpoint, select=select)
        from ._libtorrent.download import TorrentDownload

        download = TorrentDownload(await self._started(), manifest, files, admission, checkpoint, select)
        await download.open()
        return download

    async def set_limits(self, rates: RateLimits) -> None:
        self._check_open()
        self.rates = rates
        if self._session is not None:
            self._session.set_rates(rates)

    async def aclose(self) -> None:
        self._closed = True
        await self._plain.aclose()
        async with self._starting:
            if self._session is not None:
                await self._session.aclose()
                self._session = None

    def _swarms(self, manifest: Manifest, admission: Admission) -> bool:
        """Whether there is something to swarm: files that are all empty make no torrent."""
        self._check_open()
        admission.check(manifest)
        return manifest.piece_count > 0

    async def _started(self) -> Session:
        self._check_open()
        async with self._starting:
            self._check_open()
            if self._session is None:
                try:
                    from ._libtorrent.session import Session
                except ImportError as error:
                    raise BackendUnavailable(
                        f"libtorrent is not installed or does not load ({error}); "
                        "install it, or configure {'backend': 'plain'} to do without a swarm"
                    ) from None
                self._session = await Session.start(self.listen, self.rates, self.port_mapping)
                self._session.set_rates(self.rates)  # which may have changed meanwhile
                self._session.changed = self._on_change
            return self._session

    def _on_change(self) -> None:
        if self._session is None:
            return
        now = {mode: self._session.listening.candidates(mode) for mode in self._told}
        if now != self._told:
            self._told = now
            for callback in self._callbacks:
                callback()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosed("the backend is closed")
