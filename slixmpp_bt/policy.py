"""Who may do what: pure functions over what the other modules have found out (docs/protocol, section "Identity").

The plugin looks peers up (roster, block list, room) and counts what is alive; here it is decided, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from slixmpp import JID

from .access import Access
from .config import Config, Limits
from .errors import Declined, LimitExceeded, TransferError
from .manifest import Manifest
from .messages import End, Fetch, Here, Meta, Offer, Peers, Report, Request

#: So many devices of one account may fetch one offer.
MAX_DEVICES = 8
_STAY = "stay:"


def occupant_of(room: JID, *, id: str | None = None, real: JID | None = None, stay: str | None = None) -> str:
    """What tells an occupant of a room from all others, and from accounts: a bare JID has no space in it.

    :param id: the id that the room gives (XEP-0421).
    :param real: else the real JID that it shows.
    :param stay: else what stands for this stay under this nick.
    """
    if id is not None:
        return f"{room.bare} id:{id}"
    return f"{room.bare} jid:{real.bare}" if real is not None else f"{room.bare} {_STAY}{stay}"


def lasts(owner: str) -> bool:
    """Whether the owner of an offer is known again after being away."""
    return not owner.partition(" ")[2].startswith(_STAY)


def is_known_by_id(owner: str) -> bool:
    """Whether it is an occupant that its room gives an id: then its history tells who said what, too."""
    return owner.partition(" ")[2].startswith("id:")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent something, as far as this side knows.

    :ivar jid: where it came from: a full JID; in a room the occupant's.
    :ivar bare: the real bare JID; None for an occupant whose JID the room hides.
    :ivar subscription: of `bare` in the roster of the account spoken to: ``none``, ``to``, ``from``, ``both`` or
        ``remove``.
    :ivar blocked: whether the account blocks `bare` (XEP-0191).
    :ivar auto_authorize: whether anybody can get into that roster (slixmpp's ``auto_authorize`` is True).
    :ivar room: the room's bare JID, for an occupant.
    :ivar occupant: what tells an occupant of `room` from all others (:func:`occupant_of`); None for a nick that
        nobody has.
    :ivar groups: the groups of that roster that `bare` is in.
    """

    jid: JID
    bare: JID | None
    subscription: str = "none"
    blocked: bool = False
    auto_authorize: bool = False
    room: JID | None = None
    occupant: str | None = None
    groups: frozenset[str] = frozenset()

    @property
    def owner(self) -> str:
        """Whose the peer's offers are: its real account's; in a room, the occupant's."""
        if self.occupant is not None:
            return self.occupant
        return self.bare.bare if self.bare is not None and self.room is None else self.jid.full

    @property
    def account(self) -> JID | None:
        """The real bare JID that rosters and collections may know. A room's own JID is nobody's."""
        return None if self.bare is None or self.bare == self.room else JID(self.bare.bare)

    @property
    def contact(self) -> bool:
        """Whether the user lets this account see their presence, and not anybody could have got that far."""
        return self.account is not None and not self.auto_authorize and self.subscription in ("from", "both")

    @property
    def may_know(self) -> bool:
        """Whether the peer may learn that this side is there: it sees its presence already, or nobody hides it."""
        return self.subscription in ("from", "both") or self.room is not None


