"""Records as rows: which table keeps what, through which gates, and the schema with its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Generic, TypeVar
from zlib import crc32

from .. import messages
from ..constants import Mode, State
from . import _gates as gates
from . import records
from ._gates import Cell, Gate

T = TypeVar("T")

#: Each entry leads from one version of the schema to the next; the database's ``user_version`` counts them. What is
#: here was released and stays as it is: a change is a further entry. A column that is added has to be NULL in the rows
#: that exist, so that their checksums hold.
MIGRATIONS: list[tuple[str, ...]] = [
    (
        """CREATE TABLE offer (
            "id" TEXT NOT NULL, "to" TEXT NOT NULL, "local" TEXT NOT NULL, "path" BLOB NOT NULL, "mode" TEXT NOT NULL,
            "expires" REAL NOT NULL, "created" REAL NOT NULL, "state" TEXT NOT NULL, "size" INTEGER NOT NULL,
            "mtype" TEXT NOT NULL, "single" INTEGER NOT NULL, "desc" TEXT, "stanzas" TEXT NOT NULL,
            "kind" TEXT NOT NULL, "node" TEXT, "access" TEXT, "delegate" INTEGER NOT NULL, "reason" TEXT, "text" TEXT,
            "crc" INTEGER NOT NULL, PRIMARY KEY ("id"))""",
        """CREATE TABLE details (
            "offer" TEXT NOT NULL, "info" BLOB NOT NULL, "stamps" BLOB NOT NULL, "certificate" BLOB,
            "authority_key" BLOB, "crc" INTEGER NOT NULL, PRIMARY KEY ("offer"))""",
        """CREATE TABLE receiver (
            "offer" TEXT NOT NULL, "transfer" TEXT NOT NULL, "peer" TEXT NOT NULL, "phase" TEXT NOT NULL,
            "select" BLOB, "request" BLOB, "certificate" BLOB, "stays_until" REAL NOT NULL, "held" INTEGER NOT NULL,
            "sent" TEXT NOT NULL, "reason" TEXT, "text" TEXT, "crc" INTEGER NOT NULL,
            PRIMARY KEY ("offer", "transfer"))""",
        """CREATE TABLE incoming (
            "sender" TEXT NOT NULL, "peer" TEXT NOT NULL, "local" TEXT NOT NULL, "received" REAL NOT NULL,
            "bare" TEXT, "room" TEXT, "answered" INTEGER NOT NULL, "closed" INTEGER NOT NULL,
            "announced" INTEGER NOT NULL, "id" TEXT NOT NULL, "mode" TEXT NOT NULL, "expires" INTEGER NOT NULL,
            "name" TEXT NOT NULL, "size" INTEGER NOT NULL, "info_hash" BLOB NOT NULL, "info_length" INTEGER NOT NULL,
            "info" BLOB, "desc" TEXT, "media_type" TEXT, "date" INTEGER, "crc" INTEGER NOT NULL,
            PRIMARY KEY ("sender", "id"))""",
        """CREATE TABLE download (
            "transfer" TEXT NOT NULL, "sender" TEXT NOT NULL, "offer" TEXT NOT NULL, "dest" BLOB NOT NULL,
            "phase" TEXT NOT NULL, "started" REAL NOT NULL, "select" BLOB, "paused" INTEGER NOT NULL, "info" BLOB,
            "private_key" BLOB, "certificate" BLOB, "published" BLOB, "reason" TEXT, "text" TEXT,
            "crc" INTEGER NOT NULL, PRIMARY KEY ("transfer"))""",
        """CREATE TABLE checkpoint (
            "transfer" TEXT NOT NULL, "data" BLOB NOT NULL, "routes" TEXT NOT NULL, "crc" INTEGER NOT NULL,
            PRIMARY KEY ("transfer"))""",
        """CREATE TABLE letter (
            "to" TEXT NOT NULL, "sender" TEXT NOT NULL, "until" REAL NOT NULL, "id" TEXT NOT NULL,
            "kind" TEXT NOT NULL, "reason" TEXT NOT NULL, "transfer" TEXT NOT NULL, "text" TEXT, "seeding" INTEGER,
            "crc" INTEGER NOT NULL, PRIMARY KEY ("to", "id", "transfer"))""",
        """CREATE TABLE past (
            "sender" TEXT NOT NULL, "offer" TEXT NOT NULL, "info_hash" BLOB NOT NULL, "until" REAL NOT NULL,
            "crc" INTEGER NOT NULL, PRIMARY KEY ("sender", "offer"))""",
        """CREATE TABLE layer (
            "path" BLOB NOT NULL, "piece_length" INTEGER NOT NULL, "stamp" BLOB NOT NULL, "root" BLOB NOT NULL,
            "layer" BLOB NOT NULL, "crc" INTEGER NOT NULL, PRIMARY KEY ("path", "piece_length"))""",
    ),
    ('ALTER TABLE receiver ADD COLUMN "owner" TEXT', 'ALTER TABLE letter ADD COLUMN "owner" TEXT'),
    ("""ALTER TABLE incoming ADD COLUMN "node" TEXT""",),
    (
        """CREATE TABLE seed (
            "transfer" TEXT NOT NULL, "mode" TEXT NOT NULL, "until" REAL NOT NULL, "published" BLOB NOT NULL,
            "info" BLOB NOT NULL, "layers" BLOB NOT NULL, "peers" TEXT NOT NULL, "certificate" BLOB,
            "private_key" BLOB, "crc" INTEGER NOT NULL, PRIMARY KEY ("transfer"))""",
    ),
    (
        'ALTER TABLE incoming ADD COLUMN "delegate" INTEGER',
        """CREATE TABLE delegation (
            "transfer" TEXT NOT NULL, "sender" TEXT NOT NULL, "offer" TEXT NOT NULL, "local" TEXT NOT NULL,
            "expires" REAL NOT NULL, "room" TEXT, "granted" INTEGER NOT NULL, "stamps" BLOB NOT NULL,
            "authority_key" BLOB, "crc" INTEGER NOT NULL, PRIMARY KEY ("transfer"))""",
    ),
]


class Mismatch(ValueError):
    """A row is not what was written: its checksum does not fit."""


@dataclass(frozen=True)
class Table(Generic[T]):
    """Where one class of records is kept.

    A row ends with a checksum over the rest: SQLite itself would not notice a flipped bit in a value.

    :ivar key: the columns of the primary key, in the order of ``record.key``.
    :ivar columns: for each, its gate.
    :ivar inner: a field of the record that is itself a value, and its class: its fields are columns of the row.
    :ivar owned: for each table whose rows go with a row of this one, the column that names it.
    """

    name: str
    record: type[T]
    key: tuple[str, ...]
    columns: Mapping[str, Gate[Any]]
    inner: tuple[str, type] | None = None
    owned: Mapping[str, str] = field(default_factory=dict)

    def row(self, record: T) -> tuple[Cell, ...]:
        """The cells of `record`.

        :raises ValueError: a field holds what cannot be kept; the message names it.
        """
        cells: list[Cell] = []
        for name, gate in self.columns.items():
            holder = getattr(record, self.inner[0]) if self.inner is not None and name in self._inner_names else record
            cells.append(self._through(name, gate.write, getattr(holder, name)))
        return (*cells, self._checksum(cells))

    def record_of(self, row: Sequence[Cell]) -> T:
        """The record of these cells.

        :raises Mismatch: they are not what was written.
        :raises ValueError: they hold what this version does not know.
        """
        *cells, checksum = row
        if checksum != self._checksum(cells):
            raise Mismatch(f"a row of {self.name} is damaged")
        values: dict[str, Any] = {}
        name = ""
        try:
            for (name, gate), cell in zip(self.columns.items(), cells, strict=True):
                values[name] = gate.read(cell)
        except ValueError as error:
            raise ValueError(f"{self.name}.{name}: {error}") from error
        if self.inner is not None:
            holder, kind = self.inner
            values[holder] = kind(**{name: values.pop(name) for name in self._inner_names})
        return self.record(**values)

    def key_of(self, key: Sequence[object]) -> tuple[Cell, ...]:
        """The cells of a key.

        :raises ValueError: there cannot be such a key.
        """
        if len(key) != len(self.key):
            raise ValueError(f"{self.name}: a key has {len(self.key)} parts")
        return tuple(
            self._through(name, _text_key.read if isinstance(part, str) else self.columns[name].write, part)
            for name, part in zip(self.key, key, strict=True)
        )

    @cached_property
    def upsert(self) -> str:
        """The statement that takes a whole row."""
        names = [*self.columns, "crc"]
        changed = ", ".join(f"[{name}] = excluded.[{name}]" for name in names if name not in self.key)
        marks = ", ".join("?" * len(names))
        return (
            f"INSERT INTO {self.name} ({_quoted(names)}) VALUES ({marks})"  # noqa: S608
            f" ON CONFLICT ({_quoted(self.key)}) DO UPDATE SET {changed}"
        )

    @cached_property
    def select(self) -> str:
        """The beginning of a query of whole rows, after their ``rowid``."""
        return f"SELECT rowid, {_quoted([*self.columns, 'crc'])} FROM {self.name}"  # noqa: S608

    @cached_property
    def where_key(self) -> str:
        """The condition that takes a key."""
        return "WHERE " + " AND ".join(f"[{name}] = ?" for name in self.key)

    @cached_property
    def _inner_names(self) -> frozenset[str]:
        return frozenset(f.name for f in fields(self.inner[1])) if self.inner is not None else frozenset()

    def _through(self, name: str, pass_: Any, value: object) -> Any:
        try:
            return pass_(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name}.{name}: {error}") from error

    def _checksum(self, cells: Sequence[Cell]) -> int:
        named = [pair for pair in zip(self.columns, cells, strict=True) if pair[1] is not None]
        # Not repr(): which characters that escapes depends on Python's version.
        checksum = crc32(ascii([pair for pair in named if not isinstance(pair[1], bytes)]).encode())
        for name, cell in named:
            if isinstance(cell, bytes):
                checksum = crc32(cell, crc32(f"{name} {len(cell)} ".encode(), checksum))
        return crc32(self.name.encode(), checksum)


def _quoted(names: Sequence[str]) -> str:
    # Not in double quotes: for SQLite a name in those that is no column is a text.
    return ", ".join(f"[{name}]" for name in names)


_text_key = gates.text(gates.MAX_JID)
_name, _phase, _sender, _note = (
    gates.text(1_024),
    gates.text(64),
    gates.text(gates.MAX_JID),
    gates.prose(messages.MAX_TEXT),
)
_ending = {
    "reason": gates.optional(gates.one_of(messages.REASONS)),
    "text": gates.optional(_note),
}

TABLES: tuple[Table[Any], ...] = (
    Table(
        "offer",
        records.SavedOffer,
        ("id",),
        {
            "id": gates.token,
            "to": gates.jid,
            "local": gates.jid,
            "path": gates.path,
            "mode": gates.word(Mode),
            "expires": gates.moment,
            "created": gates.moment,
            "state": gates.word(State),
            "size": gates.number(),
            "mtype": gates.one_of({"chat", "normal", "headline", "groupchat"}),
            "single": gates.flag,
            "desc": gates.optional(_note),
            "stanzas": gates.stanzas,
            "kind": gates.one_of({"chat", "room", "catalogue"}),
            "node": gates.optional(_name),
            "access": gates.optional(gates.text(1_000_000)),
            "delegate": gates.flag,
            **_ending,
        },
        owned={"details": "offer", "receiver": "offer"},
    ),
    Table(
        "details",
        records.SavedDetails,
        ("offer",),
        {
            "offer": gates.token,
            "info": gates.blob(),
            "stamps": gates.stamps,
            "certificate": gates.optional(gates.blob()),
            "authority_key": gates.optional(gates.blob()),
        },
    ),
    Table(
        "receiver",
        records.SavedReceiver,
        ("offer", "transfer"),
        {
            "offer": gates.token,
            "transfer": gates.token,
            "peer": gates.jid,
            "phase": _phase,
            "select": gates.optional(gates.select),
            "request": gates.optional(gates.blob()),
            "certificate": gates.optional(gates.blob()),
            "stays_until": gates.moment,
            "held": gates.flag,
            "sent": gates.routes,
            **_ending,
            "owner": gates.optional(_sender),
        },
    ),
    Table(
        "incoming",
        records.SavedIncoming,
        ("sender", "id"),
        {
            "sender": _sender,
            "peer": gates.jid,
            "local": gates.jid,
            "received": gates.moment,
            "bare": gates.optional(gates.jid),
            "room": gates.optional(gates.jid),
            "answered": gates.flag,
            "closed": gates.flag,
            "announced": gates.flag,
            "node": gates.optional(_name),
            "id": gates.token,
            "mode": gates.word(Mode),
            "expires": gates.instant,
            "name": gates.text(messages.MAX_NAME),
            "size": gates.number(),
            "info_hash": gates.blob(exactly=32),
            "info_length": gates.number(),
            "info": gates.optional(gates.blob(messages.MAX_BLOB)),
            "desc": gates.optional(_note),
            "media_type": gates.optional(_name),
            "date": gates.optional(gates.instant),
            "delegate": gates.mark,
        },
        inner=("offer", messages.Offer),
    ),
    Table(
        "download",
        records.SavedDownload,
        ("transfer",),
        {
            "transfer": gates.token,
            "sender": _sender,
            "offer": gates.token,
            "dest": gates.path,
            "phase": _phase,
            "started": gates.moment,
            "select": gates.optional(gates.select),
            "paused": gates.flag,
            "info": gates.optional(gates.blob()),
            "private_key": gates.optional(gates.blob()),
            "certificate": gates.optional(gates.blob()),
            "published": gates.optional(gates.path),
            **_ending,
        },
        owned={"checkpoint": "transfer"},
    ),
    Table(
        "checkpoint",
        records.SavedCheckpoint,
        ("transfer",),
        {"transfer": gates.token, "data": gates.blob(), "routes": gates.routes},
    ),
    Table(
        "seed",
        records.SavedSeed,
        ("transfer",),
        {
            "transfer": gates.token,
            "mode": gates.word(Mode),
            "until": gates.moment,
            "published": gates.path,
            "info": gates.blob(),
            "layers": gates.blob(),
            "peers": gates.candidates,
            "certificate": gates.optional(gates.blob()),
            "private_key": gates.optional(gates.blob()),
        },
        owned={"delegation": "transfer"},
    ),
    Table(
        "delegation",
        records.SavedDelegation,
        ("transfer",),
        {
            "transfer": gates.token,
            "sender": _sender,
            "offer": gates.token,
            "local": gates.jid,
            "expires": gates.moment,
            "room": gates.optional(gates.jid),
            "granted": gates.flag,
            "stamps": gates.stamps,
            "authority_key": gates.optional(gates.blob()),
        },
    ),
    Table(
        "letter",
        records.SavedLetter,
        ("to", "id", "transfer"),
        {
            "to": gates.jid,
            "sender": gates.jid,
            "until": gates.moment,
            "id": gates.token,
            "kind": gates.one_of({"complete", "cancel", "decline"}),
            "reason": gates.one_of(messages.REASONS),
            "transfer": gates.token_or_none,
            "text": gates.optional(_note),
            "seeding": gates.optional(gates.number()),
            "owner": gates.optional(_sender),
        },
        inner=("end", messages.End),
    ),
    Table(
        "past",
        records.SavedPast,
        ("sender", "offer"),
        {"sender": _sender, "offer": gates.token, "info_hash": gates.blob(exactly=32), "until": gates.moment},
    ),
    Table(
        "layer",
        records.SavedLayer,
        ("path", "piece_length"),
        {
            "path": gates.path,
            "piece_length": gates.number(1),
            "stamp": gates.stamp,
            "root": gates.blob(exactly=32),
            "layer": gates.blob(),
        },
    ),
)

BY_RECORD: Mapping[type, Table[Any]] = {table.record: table for table in TABLES}
