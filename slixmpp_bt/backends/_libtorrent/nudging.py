"""When to hang up and dial again because the engine has stopped asking.

A receiver that does not know the piece layers asks a peer for them when it connects. If that peer has none (another
receiver) or goes before it answers, libtorrent 2.1 fetches the content all the same, and may ask nobody for the hashes
any more: everything is there, nothing is verified, and nothing moves. A new connection makes it ask again.
"""

from __future__ import annotations

#: Seconds without a byte or a piece after which it is tried first; it doubles each time, as it may be nobody's fault.
_FIRST, _MOST = 2.0, 120.0


class Nudge:
    """Watches one download from its opening until its layers are known."""

    def __init__(self) -> None:
        self._wait = _FIRST
        self._seen = (0, 0)
        self._since = 0.0

    def due(self, downloaded: int, verified: int, now: float) -> bool:
        """Whether it is time. To be called again and again while there are peers.

        :param downloaded: bytes that have come from peers.
        :param verified: bytes of the pieces that are had.
        :param now: seconds on any clock that does not go back.
        """
        if (downloaded, verified) != self._seen or not downloaded:
            self._seen, self._since = (downloaded, verified), now
        if now - self._since < self._wait:
            return False
        self._wait, self._since = min(2 * self._wait, _MOST), now
        return True
