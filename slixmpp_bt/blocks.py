"""The blocks of 16 KiB in which streams carry a manifest's content and its piece layers.

Every piece has ``piece_length / 16 KiB`` numbers; the last piece of a file uses only as many as it has bytes for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .errors import ProtocolError
from .hashing import DIGEST
from .manifest import Manifest
from .messages import BLOCK

Ranges = tuple[tuple[int, int], ...]


class Blocks:
    """The blocks of one manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.per_piece = manifest.piece_length // BLOCK
        #: The piece layers that the manifest needs: by file root, in the order of the files, their bytes.
        self.layer_sizes: Mapping[bytes, int] = {
            file.root: -(-file.size // manifest.piece_length) * DIGEST
            for file in manifest.files
            if file.root is not None and file.size > manifest.piece_length
        }
        self.layers_size = sum(self.layer_sizes.values())

    def of_piece(self, piece: int) -> range:
        """The numbers of the blocks of `piece`."""
        first = piece * self.per_piece
        return range(first, first + -(-self.manifest.piece_size(piece) // BLOCK))

    def piece_of(self, block: int) -> int:
        """The piece that `block` is in."""
        return block // self.per_piece

    def size(self, block: int) -> int:
        """Bytes of `block`.

        :raises ProtocolError: there is no such block.
        """
        piece = self.piece_of(block)
        if piece >= self.manifest.piece_count or block not in self.of_piece(piece):
            raise ProtocolError("a block that is not in the offer")
        return min(BLOCK, self.manifest.piece_size(piece) - (block % self.per_piece) * BLOCK)

    def layer_size(self, block: int) -> int:
        """Bytes of a block of the piece layers.

        :raises ProtocolError: there is no such block.
        """
        if not 0 <= block * BLOCK < self.layers_size:
            raise ProtocolError("a block that is not in the piece layers")
        return min(BLOCK, self.layers_size - block * BLOCK)

    def layers(self, joined: bytes) -> dict[bytes, bytes]:
        """The piece layers by file root, out of one after another."""
        found, start = {}, 0
        for root, size in self.layer_sizes.items():
            found[root] = joined[start : start + size]
            start += size
        return found

    def join(self, layers: Mapping[bytes, bytes]) -> bytes:
        """What :meth:`layers` takes apart."""
        return b"".join(layers[root] for root in self.layer_sizes)


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Ascending `numbers` as ranges, both ends included."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def numbers_of(ranges: Ranges) -> Iterator[int]:
    """What :func:`ranges_of` took."""
    return (number for first, last in ranges for number in range(first, last + 1))
