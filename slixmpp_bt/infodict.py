"""Reading and writing BEP 52 info dicts.

The parser takes what :func:`write` writes and little else: v2 only, without the attributes of BEP 47 (symbolic links,
executables, pads) and without the keys by which an info dict names further places to ask. Where an engine reads a
dict in another way than we do, names and sizes could differ from those the user agreed to; so what an engine might
act upon is refused, not skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from . import bencode
from .bencode import Value
from .errors import LimitExceeded, ProtocolError
from .hashing import BLOCK, DIGEST
from .sources import MAX_DEPTH, Tree

KIB, MIB = 1024, 1024**2

MAX_PIECE_LENGTH = 16 * MIB
#: No engine takes more (libtorrent's limit).
MAX_PIECES = 0x200000
#: Bytes of a name. More than a file system takes: storage shortens.
MAX_NAME = 1_024
#: Bytes of all keys and values together that are not known here.
MAX_UNKNOWN = 1_024
#: Bytes of a salt.
SALT = 16

#: Without this key a directory that holds one file of its own name would read as that file (BEP 52, "file tree").
_DIRECTORY = b"directory"
#: What an engine could take names, addresses or other torrents from (BEP 3, 17, 19, 30, 38, 39, 47).
_REFUSED = frozenset(
    b"announce,announce-list,attr,collections,files,httpseeds,length,name.utf-8,nodes,originator,piece layers,pieces,"
    b"root hash,similar,symlink path,update-url,url-list".split(b",")
)
_OWN = frozenset({b"file tree", b"meta version", b"name", b"piece length", b"private", b"salt", _DIRECTORY})
#: The other keys that are kept, and the most bytes each may have: the certificate authority of a sealed offer.
_EXTRA = {b"ssl-cert": 4_096}


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
    """What a manifest may have at most to be parsed.

    :ivar max_size: bytes of all files.
    :ivar max_files: files, and likewise directories.
    :ivar max_length: bytes of the info dict.
    :ivar max_depth: names in a path.
    """

    max_size: int
    max_files: int
    max_length: int
    max_depth: int = MAX_DEPTH


@dataclass(slots=True)
class Info:
    """What an info dict says; the fields are those of :class:`slixmpp_bt.manifest.Manifest`."""

    name: str
    piece_length: int
    extra: Mapping[bytes, bytes]
    is_directory: bool = True
    size: int = 0
    piece_count: int = 0
    files: list[File] = field(default_factory=list)
    directories: list[tuple[str, ...]] = field(default_factory=list)


def read(info: bytes, limits: ManifestLimits) -> Info:
    """Check and read an info dict.

    :raises LimitExceeded: it is beyond `limits`.
    :raises ProtocolError: it is not one that :func:`write` could have written.
    """
    if len(info) > limits.max_length:
        raise LimitExceeded(f"the info dict is longer than {limits.max_length} bytes")
    # A file takes six tokens and a directory two; and the tree lies two dicts deep, as does what a file's entry says.
    top = bencode.decode(info, max_depth=limits.max_depth + 4, max_tokens=8 * limits.max_files + 256)
    if not isinstance(top, dict):
        raise ProtocolError("the info dict is no dict")
    _check_keys(top)
    result = Info(_name(top.get(b"name")), _piece_length(top.get(b"piece length")), _extra(top))
    tree = top.get(b"file tree")
    if not isinstance(tree, dict) or b"" in tree:
        raise ProtocolError("there is no file tree")
    _read_tree(tree, result, limits)
    alone = len(tree) == len(result.files) == 1 and result.files[0].path == (result.name,)
    result.is_directory = _DIRECTORY in top or not alone
    return result


def _check_keys(top: dict[bytes, Value]) -> None:
    refused = _REFUSED & top.keys()
    if refused:
        raise ProtocolError(f"the info dict has the key {min(refused).decode()!r}")
    for key, only in ((b"meta version", 2), (b"private", 1)):
        if top.get(key) != only:
            raise ProtocolError(f"{key.decode()!r} is not {only}")
    if top.get(_DIRECTORY, 1) != 1:
        raise ProtocolError("'directory' is not 1")
    salt = top.get(b"salt")
    if not isinstance(salt, bytes) or len(salt) != SALT:
        raise ProtocolError(f"there is no salt of {SALT} bytes")
    unknown = {key: value for key, value in top.items() if key not in _OWN and key not in _EXTRA}
    if unknown and len(bencode.encode(unknown)) > MAX_UNKNOWN:
        raise LimitExceeded(f"more than {MAX_UNKNOWN} bytes of unknown keys")


def _extra(top: dict[bytes, Value]) -> Mapping[bytes, bytes]:
    extra: dict[bytes, bytes] = {}
    for key, most in _EXTRA.items():
        value = top.get(key, b"")
        if not isinstance(value, bytes) or len(value) > most:
            raise ProtocolError(f"{key.decode()!r} is not a string of at most {most} bytes")
        if key in top:
            extra[key] = value
    return MappingProxyType(extra)


def _piece_length(value: Value | None) -> int:
    if not isinstance(value, int) or not BLOCK <= value <= MAX_PIECE_LENGTH or value.bit_count() != 1:
        raise ProtocolError(f"the piece length is not a power of two from {BLOCK} to {MAX_PIECE_LENGTH}")
    return value


def _name(value: Value | None) -> str:
    if not isinstance(value, bytes) or not 0 < len(value) <= MAX_NAME:
        raise ProtocolError(f"a name is not a string of 1 to {MAX_NAME} bytes")
    try:
        name = value.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a name is not UTF-8") from None
    if name in (".", "..") or "/" in name or "\0" in name:
        raise ProtocolError(f"{name!r} is not a name")
    return name


def _read_tree(tree: dict[bytes, Value], result: Info, limits: ManifestLimits) -> None:
    """Add what is in `tree` to `result`, depth first, which is the order of the pieces."""
    todo: list[tuple[tuple[str, ...], Value]] = [((), tree)]
    directories = 0
    while todo:
        path, node = todo.pop()
        if not isinstance(node, dict):
            raise ProtocolError("an entry of the file tree is no dict")
        if b"" in node:
            if len(node) != 1:
                raise ProtocolError("an entry of the file tree is both file and directory")
            _add_file(path, node[b""], result, limits)
            continue
        directories += 1
        if (len(path) >= limits.max_depth and node) or directories > limits.max_files + 1:
            raise LimitExceeded("the directories are too many or too deep")
        if path and not node:
            result.directories.append(path)
        todo += [((*path, _name(key)), node[key]) for key in reversed(node)]


def _add_file(path: tuple[str, ...], entry: Value, result: Info, limits: ManifestLimits) -> None:
    if not isinstance(entry, dict) or not entry.keys() <= {b"length", b"pieces root"}:
        raise ProtocolError("a file has other properties than length and root")
    size, root = entry.get(b"length"), entry.get(b"pieces root")
    if not isinstance(size, int) or size < 0:
        raise ProtocolError("a file has no length")
    if (root is None) != (size == 0) or (root is not None and (not isinstance(root, bytes) or len(root) != DIGEST)):
        raise ProtocolError("a file's root does not go with its length")
    result.files.append(File(len(result.files), path, size, root, result.piece_count))
    result.size += size
    result.piece_count += -(-size // result.piece_length)
    if len(result.files) > limits.max_files:
        raise LimitExceeded(f"more than {limits.max_files} files")
    if result.size > limits.max_size:
        raise LimitExceeded(f"more than {limits.max_size} bytes")
    if result.piece_count > MAX_PIECES:
        raise LimitExceeded(f"more than {MAX_PIECES} pieces")


def check_own(salt: bytes, extra: Mapping[bytes, bytes]) -> None:
    """Check what a caller gives to :func:`write`.

    :raises ValueError: it would not be read again.
    """
    if len(salt) != SALT:
        raise ValueError(f"a salt has {SALT} bytes, not {len(salt)}")
    for key, value in extra.items():
        if key not in _EXTRA or not 0 < len(value) <= _EXTRA[key]:
            raise ValueError(f"{key!r} cannot go into an info dict, or not with {len(value)} bytes")


def write(tree: Tree, roots: Sequence[bytes], piece_length: int, salt: bytes, extra: Mapping[bytes, bytes]) -> bytes:
    """The info dict of `tree`, whose files have these Merkle roots."""
    top: dict[bytes, Value] = {
        b"file tree": _write_tree(tree, roots),
        b"meta version": 2,
        b"name": tree.name.encode(),
        b"piece length": piece_length,
        b"private": 1,
        b"salt": salt,
        **extra,
    }
    if tree.is_directory and [source.names for source in tree.files] == [(tree.name,)] and not tree.directories:
        top[_DIRECTORY] = 1
    return bencode.encode(top)


def _write_tree(tree: Tree, roots: Sequence[bytes]) -> dict[bytes, Value]:
    root: dict[bytes, Value] = {}
    for source, digest in zip(tree.files, roots, strict=True):
        entry: dict[bytes, Value] = {b"length": source.size}
        if source.size:
            entry[b"pieces root"] = digest
        _descend(root, source.names)[b""] = entry
    for names in tree.directories:
        _descend(root, names)
    return root


def _descend(node: dict[bytes, Value], names: tuple[str, ...]) -> dict[bytes, Value]:
    for name in names:
        inner = node.setdefault(name.encode(), {})
        assert isinstance(inner, dict)
        node = inner
    return node
