"""The database file: held by one, opened, set aside when it is damaged. Everything here blocks."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ..errors import StateError
from ._gates import Cell
from ._salvage import UNREADABLE, beside, connect, salvage
from ._tables import BY_RECORD, MIGRATIONS, Mismatch, Table

log = logging.getLogger(__name__)

T = TypeVar("T")
#: SQL, and the values of its parameters.
Statement: TypeAlias = tuple[str, Sequence[Cell]]

#: What SQLite says of a damaged database. Our statements are right and our values checked, so an error in the one
#: (``SQLITE_ERROR``: no such table) or the other (a constraint, a size) is the database's.
_DAMAGED = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_INTERNAL,
})  # fmt: skip
#: What SQLite may have beside a database, and the database; last, since a log left behind would be applied to another.
_SUFFIXES = ("-wal", "-shm", "-journal", "")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class _Newer(Exception):
    """The database was written by a later version of this library."""


class _Damaged(Exception):
    """The database is not what it was."""


_TROUBLE = (*UNREADABLE, OSError, _Newer, _Damaged)


def file_name(account: str, instance: str) -> str:
    """The name of the database of a bare JID and an instance: readable, short, and no other pair's."""
    digest = sha256(f"{account}\0{instance}".encode()).hexdigest()[:32]
    readable = re.sub(r"[^A-Za-z0-9@.-]", "_", f"{account}.{instance}")[:80].lstrip(".-")
    return f"{readable}.{digest}.db".lstrip(".")


