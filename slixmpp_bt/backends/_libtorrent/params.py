"""libtorrent's ``add_torrent_params`` of a manifest and paths, and piece layers out of its resume data (BEP 52).

All of it may block for milliseconds, with many files or pieces: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import libtorrent as lt

from ... import bencode
from ...errors import BTError
from ...hashing import BLOCK, DIGEST, height_of, layer_root, piece_root
from ...manifest import File, Manifest


def seed_params(
    manifest: Manifest, files: Mapping[int, Path], layers: Mapping[bytes, bytes], select: frozenset[int] | None = None
) -> lt.add_torrent_params:
    """Of complete files: all, or those of `select`, whose piece layers are among `layers`.

    Nothing is read until a peer asks, and nothing is ever written: when a file turns out wrong, libtorrent would fetch
    the right content into it. Without its layer it would read a whole file to answer for it.
    """
    if select is None:
        params = _params(manifest, files, layers)
        params.flags |= lt.torrent_flags.seed_mode
    else:
        params = download_params(manifest, files, layers, manifest.pieces_of(select), ())
    params.flags |= lt.torrent_flags.upload_mode
    return params


def download_params(
    manifest: Manifest,
    files: Mapping[int, Path],
    layers: Mapping[bytes, bytes],
    had: Collection[int],
    wanted: Collection[int],
) -> lt.add_torrent_params:
    """Of part files, with the pieces that were `had` before and those that are `wanted` now."""
    params = _params(manifest, files, layers)
    if len(files) < len(manifest.files):  # a priority of 0 anywhere would end the seed mode
        params.file_priorities = _file_priorities(manifest, files)
    params.have_pieces = [piece in had for piece in range(manifest.piece_count)]
    params.piece_priorities = [4 if piece in wanted else 0 for piece in range(manifest.piece_count)]
    return params


def _params(manifest: Manifest, files: Mapping[int, Path], layers: Mapping[bytes, bytes]) -> lt.add_torrent_params:
    params = _loaded(manifest, layers)
    engine = dict(zip(range(len(manifest.files)), engine_indices(manifest), strict=True))
    params.save_path = str(_anywhere(files))
    # No name that a peer chose may reach the disk; what is not wanted is never written, under whatever name.
    unwanted = f".{manifest.info_hash.hex()}."
    params.renamed_files = {
        engine[index]: str(files[index].absolute()) if index in files else f"{unwanted}{index}" for index in engine
    }
    params.flags = (
        lt.torrent_flags.paused
        | lt.torrent_flags.update_subscribe
        | lt.torrent_flags.duplicate_is_error
        | lt.torrent_flags.no_verify_files
        | lt.torrent_flags.apply_ip_filter
        | lt.torrent_flags.disable_dht
        | lt.torrent_flags.disable_lsd
        | lt.torrent_flags.disable_pex
    )
    return params


def _loaded(manifest: Manifest, layers: Mapping[bytes, bytes]) -> lt.add_torrent_params:
    known: dict[bytes, bencode.Value] = dict(layers)
    torrent = b"d4:info" + manifest.info + b"12:piece layers" + bencode.encode(known) + b"e"
    try:
        params = lt.load_torrent_buffer(torrent)
    except RuntimeError as error:
        raise BTError(f"libtorrent refuses the offer: {error}") from None
    return _with_twins(manifest, params) if layers else params


def _with_twins(manifest: Manifest, params: lt.add_torrent_params) -> lt.add_torrent_params:
    """Files of equal content share one layer, of which libtorrent 2.1 makes a tree for one of them only: give the
    others theirs."""
    twins = list(_twins(manifest))
    if not twins:
        return params
    data = lt.write_resume_data(params)
    trees: list[dict[bytes, Any]] = data.get(b"trees", [])
    if all(trees[other][b"hashes"] for _, other in twins):
        return params
    for first, other in twins:
        trees[other] = trees[first]
    return lt.read_resume_data(lt.bencode(data))


def _twins(manifest: Manifest) -> Iterator[tuple[int, int]]:
    """The engine's indices of each file with a layer of its own and of each later one that shares it."""
    first: dict[bytes | None, int] = {}
    for file, index in zip(manifest.files, engine_indices(manifest), strict=True):
        if file.size > manifest.piece_length and first.setdefault(file.root, index) != index:
            yield first[file.root], index


def _file_priorities(manifest: Manifest, files: Mapping[int, Path]) -> list[int]:
    """Those of `files`, and of their pads, are wanted: a piece that reaches into an unwanted one is not asked for."""
    indices = list(engine_indices(manifest))
    priorities = [0] * (indices[-1] + 2)
    for index in files:
        priorities[indices[index]] = 4
        if manifest.files[index].size % manifest.piece_length:
            priorities[indices[index] + 1] = 4
    return priorities


def engine_indices(manifest: Manifest) -> Iterator[int]:
    """For each file its index in libtorrent, which counts the pads too: one after each file that does not fill its
    last piece."""
    index = 0
    for file in manifest.files:
        yield index
        index += 2 if file.size % manifest.piece_length else 1


def _anywhere(files: Mapping[int, Path]) -> Path:
    return next(iter(files.values())).absolute().parent if files else Path.cwd()


def learnt_layers(manifest: Manifest, resume_data: bytes) -> dict[bytes, bytes]:
    """The piece layers that the engine knows, from peers or from us: those that lead to their files' roots."""
    trees = cast("dict[bytes, Any]", lt.bdecode(resume_data)).get(b"trees", [])
    found: dict[bytes, bytes] = {}
    for file, index in zip(manifest.files, engine_indices(manifest), strict=True):
        if file.root is None or file.size <= manifest.piece_length or index >= len(trees):
            continue
        layer = _layer(trees[index], file, manifest.piece_length)
        if layer is not None and layer_root(layer, manifest.piece_length) == file.root:
            found[file.root] = layer
    return found


def _layer(tree: Mapping[bytes, Any], file: File, piece_length: int) -> bytes | None:
    """The piece layer out of the nodes of a file's tree that libtorrent stored: those of the layer, or the blocks'."""
    nodes = _nodes(tree, 2 ** (height_of(-(-file.size // BLOCK)) + 1) - 1)
    leaves = (len(nodes) + 1) // 2
    per_piece = piece_length // BLOCK
    first, pieces = leaves // per_piece - 1, -(-file.size // piece_length)
    layer = nodes[first : first + pieces]
    if all(layer):
        return b"".join(layer)
    blocks = nodes[leaves - 1 : leaves - 1 + -(-file.size // BLOCK)]
    if not all(blocks):
        return None
    return b"".join(
        piece_root(blocks[start : start + per_piece], file.size, piece_length)
        for start in range(0, len(blocks), per_piece)
    )


def _nodes(tree: Mapping[bytes, Any], count: int) -> list[bytes]:
    """Every node of a tree, root first; empty where it is not known."""
    hashes, mask = tree[b"hashes"], tree.get(b"mask", b"")
    if len(mask) == count:  # libtorrent 2.0: a character each
        known = [bit in (1, ord("1")) for bit in mask]
    elif len(mask) == -(-count // 8):  # 2.1: a bit each
        known = [bool(mask[node >> 3] & 0x80 >> (node & 7)) for node in range(count)]
    else:
        known = [True] * (len(hashes) // DIGEST) if not mask else []
    known += [False] * (count - len(known))
    found = iter(range(0, len(hashes), DIGEST))
    return [hashes[at : at + DIGEST] if is_known and (at := next(found, -1)) >= 0 else b"" for is_known in known]
