"""What is offered, as it lies on this side's disk: which files there are, and whether they are still the same.

A symbolic link is never offered and never followed: a link planted in a directory must not send what is elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from .errors import PathError, SourceChanged

#: How a file looked: size, mtime_ns, ctime_ns and inode.
Stamp: TypeAlias = tuple[int, int, int, int]

#: How deep a directory that is offered may be; receivers accept no deeper ones.
MAX_DEPTH = 32

#: A name that became a link or a pipe since it was found must neither be followed nor waited for.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is not offered; offer what it points to",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file to offer: its names below the offered directory, where it is, and how it looked when it was found."""

    names: tuple[str, ...]
    path: Path
    stamp: Stamp

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stamp[0]


@dataclass(frozen=True, slots=True)
class Tree:
    """What :func:`scan` found. `files` are in the order of BEP 52's pieces: by the bytes of their names, name by
    name; `directories` are those that hold nothing."""

    name: str
    is_directory: bool
    files: tuple[Source, ...]
    directories: tuple[tuple[str, ...], ...]


def check_path(path: Path) -> None:
    """Look once whether `path` can be offered: a file or directory that can be read. Looks at nothing inside it.

    Blocks for one look at the disk.

    :raises PathError: it cannot; the message says why.
    """
    path = _absolute(path)
    is_directory = stat.S_ISDIR(_look(path).st_mode)
    try:
        if is_directory:
            os.scandir(path).close()
        else:
            os.close(os.open(path, _FLAGS))
    except OSError as error:
        raise PathError(f"{path} cannot be read: {error.strerror}") from error


def stamp(path: Path) -> Stamp:
    """How the file at `path` looks now.

    :raises PathError: it is not there, or not a file or directory.
    """
    return _stamp(_look(path))


def summary(stamps: Iterable[Stamp]) -> bytes:
    """32 bytes that stand for all `stamps`, in this order."""
    return sha256(repr(tuple(stamps)).encode()).digest()


def changed(stamps: Mapping[int, Stamp], paths: Mapping[int, Path]) -> Path | None:
    """The first of `paths` that does not look as its stamp says any more, or is gone; None if there is none.

    Blocks for one look at the disk a file. A change of content alone within one tick of the clock (some
    milliseconds) after the stamp was taken is not seen.
    """
    for index, before in stamps.items():
        try:
            now = stamp(paths[index])
        except PathError:
            return paths[index]
        if now != before:
            return paths[index]
    return None


def scan(path: Path, stopped: Callable[[], bool] = lambda: False) -> Tree:
    """Find what there is to offer at `path`. Blocks.

    :param stopped: asked once a directory; what is returned after it said True is not complete.
    :raises PathError: something there cannot be offered; the message names it.
    """
    path = _absolute(path)
    found = _look(path)
    if not stat.S_ISDIR(found.st_mode):
        return Tree(path.name, False, (Source((path.name,), path, _stamp(found)),), ())
    files: list[Source] = []
    empty: list[tuple[str, ...]] = []
    todo: list[tuple[tuple[str, ...], Path, os.stat_result]] = [((), path, found)]
    while todo and not stopped():
        names, directory, found = todo.pop()
        entries = _entries(directory, found)
        if not entries and names:
            empty.append(names)
        for name, found in entries:
            inner, entry = (*names, name), directory / name
            _require_usable(entry, found)
            if not stat.S_ISDIR(found.st_mode):
                files.append(Source(inner, entry, _stamp(found)))
            elif len(inner) >= MAX_DEPTH:
                raise PathError(f"{entry} is more than {MAX_DEPTH} directories deep")
            else:
                todo.append((inner, entry, found))
    files.sort(key=lambda source: _order(source.names))
    empty.sort(key=_order)
    return Tree(path.name, True, tuple(files), tuple(empty))


@contextmanager
def reading(source: Source) -> Iterator[FileIO]:
    """Open `source` to read, unbuffered; it must look before and after as its stamp says.

    :raises SourceChanged: it does not.
    :raises PathError: it cannot be opened or read.
    """
    try:
        with FileIO(os.open(source.path, _FLAGS)) as file:
            _same(source, file)
            yield file
            _same(source, file)
    except PathError:
        raise
    except OSError as error:
        raise PathError(f"{source.path} cannot be read: {error.strerror}") from error


def fill(file: FileIO, buffer: memoryview, source: Source) -> None:
    """Read until `buffer` is full.

    :raises SourceChanged: the file ends before that.
    """
    while buffer:
        read = file.readinto(buffer)
        if not read:
            raise SourceChanged(f"{source.path} became shorter while it was read")
        buffer = buffer[read:]


def read_range(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of the file at `path`. Blocks.

    :raises SourceChanged: they cannot be read any more.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise SourceChanged(f"{path.name} cannot be read any more: {error.strerror}") from error
    if len(data) != size:
        raise SourceChanged(f"{path.name} became shorter")
    return data


def _absolute(path: Path) -> Path:
    """`path` with a name of its own; the path is not resolved as a whole, so that a link is seen to be one."""
    try:
        whole = path.resolve() if path.name in ("", "..") else path.absolute()
    except OSError as error:
        raise PathError(f"{path} cannot be read: {error.strerror}") from error
    if not whole.name:
        raise PathError(f"{path} has no name that could be offered")
    return whole


def _look(path: Path) -> os.stat_result:
    try:
        found = path.lstat()
    except ValueError as error:
        raise PathError(f"{str(path)!r}: {error}") from None
    except OSError as error:
        raise PathError(f"{path} cannot be read: {error.strerror}") from error
    _require_usable(path, found)
    return found


def _require_usable(path: Path, found: os.stat_result) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise PathError(f"{str(path)!r}: the name is not UTF-8") from None
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise PathError(f"{path} is {_KINDS.get(kind, 'neither a file nor a directory')}")


def _entries(directory: Path, before: os.stat_result) -> list[tuple[str, os.stat_result]]:
    """What is in the directory that looked like `before`. One that was put in its place meanwhile is not entered:
    through a link there, files from elsewhere would be offered."""
    try:
        descriptor = os.open(directory, _FLAGS | os.O_DIRECTORY)
        try:
            if not os.path.samestat(os.fstat(descriptor), before):
                raise PathError(f"{directory} was replaced while it was read")
            with os.scandir(descriptor) as entries:
                return [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        finally:
            os.close(descriptor)
    except PathError:
        raise
    except OSError as error:
        path = directory / error.filename if isinstance(error.filename, str) else directory
        raise PathError(f"{path} cannot be read: {error.strerror}") from error


def _same(source: Source, file: FileIO) -> None:
    if _stamp(os.fstat(file.fileno())) != source.stamp:
        raise SourceChanged(f"{source.path} was changed while it was read")


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _order(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names)
