"""Futures that alerts answer."""

from __future__ import annotations

import asyncio
from typing import Any

from ...errors import BTError


def answer(future: asyncio.Future[Any], value: object = None) -> None:
    """Give `future` its result, unless it is done."""
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], error: BTError) -> None:
    """End `future` with `error`, unless it is done. Nobody needs to be waiting for it any more."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # counts as seen


async def within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for `future`, and say whether it came in time. Its error is raised."""
    done, _ = await asyncio.wait((future,), timeout=seconds)
    if done:
        future.result()
    return bool(done)
