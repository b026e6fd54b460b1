"""The server: one listening socket for clients, one for components, and what is behind them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from weakref import WeakSet
from xml.etree.ElementTree import Element

from slixmpp import JID, BaseXMPP, ClientXMPP, ComponentXMPP

from .accounts import Account, Session
from .c2s import ClientStream
from .caps import Capabilities
from .certificates import make_certificates
from .clients import connect, trust
from .components import ComponentHost, ComponentStream
from .disco import Disco
from .domain import Domain
from .faults import Faults
from .listening import Listener
from .markup import StreamError
from .muc import Rooms
from .muc_room import RoomConfig
from .pep import Pep
from .proxy65 import Proxy
from .routing import Router
from .sasl import Credentials
from .streams import Front, StreamPolicy
from .traffic import Tap, Traffic

Client = TypeVar("Client", bound=ClientXMPP)
Component = TypeVar("Component", bound=ComponentXMPP)
XMPP = TypeVar("XMPP", bound=BaseXMPP)

#: How long :meth:`LoopbackServer.connect` and its kin wait, in seconds.
TIMEOUT = 20.0


class LoopbackServer:
    """An XMPP server in this process, for tests, on a loopback address only.

    :param domain: the domain of its users; ``conference.`` before it is a service for rooms.
    :param users: names and passwords.
    :param components: domains of external components (XEP-0114) and their secrets.
    :param tls: require STARTTLS, with a certificate made for the occasion; False offers none.
    :param max_stanza: the largest stanza, in bytes; a larger one ends the stream, as with other servers.
    :param rate: how fast a session is read, in bytes per second; None for no limit.
    :param burst: how many bytes may come at once before `rate` counts; a second's worth if None.
    :param announce_limits: tell clients of `max_stanza` (XEP-0478).
    :param proxy: offer a proxy for bytestreams (XEP-0065), ``proxy.`` before the domain, on a port of its own.
    :param pep_items: how many items a PEP node may have; what is beyond pushes out the oldest.
    :param host: a loopback address.
    :param port: where clients connect; 0 for any.
    :raises ValueError: `host` is not a loopback address, a limit is not positive, or a name is not part of a JID.

    As an async context manager it starts and, at the end, leaves no task, socket or file. Clients that are still
    connected then are disconnected.
    """

    def __init__(
        self,
        domain: str = "localhost",
        users: Mapping[str, str] | None = None,
        components: Mapping[str, str] | None = None,
        *,
        tls: bool = True,
        max_stanza: int = 262_144,
        rate: float | None = None,
        burst: float | None = None,
        announce_limits: bool = False,
        proxy: bool = False,
        pep_items: int = 10_000,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not ip_address(host).is_loopback:
            raise ValueError(f"{host} is not a loopback address; this server is for tests only")
        if max_stanza < 1 or pep_items < 1 or (rate is not None and rate <= 0) or (burst is not None and burst < 1):
            raise ValueError("limits are positive, or None")
        self.domain = JID(domain).domain
        self.host = host
        #: Where clients connect; known once it has started.
        self.port = port
        #: Where components connect; known once it has started.
        self.component_port = 0
        #: The PEM file to trust; None without TLS and before the first start.
        self.ca_certs: Path | None = None
        #: What was sent, in numbers.
        self.traffic = Traffic()
        #: What shall go wrong.
        self.faults = Faults()
        self._tls = tls
        self._policy = (max_stanza, rate, burst, announce_limits)
        self._context: ssl.SSLContext | None = None
        self._directory: TemporaryDirectory[str] | None = None
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._bound: dict[str, ClientStream] = {}
        self._clients: WeakSet[BaseXMPP] = WeakSet()
        self._router = Router()
        self._domain = Domain(self.domain, self._router)
        disco = Disco(self._domain)
        Pep(self._domain, disco, Capabilities(self._domain), pep_items)
        self._rooms = Rooms(f"conference.{self.domain}", self._router)
        self._components = {
            JID(name).domain: ComponentHost(name, secret) for name, secret in (components or {}).items()
        }
        self._router.hosts.update(self._components)
        self._proxy = Proxy(f"proxy.{self.domain}", self._router) if proxy else None
        for name, password in (users or {}).items():
            self.add_user(name, password)

    # Life

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen. After :meth:`stop` on the same ports as before, with everything that was remembered.

        :raises OSError: the port is taken.
        """
        if self._listeners:
            return
        if self._tls and self._context is None:
            self._directory = TemporaryDirectory(prefix="loopback-xmpp-")
            names = [self.domain, *(name for name in self._router.hosts if name != self.domain)]
            self.ca_certs, self._context = await asyncio.to_thread(make_certificates, Path(self._directory.name), names)
        max_stanza, rate, burst, announce = self._policy
        policy = StreamPolicy(max_stanza, rate, burst, self._context, announce)
        front = Front(policy, self.traffic, self._tasks, self._accept)
        clients = Listener(lambda: ClientStream(front, self._domain, self._bound))
        components = Listener(lambda: ComponentStream(front, self.domain, self._components))
        self._listeners = [clients, components]
        try:
            self.port = await clients.open(self.host, self.port)
            self.component_port = await components.open(self.host, self.component_port)
            if self._proxy is not None:
                self._listeners.append(self._proxy.listener)
                await self._proxy.open(self.host)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End all streams and stop listening, as a server does that is shut down. Done within a few seconds.

        Accounts, rosters, kept messages and published items stay for the next :meth:`start`. Cancelling it drops the
        connections.
        """
        listeners, self._listeners = self._listeners, []
        shutdown = StreamError("system-shutdown")
        await asyncio.gather(*(listener.close(shutdown) for listener in listeners))
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self._rooms.empty()

    async def aclose(self) -> None:
        """Disconnect, stop, end all faults, delete the certificates. May be called twice."""
        self.faults.clear()
        clients = list(self._clients)
        try:
            await asyncio.gather(*(client.disconnect(wait=1.0) for client in clients if client.is_connected()))
            await self.stop()
        finally:
            for client in clients:
                client.cancel_connection_attempt()
            if self._directory is not None:
                self._directory.cleanup()
            self._directory, self._context, self.ca_certs = None, None, None

    # Users

    def add_user(self, name: str, password: str) -> None:
        """A new account, or a new password for an old one.

        :raises ValueError: `name` cannot be the local part of a JID.
        """
        address = JID(f"{name}@{self.domain}")
        credentials = Credentials(address.local, password)
        account = self._domain.accounts.setdefault(address.bare, Account(address.bare, credentials))
        account.credentials = credentials

    def subscribe(self, one: str, other: str) -> None:
        """Let two users see each other's presence, as if both had asked and agreed.

        :raises LookupError: there is no such user.
        """
        self._domain.rosters.befriend(self._account(one), self._account(other))

    def kick(self, address: str) -> None:
        """Drop the connection of a resource, or of a component, without a word.

        :raises LookupError: it is not connected.
        """
        component = self._components.get(address)
        stream = component.stream if component is not None else self._bound.get(self._address(address).full)
        if stream is None:
            raise LookupError(f"{address} is not connected")
        stream.abort()

    def tap(self, callback: Tap) -> Callable[[], None]:
        """Let `callback` see, as ``callback(from, to, xml)``, each stanza that a client or component sends.

        :returns: a function that ends it.
        """
        return self.traffic.tap(callback)

    def create_room(
        self,
        name: str,
        *,
        anonymous: bool = True,
        members_only: bool = False,
        password: str = "",
        owner: str | None = None,
        moderated: bool = False,
        occupant_ids: bool = True,
    ) -> str:
        """A persistent room; without this, a room is made by whoever first enters it, and ends when empty.

        :param anonymous: real JIDs are shown to moderators only.
        :param owner: a user.
        :param moderated: who is neither owner nor member may only listen.
        :param occupant_ids: the room gives them (XEP-0421).
        :returns: the room's JID.
        :raises ValueError: there is one of that name.
        """
        address = JID(f"{name}@{self._rooms.name}").bare
        if address in self._rooms.rooms:
            raise ValueError(f"there is a room {address}")
        config = RoomConfig(name, anonymous, True, members_only, password, moderated, occupant_ids)
        self._rooms.create(address, config, self._account(owner).jid if owner is not None else None)
        return address

    # Clients

    @overload
    def client(self, address: str, **kwargs: Any) -> ClientXMPP: ...

    @overload
    def client(self, address: str, cls: Callable[..., Client], **kwargs: Any) -> Client: ...

    def client(self, address: str, cls: Callable[..., Any] = ClientXMPP, **kwargs: Any) -> Any:
        """A client for an existing user, made ready to :meth:`connect` here.

        :param address: ``alice`` or ``alice/phone``; a whole JID will do.
        :param cls: called with the JID, the password and `kwargs`.
        :raises LookupError: there is no such user.
        """
        jid_ = self._address(address)
        return self.configure(cls(jid_.full, self._account(jid_.bare).credentials.password, **kwargs))

    @overload
    def component(self, name: str, **kwargs: Any) -> ComponentXMPP: ...

    @overload
    def component(self, name: str, cls: Callable[..., Component], **kwargs: Any) -> Component: ...

    def component(self, name: str, cls: Callable[..., Any] = ComponentXMPP, **kwargs: Any) -> Any:
        """A component that was named when the server was made, ready to :meth:`connect` here.

        :param cls: called with the domain, the secret and `kwargs`.
        :raises LookupError: there is no such component.
        """
        return self.configure(cls(name, self._components[name].secret, **kwargs))

    def configure(self, xmpp: XMPP) -> XMPP:
        """Make a client or component of the caller's ready to :meth:`connect` here; it is also returned.

        A client trusts this server and insists on STARTTLS, or, without TLS, is allowed to do without.
        """
        self._clients.add(xmpp)
        if isinstance(xmpp, ClientXMPP):
            trust(xmpp, self._tls, self.ca_certs)
        return xmpp

    async def connect(self, xmpp: BaseXMPP, *, timeout: float = TIMEOUT) -> None:
        """Connect a client or component and wait until its session starts. Its handlers may still be at work then.

        :param timeout: in seconds.
        :raises ConnectionError: authentication failed, or the connection was lost before.
        :raises TimeoutError: it took too long. Then, and when this is cancelled, the attempt is given up.
        """
        port = self.component_port if isinstance(xmpp, ComponentXMPP) else self.port
        await connect(xmpp, self.host, port, timeout)

    async def wait_available(self, address: str, *, timeout: float = TIMEOUT) -> None:
        """Wait until a resource, or any of a user, has sent presence, and everybody was told.

        :raises TimeoutError: it took too long.
        """
        wanted = self._address(address)
        seen = asyncio.get_running_loop().create_future()

        def look(session: Session) -> None:
            if wanted in (session.jid, session.account.jid) and not seen.done():
                seen.set_result(None)

        for session in self._domain.available(wanted.bare):
            look(session)
        self._domain.presences.listeners.append(look)
        try:
            async with asyncio.timeout(timeout):
                await seen
        finally:
            self._domain.presences.listeners.remove(look)

    # Inside

    def _address(self, text: str) -> JID:
        """`text` as a JID; without a domain it is a user's here."""
        name, slash, resource = text.partition("/")
        return JID(text if "@" in name else f"{name}@{self.domain}{slash}{resource}")

    def _account(self, name: str) -> Account:
        address = self._address(name).bare
        if address not in self._domain.accounts:
            raise LookupError(f"there is no user {address}")
        return self._domain.accounts[address]

    def _accept(self, address: JID, stanza: Element) -> None:
        """What a client or component has sent."""
        self.traffic.overhear(address, stanza)
        if address.domain == self.domain:
            self.faults.pass_through(stanza, lambda passed: self._domain.outbound(address, passed))
        else:
            self.faults.pass_through(stanza, self._router.route)
