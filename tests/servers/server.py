"""What a test sees of an XMPP server, be it the library's loopback server or a real one: the same few methods."""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import slixmpp
from slixmpp import JID

from .process import COMPONENT_SECRET, RealServer

PASSWORD = "secret"
#: Seconds for a login or a round trip; far more than any server takes, so that only a fault meets it.
PATIENCE = 30

AnyXMPP = slixmpp.ClientXMPP | slixmpp.ComponentXMPP
C = TypeVar("C", bound=slixmpp.ClientXMPP)
P = TypeVar("P", bound=slixmpp.ComponentXMPP)


class Server(ABC):
    """A server for one test: an asynchronous context manager that disconnects, at its end, whatever :meth:`client` and
    :meth:`component` made.

    :ivar name: ``loopback``, ``prosody`` or ``ejabberd``.
    :ivar domain: the domain of its accounts.
    :ivar host: the loopback address it listens on.
    :ivar port: for clients, with STARTTLS.
    :ivar component_port: for components (XEP-0114).
    :ivar ca_certs: what vouches for its certificate.
    """

    name: str
    domain: str
    host: str
    port: int
    component_port: int
    ca_certs: Path

    def __init__(self) -> None:
        self._clients: list[AnyXMPP] = []

    @abstractmethod
    async def add_user(self, name: str) -> JID:
        """Make an account that no other test has, called `name` and a few random letters. Its bare JID."""

    @abstractmethod
    async def subscribe(self, a: JID | str, b: JID | str) -> None:
        """Let the accounts `a` and `b` see each other's presence (subscription ``both``).

        Call it before their clients are online: an online client has its own say in such requests.
        """

    @property
    def conference(self) -> str:
        """Where the rooms (XEP-0045) are."""
        return f"conference.{self.domain}"

    @property
    def proxy(self) -> str:
        """The SOCKS5 proxy (XEP-0065)."""
        return f"proxy.{self.domain}"

    @overload
    def client(self, jid: JID | str, **kwargs: Any) -> slixmpp.ClientXMPP: ...
    @overload
    def client(self, jid: JID | str, cls: Callable[..., C], **kwargs: Any) -> C: ...
    def client(self, jid: JID | str, cls: Callable[..., Any] = slixmpp.ClientXMPP, **kwargs: Any) -> Any:
        """A client, not yet connected.

        :param jid: may lack the domain: ``alice/phone``.
        :param cls: called with the JID, the password and `kwargs`.
        """
        node, _, resource = str(jid).partition("/")
        bare = node if "@" in node else f"{node}@{self.domain}"
        xmpp = cls(f"{bare}/{resource}" if resource else bare, PASSWORD, **kwargs)
        xmpp.ca_certs = self.ca_certs
        xmpp.enable_direct_tls = False
        self._clients.append(xmpp)
        return xmpp

    @overload
    def component(self, name: str = "bot", **kwargs: Any) -> slixmpp.ComponentXMPP: ...
    @overload
    def component(self, name: str, cls: Callable[..., P], **kwargs: Any) -> P: ...
    def component(self, name: str = "bot", cls: Callable[..., Any] = slixmpp.ComponentXMPP, **kwargs: Any) -> Any:
        """The component ``name.domain``, not yet connected; one of :data:`~tests.servers.process.COMPONENTS`.

        :param cls: called with the domain, the secret, host, port and `kwargs`.
        """
        xmpp = cls(f"{name}.{self.domain}", COMPONENT_SECRET, self.host, self.component_port, **kwargs)
        xmpp.enable_direct_tls = False
        self._clients.append(xmpp)
        return xmpp

    async def connect(self, *clients: AnyXMPP, presence: bool = True) -> None:
        """Log in; a client also fetches its roster and, unless told otherwise, becomes available.

        :raises ConnectionError: the server refused, and with what words.
        """
        for xmpp in clients:
            await self._log_in(xmpp)
            if isinstance(xmpp, slixmpp.ClientXMPP):
                await xmpp.get_roster(timeout=PATIENCE)
                if presence:
                    xmpp.send_presence()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        clients, self._clients = self._clients, []
        for xmpp in clients:
            plugins: Any = xmpp.plugin
            if "xep_bt" in plugins:
                await plugins["xep_bt"].aclose()
        for xmpp in clients:
            xmpp.cancel_connection_attempt()
            await xmpp.disconnect()

    async def _log_in(self, xmpp: AnyXMPP) -> None:
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def succeed(_event: object) -> None:
            if not outcome.done():
                outcome.set_result(None)

        def fail(reason: object) -> None:
            if not outcome.done():
                who = xmpp.boundjid or xmpp.requested_jid
                outcome.set_exception(ConnectionError(f"{who} at {self.name}: {reason or 'not authorised'}"))

        handlers: dict[str, Callable[[object], None]] = {"session_start": succeed}
        handlers |= dict.fromkeys(("failed_all_auth", "stream_error", "connection_failed", "disconnected"), fail)
        for event, handler in handlers.items():
            xmpp.add_event_handler(event, handler)
        try:
            xmpp.connect(self.host, self.port if isinstance(xmpp, slixmpp.ClientXMPP) else self.component_port)
            await asyncio.wait_for(outcome, PATIENCE)
        except ConnectionError:
            xmpp.cancel_connection_attempt()
            await xmpp.disconnect(wait=0)
            raise
        finally:
            for event, handler in handlers.items():
                xmpp.del_event_handler(event, handler)


