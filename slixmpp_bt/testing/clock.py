"""Time that stands still until a test moves it on."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Self


class Clock:
    """A clock for everything that waits: entered, it is the running event loop's too.

    ::

        with Clock() as clock:
            sleeping = asyncio.ensure_future(asyncio.sleep(3600))
            await clock.advance(3600)
            await sleeping

    While it is entered no timer of the loop fires by itself, time-outs included. What threads and sockets do goes on.

    :param start: what it shows at first, in seconds since the epoch.
    :param seed: of :attr:`rng`.
    :ivar rng: dice that always fall alike.
    """

    def __init__(self, start: float = 1_800_000_000.0, seed: int = 1) -> None:
        self.rng = random.Random(seed)  # noqa: S311 (chance that repeats itself is the point)
        self._now = start
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # Timers that are set already keep their distance.
        self._offset = self._loop.time() - self._now
        self._loop.time = lambda: self._now + self._offset  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._loop.time  # type: ignore[union-attr]

    async def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let `seconds` pass, in steps of at most `step` seconds, after each of which what has become due runs."""
        until = self._now + seconds
        while self._now < until:
            self._now = min(self._now + step, until)
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)


#: Rounds of the loop in which what a timer starts gets as far as it can without waiting.
_ROUNDS = 20
