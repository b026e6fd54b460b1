"""What makes an offer sealed: its certificate authority, requests and certificates, and data sealed to a receiver.

::

    sender                                            receiver
    Authority.make() -- .certificate, in the info dict -->  check_authority()
                                                      ReceiverKey.make()
    Authority.sign()         <-- .request --
                             -- certificate -->       ReceiverKey.accept()
    seal(public_key(request))  -- sealed -->          ReceiverKey.open()

The swarm is TLS between holders of certificates that the offer's authority signed, as libtorrent's "SSL torrents" have
it. What goes through servers and proxies is sealed to the same key by HPKE (RFC 9180, base mode). All keys are P-256.

Nothing here waits, reads a clock or logs; `now` is always an aware datetime. Making or using a key takes up to a
millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Literal, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import IntegrityError, ProtocolError

__all__ = [
    "MAX_CERTIFICATE",
    "MAX_REQUEST",
    "OVERHEAD",
    "Authority",
    "PublicKey",
    "ReceiverKey",
    "Unit",
    "check_authority",
    "expires",
    "fits",
    "info_for",
    "public_key",
    "seal",
    "unseal",
]

PublicKey = ec.EllipticCurvePublicKey
#: What is sealed as one: a block of the content or of the piece layers, the whole content in an answer, or the key of
#: the offer's certificate authority.
Unit = Literal["block", "layers", "content", "authority"]

#: Bytes by which sealed data is longer: an ephemeral public key and a tag.
OVERHEAD = 65 + 16
#: Bytes of a certificate request in DER; ours have some 190.
MAX_REQUEST = 1_024
#: Bytes of a certificate, in DER or PEM; ours have some 370 in DER.
MAX_CERTIFICATE = 2_048

#: Clocks differ: everything is valid from so long before it was made.
_EARLIER = timedelta(hours=48)
_LEAF_LIFE = timedelta(days=7)
#: Longer than any offer lives: a receiver cannot be given another authority.
_AUTHORITY_LIFE = timedelta(days=3_650)

_SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_LABEL = b"slixmpp_bt sealed 0"
#: What the parsers of `cryptography` raise, at once or at the first look at a field, for what they do not take, or are
#: about not to take, where an application makes errors of warnings.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    CryptographyDeprecationWarning,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority of one offer, as its sender has it. Who holds it can admit to the swarm.

    :ivar certificate: PEM, some 460 bytes: the value of ``ssl-cert`` in the info dict.
    :ivar key: PEM, a secret.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    _issuer: x509.Certificate = field(repr=False, compare=False)
    _signer: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @classmethod
    def make(cls, now: datetime) -> Self:
        """A new one, whose name says nothing."""
        signer = ec.generate_private_key(ec.SECP256R1())
        name = _name(4)
        issuer = (
            _builder(name, name, signer.public_key(), now, _AUTHORITY_LIFE)
            .serial_number(1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(signer, hashes.SHA256())
        )
        return cls(issuer.public_bytes(Encoding.PEM), _pem(signer), issuer, signer)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Self:
        """The one that has these :attr:`certificate` and :attr:`key`.

        :raises ProtocolError: the certificate is not such an authority's.
        :raises IntegrityError: the key is none, or another one's.
        """
        issuer, signer = check_authority(certificate), _load_key(key)
        if issuer.public_key() != signer.public_key():
            raise IntegrityError("the key is not that of the certificate authority")
        return cls(certificate, key, issuer, signer)

    def sign(self, request: bytes, now: datetime) -> bytes:
        """Admit whoever has the key of `request` (PKCS #10, DER) until seven days from now; a certificate in DER.

        Of the request only the public key is taken.

        :raises ProtocolError: it is not a request for a P-256 key that is signed with that key.
        """
        return self._sign(public_key(request), now).public_bytes(Encoding.DER)

    def issue(self, now: datetime) -> tuple[bytes, bytes]:
        """A certificate for a new key, until seven days from now, and that key, both PEM: for the sender itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._sign(key.public_key(), now).public_bytes(Encoding.PEM), _pem(key)

    def _sign(self, key: PublicKey, now: datetime) -> x509.Certificate:
        # The subject must differ from the issuer's, which is shorter: OpenSSL would take it for a self-signed one.
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return (
            _builder(_name(8), self._issuer.subject, key, now, _LEAF_LIFE)
            .serial_number(x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("*")]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self._signer, hashes.SHA256())
        )


@dataclass(frozen=True, slots=True)
class ReceiverKey:
    """The key of one receiver for one accept.

    :ivar key: PEM, a secret.
    :ivar request: the certificate request for it, PKCS #10 in DER, some 190 bytes. Always the same.
    """

    key: bytes = field(repr=False)
    request: bytes
    _private: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @classmethod
    def make(cls) -> Self:
        """A new one."""
        private = ec.generate_private_key(ec.SECP256R1())
        # No name: whoever signs it takes none from here.
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        request = builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
        return cls(_pem(private), request, private)

    @classmethod
    def load(cls, key: bytes, request: bytes) -> Self:
        """The one that has these :attr:`key` and :attr:`request`.

        :raises IntegrityError: they do not belong together.
        :raises ProtocolError: the request is none.
        """
        private = _load_key(key)
        if public_key(request) != private.public_key():
            raise IntegrityError("the key is not that of the certificate request")
        return cls(key, request, private)

    @property
    def public(self) -> PublicKey:
        """What :func:`seal` seals to."""
        return self._private.public_key()

    def accept(self, certificate: bytes, authority: bytes, now: datetime) -> bytes:
        """Check the `certificate` (DER) that a sender gave for :attr:`request`, and return it in PEM.

        :param authority: the ``ssl-cert`` of the offer's info dict.
        :raises ProtocolError: one of the two is no such certificate.
        :raises IntegrityError: it is for another key, of another authority, or not valid now.
        """
        issuer, leaf = check_authority(authority), _load_leaf(certificate)
        if _key_of(leaf) != self.public:
            raise IntegrityError("the certificate is for another key")
        if not _issued_by(leaf, issuer):
            raise IntegrityError("the certificate is not of this offer's authority")
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise IntegrityError("the certificate is not valid at this time: do the clocks differ by days?")
        return leaf.public_bytes(Encoding.PEM)

    def open(self, info: bytes, sealed: bytes) -> bytes:
        """What was sealed to this key with the same `info`.

        :raises IntegrityError: it was sealed to another key or with another `info`, or was changed.
        """
        return _unseal(self._private, info, sealed)


