"""One libtorrent session on an event loop.

Alerts reach the loop through a socket, not through a callback. libtorrent calls the notify function while it holds
the lock of its alert queue; a Python function there waits for the interpreter's lock, whose owner may at that moment
be waiting for the queue. A byte written to a socket waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import libtorrent as lt

from ...config import Endpoint
from ...constants import Mode
from ...errors import BackendUnavailable, BTError
from ...messages import Candidate
from ...threads import in_thread, settle
from ..base import RateLimits, Swarm
from .door import Door
from .listening import Address, Listening
from .settings import RECONNECT, UTP_PATIENCE, one_class_for_all, rate_settings, session_settings
from .torrent import Torrent

log = logging.getLogger(__name__)

#: Seconds within which the engine has to answer what it answers in milliseconds.
PATIENCE = 10.0
#: For offers of which mode a kind of socket listens.
_MODES = {lt.socket_type_t.tcp: Mode.PRIVATE, lt.socket_type_t.tcp_ssl: Mode.SEALED}
#: Seconds between two looks at what moves, while a torrent runs.
BEAT = 0.25
#: And between two looks at who has not finished a handshake.
_DOOR_BEAT = 1.0


class Session:
    """Owns the engine. Made by :meth:`start`; every method is called on the loop on which that ran.

    :ivar handles: the seeds and downloads over it, which end with it.
    """

    def __init__(self, listen: Iterable[Endpoint]) -> None:
        self.listening = Listening(listen)
        self.changed: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._session: lt.session | None = None
        self.handles: weakref.WeakSet[Swarm] = weakref.WeakSet()
        self._by_hash: dict[bytes, Torrent] = {}
        self._by_handle: dict[int, Torrent] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._utp_until = 0.0  # when nobody is being dialled by uTP any more
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._handlers = self._table()

    @classmethod
    async def start(cls, listen: tuple[Endpoint, ...], rates: RateLimits, port_mapping: bool) -> Session:
        """Start the engine; returns when it listens.

        :raises BackendUnavailable: it cannot listen anywhere, or not for every mode.
        """
        self = cls(listen)
        try:
            await in_thread(self._open, session_settings(listen, rates, port_mapping))
        except BaseException:
            self._session = None
            self._close_sockets()
            raise
        self._loop.add_reader(self._bell, self._wake)
        self.engine.set_alert_fd(self._rope.fileno())
        self._wake()
        if not self.listening.complete:
            await self.aclose()
            raise BackendUnavailable(f"libtorrent cannot listen: {self.listening.failure}")
        self._keeper = self._loop.create_task(self._keep_the_door(), name="slixmpp_bt: libtorrent's door")
        return self

    def _open(self, settings: lt.settings_pack) -> None:
        """Start an engine without plugins but the one that bans who sends bad blocks; returns when it has tried to
        listen everywhere. Runs in a thread, and returns nothing: a future would keep the engine alive."""
        session = lt.session(settings, flags=0)
        session.add_extension("smart_ban")
        session.set_peer_class_filter(one_class_for_all())
        session.listen_port()  # answered after the sockets were opened
        self._session = session

    @property
    def engine(self) -> lt.session:
        """The session itself."""
        assert self._session is not None
        return self._session

    def set_rates(self, rates: RateLimits) -> None:
        """Change the caps of everything."""
        self.engine.apply_settings(rate_settings(rates))

    async def add(self, torrent: Torrent, params: lt.add_torrent_params) -> None:
        """Add `torrent`, paused; returns when the engine has looked at it.

        :raises BTError: one of that info-hash is there already, or the engine refuses it.
        """
        if torrent.info_hash in self._by_hash:
            raise BTError("this offer is already open in this backend")
        self._by_hash[torrent.info_hash] = torrent
        self.engine.async_add_torrent(params)
        try:
            await asyncio.wait_for(asyncio.shield(torrent.ready), PATIENCE)
        except TimeoutError:
            await self.remove(torrent)
            raise BackendUnavailable("libtorrent does not answer") from None
        except BaseException:
            await self.remove(torrent)
            raise

    async def remove(self, torrent: Torrent) -> None:
        """Remove `torrent`; returns when none of its files is open any more, or after half of `PATIENCE`."""
        torrent.abandon()
        try:
            await asyncio.wait_for(asyncio.shield(torrent.gone), PATIENCE / 2)
        except TimeoutError:
            log.warning("libtorrent did not let go of a torrent's files in time")

    def dial_now(self, action: Callable[[], None], *, utp: bool) -> None:
        """Run `action`, which makes the engine dial, with the time that has to pass between two attempts lifted.

        The engine carries out what it is told in order, so nothing else is dialled by that.

        :param utp: dial by uTP, and by TCP where that fails; else by TCP only.
        """
        if utp:
            self._utp_until = self._loop.time() + UTP_PATIENCE + 0.2
        self.engine.apply_settings({"min_reconnect_time": 0, "enable_outgoing_utp": utp})
        try:
            action()
        finally:
            self.engine.apply_settings({"min_reconnect_time": RECONNECT, "enable_outgoing_utp": False})

    def forget(self, addresses: Iterable[Address]) -> None:
        """Hang up on everybody at `addresses` and dial them no more, whoever of our torrents did.

        The engine has no other way to make it forget a peer than to block it for a moment; the other torrents' own
        candidates there are dialled again.
        """
        blocked = set(addresses)
        if not blocked:
            return
        wall = lt.ip_filter()
        for address in blocked:
            wall.add_rule(str(address), str(address), 1)
        self.engine.set_ip_filter(wall)
        self.engine.set_ip_filter(lt.ip_filter())
        for torrent in self._by_hash.values():
            torrent.redial(blocked)

    async def aclose(self) -> None:
        """Close every handle and end the engine. Idempotent."""
        if self._session is None:
            return
        await asyncio.gather(*(handle.aclose() for handle in tuple(self.handles)))
        session, self._session = self._session, None
        if session is None:  # another aclose() came first
            return
        for task in (self._watcher, self._keeper):
            if task is not None:
                task.cancel()
                await settle([task])
        self._loop.remove_reader(self._bell)
        session.set_alert_fd(-1)
        self._close_sockets()
        # The engine's end waits for a connection that is being made by uTP, and keeps the interpreter's lock meanwhile.
        await asyncio.sleep(max(0.0, self._utp_until - self._loop.time()))
        # The last reference: the engine's threads end here. With nothing left in it that takes a millisecond.
        del session

    def _close_sockets(self) -> None:
        self._bell.close()
        self._rope.close()

    def watch(self) -> None:
        """A torrent began to run: look at it from now on, until none does."""
        if self._watcher is None or self._watcher.done():
            self._watcher = self._loop.create_task(self._watch(), name="slixmpp_bt: libtorrent's figures")

    async def _watch(self) -> None:
        while any(torrent.running for torrent in self._by_hash.values()):
            await asyncio.sleep(BEAT)
            self.refresh()
            for torrent in [torrent for torrent in self._by_hash.values() if torrent.running]:
                torrent.listener.beat()
            for torrent in [torrent for torrent in self._by_hash.values() if torrent.dialling]:
                torrent.on_peers(await in_thread(torrent.list_peers))

    async def _keep_the_door(self) -> None:
        door = Door()
        try:
            while True:
                await asyncio.sleep(_DOOR_BEAT)
                connected = [c for torrent in self._by_hash.values() for c in torrent.connected.values()]
                members = {(str(c.address).partition("%")[0], c.port) for c in connected}
                gone = door.look(self.listening.ports(Mode.SEALED), members, self._loop.time())
                if gone:
                    log.info("hung up on %d who did not finish a handshake", gone)
        finally:
            door.close()

    def refresh(self) -> None:
        """Ask for the figures of every torrent that changed."""
        self.engine.post_torrent_updates(0)

    def _wake(self) -> None:
        try:
            while self._bell.recv(4096):
                pass
        except BlockingIOError:
            pass
        if self._session is None:
            return
        for alert in self._session.pop_alerts():
            handler = self._handlers.get(type(alert))
            if handler is None:
                continue
            try:
                handler(alert)
            except Exception:
                log.exception("the alert %s could not be handled", type(alert).__name__)

    def _table(self) -> dict[type[lt.alert], Callable[[Any], None]]:
        """What to do with each kind of alert; the others are of no interest."""
        table: dict[type[lt.alert], Callable[[Any], None]] = {
            lt.listen_succeeded_alert: self._on_listening,
            lt.listen_failed_alert: lambda alert: self.listening.failed(alert.message()),
            lt.external_ip_alert: self._on_external_address,
            lt.portmap_alert: self._on_mapped,
            lt.torrent_added_alert: self._on_added,
            lt.add_torrent_alert: self._on_outcome,
            lt.torrent_removed_alert: self._on_removed,
            lt.state_update_alert: self._on_figures,
            lt.alerts_dropped_alert: lambda alert: log.error("libtorrent dropped alerts: %s", alert.message()),
        }
        for kind, method in Torrent.HANDLERS.items():
            table[kind] = self._for_torrent(method)
        return table

    def _for_torrent(self, method: Callable[[Torrent, Any], None]) -> Callable[[Any], None]:
        def handle(alert: lt.torrent_alert) -> None:
            torrent = self._by_handle.get(hash(alert.handle))
            if torrent is not None:
                method(torrent, alert)

        return handle

    def _on_listening(self, alert: lt.listen_succeeded_alert) -> None:
        mode = _MODES.get(alert.socket_type)
        if mode is not None:
            self.listening.succeeded(mode, alert.address, alert.port)
            self.changed()

    def _on_external_address(self, alert: lt.external_ip_alert) -> None:
        address = self.listening.seen_as(alert.external_address)
        self.changed()
        for torrent in self._by_hash.values():
            torrent.listener.address_learnt(Candidate(address, self.listening.port(torrent.mode, address)))

    def _on_mapped(self, alert: lt.portmap_alert) -> None:
        if alert.map_protocol == lt.portmap_protocol.tcp:
            self.listening.mapped((alert.map_transport, alert.mapping), alert.external_port)
            self.changed()

    def _on_added(self, alert: lt.torrent_added_alert) -> None:
        torrent = self._by_hash.get(alert.handle.info_hashes().v2.to_bytes())
        if torrent is not None:
            self._by_handle[hash(alert.handle)] = torrent
            torrent.on_added(alert.handle)

    def _on_outcome(self, alert: lt.add_torrent_alert) -> None:
        # Of a torrent that was added this is not the first alert, so only failures are of interest.
        if alert.error.value():
            torrent = self._by_hash.pop(alert.params.info_hashes.v2.to_bytes(), None)
            if torrent is not None:
                torrent.on_refused(alert.error.message())

    def _on_removed(self, alert: lt.torrent_removed_alert) -> None:
        torrent = self._by_hash.pop(alert.info_hashes.v2.to_bytes(), None)
        if torrent is not None:
            self._by_handle = {key: other for key, other in self._by_handle.items() if other is not torrent}
            torrent.on_removed()

    def _on_figures(self, alert: lt.state_update_alert) -> None:
        for status in alert.status:
            torrent = self._by_handle.get(hash(status.handle))
            if torrent is not None:
                torrent.on_figures(status)
