"""What both backends do with files: looking before opening, and flushing. It blocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import StorageError
from ..manifest import Manifest

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
    return StorageError(f"{os.fspath(path)}: {_REASONS.get(code or 0, text)}", code)


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
        size = file_size(path)
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


def file_size(path: Path) -> int | None:
    """Bytes of the regular file at `path`; None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