def check_authority(certificate: bytes) -> x509.Certificate:
    """The certificate authority that an info dict names by `certificate`, the value of its ``ssl-cert``.

    It has to be the PEM text of one certificate and nothing beside it: of a P-256 key, signed with that key, for an
    authority that may not make others. Its dates are not looked at.

    :raises ProtocolError: it is anything else.
    """
    if len(certificate) > MAX_CERTIFICATE:
        raise ProtocolError(f"the certificate authority has more than {MAX_CERTIFICATE} bytes")
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        if loaded.public_bytes(Encoding.PEM) != certificate:
            raise ProtocolError("the certificate authority is not in PEM alone")
        constraints = loaded.extensions.get_extension_for_class(x509.BasicConstraints).value
        anonymous = not loaded.subject
    except (*_UNREADABLE, x509.ExtensionNotFound):
        raise ProtocolError("the certificate authority cannot be read") from None
    _key_of(loaded)
    if not constraints.ca or constraints.path_length != 0 or anonymous or not _issued_by(loaded, loaded):
        raise ProtocolError("that is not a certificate authority of a sealed offer")
    return loaded


def public_key(request: bytes) -> PublicKey:
    """The public key of a certificate request (PKCS #10, DER), whose owner signed it.

    :raises ProtocolError: it is not a request for a P-256 key that is signed with that key.
    """
    if len(request) > MAX_REQUEST:
        raise ProtocolError(f"the certificate request has more than {MAX_REQUEST} bytes")
    try:
        loaded = x509.load_der_x509_csr(request)
        signed = loaded.is_signature_valid
    except _UNREADABLE:
        raise ProtocolError("the certificate request cannot be read") from None
    if not signed:
        raise ProtocolError("the certificate request is not signed with its key")
    return _key_of(loaded)


def expires(certificate: bytes) -> datetime:
    """When a certificate (DER) ends, in UTC.

    :raises ProtocolError: it is none.
    """
    return _load_leaf(certificate).not_valid_after_utc


def fits(certificate: bytes, key: bytes) -> bool:
    """Whether a certificate is for the private `key`, both PEM."""
    try:
        return _key_of(x509.load_pem_x509_certificate(certificate)) == _load_key(key).public_key()
    except (ProtocolError, IntegrityError, *_UNREADABLE):
        return False


def info_for(offer_id: str, transfer_id: str, what: Unit, index: int) -> bytes:
    """What binds sealed data to its place (RFC 9180's `info`): no other place has the same.

    :param index: of the unit among those of its kind, from 0.
    """
    fields = (_LABEL, offer_id.encode(), transfer_id.encode(), what.encode(), index.to_bytes(8, "big"))
    return b"".join(len(value).to_bytes(2, "big") + value for value in fields)


def seal(key: PublicKey, info: bytes, data: bytes | memoryview) -> bytes:
    """Seal `data` so that only the holder of `key` can open it, with the same `info`: :data:`OVERHEAD` bytes more.

    Nobody can tell by it who sealed it.
    """
    return _SUITE.encrypt(data, key, info)


def unseal(key: bytes, info: bytes, sealed: bytes) -> bytes:
    """What was sealed with this `info` to the private `key` (PEM), of which the certificate request is not there any
    more.

    :raises IntegrityError: it was sealed to another key or with another `info`, or was changed; or the key is none.
    """
    return _unseal(_load_key(key), info, sealed)


def _unseal(key: ec.EllipticCurvePrivateKey, info: bytes, sealed: bytes) -> bytes:
    if len(sealed) < OVERHEAD:
        raise IntegrityError("what was sealed is cut short")
    try:
        return _SUITE.decrypt(sealed, key, info)
    except (InvalidTag, *_UNREADABLE):
        raise IntegrityError("what was sealed cannot be opened") from None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    begin, end = now.astimezone(UTC) - _EARLIER, now.astimezone(UTC) + life
    return x509.CertificateBuilder(issuer, subject, key, None, begin, end)


def _name(length: int) -> x509.Name:
    """One of random bytes, as many as that."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, token_hex(length))])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except _UNREADABLE:
        raise IntegrityError("that is not a private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IntegrityError("that is not a P-256 key")
    return key


def _load_leaf(certificate: bytes) -> x509.Certificate:
    if len(certificate) > MAX_CERTIFICATE:
        raise ProtocolError(f"the certificate has more than {MAX_CERTIFICATE} bytes")
    try:
        loaded = x509.load_der_x509_certificate(certificate)
        _ = loaded.not_valid_before_utc, loaded.not_valid_after_utc  # which are parsed only now
    except _UNREADABLE:
        raise ProtocolError("the certificate cannot be read") from None
    return loaded


def _key_of(signed: x509.Certificate | x509.CertificateSigningRequest) -> PublicKey:
    try:
        key = signed.public_key()
    except _UNREADABLE:
        raise ProtocolError("the public key cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ProtocolError("the public key is not a P-256 key")
    return key


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True
