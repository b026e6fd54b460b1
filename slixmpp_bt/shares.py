"""Shares: who fetches which pieces first, so that a sender uploads about one copy, however many receive.

Pure: time, chance and what is known of the swarm are arguments. The sender deals (:func:`deal`); each receiver asks for
the pieces of its own share, and for others in the order that :class:`Turns` says.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import TYPE_CHECKING, TypeVar

from .messages import MAX_SHARES, Share

if TYPE_CHECKING:
    import random

T = TypeVar("T", bound=Hashable)

#: Everything at once: the share of somebody alone.
WHOLE = Share(0, 1)

#: With so few pieces to ask for, a receiver has nothing to do; and after so many seconds of that it takes pieces of
#: others' shares, a few at first and each time more.
_FEW, _BORED = 2, 0.4
_FIRST, _MORE = 8, 3
#: Where no byte has come for so many seconds, everything may be asked for.
_STILL = 3.0
#: A look that comes so many seconds after the last one says nothing of the time between.
_GAP = 1.5


def deal(receivers: Sequence[T]) -> dict[T, Share]:
    """A share for each of `receivers`, in the order in which they came; somebody alone gets everything."""
    count = min(len(receivers), MAX_SHARES)
    return {receiver: Share(number % count, count) for number, receiver in enumerate(receivers)}


def own(share: Share, pieces: Collection[int]) -> frozenset[int]:
    """Those of `pieces` that are in `share`."""
    return frozenset(piece for piece in pieces if piece % share.count == share.index)


class Turns:
    """The order in which one receiver may ask for the pieces that it misses.

    First those of its own share. Others as soon as somebody besides the sender has them. When none of these are left
    to ask for, a few of the rest, and each time more: the one whose share they are is slow, gone, or has no way here.
    So nobody waits for anybody, and what is fetched from the sender twice is little. A peer that lies about what it has
    can make pieces be asked for early, and no more.

    :param missing: the pieces that are wanted and not had.
    :ivar closed: those that are not to be asked for yet.
    """

    def __init__(self, share: Share, missing: Collection[int], rng: random.Random) -> None:
        self.share = share
        self.closed = set(missing) - own(share, missing)
        self._rng = rng
        self._bunch = _FIRST
        self._looked: float | None = None
        self._bored_since = self._still_since = 0.0
        self._downloaded = -1
        self._whole, self._peers = 0, list[int]()

    def look(self, missing: Collection[int], peers: Sequence[int], downloaded: int, now: float) -> frozenset[int]:
        """The pieces that may be asked for from now on, too.

        To be called again and again while there are peers.

        :param missing: the pieces that are wanted, not had, and fetched by no other route.
        :param peers: for each piece, how many of those connected to have it; who is connected twice counts twice.
        :param downloaded: bytes that have come from them so far.
        :param now: seconds on any clock that does not go back.
        """
        self._watch(downloaded, now)
        self.closed.intersection_update(missing)
        if now - self._still_since >= _STILL:
            return self._open(self.closed)
        self._count_whole(peers)
        found = {piece for piece in self.closed if piece < len(peers) and peers[piece] > self._whole}
        if len(missing) - len(self.closed) + len(found) > _FEW:
            self._bored_since = now
        elif now - self._bored_since >= _BORED:
            found |= self._take(self.closed - found, peers)
            self._bored_since = now
        return self._open(found)

    def _watch(self, downloaded: int, now: float) -> None:
        if self._looked is None or now - self._looked > _GAP:
            self._bored_since = self._still_since = now
        if downloaded != self._downloaded:
            self._downloaded, self._still_since = downloaded, now
        self._looked = now

    def _count_whole(self, peers: Sequence[int]) -> None:
        """Count who had everything from the beginning: the sender, once for each address by which it is connected.

        When such a one connects or hangs up, the numbers of all pieces change at once; when a receiver gets its last
        piece, only that one's does.
        """
        if len(peers) == len(self._peers):
            changes = [now - before for now, before in zip(peers, self._peers, strict=True)]
            whole = self._whole + max(0, min(changes, default=0)) + min(0, max(changes, default=0))
        else:
            whole = min(peers, default=0)
        self._whole, self._peers = max(0, min(whole, min(peers, default=0))), list(peers)

    def _take(self, closed: Collection[int], peers: Sequence[int]) -> set[int]:
        """Any: everybody who has nothing to do takes other ones, most likely."""
        there = sorted(piece for piece in closed if piece < len(peers) and peers[piece]) or sorted(closed)
        count, self._bunch = min(self._bunch, len(there)), self._bunch * _MORE
        return set(self._rng.sample(there, count))

    def _open(self, pieces: Collection[int]) -> frozenset[int]:
        found = frozenset(pieces)
        self.closed -= found
        return found
