"""Merkle layers of files that were hashed before, within bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ..sources import Stamp
from ._database import Database, deleting, saving
from ._tables import BY_RECORD
from .records import SavedLayer

#: Bytes of all that is remembered: with pieces as :func:`~slixmpp_bt.manifest.piece_length_for` chooses them, about
#: 1,000 large files.
MOST = 64 * 1024 * 1024
#: What a row takes beside its layer, in bytes, about.
_ROW = 256

_TABLE = BY_RECORD[SavedLayer]


class Layers:
    """The cache of one database. Used by its thread."""

    def __init__(self) -> None:
        #: At least what the rows take; None if they were not counted yet.
        self._size: int | None = None

    def find(
        self, database: Database, files: Sequence[tuple[Path, Stamp]], piece_length: int
    ) -> list[tuple[bytes, bytes] | None]:
        """Root and layer of each file that looks as it did."""
        rows = ((database.find(_TABLE, (path, piece_length)), stamp) for path, stamp in files)
        return [(row.root, row.layer) if row is not None and row.stamp == stamp else None for row, stamp in rows]

    def add(self, database: Database, layers: Sequence[SavedLayer]) -> None:
        """Remember `layers` as the newest, and forget the oldest beyond the bound."""
        statements = []
        for layer in layers:
            statements += [*deleting(_TABLE, (layer.path, layer.piece_length)), saving(layer)]
        database.execute(statements)
        if self._size is not None:
            self._size += sum(_ROW + len(layer.layer) for layer in layers)
        if self._size is None or self._size > MOST:
            database.change(self._trim)

    def _trim(self, connection: sqlite3.Connection) -> None:
        sizes = connection.execute(f"SELECT rowid, length(layer) + {_ROW} FROM layer ORDER BY rowid").fetchall()  # noqa: S608
        total = sum(size for _, size in sizes)
        if total > MOST:
            # Some more than has to be, so that this is not done each time.
            for rowid, size in sizes:
                if total <= MOST * 3 // 4:
                    break
                connection.execute("DELETE FROM layer WHERE rowid = ?", (rowid,))
                total -= size
        self._size = total
