"""What is kept: frozen values of everything that outlives a restart.

Each class has a :attr:`key`, and saving a second record with the same key replaces the first. What is large, secret or
written at another pace than the rest is a record of its own. Secrets and blobs do not show in a ``repr``.

Times are seconds since the epoch. Where an ending is kept, `reason` is a word of XEP-0166 section 7.4 and `text` is for
people; both are None while nothing went wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from slixmpp import JID

from ..constants import Mode, Route, State
from ..messages import Candidate, End, Offer
from ..sources import Stamp

#: Bytes by route.
RouteBytes: TypeAlias = tuple[tuple[Route, int], ...]


@dataclass(frozen=True, slots=True)
class SavedOffer:
    """An own offer, as far as it has to be known while nobody asks for it; the rest is in :class:`SavedDetails`.

    :ivar path: the source, absolute.
    :ivar size: bytes; 0 until they were counted.
    :ivar single: whether it is the offer of one ``send_file``.
    :ivar stanzas: to whom it went, and the id of the stanza.
    :ivar node: of a catalogue: the PubSub node, and in `access` its access model.
    """

    id: str
    to: JID
    local: JID
    path: Path
    mode: Mode
    expires: float
    created: float
    state: State = State.PREPARING
    size: int = 0
    mtype: Literal["chat", "normal", "headline", "groupchat"] = "chat"
    single: bool = False
    desc: str | None = None
    stanzas: tuple[tuple[JID, str], ...] = ()
    kind: Literal["chat", "room", "catalogue"] = "chat"
    node: str | None = None
    access: str | None = None
    delegate: bool = False
    reason: str | None = None
    text: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (self.id,)


@dataclass(frozen=True, slots=True)
class SavedDetails:
    """What serving an own offer takes. It goes when its offer is deleted.

    :ivar info: the info dict.
    :ivar stamps: how each file looked when it was hashed, in the order of the manifest.
    :ivar certificate: the offer's certificate authority, if it is sealed, and its secret `authority_key`.
    """

    offer: str
    info: bytes = field(repr=False)
    stamps: tuple[Stamp, ...] = field(default=(), repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    authority_key: bytes | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, ...]:
        return (self.offer,)


@dataclass(frozen=True, slots=True)
class SavedReceiver:
    """A receiver of an own offer. It goes when its offer is deleted.

    :ivar phase: a word of :class:`~slixmpp_bt.negotiation.Phase`; not checked here.
    :ivar request: the certificate request last signed for it, and the certificate given.
    :ivar stays_until: until when it goes on serving others.
    :ivar held: whether this side has paused it.
    :ivar owner: who `peer` is, in a room.
    """

    offer: str
    transfer: str
    peer: JID
    phase: str
    select: frozenset[int] | None = None
    request: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    stays_until: float = 0.0
    held: bool = False
    sent: RouteBytes = ()
    reason: str | None = None
    text: str | None = None
    owner: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (self.offer, self.transfer)


@dataclass(frozen=True, slots=True)
class SavedIncoming:
    """What somebody offers.

    :ivar sender: who, as in the keys of :mod:`slixmpp_bt.exchange`: a bare JID, or an occupant of a room.
    :ivar bare: the real bare JID; None if a room hides it.
    :ivar node: the PubSub node it is published in; None if it was sent.
    """

    sender: str
    offer: Offer
    peer: JID
    local: JID
    received: float
    bare: JID | None = None
    room: JID | None = None
    answered: bool = False
    closed: bool = False
    announced: bool = False
    node: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (self.sender, self.offer.id)


@dataclass(frozen=True, slots=True)
class SavedDownload:
    """An incoming transfer. How far it has come is in :class:`SavedCheckpoint`.

    :ivar sender: with `offer` the key of what is fetched, as in :class:`SavedIncoming`.
    :ivar dest: the directory to publish into, absolute.
    :ivar phase: a word of :class:`~slixmpp_bt.negotiation.Phase`; not checked here.
    :ivar paused: whether the user has paused it.
    :ivar info: the info dict, once known.
    :ivar private_key: PEM, of a sealed transfer; gone from the database once the record is deleted or saved without.
    :ivar published: the final path, absolute, once there is one.
    """

    transfer: str
    sender: str
    offer: str
    dest: Path
    phase: str
    started: float
    select: frozenset[int] | None = None
    paused: bool = False
    info: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    published: Path | None = None
    reason: str | None = None
    text: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (self.transfer,)


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """How far an incoming transfer has come. Written often, so on its own. It goes when its download is deleted.

    :ivar data: what a backend's ``checkpoint()`` returned.
    """

    transfer: str
    data: bytes = field(repr=False)
    routes: RouteBytes = ()

    @property
    def key(self) -> tuple[str, ...]:
        return (self.transfer,)


@dataclass(frozen=True, slots=True)
class SavedSeed:
    """What a finished receiver goes on serving.

    :ivar transfer: the id of the transfer by which it came.
    :ivar until: the end of ``seed_after``.
    :ivar published: the path of the file or directory, absolute.
    :ivar info: the info dict, and in `layers` a checkpoint with the piece layers.
    :ivar peers: whom to dial.
    :ivar certificate: PEM, of a sealed offer, and its secret `private_key`.
    """

    transfer: str
    mode: Mode
    until: float
    published: Path
    info: bytes = field(repr=False)
    layers: bytes = field(repr=False)
    peers: tuple[Candidate, ...] = field(default=(), repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, ...]:
        return (self.transfer,)


@dataclass(frozen=True, slots=True)
class SavedDelegation:
    """What a finished receiver needs to admit others in the sender's place. It goes when its seed is deleted.

    :ivar transfer: as in :class:`SavedSeed`.
    :ivar sender: with `offer` the key of what was fetched, as in :class:`SavedIncoming`.
    :ivar local: who fetched it, and in `room` where it was offered; None outside of rooms.
    :ivar granted: whether the sender has let it.
    :ivar stamps: how each file looked then, in the order of the manifest.
    :ivar authority_key: PEM, of a sealed offer: the secret key of its certificate authority.
    """

    transfer: str
    sender: str
    offer: str
    local: JID
    expires: float
    room: JID | None = None
    granted: bool = False
    stamps: tuple[Stamp, ...] = field(default=(), repr=False)
    authority_key: bytes | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, ...]:
        return (self.transfer,)


@dataclass(frozen=True, slots=True)
class SavedLetter:
    """An End that the other side has not answered yet; :meth:`State.prune` drops it after `until`.

    :ivar owner: who `to` was, in a room.
    """

    end: End
    to: JID
    sender: JID
    until: float
    owner: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (str(self.to), self.end.id, self.end.transfer or "")


@dataclass(frozen=True, slots=True)
class SavedPast:
    """What is left of somebody's offer that is over, until `until`: a repetition of it is known for one."""

    sender: str
    offer: str
    info_hash: bytes
    until: float

    @property
    def key(self) -> tuple[str, ...]:
        return (self.sender, self.offer)


@dataclass(frozen=True, slots=True)
class SavedLayer:
    """The Merkle hashes of a file that looked like `stamp`; see :meth:`State.cached_layers`."""

    path: Path
    piece_length: int
    stamp: Stamp
    root: bytes = field(repr=False)
    layer: bytes = field(repr=False)


Record: TypeAlias = (
    SavedOffer
    | SavedDetails
    | SavedReceiver
    | SavedIncoming
    | SavedDownload
    | SavedCheckpoint
    | SavedSeed
    | SavedDelegation
    | SavedLetter
    | SavedPast
)
R = TypeVar("R", bound=Record)
