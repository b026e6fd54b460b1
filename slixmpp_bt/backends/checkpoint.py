"""The bytes of a checkpoint, the same for every backend: which pieces are flushed, and the piece layers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import bencode
from ..errors import BTError, IntegrityError, SourceChanged
from ..manifest import Manifest, read_piece
from ._store import file_size

log = logging.getLogger(__name__)

_VERSION = 1


def encode(manifest: Manifest, pieces: Iterable[int]) -> bytes:
    """What :func:`decode` reads: which `pieces` are flushed, and the piece layers as far as known."""
    bits = bytearray(-(-manifest.piece_count // 8))
    for piece in pieces:
        bits[piece >> 3] |= 0x80 >> (piece & 7)
    layers: dict[bytes, bencode.Value] = dict(manifest.layers)
    return bencode.encode({b"hash": manifest.info_hash, b"have": bytes(bits), b"layers": layers, b"v": _VERSION})


def decode(manifest: Manifest, files: Mapping[int, Path], data: bytes | None) -> tuple[frozenset[int], Manifest]:
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
    sizes = {index: file_size(path) or 0 for index, path in files.items()}
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


def recheck(
    manifest: Manifest, files: Mapping[int, Path], wanted: Iterable[int], data: bytes | None
) -> tuple[bytes | None, bool]:
    """The checkpoint that is true of part files which something may have happened to since `data` was made, and whether
    that is sure.

    Every wanted piece that has room in its file is read and verified, had or not: so what was stored since the
    checkpoint is kept, and what was damaged is not. Where the piece layers are not known, that cannot be done, and the
    checkpoint is believed. Blocks, about a second a GiB.
    """
    had, manifest = decode(manifest, files, data)
    if not manifest.verifiable:
        return (encode(manifest, had) if had else None), not had
    sizes = {index: file_size(path) or 0 for index, path in files.items()}
    good = [piece for piece in wanted if _fits(manifest, piece, sizes) and _is_right(manifest, files, piece)]
    return encode(manifest, good), True


def _is_right(manifest: Manifest, files: Mapping[int, Path], piece: int) -> bool:
    try:
        return manifest.verify(piece, read_piece(manifest, files, piece))
    except SourceChanged:  # it cannot be read
        return False
