"""The contract between the library and an engine that moves pieces between peers.

A third party implements :class:`Backend`, :class:`Seed` and :class:`Download` and hands a factory to the plugin
(``{"backend": MyBackend}``); :mod:`slixmpp_bt.testing.conformance` checks it. All methods are called on the event
loop and must not block it. No type or exception of the engine may leave the backend: what goes wrong is a
:class:`~slixmpp_bt.errors.BTError`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ..config import Endpoint
from ..constants import Mode
from ..errors import StorageError
from ..manifest import Manifest
from ..messages import Candidate, Share
from .admission import Admission


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Bytes per second over everything a backend does, peers on the local network included; None is no limit."""

    upload: int | None = None
    download: int | None = None


#: No caps.
UNLIMITED = RateLimits()


@dataclass(frozen=True, slots=True)
class PieceStored:
    """A piece passed verification and was handed to the disk; it counts as had only after a flush."""

    piece: int


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer is connected at the BitTorrent level. Inbound peers show an ephemeral port."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """A peer could not be reached, hung up or was turned away; `reason` is in words a user understands.

    That includes a candidate that did not take this side's certificate, or whose certificate this side did not take.
    Who dials this side in vain may be left unmentioned: nobody knows which offer it meant.

    A candidate that is dialled again and again is reported again only when the reason changes.
    """

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Every selected piece of a download passed verification; it may not be flushed yet.

    Comes at opening too, if nothing was missing then.
    """


@dataclass(frozen=True, slots=True)
class StorageFailed:
    """Reading or writing failed, or a file that is served is not what it was. The handle has hung up and moves no more
    pieces until :meth:`Swarm.resume`; what was not flushed is not had any more."""

    error: StorageError


@dataclass(frozen=True, slots=True)
class AddressLearnt:
    """What other peers say this side's address is. `Candidate.port` is the port listened on."""

    candidate: Candidate


#: So many events of an :class:`EventStream` wait to be read before those of peers are dropped.
MAX_UNREAD = 1_000

Event = PieceStored | PeerConnected | PeerRefused | Finished | StorageFailed | AddressLearnt


@dataclass(frozen=True, slots=True)
class Status:
    """A moment of a seed or download: payload bytes, bytes per second, and the peers that finished a handshake.

    :ivar uploaded: to all peers since the handle was opened.
    :ivar downloaded: from all peers since the handle was opened, what was thrown away included.
    :ivar verified: bytes of the pieces that are had, by whatever route they came; of a seed, all.
    :ivar connected: inbound ones with the ephemeral port from which they came.
    """

    uploaded: int = 0
    downloaded: int = 0
    verified: int = 0
    upload_rate: float = 0.0
    download_rate: float = 0.0
    peers: int = 0
    connected: tuple[Candidate, ...] = field(default=())


