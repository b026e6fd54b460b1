"""Offers as a hostile sender makes them: info dicts built by hand, good ones and others."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from slixmpp_bt.bencode import Value, encode
from slixmpp_bt.constants import Mode
from slixmpp_bt.hashing import leaves, piece_root
from slixmpp_bt.messages import Offer

PIECE_LENGTH = 16_384


def entry(content: bytes) -> Value:
    """What a file tree says of a file of one piece at most."""
    assert len(content) <= PIECE_LENGTH
    if not content:
        return {b"": {b"length": 0}}
    root = piece_root(leaves(memoryview(content)), len(content), PIECE_LENGTH)
    return {b"": {b"length": len(content), b"pieces root": root}}


def info_dict(name: bytes, tree: Value, **changes: Value) -> bytes:
    """An info dict; ``_`` in the name of a further key stands for a space."""
    top: dict[bytes, Value] = {
        b"file tree": tree,
        b"meta version": 2,
        b"name": name,
        b"piece length": PIECE_LENGTH,
        b"private": 1,
        b"salt": secrets.token_bytes(16),
    }
    top.update({key.replace("_", " ").encode(): value for key, value in changes.items()})
    return encode(top)


def of_file(name: str, content: bytes) -> bytes:
    """The info dict of one file."""
    return info_dict(name.encode(), {name.encode(): entry(content)})


def tree_of(files: Mapping[tuple[bytes, ...], bytes]) -> dict[bytes, Value]:
    """A file tree, by the names that lead to each file."""
    root: dict[bytes, Value] = {}
    for path, content in files.items():
        node = root
        for part in path:
            found = node.setdefault(part, {})
            assert isinstance(found, dict)
            node = found
        made = entry(content)
        assert isinstance(made, dict)
        node.update(made)
    return root


def offer(info: bytes, size: int, *, name: str = "file", days: float = 1, inside: bool = True, id: str = "") -> Offer:
    """An offer of this info dict, in mode ``private``, which lies no more than a caller wants.

    :param inside: whether the dict is in the offer.
    """
    return Offer(
        id=id or secrets.token_urlsafe(12),
        mode=Mode.PRIVATE,
        expires=datetime.now(UTC) + timedelta(days=days),
        name=name,
        size=size,
        info_hash=sha256(info).digest(),
        info_length=len(info),
        info=info if inside else None,
    )


def small_offer(name: str = "spam.txt", *, days: float = 1) -> Offer:
    """A good one of five bytes."""
    return offer(of_file(name, b"spam!"), 5, name=name, days=days)


def large_offer(length: int = 90_000) -> Offer:
    """A good one whose info dict is about as long as that."""
    count = length // 90
    files: dict[tuple[bytes, ...], bytes] = {(f"{number:05}".encode(),): b"x" for number in range(count)}
    return offer(info_dict(b"many", tree_of(files)), count, name="many")
