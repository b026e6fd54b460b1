"""A client that has left, or whose program ends: everything is closed then, and somebody waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from slixmpp import BaseXMPP

#: A client that disconnects and does not begin to connect again within so many seconds has left.
_GRACE = 5.0

#: Plugins that are closing: a task needs somebody who holds it, and a disabled plugin is held by nobody.
_closing: set[asyncio.Task[None]] = set()


class Leaving:
    """Closes one plugin in time.

    :param close: closes everything; does nothing if everything is closed.
    """

    def __init__(self, xmpp: BaseXMPP, close: Callable[[], Awaitable[None]]) -> None:
        self._xmpp = xmpp
        self._close = close
        self._guard: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def session_started(self) -> None:
        """The client is there, and something is to be closed from now on."""
        self._stay()
        if self._guard is None or self._guard.done():
            self._guard = asyncio.get_running_loop().create_task(self._keep(), name="slixmpp_bt guard")

    def disconnected(self) -> None:
        """The client may come back."""
        if self._timer is None and not self._xmpp.is_connected():
            self._timer = asyncio.get_running_loop().call_later(_GRACE, self._left)

    def closing(self) -> None:
        """Everything is being closed."""
        self._stay()
        if self._guard is not None and self._guard is not asyncio.current_task():
            self._guard.cancel()

    def close(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` close everything, whoever forgets the plugin meanwhile."""
        task = asyncio.get_running_loop().create_task(work, name="slixmpp_bt close")
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _keep(self) -> None:
        """Close everything when the loop is shut down around us (``asyncio.run`` cancels what is left)."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._close()

    def _left(self) -> None:
        self._timer = None
        if not (self._xmpp.is_connected() or self._xmpp.is_connecting()):
            self.close(self._run())

    async def _run(self) -> None:
        await self._close()
