"""What it means for offers and transfers that somebody enters a room, leaves it, or has another nick.

The JID of an occupant is its nick's, which may be somebody else's a moment later. So nothing is left standing under the
nick of who has left: it waits at the room's own JID, to which nothing is sent, until the same occupant is seen again.
Where the room does not tell that, it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from slixmpp import JID

from .constants import State
from .context import Context
from .errors import PeerGone, TransferError
from .incoming import IncomingOffer
from .negotiation import Event
from .outgoing import OutgoingOffer
from .policy import is_known_by_id, lasts
from .sending import Sending


class Occupancy:
    """Keeps offers and transfers with their owners. It is told by :mod:`slixmpp_bt.rooms` (a ``Watcher``).

    :param end: ends an incoming offer, and its transfer with the event and error.
    """

    def __init__(
        self,
        context: Context,
        outgoing: Mapping[str, OutgoingOffer],
        incoming: Mapping[tuple[str, str], IncomingOffer],
        end: Callable[[IncomingOffer, Event, TransferError], None],
    ) -> None:
        self._context = context
        self._outgoing = outgoing
        self._incoming = incoming
        self._end = end
        #: Called with newcomers to whom a room's history does not tell who has offered what.
        self.greet: Callable[[JID], None] = lambda jid: None

    def came(self, owner: str, jid: JID) -> None:
        """An occupant is there: what waits for it goes on."""
        for sending in self._sendings(owner):
            if not sending.transfer.peer.resource:
                sending.relocate(jid)
        for offer in self._offers(owner):
            if not offer.peer.resource or _is_waiting(offer):
                offer.moved(jid)
        for offer in list(self._incoming.values()):
            if offer.room == jid.bare and offer.key != owner:
                offer.somebody_came()
        self._context.outbox.retry(self._context.now(), jid, owner)
        if not is_known_by_id(owner) and any(own.wants(jid) for own in self._outgoing.values()):
            self.greet(jid)

    def left(self, owner: str, jid: JID) -> None:
        """An occupant has left, or this side has: who has the nick from now on is perhaps somebody else."""
        for own in list(self._outgoing.values()):
            if own.to == jid:
                own.lose()
            own.forget(jid)
        for sending in self._sendings(owner):
            if sending.transfer.peer != jid:
                continue
            sending.relocate(JID(jid.bare))
            if not lasts(owner):
                sending.transfer.feed(Event.PEER_FAIL, _gone(jid))
        for offer in self._offers(owner):
            if offer.peer == jid:
                offer.relocate(JID(jid.bare))
                self.check(offer, jid)
        for offer in list(self._incoming.values()):
            offer.deputy_renamed(jid, None)
        self._context.outbox.left(owner)
        self._context.wire.break_off(jid)

    def renamed(self, owner: str, old: JID, new: JID) -> None:
        """An occupant has another nick."""
        for own in list(self._outgoing.values()):
            if own.to == old:
                own.follow(new)
        for sending in self._sendings(owner):
            if sending.transfer.peer == old:
                sending.relocate(new)
        for offer in self._offers(owner):
            if offer.peer == old:
                offer.relocate(new)
        for offer in list(self._incoming.values()):
            offer.deputy_renamed(old, new)
        self._context.outbox.renamed(owner, old, new)
        self._context.wire.break_off(old)

    def moved(self, room: JID) -> None:
        """This side has another nick in a room."""
        self._context.wire.break_off(room)

    def check(self, offer: IncomingOffer, was: JID | None = None) -> None:
        """End an offer whose sender is away and would not be known again, unless others may stand in for it."""
        if not lasts(offer.key) and not offer.message.delegate:
            self._end(offer, Event.PEER_FAIL, _gone(was or offer.peer))

    def _sendings(self, owner: str) -> Iterator[Sending]:
        for own in list(self._outgoing.values()):
            yield from (s for s in own.receivers.all() if s.owner == owner and not s.transfer.ended)

    def _offers(self, owner: str) -> Iterator[IncomingOffer]:
        return (offer for offer in list(self._incoming.values()) if offer.key == owner)


def _is_waiting(offer: IncomingOffer) -> bool:
    return offer.transfer is not None and offer.transfer.state is State.WAITING


def _gone(occupant: JID) -> PeerGone:
    who = occupant.resource or "the other side"
    return PeerGone(f"{who} has left the room {occupant.bare}, which does not tell whether who comes back is the same")
