"""From one address to another: which host a stanza is for, and how it comes back if nobody takes it."""

from __future__ import annotations

from typing import Protocol
from xml.etree.ElementTree import Element

from slixmpp import JID

from .markup import PRESENCE
from .stanzas import StanzaError, jid, kind, refusal


class Host(Protocol):
    """Whoever answers for a domain."""

    def handle(self, stanza: Element, to: JID) -> None:
        """Take a stanza that has a sender and is for `to`, at this host.

        :raises StanzaError: nobody takes it.
        """


class Router:
    """The hosts by domain, and the way to them."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}

    def route(self, stanza: Element) -> None:
        """Bring `stanza`, which has a ``from`` and a ``to``, where it belongs; an error goes back to its sender."""
        try:
            to = jid(stanza.get("to", ""))
            host = self.hosts.get(to.domain)
            if host is None:
                raise StanzaError("remote-server-not-found")
            host.handle(stanza, to)
        except StanzaError as error:
            self.refuse(stanza, error)

    def refuse(self, stanza: Element, error: StanzaError) -> None:
        """Send `stanza` back; errors and results end here."""
        if stanza.tag == PRESENCE and kind(stanza) is not None:
            return
        back = refusal(stanza, error)
        # An error that cannot be delivered is not answered, so this goes no deeper.
        if back is not None:
            self.route(back)
