"""A disk that does not take what arrives, or not now. What may pass is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .context import Context
from .errors import StorageError
from .negotiation import Event
from .storage import Landing
from .transfer import Transfer

#: How often a full disk is looked at, in seconds.
_TICK = 5.0


class Disk:
    """The disk on which one download lands.

    :ivar trouble: what is waited for; None while the disk takes everything.
    :param transfer: hears of trouble (BLOCKED, or FAIL if it is not one to wait for), and of its end.
    :param why: is told in words why nothing moves.
    :param go_on: has the download go on; whether everything is there already.
    """

    def __init__(
        self, context: Context, landing: Landing, transfer: Transfer, why: Callable[[str], None],
        go_on: Callable[[], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self.trouble: StorageError | None = None
        self._context = context
        self._landing = landing
        self._transfer = transfer
        self._why = why
        self._go_on = go_on

    def failed(self, error: StorageError) -> None:
        """What may pass is waited for; another trouble ends the transfer."""
        if not error.temporary:
            self._transfer.feed(Event.FAIL, error)
            return
        if self.trouble is None:
            self.trouble = error
            self._why(f"it waits for the disk: {error}")
        self._transfer.feed(Event.BLOCKED)

    async def watch(self) -> None:
        """Stop before the disk is full, and go on once it takes the rest."""
        while True:
            await asyncio.sleep(_TICK)
            reserve = self._context.config.limits.min_free_space
            try:
                if self.trouble is None:
                    await self._landing.check_reserve(reserve)
                else:
                    await self._landing.check_space(reserve)
                    await self._take_up()
            except StorageError as error:
                self.failed(error)

    async def _take_up(self) -> None:
        all_here = await self._go_on()
        self.trouble = None
        self._why("dialling the sender")
        self._transfer.feed(Event.HAVE_ALL if all_here else Event.FOUND)