class EventStream:
    """An ordered stream of events for one consumer: ``async for event in handle.events``.

    Ends after :meth:`close`. Cancelling the consumer loses nothing. While :data:`MAX_UNREAD` events are unread, those
    of peers are dropped: a peer makes as many of them as it likes.
    """

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Append `event`; after :meth:`close` it is dropped."""
        if self._closed or (len(self._queue) >= MAX_UNREAD and isinstance(event, PeerConnected | PeerRefused)):
            return
        self._queue.append(event)
        self._wake.set()

    def close(self) -> None:
        """End the stream after what is in it. Idempotent."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class Swarm(ABC):
    """What a seed and a download have in common. Every method but :meth:`aclose` raises
    :class:`~slixmpp_bt.errors.BackendClosed` after the end.

    In a mode in which its backend cannot swarm, a handle has no peers and candidates mean nothing to it; all else
    works. In ``sealed`` mode it dials nobody, and nobody can dial it, before it has a certificate.
    """

    #: What happens, in order; it ends when the handle is closed.
    events: EventStream

    @abstractmethod
    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Dial these, at once, and again later while they are not connected. Known ones are dialled again."""

    @abstractmethod
    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Forget these and hang up on them, as far as a connection can be told to be theirs (others at the same address
        may be hung up on too, and are dialled again). Unknown ones are ignored."""

    @abstractmethod
    async def admit(self, admission: Admission) -> None:
        """Give or renew the certificate of a sealed offer, and dial every candidate at once, unless paused or while
        somebody is connected. In ``private`` mode it does nothing.

        Connections that are there stay, whatever becomes of the certificates by which they were made: they outlast
        the end of either's validity. To hang up on those whose time is over, :meth:`pause` and :meth:`resume`.

        :raises ValueError: `admission` is of another mode, has no certificate, or one that its key does not fit.
        """

    @abstractmethod
    async def pause(self) -> None:
        """Move no more pieces and hang up, until :meth:`resume`. Idempotent."""

    @abstractmethod
    async def resume(self) -> None:
        """Go on after :meth:`pause` or :class:`StorageFailed`, and dial every candidate at once. Idempotent.

        :raises StorageError: the files still cannot be used.
        """

    @abstractmethod
    def status(self) -> Status:
        """The latest known moment, never older than a second while pieces move. Does not block."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop, release every file and end :attr:`events`. Idempotent; ends within 5 s; keeps all files.

        Cancelling it may leave files open until the backend is closed.
        """


class Seed(Swarm):
    """Gives away pieces of files that are complete."""


class Download(Swarm):
    """Fetches pieces into part files."""

    @abstractmethod
    def have(self) -> frozenset[int]:
        """The pieces that were verified and stored, flushed or not, by whatever route."""

    @abstractmethod
    def claim(self, pieces: Iterable[int]) -> None:
        """Another route is fetching these: the swarm does not ask for them until they are released. What it had asked
        for already may still come. Pieces that are had or not wanted are ignored. Claims are not counted, so there is
        one claimant at a time."""

    @abstractmethod
    def release(self, pieces: Iterable[int]) -> None:
        """The other route gave these up: the swarm may fetch them again."""

    def prefer(self, share: Share) -> None:
        """Of the pieces that are missing, ask for those of `share` first, and for others when some other receiver has
        them, or nothing else is left to ask for (:class:`slixmpp_bt.shares.Turns`). It replaces the share given before;
        ``Share(0, 1)`` is everything. It never keeps a piece from being fetched that this side could have.

        A hint: a backend need not follow it, and this one does nothing.
        """
        self.status()  # raises if this was closed

    @abstractmethod
    async def learn(self, manifest: Manifest) -> None:
        """Take the piece layers of `manifest`, which is the one given at opening but
        :attr:`~slixmpp_bt.manifest.Manifest.verifiable`. Needed before :meth:`write` if that one was not. Idempotent;
        may hang up on peers for a moment.

        :raises ValueError: it is another manifest, or not verifiable either.
        :raises StorageError: the files cannot be used.
        """

    @abstractmethod
    async def layers(self) -> Mapping[bytes, bytes]:
        """The piece layers, as in :attr:`Manifest.layers`, whoever told them; empty while they are not all known."""

    @abstractmethod
    async def write(self, piece: int, data: bytes) -> None:
        """Store a piece that :meth:`Manifest.verify` approved; had when it returns. A piece already had is ignored.

        Cancelling it may store the piece or not.

        :raises StorageError: the disk is full or failing; :meth:`resume` before the next try.
        :raises ValueError: `data` is of a wrong size, the piece is of a file that was not selected, or the piece layers
            are not known (:meth:`learn`).
        """

    @abstractmethod
    async def checkpoint(self) -> bytes:
        """Hand everything to the operating system, and return what :meth:`Backend.open_download` needs to go on from
        here without fetching or hashing again what was had. It survives the end of the process, however that comes.

        Made by :func:`slixmpp_bt.backends.checkpoint.encode`, with the piece layers as far as they are known.

        :raises StorageError: the flush failed; :meth:`resume` before the next try.
        """

    @abstractmethod
    async def finished(self) -> bool:
        """Whether every selected byte is verified and on the disk itself; flushes if that is what is missing.

        :raises StorageError: the flush failed; :meth:`resume` before the next try.
        """

    @abstractmethod
    async def publish(self, files: Mapping[int, Path]) -> Seed:
        """Go on as a seed under the final names, without hashing everything again; this handle is closed by it.

        The caller has already put the content under the final names (hard links to the part files) and removes the
        part names afterwards. `files` maps the index in ``manifest.files`` to the path, of the selected files at least.
        The seed has this one's candidates, and dials them at once if this one was not paused; whoever was connected is
        hung up on for that moment.

        :raises BTError: it is not :meth:`finished`.
        :raises StorageError: a final file is missing or has the wrong size; this handle is closed all the same.
        """


