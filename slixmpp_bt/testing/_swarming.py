"""The part of the backend conformance suite that is about peers."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from ..backends import (
    UNLIMITED,
    Backend,
    Download,
    Finished,
    PeerConnected,
    PeerRefused,
    RateLimits,
    Seed,
    StorageFailed,
)
from ..config import Endpoint
from ..constants import Mode
from ..errors import BackendUnavailable
from ..messages import Candidate, Share
from ._material import KIB, LOOPBACK, PATIENCE, PRIVATE, Material, event, material, on_a_loop, running, until

#: Long enough for many pieces, short enough to move at once.
SIZE = 300 * KIB + 77


async def fetched(download: Download) -> None:
    """Wait until everything arrived and is flushed."""
    await event(download, Finished)
    assert await download.finished()


def closed_port() -> Candidate:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Candidate(ip_address("127.0.0.1"), probe.getsockname()[1])


#: Runs a test in every mode.
modes = pytest.mark.parametrize("mode", list(Mode))


class SwarmConformance(ABC):
    """What a backend does with peers. All tests are skipped for one without a mode to swarm in."""

    @abstractmethod
    def make_backend(self, listen: tuple[Endpoint, ...], rates: RateLimits) -> Backend:
        """The backend to test."""

    async def backends(
        self, stack: AsyncExitStack, count: int, rates: RateLimits = UNLIMITED, *, mode: Mode = Mode.PRIVATE
    ) -> list[Backend]:
        """So many backends, closed when `stack` is; the test is skipped if they cannot swarm in `mode`."""
        found = [await stack.enter_async_context(running(self.make_backend, LOOPBACK, rates)) for _ in range(count)]
        if mode not in found[0].modes:
            pytest.skip(f"this backend has no swarm for {mode} offers")
        return found

    async def pair(self, stack: AsyncExitStack, given: Material) -> tuple[Backend, Seed, Backend, Download]:
        """A seed, and a download that knows no more than the info dict, each in a backend of its own."""
        sender, receiver = await self.backends(stack, 2, mode=given.mode)
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        download = await receiver.open_download(given.bare, given.parts, given.admission())
        return sender, seed, receiver, download

    # Candidates

    @modes
    @on_a_loop
    async def test_candidates_on_loopback_can_be_dialled(self, mode: Mode) -> None:
        async with AsyncExitStack() as stack:
            (backend,) = await self.backends(stack, 1, mode=mode)
            (candidate,) = await backend.candidates(mode)
            assert candidate.address.is_loopback
            _, writer = await asyncio.open_connection(str(candidate.address), candidate.port)
            writer.close()
            await writer.wait_closed()

    @on_a_loop
    async def test_candidates_of_both_families_begin_with_ipv6(self) -> None:
        listen = (*LOOPBACK, Endpoint.parse("::1"))
        async with running(self.make_backend, listen) as backend:
            if not backend.modes or not _has_ipv6():
                pytest.skip("this backend has no swarm, or this host no IPv6")
            assert [c.address.version for c in await backend.candidates(Mode.PRIVATE)] == [6, 4]

    @on_a_loop
    async def test_candidates_everywhere_are_addresses_that_others_can_dial(self) -> None:
        everywhere = (Endpoint(IPv4Address(0)), Endpoint(IPv6Address(0)))
        async with running(self.make_backend, everywhere) as backend:
            found = await backend.candidates(Mode.PRIVATE)
            assert len(found) <= 8
            assert not any(c.address.is_loopback or c.address.is_unspecified or not c.port for c in found)

    @on_a_loop
    async def test_candidates_of_a_port_that_is_taken_raises(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = (Endpoint(ip_address("127.0.0.1"), taken.getsockname()[1]),)
            async with running(self.make_backend, listen) as backend:
                if not backend.modes:
                    pytest.skip("this backend has no swarm")
                with pytest.raises(BackendUnavailable, match=str(listen[0].port)):
                    await backend.candidates(_mode_with_a_port(backend))

    # One to one

    @pytest.mark.parametrize("size", [1, 16 * KIB, SIZE, 3 * 1024 * KIB])
    @modes
    @on_a_loop
    async def test_download_that_dials_arrives(self, tmp_path: Path, size: int, mode: Mode) -> None:
        given = await material(tmp_path, size, mode=mode)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
            assert given.arrived()
            assert download.status().downloaded >= size
            assert download.have() == frozenset(range(given.manifest.piece_count))

    @modes
    @on_a_loop
    async def test_download_that_is_dialled_arrives(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        async with AsyncExitStack() as stack:
            _, seed, receiver, download = await self.pair(stack, given)
            seed.add_candidates(await receiver.candidates(mode))
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_download_when_both_dial_arrives_and_both_tell_who_is_there(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        async with AsyncExitStack() as stack:
            sender, seed, receiver, download = await self.pair(stack, given)
            seed.add_candidates(await receiver.candidates(mode))
            download.add_candidates(await sender.candidates(mode))
            await event(seed, PeerConnected)
            await event(download, PeerConnected)
            await until(lambda: download.have() == frozenset(range(given.manifest.piece_count)), "all pieces")
            assert await download.finished()
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_download_by_ipv6_arrives(self, tmp_path: Path, mode: Mode) -> None:
        if not _has_ipv6():
            pytest.skip("this host has no IPv6")
        given, listen = await material(tmp_path, SIZE, mode=mode), (Endpoint.parse("::1"),)
        async with running(self.make_backend, listen) as sender, running(self.make_backend, listen) as receiver:
            if mode not in sender.modes:
                pytest.skip("this backend has no swarm")
            await sender.open_seed(given.manifest, given.paths, given.admission())
            download = await receiver.open_download(given.bare, given.parts, given.admission())
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_download_of_a_tree_arrives(self, tmp_path: Path, mode: Mode) -> None:
        names = {1: "n" * 255, 3: "ü" * 127, 4: "CON", 5: ".pad"}
        given = await material(tmp_path, SIZE, 16 * KIB, 0, 5, 70 * KIB, 70 * KIB, 1, names=names, mode=mode)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
        assert all(given.arrived(index) for index in given.parts)
        assert {path.name for path in given.parts[0].parent.iterdir()} == {p.name for p in given.parts.values()}

    @on_a_loop
    async def test_select_fetches_nothing_else(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE, SIZE, SIZE)
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2)
            await sender.open_seed(given.manifest, given.paths, PRIVATE)
            download = await receiver.open_download(given.bare, given.parts, PRIVATE, select=frozenset({2}))
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await fetched(download)
            assert download.have() == given.manifest.pieces_of(frozenset({2}))
        assert given.arrived(2)
        assert [path.name for path in given.parts[2].parent.iterdir()] == [given.parts[2].name]

    @modes
    @on_a_loop
    async def test_download_many_at_once_all_arrive(self, tmp_path: Path, mode: Mode) -> None:
        all_given = [await material(tmp_path, 40 * KIB, seed=number, mode=mode) for number in range(20)]
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2, mode=mode)
            candidates = await sender.candidates(mode)
            downloads = []
            for given in all_given:
                await sender.open_seed(given.manifest, given.paths, given.admission())
                downloads.append(await receiver.open_download(given.bare, given.parts, given.admission()))
                downloads[-1].add_candidates(candidates)
            await asyncio.gather(*map(fetched, downloads))
        assert all(given.arrived() for given in all_given)

    # Who is not there, or not any more

    @on_a_loop
    async def test_candidate_that_does_not_answer_is_told_once_and_dialled_again(self, tmp_path: Path) -> None:
        nobody = closed_port()
        async with running(self.make_backend) as receiver, AsyncExitStack() as stack:
            if not receiver.modes:
                pytest.skip("this backend has no swarm")
            given = await material(tmp_path, SIZE, mode=_mode_with_a_port(receiver))
            download = await receiver.open_download(given.bare, given.parts, given.admission())
            download.add_candidates((nobody,))
            refused = await event(download, PeerRefused)
            assert refused.candidate == nobody
            assert refused.reason
            late = (Endpoint(nobody.address, nobody.port),)
            sender = await stack.enter_async_context(running(self.make_backend, late))
            await sender.open_seed(given.manifest, given.paths, given.admission())
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_peer_that_came_and_went_is_told(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, 1, mode=mode)
        async with AsyncExitStack() as stack:
            _, seed, receiver, download = await self.pair(stack, given)
            there = await receiver.candidates(mode)
            seed.add_candidates(there)
            await fetched(download)
            await download.aclose()
            assert (await event(seed, PeerConnected)).candidate in there
            assert (await event(seed, PeerRefused)).candidate in there

    @modes
    @on_a_loop
    async def test_pause_hangs_up_and_resume_goes_on(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, 1024 * KIB, mode=mode)
        async with AsyncExitStack() as stack:
            sender, seed, _, download = await self.pair(stack, given)
            last = given.manifest.piece_count - 1
            download.claim({last})
            download.add_candidates(await sender.candidates(mode))
            await event(seed, PeerConnected)
            await download.pause()
            await event(seed, PeerRefused)
            assert seed.status().connected == ()
            download.release({last})
            assert last not in download.have()
            await download.resume()
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_seed_that_is_paused_and_resumed_serves(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        async with AsyncExitStack() as stack:
            sender, seed, receiver, download = await self.pair(stack, given)
            await seed.pause()
            download.add_candidates(await sender.candidates(mode))
            await event(download, PeerRefused)
            assert download.have() == frozenset()
            seed.add_candidates(await receiver.candidates(mode))
            await seed.resume()
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_remove_candidates_hangs_up_and_forgets(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        async with AsyncExitStack() as stack:
            sender, seed, _, download = await self.pair(stack, given)
            download.claim(range(given.manifest.piece_count))
            candidates = await sender.candidates(mode)
            download.add_candidates(candidates)
            await event(seed, PeerConnected)
            download.remove_candidates((*candidates, closed_port()))
            await until(lambda: seed.status().connected == (), "hanging up")
            download.add_candidates(candidates)
            download.release(range(given.manifest.piece_count))
            await fetched(download)
        assert given.arrived()

    # Other routes beside the swarm

    @on_a_loop
    async def test_claim_is_left_to_the_other_route(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        claimed = frozenset({0, 7, given.manifest.piece_count - 1})
        rest = frozenset(range(given.manifest.piece_count)) - claimed
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2)
            await sender.open_seed(given.manifest, given.paths, PRIVATE)
            download = await receiver.open_download(given.manifest, given.parts, PRIVATE)
            download.claim(claimed)
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await until(lambda: download.have() == rest, "all but the claimed pieces")
            assert not await download.finished()
            await download.write(0, given.piece(0))
            download.release(claimed)
            await fetched(download)
            assert download.status().downloaded < given.manifest.size
        assert given.arrived()

    @on_a_loop
    async def test_checkpoint_spares_the_swarm_what_was_had(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        half = given.manifest.piece_count // 2
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2)
            await sender.open_seed(given.manifest, given.paths, PRIVATE)
            download = await receiver.open_download(given.manifest, given.parts, PRIVATE)
            for piece in range(half):
                await download.write(piece, given.piece(piece))
            checkpoint = await download.checkpoint()
            await download.aclose()
            download = await receiver.open_download(given.bare, given.parts, PRIVATE, checkpoint=checkpoint)
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await fetched(download)
            # Less one: an engine may count the last piece in full.
            assert download.status().downloaded <= given.manifest.size - (half - 1) * given.manifest.piece_length
        assert given.arrived()

    # Those who serve

    @modes
    @on_a_loop
    async def test_publish_serves_others_from_the_final_name(self, tmp_path: Path, mode: Mode) -> None:
        given, final = await material(tmp_path, SIZE, mode=mode), tmp_path / "final"
        third = given.at(tmp_path / "third")
        async with AsyncExitStack() as stack:
            sender, first_seed, receiver, download = await self.pair(stack, given)
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
            final.hardlink_to(given.parts[0])
            await download.publish({0: final})
            given.parts[0].unlink()
            await first_seed.aclose()
            other = await sender.open_download(third.bare, third.parts, third.admission())
            other.add_candidates(await receiver.candidates(mode))
            await fetched(other)
        assert third.arrived()

    @on_a_loop
    async def test_publish_of_a_selection_serves_it(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE, SIZE, 0, SIZE)
        third, final, wanted = given.at(tmp_path / "third"), tmp_path / "final", frozenset({1, 2})
        async with AsyncExitStack() as stack:
            sender, receiver = await self.backends(stack, 2)
            first_seed = await sender.open_seed(given.manifest, given.paths, PRIVATE)
            download = await receiver.open_download(given.bare, given.parts, PRIVATE, select=wanted)
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await fetched(download)
            final.hardlink_to(given.parts[1])
            await download.publish({1: final, 2: given.parts[2]})
            given.parts[1].unlink()
            await first_seed.aclose()
            other = await sender.open_download(third.bare, third.parts, PRIVATE, select=wanted)
            other.add_candidates(await receiver.candidates(Mode.PRIVATE))
            await fetched(other)
        assert third.arrived(1)
        assert third.arrived(2)

    # Shares: hints that a backend may follow or not

    @modes
    @on_a_loop
    async def test_prefer_of_a_share_nobody_else_fetches_arrives_whole(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            download.prefer(Share(2, 5))
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_prefer_of_shares_by_several_and_again_arrives_at_all(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, mode=mode)
        others = [given.at(tmp_path / str(number)) for number in range(3)]
        async with AsyncExitStack() as stack:
            sender, *receivers = await self.backends(stack, 4, mode=mode)
            await sender.open_seed(given.manifest, given.paths, given.admission())
            everybody = [(await backend.candidates(mode))[0] for backend in (sender, *receivers)]
            downloads = []
            for number, (backend, other) in enumerate(zip(receivers, others, strict=True)):
                downloads.append(await backend.open_download(other.bare, other.parts, other.admission()))
                downloads[-1].prefer(Share(number % 2, 2))
                downloads[-1].add_candidates(everybody)
            for number, download in enumerate(downloads):
                download.prefer(Share(number, 3))
            await asyncio.gather(*map(fetched, downloads))
        assert all(other.arrived() for other in others)

    @on_a_loop
    async def test_prefer_leaves_what_another_route_fetches(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            download.claim({0, 1})
            download.prefer(Share(0, 2))
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await until(lambda: len(download.have()) == given.manifest.piece_count - 2, "all but what is claimed")
            download.prefer(Share(0, 1))
            assert not download.have() & {0, 1}
            download.release({0, 1})
            await fetched(download)
        assert given.arrived()

    @modes
    @on_a_loop
    async def test_layers_that_peers_told_are_those_of_the_sender(self, tmp_path: Path, mode: Mode) -> None:
        given = await material(tmp_path, SIZE, SIZE, 5 * KIB, 16 * KIB, 900 * KIB, mode=mode)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
            assert await download.layers() == given.manifest.layers

    @modes
    @on_a_loop
    async def test_publish_dials_who_was_a_candidate(self, tmp_path: Path, mode: Mode) -> None:
        given, final = await material(tmp_path, SIZE, mode=mode), tmp_path / "final"
        third = given.at(tmp_path / "third")
        async with AsyncExitStack() as stack:
            (other,) = await self.backends(stack, 1, mode=mode)
            sender, first_seed, _, download = await self.pair(stack, given)
            download.add_candidates(await sender.candidates(mode))
            await fetched(download)
            await first_seed.aclose()
            waiting = await other.open_download(third.bare, third.parts, third.admission())
            download.add_candidates(await other.candidates(mode))
            final.hardlink_to(given.parts[0])
            await download.publish({0: final})
            await fetched(waiting)
        assert third.arrived()

    @on_a_loop
    async def test_seed_of_a_file_that_changed_stops_and_changes_nothing(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        changed = bytes(SIZE)
        given.paths[0].write_bytes(changed)
        async with AsyncExitStack() as stack:
            sender, seed, _, download = await self.pair(stack, given)
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await event(seed, StorageFailed)
            assert download.have() == frozenset()
        assert given.paths[0].read_bytes() == changed

    # Caps

    @on_a_loop
    async def test_set_limits_of_peers_on_this_host_hold_and_can_be_lifted(self, tmp_path: Path) -> None:
        given = await material(tmp_path, 2048 * KIB)
        async with AsyncExitStack() as stack:
            sender, _, _, download = await self.pair(stack, given)
            await sender.set_limits(RateLimits(upload=64 * KIB))
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_finish(download), 2.0)
            assert download.status().verified < given.manifest.size
            await sender.set_limits(UNLIMITED)
            await asyncio.wait_for(_finish(download), PATIENCE)
            assert await download.finished()
        assert given.arrived()


async def _finish(download: Download) -> None:
    async for found in download.events:
        if isinstance(found, Finished):
            return


def _mode_with_a_port(backend: Backend) -> Mode:
    """The mode for which a port that was asked for is used."""
    return Mode.SEALED if Mode.SEALED in backend.modes else Mode.PRIVATE


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
