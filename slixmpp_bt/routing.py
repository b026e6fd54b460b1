"""Which routes a receiver uses at a moment: pure functions of what it knows (docs/explanation, "The routes").

The swarm runs wherever it can, all the time. Beside it there is at most one stream, by relay or in-band, while the
swarm brings nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .constants import Route

#: So many bytes at most come inside the result of an Accept: with what else is in it they fit a stanza.
INLINE_MAX = 4_500
#: The streams, the better one first.
STREAMS = (Route.RELAY, Route.IN_BAND)


@dataclass(frozen=True, slots=True)
class Patience:
    """Times, in seconds.

    :ivar first: how long a swarm may take to bring its first byte before a stream begins.
    :ivar stall: how long one that moved may bring nothing.
    :ivar hopeless: how long a swarm that never brought anything is waited for where no other route is left.
    :ivar rest: how long in-band is left alone after it failed; it doubles with each failure up to `most`.
    :ivar relay_rest: the same for a relay, beside which in-band goes on meanwhile.
    """

    first: float = 3.0
    stall: float = 5.0
    hopeless: float = 120.0
    rest: float = 2.0
    relay_rest: float = 30.0
    most: float = 120.0

    def after(self, failures: int, route: Route) -> float:
        """How long to leave a route alone that has failed so many times in a row."""
        first = self.relay_rest if route is Route.RELAY else self.rest
        return float(min(first * 2 ** min(failures - 1, 16), self.most))


@dataclass(frozen=True, slots=True)
class Situation:
    """What the receiver knows.

    :ivar excluded: the routes that cannot be used, and why, in words.
    :ivar resting: the routes that have failed just now.
    :ivar idle: for how many seconds the swarm has brought nothing.
    :ivar moved: whether it ever brought anything.
    """

    excluded: Mapping[Route, str]
    resting: Collection[Route]
    idle: float
    moved: bool


def choose(now: Situation, patience: Patience) -> Route | None:
    """The stream that has to run now; None if the swarm does, or nothing can."""
    if Route.SWARM not in now.excluded and now.idle < (patience.stall if now.moved else patience.first):
        return None
    return next((route for route in STREAMS if route not in now.excluded and route not in now.resting), None)


def hopeless(now: Situation, patience: Patience) -> bool:
    """Whether no way is left: every route is excluded, or all but a swarm that has never brought a byte for long."""
    if any(route not in now.excluded for route in STREAMS):
        return False
    return Route.SWARM in now.excluded or (not now.moved and now.idle >= patience.hopeless)


def too_large_for_in_band(left: int, limit: int) -> str | None:
    """Why `left` bytes do not go in-band; None if they do."""
    return f"{left} bytes are left, and in_band_max_size is {limit}" if left > limit else None


def too_slow(left: int, rate: float, seconds: float) -> str | None:
    """Why `left` bytes at `rate` bytes per second do not arrive within `seconds`; None if they do, or nobody knows."""
    if rate <= 0 or left <= rate * seconds:
        return None
    return f"at {rate / 1000:.1f} kB/s it would take {left / rate / 3600:.1f} hours, longer than the transfer may live"
