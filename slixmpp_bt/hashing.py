"""Merkle trees of BEP 52 ("pieces root", "piece layers"), and hashing files with all cores.

A file's leaves are the SHA-256 of its blocks of 16 KiB; leaves beyond its end are zero. A piece's hash is the root of
the subtree over the piece; a file no longer than a piece has only its root, over as many leaves as the next power of
two.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from .sources import Source, fill, reading
from .threads import settle

BLOCK = 16 * 1024
DIGEST = 32

#: Read at once, and so what a thread may still do after it was told to stop.
_STEP = 1024 * 1024
#: A large file is shared out in parts of this size, or of a piece where that is more.
_PART = 8 * 1024 * 1024
#: Seconds between two calls of `progress`.
_INTERVAL = 0.1

#: The root over 2**height zero leaves, by height, as far as a file of 2**63 bytes needs it.
_ZERO = [bytes(DIGEST)]
for _ in range(50):
    _ZERO.append(sha256(_ZERO[-1] * 2).digest())


def height_of(count: int) -> int:
    """The height of the balanced tree over `count` nodes: 0 for one, 1 for two, 2 for three and four."""
    return (count - 1).bit_length()


def merkle_root(nodes: list[bytes], height: int, base: int = 0) -> bytes:
    """The root of the tree of `height` whose first nodes are `nodes`; the others stand over zero leaves.

    :param nodes: at least one, at most ``2**height``.
    :param base: how high above the leaves `nodes` are.
    """
    for level in range(base, base + height):
        if len(nodes) % 2:
            nodes = [*nodes, _ZERO[level]]
        nodes = [sha256(nodes[i] + nodes[i + 1]).digest() for i in range(0, len(nodes), 2)]
    return nodes[0]


def leaves(data: memoryview) -> list[bytes]:
    """The hashes of the blocks of `data`, which begins at the beginning of a block."""
    return [sha256(data[i : i + BLOCK]).digest() for i in range(0, len(data), BLOCK)]


def piece_root(blocks: list[bytes], size: int, piece_length: int) -> bytes:
    """The hash of a piece of a file of `size` bytes, of the hashes of its blocks."""
    return merkle_root(blocks, height_of(-(-min(size, piece_length) // BLOCK)))


def layer_root(layer: bytes, piece_length: int) -> bytes:
    """The root of the file whose piece layer is `layer`."""
    pieces = [layer[i : i + DIGEST] for i in range(0, len(layer), DIGEST)]
    return merkle_root(pieces, height_of(len(pieces)), height_of(piece_length // BLOCK))


async def hash_files(
    sources: Sequence[Source], piece_length: int, progress: Callable[[int, int], None] | None = None
) -> list[bytes]:
    """The hashes of the pieces of each of `sources`, concatenated: empty for an empty file, and for a file no longer
    than a piece its root.

    Works in threads of its own, one for each core. Cancelling stops them within a MiB each and waits for them.

    :param progress: called on the event loop with bytes done and bytes in all, at most ten times a second and, after
        success, a last time.
    :raises SourceChanged: a file is not what its source says, before or after it was read.
    :raises PathError: a file cannot be read any more.
    """
    work = _Work(sources, piece_length)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(work.threads, thread_name_prefix="slixmpp_bt-hash") as pool:
        threads = [loop.run_in_executor(pool, work.run) for _ in range(work.threads)]
        try:
            pending = set(threads)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=_INTERVAL, return_when=asyncio.FIRST_EXCEPTION)
                for thread in done:
                    thread.result()
                if pending and progress:
                    progress(work.done, work.total)
        finally:
            work.stop()
            await settle(threads)
    if progress:
        progress(work.total, work.total)
    return work.results()


class _Work:
    """What is to be hashed, shared by the threads that hash it."""

    def __init__(self, sources: Sequence[Source], piece_length: int) -> None:
        self._sources = sources
        self._piece_length = piece_length
        self._part = max(_PART, piece_length)
        self._hashes: list[list[bytes]] = [[b""] * -(-source.size // self._part) for source in sources]
        self._parts = self._all_parts()
        self._lock = threading.Lock()
        self._stopped = False
        self.done = 0
        self.total = sum(source.size for source in sources)
        self.threads = max(1, min(os.cpu_count() or 1, sum(map(len, self._hashes))))

    def _all_parts(self) -> Iterator[tuple[int, int]]:
        return ((file, part) for file, parts in enumerate(self._hashes) for part in range(len(parts)))

    def stop(self) -> None:
        self._stopped = True

    def results(self) -> list[bytes]:
        return [b"".join(parts) for parts in self._hashes]

    def run(self) -> None:
        """Hash parts until none is left or :meth:`stop` was called."""
        buffer = memoryview(bytearray(_STEP))
        while not self._stopped:
            with self._lock:
                file, part = next(self._parts, (-1, -1))
            if file < 0:
                return
            self._hashes[file][part] = self._hash(self._sources[file], part * self._part, buffer)

    def _hash(self, source: Source, start: int, buffer: memoryview) -> bytes:
        """The hashes of the pieces of the part of `source` that begins at `start`."""
        end = min(start + self._part, source.size)
        blocks: list[bytes] = []
        with reading(source) as file:
            file.seek(start)
            for position in range(start, end, _STEP):
                if self._stopped:
                    return b""
                content = buffer[: end - position]
                fill(file, content, source)
                blocks += leaves(content)
                with self._lock:
                    self.done += len(content)
        step = self._piece_length // BLOCK
        return b"".join(
            piece_root(blocks[i : i + step], source.size, self._piece_length) for i in range(0, len(blocks), step)
        )
