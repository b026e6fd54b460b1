"""External components (XEP-0114): other processes, or other objects of this one, that answer for a domain."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from slixmpp import JID

from .markup import COMPONENT, IQ, MESSAGE, PRESENCE, E, StreamError
from .stanzas import StanzaError, jid, refusal
from .streams import Front, Stream


class ComponentHost:
    """A :class:`~.routing.Host`: the place of a component, connected or not."""

    def __init__(self, name: str, secret: str) -> None:
        self.name = name
        self.secret = secret
        self.stream: ComponentStream | None = None

    def handle(self, stanza: Element, to: JID) -> None:
        """:raises StanzaError: remote-server-timeout while the component is not connected."""
        if self.stream is None:
            raise StanzaError("remote-server-timeout", "the component is not connected")
        self.stream.send(stanza)


class ComponentStream(Stream):
    """A component's stream. There is no TLS in XEP-0114, so one more reason for loopback only."""

    namespace = COMPONENT

    def __init__(self, front: Front, domain: str, hosts: Mapping[str, ComponentHost]) -> None:
        super().__init__(front, domain)
        self.host: ComponentHost | None = None
        self._ready = False
        self._hosts = hosts

    def stream_opened(self, attributes: Mapping[str, str]) -> None:
        name = attributes.get("to", "").lower()
        self.domain = name if name in self._hosts else self.domain
        self.send_header()
        if name not in self._hosts:
            raise StreamError("host-unknown", "no such component is configured")
        self.host = self._hosts[name]

    def stanza_received(self, stanza: Element) -> None:
        if self._ready:
            self._in_session(stanza)
        else:
            self._handshake_received(stanza)

    def stream_ended(self) -> None:
        if self.host is not None and self.host.stream is self:
            self.host.stream = None

    def _handshake_received(self, element: Element) -> None:
        # The parser has moved it to jabber:client, as everything that is in the stream's namespace.
        assert self.host is not None
        digest = hashlib.sha1(f"{self.id}{self.host.secret}".encode(), usedforsecurity=False).hexdigest()
        given = (element.text or "").strip().lower()
        if not element.tag.endswith("}handshake") or not hmac.compare_digest(given.encode(), digest.encode()):
            raise StreamError("not-authorized")
        older = self.host.stream
        if older is not None:
            older.close(StreamError("conflict", "replaced by a new connection"))
        self.host.stream = self
        self._ready = True
        self.counters = self.front.traffic[self.host.name]
        self.send(E("{jabber:client}handshake"))
        self.throttle()

    def _in_session(self, stanza: Element) -> None:
        assert self.host is not None
        if stanza.tag not in (IQ, MESSAGE, PRESENCE):
            raise StreamError("unsupported-stanza-type")
        try:
            from_ = jid(stanza.get("from", ""))
        except StanzaError:
            raise StreamError("invalid-from", "a component's stanzas need a sender") from None
        if from_.domain != self.host.name:
            raise StreamError("invalid-from")
        if stanza.get("to") is None:
            back = refusal(stanza, StanzaError("bad-request", "a component's stanzas need an address"))
            if back is not None:
                self.send(back)
            return
        self.front.accept(from_, stanza)
