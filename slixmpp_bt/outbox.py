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
#: So many Ends are kept for one account, and for so many accounts; the oldest goes first.
_MAX_LETTERS, _MAX_ACCOUNTS = 256, 1_000


@dataclass(slots=True, eq=False)
class _Letter:
    end: End
    to: JID
    sender: JID
    until: float
    #: Whether it is under way, and whether there was contact since it left.
    sending: bool = False
    again: bool = False


class Outbox:
    """Ends that the other side has not answered yet."""

    def __init__(self, wire: Wire, tasks: Tasks) -> None:
        self._wire = wire
        self._tasks = tasks
        self._letters: dict[str, list[_Letter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._letters.values()))

    def take_over(self, other: Outbox) -> None:
        """Go on with what `other`, which is closed, could not deliver."""
        self._letters, other._letters = other._letters, {}
        for letters in self._letters.values():
            for letter in letters:
                letter.sending = False

    def post(self, end: End, to: JID, *, sender: JID, until: float) -> None:
        """Send `end` now, and again with :meth:`retry` until it is answered or `until` (seconds since the epoch)."""
        if to.bare not in self._letters and len(self._letters) >= _MAX_ACCOUNTS:
            del self._letters[next(iter(self._letters))]
        letters = self._letters.setdefault(to.bare, [])
        letters.append(_Letter(end, to, sender, until))
        del letters[:-_MAX_LETTERS]
        self._send(letters[-1])

    def retry(self, now: float, peer: JID | None = None) -> None:
        """There is contact again: with everybody (a new session), or with the account of `peer`."""
        for account in list(self._letters) if peer is None else [peer.bare]:
            self.prune(now, account)
            for letter in self._letters.get(account, ()):
                self._send(letter)

    def prune(self, now: float, account: str | None = None) -> None:
        """Forget what is too old."""
        for bare in list(self._letters) if account is None else [account]:
            kept = [letter for letter in self._letters.pop(bare, ()) if letter.until > now]
            if kept:
                self._letters[bare] = kept

    def _send(self, letter: _Letter) -> None:
        if letter.sending:
            letter.again = True
            return
        letter.sending = True
        self._tasks.spawn(self._deliver(letter), f"end {letter.end.id}")

    async def _deliver(self, letter: _Letter) -> None:
        try:
            while True:
                letter.again = False
                if await self._is_settled(letter):
                    self._drop(letter)
                    return
                if not letter.again:
                    return
        finally:
            letter.sending = False

    async def _is_settled(self, letter: _Letter) -> bool:
        try:
            await self._wire.request(letter.end, letter.to, sender=letter.sender)
        except PeerGone:
            return False
        except ProtocolError as error:
            if error.condition in NOT_NOW:
                return False
            log.debug("%s does not want to know of the end of %s: %s", letter.to, letter.end.id, error)
        except BTError:
            log.exception("could not tell %s the end of %s", letter.to, letter.end.id)
        return True

    def _drop(self, letter: _Letter) -> None:
        kept = [other for other in self._letters.pop(letter.to.bare, ()) if other is not letter]
        if kept:
            self._letters[letter.to.bare] = kept
