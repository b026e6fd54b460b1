"""The part of the backend conformance suite that is about sealed offers: who is let in, and who is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..backends import Admission, PeerConnected, PeerRefused
from ..constants import Mode
from ..errors import BackendClosed, ProtocolError
from ..messages import Candidate
from ..sealing import Authority
from ._material import PATIENCE, PRIVATE, Material, admitted_by, event, material, on_a_loop, running, until
from ._swarming import SIZE, SwarmConformance, fetched

#: What a sealed offer's handle has before its certificate came.
NO_CERTIFICATE = Admission(Mode.SEALED)


def expired(authority: Authority) -> Admission:
    """A certificate whose time is over."""
    return Admission(Mode.SEALED, *authority.issue(datetime.now(UTC) - timedelta(days=8)))


def of_another_offer(authority: Authority) -> Admission:
    """A good one, for something else."""
    return admitted_by(Authority.make(datetime.now(UTC)))


def self_signed(authority: Authority) -> Admission:
    """A certificate that vouches for itself."""
    other = Authority.make(datetime.now(UTC))
    return Admission(Mode.SEALED, other.certificate, other.key)


def forged(authority: Authority) -> Admission:
    """A certificate of an authority that has the name of the right one, and another key."""
    name, key = x509.load_pem_x509_certificate(authority.certificate).subject, ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    twin = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=2), now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return admitted_by(Authority.load(twin.public_bytes(Encoding.PEM), secret))


async def heard(candidate: Candidate, said: bytes) -> bytes:
    """What a stranger gets to hear who connects, without TLS, says this, and waits for the other to hang up."""
    reader, writer = await asyncio.open_connection(str(candidate.address), candidate.port)
    writer.write(said)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionError:
        return b""
    finally:
        writer.close()


class SealedConformance(SwarmConformance):
    """What a backend does with sealed offers. All tests are skipped for one that cannot swarm in that mode."""

    async def sealed(self, directory: Path) -> Material:
        """A file of a sealed offer."""
        return await material(directory, SIZE, mode=Mode.SEALED)

    # What fits together, asked of every backend

    @pytest.mark.parametrize("mode", list(Mode))
    @on_a_loop
    async def test_open_with_the_admission_of_another_mode_raises(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        wrong = NO_CERTIFICATE if mode is Mode.PRIVATE else PRIVATE
        async with running(self.make_backend) as backend:
            with pytest.raises(ValueError, match="offer"):
                await backend.open_seed(given.manifest, given.paths, wrong)
            with pytest.raises(ValueError, match="offer"):
                await backend.open_download(given.bare, given.parts, wrong)
            download = await backend.open_download(given.bare, given.parts, given.admission())
            with pytest.raises(ValueError, match="offer"):
                await download.admit(wrong)

    @on_a_loop
    async def test_open_with_an_authority_that_is_none_raises(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        assert given.authority is not None
        for authority in (b"", b"no certificate", given.authority.certificate + given.authority.certificate):
            manifest = replace(given.manifest, extra={b"ssl-cert": authority})
            async with running(self.make_backend) as backend:
                with pytest.raises(ProtocolError):
                    await backend.open_download(manifest, given.parts, given.admission())

    @on_a_loop
    async def test_admit_of_a_certificate_with_another_key_raises(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        one, other = given.admission(), given.admission()
        wrong = Admission(Mode.SEALED, one.certificate, other.key)
        async with running(self.make_backend) as backend:
            with pytest.raises(ValueError, match="key"):
                await backend.open_download(given.bare, given.parts, wrong)
            download = await backend.open_download(given.bare, given.parts, one)
            with pytest.raises(ValueError, match="key"):
                await download.admit(wrong)

    @on_a_loop
    async def test_admit_after_the_end_raises(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with running(self.make_backend) as backend:
            download = await backend.open_download(given.bare, given.parts, NO_CERTIFICATE)
            await download.aclose()
            with pytest.raises(BackendClosed):
                await download.admit(given.admission())

    @on_a_loop
    async def test_download_without_a_certificate_stores_what_other_routes_bring(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with running(self.make_backend) as backend:
            download = await backend.open_download(given.manifest, given.parts, NO_CERTIFICATE)
            for piece in range(given.manifest.piece_count):
                await download.write(piece, given.piece(piece))
            assert await download.finished()
            await download.publish(given.parts)
        assert given.arrived()

    # Certificates

    @pytest.mark.parametrize("bad", [expired, of_another_offer, self_signed, forged])
    @on_a_loop
    async def test_download_with_a_bad_certificate_gets_nothing_until_it_has_a_good_one(
        self, tmp_path: Path, bad: Callable[[Authority], Admission]
    ) -> None:
        given = await self.sealed(tmp_path)
        assert given.authority is not None
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=Mode.SEALED)
            seed = await sender.open_seed(given.manifest, given.paths, given.admission())
            download = await receiver.open_download(given.bare, given.parts, bad(given.authority))
            download.add_candidates(await sender.candidates(Mode.SEALED))
            assert (await event(download, PeerRefused)).reason
            seed.add_candidates(await receiver.candidates(Mode.SEALED))
            assert (await event(seed, PeerRefused)).reason
            assert seed.status().connected == download.status().connected == ()
            assert download.have() == frozenset()
            await download.admit(given.admission())
            await fetched(download)
        assert given.arrived()

    @pytest.mark.parametrize("bad", [expired, of_another_offer, self_signed, forged])
    @on_a_loop
    async def test_seed_with_a_bad_certificate_gives_nothing_until_it_has_a_good_one(
        self, tmp_path: Path, bad: Callable[[Authority], Admission]
    ) -> None:
        given = await self.sealed(tmp_path)
        assert given.authority is not None
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=Mode.SEALED)
            seed = await sender.open_seed(given.manifest, given.paths, bad(given.authority))
            download = await receiver.open_download(given.bare, given.parts, given.admission())
            download.add_candidates(await sender.candidates(Mode.SEALED))
            assert (await event(download, PeerRefused)).reason
            seed.add_candidates(await receiver.candidates(Mode.SEALED))
            assert (await event(seed, PeerRefused)).reason
            assert download.have() == frozenset()
            await seed.admit(given.admission())
            await fetched(download)
        assert given.arrived()

    @on_a_loop
    async def test_download_without_a_certificate_waits_for_it(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=Mode.SEALED)
            seed = await sender.open_seed(given.manifest, given.paths, given.admission())
            download = await receiver.open_download(given.bare, given.parts, NO_CERTIFICATE)
            download.add_candidates(await sender.candidates(Mode.SEALED))
            await download.pause()
            await download.resume()
            seed.add_candidates(await receiver.candidates(Mode.SEALED))
            assert (await event(seed, PeerRefused)).reason
            assert download.have() == frozenset()
            await download.admit(given.admission())
            await fetched(download)
        assert given.arrived()

    @on_a_loop
    async def test_seed_without_a_certificate_waits_for_it(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=Mode.SEALED)
            seed = await sender.open_seed(given.manifest, given.paths, NO_CERTIFICATE)
            download = await receiver.open_download(given.bare, given.parts, given.admission())
            download.add_candidates(await sender.candidates(Mode.SEALED))
            assert (await event(download, PeerRefused)).reason
            await seed.admit(given.admission())
            seed.add_candidates(await receiver.candidates(Mode.SEALED))
            await fetched(download)
        assert given.arrived()

    @on_a_loop
    async def test_admit_while_paused_waits_for_resume(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=Mode.SEALED)
            seed = await sender.open_seed(given.manifest, given.paths, given.admission())
            download = await receiver.open_download(given.bare, given.parts, NO_CERTIFICATE)
            await download.pause()
            await download.admit(given.admission())
            download.add_candidates(await sender.candidates(Mode.SEALED))
            seed.add_candidates(await receiver.candidates(Mode.SEALED))
            await event(seed, PeerRefused)
            assert download.have() == frozenset()
            await download.resume()
            await fetched(download)
        assert given.arrived()

    @on_a_loop
    async def test_admit_again_hangs_up_on_nobody_and_lets_others_in(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        third = given.at(tmp_path / "third")
        everything = range(given.manifest.piece_count)
        async with AsyncExitStack() as stack:
            sender, seed, _, download = await self.pair(stack, given)
            (other,) = await self.backends(stack, 1, mode=Mode.SEALED)
            download.claim(everything)
            download.add_candidates(await sender.candidates(Mode.SEALED))
            await event(seed, PeerConnected)
            await event(download, PeerConnected)
            for handle in (seed, download):
                await handle.admit(given.admission())
            second = await other.open_download(third.bare, third.parts, third.admission())
            second.add_candidates(await sender.candidates(Mode.SEALED))
            await fetched(second)
            await until(lambda: len(download.status().connected) == 1, "still being connected")
            download.release(everything)
            await fetched(download)
            await seed.aclose()
            assert [e async for e in seed.events if isinstance(e, PeerRefused)] == []
        assert given.arrived()
        assert third.arrived()

    @on_a_loop
    async def test_admit_survives_learning_the_layers(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            await download.learn(given.manifest)
            await download.write(0, given.piece(0))
            download.add_candidates(await sender.candidates(Mode.SEALED))
            await fetched(download)
        assert given.arrived()

    @on_a_loop
    async def test_sealed_and_private_offers_side_by_side_arrive(self, tmp_path: Path) -> None:
        both = [await material(tmp_path, SIZE, seed=number, mode=mode) for number, mode in enumerate(Mode)]
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=Mode.SEALED)
            if Mode.PRIVATE not in sender.modes:
                pytest.skip("this backend knows only sealed offers")
            downloads = []
            for given in both:
                await sender.open_seed(given.manifest, given.paths, given.admission())
                downloads.append(await receiver.open_download(given.bare, given.parts, given.admission()))
                downloads[-1].add_candidates(await sender.candidates(given.mode))
            await asyncio.gather(*map(fetched, downloads))
        assert all(given.arrived() for given in both)

    # Strangers

    @on_a_loop
    async def test_stranger_without_tls_hears_nothing_on_any_port(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        hello = b"\x13BitTorrent protocol" + bytes(8) + given.manifest.info_hash[:20] + b"-XX0000-0123456789ab"
        async with AsyncExitStack() as stack:
            (sender,) = await self.backends(stack, 1, mode=Mode.SEALED)
            seed = await sender.open_seed(given.manifest, given.paths, given.admission())
            for mode in sender.modes:
                for candidate in await sender.candidates(mode):
                    answer = await heard(candidate, hello)
                    assert b"BitTorrent" not in answer
                    assert given.manifest.info_hash[:20] not in answer
            assert seed.status().uploaded == 0
            assert seed.status().connected == ()

    @on_a_loop
    async def test_plain_port_is_no_way_to_a_sealed_offer(self, tmp_path: Path) -> None:
        given = await self.sealed(tmp_path)
        async with AsyncExitStack() as stack:
            sender, seed, _, download = await self.pair(stack, given)
            if Mode.PRIVATE not in sender.modes:
                pytest.skip("this backend knows only sealed offers")
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            assert (await event(download, PeerRefused)).reason
            assert download.have() == frozenset()
            assert seed.status().connected == ()
            download.add_candidates(await sender.candidates(Mode.SEALED))
            await fetched(download)
        assert given.arrived()
