"""Merkle trees against BEP 52 taken literally, and the threads that hash files."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from slixmpp_bt import hashing
from slixmpp_bt.errors import PathError, SourceChanged
from slixmpp_bt.hashing import BLOCK, hash_files, height_of, layer_root, merkle_root
from slixmpp_bt.sources import Source, scan

PIECE = 4 * BLOCK


def by_the_book(data: bytes, width: int) -> bytes:
    """The root over `width` leaves, by recursion: each the hash of a block, or zero beyond the end."""
    if width == 1:
        return sha256(data).digest() if data else bytes(32)
    half = width // 2 * BLOCK
    return sha256(by_the_book(data[:half], width // 2) + by_the_book(data[half:], width // 2)).digest()


def sources(directory: Path, *contents: bytes) -> tuple[Source, ...]:
    for number, content in enumerate(contents):
        (directory / f"{number:03}").write_bytes(content)
    return scan(directory).files


def sparse(path: Path, size: int) -> Source:
    with path.open("wb") as file:
        file.truncate(size)
    return scan(path).files[0]


def hashing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("slixmpp_bt-hash")]


def open_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return found


@pytest.mark.parametrize(("count", "height"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 20, 20)])
def test_height_of_nodes_is_that_of_the_balanced_tree(count: int, height: int) -> None:
    assert height_of(count) == height


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9])
def test_merkle_root_of_fewer_nodes_than_leaves_is_padded_with_zero_leaves(count: int) -> None:
    data = random.Random(count).randbytes(count * BLOCK - 1)
    nodes = [sha256(data[i : i + BLOCK]).digest() for i in range(0, len(data), BLOCK)]
    assert merkle_root(nodes, 5) == by_the_book(data, 32)


@pytest.mark.parametrize(
    "size",
    [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7, 2**21 + 1],
)
async def test_hash_files_of_any_size_follows_bep_52(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (found,) = await hash_files(sources(tmp_path, data), PIECE)
    blocks = -(-size // BLOCK)
    width = 1 << (blocks - 1).bit_length()
    if size <= PIECE:
        assert found == by_the_book(data, width)
    else:
        pieces = [data[i : i + PIECE] for i in range(0, size, PIECE)]
        assert found == b"".join(by_the_book(piece, 4) for piece in pieces)
        assert layer_root(found, PIECE) == by_the_book(data, width)


async def test_hash_files_of_several_parts_joins_them_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [random.Random(n).randbytes(n * 60_000) for n in range(12)]
    whole = await hash_files(sources(tmp_path, *contents), PIECE)
    monkeypatch.setattr(hashing, "_PART", PIECE)
    monkeypatch.setattr(hashing, "_STEP", BLOCK)
    assert await hash_files(sources(tmp_path, *contents), PIECE) == whole
    assert whole[0] == b""


async def test_hash_files_of_nothing_returns_nothing() -> None:
    seen: list[tuple[int, int]] = []
    assert await hash_files((), PIECE, lambda *args: seen.append(args)) == []
    assert seen == [(0, 0)]


async def test_hash_files_tells_progress_on_the_loop_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_INTERVAL", 0.001)
    seen: list[tuple[int, int]] = []
    threads = set()

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        threads.add(threading.current_thread())

    size = 256 * 1024**2
    await hash_files([sparse(tmp_path / "large", size)], PIECE, progress)
    assert threads == {threading.main_thread()}
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)


async def test_hash_files_cancelled_leaves_no_thread_and_no_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_INTERVAL", 0.001)
    source = sparse(tmp_path / "endless", 1 << 40)
    begun = asyncio.Event()
    task = asyncio.create_task(hash_files([source], 1 << 24, lambda done, total: begun.set()))
    await begun.wait()
    assert hashing_threads()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hashing_threads() == []
    assert str(source.path) not in open_files()


async def test_hash_files_whose_progress_raises_stops_and_raises_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_INTERVAL", 0.001)

    def progress(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await hash_files([sparse(tmp_path / "endless", 1 << 40)], 1 << 24, progress)
    assert hashing_threads() == []


async def test_hash_files_of_a_file_changed_before_raises_source_changed(tmp_path: Path) -> None:
    (source,) = sources(tmp_path, b"before")
    source.path.write_bytes(b"other")
    with pytest.raises(SourceChanged, match="000"):
        await hash_files([source], PIECE)


async def test_hash_files_of_a_file_changed_meanwhile_raises_source_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_INTERVAL", 0.001)
    source = sparse(tmp_path / "endless", 1 << 40)

    def progress(done: int, total: int) -> None:
        with source.path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(SourceChanged, match="endless"):
        await hash_files([source], 1 << 24, progress)
    assert hashing_threads() == []


async def test_hash_files_of_a_file_that_shrinks_raises_source_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_INTERVAL", 0.001)
    source = sparse(tmp_path / "endless", 1 << 40)
    with pytest.raises(SourceChanged, match="endless"):
        await hash_files([source], 1 << 24, lambda done, total: os.truncate(source.path, 1))


async def test_hash_files_of_a_file_gone_raises_path_error(tmp_path: Path) -> None:
    (source,) = sources(tmp_path, b"here")
    source.path.unlink()
    with pytest.raises(PathError, match="000"):
        await hash_files([source], PIECE)


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
async def test_hash_files_of_a_file_replaced_is_refused_and_not_followed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "offered").mkdir()
    (source,) = sources(tmp_path / "offered", b"here")
    source.path.rename(tmp_path / "elsewhere")
    if kind == "symlink":
        source.path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(source.path)
    with pytest.raises((PathError, SourceChanged), match="000"):
        await hash_files([source], PIECE)
