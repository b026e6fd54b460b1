"""What survives a restart: one SQLite database for each account and instance.

Callers save records (:mod:`slixmpp_bt.state.records`) when things change, and load them when they start. A thread of
its own does the work, one thing after another, so nothing here blocks the event loop and nothing overtakes anything.

What is lost, and when: a process that is killed loses what it had not handed over yet; a power failure may also undo
the last seconds, but leaves whole transactions. A damaged database is set aside, and what can be read in it is taken
over. Whoever can write to the directory can do anything to this account's transfers; the file is its user's alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from slixmpp import JID

from ..errors import StateError
from ..sources import Stamp
from ._database import Database, Statement, deleting, file_name, saving
from ._layers import Layers
from ._tables import BY_RECORD
from .records import (
    R,
    Record,
    RouteBytes,
    SavedCheckpoint,
    SavedDelegation,
    SavedDetails,
    SavedDownload,
    SavedIncoming,
    SavedLayer,
    SavedLetter,
    SavedOffer,
    SavedPast,
    SavedReceiver,
    SavedSeed,
)

__all__ = [
    "Changes",
    "Record",
    "RouteBytes",
    "SavedCheckpoint",
    "SavedDelegation",
    "SavedDetails",
    "SavedDownload",
    "SavedIncoming",
    "SavedLayer",
    "SavedLetter",
    "SavedOffer",
    "SavedPast",
    "SavedReceiver",
    "SavedSeed",
    "State",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: So long closing may take, in seconds.
_PATIENCE = 10.0


class Changes:
    """What is to be saved and deleted together, in this order."""

    def __init__(self) -> None:
        self._parts: list[Callable[[], list[Statement]]] = []

    def save(self, *records: Record) -> None:
        """Keep `records`; each replaces the one with its key."""
        self._parts += [partial(_saving, record) for record in records]

    def delete(self, kind: type[Record], *key: str) -> None:
        """Forget the record of this kind with this key, and those that go with it; no effect if there is none."""
        self._parts.append(partial(deleting, BY_RECORD[kind], key))

    def statements(self) -> list[Statement]:
        """For the database.

        :raises StateError: a record or key holds what cannot be kept.
        """
        return [statement for part in self._parts for statement in part()]


class State:
    """What is kept for one account and instance. Made by :meth:`open`, or by :meth:`nothing`, which keeps nothing.

    Every method raises :class:`~slixmpp_bt.errors.StateError`, and nothing else, if the database cannot be read or
    written, or is closed. A write that fails (a full disk, say) is logged at the first time and tried again with what
    is saved next; what was to be saved is not. Cancelling a wait for any method leaves what it does to be done.
    """

    def __init__(self, database: Database | None) -> None:
        self._database = database
        self._layers = Layers()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slixmpp_bt-state")
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, directory: Path, account: JID, instance: str = "default") -> Self:
        """Open the database of `account` (its bare JID) and `instance` in `directory`, which is made if missing.

        A damaged database, or one of a newer version, is set aside under another name, and a log line says where.

        :raises StateError: another process or another plugin of this one holds it, or the disk does not let it be
            used. Then :meth:`nothing` goes on without.
        """
        database = Database(directory / file_name(account.bare, instance))
        state = cls(database)
        try:
            await state._do(Database.open, None)
        except BaseException:
            state._begin_to_close()
            raise
        return state

    @classmethod
    def nothing(cls) -> Self:
        """One that keeps nothing and knows nothing."""
        return cls(None)

    @property
    def path(self) -> Path | None:
        """The database; None if nothing is kept."""
        return self._database.path if self._database is not None else None

    def save(self, *records: Record) -> asyncio.Future[None]:
        """Keep `records`, all or none; each replaces the one with its key.

        They are on their way when this returns, ahead of all that is called later. Await it to know that they are
        kept: a process that is killed after that does not lose them.
        """
        changes = Changes()
        changes.save(*records)
        return self._write(changes)

    def delete(self, kind: type[Record], *key: str) -> asyncio.Future[None]:
        """Forget the record of this kind with this key, and those that go with it: an offer's details and receivers,
        a download's checkpoint. No effect if there is none. As with :meth:`save` one need not wait."""
        changes = Changes()
        changes.delete(kind, *key)
        return self._write(changes)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Changes]:
        """Save and delete together: all that was asked of the :class:`Changes` is done at the end, or nothing of it.

        An exception inside forgets the changes.
        """
        changes = Changes()
        yield changes
        await self._write(changes)

    async def load(self, kind: type[R]) -> list[R]:
        """All records of this kind, in the order in which they were first saved. What this version can make nothing of
        is left out, deleted and logged."""
        return await self._do(lambda database: database.load(BY_RECORD[kind]), [])

    async def find(self, kind: type[R], *key: str) -> R | None:
        """The record of this kind with this key; None if there is none."""
        return await self._do(lambda database: database.find(BY_RECORD[kind], key), None)

    async def cached_layers(
        self, files: Sequence[tuple[Path, Stamp]], piece_length: int
    ) -> list[tuple[bytes, bytes] | None]:
        """For each of `files`, as it looks now: its Merkle root, and its piece layer as it was cached; None for one
        that is not known, or looked otherwise then."""
        return await self._do(lambda database: self._layers.find(database, files, piece_length), [None for _ in files])

    def cache_layers(
        self, piece_length: int, files: Sequence[tuple[Path, Stamp, bytes, bytes]]
    ) -> asyncio.Future[None]:
        """Remember files' roots and layers; the oldest of all that are remembered go when it is too much."""
        layers = [SavedLayer(path, piece_length, stamp, root, layer) for path, stamp, root, layer in files]
        return self._post(lambda database: self._layers.add(database, layers), None)

    async def prune(self, now: float) -> None:
        """Forget what is too old at `now`: letters and past offers after their time."""
        late = [(f"DELETE FROM {name} WHERE [until] <= ?", (now,)) for name in ("letter", "past")]  # noqa: S608
        await self._do(lambda database: database.execute(late), None)

    async def aclose(self) -> None:
        """Finish what is on its way, and let go of the database; returns within some seconds. Idempotent.

        Cancelling it leaves the closing to end by itself.
        """
        if self._database is None:
            return
        done, _ = await asyncio.wait({self._begin_to_close()}, timeout=_PATIENCE)
        if not done:
            log.error("%s: the disk does not answer; closing is left to itself", self._database.path)
            self._database.interrupt()

    def _write(self, changes: Changes) -> asyncio.Future[None]:
        return self._post(partial(_keep, changes=changes), None)

    async def _do(self, job: Callable[[Database], T], otherwise: T) -> T:
        return await self._post(job, otherwise)

    def _post(self, job: Callable[[Database], T], otherwise: T) -> asyncio.Future[T]:
        """Have the thread do `job`, whoever waits for it or not; `otherwise` is the result where nothing is kept."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if self._database is None:
            result.set_result(otherwise)
        elif self._closing is not None:
            result.set_exception(StateError(f"{self._database.path} is closed"))
        else:
            work = loop.run_in_executor(self._pool, job, self._database)
            work.add_done_callback(_seen)
            result = asyncio.shield(work)
        result.add_done_callback(_seen)
        return result

    def _begin_to_close(self) -> asyncio.Future[None]:
        if self._closing is None:
            assert self._database is not None
            self._closing = asyncio.get_running_loop().run_in_executor(self._pool, self._database.close)
            self._pool.shutdown(wait=False)
        return self._closing


def _saving(record: Record) -> list[Statement]:
    return [saving(record)]


def _keep(database: Database, changes: Changes) -> None:
    try:
        statements = changes.statements()
    except StateError as error:
        log.error("%s: %s", database.path, error)
        raise
    database.execute(statements)


def _seen(future: asyncio.Future[Any]) -> None:
    """Nobody has to wait for a write: that one failed is in the log."""
    if not future.cancelled() and (error := future.exception()) is not None and not isinstance(error, StateError):
        log.error("the state database failed", exc_info=error)
