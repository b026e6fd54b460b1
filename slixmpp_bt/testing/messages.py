"""Messages to users: to which of their resources, kept for later, or refused (RFC 6121 section 8.5, XEP-0160).

Where RFC 6121 leaves a choice this does what Prosody and ejabberd do: a message to a resource that is gone counts as
one to the account, and one of type chat or normal to the account goes to all resources of the highest priority.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from slixmpp import JID

from .accounts import MAX_OFFLINE, Account, Session
from .stanzas import BODY, StanzaError, delayed, kind, now

if TYPE_CHECKING:
    from .domain import Domain

_HINT = "{urn:xmpp:hints}"
_NOT_KEPT = (f"{_HINT}no-store", f"{_HINT}no-permanent-store")


class Messages:
    """Delivery and the offline store."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def deliver(self, stanza: Element, to: JID) -> None:
        """Bring a message to a user.

        :raises StanzaError: service-unavailable: no such user, or nobody is there and it is not to be kept.
        """
        account = self._domain.accounts.get(to.bare)
        if account is None:
            raise StanzaError("service-unavailable")
        session = self._domain.session(to)
        if session is not None:
            session.send(stanza)
        elif kind(stanza) == "groupchat":
            raise StanzaError("service-unavailable")
        elif kind(stanza) == "headline":
            if not to.resource:
                self._send_to(self._takers(account), stanza)
        elif kind(stanza) != "error":
            self._chat(account, stanza)

    def flush(self, session: Session) -> None:
        """Deliver what was kept; `session` has just become available."""
        kept, session.account.offline = session.account.offline, []
        for when, stanza in kept:
            session.send(delayed(stanza, self._domain.name, when))

    def _takers(self, account: Account) -> list[Session]:
        return [session for session in self._domain.available(account.jid) if session.priority >= 0]

    def _chat(self, account: Account, stanza: Element) -> None:
        takers = self._takers(account)
        highest = max((session.priority for session in takers), default=0)
        if takers:
            self._send_to([session for session in takers if session.priority == highest], stanza)
        elif _to_be_kept(stanza) and len(account.offline) < MAX_OFFLINE:
            account.offline.append((now(), stanza))
        else:
            raise StanzaError("service-unavailable")

    @staticmethod
    def _send_to(sessions: list[Session], stanza: Element) -> None:
        for session in sessions:
            session.send(stanza)


def _to_be_kept(stanza: Element) -> bool:
    """Whether a message has something to say later: a body, or a hint that it has (XEP-0334)."""
    if any(stanza.find(tag) is not None for tag in _NOT_KEPT):
        return False
    return stanza.find(BODY) is not None or stanza.find(f"{_HINT}store") is not None
