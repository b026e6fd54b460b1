"""Checks on files, and checkpoints, that both backends share."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from slixmpp_bt import bencode
from slixmpp_bt.backends import _store, checkpoint
from slixmpp_bt.errors import StorageError
from slixmpp_bt.testing._material import KIB, Material, material

SIZES = (300 * KIB + 77, 0, 5 * KIB, 48 * KIB)


@pytest.fixture
async def given(tmp_path: Path) -> Material:
    return await material(tmp_path, *SIZES)


def test_check_complete_of_what_is_there_passes(given: Material) -> None:
    _store.check_complete(given.manifest, given.paths)


@pytest.mark.parametrize("damage", ["gone", "longer", "directory"])
def test_check_complete_of_something_else_raises_with_its_name(given: Material, damage: str) -> None:
    path = given.paths[2]
    path.unlink()
    if damage == "longer":
        path.write_bytes(bytes(5 * KIB + 1))
    elif damage == "directory":
        path.mkdir()
    with pytest.raises(StorageError, match=path.name):
        _store.check_complete(given.manifest, given.paths)
    _store.check_complete(given.manifest, given.paths, frozenset({0, 1, 3}))


def test_check_complete_without_a_path_raises(given: Material) -> None:
    with pytest.raises(StorageError, match="no path"):
        _store.check_complete(given.manifest, {0: given.paths[0]})


def test_prepare_makes_the_selected_files_and_keeps_their_content(given: Material) -> None:
    given.parts[2].write_bytes(b"half")
    assert _store.prepare(given.manifest, given.parts, frozenset({1, 2})) == {i: given.parts[i] for i in (1, 2)}
    assert given.parts[1].read_bytes() == b""
    assert given.parts[2].read_bytes() == b"half"
    assert not given.parts[0].exists()


def test_prepare_without_the_directory_raises(given: Material, tmp_path: Path) -> None:
    nowhere = dict.fromkeys(given.parts, tmp_path / "nowhere" / "file")
    with pytest.raises(StorageError, match="nowhere"):
        _store.prepare(given.manifest, nowhere, None)


def test_sync_of_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        _store.sync([tmp_path / "missing"])


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "full"), (errno.EACCES, "permission"), (9999, "odd")])
def test_storage_error_says_what_is_wrong_with_which_file(code: int, words: str) -> None:
    text = str(_store.storage_error("/a/file", code, "odd"))
    assert words in text
    assert "/a/file" in text


def test_checkpoint_of_any_pieces_is_read_back(given: Material) -> None:
    complete = dict(given.paths)

    @each(st.frozensets(st.integers(0, given.manifest.piece_count - 1)))
    def check(pieces: frozenset[int]) -> None:
        data = checkpoint.encode(given.manifest, pieces)
        assert checkpoint.decode(given.manifest, complete, data) == (pieces, given.manifest)

    check()


def test_checkpoint_brings_the_piece_layers(given: Material) -> None:
    data = checkpoint.encode(given.manifest, ())
    _, manifest = checkpoint.decode(given.bare, given.paths, data)
    assert manifest.layers == given.manifest.layers
    _, manifest = checkpoint.decode(given.bare, given.paths, checkpoint.encode(given.bare, ()))
    assert manifest.layers == {}


def test_checkpoint_that_is_damaged_anywhere_is_none_or_valid(given: Material) -> None:
    whole = checkpoint.encode(given.manifest, range(given.manifest.piece_count))

    @each(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def check(place: int, change: int) -> None:
        damaged = bytearray(whole)
        damaged[place] ^= change
        pieces, manifest = checkpoint.decode(given.bare, given.paths, bytes(damaged))
        assert pieces <= frozenset(range(given.manifest.piece_count))
        assert manifest.layers in ({}, given.manifest.layers)

    check()


def test_checkpoint_of_any_bytes_is_none(given: Material) -> None:
    @each(st.binary(max_size=200))
    def check(data: bytes) -> None:
        assert checkpoint.decode(given.bare, given.paths, data) == (frozenset(), given.bare)

    check()


@pytest.mark.parametrize(
    "change",
    [
        {b"v": 2},
        {b"v": b"1"},
        {b"have": b""},
        {b"have": 1},
        {b"layers": []},
        {b"layers": {b"x": b"y"}},
        {b"layers": {b"x": 1}},
        {b"hash": bytes(32)},
    ],
)
def test_checkpoint_with_a_wrong_field_is_none_and_logged(
    given: Material, change: dict[bytes, bencode.Value], caplog: pytest.LogCaptureFixture
) -> None:
    read = bencode.decode(checkpoint.encode(given.manifest, {1}), max_depth=9, max_tokens=99)
    assert isinstance(read, dict)
    data = bencode.encode({**read, **change})
    assert checkpoint.decode(given.bare, given.paths, data) == (frozenset(), given.bare)
    assert "checkpoint" in caplog.text
