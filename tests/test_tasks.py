"""Tasks: held while they run, awaited at the end, and their failures are not lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from slixmpp_bt.tasks import Tasks, end


async def test_aclose_when_tasks_run_cancels_and_awaits_them() -> None:
    tasks, said = Tasks(), []

    async def run() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            said.append("tidied")

    running = [tasks.spawn(run(), "run") for _ in range(3)]
    await asyncio.sleep(0)
    await tasks.aclose()
    assert said == ["tidied"] * 3
    assert all(task.cancelled() for task in running)
    await tasks.aclose()


async def test_aclose_when_a_task_begins_another_awaits_that_too() -> None:
    tasks = Tasks()
    later: list[asyncio.Task[None]] = []

    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            await wait()
        finally:
            later.append(tasks.spawn(wait(), "later"))

    tasks.spawn(run(), "run")
    await asyncio.sleep(0)
    await tasks.aclose()
    assert later[0].cancelled()


async def test_spawn_after_aclose_begins_nothing() -> None:
    tasks, said = Tasks(), []

    async def run() -> None:
        said.append("begun")

    await tasks.aclose()
    late = tasks.spawn(run(), "late")
    with pytest.raises(asyncio.CancelledError):
        await late
    assert said == []


async def test_aclose_by_one_of_the_tasks_leaves_that_one() -> None:
    tasks = Tasks()

    async def close() -> str:
        await tasks.aclose()
        return "closed"

    assert await tasks.spawn(close(), "close") == "closed"


async def test_task_that_fails_is_logged_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise RuntimeError("broken")

    task = tasks.spawn(fail(), "fragile thing")
    with caplog.at_level(logging.ERROR):
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert "fragile thing" in caplog.text
    assert "RuntimeError: broken" in caplog.text


async def test_end_lets_what_is_ending_take_its_last_steps() -> None:
    steps = []
    last = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await last.wait()
            steps.append("last")

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    ends = [asyncio.ensure_future(end(task)) for _ in range(2)]
    await asyncio.sleep(0)
    last.set()
    await asyncio.wait_for(asyncio.gather(*ends), 20)
    assert steps == ["last"]
    assert task.cancelled()
    await end(task)
    await end()
