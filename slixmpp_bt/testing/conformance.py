"""What every backend has to do: a suite for those who write one.

Derive a class from :class:`BackendConformance` in a test module, and pytest runs every sentence of the contract
(:mod:`slixmpp_bt.backends.base`) over your backend. It needs pytest and no plugin, real files, and loopback addresses::

    from slixmpp_bt.testing.conformance import BackendConformance


    class TestMyBackend(BackendConformance):
        def make_backend(self, listen, rates):
            return MyBackend(listen, rates)

A backend is asked to swarm only in its ``modes``: the tests of others are skipped.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ..backends import UNLIMITED, Backend, Download, Finished, PieceStored, RateLimits, StorageFailed, Swarm
from ..config import Endpoint
from ..constants import Mode
from ..errors import BackendClosed, BTError, StorageError
from ..messages import Share
from ._material import KIB, LOOPBACK, PATIENCE, PRIVATE, Material, event, material, on_a_loop, open_below, running
from ._sealed import SealedConformance

__all__ = ["BackendConformance"]

#: One file of this many bytes has pieces of 16 KiB, the last one short.
SIZE = 300 * KIB + 77


async def downloading(backend: Backend, given: Material, checkpoint: bytes | None = None) -> Download:
    """A download that can judge its pieces."""
    return await backend.open_download(given.manifest, given.parts, PRIVATE, checkpoint=checkpoint)


async def fill(download: Download, given: Material) -> None:
    """Bring every piece by another route than the swarm."""
    for piece in range(given.manifest.piece_count):
        await download.write(piece, given.piece(piece))


class StoreConformance(ABC):
    """What a backend does without peers."""

    @abstractmethod
    def make_backend(self, listen: tuple[Endpoint, ...], rates: RateLimits) -> Backend:
        """The backend to test."""

    # Opening and closing

    @on_a_loop
    async def test_aclose_twice_is_harmless(self, tmp_path: Path) -> None:
        backend = self.make_backend(LOOPBACK, UNLIMITED)
        given = await material(tmp_path, SIZE)
        download = await downloading(backend, given)
        for _ in range(2):
            await asyncio.wait_for(download.aclose(), PATIENCE)
            await asyncio.wait_for(backend.aclose(), PATIENCE)

    @on_a_loop
    async def test_aclose_with_open_handles_closes_them(self, tmp_path: Path) -> None:
        given, other = await material(tmp_path, SIZE), await material(tmp_path, SIZE, seed=1)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            seed = await backend.open_seed(other.manifest, other.paths, PRIVATE)
            await download.write(0, given.piece(0))
        for handle in (download, seed):
            with pytest.raises(BackendClosed):
                handle.status()
            assert [e async for e in handle.events if not isinstance(e, PieceStored)] == []
        assert open_below(tmp_path) == []

    @on_a_loop
    async def test_backend_when_closed_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            pass
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: backend.open_seed(given.manifest, given.paths, PRIVATE),
            lambda: downloading(backend, given),
            lambda: backend.set_limits(UNLIMITED),
        ]
        for call in calls:
            with pytest.raises(BackendClosed):
                await call()

    @on_a_loop
    async def test_handle_when_closed_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await download.aclose()
            await _raises_closed(download)
            assert [e async for e in download.events] == []
            with pytest.raises(BackendClosed):
                download.have()
            with pytest.raises(BackendClosed):
                download.claim((0,))
            with pytest.raises(BackendClosed):
                download.prefer(Share(0, 2))
            with pytest.raises(BackendClosed):
                await download.write(0, given.piece(0))
            with pytest.raises(BackendClosed):
                await download.finished()
            with pytest.raises(BackendClosed):
                await download.checkpoint()
            with pytest.raises(BackendClosed):
                await download.publish(given.paths)

    @on_a_loop
    async def test_aclose_keeps_files_and_leaves_none_open(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await fill(download, given)
            await download.aclose()
            assert open_below(tmp_path) == []
        assert given.parts[0].is_file()

    @on_a_loop
    async def test_open_twice_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            with pytest.raises(BTError):
                await backend.open_seed(given.manifest, given.paths, PRIVATE)
            await download.aclose()
            await backend.open_seed(given.manifest, given.paths, PRIVATE)

    # Seeds

    @on_a_loop
    async def test_open_seed_without_the_file_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        given.paths[0].unlink()
        async with running(self.make_backend) as backend:
            with pytest.raises(StorageError, match=given.paths[0].name):
                await backend.open_seed(given.manifest, given.paths, PRIVATE)

    @on_a_loop
    async def test_open_seed_of_another_size_raises_and_may_be_tried_again(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        content = given.paths[0].read_bytes()
        given.paths[0].write_bytes(content[:-1])
        async with running(self.make_backend) as backend:
            with pytest.raises(StorageError):
                await backend.open_seed(given.manifest, given.paths, PRIVATE)
            given.paths[0].write_bytes(content)
            await backend.open_seed(given.manifest, given.paths, PRIVATE)

    @on_a_loop
    async def test_open_seed_without_piece_layers_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            with pytest.raises(ValueError, match="layers"):
                await backend.open_seed(given.bare, given.paths, PRIVATE)

    # Pieces of other routes

    @on_a_loop
    async def test_write_stores_and_tells(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            assert download.have() == frozenset()
            await download.write(3, given.piece(3))
            assert download.have() == {3}
            assert download.status().verified == given.manifest.piece_length
            assert (await event(download, PieceStored)).piece == 3
            await download.checkpoint()
            start = 3 * given.manifest.piece_length
            assert given.parts[0].read_bytes()[start:].startswith(given.piece(3))

    @on_a_loop
    async def test_write_of_a_piece_that_is_had_changes_nothing(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await asyncio.gather(*(download.write(0, given.piece(0)) for _ in range(3)))
            await download.write(0, given.piece(0))
            await download.aclose()
            assert [e async for e in download.events] == [PieceStored(0)]

    @on_a_loop
    async def test_write_of_a_wrong_size_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            with pytest.raises(ValueError, match="bytes"):
                await download.write(0, given.piece(0)[1:])
            assert download.have() == frozenset()

    @on_a_loop
    async def test_write_after_learn_stores(self, tmp_path: Path) -> None:
        given, other = await material(tmp_path, SIZE), await material(tmp_path, SIZE, seed=1)
        async with running(self.make_backend) as backend:
            download = await backend.open_download(given.bare, given.parts, PRIVATE)
            assert await download.layers() == {}
            for wrong in (given.bare, other.manifest):
                with pytest.raises(ValueError, match="layers"):
                    await download.learn(wrong)
            await download.learn(given.manifest)
            await download.learn(given.manifest)
            assert await download.layers() == given.manifest.layers
            await fill(download, given)
            assert await download.finished()
        assert given.arrived()

    @on_a_loop
    async def test_write_while_paused_stores(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await download.pause()
            await download.pause()
            await fill(download, given)
            assert await download.finished()
            await download.resume()
            await download.resume()
        assert given.arrived()

    @on_a_loop
    async def test_finished_after_the_last_piece_is_true_and_told_once(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE, SIZE, 0, 5 * KIB, 16 * KIB)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            assert not await download.finished()
            await fill(download, given)
            assert await download.finished()
            assert all(given.arrived(index) for index in given.parts)
            await download.aclose()
            assert [e async for e in download.events].count(Finished()) == 1

    @on_a_loop
    async def test_finished_of_empty_files_is_true_at_once(self, tmp_path: Path) -> None:
        given = await material(tmp_path, 0, 0)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await event(download, Finished)
            assert await download.finished()
        assert all(given.arrived(index) for index in given.parts)

    @on_a_loop
    async def test_select_finishes_without_the_others_and_leaves_them_alone(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE, SIZE, SIZE)
        wanted = given.manifest.pieces_of(frozenset({1}))
        async with running(self.make_backend) as backend:
            download = await backend.open_download(given.manifest, {1: given.parts[1]}, PRIVATE, select=frozenset({1}))
            for piece in wanted:
                await download.write(piece, given.piece(piece))
            with pytest.raises(ValueError, match="not selected"):
                await download.write(0, given.piece(0))
            assert await download.finished()
        assert given.arrived(1)
        assert [path.name for path in given.parts[1].parent.iterdir()] == [given.parts[1].name]

    @on_a_loop
    async def test_claim_and_release_of_anything_is_harmless(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            download.claim(range(given.manifest.piece_count))
            download.claim({0})
            await fill(download, given)
            download.release({0, 1})
            download.release({0})
            assert await download.finished()

    # Checkpoints

    @on_a_loop
    async def test_checkpoint_goes_on_with_what_was_had(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            for piece in (1, 4, given.manifest.piece_count - 1):
                await download.write(piece, given.piece(piece))
            checkpoint = await download.checkpoint()
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given, checkpoint)
            assert download.have() == {1, 4, given.manifest.piece_count - 1}
            await fill(download, given)
            assert await download.finished()
        assert given.arrived()

    @on_a_loop
    async def test_checkpoint_of_a_finished_download_is_finished_at_once(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await fill(download, given)
            checkpoint = await download.checkpoint()
            await download.aclose()
            download = await backend.open_download(given.bare, given.parts, PRIVATE, checkpoint=checkpoint)
            await event(download, Finished)
            assert await download.finished()
            assert download.status().verified == SIZE

    @pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "other"])
    @on_a_loop
    async def test_checkpoint_that_is_useless_counts_as_none(self, tmp_path: Path, damage: str) -> None:
        given, other = await material(tmp_path, SIZE), await material(tmp_path, SIZE, seed=1)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, other)
            await fill(download, other)
            foreign = await download.checkpoint()
            checkpoint = {"garbage": b"\0\xff" * 99, "empty": b"", "cut": foreign[:-9], "other": foreign}[damage]
            assert (await downloading(backend, given, checkpoint)).have() == frozenset()

    @on_a_loop
    async def test_checkpoint_of_files_that_became_shorter_loses_their_ends(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await fill(download, given)
            checkpoint = await download.checkpoint()
            await download.aclose()
            with given.parts[0].open("r+b") as file:
                file.truncate(2 * given.manifest.piece_length + 1)
            given.parts[1].unlink()
            download = await downloading(backend, given, checkpoint)
            assert download.have() == {0, 1}
            await fill(download, given)
            assert await download.finished()
        assert given.arrived(0)
        assert given.arrived(1)

    # Failing disks

    @on_a_loop
    async def test_open_download_where_nothing_can_be_written_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        given.parts[0].mkdir()
        async with running(self.make_backend) as backend:
            with pytest.raises(StorageError):
                await downloading(backend, given)

    @on_a_loop
    async def test_disk_that_fails_loses_only_what_was_not_flushed(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await download.write(0, given.piece(0))
            await download.checkpoint()
            hidden = given.parts[0].rename(tmp_path / "hidden")
            given.parts[0].mkdir()
            with pytest.raises(StorageError):
                await _write_and_flush(download, given, 1)
            assert download.have() == {0}
            given.parts[0].rmdir()
            hidden.rename(given.parts[0])
            await download.resume()
            await fill(download, given)
            assert await download.finished()
        assert given.arrived()

    # Publishing

    @on_a_loop
    async def test_publish_goes_on_under_the_final_names(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE, 0, 5 * KIB)
        finals = {index: tmp_path / f"final {index}" for index in given.parts}
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await fill(download, given)
            for index, path in finals.items():
                path.hardlink_to(given.parts[index])
            seed = await download.publish(finals)
            for path in given.parts.values():
                path.unlink()
            await _raises_closed(download)
            assert seed.status().verified == given.manifest.size
            await seed.aclose()
            assert open_below(tmp_path) == []
        assert all(finals[index].read_bytes() == given.paths[index].read_bytes() for index in finals)

    @on_a_loop
    async def test_publish_before_it_is_finished_raises_and_the_download_goes_on(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            with pytest.raises(BTError):
                await download.publish(given.paths)
            await fill(download, given)
            assert await download.finished()

    @on_a_loop
    async def test_publish_of_files_that_are_not_there_raises(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            await fill(download, given)
            with pytest.raises(StorageError):
                await download.publish({0: tmp_path / "nowhere"})
            await _raises_closed(download)

    # Events

    @on_a_loop
    async def test_events_when_their_reader_is_cancelled_loses_none(self, tmp_path: Path) -> None:
        given = await material(tmp_path, SIZE)
        async with running(self.make_backend) as backend:
            download = await downloading(backend, given)
            reader = asyncio.ensure_future(anext(download.events))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await download.write(2, given.piece(2))
            assert await asyncio.wait_for(anext(download.events), PATIENCE) == PieceStored(2)


async def _raises_closed(handle: Swarm) -> None:
    with pytest.raises(BackendClosed):
        handle.status()
    with pytest.raises(BackendClosed):
        handle.add_candidates(())
    with pytest.raises(BackendClosed):
        await handle.resume()


async def _write_and_flush(download: Download, given: Material, piece: int) -> None:
    """Store a piece; a backend that writes later may fail only at the flush, and then says so by an event too."""
    await download.write(piece, given.piece(piece))
    try:
        await download.checkpoint()
    except StorageError:
        await event(download, StorageFailed)
        raise


class BackendConformance(StoreConformance, SealedConformance):
    """Derive from this, and say by :meth:`make_backend` what to test."""

    @on_a_loop
    async def test_candidates_of_a_mode_without_swarm_are_none(self) -> None:
        async with running(self.make_backend) as backend:
            for mode in set(Mode) - backend.modes:
                assert await backend.candidates(mode) == ()
