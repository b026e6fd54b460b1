"""How far a transfer has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .constants import Route

#: At most so many reports a second.
PER_SECOND = 4
#: The rate is averaged over about so many seconds.
_WINDOW = 3.0
#: Moments closer than so many seconds say nothing about a rate.
_SHORTEST = 0.02


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a transfer.

    :ivar transferred: bytes that are verified (receiver), sent (sender) or, while it is preparing, hashed.
    :ivar total: bytes wanted.
    :ivar rate: bytes per second, averaged over the last few.
    :ivar eta: seconds to the end at that rate; None while nothing moves.
    :ivar routes: bytes by the route that brought them.
    :ivar peers: how many peers are connected.
    """

    transferred: int = 0
    total: int = 0
    rate: float = 0.0
    eta: float | None = None
    routes: Mapping[Route, int] = field(default_factory=dict)
    peers: int = 0


class Meter:
    """Makes a rate of byte counts that are given to it with their times (seconds).

    At first it is the average of all there is, then, as time goes on, of the last few seconds. A count that falls
    begins something new.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._elapsed = 0.0
        self._last: tuple[float, int] | None = None

    def add(self, now: float, transferred: int) -> None:
        """Note that `transferred` bytes are there at `now`."""
        if self._last is None or transferred < self._last[1]:
            self.rate, self._elapsed, self._last = 0.0, 0.0, (now, transferred)
            return
        then, before = self._last
        elapsed = now - then
        if elapsed < _SHORTEST:
            return
        self._elapsed = min(self._elapsed + elapsed, _WINDOW)
        weight = min(1.0, elapsed / self._elapsed)
        self.rate += weight * ((transferred - before) / elapsed - self.rate)
        self._last = now, transferred

    def eta(self, left: int) -> float | None:
        """Seconds until `left` bytes have come at the present rate; None if that is as good as nothing."""
        return max(0, left) / self.rate if self.rate >= 1.0 else None
