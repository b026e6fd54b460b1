"""Fixtures for all tests: XMPP servers, and the check that no test leaves anything running."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import slixmpp_bt

from .servers import Ejabberd, Loopback, Process, Prosody, RealServer, Server, started


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: most tests wait most of the time, so there is room for one more than there are cores."""
    return len(os.sched_getaffinity(0)) + 1


_LIBRARY = str(Path(slixmpp_bt.__file__).parent)


@pytest.fixture(autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps its state where a user's is kept by default, in this process or another, keeps it where no other test
    looks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{secrets.token_hex(8)}"))


@pytest.fixture(scope="session")
def prosody() -> Iterator[Prosody]:
    """A Prosody process for the whole run."""
    with started(Prosody()) as process:
        yield process


@pytest.fixture(scope="session")
def ejabberd() -> Iterator[Ejabberd]:
    """An ejabberd process for the whole run."""
    with started(Ejabberd()) as process:
        yield process


_SERVERS = [
    pytest.param("loopback", marks=pytest.mark.matrix),
    pytest.param("prosody", marks=pytest.mark.server),
    pytest.param("ejabberd", marks=pytest.mark.server),
]


@pytest.fixture(params=_SERVERS)
def _kind(request: pytest.FixtureRequest) -> RealServer | None:
    """The process behind ``server``; started here because this is no coroutine, so no event loop waits for it."""
    process: RealServer | None = None if request.param == "loopback" else request.getfixturevalue(request.param)
    return process


@pytest.fixture
async def server(_kind: RealServer | None) -> AsyncIterator[Server]:
    """The library's loopback server, Prosody and ejabberd in turn, with the accounts of ``USERS``."""
    async with Loopback() if _kind is None else Process(_kind) as view:
        yield view


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> None:
    """After every asynchronous test nothing of the library may still run; see :func:`_no_task_left`."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    """Set up first, so torn down last, when whatever the test and its fixtures started has had its chance to end."""
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and _is_ours(task)]
    assert not left, f"still running after the test: {left}"


def _is_ours(task: asyncio.Task[Any]) -> bool:
    """Whether `task` runs code of the library, itself or in what it awaits (slixmpp wraps our handlers)."""
    waiting: Any = task.get_coro()
    while waiting is not None:
        code = _first(waiting, "cr_code", "ag_code", "gi_code")
        if code is not None and code.co_filename.startswith(_LIBRARY):
            return True
        waiting = _first(waiting, "cr_await", "ag_await", "gi_yieldfrom")
    return False


def _first(thing: object, *attributes: str) -> Any:
    return next((getattr(thing, name) for name in attributes if hasattr(thing, name)), None)
