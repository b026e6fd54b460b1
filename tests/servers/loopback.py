"""The library's own server, in the same process and event loop as the test."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, suppress
from typing import Self

from slixmpp import JID

from slixmpp_bt.testing import LoopbackServer
from slixmpp_bt.testing.markup import StreamError

from .process import COMPONENT_SECRET, COMPONENTS, USERS
from .server import PASSWORD, Server


class Loopback(Server):
    """A view of a :class:`~slixmpp_bt.testing.LoopbackServer` that lives as long as the test."""

    name = "loopback"
    domain = "localhost"

    def __init__(self, pep_items: int = 10_000) -> None:
        super().__init__()
        self._pep_items = pep_items

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        server = LoopbackServer(
            domain=self.domain,
            users=dict.fromkeys(USERS, PASSWORD),
            components={f"{name}.{self.domain}": COMPONENT_SECRET for name in COMPONENTS},
            proxy=True,
            pep_items=self._pep_items,
        )
        self.server = await self._stack.enter_async_context(server)
        assert server.ca_certs is not None
        self.host, self.port, self.component_port = server.host, server.port, server.component_port
        self.ca_certs = server.ca_certs
        return self

    async def __aexit__(self, *error: object) -> None:
        async with self._stack:
            await super().__aexit__(*error)

    async def add_user(self, name: str) -> JID:
        jid = JID(f"{name}-{secrets.token_hex(4)}@{self.domain}")
        self.server.add_user(jid.user, PASSWORD)
        return jid

    async def subscribe(self, a: JID | str, b: JID | str) -> None:
        self.server.subscribe(JID(a).bare, JID(b).bare)

    async def stop_proxy(self) -> None:
        """Let the proxy vanish: what it carries breaks, and nobody gets through to it any more."""
        proxy = self.server._proxy
        assert proxy is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):  # after which connections that do not end are dropped
                await proxy.listener.close(StreamError("system-shutdown"))
