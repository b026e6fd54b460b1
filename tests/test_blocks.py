"""Blocks: every byte of content and layers is in exactly one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.blocks import Blocks, numbers_of, ranges_of
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.manifest import Manifest, make
from slixmpp_bt.messages import BLOCK

MIB = 1024**2


def tree(root: Path, *sizes: int) -> Path:
    root.mkdir()
    for index, size in enumerate(sizes):
        (root / f"{index}").write_bytes(bytes([index]) * size)
    return root


async def manifest_of(root: Path, *sizes: int) -> Manifest:
    return (await make(tree(root, *sizes), salt=bytes(16))).manifest


async def test_blocks_cover_every_piece_exactly(tmp_path: Path) -> None:
    manifest = await manifest_of(tmp_path / "tree", 0, 1, BLOCK, BLOCK + 1, 3 * MIB + 17, 0, 70_000)
    blocks = Blocks(manifest)
    assert blocks.per_piece > 1
    for piece in range(manifest.piece_count):
        numbers = blocks.of_piece(piece)
        assert {blocks.piece_of(number) for number in numbers} == {piece}
        assert sum(map(blocks.size, numbers)) == manifest.piece_size(piece)
        assert all(blocks.size(number) == BLOCK for number in numbers[:-1])


async def test_layers_are_joined_and_taken_apart_in_the_order_of_their_files(tmp_path: Path) -> None:
    manifest = await manifest_of(tmp_path / "tree", 2 * MIB, 100, 3 * MIB, 2 * MIB + 5)
    blocks = Blocks(manifest)
    joined = blocks.join(manifest.layers)
    assert len(joined) == blocks.layers_size == sum(map(len, manifest.layers.values()))
    assert blocks.layers(joined) == manifest.layers
    count = -(-len(joined) // BLOCK)
    assert sum(map(blocks.layer_size, range(count))) == len(joined)


async def test_block_that_is_not_there_is_refused(tmp_path: Path) -> None:
    manifest = await manifest_of(tmp_path / "tree", 70_000, 3 * MIB)
    blocks = Blocks(manifest)
    last = blocks.of_piece(1)[-1]
    assert blocks.piece_of(last + 1) == 1
    for wrong in (last + 1, manifest.piece_count * blocks.per_piece, 2**31 - 1):
        with pytest.raises(ProtocolError):
            blocks.size(wrong)
    for wrong in (-1, 1, 2**31 - 1):
        with pytest.raises(ProtocolError):
            blocks.layer_size(wrong)


@given(st.sets(st.integers(0, 300)))
def test_ranges_are_what_they_were_made_of(numbers: set[int]) -> None:
    ranges = ranges_of(sorted(numbers))
    assert list(numbers_of(ranges)) == sorted(numbers)
    assert all(first <= last for first, last in ranges)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(ranges))