class Process(Server):
    """A view of a server process that many tests use one after the other."""

    def __init__(self, process: RealServer) -> None:
        super().__init__()
        self.process = process
        self.name = process.name
        self.domain = process.options.domain
        self.host = process.options.address
        self.port = process.ports["c2s"]
        self.component_port = process.ports["component"]
        self.ca_certs = process.ca_certs

    async def __aenter__(self) -> Self:
        # The accounts that are always there are made by the first test that comes here.
        while self.process.users_to_come:
            await self.register(JID(f"{self.process.users_to_come[-1]}@{self.domain}"))
            self.process.users_to_come.pop()
        return self

    async def add_user(self, name: str) -> JID:
        jid = JID(f"{name}-{secrets.token_hex(4)}@{self.domain}")
        await self.register(jid)
        return jid

    async def register(self, jid: JID) -> None:
        """Make the account `jid` by XEP-0077, as any client could."""
        xmpp = self.client(f"{jid}/registration")
        xmpp.register_plugin("xep_0077")

        async def fill_in(_: slixmpp.Iq) -> None:
            answer = xmpp.make_iq_set()
            answer["register"]["username"] = jid.user
            answer["register"]["password"] = PASSWORD
            await answer.send(timeout=PATIENCE)

        xmpp.add_event_handler("register", fill_in)
        async with self._visit(xmpp):
            pass

    async def subscribe(self, a: JID | str, b: JID | str) -> None:
        await self.befriend(a, self, b)

    async def befriend(self, a: JID | str, others: Process, b: JID | str) -> None:
        """As :meth:`subscribe`, with an account `b` of another server."""
        one, other = (at.client(f"{JID(jid).bare}/subscription") for at, jid in ((self, a), (others, b)))
        async with self._visit(one), others._visit(other):
            # slixmpp's default is to grant every request and to return it.
            one.send_presence_subscription(other.boundjid.bare)
            await _subscribed(one, other.boundjid.bare)
            await _subscribed(other, one.boundjid.bare)

    @asynccontextmanager
    async def _visit(self, xmpp: slixmpp.ClientXMPP) -> AsyncIterator[None]:
        try:
            await self.connect(xmpp)
            yield
        finally:
            await xmpp.disconnect()
            self._clients.remove(xmpp)


async def _subscribed(xmpp: slixmpp.ClientXMPP, contact: str) -> None:
    while xmpp.client_roster[contact]["subscription"] != "both":
        await xmpp.wait_until("roster_update", PATIENCE)
