"""Who may join the swarm of an offer."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..constants import Mode
from ..manifest import Manifest
from ..sealing import check_authority, fits


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may join the swarm of an offer, and by what this side shows that it may.

    In ``private`` mode: who knows the info-hash and an address. In ``sealed`` mode: who holds a certificate that the
    offer's authority (``ssl-cert`` in the info dict) signed; both sides of a connection demand the other's, and all
    that passes is encrypted.

    :ivar certificate: this side's, PEM, as :mod:`slixmpp_bt.sealing` makes it; None while there is none.
    :ivar key: the certificate's private key, PEM.
    :raises ValueError: one of the two without the other, or in ``private`` mode.
    """

    mode: Mode = Mode.PRIVATE
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate goes with its key")
        if self.mode is not Mode.SEALED and self.certificate is not None:
            raise ValueError("only a sealed offer has certificates")

    def check(self, manifest: Manifest) -> None:
        """Look whether this is for `manifest`: an authority in the info dict is what makes an offer a sealed one, for
        engines too.

        :raises ValueError: it is not, or its key is not that of its certificate.
        :raises ProtocolError: the authority in the info dict is none.
        """
        authority = manifest.extra.get(b"ssl-cert")
        if (self.mode is Mode.SEALED) != (authority is not None):
            raise ValueError(f"this is not a {self.mode} offer")
        if authority is not None:
            check_authority(authority)
        if self.certificate is not None and self.key is not None and not fits(self.certificate, self.key):
            raise ValueError("that is not the certificate of that key")
