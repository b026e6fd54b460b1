"""What only the libtorrent backend does: privacy, uTP, resources, and the engine's own traps."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import pytest

from slixmpp_bt.backends import (
    UNLIMITED,
    Backend,
    Download,
    PeerConnected,
    PeerRefused,
    RateLimits,
    Seed,
    StorageFailed,
)
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.config import Endpoint
from slixmpp_bt.constants import Mode
from slixmpp_bt.errors import BTError
from slixmpp_bt.messages import Candidate
from slixmpp_bt.testing._material import KIB, LOOPBACK, PATIENCE, PRIVATE, Material, event, material, running, until
from slixmpp_bt.testing._swarming import closed_port, fetched

pytestmark = pytest.mark.matrix

SIZE = 300 * KIB + 77
#: ``peer_info::utp_socket``, which the binding does not name.
UTP_SOCKET = 0x20000


def make_backend(listen: tuple[Endpoint, ...], rates: RateLimits) -> Backend:
    return LibtorrentBackend(listen, rates)


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Backend, Backend]]:
    async with running(make_backend) as one, running(make_backend) as other:
        yield one, other


async def started(given: Material, sender: Backend, receiver: Backend) -> tuple[Seed, Download]:
    """A seed and a download that leaves everything alone until it is released."""
    seed = await sender.open_seed(given.manifest, given.paths, PRIVATE)
    download = await receiver.open_download(given.bare, given.parts, PRIVATE)
    download.claim(range(given.manifest.piece_count))
    return seed, download


def resources() -> tuple[int, int]:
    """Threads and descriptors of this process."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


# Privacy


async def test_session_is_known_to_nobody_but_those_told() -> None:
    backend = LibtorrentBackend(LOOPBACK)
    await backend.candidates(Mode.PRIVATE)
    assert backend._session is not None
    settings = backend._session.engine.get_settings()
    assert not settings["enable_dht"]
    assert not settings["enable_lsd"]
    assert not settings["enable_upnp"]
    assert not settings["enable_natpmp"]
    assert not backend._session.engine.is_dht_running()
    await backend.aclose()


