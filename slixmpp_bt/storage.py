"""Where received files land: the only code that makes a path out of something a peer said.

Until it is complete a download lies in a directory of its own beside its destination, ``.NAME.TOKEN.part``, which
only this user may enter and whose files are named by their numbers in the manifest. So nobody can plant a symbolic
link where the engine will open a file, and the peer's names matter only once, when the whole appears under them.

Publishing is by hard link, so that the engine can go on serving the part files under the names it knows. A single
file is linked to its final name, which fails where that name is taken. A directory is built of links beside the
parts and renamed, which fails where anything but an empty directory has the name. So both appear in one step, whole,
and replace nothing, whoever else writes to the directory meanwhile. File systems without hard links get a move
instead (:attr:`Landing.linkable`).

The destination itself and what leads to it are the user's choice, symbolic links included. Who may write to those, or
is the same user, can do anything anyway and is not defended against.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Self

from .errors import StorageError
from .filenames import numbered, safe_name, safe_paths, shorten
from .manifest import Manifest
from .threads import in_thread

__all__ = ["Landing", "require_space", "safe_name"]

_TOKEN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
#: Bytes of a token, and of the peer's name in the name of the part directory.
_MAX_TOKEN, _MAX_PART_NAME = 64, 100
#: What link(2) answers where there are no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EXDEV})
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: What rename(2) answers where the new name is taken by a file or by a directory that is not empty.
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


def require_space(directory: Path, size: int, keep_free: int) -> None:
    """Check that `size` more bytes fit into `directory`'s file system and leave `keep_free` bytes. Blocks.

    :param directory: need not exist yet.
    :raises StorageError: they do not, or it cannot be told.
    """
    with _disk(directory):
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        free = shutil.disk_usage(existing).free
    if free - size < keep_free:
        raise StorageError(
            f"{directory}: {_mib(size)} are needed, {_mib(free)} are free and {_mib(keep_free)} have to stay free",
            errno.ENOSPC,
        )


def published(final: Path, manifest: Manifest) -> dict[int, Path]:
    """Where each file of `manifest` is that was published, whole, as `final` in an earlier run."""
    return {index: final / inner for index, inner in Landing.plan(final.parent, manifest, None, "-")._inner.items()}


class Landing:
    """One download's place on the disk. Made by :meth:`plan`, which touches nothing.

    Every coroutine works in a thread and raises :class:`~slixmpp_bt.errors.StorageError` with the system's own words
    (disk full, read-only and so on). Cancelling one waits until its thread has ended and then raises; what it did
    stays done, and :meth:`discard` cleans up after any of them. One at a time.

    :ivar parts: for each wanted file's index in ``manifest.files``, where to write it. The names do not change from
        :meth:`plan` to :meth:`discard`, nor from one run of the program to the next.
    :ivar finals: where each of them is, once published; empty before.
    :ivar linkable: after :meth:`prepare`, whether publishing leaves the part files where they are. Where it is False,
        :meth:`publish` moves them: the engine must have let go of them.
    """

    def __init__(self, dest: Path, manifest: Manifest, select: frozenset[int] | None, token: str) -> None:
        if not 0 < len(token) <= _MAX_TOKEN or not _TOKEN_CHARACTERS.issuperset(token):
            raise ValueError(f"a token has 1 to {_MAX_TOKEN} letters, digits, hyphens and underscores, not {token!r}")
        wanted = frozenset(range(len(manifest.files))) if select is None else select
        if not all(0 <= index < len(manifest.files) for index in wanted):
            raise ValueError("a file is selected that is not in the manifest")
        if manifest.files and not wanted:
            raise ValueError("no file is selected")
        self._dest = dest.absolute()
        self._name = safe_name(manifest.name)
        self._part = self._dest / f".{shorten(self._name, _MAX_PART_NAME)}.{token}.part"
        self._tree = self._part / "tree"
        self._link = self._dest / f"{self._part.name}.probe"
        self._is_directory = manifest.is_directory
        self._sizes = {index: manifest.files[index].size for index in sorted(wanted)}
        self._inner, self._empty = dict.fromkeys(self._sizes, Path()), list[Path]()
        if manifest.is_directory:
            # Named before choosing, so that a file's name does not depend on what else was selected.
            safe = [
                Path(*path) for path in safe_paths([*(file.path for file in manifest.files), *manifest.directories])
            ]
            self._inner = {index: safe[index] for index in self._sizes}
            self._empty = safe[len(manifest.files) :] if select is None else []
        self._final: Path | None = None
        self.parts: Mapping[int, Path] = MappingProxyType({index: self._part / str(index) for index in self._sizes})
        self.finals: Mapping[int, Path] = MappingProxyType({})
        self.linkable = True

    @classmethod
    def plan(cls, dest: Path, manifest: Manifest, select: frozenset[int] | None, token: str) -> Self:
        """Decide every name below the directory `dest`. Takes some 10 µs a file.

        :param select: the indices of the wanted files; None for all, and for the empty directories too.
        :param token: what tells this download from all others, unguessable: up to 64 letters, digits, ``-`` and ``_``.
        :raises ValueError: `select` is not of the manifest, or `token` not such a text.
        """
        return cls(dest, manifest, select, token)

    async def prepare(self, min_free_space: int = 0) -> bool:
        """Make the directories and the missing part files, empty.

        :param min_free_space: as of :meth:`check_space`.
        :return: whether all part files were there already, so that a checkpoint of an earlier run still holds.
        """
        return await in_thread(self._prepare, min_free_space)

    async def check_space(self, min_free_space: int) -> None:
        """Check that what is still to come fits and leaves `min_free_space` bytes free."""
        await in_thread(self._check_space, min_free_space)

    async def check_reserve(self, min_free_space: int) -> None:
        """Check that `min_free_space` bytes are free, whatever is still to come."""
        await in_thread(require_space, self._dest, 0, min_free_space)

    async def publish(self) -> Path:
        """Put what was wanted under its final name, flushed to the disk, and return that: of the file or directory.

        An existing name gets a numbered sibling. What is published already is found again, after a restart too as
        long as the part files are there; a tree without any file is then published once more.
        """
        return await in_thread(self._publish)

    async def discard(self) -> None:
        """Remove the part names and all that is not published. Idempotent."""
        await in_thread(self._discard)

    def _prepare(self, min_free_space: int) -> bool:
        with _disk(self._part):
            self._dest.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._part.mkdir(mode=0o700)
            self.linkable = self._probe()
            self._unstage()
            kept = [not _create(part) for part in self.parts.values()]
            if self._is_directory:
                # Better to learn now than after the last byte that the file system does not take a name.
                self._stage()
                self._unstage()
        self._check_space(min_free_space)
        return all(kept)

    def _check_space(self, min_free_space: int) -> None:
        with _disk(self._part):
            had = sum(_allocated(part) for part in self.parts.values())
        require_space(self._dest, max(0, sum(self._sizes.values()) - had), min_free_space)

    def _probe(self) -> bool:
        """Make sure that the part directory is ours, and tell whether a file in it can be linked to where it goes."""
        self._require_directory()
        probe = self._part / "probe"
        for path in (probe, self._link):
            path.unlink(missing_ok=True)
        try:
            _create(probe)
            if probe.lstat().st_uid != self._part.lstat().st_uid:
                raise StorageError(f"{self._part} was made by another user")
            return _try_link(probe, self._link)
        finally:
            self._link.unlink(missing_ok=True)
            probe.unlink(missing_ok=True)

    def _require_directory(self) -> None:
        if not stat.S_ISDIR(self._part.lstat().st_mode):
            raise StorageError(f"{self._part} is not a directory")

    def _publish(self) -> Path:
        if self._final is None:
            with _disk(self._part):
                self._require_directory()
                self._unstage()
                for index, part in self.parts.items():
                    _flush(part, self._sizes[index])
                final = self._publish_directory() if self._is_directory else self._publish_file()
                _sync_directory(self._dest)
            self.finals = MappingProxyType({index: final / inner for index, inner in self._inner.items()})
            self._final = final
        return self._final

    def _publish_file(self) -> Path:
        (part,) = self.parts.values()
        for candidate in self._candidates():
            if _same_file(candidate, part):
                return candidate
            with suppress(FileExistsError):
                (os.link if self.linkable else _move)(part, candidate)
                return candidate
        raise AssertionError("names do not end")

    def _publish_directory(self) -> Path:
        for directory in self._stage():
            _sync_directory(directory)
        for candidate in self._candidates():
            if self._is_published(candidate):
                shutil.rmtree(self._tree)
                return candidate
            # A rename would replace an empty directory; one that comes just now may be replaced, by one of its name.
            if os.path.lexists(candidate):
                continue
            try:
                self._tree.rename(candidate)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                return candidate
        raise AssertionError("names do not end")

    def _candidates(self) -> Iterator[Path]:
        return (self._dest / numbered(self._name, number) for number in count())

    def _is_published(self, candidate: Path) -> bool:
        """Whether an earlier run has published this very download as `candidate`."""
        return bool(self.parts) and all(
            _same_file(candidate / self._inner[index], part) for index, part in self.parts.items()
        )

    def _stage(self) -> set[Path]:
        """Build the tree beside the parts, and return its directories."""
        directories = {self._tree}
        for path in (*self._empty, *(inner.parent for inner in self._inner.values())):
            directories.update(self._tree / above for above in (path, *path.parents))
        for directory in sorted(directories):
            directory.mkdir()
        for index, part in self.parts.items():
            (os.link if self.linkable else os.rename)(part, self._tree / self._inner[index])
        return directories

    def _unstage(self) -> None:
        """Undo what a publishing left behind that failed or was killed: what it had moved goes back."""
        if not self._tree.exists():
            return
        for index, part in self.parts.items():
            staged = self._tree / self._inner[index]
            if staged.exists() and not part.exists():
                staged.rename(part)
        shutil.rmtree(self._tree)

    def _discard(self) -> None:
        with _disk(self._part), suppress(FileNotFoundError):
            self._link.unlink(missing_ok=True)
            if stat.S_ISDIR(self._part.lstat().st_mode):
                shutil.rmtree(self._part)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Raise what the system says about `path`, or about a file at fault below it, as a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}", error.errno) from error


def _create(path: Path) -> bool:
    """Make an empty file; False if there is one already.

    :raises StorageError: something else is there, such as a symbolic link.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666))
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path} is not a regular file") from None
        return False
    return True


def _try_link(source: Path, target: Path) -> bool:
    """Make a hard link; False where there are none."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _allocated(path: Path) -> int:
    found = path.lstat()
    return found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size


def _flush(path: Path, size: int) -> None:
    """Bring a part file to the disk, after a check that it is one, and whole."""
    file = os.open(path, os.O_RDWR | _NO_FOLLOW)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            raise StorageError(f"{path} is not a file of {size} bytes")
        if size:
            os.fsync(file)
    finally:
        os.close(file)


def _sync_directory(path: Path) -> None:
    """Make the names in a directory last, where the system knows such a thing."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(directory)


def _same_file(path: Path, other: Path) -> bool:
    """Whether both are names of one file; a symbolic link is not followed."""
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _move(source: Path, target: Path) -> None:
    """Rename to a name that is free, and that an empty file of ours takes until then.

    :raises FileExistsError: it is not free.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600))
    source.replace(target)


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.1f} MiB"
