"""A proxy for bytestreams (XEP-0065): joins two connections that ask it for the same name, once it is told to."""

from __future__ import annotations

import asyncio
import hashlib
from xml.etree.ElementTree import Element

from slixmpp import JID

from .disco import INFO, ITEMS, info, items
from .listening import Connection, Listener
from .markup import IQ, E, StreamError
from .routing import Router
from .stanzas import StanzaError, jid, kind, result, sender

NS = "http://jabber.org/protocol/bytestreams"
BYTESTREAMS = f"{{{NS}}}"
#: How long a connection may take to be joined to another, in seconds.
PATIENCE = 60.0
_GREETING, _REQUEST = b"\x05\x01\x00", b"\x05\x01\x00\x03\x28"


class Proxy:
    """A :class:`~.routing.Host`: the service. Known by `name`, it is for everybody whose stanzas come here."""

    def __init__(self, name: str, router: Router) -> None:
        self.name = name
        #: Where it listens; known once it does.
        self.host, self.port = "", 0
        #: By the name that they asked for: first the side that takes the stream, then the one that opens it.
        self.waiting: dict[str, list[Leg]] = {}
        self.listener = Listener(lambda: Leg(self.waiting))
        self._router = router
        router.hosts[name] = self

    async def open(self, host: str) -> None:
        """Listen, on the same port as before if there was one.

        :raises OSError: it is taken.
        """
        self.host, self.port = host, await self.listener.open(host, self.port)

    def handle(self, stanza: Element, to: JID) -> None:
        """:raises StanzaError: nobody takes it."""
        if stanza.tag != IQ or kind(stanza) not in ("get", "set"):
            return
        payload = stanza[0] if len(stanza) == 1 and not to.local else E("nothing")
        if payload.tag == f"{INFO}query":
            answer = info([("proxy", "bytestreams", "SOCKS5 Bytestreams")], [NS])
        elif payload.tag == f"{ITEMS}query":
            answer = items(())
        elif payload.tag != f"{BYTESTREAMS}query":
            raise StanzaError("service-unavailable")
        elif kind(stanza) == "get":
            where = {"jid": self.name, "host": self.host, "port": str(self.port)}
            answer = E(f"{BYTESTREAMS}query", None, E(f"{BYTESTREAMS}streamhost", where))
        else:
            self._activate(sender(stanza), payload)
            self._router.route(result(stanza))
            return
        self._router.route(result(stanza, answer))

    def _activate(self, requester: JID, query: Element) -> None:
        """XEP-0065 section 6.3: the name shows that who asks for it is one of the two."""
        target = jid(query.findtext(f"{BYTESTREAMS}activate", ""))
        text = f"{query.get('sid', '')}{requester.full}{target.full}"
        name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        legs = self.waiting.get(name)
        if legs is None:
            raise StanzaError("item-not-found", "nobody is connected for this stream")
        if len(legs) != 2:
            raise StanzaError("not-allowed", "only one side is connected")
        del self.waiting[name]
        legs[0].join(legs[1])
        legs[1].join(legs[0])


class Leg(Connection):
    """One connection to the proxy. It is read from no faster than its other leg takes it."""

    def __init__(self, waiting: dict[str, list[Leg]]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        self._name = ""
        self._greeted = False
        self._early = b""
        self._other: Leg | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline = asyncio.get_running_loop().call_later(PATIENCE, self.abort)

    def join(self, other: Leg) -> None:
        """From now on what comes here goes to `other`."""
        self._other = other
        self._deadline.cancel()
        self._reading(True)

    def close(self, error: StreamError | None = None) -> None:
        """Close it, once what was sent is delivered; there is no way to tell why."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._other is not None:
            self._other.write(data)
            return
        self._early += data
        if not self._greeted and len(self._early) >= len(_GREETING):
            self._greet()
        if self._greeted and len(self._early) >= len(_REQUEST) + 42:
            self._take_request()

    def _greet(self) -> None:
        assert self._transport is not None
        self._greeted = self._early.startswith(_GREETING)
        self._early = self._early.removeprefix(_GREETING)
        self._transport.write(b"\x05\x00" if self._greeted else b"\x05\xff")
        if not self._greeted:
            self._transport.close()

    def _take_request(self) -> None:
        assert self._transport is not None
        name = self._early[len(_REQUEST) : -2].decode("latin-1")
        valid = self._early == _REQUEST + name.encode("latin-1") + b"\x00\x00" and len(name) == 40
        if not valid or len(self._waiting.get(name, ())) == 2:
            self._transport.write(b"\x05\x01\x00\x01" + bytes(6))
            self._transport.close()
            return
        self._name = name
        self._waiting.setdefault(name, []).append(self)
        self._transport.pause_reading()
        self._transport.write(b"\x05\x00\x00\x03\x28" + self._early[len(_REQUEST) :])

    def write(self, data: bytes) -> None:
        """Send what came by the other leg."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other._reading(False)

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other._reading(True)

    def _reading(self, on: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        self._transport = None
        legs = self._waiting.get(self._name, [])
        if self in legs:
            legs.remove(self)
        if not legs:
            self._waiting.pop(self._name, None)
        if self._other is not None:
            self._other.close()
        if not self.closed.done():
            self.closed.set_result(None)
