"""How far a transfer is, looked at several times a second while something may move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from .constants import State
from .progress import PER_SECOND, Meter, Progress

#: How often a waiting transfer looks whether something moves again, in seconds.
_WAITING_TICK = 1.0


class Sampling:
    """The samples of one transfer.

    :ivar latest: the newest.
    :ivar version: how many there were.
    :param measure: counts; rate and eta are filled in here.
    :param state: the transfer's.
    :param moved: called after a sample that shows more than the one before.
    """

    def __init__(self, measure: Callable[[], Progress], state: Callable[[], State], moved: Callable[[], None]) -> None:
        self.latest = Progress()
        self.version = 0
        self._measure = measure
        self._state = state
        self._on_moved = moved
        self._meter = Meter()
        self._timer: asyncio.TimerHandle | None = None
        self._moved = False
        self._sampled = 0.0
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Return with the next sample."""
        await self._changed.wait()

    def touch(self) -> None:
        """There are new counts: take a sample as soon as it is due."""
        if self._timer is None and not self._state().terminal:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._sampled + 1 / PER_SECOND), self._look)

    def watch(self) -> None:
        """The state has changed: look as often as is of use in this one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        state = self._state()
        if state in (State.CONNECTING, State.RUNNING, State.WAITING):
            pause = _WAITING_TICK if state is State.WAITING else 1 / PER_SECOND
            self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def forget(self) -> None:
        """What was counted before says nothing of now."""
        self._moved = False

    def take(self) -> None:
        """Look now."""
        measured, state = self._measure(), self._state()
        self._sampled = now = asyncio.get_running_loop().time()
        self._meter.add(now, measured.transferred)
        rate = max(0.0, self._meter.rate) if state is State.RUNNING else 0.0
        eta = self._meter.eta(measured.total - measured.transferred) if rate else None
        new = replace(measured, rate=rate, eta=0.0 if state is State.COMPLETE else eta)
        self._moved |= new.transferred > self.latest.transferred
        self.latest = new
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _look(self) -> None:
        self._timer = None
        self.take()
        if self._moved:
            self._moved = False
            self._on_moved()
        if self._timer is None:
            self.watch()
