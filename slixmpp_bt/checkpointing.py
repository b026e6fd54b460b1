"""How far a download has come is saved now and then, so that a later run can go on with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .backends import Download
from .context import Context
from .errors import BTError
from .manifest import Manifest
from .state import RouteBytes, SavedCheckpoint

log = logging.getLogger(__name__)

#: Seconds between two checkpoints; and before the piece layers are known, without which a later run could not tell
#: which of the pieces stored since are right.
_PACE, _FIRST_PACE = 5.0, 0.1


class Checkpoints:
    """Those of one download.

    :param transfer: its transfer's id.
    :param routes: how many bytes have come by which route.
    :param takes: whether the disk takes anything now.
    """

    def __init__(
        self, context: Context, transfer: str, manifest: Manifest, download: Download,
        routes: Callable[[], RouteBytes], takes: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._context = context
        self._transfer = transfer
        self._manifest = manifest
        self._download = download
        self._routes = routes
        self._takes = takes
        self._arrived = asyncio.Event()

    def arrived(self) -> None:
        """A piece was stored."""
        self._arrived.set()

    async def keep(self) -> None:
        """Save now and then how far it has come, as long as pieces arrive."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            known = self._takes() and await self.save()
            await asyncio.sleep(_PACE if known else _FIRST_PACE)

    async def save(self) -> bool:
        """Returns whether the next run can tell by it which pieces are right."""
        try:
            layers = await self._download.layers()
            data = await self._download.checkpoint()
        except BTError as error:
            log.debug("%s: no checkpoint: %s", self._transfer, error)
            return False
        self._context.state.save(SavedCheckpoint(self._transfer, data, self._routes()))
        return bool(layers) or self._manifest.verifiable
