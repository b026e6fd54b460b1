"""The server's own domain: its accounts, who is connected, and who answers which request (RFC 6121 section 8.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from slixmpp import JID

from .accounts import Account, Session
from .markup import IQ, MESSAGE, E
from .messages import Messages
from .presence import Presences
from .roster import Rosters
from .routing import Router
from .stanzas import StanzaError, jid, kind, new_id, result, sender


@dataclass(frozen=True, slots=True)
class Request:
    """An iq of type get or set that the server answers itself, for an account or (`account` is None) as the server."""

    stanza: Element
    payload: Element
    sender: JID
    account: Account | None

    @property
    def is_set(self) -> bool:
        """Whether something is to be changed."""
        return kind(self.stanza) == "set"

    @property
    def own(self) -> bool:
        """Whether users ask for their own account."""
        return self.account is not None and self.account.jid == self.sender.bare

    def owner(self) -> Account:
        """The account, for what only its user may do.

        :raises StanzaError: forbidden, or service-unavailable if there is no such account.
        """
        if self.account is None:
            raise StanzaError("service-unavailable")
        if not self.own:
            raise StanzaError("forbidden")
        return self.account


#: Answers with a payload, or None for an empty result.
Service = Callable[[Request], Element | None]


class Domain:
    """A :class:`~.routing.Host`: accounts and their sessions."""

    def __init__(self, name: str, router: Router) -> None:
        self.name = name
        self.router = router
        self.accounts: dict[str, Account] = {}
        #: By bare JID, then by resource.
        self.sessions: dict[str, dict[str, Session]] = {}
        self.messages = Messages(self)
        self.rosters = Rosters(self)
        self.presences = Presences(self)
        self._services: dict[str, Service] = {}
        self._queries: dict[str, tuple[str, Callable[[Element], None]]] = {}
        self.serve("{jabber:iq:roster}query", self.rosters.answer)
        self.serve("{urn:xmpp:ping}ping", lambda request: None)
        self.serve("{urn:ietf:params:xml:ns:xmpp-session}session", lambda request: None)
        router.hosts[name] = self

    # Sessions

    def bind(self, account: Account, resource: str, send: Callable[[Element], None]) -> Session:
        """A session for a resource that is free."""
        session = Session(jid(f"{account.jid}/{resource}"), account, send)
        self.sessions.setdefault(account.jid, {})[session.jid.resource] = session
        return session

    def unbind(self, session: Session) -> None:
        """The session is over; who saw its presence is told. Nothing happens the second time."""
        resources = self.sessions.get(session.account.jid, {})
        if resources.get(session.jid.resource) is not session:
            return
        del resources[session.jid.resource]
        if not resources:
            del self.sessions[session.account.jid]
        self._queries.pop(session.jid.full, None)
        self.presences.ended(session)

    def session(self, address: JID) -> Session | None:
        """Who is connected under a full JID."""
        return self.sessions.get(address.bare, {}).get(address.resource)

    def connected(self, account: str) -> Iterable[Session]:
        """The sessions of a bare JID; safe against sessions that end meanwhile."""
        return list(self.sessions.get(account, {}).values())

    def available(self, account: str) -> list[Session]:
        """Those of them that have sent presence."""
        return [session for session in self.connected(account) if session.available]

    # Stanzas

    def outbound(self, address: JID, stanza: Element) -> None:
        """What the user at `address` has sent (RFC 6121 section 8.1), perhaps in a session that has ended since."""
        try:
            if stanza.tag not in (IQ, MESSAGE):
                session = self.session(address)
                if session is not None:
                    self.presences.outbound(session, stanza)
            elif stanza.get("to") is None:
                self.handle(stanza, jid(address.bare))
            else:
                self.router.route(stanza)
        except StanzaError as error:
            self.router.refuse(stanza, error)

    def handle(self, stanza: Element, to: JID) -> None:
        """:raises StanzaError: nobody takes it."""
        if stanza.tag == IQ:
            self._iq(stanza, to)
        elif stanza.tag == MESSAGE:
            self.messages.deliver(stanza, to)
        else:
            self.presences.inbound(stanza, to)

    def _iq(self, stanza: Element, to: JID) -> None:
        request = kind(stanza) in ("get", "set")
        if to.local and to.resource:
            session = self.session(to)
            if session is not None:
                session.send(stanza)
            elif request:
                raise StanzaError("service-unavailable")
        elif request:
            self._answer(stanza, to)
        else:
            self._answered(stanza)

    def _answer(self, stanza: Element, to: JID) -> None:
        if len(stanza) != 1 or not stanza.get("id"):
            raise StanzaError("bad-request", "a request has an id and one child")
        account = self.accounts.get(to.bare)
        service = self._services.get(stanza[0].tag)
        if service is None or (to.local and account is None):
            raise StanzaError("service-unavailable")
        answer = service(Request(stanza, stanza[0], sender(stanza), account))
        self.router.route(result(stanza, *([] if answer is None else [answer])))

    def serve(self, tag: str, service: Service) -> None:
        """Let `service` answer requests whose payload has this tag, to the server and to accounts."""
        self._services[tag] = service

    def query(self, session: Session, payload: Element, callback: Callable[[Element], None]) -> None:
        """Ask a client something; `callback` gets the result or the error.

        It gets nothing if the session ends, or is asked something else, before the client has answered.
        """
        request = new_id()
        self._queries[session.jid.full] = request, callback
        session.send(E(IQ, {"type": "get", "id": request, "from": self.name, "to": session.jid.full}, payload))

    def _answered(self, stanza: Element) -> None:
        request, callback = self._queries.get(stanza.get("from", ""), (None, None))
        if callback is not None and request == stanza.get("id"):
            del self._queries[stanza.get("from", "")]
            callback(stanza)
