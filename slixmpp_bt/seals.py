"""The two ends of a sealed transfer, over :mod:`slixmpp_bt.sealing`: what is asked for, signed, sealed and opened."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

from .backends import Admission
from .constants import Mode
from .errors import ProtocolError
from .sealing import OVERHEAD, Authority, PublicKey, ReceiverKey, Unit, expires, info_for, public_key, seal

#: A certificate is renewed so long before it ends.
_RENEWED = timedelta(days=1)
#: So many certificates are signed for one receiver in so many seconds: each costs some tenths of a millisecond.
_SIGNATURES, _PERIOD = 100, 60.0
#: When so many receivers have asked, those of more than a period ago are forgotten.
_MAX_ASKED = 1_000


class Admitting:
    """The sender's end of an offer: who holds it admits receivers.

    :ivar authority: the offer's.
    """

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self._signed: dict[str, tuple[bytes, bytes]] = {}
        self._recent: dict[str, deque[float]] = {}

    def own(self, now: datetime) -> Admission:
        """What the sender itself shows in the swarm. Takes a millisecond."""
        return Admission(Mode.SEALED, *self.authority.issue(now))

    def admit(self, transfer: str, request: bytes, now: datetime, *, receiver: str = "") -> bytes:
        """A certificate (DER) for the receiver of `transfer`; the same for the same request, while it lasts.

        :param receiver: its JID: each may ask so many times.
        :raises ProtocolError: the request is none, or there were too many.
        """
        known = self._signed.get(transfer)
        if known is not None and known[0] == request and expires(known[1]) - now > _RENEWED:
            return known[1]
        self._count(receiver, now.timestamp())
        certificate = self.authority.sign(request, now)
        self._signed[transfer] = request, certificate
        return certificate

    def _count(self, receiver: str, now: float) -> None:
        if len(self._recent) >= _MAX_ASKED:
            self._recent = {who: asked for who, asked in self._recent.items() if now - asked[-1] < _PERIOD}
        asked = self._recent.setdefault(receiver, deque(maxlen=_SIGNATURES))
        if len(asked) == _SIGNATURES and now - asked[0] < _PERIOD:
            raise ProtocolError("too many certificates are asked for", "resource-constraint")
        asked.append(now)

    def forget(self, transfer: str) -> None:
        """The transfer is over."""
        self._signed.pop(transfer, None)


class Sealer:
    """Seals what goes to one receiver by other ways than the swarm.

    :param request: the receiver's certificate request.
    :raises ProtocolError: it is none.
    """

    def __init__(self, offer: str, transfer: str, request: bytes) -> None:
        self.request = request
        self._offer, self._transfer = offer, transfer
        self._key: PublicKey = public_key(request)

    def seal(self, what: Unit, index: int, data: bytes) -> bytes:
        """`data`, sealed: longer by :data:`~slixmpp_bt.sealing.OVERHEAD`. Takes a tenth of a millisecond."""
        return seal(self._key, info_for(self._offer, self._transfer, what, index), data)


class Opener:
    """The receiver's end of one transfer: its key, made for it alone.

    :param authority: the ``ssl-cert`` of the offer's info dict.
    :ivar overhead: bytes by which each unit is longer.
    :ivar renew: when to ask for another certificate; None before the first.
    """

    overhead = OVERHEAD

    def __init__(self, offer: str, transfer: str, authority: bytes, key: ReceiverKey | None = None) -> None:
        self.key = key or ReceiverKey.make()
        self.renew: datetime | None = None
        self._offer, self._transfer = offer, transfer
        self._authority = authority

    @property
    def request(self) -> bytes:
        """The certificate request."""
        return self.key.request

    def admit(self, certificate: bytes | None, now: datetime) -> Admission:
        """What this side shows in the swarm.

        :raises ProtocolError: the sender gave no certificate, or none that can be read.
        :raises IntegrityError: it is not for this key, of another authority, or not valid now.
        """
        if certificate is None:
            raise ProtocolError("the sender gave no certificate for a sealed offer")
        shown = self.key.accept(certificate, self._authority, now)
        self.renew = expires(certificate) - _RENEWED
        return Admission(Mode.SEALED, shown, self.key.key)

    def open(self, what: Unit, index: int, sealed: bytes) -> bytes:
        """What was sealed.

        :raises IntegrityError: it was not sealed for this place, or to another key.
        """
        return self.key.open(info_for(self._offer, self._transfer, what, index), sealed)


def utc(seconds: float) -> datetime:
    """A moment in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)
