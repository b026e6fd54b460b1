"""What the tests of the loopback server have in common: a client that speaks XML by hand, and ears for slixmpp's."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from xml.etree.ElementTree import Element

import slixmpp
from slixmpp import JID

from slixmpp_bt.testing import LoopbackServer

PATIENCE = 20


class Inbox:
    """Every stanza that a client receives, in order, before slixmpp acts on it."""

    def __init__(self, xmpp: slixmpp.ClientXMPP | slixmpp.ComponentXMPP) -> None:
        self.stanzas: list[Element] = []
        xmpp.add_filter("in", self._keep)

    def _keep(self, stanza: Any) -> Any:
        self.stanzas.append(stanza.xml)
        return stanza

    def select(self, name: str, **attributes: str | None) -> list[Element]:
        """Those of this local name with these attributes (``from_`` for from; None for without)."""
        return [
            stanza
            for stanza in self.stanzas
            if stanza.tag.endswith(f"}}{name}")
            and all(stanza.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]

    def bodies(self) -> list[str]:
        """The bodies of the messages."""
        return [
            body.text or "" for message in self.select("message") for body in message.findall("{jabber:client}body")
        ]


async def settle(one: slixmpp.ClientXMPP, other: slixmpp.ClientXMPP | JID | str) -> None:
    """Wait until what `one` has sent so far to `other`, a client or somebody who answers, has arrived."""
    target = other.boundjid if isinstance(other, slixmpp.ClientXMPP) else JID(other)
    await one.plugin["xep_0199"].send_ping(target, timeout=PATIENCE)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that other tasks of this loop bring about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


class RawClient:
    """A connection whose every byte the test decides."""

    HEADER = "<stream:stream to='{to}' xmlns='{ns}' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = ""

    def send(self, data: str | bytes) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    def open(self, to: str = "localhost", ns: str = "jabber:client") -> None:
        self.send(self.HEADER.format(to=to, ns=ns))

    async def expect(self, pattern: str) -> str:
        """Read on until `pattern` matches; what came up to its end is consumed and returned."""
        async with asyncio.timeout(PATIENCE):
            while (match := re.search(pattern, self.received, re.DOTALL)) is None:
                data = await self.reader.read(65_536)
                assert data, f"the connection ended before {pattern!r} came: {self.received!r}"
                self.received += data.decode()
        text, self.received = self.received[: match.end()], self.received[match.end() :]
        return text

    async def rest(self) -> str:
        """Everything until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                self.received += (await self.reader.read(-1)).decode()
        return self.received

    async def start_tls(self, server: LoopbackServer) -> None:
        self.open()
        await self.expect("</stream:features>|</features>")
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await self.expect("<proceed[^>]*/>")
        await self.writer.start_tls(ssl.create_default_context(cafile=server.ca_certs), server_hostname=server.domain)

    async def log_in(self, user: str, password: str = "secret", resource: str = "raw") -> None:
        """Authenticate with PLAIN and bind `resource`."""
        self.open()
        await self.expect("</features>")
        self.send(plain(user, password))
        await self.expect("<success[^>]*/>")
        self.open()
        await self.expect("</features>")
        self.send(bind(resource))
        await self.expect("</iq>")

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


def plain(user: str, password: str) -> str:
    """A SASL PLAIN attempt."""
    response = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    return f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{response}</auth>"


def bind(resource: str) -> str:
    """A request for a resource."""
    inner = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>"
    return f"<iq type='set' id='bind'>{inner}</iq>"


@asynccontextmanager
async def raw(server: LoopbackServer, port: int | None = None) -> AsyncIterator[RawClient]:
    """A connection to `server` that nothing has been sent on."""
    client = RawClient(*await asyncio.open_connection(server.host, port or server.port))
    try:
        yield client
    finally:
        await client.close()
