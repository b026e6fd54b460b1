"""What the libtorrent backend gives to strangers who speak its protocols by hand, and what it says of them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from hashlib import sha1
from itertools import islice
from pathlib import Path

import pytest

from slixmpp_bt.backends import Admission, Backend, PeerRefused, RateLimits
from slixmpp_bt.backends._libtorrent.settings import DH_PARAMETERS
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.config import Endpoint
from slixmpp_bt.constants import Mode
from slixmpp_bt.messages import Candidate
from slixmpp_bt.sealing import Authority
from slixmpp_bt.testing._material import KIB, PATIENCE, Material, event, material, running
from slixmpp_bt.testing._sealed import NO_CERTIFICATE, expired, forged, of_another_offer, self_signed

pytestmark = pytest.mark.matrix

SIZE = 300 * KIB + 77


def make_backend(listen: tuple[Endpoint, ...], rates: RateLimits) -> Backend:
    return LibtorrentBackend(listen, rates)


def handshake(given: Material) -> bytes:
    """BitTorrent's, for the offer."""
    return b"\x13BitTorrent protocol" + bytes(8) + given.manifest.info_hash[:20] + b"-XX0000-0123456789ab"


async def heard(candidate: Candidate, said: bytes, tls: ssl.SSLContext | None = None, host: str | None = None) -> bytes:
    """What comes back before the other side hangs up, or, if it does not, is about to wait for more."""
    try:
        reader, writer = await asyncio.open_connection(
            str(candidate.address), candidate.port, ssl=tls, server_hostname=host
        )
    except (ssl.SSLError, ConnectionError):
        return b""
    found = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        writer.write(said)
        while len(found) < 2_000 and (data := await asyncio.wait_for(reader.read(4096), PATIENCE)):
            found += data
            if b"BitTorrent" in found:
                break
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return found


# TLS by hand