class Database:
    """The database at `path`. Used by one thread at a time, from :meth:`open` to :meth:`close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._writes_fail = False

    def open(self) -> None:
        """Take hold of the database and open it, a new one if it is missing, damaged or of a newer version.

        :raises StateError: it is held by somebody else, or the disk does not let it be used.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._hold()
            if not self.path.exists() and (fresh := beside(self.path, "-new")).exists():
                fresh.rename(self.path)  # a process was killed just before it did that
            self._do(lambda connection: None)
            with suppress(StateError):  # it can be read
                self.execute(_orphans())
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise StateError(f"{self.path}: {_words(error)}") from error
            raise

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self._disconnect()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)

    def interrupt(self) -> None:
        """Stop what is going on. From any thread."""
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):
                connection.interrupt()

    def load(self, table: Table[T]) -> list[T]:
        """All records of `table`, in the order in which they were first saved.

        :raises StateError: it cannot be read.
        """
        found, strange = self._do(lambda connection: _read(connection, table, ""))
        self._drop(table, strange)
        return found

    def find(self, table: Table[T], key: Sequence[object]) -> T | None:
        """The record with this key; None if there is none.

        :raises StateError: it cannot be read, or there cannot be such a key.
        """
        with _refusing():
            cells = table.key_of(key)
        found, strange = self._do(lambda connection: _read(connection, table, table.where_key, cells))
        self._drop(table, strange)
        return found[0] if found else None

    def change(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Do `work` in a transaction.

        :raises StateError: it failed, and nothing of it was done.
        """
        try:
            self._do(lambda connection: _transact(connection, work))
        except StateError as error:
            if not self._writes_fail:
                log.warning("%s; what changes is not kept until that is over", error)
            self._writes_fail = True
            raise
        if self._writes_fail:
            log.warning("%s can be written again", self.path)
        self._writes_fail = False

    def execute(self, statements: Sequence[Statement]) -> None:
        """Execute `statements` in a transaction.

        :raises StateError: it failed, and nothing of it was done.
        """
        self.change(lambda connection: _execute(connection, statements))

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`; if the database turns out to be damaged, once more with a new one."""
        for last in (False, True):
            try:
                if self._connection is None:
                    self._connection = _connect(self.path)
                return work(self._connection)
            except _TROUBLE as error:
                if last or not _means_damage(error):
                    raise StateError(f"{self.path}: {_words(error)}") from error
                self._begin_anew(error)
        raise AssertionError

    def _hold(self) -> None:
        path = beside(self.path, "-lock")
        self._lock = os.open(path, _OPEN, 0o600)
        try:
            # Not lockf: that would let a second plugin in this process in.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{self.path} is in use by another process, or another client of this one") from None

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(sqlite3.Error):
                connection.close()

    def _begin_anew(self, why: Exception) -> None:
        """Set the database aside, and begin a new one with what can be read in a damaged one.

        The new one takes the name when it is complete: if the disk does not let it, all is as before.

        :raises StateError: the disk does not let it.
        """
        self._disconnect()
        fresh = beside(self.path, "-new")
        try:
            saved = self._build(fresh, rescue=not isinstance(why, _Newer))
            aside = self._set_aside()
            fresh.rename(self.path)
            self._connection = _connect(self.path)
        except _TROUBLE as error:
            raise StateError(f"{self.path} cannot be begun anew: {_words(error)}") from error
        log.warning("%s (%s) was set aside as %s; %d records were saved", self.path, why, aside.name, saved)

    def _build(self, fresh: Path, *, rescue: bool) -> int:
        """Make a new database, and return how many records were rescued into it."""
        for suffix in _SUFFIXES:
            beside(fresh, suffix).unlink(missing_ok=True)
        with closing(_connect(fresh)) as connection:
            before = connection.total_changes
            if rescue:
                records = salvage(self.path, beside(self.path, "-salvage"))
                _transact(connection, partial(_execute, statements=map(saving, records)))
            saved = connection.total_changes - before
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return saved

    def _set_aside(self) -> Path:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names = (f"{self.path.name}.{moment}{f'-{n}' if n else ''}" for n in count())
        aside = next(path for path in map(self.path.with_name, names) if not os.path.lexists(path))
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                beside(self.path, suffix).rename(beside(aside, suffix))
        return aside

    def _drop(self, table: Table[Any], strange: list[int]) -> None:
        if strange:
            log.warning(
                "%s: %d rows of %s mean nothing to this version and are dropped", self.path, len(strange), table.name
            )
            with suppress(StateError):  # they do no harm where they are
                self.execute([(f"DELETE FROM {table.name} WHERE rowid = ?", (rowid,)) for rowid in strange])  # noqa: S608


def saving(record: object) -> Statement:
    """What saves `record`.

    :raises StateError: it holds what cannot be kept; the message names the field.
    """
    table = BY_RECORD[type(record)]
    with _refusing():
        return table.upsert, table.row(record)


def deleting(table: Table[Any], key: Sequence[object]) -> list[Statement]:
    """What deletes the record with this key and those that go with it.

    :raises StateError: there cannot be such a key.
    """
    with _refusing():
        cells = table.key_of(key)
    own = f"DELETE FROM {table.name} {table.where_key}"  # noqa: S608
    owned = [f"DELETE FROM {name} WHERE [{column}] = ?" for name, column in table.owned.items()]  # noqa: S608
    return [(statement, cells) for statement in (own, *owned)]


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise StateError(f"cannot be kept: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, or make one."""
    descriptor = os.open(path, _OPEN, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_size == 0 and beside(path, "-wal").exists():
            raise _Damaged("it is empty, its log is not")  # SQLite would delete the log
    finally:
        os.close(descriptor)
    connection = connect(path)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Check the database, and bring it to this version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= len(MIGRATIONS):
        raise _Newer(f"its version is {version}, and this library knows {len(MIGRATIONS)}")
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(f"its pages are in disorder: {' '.join(verdict.split())}")
    # With NORMAL a power failure may undo the latest transactions, but not tear one; a killed process undoes nothing.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON", "journal_size_limit = 8388608"):
        connection.execute(f"PRAGMA {pragma}")
    for number in range(version, len(MIGRATIONS)):
        steps = [(step, ()) for step in (*MIGRATIONS[number], f"PRAGMA user_version = {number + 1}")]
        _transact(connection, partial(_execute, statements=steps))
    if _schema(connection) != _own_schema():
        raise _Damaged("its tables are not those of its version")


def _schema(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def _own_schema() -> list[Any]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _execute(connection, [(step, ()) for steps in MIGRATIONS for step in steps])
        return _schema(connection)


def _execute(connection: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    for statement, cells in statements:
        connection.execute(statement, cells)


def _transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # it may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _words(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


def _means_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _Newer | _Damaged | UnicodeDecodeError) or (code is not None and code & 0xFF in _DAMAGED)


def _read(
    connection: sqlite3.Connection, table: Table[T], where: str, cells: Sequence[Any] = ()
) -> tuple[list[T], list[int]]:
    """The records, and the ``rowid`` of each row that is well but none to this version."""
    found: list[T] = []
    strange: list[int] = []
    for rowid, *row in connection.execute(f"{table.select} {where} ORDER BY rowid", cells):
        try:
            found.append(table.record_of(row))
        except Mismatch as error:
            raise _Damaged(str(error)) from error
        except ValueError as error:
            log.debug("%s", error)
            strange.append(rowid)
    return found, strange


def _orphans() -> list[Statement]:
    """What deletes the rows that go with one that is not there any more."""
    return [
        (f"DELETE FROM {owned} WHERE [{column}] NOT IN (SELECT [{table.key[0]}] FROM {table.name})", ())  # noqa: S608
        for table in BY_RECORD.values()
        for owned, column in table.owned.items()
    ]