@dataclass(frozen=True, slots=True)
class Counts:
    """What is alive at this moment, the offer in question not counted.

    :ivar offers: unanswered offers from the same peer.
    :ivar transfers: incoming transfers, from anybody.
    """

    offers: int = 0
    transfers: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an offer.

    ``accept`` it, ``ask`` the application (``bt_offer``), ``consult`` the coroutine function in ``auto_accept``
    (True accepts, False asks), or ``decline`` it, with the error as the reason.
    """

    kind: Literal["accept", "ask", "consult", "decline"]
    error: TransferError | None = None


def decide(offer: Offer, peer: Peer, config: Config, counts: Counts, manifest: Manifest | None = None) -> Verdict:
    """What to do about a new offer.

    :param manifest: where the offer had all of it. Where not, ask :func:`limits_exceeded` again when it is there.
    """
    if peer.blocked:
        return Verdict("decline", Declined("the sender is blocked"))
    if (exceeded := limits_exceeded(offer, manifest, config.limits, counts)) is not None:
        return Verdict("decline", exceeded)
    rule = config.auto_accept
    if isinstance(rule, bool):
        return Verdict("accept" if rule else "ask")
    if rule == "roster":
        return Verdict("accept" if peer.contact else "ask")
    if isinstance(rule, frozenset):
        return Verdict("accept" if peer.account in rule else "ask")
    return Verdict("consult")


def may_be_told(peer: Peer, config: Config) -> bool:
    """Whether `peer` may hear why its offer is declined: it can know that this side is there, or would be accepted if
    it kept to the limits. A stranger learns nothing."""
    rule = config.auto_accept
    return peer.may_know or rule is True or (isinstance(rule, frozenset) and peer.account in rule)


def knows(peer: Peer, config: Config) -> bool:
    """Whether the user knows this account: it sees their presence, or the configuration names it."""
    rule = config.auto_accept
    listed = isinstance(rule, frozenset) and peer.account in rule
    return listed or (peer.account is not None and peer.subscription in ("from", "both"))


def limits_exceeded(
    offer: Offer, manifest: Manifest | None, limits: Limits, counts: Counts = Counts()
) -> LimitExceeded | None:
    """The first limit on what is received that an offer breaks, in words; None if it keeps to all."""
    size = offer.size if manifest is None else max(offer.size, manifest.size)
    length = offer.info_length if manifest is None else len(manifest.info)
    files = 0 if manifest is None else len(manifest.files)
    checks = (
        (size, limits.max_size, "max_size", f"{size} bytes are offered"),
        (length, limits.max_manifest_size, "max_manifest_size", f"its manifest has {length} bytes"),
        (files, limits.max_files, "max_files", f"{files} files are offered"),
        (counts.offers + 1, limits.max_offers_per_peer, "max_offers_per_peer", "too many offers wait for an answer"),
        (counts.transfers + 1, limits.max_transfers, "max_transfers", "too many transfers are running"),
    )
    for value, limit, name, words in checks:
        if value > limit:
            return LimitExceeded(f"{words}; {name} is {limit}")
    return None


def invited(to: JID, mtype: str, peer: JID, *, admitted: Collection[JID] = ()) -> bool:
    """Whether `peer` may accept, or decline, an offer that was sent to `to`.

    A full JID invites that JID; a bare one all devices of the account, at most :data:`MAX_DEVICES` of them; a room
    its occupants; a catalogue whom :func:`lets_in` says, with as many devices each. That this side is still in the
    room is for the caller to know: an iq from a room it is not in does not reach it by way of an occupant.

    :param mtype: the type of the message with the offer; ``groupchat`` for a room, ``headline`` for a catalogue.
    :param peer: the JID that the request came from.
    :param admitted: the full JIDs that have accepted already.
    """
    if to.resource:
        return bool(peer == to)
    if mtype == "headline":
        theirs = sum(other.bare == peer.bare for other in admitted)
        return bool(peer.resource) and (peer in admitted or theirs < MAX_DEVICES)
    if peer.bare != to.bare:
        return False
    if mtype == "groupchat":
        return bool(peer.resource)
    return peer in admitted or len(admitted) < MAX_DEVICES


def may_delegate(peer: Peer, own: JID, sender: str, receiver: JID) -> bool:
    """Whether `peer` may let `own` admit others to what `receiver` has fetched from `sender`: only who has sent it.

    That the request names the very offer and transfer is for the caller to see. Both sides may have another resource
    or nick by then.

    :param sender: :attr:`Peer.owner` of who has sent it.
    """
    return not peer.blocked and peer.owner == sender and own.bare == receiver.bare


def may_stand_in(peer: Peer, room: JID | None, local: JID) -> bool:
    """Whether `peer` may serve an offer in its sender's place: an occupant of the room that it was offered in, else a
    device of the account that it was offered to.

    :param local: the own full JID.
    """
    if peer.blocked:
        return False
    if room is not None:
        return peer.room == room and peer.occupant is not None
    return peer.room is None and peer.jid.bare == local.bare and peer.jid != local


def lets_in(access: Access, peer: Peer, owner: JID) -> bool:
    """Whether a catalogue of the account `owner` is open to `peer` now (XEP-0060 section 4.5), as the server judges
    who may read it. The account itself is always let in.
    """
    account = peer.account
    if account is None or peer.room is not None or peer.blocked:
        return False
    if account.bare == owner.bare:
        return True
    sees_presence = peer.subscription in ("from", "both")
    match access.model:
        case "open":
            return True
        case "presence":
            return sees_presence
        case "group":
            return sees_presence and not access.names.isdisjoint(peer.groups)
        case "whitelist":
            return account.bare in access.names


@dataclass(frozen=True, slots=True)
class Agreement:
    """A current accept: who fetches what from whom, both as the full JIDs that agreed."""

    id: str
    transfer: str
    sender: JID
    receiver: JID


def may(request: Request, peer: JID, own: JID, agreement: Agreement | None) -> bool:
    """Whether `peer` may send `request` to `own`: only between the two of a current accept, and in its direction.

    Meta, Fetch, Report and the End that says ``complete`` go from receiver to sender, Peers from sender to receiver,
    any other End both ways. An Accept, and an End that declines an offer nobody accepted, are for :func:`invited`.

    A Delegate is for :func:`may_delegate`.

    :param agreement: the one with the request's transfer id; None if there is none.
    """
    if agreement is None or isinstance(request, Here) or request.transfer is None:
        return False
    if (request.id, request.transfer) != (agreement.id, agreement.transfer):
        return False
    from_receiver = (peer, own) == (agreement.receiver, agreement.sender)
    from_sender = (peer, own) == (agreement.sender, agreement.receiver)
    match request:
        case Meta() | Fetch() | Report() | End(kind="complete"):
            return from_receiver
        case Peers():
            return from_sender
        case End():
            return from_receiver or from_sender
        case _:
            return False


def reveals_address(peer: Peer, config: Config) -> bool:
    """Whether this side's candidates may be told to `peer`, the other side of an accepted transfer."""
    return config.reveal_address == "invited" or (config.reveal_address == "roster" and peer.contact)
