"""What an own offer offers: hashed when it is made, kept on disk while nobody asks for it, opened again when somebody
does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .backends import Admission, Seed
from .constants import Mode
from .context import Context
from .errors import SourceChanged, StateError
from .manifest import Made, look, make, reopen
from .sealing import Authority
from .seals import Admitting, utc
from .sources import summary
from .state import SavedDetails, SavedOffer

#: After so many seconds without a request what is not needed any more is let go of.
_LINGER = 60.0


class Content:
    """The content of one offer.

    :ivar admitting: of a sealed offer: its certificate authority.
    """

    def __init__(self, context: Context, offer: str, path: Path, mode: Mode) -> None:
        self.admitting: Admitting | None = None
        self._context = context
        self._offer = offer
        self._path = path
        self._mode = mode
        self._made: Made | None = None
        #: Of the stamps; it is kept while the rest is on disk only.
        self._summary: bytes | None = None
        self._loading = asyncio.Lock()
        self._unloading: asyncio.TimerHandle | None = None
        self._is_kept = False

    @property
    def loaded(self) -> Made | None:
        """What is offered; None before it is hashed and while it is on disk only."""
        return self._made

    @property
    def made(self) -> Made:
        """What is offered; to be had between :meth:`load` and :meth:`unload`."""
        assert self._made is not None
        return self._made

    async def make(self, progress: Callable[[int, int], None]) -> Made:
        """Hash the source.

        :raises BTError: it cannot be offered, as :func:`slixmpp_bt.manifest.make` says.
        """
        if self._mode is Mode.SEALED:
            self.admitting = Admitting(Authority.make(utc(self._context.now())))
        self._made = await make(
            self._path,
            salt=secrets.token_bytes(16),
            extra={b"ssl-cert": self.admitting.authority.certificate} if self.admitting is not None else {},
            progress=progress,
            known=self._context.state,
        )
        self._summary = _summary(self._made)
        return self._made

    async def load(self) -> Made:
        """Have it in memory again, after a restart or :meth:`unload`.

        :raises SourceChanged: it is not what it was when it was offered.
        """
        self._stay()
        async with self._loading:
            if self._made is None:
                self._made = await self._reopen()
                self._summary = _summary(self._made)
                self._is_kept = True
            return self._made

    async def _reopen(self) -> Made:
        """It as it is on disk, and the authority."""
        details = await self._details()
        if self._mode is Mode.SEALED and self.admitting is None:
            assert details.certificate is not None
            assert details.authority_key is not None
            self.admitting = Admitting(Authority.load(details.certificate, details.authority_key))
        return await reopen(self._path, details.info, details.stamps, self._context.state)

    async def authority(self) -> Authority:
        """The certificate authority of a sealed offer.

        :raises SourceChanged: as :meth:`load`.
        """
        if self.admitting is None:
            await self.load()
        assert self.admitting is not None
        return self.admitting.authority

    async def open_seed(self, admission: Admission) -> Seed:
        """The engine's seed of what is loaded.

        :raises BTError: it cannot be opened.
        """
        return await self._context.backend.open_seed(self.made.manifest, self.made.paths, admission)

    async def look(self) -> None:
        """See that the source is what it was, without having it in memory. Of an earlier run's it is not known before
        the first :meth:`load`.

        :raises SourceChanged: it is not.
        """
        if self._summary is not None:
            await look(self._path, self._summary)

    def unload(self) -> None:
        """Nobody asks for it any more: let go soon of what can be loaded, unless somebody asks again."""
        self._stay()
        if self._is_kept:
            # Not at once: whoever was told that it is loaded may be about to use it.
            self._unloading = asyncio.get_running_loop().call_later(_LINGER, self._drop)

    def _stay(self) -> None:
        if self._unloading is not None:
            self._unloading.cancel()
            self._unloading = None

    def _drop(self) -> None:
        self._unloading = self._made = None

    def keep(self, offer: SavedOffer) -> asyncio.Future[None]:
        """Save what :meth:`load` needs, together with the offer itself. Done when that is on the disk."""
        written = self._context.state.save(offer, self._record())
        if self._context.state.path is not None:
            written.add_done_callback(self._written)
        return written

    def _written(self, outcome: asyncio.Future[None]) -> None:
        self._is_kept = not outcome.cancelled() and outcome.exception() is None

    def _record(self) -> SavedDetails:
        stamps = tuple(self.made.stamps[index] for index in range(len(self.made.stamps)))
        details = SavedDetails(self._offer, self.made.manifest.info, stamps)
        if self.admitting is None:
            return details
        authority = self.admitting.authority
        return replace(details, certificate=authority.certificate, authority_key=authority.key)

    async def _details(self) -> SavedDetails:
        try:
            details = await self._context.state.find(SavedDetails, self._offer)
        except StateError as error:
            raise SourceChanged(f"{self._path.name}: what it was when offered cannot be read: {error}") from error
        if details is None or (self._mode is Mode.SEALED and not (details.certificate and details.authority_key)):
            raise SourceChanged(f"{self._path.name}: what it was when it was offered is not known any more")
        return details


def _summary(made: Made) -> bytes:
    return summary(made.stamps[index] for index in range(len(made.stamps)))
