"""A client's stream: STARTTLS, SASL, a resource, and then its stanzas (RFC 6120 sections 5 to 7)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element

from .accounts import Session
from .domain import Domain
from .markup import CLIENT, IQ, MESSAGE, PRESENCE, STREAMS, E, StreamError, split
from .sasl import MECHANISMS, AuthError, Credentials, Mechanism, decode
from .stanzas import StanzaError, jid, new_id
from .streams import Front, Stream

TLS = "{urn:ietf:params:xml:ns:xmpp-tls}"
SASL_NS = "urn:ietf:params:xml:ns:xmpp-sasl"
SASL = f"{{{SASL_NS}}}"
BIND = "{urn:ietf:params:xml:ns:xmpp-bind}"
LIMITS = "{urn:xmpp:stream-limits:0}"
_MAX_ATTEMPTS = 5


class ClientStream(Stream):
    """What a client may send depends on how far it has come: `_phase` takes the next element."""

    namespace = CLIENT

    def __init__(self, front: Front, host: Domain, bound: dict[str, ClientStream]) -> None:
        """`bound`: the streams of `host` by full JID, kept up to date here."""
        super().__init__(front, host.name)
        self.session: Session | None = None
        self._host = host
        self._bound = bound
        self._user = ""
        self._attempts = 0
        self._mechanism: Mechanism | None = None
        self._phase: Callable[[Element], None] = self._before_tls if front.policy.tls is not None else self._before_auth

    def stream_opened(self, attributes: Mapping[str, str]) -> None:
        self.send_header(**{"version": "1.0", "xml:lang": "en"})
        if attributes.get("to", "").lower() != self.domain:
            raise StreamError("host-unknown", f"this is {self.domain}")
        self.send(E(f"{{{STREAMS}}}features", None, *self._features()))

    def _features(self) -> list[Element]:
        if self._phase == self._before_tls:
            return [E(f"{TLS}starttls", None, E(f"{TLS}required"))]
        if self._phase == self._before_auth:
            return [E(f"{SASL}mechanisms", None, *(E(f"{SASL}mechanism", None, name) for name in MECHANISMS))]
        features = [E(f"{BIND}bind")]
        if self.policy.announce_limits:
            limit = str(self.policy.max_stanza)
            features.append(E(f"{LIMITS}limits", None, E(f"{LIMITS}max-bytes", None, limit)))
        return features

    def stanza_received(self, stanza: Element) -> None:
        self._phase(stanza)

    def stream_ended(self) -> None:
        if self.session is not None:
            if self._bound.get(self.session.jid.full) is self:
                del self._bound[self.session.jid.full]
            self._host.unbind(self.session)

    # Phases

    def _before_tls(self, element: Element) -> None:
        if element.tag != f"{TLS}starttls" or self.policy.tls is None:
            raise StreamError("policy-violation", "STARTTLS comes first")
        self._phase = self._before_auth
        self.start_tls(self.policy.tls, E(f"{TLS}proceed"))

    def _before_auth(self, element: Element) -> None:
        namespace, word = split(element.tag)
        if namespace != SASL_NS or word not in ("auth", "response", "abort"):
            raise StreamError("not-authorized")
        try:
            self._authenticate(word, element)
        except AuthError as error:
            self._mechanism = None
            self._attempts += 1
            self.send(E(f"{SASL}failure", None, E(f"{SASL}{error.condition}")))
            if self._attempts >= _MAX_ATTEMPTS:
                raise StreamError("policy-violation", "too many attempts") from None

    def _authenticate(self, word: str, element: Element) -> None:
        if word == "abort":
            raise AuthError("aborted")
        if word == "auth":
            make = MECHANISMS.get(element.get("mechanism", ""))
            if make is None:
                raise AuthError("invalid-mechanism")
            self._mechanism = make(self._credentials)
            if not element.text:
                self.send(E(f"{SASL}challenge"))
                return
        if self._mechanism is None:
            raise AuthError("malformed-request")
        answer = base64.b64encode(self._mechanism.step(decode(element.text or ""))).decode()
        if self._mechanism.user is None:
            self.send(E(f"{SASL}challenge", None, answer))
            return
        self._user = self._mechanism.user
        self._phase = self._before_bind
        self.send(E(f"{SASL}success", None, answer))
        self.restart()

    def _credentials(self, username: str) -> Credentials | None:
        try:
            account = self._host.accounts.get(jid(f"{username}@{self.domain}").bare)
        except StanzaError:
            return None
        return account.credentials if account is not None else None

    def _before_bind(self, stanza: Element) -> None:
        request = stanza.find(f"{BIND}bind")
        if stanza.tag != IQ or stanza.get("type") != "set" or request is None:
            raise StreamError("not-authorized", "a resource has to be bound first")
        account = self._host.accounts.get(f"{self._user}@{self.domain}")
        if account is None:
            raise StreamError("not-authorized", "the account is gone")
        resource = request.findtext(f"{BIND}resource") or new_id()
        try:
            address = jid(f"{account.jid}/{resource}")
        except StanzaError:
            raise StreamError("bad-format", "a resource that is none") from None
        older = self._bound.get(address.full)
        if older is not None:
            older.replaced()
        self.session = self._host.bind(account, address.resource, self.send)
        self._bound[address.full] = self
        self._phase = self._in_session
        self.counters = self.front.traffic[address]
        self.throttle()
        bound = E(f"{BIND}bind", None, E(f"{BIND}jid", None, address.full))
        self.send(E(IQ, {"type": "result", "id": stanza.get("id")}, bound))

    def replaced(self) -> None:
        """Another stream takes the resource over (RFC 6120 section 7.7.2.2)."""
        if self.session is not None:
            self._host.unbind(self.session)
        self.close(StreamError("conflict", "replaced by a new connection"))

    def _in_session(self, stanza: Element) -> None:
        assert self.session is not None
        if stanza.tag not in (IQ, MESSAGE, PRESENCE):
            raise StreamError("unsupported-stanza-type")
        address = self.session.jid
        given = stanza.get("from")
        if given is not None and given not in (address.full, address.bare):
            raise StreamError("invalid-from")
        stanza.set("from", address.full)
        self.front.accept(address, stanza)
