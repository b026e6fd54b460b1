"""The last words of transfers: kept, and repeated at the next contact, until they are answered or too old."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from slixmpp import JID

from .errors import BTError, PeerGone, ProtocolError
from .messages import End
from .tasks import Tasks
from .wire import Wire

log = logging.getLogger(__name__)

#: Conditions that mean "not now" rather than "no": the End is kept.
NOT_NOW = frozenset({
    "internal-server-error", "item-not-found", "recipient-unavailable", "remote-server-not-found",
    "remote-server-timeout", "resource-constraint", "service-unavailable",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Letter:
    end: End
    to: JID
    sender: JID
    until: float


class Outbox:
    """Ends that the other side has not answered yet."""

    def __init__(self, wire: Wire, tasks: Tasks) -> None:
        self._wire = wire
        self._tasks = tasks
        self._letters: list[_Letter] = []

    def post(self, end: End, to: JID, *, sender: JID, until: float) -> None:
        """Send `end` now, and again with :meth:`retry` until it is answered or `until` (seconds since the epoch)."""
        letter = _Letter(end, to, sender, until)
        self._letters.append(letter)
        self._tasks.spawn(self._deliver(letter), f"end {end.id}")

    def retry(self, now: float, peer: JID | None = None) -> None:
        """There is contact again: with everybody (a new session), or with the account of `peer`."""
        self._letters = [letter for letter in self._letters if letter.until > now]
        for letter in self._letters:
            if peer is None or letter.to.bare == peer.bare:
                self._tasks.spawn(self._deliver(letter), f"end {letter.end.id}")

    async def _deliver(self, letter: _Letter) -> None:
        try:
            await self._wire.request(letter.end, letter.to, sender=letter.sender)
        except PeerGone:
            return
        except ProtocolError as error:
            if error.condition in NOT_NOW:
                return
            log.debug("%s does not want to know of the end of %s: %s", letter.to, letter.end.id, error)
        except BTError:
            log.exception("could not tell %s the end of %s", letter.to, letter.end.id)
        if letter in self._letters:
            self._letters.remove(letter)
