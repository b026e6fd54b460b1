"""Whoever starts a task owns it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """Owns tasks: each is kept until it is done, and :meth:`aclose` cancels and awaits what is left.

    After that nothing begins any more: what the other side still says while its connection is being closed would
    otherwise start what nobody waits for.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `coroutine` until it ends or :meth:`aclose`. It handles its own errors; another one is logged."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"slixmpp_bt {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if self._closed:
            task.cancel()
        return task

    async def aclose(self) -> None:
        """Cancel all and wait for their end, also of those that begin meanwhile; a task that calls it is left out.

        Cancelling it leaves the rest to end by themselves: they are cancelled already.
        """
        while others := {task for task in self._tasks if task is not asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            self._tasks -= others
        self._closed = True

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks` and wait for their end, but cancel none that is ending already: that would break off its last
    steps. Cancelling this leaves them to end by themselves."""
    for task in tasks:
        if not task.cancelling():
            task.cancel()
    if tasks:
        await asyncio.wait(tasks)
