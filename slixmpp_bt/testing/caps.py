"""Entity capabilities (XEP-0115): learning what clients can do, as a PEP service has to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from xml.etree.ElementTree import Element

from .accounts import Session
from .disco import INFO
from .domain import Domain
from .markup import E
from .stanzas import kind

CAPS = "{http://jabber.org/protocol/caps}c"
#: Features that are remembered of one client.
_MAX_FEATURES = 500


class Capabilities:
    """Asks a client what it supports when its presence announces that this has changed.

    Each session is asked for itself: a hash that is believed on behalf of others would have to be verified first.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        #: Called with a session whose features have become known.
        self.listeners: list[Callable[[Session], None]] = []
        domain.presences.listeners.append(self._seen)

    def _seen(self, session: Session) -> None:
        caps = session.presence.find(CAPS) if session.presence is not None else None
        if caps is None:
            return
        node = f"{caps.get('node')}#{caps.get('ver')}"
        if node == session.caps:
            return
        session.caps = node
        self._domain.query(session, E(f"{INFO}query", {"node": node}), partial(self._learn, session))

    def _learn(self, session: Session, answer: Element) -> None:
        if kind(answer) != "result" or not session.available:
            return
        features = [feature.get("var", "") for feature in answer.findall(f"{INFO}query/{INFO}feature")]
        session.features = frozenset(features[:_MAX_FEATURES])
        for listener in self.listeners:
            listener(session)
