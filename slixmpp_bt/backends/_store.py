"""What both backends do with files: looking before opening, flushing, and the bytes of a checkpoint. It blocks."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import bencode
from ..errors import BTError, IntegrityError, StorageError
from ..manifest import Manifest

log = logging.getLogger(__name__)

_VERSION = 1
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk is failing",
    errno.EROFS: "the disk is read-only",
    errno.EFBIG: "the file would be too large",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "no such file or directory",
    errno.EISDIR: "it is a directory",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}


def storage_error(path: str | os.PathLike[str], code: int | None, text: str) -> StorageError:
    """The error for `path`: in our words for the errno `code`, else in the system's `text`."""
    return StorageError(f"{os.fspath(path)}: {_REASONS.get(code or 0, text)}")


def from_os_error(error: OSError, path: Path) -> StorageError:
    """The same for what the standard library raised."""
    return storage_error(path, error.errno, error.strerror or str(error))


def check_complete(manifest: Manifest, files: Mapping[int, Path], select: frozenset[int] | None = None) -> None:
    """Look whether every file, or those of `select`, is there and of the right size. Reads none of them.

    :raises StorageError: one is not; the message names it.
    """
    for file in manifest.files:
        if select is not None and file.index not in select:
            continue
        if file.index not in files:
            raise StorageError(f"no path was given for file {file.index}")
        path = files[file.index]
        size = _size(path)
        if size is None:
            raise StorageError(f"{path}: no such file")
        if size != file.size:
            raise StorageError(f"{path}: {size} bytes, not {file.size}")


def prepare(manifest: Manifest, files: Mapping[int, Path], select: frozenset[int] | None) -> dict[int, Path]:
    """Make sure that every selected file can be written to, and make those that are missing.

    :returns: the selected ones of `files`.
    :raises StorageError: one cannot be opened for writing, or has no path.
    """
    chosen: dict[int, Path] = {}
    for index in sorted(range(len(manifest.files)) if select is None else select):
        if index not in files:
            raise StorageError(f"no path was given for file {index}")
        path = chosen[index] = files[index]
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise from_os_error(error, path) from error
    return chosen


def sync(paths: Iterable[Path]) -> None:
    """Flush files to the disk itself.

    :raises StorageError: one cannot be flushed.
    """
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise from_os_error(error, path) from error


def encode_checkpoint(manifest: Manifest, pieces: Iterable[int]) -> bytes:
    """What :func:`decode_checkpoint` reads: which `pieces` are flushed, and the piece layers as far as known."""
    bits = bytearray(-(-manifest.piece_count // 8))
    for piece in pieces:
        bits[piece >> 3] |= 0x80 >> (piece & 7)
    layers: dict[bytes, bencode.Value] = dict(manifest.layers)
    return bencode.encode({b"hash": manifest.info_hash, b"have": bytes(bits), b"layers": layers, b"v": _VERSION})


def decode_checkpoint(
    manifest: Manifest, files: Mapping[int, Path], data: bytes | None
) -> tuple[frozenset[int], Manifest]:
    """The pieces that a checkpoint says are there, less those that `files` are too short for, and the manifest with the
    checkpoint's piece layers.

    A checkpoint of another manifest or version, or a damaged one, counts as none, and the log says so.
    """
    if not data:
        return frozenset(), manifest
    try:
        bits, manifest = _read_checkpoint(manifest, data)
    except BTError as error:
        log.warning("a checkpoint cannot be used, all is fetched again: %s", error)
        return frozenset(), manifest
    sizes = {index: _size(path) or 0 for index, path in files.items()}
    pieces = range(manifest.piece_count)
    return frozenset(p for p in pieces if bits[p >> 3] & 0x80 >> (p & 7) and _fits(manifest, p, sizes)), manifest


def _read_checkpoint(manifest: Manifest, data: bytes) -> tuple[bytes, Manifest]:
    read = bencode.decode(data, max_depth=2, max_tokens=16 + len(manifest.files))
    if not isinstance(read, dict) or read.get(b"v") != _VERSION or read.get(b"hash") != manifest.info_hash:
        raise IntegrityError("it is of another offer or version")
    bits, layers = read.get(b"have"), read.get(b"layers")
    if not isinstance(bits, bytes) or len(bits) != -(-manifest.piece_count // 8) or not isinstance(layers, dict):
        raise IntegrityError("it is damaged")
    if layers and not manifest.layers:
        manifest = manifest.with_layers({root: layer for root, layer in layers.items() if isinstance(layer, bytes)})
    return bits, manifest


def _fits(manifest: Manifest, piece: int, sizes: Mapping[int, int]) -> bool:
    file = manifest.file_of(piece)
    start = (piece - file.first_piece) * manifest.piece_length
    return sizes.get(file.index, 0) >= start + manifest.piece_size(piece)


def _size(path: Path) -> int | None:
    """Bytes of the regular file at `path`; None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
