"""Who is there, and who is told so (RFC 6121 section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from slixmpp import JID

from .accounts import Account, Session
from .markup import CLIENT, PRESENCE, E
from .roster import SUBSCRIPTIONS
from .stanzas import StanzaError, copy_for, jid, kind, sender

if TYPE_CHECKING:
    from .domain import Domain

#: How many addresses one session may have sent presence directly.
_MAX_DIRECTED = 10_000


class Presences:
    """Presence in and out. Payloads, entity capabilities among them, pass as they are."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        #: Called with each session that has broadcast presence, after everybody was told.
        self.listeners: list[Callable[[Session], None]] = []

    # From a user of this server

    def outbound(self, session: Session, stanza: Element) -> None:
        """:raises StanzaError: an unknown type, or an address that is none."""
        word, address = kind(stanza), stanza.get("to")
        if address is None:
            if word == "unavailable":
                self._leave(session, stanza)
            elif word is None:
                self._enter(session, stanza)
            elif word != "error":
                raise StanzaError("bad-request", f"presence of type {word} needs an address")
        elif word in SUBSCRIPTIONS:
            self._domain.rosters.outbound(session.account, stanza, jid(address).bare)
        else:
            if word in (None, "unavailable"):
                self._direct(session, jid(address), gone=word is not None)
            self._domain.router.route(stanza)

    def _direct(self, session: Session, to: JID, *, gone: bool) -> None:
        if gone:
            session.directed.discard(to.full)
        elif not session.account.shows_presence_to(to.bare):
            if len(session.directed) >= _MAX_DIRECTED:
                raise StanzaError("resource-constraint")
            session.directed.add(to.full)

    def _enter(self, session: Session, stanza: Element) -> None:
        initial = not session.available
        session.presence = stanza
        session.priority = _priority(stanza)
        self._broadcast(session, stanza)
        if initial:
            self._look_around(session)
            if session.priority >= 0:
                self._domain.messages.flush(session)
        for listener in self.listeners:
            listener(session)

    def _leave(self, session: Session, stanza: Element) -> None:
        session.presence, session.priority = None, 0
        session.caps, session.features = None, frozenset()
        self._broadcast(session, stanza)
        directed, session.directed = session.directed, set()
        for address in directed:
            self._domain.router.route(copy_for(stanza, to=address))

    def ended(self, session: Session) -> None:
        """The session dropped: say for it that it is unavailable (RFC 6121 section 4.5.2)."""
        stanza = E(PRESENCE, {"type": "unavailable", "from": session.jid.full})
        if session.available:
            self._leave(session, stanza)
            return
        for address in session.directed:
            self._domain.router.route(copy_for(stanza, to=address))

    def _broadcast(self, session: Session, stanza: Element) -> None:
        session.send(copy_for(stanza, to=session.jid.full))
        for other in self._domain.available(session.account.jid):
            if other is not session:
                other.send(copy_for(stanza, to=other.jid.full))
        for contact in list(session.account.roster.values()):
            if contact.from_:
                self._domain.router.route(copy_for(stanza, to=contact.jid))

    def _look_around(self, session: Session) -> None:
        """What a resource that has just become available is told (RFC 6121 sections 3.1.3 and 4.2)."""
        for other in self._domain.available(session.account.jid):
            if other is not session and other.presence is not None:
                session.send(copy_for(other.presence, to=session.jid.full))
        for contact in list(session.account.roster.values()):
            if contact.to:
                probe = {"type": "probe", "from": session.jid.full, "to": contact.jid}
                self._domain.router.route(E(PRESENCE, probe))
            if contact.request is not None:
                session.send(contact.request)

    # To a user of this server

    def inbound(self, stanza: Element, to: JID) -> None:
        """Presence for a user, from wherever; for anybody else it is dropped."""
        account = self._domain.accounts.get(to.bare)
        word, from_ = kind(stanza), sender(stanza)
        if account is None:
            if word in ("subscribe", "probe") and to.local:
                refused = {"type": "unsubscribed", "from": to.bare, "to": from_.bare}
                self._domain.router.route(E(PRESENCE, refused))
        elif word in SUBSCRIPTIONS:
            self._domain.rosters.inbound(account, copy_for(stanza, from_=from_.bare, to=to.bare), from_.bare)
        elif word == "probe":
            self._probed(account, from_)
        elif to.resource:
            session = self._domain.session(to)
            if session is not None:
                session.send(stanza)
        elif word in (None, "unavailable", "error"):
            for session in self._domain.available(to.bare):
                session.send(stanza)

    def _probed(self, account: Account, by: JID) -> None:
        if not account.shows_presence_to(by.bare):
            refused = {"type": "unsubscribed", "from": account.jid, "to": by.bare}
            self._domain.router.route(E(PRESENCE, refused))
        elif not self._domain.available(account.jid):
            absent = {"type": "unavailable", "from": account.jid, "to": by.full}
            self._domain.router.route(E(PRESENCE, absent))
        else:
            self.show(account, by.full)

    def show(self, account: Account, address: str) -> None:
        """Send the presence of every available resource to `address`."""
        for session in self._domain.available(account.jid):
            assert session.presence is not None
            self._domain.router.route(copy_for(session.presence, to=address))

    def hide(self, account: Account, address: str) -> None:
        """Tell `address` of every available resource that it is unavailable."""
        for session in self._domain.available(account.jid):
            gone = {"type": "unavailable", "from": session.jid.full, "to": address}
            self._domain.router.route(E(PRESENCE, gone))


def _priority(stanza: Element) -> int:
    """The priority of RFC 6121 section 4.7.2.3; 0 for none or nonsense."""
    text = (stanza.findtext(f"{{{CLIENT}}}priority") or "").strip()
    try:
        return max(-128, min(127, int(text)))
    except ValueError:
        return 0
