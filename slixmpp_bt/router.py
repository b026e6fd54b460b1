"""The routes of one incoming transfer at work: looks what moves, and begins and ends streams as routing says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from . import routing
from .backends import Download
from .constants import Route
from .context import Context
from .errors import BackendClosed, BTError, NoRoute, ProtocolError
from .fetching import Fetcher, Strike
from .routing import STREAMS, Situation
from .tasks import end
from .wire import StreamBroken

log = logging.getLogger(__name__)

#: What a diagnosis says of a route that has not had its turn.
NOT_NEEDED = "it was not needed so far"
#: How often routes are looked at, in seconds.
_TICK = 0.25
#: The swarm counts as in use while its last byte is no older, in seconds.
_IN_USE = 2.0
#: So many strikes end a route.
_STRIKES = 3
#: In-band is measured for so many seconds before its rate is judged.
_MEASURED = 20.0


@dataclass(slots=True)
class _Trouble:
    """What is wrong with a route."""

    failures: int = 0
    strikes: int = 0
    until: float = 0.0
    why: str = ""


class Router:
    """Decides by which routes one download is filled, while it runs.

    :param fail: ends the transfer.
    :param over: the sender says that the offer has ended.
    :param left: bytes that are missing.
    :param time_left: seconds that the transfer may still live.
    :ivar why_not: in words, why the swarm does not move.
    """

    def __init__(
        self, context: Context, download: Download, fetcher: Fetcher, *,
        fail: Callable[[BTError], None], over: Callable[[ProtocolError], None],
        left: Callable[[], int], time_left: Callable[[], float],
    ) -> None:  # fmt: skip
        self.fetcher = fetcher
        self.why_not = "the sender has not answered yet"
        self._context = context
        self._download = download
        self._fail = fail
        self._over = over
        self._left = left
        self._time_left = time_left
        self._excluded: dict[Route, str] = {}
        self._trouble: dict[Route, _Trouble] = {}
        self._running: Route | None = None
        self._stream: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._began, self._had = 0.0, 0
        self._brought = 0
        self._moved = False
        self._last = 0.0

    def start(self, excluded: dict[Route, str]) -> None:
        """The sender has answered: begin, or begin anew.

        :param excluded: the routes that the configuration or the sender leaves out, and why.
        """
        self._excluded = dict(excluded)
        self._trouble.clear()
        if self._runner is None or self._runner.done():
            self._last = asyncio.get_running_loop().time()
            self._runner = self._context.tasks.spawn(self._run(), "routes")

    async def stop(self) -> None:
        """Use no route until :meth:`start`; a stream is closed when this returns. Cancelling it leaves the stream to
        close by itself; the next one waits for that."""
        running = [task for task in (self._runner, self._stream) if task is not None]
        self._runner = None
        await end(*running)

    def diagnosis(self) -> dict[Route, str]:
        """In words, why each route is not in use."""
        reasons = {Route.INLINE: "it is too large for a stanza"} | self._reasons()
        if Route.SWARM not in reasons and not self._swarm_moves:
            reasons[Route.SWARM] = self.why_not
        for route in STREAMS:
            trouble = self._trouble.get(route)
            if route is self._running:
                reasons.pop(route, None)
            elif route not in reasons:
                reasons[route] = f"it failed: {trouble.why}" if trouble is not None else NOT_NEEDED
        return reasons

    @property
    def _swarm_moves(self) -> bool:
        return self._moved and asyncio.get_running_loop().time() - self._last < _IN_USE

    async def _run(self) -> None:
        try:
            await self._end_stream()  # one that a runner before this one has begun
            while True:
                self._look()
                now = self._situation()
                if routing.hopeless(now, self._context.patience):
                    reasons = self.diagnosis() | dict(now.excluded)
                    words = "; ".join(f"{route}: {why}" for route, why in reasons.items() if route is not Route.INLINE)
                    self._fail(NoRoute(f"no way to the sender is left ({words})", reasons))
                    return
                wanted = routing.choose(now, self._context.patience)
                if wanted is not self._running:
                    await self._end_stream()
                    self._begin_stream(wanted)
                await self._nap()
        except BackendClosed:  # everything is here
            pass
        finally:
            await self._end_stream()

    async def _nap(self) -> None:
        if self._stream is None:
            await asyncio.sleep(_TICK)
            return
        await asyncio.wait([self._stream], timeout=_TICK)
        if self._stream.done():
            self._stream = self._running = None

    def _look(self) -> None:
        """Note whether the swarm has brought anything."""
        now, brought = asyncio.get_running_loop().time(), self._download.status().downloaded
        if brought > self._brought:
            self._moved, self._last = True, now
        self._brought = brought

    def _situation(self) -> Situation:
        now = asyncio.get_running_loop().time()
        resting = [route for route, trouble in self._trouble.items() if trouble.until > now]
        return Situation(self._reasons(), resting, now - self._last, self._moved)

    def _reasons(self) -> dict[Route, str]:
        """Why each route that is excluded is."""
        reasons = dict(self._excluded)
        if Route.IN_BAND not in reasons:
            left = self._left()
            if why := routing.too_large_for_in_band(left, self._context.config.limits.in_band_max_size):
                reasons[Route.IN_BAND] = why
            elif why := self._too_slow(left):
                reasons[Route.IN_BAND] = self._excluded[Route.IN_BAND] = why
        return reasons

    def _too_slow(self, left: int) -> str | None:
        lasted = asyncio.get_running_loop().time() - self._began
        if self._running is not Route.IN_BAND or lasted < _MEASURED:
            return None
        return routing.too_slow(left, (self.fetcher.received - self._had) / lasted, self._time_left())

    def _begin_stream(self, route: Route | None) -> None:
        self._running = route
        if route is not None:
            log.info("fetching by %s", route)
            self._began, self._had = asyncio.get_running_loop().time(), self.fetcher.received
            self._stream = self._context.tasks.spawn(self._fetch(route), f"fetch by {route}")

    async def _end_stream(self) -> None:
        """It stays the one stream until it has let go: until then its pieces are claimed."""
        stream, self._running = self._stream, None
        if stream is not None:
            await end(stream)
            if self._stream is stream:
                self._stream = None

    async def _fetch(self, route: Route) -> None:
        before = self.fetcher.received
        try:
            await self.fetcher.run(route)
        except BackendClosed:
            pass
        except ProtocolError as error:
            self._over(error)
        except StreamBroken as error:
            self._note(route, error, moved=self.fetcher.received > before)
        except BTError as error:
            self._fail(error)
        else:
            self._trouble.pop(route, None)

    def _note(self, route: Route, error: StreamBroken, *, moved: bool) -> None:
        log.info("%s failed: %s", route, error)
        trouble = self._trouble.setdefault(route, _Trouble())
        trouble.failures = 1 if moved else trouble.failures + 1
        trouble.strikes += isinstance(error, Strike)
        trouble.why = str(error)
        trouble.until = asyncio.get_running_loop().time() + self._context.patience.after(trouble.failures, route)
        if error.final or trouble.strikes >= _STRIKES:
            self._excluded[route] = trouble.why
