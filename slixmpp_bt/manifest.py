"""What is offered: a BEP 52 info dict, its piece layers, names and sizes.

This is the only source of names and sizes, and it sees every info dict before any engine does.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self

from . import infodict
from .errors import IntegrityError, PathError, SourceChanged, StateError
from .hashing import DIGEST, hash_files, layer_root, leaves, piece_root
from .infodict import KIB, MAX_PIECE_LENGTH, MIB, File, ManifestLimits
from .sources import Source, Stamp, Tree, changed, check_path, read_range, scan, stamp, summary
from .threads import in_thread

__all__ = [
    "File",
    "Known",
    "Made",
    "Manifest",
    "ManifestLimits",
    "changed",
    "check_path",
    "make",
    "piece_length_for",
    "read_piece",
    "reopen",
    "stamp",
]


@dataclass(frozen=True)
class Manifest:
    """An immutable description of a file or a directory tree. Made by :meth:`parse` or :func:`make`.

    Two are equal if their info dicts are.

    :ivar info: the bencoded info dict.
    :ivar info_hash: its SHA-256.
    :ivar name: the offered file's or directory's name, as the sender wrote it.
    :ivar is_directory: whether it is a directory tree.
    :ivar size: bytes of all files.
    :ivar files: every file, in the order of the pieces.
    :ivar directories: directories that hold nothing, as paths below the offered one.
    :ivar piece_length: bytes; a power of two from 16 KiB.
    :ivar piece_count: how many pieces there are; every file begins with a new one.
    :ivar extra: the values of ``ssl-cert``, if it is there (the certificate authority of a sealed offer).
    """

    info: bytes = field(repr=False)
    info_hash: bytes = field(compare=False, repr=False)
    name: str = field(compare=False)
    is_directory: bool = field(compare=False)
    size: int = field(compare=False)
    files: tuple[File, ...] = field(compare=False, repr=False)
    directories: tuple[tuple[str, ...], ...] = field(compare=False, repr=False)
    piece_length: int = field(compare=False)
    piece_count: int = field(compare=False)
    extra: Mapping[bytes, bytes] = field(compare=False, repr=False)
    _layers: Mapping[bytes, bytes] = field(compare=False, repr=False, default_factory=dict)

    @classmethod
    def parse(cls, info: bytes, limits: ManifestLimits) -> Self:
        """Check and read an info dict that a peer sent.

        Takes some 10 µs a file: for a large one call it in a thread.

        :raises LimitExceeded: it is well formed but beyond `limits`.
        :raises ProtocolError: it is not a v2 info dict that this library would make.
        """
        read = infodict.read(info, limits)
        return cls(
            info=info,
            info_hash=sha256(info).digest(),
            name=read.name,
            is_directory=read.is_directory,
            size=read.size,
            files=tuple(read.files),
            directories=tuple(read.directories),
            piece_length=read.piece_length,
            piece_count=read.piece_count,
            extra=read.extra,
        )

    @property
    def layers(self) -> Mapping[bytes, bytes]:
        """The known piece layers: by file root, the concatenated hashes (BEP 52 ``piece layers``)."""
        return self._layers

    @property
    def verifiable(self) -> bool:
        """Whether :meth:`verify` can judge every piece: all layers are known or none is needed."""
        return bool(self._layers) or not any(file.size > self.piece_length for file in self.files)

    def with_layers(self, layers: Mapping[bytes, bytes]) -> Self:
        """This manifest with piece layers that a peer sent.

        Takes some 1 µs a piece.

        :raises IntegrityError: a layer does not lead to its file's root, is missing or is not asked for.
        """
        wanted = {file.root: file.size for file in self.files if file.root and file.size > self.piece_length}
        if layers.keys() != wanted.keys():
            raise IntegrityError("the piece layers are not those of the files")
        for root, layer in layers.items():
            pieces = -(-wanted[root] // self.piece_length)
            if len(layer) != pieces * DIGEST or layer_root(layer, self.piece_length) != root:
                raise IntegrityError("a piece layer does not lead to its file's root")
        return replace(self, _layers=MappingProxyType(dict(layers)))

    def verify(self, piece: int, data: bytes | memoryview) -> bool:
        """Whether `data` is the whole content of `piece`.

        Takes about 1 ms a MiB, most of it without the GIL.

        :raises IndexError: there is no such piece.
        :raises ValueError: not :attr:`verifiable`.
        """
        file = self.file_of(piece)
        view = memoryview(data).cast("B")
        expected = self._expected(piece, file)
        return len(view) == self.piece_size(piece) and (
            piece_root(leaves(view), file.size, self.piece_length) == expected
        )

    def _expected(self, piece: int, file: File) -> bytes:
        assert file.root is not None
        if file.size <= self.piece_length:
            return file.root
        if file.root not in self._layers:
            raise ValueError("the piece layers are not known")
        start = (piece - file.first_piece) * DIGEST
        return self._layers[file.root][start : start + DIGEST]

    def piece_size(self, piece: int) -> int:
        """Bytes of content in `piece` (the last one of each file may be shorter)."""
        file = self.file_of(piece)
        return min(self.piece_length, file.size - (piece - file.first_piece) * self.piece_length)

    def file_of(self, piece: int) -> File:
        """The one file that `piece` belongs to.

        :raises IndexError: there is no such piece.
        """
        if not 0 <= piece < self.piece_count:
            raise IndexError(f"no piece {piece} of {self.piece_count}")
        # The last of those that begin here: the others are empty.
        return self.files[bisect_right(self.files, piece, key=lambda file: file.first_piece) - 1]

    def pieces_of(self, select: frozenset[int] | None = None) -> frozenset[int]:
        """The pieces of the selected files; None selects all."""
        if select is None:
            return frozenset(range(self.piece_count))
        chosen = (self.files[index] for index in select)
        return frozenset(
            piece for file in chosen for piece in range(file.first_piece, file.first_piece + self._count(file))
        )

    def size_of(self, select: frozenset[int] | None = None) -> int:
        """Bytes of the selected files; None selects all."""
        return self.size if select is None else sum(self.files[index].size for index in select)

    def _count(self, file: File) -> int:
        return -(-file.size // self.piece_length)


def piece_length_for(size: int) -> int:
    """The piece length for an offer of `size` bytes: 16 KiB up to 1 MiB, 64 KiB up to 16 MiB, then the power of two
    nearest to ``size / 2048``, from 64 KiB to 16 MiB."""
    if size <= MIB:
        return 16 * KIB
    below = 1 << ((size // 2048).bit_length() - 1)
    nearest = below * 2 if size / 2048 >= 1.5 * below else below
    return min(max(nearest, 64 * KIB), MAX_PIECE_LENGTH)


@dataclass(frozen=True, slots=True)
class Made:
    """What :func:`make` returns: the manifest, where each of its files is, and how each looked while it was read
    (size, mtime_ns, ctime_ns, inode)."""

    manifest: Manifest
    paths: Mapping[int, Path]
    stamps: Mapping[int, Stamp]


class Known(Protocol):
    """Hashes that were made before, by how the files looked then (:class:`slixmpp_bt.state.State` keeps them)."""

    async def cached_layers(
        self, files: Sequence[tuple[Path, Stamp]], piece_length: int
    ) -> list[tuple[bytes, bytes] | None]: ...

    def cache_layers(
        self, piece_length: int, files: Sequence[tuple[Path, Stamp, bytes, bytes]]
    ) -> asyncio.Future[None]: ...


async def make(
    path: Path,
    *,
    salt: bytes,
    extra: Mapping[bytes, bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
    known: Known | None = None,
) -> Made:
    """Hash `path` (a file or a directory) in threads.

    Cancelling stops the threads at once and waits for them; no file stays open.

    :param salt: 16 random bytes, which make the info-hash one that nobody can guess.
    :param extra: ``{b"ssl-cert": PEM}`` or nothing.
    :param progress: called on the event loop with bytes hashed and bytes in all, at most ten times a second and, at
        the end, once more.
    :param known: what was hashed before is not hashed again.
    :raises PathError: something there cannot be offered: a symbolic link, a device, a name that is not UTF-8, no
        permission; the message names it.
    :raises SourceChanged: a file was changed meanwhile.
    :raises LimitExceeded: it has more than two million pieces, which no engine takes.
    :raises ValueError: a wrong `salt` or `extra`.
    """
    infodict.check_own(salt, extra or {})
    tree = await _scan(path)
    piece_length = piece_length_for(sum(source.size for source in tree.files))
    hashes = await _hashes(tree, piece_length, progress, known)
    return await in_thread(_made, tree, hashes, piece_length, salt, extra or {})


async def reopen(path: Path, info: bytes, stamps: Sequence[Stamp], known: Known | None = None) -> Made:
    """What :func:`make` returned for the offer with this info dict, of files that look as they did then.

    Hashes again what is not known any more. Cancelling stops that.

    :raises SourceChanged: they do not look as they did, or are not what they were.
    """
    tree = await _same(path, lambda found: found == list(stamps))
    manifest = await in_thread(Manifest.parse, info, _no_limits(info))
    hashes = await _hashes(tree, manifest.piece_length, None, known)
    _, layers = _roots_and_layers(tree, hashes, manifest.piece_length)
    try:
        manifest = await in_thread(manifest.with_layers, layers)
    except IntegrityError as error:
        raise SourceChanged(f"{path.name}: changed after it was offered") from error
    return _whole(manifest, tree)


async def look(path: Path, expected: bytes) -> None:
    """See that :func:`reopen` would find what was offered at `path`, without reading any of it: one look at the disk a
    file. Cancelling it waits for the current one.

    :param expected: what :func:`~slixmpp_bt.sources.summary` says of the stamps that it had.
    :raises SourceChanged: it looks otherwise.
    """
    await _same(path, lambda found: summary(found) == expected)


async def _same(path: Path, is_same: Callable[[list[Stamp]], bool]) -> Tree:
    try:
        tree = await _scan(path)
    except PathError as error:
        raise SourceChanged(f"{path.name}: changed after it was offered: {error}") from error
    if not is_same([source.stamp for source in tree.files]):
        raise SourceChanged(f"{path.name}: changed after it was offered")
    return tree


async def _scan(path: Path) -> Tree:
    stopped = threading.Event()
    return await in_thread(scan, path, stopped.is_set, stop=stopped.set)


async def _hashes(
    tree: Tree, piece_length: int, progress: Callable[[int, int], None] | None, known: Known | None
) -> list[bytes]:
    """As :func:`~slixmpp_bt.hashing.hash_files`, but for those that are known."""
    wanted = [source for source in tree.files if source.size]
    found: dict[Path, bytes] = {}
    if known is not None:
        try:
            cached = await known.cached_layers([(source.path, source.stamp) for source in wanted], piece_length)
        except StateError:
            cached = [None for _ in wanted]
        for source, entry in zip(wanted, cached, strict=True):
            if entry is not None:
                found[source.path] = entry[1] or entry[0]
    missing = [source for source in tree.files if source.path not in found]
    done = sum(source.size for source in wanted) - sum(source.size for source in missing)
    hashed = await hash_files(missing, piece_length, progress and (lambda n, total: progress(done + n, done + total)))
    new = [(source, hashes) for source, hashes in zip(missing, hashed, strict=True) if source.size]
    if known is not None and new:
        known.cache_layers(piece_length, [_entry(source, hashes, piece_length) for source, hashes in new])
    found.update((source.path, hashes) for source, hashes in new)
    return [found.get(source.path, b"") for source in tree.files]


def _entry(source: Source, hashes: bytes, piece_length: int) -> tuple[Path, Stamp, bytes, bytes]:
    if source.size <= piece_length:
        return source.path, source.stamp, hashes, b""
    return source.path, source.stamp, layer_root(hashes, piece_length), hashes


def _roots_and_layers(tree: Tree, hashes: list[bytes], piece_length: int) -> tuple[list[bytes], dict[bytes, bytes]]:
    layers: dict[bytes, bytes] = {}
    roots: list[bytes] = []
    for source, found in zip(tree.files, hashes, strict=True):
        roots.append(layer_root(found, piece_length) if source.size > piece_length else found)
        if source.size > piece_length:
            layers[roots[-1]] = found
    return roots, layers


def _made(tree: Tree, hashes: list[bytes], piece_length: int, salt: bytes, extra: Mapping[bytes, bytes]) -> Made:
    roots, layers = _roots_and_layers(tree, hashes, piece_length)
    info = infodict.write(tree, roots, piece_length, salt, extra)
    return _whole(replace(Manifest.parse(info, _no_limits(info)), _layers=MappingProxyType(layers)), tree)


def _no_limits(info: bytes) -> ManifestLimits:
    """For one's own: nothing limits what may be offered, and no dict has more files than bytes."""
    return ManifestLimits(max_size=1 << 63, max_files=len(info), max_length=len(info))


def _whole(manifest: Manifest, tree: Tree) -> Made:
    return Made(
        manifest,
        MappingProxyType({index: source.path for index, source in enumerate(tree.files)}),
        MappingProxyType({index: source.stamp for index, source in enumerate(tree.files)}),
    )


def read_piece(manifest: Manifest, paths: Mapping[int, Path], piece: int) -> bytes:
    """The content of `piece`, of the files at `paths`. Blocks; not verified.

    :raises IndexError: there is no such piece.
    :raises SourceChanged: it cannot be read any more.
    """
    file = manifest.file_of(piece)
    offset = (piece - file.first_piece) * manifest.piece_length
    return read_range(paths[file.index], offset, manifest.piece_size(piece))