async def test_handshake_in_the_clear_is_not_answered(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with running(make_backend) as sender:
        seed = await sender.open_seed(given.manifest, given.paths, PRIVATE)
        (candidate,) = await sender.candidates(Mode.PRIVATE)
        reader, writer = await asyncio.open_connection(str(candidate.address), candidate.port)
        writer.write(b"\x13BitTorrent protocol" + bytes(8) + given.manifest.info_hash[:20] + b"-XX0000-0123456789ab")
        answer = await asyncio.wait_for(_read_all(reader), PATIENCE)
        assert b"BitTorrent" not in answer
        assert given.manifest.info_hash[:20] not in answer
        assert seed.status().connected == ()
        writer.close()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


# Resources


async def test_aclose_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    before = resources()[0] - _workers(), resources()[1]
    async with two() as (sender, receiver):
        _, download = await started(given, sender, receiver)
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        download.release(range(given.manifest.piece_count))
        await fetched(download)
        assert resources()[0] - _workers() >= before[0] + 4
    # The loop's own workers stay; a thread that was joined may be listed for a moment.
    await until(lambda: resources()[0] - _workers() <= before[0], "the end of the engine's threads")
    assert resources()[1] <= before[1]


def _workers() -> int:
    return sum(thread.name.startswith("asyncio_") for thread in threading.enumerate())


async def test_aclose_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    before = resources()
    backend = LibtorrentBackend(LOOPBACK)
    opening = asyncio.ensure_future(backend.open_seed(given.manifest, given.paths, PRIVATE))
    await asyncio.sleep(0)
    await asyncio.wait_for(backend.aclose(), PATIENCE)
    assert isinstance((await asyncio.gather(opening, return_exceptions=True))[0], BTError)
    assert resources()[1] <= before[1]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_open_that_is_cancelled_can_be_repeated(tmp_path: Path, turns: int) -> None:
    given = await material(tmp_path, SIZE)
    async with running(make_backend) as backend:
        await backend.candidates(Mode.PRIVATE)
        opening = asyncio.ensure_future(backend.open_download(given.bare, given.parts, PRIVATE))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        (left,) = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(left, Download):
            await left.aclose()
        assert isinstance(backend, LibtorrentBackend)
        assert backend._session is not None
        assert not backend._session._by_hash
        await backend.open_download(given.bare, given.parts, PRIVATE)


def test_loop_that_ends_without_aclose_ends_the_process_in_peace(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from slixmpp_bt.testing._material import LOOPBACK, PRIVATE, material\n"
        "from slixmpp_bt.backends.libtorrent import LibtorrentBackend\n"
        "async def main():\n"
        "    given = await material(Path(sys.argv[1]), 99999)\n"
        "    backend = LibtorrentBackend(LOOPBACK)\n"
        "    await backend.open_seed(given.manifest, given.paths, PRIVATE)\n"
        "    return backend\n"
        "backend = asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        pytest.param("sys.modules['libtorrent'] = None", "plain", id="missing"),
        pytest.param("import libtorrent; libtorrent.__version__ = '2.0.13.0'", "2.0.14 or newer", id="too-old"),
    ],
)
def test_libtorrent_that_cannot_be_used_names_the_way_out(engine: str, words: str) -> None:
    script = (
        f"import asyncio, sys; {engine}\n"
        "from slixmpp_bt.testing._material import LOOPBACK\n"
        "from slixmpp_bt.backends.libtorrent import LibtorrentBackend\n"
        "from slixmpp_bt.constants import Mode\n"
        "from slixmpp_bt.errors import BackendUnavailable\n"
        "try:\n"
        "    asyncio.run(LibtorrentBackend(LOOPBACK).candidates(Mode.PRIVATE))\n"
        "except BackendUnavailable as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert words in done.stdout


# Dialling


async def test_add_candidates_while_somebody_is_connected_hangs_up_on_nobody(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        seed, download = await started(given, sender, receiver)
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        await event(seed, PeerConnected)
        await event(download, PeerConnected)
        nobody = closed_port()
        download.add_candidates((nobody,))
        await event(download, PeerRefused, lambda refused: refused.candidate == nobody)
        assert len(seed.status().connected) == 1
        download.release(range(given.manifest.piece_count))
        await fetched(download)
        await seed.aclose()
        assert [e async for e in seed.events if isinstance(e, PeerRefused)] == []


class Ferry(asyncio.DatagramProtocol):
    """Carries datagrams between whoever writes to it and one address: a way that is open for uTP and closed for TCP."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.carried = 0
        self._target = target
        self._guest: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.carried += 1
        if addr == self._target:
            self._transport.sendto(data, self._guest)
        else:
            self._guest = addr
            self._transport.sendto(data, self._target)


async def test_candidate_that_tcp_does_not_reach_is_reached_by_utp(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        _, download = await started(given, sender, receiver)
        download.release(range(given.manifest.piece_count))
        (candidate,) = await sender.candidates(Mode.PRIVATE)
        target = (str(candidate.address), candidate.port)
        transport, ferry = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Ferry(target), local_addr=("127.0.0.1", 0)
        )
        download.add_candidates((Candidate(candidate.address, transport.get_extra_info("sockname")[1]),))
        await fetched(download)
        transport.close()
    assert ferry.carried
    assert given.arrived()


async def test_candidate_that_tcp_reaches_is_not_dialled_by_utp(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        _, download = await started(given, sender, receiver)
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        await event(download, PeerConnected)
        assert isinstance(receiver, LibtorrentBackend)
        assert receiver._session is not None
        (torrent,) = receiver._session._by_hash.values()
        (peer,) = torrent.handle.get_peer_info()
        assert not peer.flags & UTP_SOCKET


# Many


async def test_fifty_transfers_at_once_all_arrive(tmp_path: Path) -> None:
    all_given = [await material(tmp_path, 64 * KIB + number, seed=number) for number in range(50)]
    async with two() as (sender, receiver):
        candidates = await sender.candidates(Mode.PRIVATE)

        async def transfer(given: Material) -> None:
            await sender.open_seed(given.manifest, given.paths, PRIVATE)
            download = await receiver.open_download(given.bare, given.parts, PRIVATE)
            download.add_candidates(candidates)
            await fetched(download)

        await asyncio.gather(*map(transfer, all_given))
    assert all(given.arrived() for given in all_given)


async def test_publish_of_hundreds_of_files_serves_them(tmp_path: Path) -> None:
    given = await material(tmp_path, *range(300, 600))
    third, finals = given.at(tmp_path / "third"), tmp_path / "finals"
    finals.mkdir()
    async with two() as (sender, receiver):
        seed = await sender.open_seed(given.manifest, given.paths, PRIVATE)
        download = await receiver.open_download(given.bare, given.parts, PRIVATE)
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        await fetched(download)
        for index, part in given.parts.items():
            (finals / str(index)).hardlink_to(part)
        await download.publish({index: finals / str(index) for index in given.parts})
        for part in given.parts.values():
            part.unlink()
        await seed.aclose()
        other = await sender.open_download(third.bare, third.parts, PRIVATE)
        other.add_candidates(await receiver.candidates(Mode.PRIVATE))
        await fetched(other)
    assert all(third.arrived(index) for index in third.parts)


# Failing disks


@contextmanager
def in_the_way(path: Path) -> Iterator[None]:
    """A directory where a file was."""
    hidden = path.rename(path.with_suffix(".hidden"))
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()
        hidden.rename(path)


async def test_disk_that_fails_below_the_swarm_stops_it_until_resume(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        seed, download = await started(given, sender, receiver)
        candidates = await sender.candidates(Mode.PRIVATE)
        with in_the_way(given.parts[0]):
            download.release(range(given.manifest.piece_count))
            download.add_candidates(candidates)
            failed = await event(download, StorageFailed)
            assert "directory" in str(failed.error)
            assert download.have() == frozenset()
            await until(lambda: seed.status().connected == (), "hanging up")
            with pytest.raises(BTError):
                await download.finished()
        await download.resume()
        await fetched(download)
        assert await download.layers() == given.manifest.layers
    assert given.arrived()


async def test_seed_whose_file_vanishes_tells_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        seed, download = await started(given, sender, receiver)
        download.release(range(given.manifest.piece_count))
        with in_the_way(given.paths[0]):
            download.add_candidates(await sender.candidates(Mode.PRIVATE))
            await event(seed, StorageFailed)
            with pytest.raises(BTError):
                await seed.resume()
        seed.add_candidates(await receiver.candidates(Mode.PRIVATE))
        await seed.resume()
        await fetched(download)
    assert given.arrived()


async def test_seed_whose_file_is_cut_short_tells_and_lives(tmp_path: Path) -> None:
    given = await material(tmp_path, 4 * 1024 * KIB)
    async with two() as (sender, receiver):
        seed, download = await started(given, sender, receiver)
        with given.paths[0].open("r+b") as file:
            file.truncate(1024 * KIB)
        download.release(range(given.manifest.piece_count))
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        await event(seed, StorageFailed)
        assert not await download.finished()


# Figures


async def test_status_after_finished_counts_every_byte(tmp_path: Path) -> None:
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        seed, download = await started(given, sender, receiver)
        download.release(range(given.manifest.piece_count))
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        await fetched(download)
        status = download.status()
        assert status.verified == SIZE
        assert status.downloaded >= SIZE
        await until(lambda: seed.status().uploaded >= SIZE, "the seed's figures")


async def test_set_limits_before_anything_is_open_is_kept() -> None:
    backend = LibtorrentBackend(LOOPBACK, UNLIMITED)
    await backend.set_limits(RateLimits(upload=4096, download=8192))
    await backend.candidates(Mode.PRIVATE)
    assert backend._session is not None
    settings = backend._session.engine.get_settings()
    assert (settings["upload_rate_limit"], settings["download_rate_limit"]) == (4096, 8192)
    await backend.aclose()


async def test_what_was_uploaded_is_counted_on_after_a_pause(tmp_path: Path) -> None:
    """libtorrent's count since the torrent was started begins anew."""
    given = await material(tmp_path, SIZE)
    async with two() as (sender, receiver):
        seed, download = await started(given, sender, receiver)
        download.add_candidates(await sender.candidates(Mode.PRIVATE))
        download.release(range(given.manifest.piece_count))
        await fetched(download)
        await until(lambda: seed.status().uploaded >= SIZE, "the figure")
        await seed.pause()
        await seed.resume()
        torrent, session = seed._torrent, sender._session  # type: ignore[attr-defined]
        before = torrent.figures
        session.refresh()
        await until(lambda: torrent.figures is not before, "a new figure")
        assert seed.status().uploaded >= SIZE
