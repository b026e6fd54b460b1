"""Certificate authorities, requests, certificates, and what is sealed to a key."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.errors import BTError, IntegrityError, ProtocolError
from slixmpp_bt.infodict import ManifestLimits
from slixmpp_bt.manifest import make
from slixmpp_bt.sealing import (
    MAX_CERTIFICATE,
    MAX_REQUEST,
    OVERHEAD,
    Authority,
    ReceiverKey,
    check_authority,
    expires,
    fits,
    info_for,
    public_key,
    seal,
    unseal,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AUTHORITY = Authority.make(NOW)
RECEIVER = ReceiverKey.make()
CERTIFICATE = AUTHORITY.sign(RECEIVER.request, NOW)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def request_for(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("mallory"))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def secret(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


# The authority


def test_authority_is_one_that_makes_no_others() -> None:
    certificate = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=48)
    assert certificate.not_valid_after_utc > NOW + timedelta(days=366)


def test_authority_says_nothing_about_who_made_it() -> None:
    one, other = (x509.load_pem_x509_certificate(Authority.make(NOW).certificate) for _ in range(2))
    assert one.subject != other.subject
    assert [extension.oid for extension in one.extensions] == [x509.BasicConstraints.oid]


async def test_authority_leaves_the_info_dict_of_one_file_small(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100_000))
    made = await make(path, salt=bytes(16), extra={b"ssl-cert": AUTHORITY.certificate})
    assert len(made.manifest.info) <= 660
    check_authority(type(made.manifest).parse(made.manifest.info, ManifestLimits(1 << 20, 1, 4096)).extra[b"ssl-cert"])


def test_authority_that_is_loaded_signs_for_the_same_offer() -> None:
    loaded = Authority.load(AUTHORITY.certificate, AUTHORITY.key)
    assert loaded == AUTHORITY
    assert RECEIVER.accept(loaded.sign(RECEIVER.request, NOW), AUTHORITY.certificate, NOW)


def test_authority_load_with_another_key_raises() -> None:
    for key in (Authority.make(NOW).key, b"", b"garbage", secret(ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(IntegrityError):
            Authority.load(AUTHORITY.certificate, key)


def test_secrets_are_not_shown() -> None:
    assert "PRIVATE" not in repr(AUTHORITY) + repr(RECEIVER)
    assert AUTHORITY.key.split(b"\n")[1].decode() not in repr(AUTHORITY)


def self_signed(**change: object) -> bytes:
    """An authority as ours, but for what is changed."""
    key = change.get("key") or p256()
    signer = change.get("signer") or key
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    assert isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    subject, issuer = change.get("subject", name("a")), change.get("issuer", name("a"))
    assert isinstance(subject, x509.Name)
    assert isinstance(issuer, x509.Name)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 1, NOW, NOW + timedelta(days=9))
    constraints = change.get("constraints", x509.BasicConstraints(ca=True, path_length=0))
    if isinstance(constraints, x509.BasicConstraints):
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_check_authority_takes_what_is_ours() -> None:
    assert check_authority(self_signed()).subject == name("a")


@pytest.mark.parametrize(
    "certificate",
    [
        self_signed(constraints=None),
        self_signed(constraints=x509.BasicConstraints(ca=False, path_length=None)),
        self_signed(constraints=x509.BasicConstraints(ca=True, path_length=None)),
        self_signed(constraints=x509.BasicConstraints(ca=True, path_length=1)),
        self_signed(key=ec.generate_private_key(ec.SECP384R1())),
        self_signed(key=rsa.generate_private_key(65537, 2048)),
        self_signed(signer=p256()),
        self_signed(issuer=name("b")),
        self_signed(subject=x509.Name([]), issuer=x509.Name([])),
        self_signed() + self_signed(),
        b"\n" + self_signed(),
        self_signed() + b"x",
        self_signed().replace(b"\n", b"\r\n"),
        self_signed()[:-40],
        x509.load_pem_x509_certificate(self_signed()).public_bytes(Encoding.DER),
        self_signed(subject=name("n" * 64)) + b"\n" * MAX_CERTIFICATE,
        b"",
    ],
)
def test_check_authority_of_anything_else_raises(certificate: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_authority(certificate)


# Requests and certificates


def test_sign_gives_a_certificate_for_seven_days_and_nothing_more() -> None:
    leaf = x509.load_der_x509_certificate(CERTIFICATE)
    extensions = leaf.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    alternative = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["*"]
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert len(extensions) == 3
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=48)
    assert leaf.not_valid_after_utc == expires(CERTIFICATE) == NOW + timedelta(days=7)
    assert leaf.public_key() == RECEIVER.public


def test_sign_takes_the_key_and_nothing_else_of_a_request() -> None:
    key = p256()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.load_pem_x509_certificate(AUTHORITY.certificate).subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    leaf = x509.load_der_x509_certificate(AUTHORITY.sign(greedy.public_bytes(Encoding.DER), NOW))
    assert leaf.public_key() == key.public_key()
    assert leaf.subject not in (greedy.subject, leaf.issuer)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert b"elsewhere" not in leaf.public_bytes(Encoding.DER)


def test_sign_twice_tells_no_two_receivers_apart_by_name() -> None:
    one, other = (x509.load_der_x509_certificate(AUTHORITY.sign(RECEIVER.request, NOW)) for _ in range(2))
    assert one.subject != other.subject
    assert one.serial_number != other.serial_number


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"0" * 100,
        RECEIVER.request[:-1],
        RECEIVER.request + b"\0",
        RECEIVER.request[:-8] + bytes(8),
        bytes(MAX_REQUEST + 1),
        request_for(rsa.generate_private_key(65537, 2048)),
        request_for(ec.generate_private_key(ec.SECP384R1())),
        request_for(ec.generate_private_key(ec.SECP256K1())),
        request_for(ed25519.Ed25519PrivateKey.generate()),
        CERTIFICATE,
    ],
)
def test_sign_of_a_bad_request_raises(request_: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        AUTHORITY.sign(request_, NOW)
    assert caught.value.condition == "bad-request"


def test_request_whose_signer_has_not_the_key_raises() -> None:
    # The victim's public key in a request that somebody else signed: the proof of possession fails.
    other = ReceiverKey.make()
    spki = RECEIVER.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forged = other.request.replace(other.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), spki)
    assert forged != other.request
    with pytest.raises(ProtocolError, match="not signed"):
        public_key(forged)


def test_issue_gives_a_certificate_and_its_key() -> None:
    certificate, key = AUTHORITY.issue(NOW)
    assert fits(certificate, key)
    assert not fits(certificate, RECEIVER.key)
    assert not fits(b"", key)
    assert not fits(certificate, b"")
    leaf = x509.load_pem_x509_certificate(certificate)
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))


def tls(side: Path, certificate: bytes, key: bytes, authority: bytes, purpose: int) -> ssl.SSLContext:
    """A context that demands a certificate of `authority` and shows its own."""
    side.write_bytes(certificate + key)
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.decode())
    context.load_cert_chain(side)
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A TLS handshake in memory, up to the server's last word on the client's certificate."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one, other = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                done.add(side)


def test_tls_between_two_who_were_admitted_is_made(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = Authority.make(now)
    receivers = RECEIVER.accept(authority.sign(RECEIVER.request, now), authority.certificate, now)
    server = tls(tmp_path / "server", *authority.issue(now), authority.certificate, ssl.PROTOCOL_TLS_SERVER)
    client = tls(tmp_path / "client", receivers, RECEIVER.key, authority.certificate, ssl.PROTOCOL_TLS_CLIENT)
    shake_hands(client, server)


@pytest.mark.parametrize(("whose", "days"), [("another", 0), ("ours", -8)])
def test_tls_with_another_authority_or_out_of_time_is_refused(tmp_path: Path, whose: str, days: int) -> None:
    now = datetime.now(UTC)
    authority = Authority.make(now)
    signer = authority if whose == "ours" else Authority.make(now)
    server = tls(tmp_path / "server", *authority.issue(now), authority.certificate, ssl.PROTOCOL_TLS_SERVER)
    stale = signer.issue(now + timedelta(days=days))
    client = tls(tmp_path / "client", *stale, authority.certificate, ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, server)


# The receiver


def test_receiver_key_that_is_loaded_is_the_same() -> None:
    loaded = ReceiverKey.load(RECEIVER.key, RECEIVER.request)
    assert loaded == RECEIVER
    assert loaded.open(b"i", seal(RECEIVER.public, b"i", b"data")) == b"data"


def test_receiver_key_load_of_what_does_not_belong_together_raises() -> None:
    with pytest.raises(IntegrityError):
        ReceiverKey.load(ReceiverKey.make().key, RECEIVER.request)
    with pytest.raises(IntegrityError):
        ReceiverKey.load(b"", RECEIVER.request)
    with pytest.raises(ProtocolError):
        ReceiverKey.load(RECEIVER.key, b"")


def test_request_is_small_and_names_nobody() -> None:
    assert len(RECEIVER.request) <= 200
    assert not x509.load_der_x509_csr(RECEIVER.request).subject


def test_accept_returns_the_certificate_in_pem() -> None:
    pem = RECEIVER.accept(CERTIFICATE, AUTHORITY.certificate, NOW)
    assert fits(pem, RECEIVER.key)
    assert x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) == CERTIFICATE


def test_accept_with_clocks_that_differ_by_a_day_takes_it() -> None:
    for day in (-1, 1):
        RECEIVER.accept(CERTIFICATE, AUTHORITY.certificate, NOW + timedelta(days=day))


def test_accept_of_a_certificate_for_another_key_raises() -> None:
    with pytest.raises(IntegrityError, match="another key"):
        RECEIVER.accept(AUTHORITY.sign(ReceiverKey.make().request, NOW), AUTHORITY.certificate, NOW)


def test_accept_of_a_certificate_of_another_authority_raises() -> None:
    with pytest.raises(IntegrityError, match="authority"):
        RECEIVER.accept(Authority.make(NOW).sign(RECEIVER.request, NOW), AUTHORITY.certificate, NOW)


@pytest.mark.parametrize("days", [-3, 8])
def test_accept_of_a_certificate_out_of_its_time_raises(days: int) -> None:
    with pytest.raises(IntegrityError, match="clocks"):
        RECEIVER.accept(CERTIFICATE, AUTHORITY.certificate, NOW + timedelta(days=days))


@pytest.mark.parametrize("certificate", [b"", CERTIFICATE[:-1], CERTIFICATE + b"\0", bytes(MAX_CERTIFICATE + 1)])
def test_accept_of_what_is_no_certificate_raises(certificate: bytes) -> None:
    with pytest.raises(ProtocolError):
        RECEIVER.accept(certificate, AUTHORITY.certificate, NOW)
    with pytest.raises(ProtocolError):
        expires(certificate)


# Hostile bytes


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """The original with some bytes overwritten, or anything."""
    changes = st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), min_size=1, max_size=4)

    def apply(found: list[tuple[int, int]]) -> bytes:
        data = bytearray(original)
        for place, value in found:
            data[place] = value
        return bytes(data)

    return st.one_of(changes.map(apply), st.binary(max_size=300))


def only_our_errors(call: Callable[[], object]) -> None:
    with contextlib.suppress(BTError):
        call()


@given(damaged(RECEIVER.request))
def test_request_that_is_damaged_raises_nothing_else(data: bytes) -> None:
    only_our_errors(lambda: AUTHORITY.sign(data, NOW))


@given(damaged(CERTIFICATE))
def test_certificate_that_is_damaged_is_never_taken(data: bytes) -> None:
    if data != CERTIFICATE:
        with pytest.raises(BTError):
            RECEIVER.accept(data, AUTHORITY.certificate, NOW)


@given(damaged(AUTHORITY.certificate))
def test_authority_that_is_damaged_is_never_taken(data: bytes) -> None:
    if data != AUTHORITY.certificate:
        with pytest.raises(BTError):
            check_authority(data)


# Sealing


@pytest.mark.parametrize("size", [0, 1, 16 * 1024])
def test_seal_is_opened_by_its_key_and_adds_the_overhead(size: int) -> None:
    data, info = bytes(range(256)) * (size // 256) + bytes(size % 256), info_for("o", "t", "block", 7)
    sealed = seal(public_key(RECEIVER.request), info, data)
    assert len(sealed) == size + OVERHEAD
    assert RECEIVER.open(info, sealed) == data
    assert seal(RECEIVER.public, info, memoryview(data)) != sealed


def test_open_of_what_was_moved_elsewhere_raises() -> None:
    sealed = seal(RECEIVER.public, info_for("o", "t", "block", 7), b"data")
    for info in (info_for("o", "t", "block", 8), info_for("o", "t", "layers", 7), info_for("o", "u", "block", 7), b""):
        with pytest.raises(IntegrityError):
            RECEIVER.open(info, sealed)


def test_open_with_another_key_raises() -> None:
    with pytest.raises(IntegrityError):
        ReceiverKey.make().open(b"i", seal(RECEIVER.public, b"i", b"data"))


def test_unseal_needs_the_key_alone() -> None:
    info = info_for("o", "t", "authority", 0)
    sealed = seal(RECEIVER.public, info, b"data")
    assert unseal(RECEIVER.key, info, sealed) == b"data"
    other = ReceiverKey.make().key
    for key, place, data in [
        (other, info, sealed),
        (RECEIVER.key, b"", sealed),
        (b"no key", info, sealed),
        (b"", b"", b""),
    ]:
        with pytest.raises(IntegrityError):
            unseal(key, place, data)


SEALED = seal(RECEIVER.public, b"i", b"data")


@given(damaged(SEALED))
def test_open_of_what_was_changed_raises(data: bytes) -> None:
    if data != SEALED:
        with pytest.raises(IntegrityError):
            RECEIVER.open(b"i", data)


IDS = st.text(max_size=64)
PLACES = st.tuples(IDS, IDS, st.sampled_from(["block", "layers", "content", "authority"]), st.integers(0, 2**63 - 1))


@given(PLACES, PLACES)
def test_info_for_is_another_for_every_place(one: tuple[str, str, str, int], other: tuple[str, str, str, int]) -> None:
    assert (info_for(*one) == info_for(*other)) == (one == other)  # type: ignore[arg-type]


def test_info_for_does_not_let_ids_run_into_each_other() -> None:
    assert info_for("ab", "c", "block", 0) != info_for("a", "bc", "block", 0)


# HPKE again, from the text of RFC 9180 (sections 4 to 5.2), so that ours is held to the RFC and not to a library


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    mac = hmac.HMAC(salt or bytes(32), hashes.SHA256())
    mac.update(b"HPKE-v1" + suite + label + material)
    return mac.finalize()


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, labelled).derive(key)


def rfc_9180(private: ec.EllipticCurvePrivateKey, enc: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The key and nonce of the first message: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode."""
    kem, hpke = b"KEM\x00\x10", b"HPKE\x00\x10\x00\x01\x00\x01"
    ephemeral = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
    own = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = _extract(kem, b"", b"eae_prk", private.exchange(ec.ECDH(), ephemeral))
    shared = _expand(kem, shared, b"shared_secret", enc + own, 32)
    context = b"\0" + _extract(hpke, b"", b"psk_id_hash", b"") + _extract(hpke, b"", b"info_hash", info)
    secret = _extract(hpke, shared, b"secret", b"")
    return _expand(hpke, secret, b"key", context, 16), _expand(hpke, secret, b"base_nonce", context, 12)


