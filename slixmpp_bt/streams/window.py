"""How many blocks of a stream may be on their way at once: what the path carries without making anybody wait.

Servers throttle by reading more slowly, and say nothing; all that a session sends waits in one queue then, a chat
message behind the blocks. So a growing round trip is the only sign, and it has to be kept short. As in TCP Vegas the
measure is what the round trip takes beyond the shortest one seen.
"""

from __future__ import annotations

#: Bytes in a block. RECOMMENDED by XEP-0047 section 6; as base64 in a stanza it also fits one write of Prosody's, which
#: stalls on larger ones.
BLOCK = 4_096
#: To what a block shrinks, in bytes, where one alone keeps others waiting; still two thirds of its stanza are content.
SMALLEST_BLOCK = 1_024
#: The largest window, in blocks.
LARGEST = 32

#: Waiting, in seconds beyond the shortest round trip, up to which the window may grow; ...
_SHORT = 0.1
#: ... and from which it shrinks.
_LONG = 0.5
#: From here on, in seconds, blocks become smaller once there is only one at a time; and the window does not grow, even
#: if the round trip was never shorter: so looks a throttled path whose allowance was used up before the stream began.
_SLOW = 1.0
#: How many blocks must have gone through without waiting for each one on its way. A server lets a burst through before
#: it throttles (Debian's Prosody and ejabberd: 20,000 bytes, 3.5 blocks): that says nothing about what follows.
_PROOF = 4

#: Seconds to wait for an answer: at least, at most, and as a multiple of the usual round trip.
_PATIENCE = (60.0, 300.0)
_PATIENCE_ROUND_TRIPS = 10


class Window:
    """The window of one stream. It knows no clock and sends nothing.

    :param shortest: seconds of the shortest round trip that an earlier stream to the same peer has seen.
    :ivar size: how many blocks may be on their way; from 1 to :data:`LARGEST`.
    :ivar block: how large a block may be, in bytes; from :data:`SMALLEST_BLOCK` to :data:`BLOCK`.
    :ivar shortest: seconds of the shortest round trip so far.
    """

    def __init__(self, shortest: float = float("inf")) -> None:
        self.size = 1
        self.block = BLOCK
        self.shortest = shortest
        self._proven = 0
        self._usual: float | None = None

    def answered(self, round_trip: float, flight: int) -> None:
        """A block was answered.

        :param round_trip: seconds since it was sent.
        :param flight: how many blocks were on their way then, itself included.
        """
        self.shortest = min(self.shortest, round_trip)
        self._usual = round_trip if self._usual is None else 0.75 * self._usual + 0.25 * round_trip
        waited = round_trip - self.shortest
        if waited >= _LONG:
            if flight == 1 and waited >= _SLOW:
                self.block = max(SMALLEST_BLOCK, self.block // 2)
            self._shrink(int(flight * _LONG / waited))
        elif waited < _SHORT and self.block < BLOCK:
            self.block *= 2
        elif waited < _SHORT and round_trip < _SLOW and 2 * flight >= self.size:
            self._proven += 1
            self.size = max(1, min(LARGEST, self._proven // _PROOF))

    def failed(self) -> None:
        """A block was refused for the time being."""
        self._shrink(1)

    @property
    def patience(self) -> float:
        """Seconds after which a block counts as lost."""
        least, most = _PATIENCE
        if self._usual is None:
            return 2 * least
        return min(most, max(least, _PATIENCE_ROUND_TRIPS * self._usual))

    def _shrink(self, size: int) -> None:
        self.size = max(1, min(self.size, size))
        self._proven = self.size * _PROOF