class Backend(ABC):
    """An engine, owned by one plugin.

    :param listen: where to listen; port 0 is any port. A backend that needs a port for each mode takes this one for
        ``sealed`` offers, and any for ``private`` ones: who forwards one port by hand forwards it for the default.
    :param rates: the caps that :meth:`set_limits` changes.
    :param port_mapping: whether UPnP and NAT-PMP may be used.

    Making one does nothing; the engine starts with the first seed, download or :meth:`candidates`. After
    :meth:`aclose` every other method raises :class:`~slixmpp_bt.errors.BackendClosed`.
    """

    #: The modes in which it can swarm; empty for a backend that only stores.
    modes: frozenset[Mode] = frozenset()

    def __init__(
        self, listen: tuple[Endpoint, ...], rates: RateLimits = UNLIMITED, *, port_mapping: bool = False
    ) -> None:
        self.listen = listen
        self.rates = rates
        self.port_mapping = port_mapping

    @abstractmethod
    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        """Where this side can be dialled for offers of `mode`: the addresses of the interfaces listened on, at most
        :data:`~slixmpp_bt.messages.MAX_CANDIDATES`, IPv6 first. Empty if the backend cannot swarm in that mode.

        Waits until the engine listens.

        :raises BackendUnavailable: the engine is not installed, or cannot listen; the message says why.
        """

    @abstractmethod
    def on_candidates_changed(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop whenever :meth:`candidates` would answer something else than it did."""

    @abstractmethod
    async def open_seed(self, manifest: Manifest, files: Mapping[int, Path], admission: Admission) -> Seed:
        """Serve complete files. `files` maps the index in ``manifest.files`` to the path.

        Sizes are looked at, content is not read until a peer asks for it, and nothing is ever written.

        :raises StorageError: a file is missing or has the wrong size.
        :raises ValueError: `manifest` is not :attr:`~slixmpp_bt.manifest.Manifest.verifiable`.
        :raises ValueError: `admission` is not for it, as ``admission.check(manifest)`` says.
        :raises ProtocolError: it has no certificate authority where one should be.
        :raises BTError: the offer is open already.
        :raises BackendUnavailable: as :meth:`candidates`.
        """

    @abstractmethod
    async def open_download(
        self,
        manifest: Manifest,
        files: Mapping[int, Path],
        admission: Admission,
        *,
        checkpoint: bytes | None = None,
        select: frozenset[int] | None = None,
    ) -> Download:
        """Fetch into `files` (part files; their directories exist).

        :param checkpoint: what an earlier :meth:`Download.checkpoint` returned. What a file has become too short for is
            fetched again; one that cannot be read, or is of another offer, counts as none.
        :param select: the indices of the wanted files; None for all. `files` has at least these; no other is touched.
        :raises StorageError: the files cannot be written to.
        :raises ValueError: `admission` is not for `manifest`, as ``admission.check(manifest)`` says.
        :raises ProtocolError: it has no certificate authority where one should be.
        :raises BTError: the offer is open already.
        :raises BackendUnavailable: as :meth:`candidates`.
        """

    @abstractmethod
    async def set_limits(self, rates: RateLimits) -> None:
        """Change the caps of everything open and to come."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every handle and the engine; keep part files. Idempotent; ends within 5 s; no file, socket or thread of
        the engine is left."""
