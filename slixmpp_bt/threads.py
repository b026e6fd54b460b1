"""Waiting for threads: a thread cannot be cancelled, so whoever started one waits until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: object, stop: Callable[[], object] = lambda: None) -> T:
    """Call `function` in a thread and return what it returns.

    A cancellation calls `stop` and is raised once the thread has ended, so that nothing goes on behind the caller's
    back.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop()
        raise
    finally:
        await settle([thread])


async def settle(futures: Sequence[asyncio.Future[Any]]) -> None:
    """Wait until all `futures` are done, whatever cancels this meanwhile; a cancellation is raised afterwards.

    Their results and exceptions count as seen.
    """
    cancelled: asyncio.CancelledError | None = None
    while not all(future.done() for future in futures):
        try:
            await asyncio.wait(futures)
        except asyncio.CancelledError as error:
            cancelled = error
    for future in futures:
        if not future.cancelled():
            future.exception()
    if cancelled is not None:
        raise cancelled
