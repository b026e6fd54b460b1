"""Who fetches an own offer: whom it admits, and how each of them ends."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from slixmpp import JID

from . import policy
from .constants import State
from .context import Context
from .endings import heard, tellable
from .errors import BTError, Cancelled, ProtocolError
from .messages import Accept, End
from .negotiation import Event, Negotiation, Phase, Role
from .policy import Peer
from .sending import Sending
from .state import SavedReceiver
from .transfer import Transfer

if TYPE_CHECKING:
    from .outgoing import OutgoingOffer

#: How many receivers an offer may have at once, for the devices of one account see policy.MAX_DEVICES; and how many
#: that have ended are remembered.
MAX_RECEIVERS = 1_000
#: Before anybody has accepted, a transfer has no id: it is kept under a name of this side's.
_UNACCEPTED = frozenset({Phase.PREPARING, Phase.PREPARING_HELD, Phase.OFFERED, Phase.OFFERED_HELD})


def gone(error: BTError | None, otherwise: str = "the offer has ended") -> ProtocolError:
    """The refusal that says how it ended."""
    return ProtocolError(tellable(error) or otherwise, "gone", getattr(error, "reason", "cancel"))


class Receivers:
    """The receivers of one offer, by transfer id.

    :ivar single: the transfer of an offer that is for one receiver only, from its beginning.
    """

    def __init__(self, context: Context, offer: OutgoingOffer, to: JID, mtype: str) -> None:
        self.single: Transfer | None = None
        self._context = context
        self._offer = offer
        self._to = to
        self._mtype = mtype
        self._by_id: dict[str, Sending] = {}
        #: Transfers that ended before they were accepted.
        self._over: set[str] = set()
        #: Of an earlier run, who has everything, where that may still matter.
        self._completed: dict[str, SavedReceiver] = {}
        self._deserted = False

    def add_single(self) -> None:
        """Begin the one transfer of an offer that is for one receiver."""
        self.single = self._add(None, self._to, Phase.PREPARING).transfer

    def restore(self, saved: Iterable[SavedReceiver]) -> SavedReceiver | None:
        """Take up what was saved. Returns how the one transfer of an offer for one receiver ended, if it did."""
        end: SavedReceiver | None = None
        for record in saved:
            try:
                phase = Phase(record.phase)
            except ValueError:
                continue
            if phase.state.terminal:
                self._over.add(record.transfer)
                end = record if self._offer.is_single else None
                if phase is Phase.COMPLETE and self._offer.delegate:
                    self._completed[record.transfer] = record
            elif phase not in _UNACCEPTED:
                going = Phase.WAITING if phase in (Phase.CONNECTING, Phase.RUNNING) else phase
                # Who had a nick in a room is seen when it is there again.
                peer = record.peer if record.owner is None else JID(record.peer.bare)
                self._restore(self._add(record.transfer, peer, going, owner=record.owner, accepted=True), record)
            elif self._offer.is_single:
                self._restore(self._add(None, record.peer, phase, key=record.transfer), record)
        return end

    def _restore(self, sending: Sending, record: SavedReceiver) -> None:
        sending.restore(record)
        if self._offer.is_single:
            self.single = sending.transfer

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Everybody's who accepted (or declined), ended ones too."""
        return tuple(receiver.transfer for receiver in self._by_id.values())

    def all(self) -> list[Sending]:
        """All of them."""
        return list(self._by_id.values())

    def served(self) -> list[Sending]:
        """Those who fetch, and those who have it all and go on serving others."""
        return [r for r in self._by_id.values() if r.active or r.stays]

    def find(self, transfer: str | None) -> Sending | None:
        """The one with this transfer id."""
        found = self._by_id.get(transfer or "")
        return found if found is not None and found.transfer.id == transfer else None

    def completed(self, transfer: str | None, owner: str) -> SavedReceiver | None:
        """The one with this transfer id if it has everything and is `owner`'s, be it since an earlier run."""
        known = self.find(transfer)
        if known is not None:
            return known.record if known.transfer.complete and known.owner == owner else None
        record = self._completed.get(transfer or "")
        return record if record is not None and (record.owner or record.peer.bare) == owner else None

    def of(self, transfer: str, peer: JID) -> Sending:
        """Whose transfer it is.

        :raises ProtocolError: ``item-not-found``: there is none, or it is not the peer's.
        """
        receiver = self.find(transfer)
        if receiver is None or receiver.transfer.peer != peer:
            raise ProtocolError("no such offer", "item-not-found")
        return receiver

    def invites(self, peer: Peer, transfer: str | None) -> bool:
        """Whether `peer` may fetch it (protocol section 2). Who knows an id that was admitted may come back from
        another device of the same account: its name changes when it connects again.
        """
        known = self.find(transfer)
        if known is not None and known.transfer.id is not None:
            if known.owner == peer.owner:
                return True
            if self._mtype == "groupchat":  # who has stolen the id of somebody else's
                return False
        if self._deserted or (self._mtype == "groupchat" and peer.room is None):
            return False
        admitted = {t.peer for t in self.transfers if t.id and not t.ended}
        return policy.invited(self._to, self._mtype, peer.jid, admitted=admitted)

    def desert(self) -> None:
        """Whom it was made to is gone, and the name may become somebody else's: it invites nobody new any more."""
        self._deserted = True

    def follow(self, to: JID) -> None:
        """Whom it was made to has another nick."""
        self._to = to

    def knows(self, peer: Peer) -> bool:
        """Whether `peer` may ask where the offer is: who is invited, and any device of an account that has accepted it.
        It is told no more than that somebody is here."""
        accepted = (r.owner for r in self._by_id.values() if r.transfer.id is not None)
        return self.invites(peer, None) or peer.owner in accepted

    def admit(self, message: Accept, peer: Peer) -> Sending:
        """The receiver that an Accept is from, perhaps a new one.

        :raises ProtocolError: ``gone``: the offer or the transfer has ended; there are too many.
        """
        receiver = self.find(message.transfer)
        if receiver is None:
            self._offer.look_at_the_clock()
            if self.single is not None and self.single.id is not None:
                raise ProtocolError("another device has taken it", "gone", "cancel")
            if self._offer.state is not State.OFFERED or message.transfer in self._over:
                raise gone(self._offer.error)
            self._supersede(peer.jid)
            receiver = self._take_single(message.transfer, peer) if self.single is not None else None
            if receiver is None:
                self._check_room()
                receiver = self._add(message.transfer, peer.jid, Phase.OFFERED, owner=peer.owner)
        if receiver.transfer.ended:
            raise gone(receiver.transfer.error, "the transfer has ended")
        receiver.choose(message.select)
        if receiver.transfer.peer != peer.jid:
            receiver.relocate(peer.jid)
        return receiver

    def end(self, message: End, peer: Peer) -> None:
        """A receiver says that it is over."""
        receiver = self.find(message.transfer)
        if receiver is not None:
            if receiver.owner != peer.owner:
                raise ProtocolError("no such offer", "item-not-found")
            receiver.stays_until = self._context.now() + (message.seeding or 0)
            event, error = heard(message.kind, message.reason, message.text)
            if not receiver.transfer.feed(event, error) and event is Event.PEER_DECLINE:
                # Once it was accepted, that is too late for declining.
                receiver.transfer.feed(Event.PEER_CANCEL, Cancelled(str(error)))
        elif message.transfer is not None:
            if len(self._over) < MAX_RECEIVERS:
                self._over.add(message.transfer)
            if self.single is not None and self.single.id is None:
                self.single.feed(*heard(message.kind, message.reason, message.text))
        elif message.kind == "decline":
            self._declined(message, peer)

    def _take_single(self, transfer: str, peer: Peer) -> Sending:
        assert self.single is not None
        receiver = next(iter(self._by_id.values()))
        receiver.forget()  # what was saved of it under a name of this side's
        receiver.key = transfer
        self.single.id, self.single.peer, receiver.owner = transfer, peer.jid, peer.owner
        self._by_id = {transfer: receiver}
        return receiver

    def _supersede(self, peer: JID) -> None:
        """A device that begins anew has given up what it had begun: it has one transfer of an offer at a time."""
        for transfer in self.transfers:
            if transfer.id and transfer.peer == peer:
                transfer.feed(Event.PEER_CANCEL, Cancelled("the receiver has begun anew"))

    def _check_room(self) -> None:
        if sum(not t.ended for t in self.transfers) >= MAX_RECEIVERS:
            raise ProtocolError("too many receivers at once", "resource-constraint")

    def _declined(self, message: End, peer: Peer) -> None:
        if self.single is not None:
            if self.single.id is None:
                self.single.peer = peer.jid
                self.single.feed(*heard(message.kind, message.reason, message.text))
        elif not any(t.peer == peer.jid for t in self.transfers):
            self._check_room()
            sending = self._add(None, peer.jid, Phase.OFFERED, owner=peer.owner)
            sending.transfer.feed(*heard(message.kind, message.reason, message.text))

    def _add(
        self, id: str | None, peer: JID, phase: Phase, *, key: str | None = None, owner: str | None = None,
        accepted: bool = False,
    ) -> Sending:  # fmt: skip
        expires = self._offer.expires.timestamp()
        # Nobody can have accepted after the offer's end, however often this side was started since.
        ttl = min(self._context.now(), expires) + self._context.config.limits.transfer_ttl
        negotiation = Negotiation(
            Role.SENDER,
            expires=ttl if accepted else expires,
            ttl=ttl,
            rng=self._context.rng,
            timing=self._context.timing,
            phase=phase,
        )
        ended = [key for key, other in self._by_id.items() if other.transfer.ended]
        for key in ended[: -MAX_RECEIVERS + 1]:
            self._by_id.pop(key).forget()
        key = id or key or f"~{secrets.token_urlsafe(12)}"
        receiver = self._by_id[key] = Sending(self._context, self._offer, key, owner or peer.bare)
        Transfer(self._context, negotiation, receiver, offer=self._offer, peer=peer, id=id, incoming=False)
        return receiver