#: RFC 9180 appendix A.3.1: the recipient's key, what was encapsulated, the info, and what comes of it.
VECTOR = {
    "skRm": "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
    "enc": "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac9"
    "8536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "key": "868c066ef58aae6dc589b6cfdd18f97e",
    "base_nonce": "4e0bc5018beba4bf004cca59",
    "aad": "436f756e742d30",
    "pt": "4265617574792069732074727574682c20747275746820626561757479",
    "ct": "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
}


def test_rfc_9180_as_written_here_gives_the_rfcs_own_figures() -> None:
    vector = {field: bytes.fromhex(value) for field, value in VECTOR.items()}
    private = ec.derive_private_key(int.from_bytes(vector["skRm"], "big"), ec.SECP256R1())
    key, nonce = rfc_9180(private, vector["enc"], vector["info"])
    assert (key, nonce) == (vector["key"], vector["base_nonce"])
    assert AESGCM(key).decrypt(nonce, vector["ct"], vector["aad"]) == vector["pt"]


def test_seal_is_opened_by_the_rfc_as_written_here() -> None:
    private = p256()
    sealed = seal(private.public_key(), b"info", b"data")
    key, nonce = rfc_9180(private, sealed[:65], b"info")
    assert AESGCM(key).decrypt(nonce, sealed[65:], b"") == b"data"


def test_open_takes_what_the_rfc_as_written_here_seals() -> None:
    enc = p256().public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key, nonce = rfc_9180(RECEIVER._private, enc, b"info")
    assert RECEIVER.open(b"info", enc + AESGCM(key).encrypt(nonce, b"data", b"")) == b"data"
