"""A cap on a rate, for what goes over streams: the engine has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: So many seconds' worth may go at once after a pause.
_BURST = 0.25


class Pace:
    """Lets through so many bytes per second.

    :param limit: asked each time, so that it may change; None is no limit.
    """

    def __init__(self, limit: Callable[[], int | None]) -> None:
        self._limit = limit
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Return when `count` bytes may go. Cancelling it has let them count."""
        limit = self._limit()
        if limit is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST) + count / limit
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
