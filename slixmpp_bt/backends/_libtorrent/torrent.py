"""One torrent of a session: dialling, flushing, and what its alerts mean. Knows nothing of seeds and downloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import libtorrent as lt

from ...constants import Mode
from ...errors import BackendClosed, BTError, StorageError
from ...messages import Candidate
from .._store import storage_error
from .listening import Address
from .refusals import by_tls, refusal
from .settings import DH_PARAMETERS
from .waiting import answer, fail, within

if TYPE_CHECKING:
    from .session import Session

Endpoint = tuple[str, int]

#: The flag for ``connect_peer`` by which a peer counts as reachable by uTP, even after that failed.
_SUPPORTS_UTP = 4
#: Seconds between two attempts to reach by uTP, through routers that let no TCP in, whom TCP does not reach.
_UTP_PAUSE = 15.0
#: Seconds after which a flush counts as failed: a slow disk may have hundreds of MiB to write.
_FLUSH_PATIENCE = 120.0
#: Seconds that :meth:`Torrent.pause` waits for the engine to have hung up.
_PAUSE_PATIENCE = 5.0


class Listener(Protocol):
    """Who is told what happens to a torrent."""

    def piece_verified(self, piece: int) -> None:
        """The engine verified a piece, and hands it to the disk."""

    def piece_failed(self, piece: int) -> None:
        """A piece was not what it should be."""

    def storage_failed(self, error: StorageError) -> None:
        """A file could not be read or written; the engine stopped the torrent. Called many times for one failure."""

    def peer_connected(self, candidate: Candidate) -> None:
        """A peer finished its handshake."""

    def peer_refused(self, candidate: Candidate, reason: str) -> None:
        """A peer could not be reached or hung up."""

    def address_learnt(self, candidate: Candidate) -> None:
        """Peers told us how they see us."""

    def beat(self) -> None:
        """Some time has passed; comes again and again while the torrent runs."""

    def availability_known(self, peers: Sequence[int]) -> None:
        """How many of the peers have each piece; answers :meth:`Torrent.ask_availability`."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Payload bytes, and bytes per second."""

    uploaded: int = 0
    downloaded: int = 0
    upload_rate: float = 0.0
    download_rate: float = 0.0


