"""Threads are waited for, whatever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from slixmpp_bt.threads import in_thread, settle


async def test_in_thread_returns_what_the_function_returns() -> None:
    assert await in_thread(divmod, 7, 3) == (2, 1)


async def test_in_thread_raises_what_the_function_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_in_thread_cancelled_tells_the_thread_and_waits_for_it() -> None:
    stop, stopped, begun = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        stop.wait()
        stopped.set()

    task = asyncio.create_task(in_thread(work, stop=stop.set))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()


async def test_in_thread_cancelled_twice_still_waits() -> None:
    go_on, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.wait([task], timeout=0.001)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_settle_of_failed_and_cancelled_futures_raises_nothing() -> None:
    loop = asyncio.get_running_loop()
    failed, cancelled = loop.create_future(), loop.create_future()
    failed.set_exception(ValueError())
    cancelled.cancel()
    await settle([failed, cancelled])
