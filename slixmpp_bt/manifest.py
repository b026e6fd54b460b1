"""What is offered: a BEP 52 info dict, its piece layers, names and sizes.

The parser here is the only source of names and sizes, and it sees every info dict before any engine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class File:
    """A file of a manifest.

    :ivar index: its place among the manifest's files (pads are not files).
    :ivar path: the names from below the offered directory to the file; for a single file its name alone. As the
        sender wrote them: only :mod:`slixmpp_bt.storage` makes a path of them.
    :ivar size: bytes.
    :ivar root: the file's Merkle root (SHA-256); None for an empty file.
    :ivar first_piece: index of its first piece; an empty file has no pieces.
    """

    index: int
    path: tuple[str, ...]
    size: int
    root: bytes | None
    first_piece: int


@dataclass(frozen=True, slots=True)
class ManifestLimits:
    """What a manifest may have at most to be parsed."""

    max_size: int
    max_files: int
    max_length: int
    max_depth: int = 32


class Manifest:
    """An immutable description of a file or a directory tree. Made by :meth:`parse` or :func:`make`.

    :ivar info: the bencoded info dict.
    :ivar info_hash: its SHA-256.
    :ivar name: the offered file's or directory's name, as the sender wrote it.
    :ivar is_directory: whether it is a directory tree.
    :ivar size: bytes of all files.
    :ivar files: every file, in the order of the pieces.
    :ivar directories: directories that hold nothing, as paths below the offered one.
    :ivar piece_length: bytes; a power of two from 16 KiB.
    :ivar piece_count: how many pieces there are; every file begins with a new one.
    """

    info: bytes
    info_hash: bytes
    name: str
    is_directory: bool
    size: int
    files: tuple[File, ...]
    directories: tuple[tuple[str, ...], ...]
    piece_length: int
    piece_count: int

    @classmethod
    def parse(cls, info: bytes, limits: ManifestLimits) -> Self:
        """Check and read an info dict that a peer sent.

        :raises LimitExceeded: it is well formed but beyond `limits`.
        :raises ProtocolError: it is not a v2 info dict that this library would make.
        """
        raise NotImplementedError

    @property
    def layers(self) -> Mapping[bytes, bytes]:
        """The known piece layers: by file root, the concatenated hashes (BEP 52 ``piece layers``)."""
        raise NotImplementedError

    @property
    def verifiable(self) -> bool:
        """Whether :meth:`verify` can judge every piece: all layers are known or none is needed."""
        raise NotImplementedError

    def with_layers(self, layers: Mapping[bytes, bytes]) -> Self:
        """This manifest with piece layers that a peer sent.

        :raises IntegrityError: a layer does not lead to its file's root, is missing or is not asked for.
        """
        raise NotImplementedError

    def verify(self, piece: int, data: bytes | memoryview) -> bool:
        """Whether `data` is the whole content of `piece`.

        :raises IndexError: there is no such piece.
        :raises ValueError: not :attr:`verifiable`.
        """
        raise NotImplementedError

    def piece_size(self, piece: int) -> int:
        """Bytes of content in `piece` (the last one of each file may be shorter)."""
        raise NotImplementedError

    def file_of(self, piece: int) -> File:
        """The one file that `piece` belongs to."""
        raise NotImplementedError

    def pieces_of(self, select: frozenset[int] | None = None) -> frozenset[int]:
        """The pieces of the selected files; None selects all."""
        raise NotImplementedError


def piece_length_for(size: int) -> int:
    """16 KiB up to 1 MiB, 64 KiB up to 16 MiB, then the power of two nearest to size / 2,048, at most 16 MiB."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Made:
    """What :func:`make` returns: the manifest, where each of its files is, and how each looked while it was read."""

    manifest: Manifest
    paths: Mapping[int, Path]
    stamps: Mapping[int, tuple[int, int, int, int]]


async def make(
    path: Path,
    *,
    salt: bytes,
    extra: Mapping[bytes, bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: asyncio.Event | None = None,
) -> Made:
    """Hash `path` (a file or a directory) in threads."""
    raise NotImplementedError