def context(directory: Path, admission: Admission) -> ssl.SSLContext:
    """A client that takes whoever answers, and shows this certificate."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    if admission.certificate and admission.key:
        (directory / "pem").write_bytes(admission.certificate + admission.key)
        found.load_cert_chain(directory / "pem")
    return found


def invited(authority: Authority) -> Admission:
    """What the sender gives to those it invites."""
    return Admission(Mode.SEALED, *authority.issue(datetime.now(UTC)))


def uninvited(authority: Authority) -> Admission:
    """Nothing."""
    return NO_CERTIFICATE


async def over_tls(directory: Path, given: Material, admission: Admission, candidate: Candidate) -> bytes:
    name = given.manifest.info_hash[:20].hex()
    return await heard(candidate, handshake(given), context(directory, admission), name)


async def test_invited_by_tls_is_answered(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE, mode=Mode.SEALED)
    assert given.authority is not None
    async with running(make_backend) as sender:
        await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.SEALED)
        assert given.manifest.info_hash[:20] in await over_tls(tmp_path, given, invited(given.authority), candidate)


@pytest.mark.parametrize("stranger", [uninvited, self_signed, forged, of_another_offer, expired])
async def test_stranger_by_tls_hears_nothing(tmp_path: Path, stranger: Callable[[Authority], Admission]) -> None:
    given = await material(tmp_path, SIZE, mode=Mode.SEALED)
    assert given.authority is not None
    async with running(make_backend) as sender:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.SEALED)
        assert await over_tls(tmp_path, given, stranger(given.authority), candidate) == b""
        assert seed.status().connected == ()


async def test_certificate_of_one_offer_opens_no_other(tmp_path: Path) -> None:
    one = await material(tmp_path, SIZE, mode=Mode.SEALED)
    other = await material(tmp_path, SIZE, seed=1, mode=Mode.SEALED)
    async with running(make_backend) as sender:
        for given in (one, other):
            await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.SEALED)
        name = one.manifest.info_hash[:20].hex()
        # Let in for the one, then asking for the other.
        answer = await heard(candidate, handshake(other), context(tmp_path, one.admission()), name)
        assert other.manifest.info_hash[:20] not in answer


# The plain port, with the handshake that hides what is spoken (message stream encryption)

_PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563",
    16,
)


def rc4(key: bytes) -> Iterator[int]:
    """The key stream, without its first 1,024 bytes."""
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]

    def stream() -> Iterator[int]:
        i = j = 0
        while True:
            i = (i + 1) % 256
            j = (j + state[i]) % 256
            state[i], state[j] = state[j], state[i]
            yield state[(state[i] + state[j]) % 256]

    return islice(stream(), 1024, None)


def hidden(*parts: bytes) -> bytes:
    return sha1(b"".join(parts)).digest()


async def answered_in_hiding(candidate: Candidate, given: Material) -> bool:
    """Whether somebody there proves to know the offer, to one who knows its info dict."""
    skey, secret = given.manifest.info_hash[:20], 0x1234567890ABCDEF << 96
    reader, writer = await asyncio.open_connection(str(candidate.address), candidate.port)
    writer.write(pow(2, secret, _PRIME).to_bytes(96, "big"))
    theirs = await asyncio.wait_for(reader.readexactly(96), PATIENCE)
    shared = pow(int.from_bytes(theirs, "big"), secret, _PRIME).to_bytes(96, "big")
    masked = bytes(a ^ b for a, b in zip(hidden(b"req2", skey), hidden(b"req3", shared), strict=True))
    said = bytes(8) + (3).to_bytes(4, "big") + bytes(2) + len(handshake(given)).to_bytes(2, "big") + handshake(given)
    cipher = rc4(hidden(b"keyA", shared, skey))
    writer.write(hidden(b"req1", shared) + masked + bytes(byte ^ next(cipher) for byte in said))
    proof = bytes(islice(rc4(hidden(b"keyB", shared, skey)), 8))
    answer = b""
    with contextlib.suppress(ConnectionError):
        while proof not in answer and (data := await asyncio.wait_for(reader.read(4096), PATIENCE)):
            answer += data
    writer.close()
    return proof in answer


@pytest.mark.parametrize("mode", list(Mode))
async def test_plain_port_answers_for_private_offers_only(tmp_path: Path, mode: Mode) -> None:
    given = await material(tmp_path, SIZE, mode=mode)
    async with running(make_backend) as sender:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        (candidate,) = await sender.candidates(Mode.PRIVATE)
        assert await answered_in_hiding(candidate, given) == (mode is Mode.PRIVATE)
        assert seed.status().uploaded == 0


# Reasons


@pytest.mark.parametrize(
    ("bad", "to_the_bad", "to_the_good"),
    [
        (expired, "clocks", "not valid any more"),
        (of_another_offer, "another offer", "not one of this offer"),
        (self_signed, "another offer", "not one of this offer"),
    ],
)
async def test_refusal_is_told_to_whoever_dialled(
    tmp_path: Path, bad: Callable[[Authority], Admission], to_the_bad: str, to_the_good: str
) -> None:
    given = await material(tmp_path, SIZE, mode=Mode.SEALED)
    assert given.authority is not None
    async with running(make_backend) as sender, running(make_backend) as receiver:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        download = await receiver.open_download(given.bare, given.parts, bad(given.authority))
        download.add_candidates(await sender.candidates(Mode.SEALED))
        assert to_the_bad in (await event(download, PeerRefused)).reason
        seed.add_candidates(await receiver.candidates(Mode.SEALED))
        assert to_the_good in (await event(seed, PeerRefused)).reason


async def test_refusal_by_who_has_no_certificate_yet_and_by_who_lacks_the_offer_says_so(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE, mode=Mode.SEALED)
    async with running(make_backend) as sender, running(make_backend) as receiver:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        candidates = await receiver.candidates(Mode.SEALED)
        seed.add_candidates(candidates)
        assert "not have this offer" in (await event(seed, PeerRefused)).reason
        await receiver.open_download(given.bare, given.parts, NO_CERTIFICATE)
        seed.add_candidates(candidates)
        assert "no certificate" in (await event(seed, PeerRefused)).reason


# The engine


async def test_port_that_is_asked_for_is_that_of_sealed_offers() -> None:
    async with running(make_backend) as backend:
        (free,) = await backend.candidates(Mode.SEALED)
    async with running(make_backend, (Endpoint(free.address, free.port),)) as backend:
        assert await backend.candidates(Mode.SEALED) == (free,)
        (plain,) = await backend.candidates(Mode.PRIVATE)
        assert plain.port != free.port


def test_dh_parameters_are_the_group_of_rfc_7919() -> None:
    with localcontext(prec=700):
        e = int(Decimal(1).exp() * 2**1918)
    prime = 2**2048 - 2**1984 + (e + 560316) * 2**64 - 1  # appendix A.1
    numbers = b"\x02\x82\x01\x01\x00" + prime.to_bytes(256, "big") + b"\x02\x01\x02"
    der = b64decode("".join(DH_PARAMETERS.splitlines()[1:-1]))
    assert der == b"\x30\x82" + len(numbers).to_bytes(2, "big") + numbers
