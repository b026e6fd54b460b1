"""The check that every test of the library goes through."""

from __future__ import annotations

import asyncio

import pytest

from slixmpp_bt.backends import EventStream

from .conftest import _is_ours

pytest_plugins = ["pytester"]


async def _wraps(stream: EventStream) -> None:
    async for _ in stream:
        pass


async def test_is_ours_library_code_awaited_by_foreign_code_is_found() -> None:
    stream = EventStream()
    task = asyncio.create_task(_wraps(stream))
    await asyncio.sleep(0)
    assert _is_ours(task)
    stream.close()
    await task


async def test_is_ours_foreign_task_is_not() -> None:
    forever = asyncio.Event()
    task = asyncio.create_task(forever.wait())
    await asyncio.sleep(0)
    assert not _is_ours(task)
    forever.set()
    await task


def test_tidy_task_left_behind_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest("from tests.conftest import _no_task_left, _tidy")
    pytester.makepyfile("""
        import asyncio
        from slixmpp_bt.backends import EventStream

        kept = []

        async def test_leaves_one():
            kept.append(asyncio.create_task(EventStream().__anext__()))
            await asyncio.sleep(0)

        async def test_leaves_none():
            stream = EventStream()
            task = asyncio.create_task(anext(stream, None))
            stream.close()
            await task
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*still running after the test*"])
