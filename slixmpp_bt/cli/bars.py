"""Progress bars: one line for each transfer, with what is going on in words while nothing moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from .. import progress
from ..constants import Route, State
from ..router import NOT_NEEDED
from ..transfer import Transfer
from .failures import plain

_WIDTH = 24
#: The routes whose reasons matter while nothing moves, in the order in which they are tried. What is too large to come
#: inside an answer is told of nothing by that.
_TRIED = (Route.SWARM, Route.RELAY, Route.IN_BAND)


class Bars:
    """The bars on `console`. A context manager: what is left of them in the end stays on the screen.

    They move on a terminal only. Elsewhere, those that are left are printed once.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._hidden = False
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(_WIDTH),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()
        elif self._progress.tasks:
            self._console.print(self.picture())

    async def follow(self, transfer: Transfer, label: str, *, keep: bool = False) -> None:
        """Draw `transfer` until it has ended. Cancelling it stops the drawing only.

        :param keep: leave the bar as it is then. Else it gives way to a line, if there is a success to tell of.
        """
        bar = self._progress.add_task(plain(label), total=None, words="")
        self._show()
        try:
            async for now in transfer:
                self._draw(bar, transfer, now)
        finally:
            if not keep:
                self._progress.remove_task(bar)
        if transfer.complete and not keep:
            self.say(f"{label}: {words(transfer, transfer.progress)}")

    def say(self, text: object) -> None:
        """A line above the bars."""
        self._console.print(plain(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to a question meanwhile."""
        self._hidden = True
        if self._progress.live.is_started:
            self._progress.stop()
        try:
            yield
        finally:
            self._hidden = False
            self._show()

    def picture(self) -> RenderableType:
        """The bars as they stand."""
        return self._progress.get_renderable()

    def _show(self) -> None:
        if self._console.is_interactive and self._progress.tasks and not self._hidden:
            self._progress.start()

    def _draw(self, bar: TaskID, transfer: Transfer, now: progress.Progress) -> None:
        # An empty file is a full bar, not an empty one.
        total = max(now.total, 1)
        done = total if transfer.complete else now.transferred
        self._progress.update(bar, total=total, completed=done, words=plain(words(transfer, now)))


def words(transfer: Transfer, now: progress.Progress) -> str:
    """What to say beside the bar."""
    if transfer.complete:
        return f"{brought(now)}, complete"
    amount = f"{decimal(now.transferred)} of {decimal(now.total)}"
    if transfer.state is State.PREPARING:
        return f"{amount} hashed"
    if transfer.state is State.RUNNING:
        eta = "" if now.eta is None else f", {clock(now.eta)} left"
        return f"{amount}, {decimal(int(now.rate))}/s{eta}, {_source(now)}"
    return reasons(transfer.diagnosis) or str(transfer.state)


def _source(now: progress.Progress) -> str:
    streams = [route for route in now.routes if route is not Route.SWARM]
    if streams and not now.peers:
        return f"by {streams[-1]}"
    return f"{now.peers} {'peer' if now.peers == 1 else 'peers'}"


def brought(now: progress.Progress) -> str:
    """How many bytes came by which route, the most first."""
    by_size = sorted(now.routes.items(), key=lambda item: -item[1])
    return ", ".join(f"{decimal(count)} by {route}" for route, count in by_size) or decimal(now.total)


def reasons(diagnosis: Mapping[Route, str]) -> str:
    """What of a diagnosis there is to say while nothing moves: each reason once, and nothing of the routes that come
    after one that has not had its turn.
    """
    found: dict[str, list[Route]] = {}
    for route in _TRIED:
        why = diagnosis.get(route)
        if why == NOT_NEEDED:
            break
        if why:
            found.setdefault(why, []).append(route)
    if list(found.values()) in ([list(_TRIED)], [[Route.SWARM]]):
        return next(iter(found))  # it is not for one route rather than another
    return "; ".join(f"{', '.join(routes)}: {why}" for why, routes in found.items())


def clock(seconds: float) -> str:
    """A time span as a clock shows it: ``0:07``, ``12:30``, ``3:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