class Torrent:
    """A torrent from its adding to its end. It begins paused, and a sealed one without a certificate.

    :ivar mode: of its offer.
    :ivar ready: done when the engine has added and looked at it, or with the error for which it did not.
    :ivar gone: done when it is removed and its files are closed.
    :ivar running: whether it may connect to peers.
    :ivar figures: the latest known.
    :ivar connected: whoever finished a handshake and did not hang up.
    :ivar dialling: candidates of whom neither success nor failure is known yet.
    """

    def __init__(self, session: Session, info_hash: bytes, mode: Mode, listener: Listener, *, seeding: bool) -> None:
        loop = asyncio.get_running_loop()
        self.mode = mode
        self.info_hash = info_hash
        self.listener = listener
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.running = False
        self.figures = Figures()
        self._counted = self._before = 0, 0  # bytes up and down: by the engine, and when it last began anew
        self.connected: dict[Endpoint, Candidate] = {}
        self.dialling: set[Endpoint] = set()
        self._session = session
        self._seeding = seeding
        self._handle: lt.torrent_handle | None = None
        self._abandoned = False
        self._candidates: dict[Endpoint, Candidate] = {}
        self._refused: dict[Endpoint, str] = {}
        self._next_utp = 0.0
        self._flushing = asyncio.Lock()
        self._flushes: list[asyncio.Future[None]] = []
        self._pauses: list[asyncio.Future[None]] = []
        self._resume_data: list[asyncio.Future[Any]] = []

    @property
    def handle(self) -> lt.torrent_handle:
        """The engine's handle.

        :raises BackendClosed: it is removed, or about to be.
        """
        if self._handle is None or self._abandoned:
            raise BackendClosed("the torrent is closed")
        return self._handle

    # What is asked of it

    def abandon(self) -> None:
        """Have the engine remove it, as soon as it is added. Idempotent."""
        self.running = False
        if not self._abandoned:
            self._abandoned = True
            if self._handle is not None:
                self._session.engine.remove_torrent(self._handle)

    def admit(self, certificate: bytes, key: bytes) -> None:
        """Use this certificate (PEM) for every connection to come; dial again with it if nobody took the last one."""
        self.handle.set_ssl_certificate_buffer(certificate.decode("ascii"), key.decode("ascii"), DH_PARAMETERS)
        if self.running and not self.connected:
            self._dial(self._candidates)

    def resume(self) -> None:
        """Connect to peers, and dial every candidate at once."""
        self.running = True
        self.handle.resume()
        self._dial(self._candidates)
        self._session.watch()

    def reconnect(self) -> None:
        """Hang up on everybody and dial again."""
        self.handle.pause()
        self.resume()

    async def pause(self) -> None:
        """Hang up; returns when that is done and all that was received is handed to the disk."""
        if self.running:
            self.running = False
            paused = self._expect(self._pauses)
            self.handle.pause()
            await within(paused, _PAUSE_PATIENCE)

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Dial these from now on, at once if it is running."""
        new = {(str(candidate.address), candidate.port): candidate for candidate in candidates}
        self._candidates.update(new)
        if self.running:
            self._dial(new)

    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Dial these no more, and hang up on whoever is at their addresses."""
        gone = [self._candidates.pop((str(c.address), c.port), None) for c in candidates]
        self._session.forget({candidate.address for candidate in gone if candidate is not None})

    def redial(self, addresses: set[Address]) -> None:
        """Dial those of its candidates again that are at one of `addresses`."""
        ours = {endpoint: c for endpoint, c in self._candidates.items() if c.address in addresses}
        if self.running and ours:
            self._dial(ours)

    def list_peers(self) -> list[Endpoint]:
        """Who finished a handshake. Blocks until the engine has a moment."""
        unfinished = lt.peer_info.connecting | lt.peer_info.handshake
        try:
            return [peer.ip for peer in self.handle.get_peer_info() if not peer.flags & unfinished]
        except (BackendClosed, RuntimeError):  # removed meanwhile
            return []

    def add_piece(self, piece: int, data: bytes, piece_length: int) -> None:
        """Store a piece. Copies it, at some 2 ms a MiB.

        The last piece of a file was taken with its padding up to libtorrent 2.0.11, and is taken without it since; what
        has not the expected size is ignored, so it is given both ways.
        """
        self.handle.add_piece(piece, data, lt.add_piece_flags_t.overwrite_existing)
        if len(data) < piece_length:
            padded = data.ljust(piece_length, b"\0")
            self.handle.add_piece(piece, padded, lt.add_piece_flags_t.overwrite_existing)

    async def flush(self) -> None:
        """Hand everything that was verified before this call to the operating system.

        The engine also flushes by itself, and its alert does not say which flush it answers. So this asks twice: the
        second answer is not older than the first question.

        :raises StorageError: it takes minutes.
        """
        async with self._flushing:
            flushed = [self._expect(self._flushes), self._expect(self._flushes)]
            self.handle.flush_cache()
            self.handle.flush_cache()
            for future in flushed:
                if not await within(future, _FLUSH_PATIENCE):
                    raise StorageError("the disk does not answer")

    def ask_availability(self) -> None:
        """Have the listener told how many peers have each piece."""
        self.handle.post_piece_availability()

    async def resume_data(self) -> bytes | None:
        """What the engine knows of the torrent, Merkle trees included, bencoded; None if it does not tell."""
        data = self._expect(self._resume_data)
        self.handle.save_resume_data()
        return data.result() if await within(data, _FLUSH_PATIENCE) else None

    def _dial(self, candidates: Iterable[Endpoint], *, utp: bool = False) -> None:
        """Dial now. A running torrent dials at the session's next beat, up to a second later, but one that is resumed
        at once: so, while nobody is connected, it is paused and resumed, which breaks nothing then."""
        handle, endpoints = self.handle, list(candidates)
        if not endpoints:
            return

        def action() -> None:
            for endpoint in endpoints:
                handle.connect_peer(endpoint, 0, _SUPPORTS_UTP)
            if not self.connected:
                handle.pause(lt.torrent_handle.graceful_pause)
                handle.resume()

        self._session.dial_now(action, utp=utp)

    def _dial_by_utp(self) -> None:
        """Nobody could be reached by TCP: try the other way, now and then."""
        now = asyncio.get_running_loop().time()
        if self.running and not self.connected and not self.dialling and now >= self._next_utp:
            self._next_utp = now + _UTP_PAUSE
            self._dial(self._candidates, utp=True)

    def _expect(self, queue: list[asyncio.Future[Any]]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        queue.append(future)
        return future

    # What the session tells it

    def on_added(self, handle: lt.torrent_handle) -> None:
        """The engine took it."""
        self._handle = handle
        if self._abandoned:
            self._session.engine.remove_torrent(handle)

    def on_refused(self, reason: str) -> None:
        """The engine did not take it."""
        self._abandoned = True
        fail(self.ready, BTError(f"libtorrent refuses the offer: {reason}"))
        self.on_removed()

    def on_removed(self) -> None:
        """It is removed, and its files are closed."""
        fail(self.ready, BackendClosed("the torrent is closed"))
        answer(self.gone)
        for queue in (self._flushes, self._pauses, self._resume_data):
            for future in queue:
                fail(future, BackendClosed("the torrent is closed"))
            queue.clear()

    def on_peers(self, endpoints: Iterable[Endpoint]) -> None:
        """These have finished a handshake."""
        for endpoint in endpoints:
            if endpoint in self.dialling:
                self._connected(endpoint)

    def on_figures(self, status: lt.torrent_status) -> None:
        """The latest figures."""
        counted = status.total_payload_upload, status.total_payload_download
        if any(new < old for new, old in zip(counted, self._counted, strict=True)):
            # The engine counts anew from a pause on. Its other count, of all times, is a second late.
            self._before = self.figures.uploaded, self.figures.downloaded
        self._counted = counted
        self.figures = Figures(
            self._before[0] + counted[0],
            self._before[1] + counted[1],
            status.upload_payload_rate,
            status.download_payload_rate,
        )

    # What its alerts mean

    def _on_checked(self, _: lt.torrent_checked_alert) -> None:
        answer(self.ready)

    def _on_state(self, alert: lt.state_changed_alert) -> None:
        # A seed that does not find what it serves reads everything again, and then wants to fetch what is wrong.
        states = lt.torrent_status.states
        if self._seeding and self.ready.done() and alert.state not in (states.seeding, states.finished):
            self.listener.storage_failed(StorageError("a file that is served is not what it was"))

    def _on_piece(self, alert: lt.piece_finished_alert) -> None:
        self.listener.piece_verified(alert.piece_index)

    def _on_availability(self, alert: lt.piece_availability_alert) -> None:
        self.listener.availability_known(alert.piece_availability)

    def _on_bad_piece(self, alert: lt.hash_failed_alert) -> None:
        self.listener.piece_failed(alert.piece_index)

    def _on_file_error(self, alert: lt.file_error_alert) -> None:
        code = alert.error.value() if alert.error.category().name() in ("system", "generic") else None
        self._broke(storage_error(alert.filename(), code, alert.error.message()))

    def _on_error(self, alert: lt.torrent_error_alert) -> None:
        self._broke(StorageError(alert.error.message()))

    def _broke(self, error: StorageError) -> None:
        fail(self.ready, error)
        self.running = False
        self.listener.storage_failed(error)

    def _on_flushed(self, _: lt.cache_flushed_alert) -> None:
        if self._flushes:
            answer(self._flushes.pop(0))

    def _on_paused(self, _: lt.torrent_paused_alert) -> None:
        while self._pauses:
            answer(self._pauses.pop())

    def _on_resume_data(self, alert: lt.save_resume_data_alert) -> None:
        if self._resume_data:
            answer(self._resume_data.pop(0), lt.write_resume_data_buf(alert.params))  # which die with the alert

    def _on_no_resume_data(self, _: lt.save_resume_data_failed_alert) -> None:
        if self._resume_data:
            answer(self._resume_data.pop(0))

    def _on_connection(self, alert: lt.peer_connect_alert) -> None:
        # For one that we dial this comes before the handshake, and no alert comes after it.
        if alert.endpoint in self._candidates:
            self.dialling.add(alert.endpoint)
        else:
            self._connected(alert.endpoint)

    def _connected(self, endpoint: Endpoint) -> None:
        self.dialling.discard(endpoint)
        if endpoint not in self.connected:
            self.connected[endpoint] = candidate = _candidate(endpoint)
            self._refused.pop(endpoint, None)
            self.listener.peer_connected(candidate)

    def _on_disconnection(self, alert: lt.peer_disconnected_alert) -> None:
        endpoint = alert.endpoint
        if endpoint in self._candidates and not alert.pid.is_all_zeros():
            self._connected(endpoint)  # it may have come and gone between two looks
        self.dialling.discard(endpoint)
        was_connected = self.connected.pop(endpoint, None) is not None
        ours = endpoint in self._candidates
        if self._abandoned or not (ours or was_connected):
            return
        if ours and alert.op == lt.operation_t.connect and not by_tls(alert.error):
            self._dial_by_utp()
        reason = refusal(alert.error, was_connected)
        if reason is not None and self._refused.get(endpoint) != reason:
            if ours:
                self._refused[endpoint] = reason
            self.listener.peer_refused(_candidate(endpoint), reason)

    #: Which method takes which alert.
    HANDLERS: ClassVar[dict[type[lt.alert], Callable[[Torrent, Any], None]]] = {
        lt.torrent_checked_alert: _on_checked,
        lt.state_changed_alert: _on_state,
        lt.piece_finished_alert: _on_piece,
        lt.hash_failed_alert: _on_bad_piece,
        lt.piece_availability_alert: _on_availability,
        lt.file_error_alert: _on_file_error,
        lt.torrent_error_alert: _on_error,
        lt.cache_flushed_alert: _on_flushed,
        lt.torrent_paused_alert: _on_paused,
        lt.save_resume_data_alert: _on_resume_data,
        lt.save_resume_data_failed_alert: _on_no_resume_data,
        lt.peer_connect_alert: _on_connection,
        lt.peer_disconnected_alert: _on_disconnection,
    }


def _candidate(endpoint: Endpoint) -> Candidate:
    return Candidate(ip_address(endpoint[0]), endpoint[1])
