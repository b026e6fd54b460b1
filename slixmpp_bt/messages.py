"""What the two sides say to each other, as frozen values (docs/protocol).

They are made by :mod:`slixmpp_bt.stanza`, which checks every limit while it parses, so a value that exists is well
formed. Whether its content may be acted upon is for :mod:`slixmpp_bt.policy` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from slixmpp import JID

from .constants import Mode, Route

#: At most so many addresses a side (protocol section 4).
MAX_CANDIDATES = 8
#: At most so many addresses in one Peers (protocol section 1).
MAX_PEERS = 64
#: At most so many bytes of the info dict in one answer to Meta.
MAX_META_CHUNK = 6_000
#: Offer and transfer ids: so many of ``A-Z a-z 0-9 . _ ~ -`` at most.
MAX_ID = 64
#: The largest size, offset or count: what a signed 64-bit number holds.
MAX_NUMBER = 2**63 - 1
#: At most so many characters of a name.
MAX_NAME = 1_024
#: At most so many characters of a description or of an End's text; more is cut off.
MAX_TEXT = 2_000
#: At most so many bytes of an info dict or of content inside one stanza: what fits the largest stanza that common
#: servers let through. What is sent stays within :data:`~slixmpp_bt.constants.STANZA_BUDGET`.
MAX_BLOB = 192 * 1024
#: At most so many files in a selection, and the largest index of one.
MAX_SELECT, MAX_INDEX = 65_536, 2**31 - 1
#: At most so many offers in one message.
MAX_OFFERS = 16
#: The largest number of shares an offer's pieces are divided into.
MAX_SHARES = 65_536
#: The shortest and the longest pace of Reports, in seconds.
MIN_REPORT, MAX_REPORT = 5, 86_400
#: The unit in which a stream is asked for and verified, in bytes: BEP 52's block.
BLOCK = 16 * 1024
#: At most so many bytes are asked for in one Fetch.
MAX_FETCH = 8 * 1024 * 1024
#: At most so many bytes of a certificate request and of a certificate, both DER.
MAX_REQUEST, MAX_CERTIFICATE = 1_024, 2_048
#: At most so many bytes of a sealed key.
MAX_KEY = 1_024
#: At most so many ranges in one Fetch, and so many proxies named in it.
MAX_RANGES, MAX_STREAMHOSTS = 512, 3
#: The words of XEP-0166 section 7.4 for how something ended.
REASONS = frozenset({
    "alternative-session", "busy", "cancel", "connectivity-error", "decline", "expired", "failed-application",
    "failed-transport", "general-error", "gone", "incompatible-parameters", "media-error", "security-error", "success",
    "timeout", "unsupported-applications", "unsupported-transports",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """A literal IP address and TCP/uTP port where a side's backend listens."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class StreamHost:
    """A proxy for bytestreams (XEP-0065 section 4): its JID, and the host and port where it listens."""

    jid: JID
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the pieces a receiver is asked to fetch first: those with ``piece % count == index``."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Offer:
    """I have this; you may fetch it.

    Exactly one of `info` (the whole info dict) and `info_length` with `info_hash` alone is known at first: `info` is
    None where the dict is too large for a stanza and has to be asked for with :class:`Meta`.

    :ivar delegate: whether receivers that have everything may admit others, too.
    """

    id: str
    mode: Mode
    expires: datetime
    name: str
    size: int
    info_hash: bytes
    info_length: int
    info: bytes | None = None
    desc: str | None = None
    media_type: str | None = None
    date: datetime | None = None
    delegate: bool = False


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The offer is void."""

    id: str


@dataclass(frozen=True, slots=True)
class Seek:
    """Where are you? From a receiver who has lost sight of the sender, to all its devices."""

    id: str


@dataclass(frozen=True, slots=True)
class Here:
    """It is I who has the offer: accept it again from here."""

    id: str


@dataclass(frozen=True, slots=True)
class Accept:
    """I want it; here is where I listen.

    :ivar transfer: chosen by the receiver, unguessable, the same for every repetition.
    :ivar select: the indices of the wanted files in the manifest; None for everything.
    :ivar inline: how many bytes of content the receiver takes inside the result.
    :ivar request: for a sealed offer, the certificate request (PKCS #10, DER) for the key that the receiver made.
    """

    id: str
    transfer: str
    candidates: tuple[Candidate, ...] = ()
    routes: frozenset[Route] = frozenset()
    select: frozenset[int] | None = None
    inline: int = 0
    request: bytes | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an Accept.

    :ivar candidates: where the sender listens.
    :ivar peers: where other receivers of the offer listen.
    :ivar content: everything that was wanted, if it was small enough for `Accept.inline`; of a sealed offer, sealed.
    :ivar report: seconds between two Reports that the sender would like; None for none.
    :ivar routes: the routes by which the sender can and may serve; None where it does not say.
    :ivar certificate: for a sealed offer, the certificate (DER) that the sender signed for `Accept.request`.
    """

    id: str
    transfer: str
    candidates: tuple[Candidate, ...] = ()
    peers: tuple[Candidate, ...] = ()
    share: Share | None = None
    content: bytes | None = None
    report: int | None = None
    routes: frozenset[Route] | None = None
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Meta:
    """Asks for `length` bytes of the info dict from `offset`."""

    id: str
    transfer: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class MetaChunk:
    """The answer to Meta."""

    id: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send me this over that stream.

    The stream carries the blocks of the piece layers first, then those of the content, each in order, nothing else.

    :ivar sid: the stream that the receiver lets the sender open.
    :ivar kind: ``relay`` or ``in-band``.
    :ivar layers: ranges of blocks, both ends included, of the piece layers in the order of their files.
    :ivar blocks: ranges of blocks of the content: block ``b`` is in piece ``b // per_piece``, where a piece has
        ``per_piece = piece_length // BLOCK`` of them, the last of each file being shorter.
    :ivar hosts: proxies that the receiver found on its own server.
    """

    id: str
    transfer: str
    sid: str
    kind: Route
    blocks: tuple[tuple[int, int], ...] = ()
    layers: tuple[tuple[int, int], ...] = ()
    hosts: tuple[StreamHost, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetching:
    """The answer to Fetch: the stream will carry `length` bytes."""

    id: str
    transfer: str
    length: int


@dataclass(frozen=True, slots=True)
class Peers:
    """Other addresses of the swarm that came and went, and perhaps a new share."""

    id: str
    transfer: str
    joined: tuple[Candidate, ...] = ()
    left: tuple[Candidate, ...] = ()
    share: Share | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How far a receiver has come: bytes verified of bytes wanted, and by which routes they came."""

    id: str
    transfer: str
    had: int
    total: int
    routes: tuple[tuple[Route, int], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """It is over.

    :ivar transfer: None where there never was one: an offer declined.
    :ivar reason: a word of XEP-0166 section 7.4.
    :ivar seeding: for how many seconds a receiver that is complete goes on serving the offer's other receivers; None
        if it does not.
    """

    id: str
    kind: Literal["complete", "cancel", "decline"]
    reason: str
    transfer: str | None = None
    text: str | None = None
    seeding: int | None = None


@dataclass(frozen=True, slots=True)
class Delegate:
    """From the sender to a receiver that has everything: admit others in my place.

    :ivar key: of a sealed offer, the private key of its certificate authority (PEM), sealed to the receiver's key.
    """

    id: str
    transfer: str
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The empty answer to Here, Peers, Report, End and Delegate."""


Message = Offer | Withdraw | Seek
Request = Here | Accept | Meta | Fetch | Peers | Report | End | Delegate
Reply = Accepted | MetaChunk | Fetching | Done
