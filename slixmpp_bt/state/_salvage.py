"""What can still be read in a damaged database."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ._tables import MIGRATIONS, TABLES, Table
from .records import Record, SavedLayer

log = logging.getLogger(__name__)

#: What reading a damaged database raises. UnicodeDecodeError: the message of an error quotes a damaged schema.
UNREADABLE = (sqlite3.Error, MemoryError, UnicodeDecodeError)
#: After so many rows in a row that cannot be read, there are none left in that table.
_MOST_MISSING = 5_000
_MAX_ROWID = 2**62


def salvage(damaged: Path, scratch: Path) -> Iterator[Record | SavedLayer]:
    """Every record of the database `damaged` that is whole, checksum included. Blocks.

    It works on a copy at `scratch`, which is removed in the end: SQLite changes what it opens.

    :raises OSError: there is no room for the copy, or the database cannot be read at all.
    """
    copies = {damaged: scratch, beside(damaged, "-wal"): beside(scratch, "-wal")}
    try:
        for original, copy in copies.items():
            copy.unlink(missing_ok=True)
            if original.exists():
                copy.touch(mode=0o600)
                shutil.copyfile(original, copy)
        if scratch.exists() and scratch.stat().st_size == 0:
            scratch.write_bytes(bytes(512))  # SQLite would not look at the log of an empty file
        try:
            with closing(connect(scratch)) as connection:
                yield from _all_records(connection)
        except UNREADABLE as error:
            log.debug("%s cannot be read on: %s", damaged, error)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, for this connection alone.

    The lock also keeps SQLite from mapping a file into memory: one that is cut meanwhile would end the process.
    """
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        # What is not UTF-8 any more does not get past a checksum.
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
        for pragma in ("locking_mode = EXCLUSIVE", "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def beside(path: Path, suffix: str) -> Path:
    """The file that SQLite keeps beside the database at `path`."""
    return path.with_name(path.name + suffix)


def _all_records(connection: sqlite3.Connection) -> Iterator[Record | SavedLayer]:
    connection.execute("PRAGMA writable_schema = ON")  # also reads a file that is too short
    if connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),):
        for table in TABLES:
            for row in _rows(connection, table):
                with suppress(ValueError):
                    yield table.record_of(row)


def _rows(connection: sqlite3.Connection, table: Table[Any]) -> Iterator[tuple[Any, ...]]:
    """Every row whose page is there; begins again behind each that is not."""
    at = missing = 0
    while missing < _MOST_MISSING and at < _MAX_ROWID:
        try:
            for rowid, *row in connection.execute(f"{table.select} WHERE rowid >= ? ORDER BY rowid", (at,)):
                if rowid < at:
                    return  # pages that lead back to themselves
                at, missing = rowid + 1, 0
                yield tuple(row)
                if at >= _MAX_ROWID:
                    return
            return
        except UNREADABLE:
            at, missing = at + 1, missing + 1
