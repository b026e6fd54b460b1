"""The last words of transfers: kept, and repeated at the next contact, until they are answered or too old."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from slixmpp import JID

from .errors import BTError, PeerGone, ProtocolError
from .messages import End, Seek
from .policy import lasts
from .state import SavedLetter, State
from .tasks import Tasks
from .threads import settle
from .wire import Wire

log = logging.getLogger(__name__)

#: Conditions that mean "not now" rather than "no": the End is kept.
NOT_NOW = frozenset({
    "internal-server-error", "item-not-found", "recipient-unavailable", "remote-server-not-found",
    "remote-server-timeout", "resource-constraint", "service-unavailable",
})  # fmt: skip
#: Whom nobody can reach is sought after so many seconds at first, then ever more rarely, and at least this often.
_SEEK_FIRST, _SEEK_MOST = 25.0, 900.0
#: Seconds that an answer may take once there was contact.
_ANSWER = 1.0
#: So many Ends are kept for one account, and for so many accounts; the oldest goes first.
_MAX_LETTERS, _MAX_ACCOUNTS = 256, 1_000


@dataclass(slots=True, eq=False)
class _Letter:
    end: End
    to: JID
    sender: JID
    until: float
    #: Whose it is: the bare JID of `to`, or who that was in a room.
    owner: str

    #: Where it is tried first: the device may have got another name.
    device: JID = field(default_factory=JID)
    #: Whether it is under way.
    sending: bool = False
    #: Set when there is contact after it left: it may have gone to a connection that was dead already.
    contact: asyncio.Event = field(default_factory=asyncio.Event)
    #: When the other side is to be sought, and how long to wait after that.
    seek_at: float = 0.0
    patience: float = _SEEK_FIRST

    @property
    def in_room(self) -> bool:
        """Whether it is for an occupant: then for nobody else who has the nick."""
        return self.owner != self.to.bare

    @property
    def record(self) -> SavedLetter:
        """As it is kept."""
        return SavedLetter(self.end, self.to, self.sender, self.until, self.owner if self.in_room else None)


class Outbox:
    """Ends that the other side has not answered yet."""

    def __init__(self, wire: Wire, tasks: Tasks, state: State | None = None) -> None:
        self.state = state or State.nothing()
        self._wire = wire
        self._tasks = tasks
        self._letters: dict[str, list[_Letter]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return sum(map(len, self._letters.values()))

    def take_over(self, other: Outbox) -> None:
        """Go on with what `other`, which is closed, could not deliver."""
        self._letters, other._letters = other._letters, {}
        for letters in self._letters.values():
            for letter in letters:
                letter.sending = False

    def post(self, end: End, to: JID, *, sender: JID, until: float, owner: str | None = None) -> None:
        """Send `end` now, and again with :meth:`retry` until it is answered or `until` (seconds since the epoch).

        :param owner: who `to` is, in a room (:func:`slixmpp_bt.policy.occupant_of`).
        """
        owner = owner or to.bare
        if owner not in self._letters and len(self._letters) >= _MAX_ACCOUNTS:
            del self._letters[next(iter(self._letters))]
        letters = self._letters.setdefault(owner, [])
        letters.append(_Letter(end, to, sender, until, owner))
        del letters[:-_MAX_LETTERS]
        self.state.save(letters[-1].record)
        self._send(letters[-1], to)

    async def restore(self) -> None:
        """Take up what an earlier run could not say; :meth:`retry` says it.

        :raises StateError: it cannot be read.
        """
        known = {letter.record.key for letters in self._letters.values() for letter in letters}
        for saved in await self.state.load(SavedLetter):
            if saved.key in known:
                continue
            owner = saved.owner or saved.to.bare
            self._letters.setdefault(owner, []).append(_Letter(saved.end, saved.to, saved.sender, saved.until, owner))

    def save_all(self) -> None:
        """Keep everything: the state has just been opened."""
        for letters in self._letters.values():
            self.state.save(*(letter.record for letter in letters))

    @property
    def waiting(self) -> list[End]:
        """What nobody has answered yet."""
        return [letter.end for letters in self._letters.values() for letter in letters]

    async def tried(self) -> None:
        """Return once nothing is under way: all that is to be said was answered, or cannot be said now. An answer may
        take half a minute. Cancelling it cancels nothing but the waiting."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def retry(self, now: float, peer: JID | None = None, owner: str | None = None) -> None:
        """There is contact again: with everybody (a new session), or with the account of `peer`, then at that
        device; or with the `owner` of some, who is `peer` in a room."""
        for account in list(self._letters) if peer is None else [owner or peer.bare]:
            self.prune(now, account)
            for letter in self._letters.get(account, ()):
                self._send(letter, peer)

    def left(self, owner: str) -> None:
        """The occupant of a room to whom something is to be said is not there any more."""
        if not lasts(owner):
            for letter in self._letters.pop(owner, ()):
                self._forget(letter)
        for letter in self._letters.get(owner, ()):
            letter.device = JID(letter.to.bare)

    def renamed(self, owner: str, old: JID, new: JID) -> None:
        """The occupant of a room to whom something is to be said has another nick."""
        for letter in self._letters.get(owner, ()):
            letter.device = new if letter.device == old else letter.device

    async def seek(self, now: float) -> None:
        """Ask those who could not be told where they are: they may be there under another name, and see no presence of
        this side. To be called now and then."""
        late = [letter for letters in self._letters.values() for letter in letters if letter.seek_at <= now]
        for letter in late:
            letter.patience = min(2 * letter.patience, _SEEK_MOST) if letter.seek_at else _SEEK_FIRST
            letter.seek_at = now + letter.patience
        for letter in late:
            if letter.in_room:
                self._send(letter)
                continue
            try:
                await self._wire.send(Seek(letter.end.id), JID(letter.to.bare), sender=letter.sender, mtype="headline")
            except BTError as error:
                log.debug("%s was not sought: %s", letter.to.bare, error)

    def prune(self, now: float, account: str | None = None) -> None:
        """Forget what is too old."""
        for bare in list(self._letters) if account is None else [account]:
            kept = [letter for letter in self._letters.pop(bare, ()) if letter.until > now]
            if kept:
                self._letters[bare] = kept

    def _send(self, letter: _Letter, device: JID | None = None) -> None:
        if device is not None and device.resource:
            letter.device = device
        elif not letter.in_room:
            letter.device = letter.to
        if letter.in_room and not letter.device.resource:
            return  # who comes is seen, and told then
        if letter.sending:
            letter.contact.set()
            return
        letter.sending = True
        delivery = self._tasks.spawn(self._deliver(letter), f"end {letter.end.id}")
        self._under_way.add(delivery)
        delivery.add_done_callback(self._under_way.discard)

    async def _deliver(self, letter: _Letter) -> None:
        try:
            while True:
                letter.contact.clear()
                if await self._attempt(letter):
                    self._drop(letter)
                    return
                if not letter.contact.is_set():
                    return
        finally:
            letter.sending = False

    async def _attempt(self, letter: _Letter) -> bool:
        """Whether it was answered. Contact after it has left gives the answer a second, and no more."""
        settling = asyncio.ensure_future(self._is_settled(letter))
        contact = asyncio.ensure_future(letter.contact.wait())
        try:
            await asyncio.wait({settling, contact}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({settling}, timeout=_ANSWER)
            return settling.done() and settling.result()
        finally:
            settling.cancel()
            contact.cancel()
            await settle([settling, contact])

    async def _is_settled(self, letter: _Letter) -> bool:
        for device in dict.fromkeys((letter.device,) if letter.in_room else (letter.device, letter.to)):
            if await self._is_settled_by(letter, device):
                return True
        return False

    async def _is_settled_by(self, letter: _Letter, device: JID) -> bool:
        try:
            await self._wire.request(letter.end, device, sender=letter.sender)
        except PeerGone:
            return False
        except ProtocolError as error:
            if error.condition in NOT_NOW:
                return False
            log.debug("%s does not want to know of the end of %s: %s", device, letter.end.id, error)
        except BTError:
            log.exception("could not tell %s the end of %s", device, letter.end.id)
        return True

    def _forget(self, letter: _Letter) -> None:
        self.state.delete(SavedLetter, *letter.record.key)

    def _drop(self, letter: _Letter) -> None:
        self._forget(letter)
        kept = [other for other in self._letters.pop(letter.owner, ()) if other is not letter]
        if kept:
            self._letters[letter.owner] = kept
