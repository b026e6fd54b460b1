"""What a server remembers of its users, also while they are away, and what it knows of those who are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from slixmpp import JID

from .sasl import Credentials

if TYPE_CHECKING:
    from .nodes import Node

#: Messages kept for a user who is away, and pending requests and items of one roster.
MAX_OFFLINE = 1_000
MAX_ROSTER = 10_000


@dataclass(slots=True)
class Contact:
    """One entry of a roster (RFC 6121 section 2.1.2), or only a request that came in and was not answered yet.

    :ivar to: the user sees the contact's presence.
    :ivar from_: the contact sees the user's.
    :ivar ask: the user has asked to see the contact's.
    :ivar request: the contact's unanswered request to see the user's.
    :ivar listed: the user has put the contact into the roster by hand.
    """

    jid: str
    name: str | None = None
    groups: tuple[str, ...] = ()
    to: bool = False
    from_: bool = False
    ask: bool = False
    request: Element | None = None
    listed: bool = False

    @property
    def subscription(self) -> str:
        """The word for `to` and `from_` together."""
        return {(False, False): "none", (True, False): "to", (False, True): "from", (True, True): "both"}[
            self.to, self.from_
        ]

    @property
    def visible(self) -> bool:
        """Whether the user's clients are told of it: not if all there is is a request from the contact."""
        return self.listed or self.to or self.from_ or self.ask


@dataclass(slots=True)
class Account:
    """A user, online or not. `offline` holds messages and when they came."""

    jid: str
    credentials: Credentials
    roster: dict[str, Contact] = field(default_factory=dict)
    offline: list[tuple[datetime, Element]] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)

    def contact(self, jid: str) -> Contact:
        """The entry for a bare JID, made if there is none yet (and put into the roster by whoever keeps it)."""
        return self.roster.get(jid) or Contact(jid)

    def shows_presence_to(self, jid: str) -> bool:
        """Whether this bare JID is the user's own or one that may see the user's presence."""
        return jid == self.jid or self.contact(jid).from_


@dataclass(eq=False, slots=True)
class Session:
    """A connected resource.

    :ivar send: puts a stanza on its stream.
    :ivar presence: the last presence it broadcast; None if it is not available.
    :ivar directed: whom it sent presence directly, and has to be told when it goes.
    :ivar interested: it has asked for the roster, so it is told of changes.
    :ivar features: what its entity capabilities (XEP-0115) stand for.
    """

    jid: JID
    account: Account
    send: Callable[[Element], None]
    presence: Element | None = None
    priority: int = 0
    directed: set[str] = field(default_factory=set)
    interested: bool = False
    caps: str | None = None
    features: frozenset[str] = frozenset()

    @property
    def available(self) -> bool:
        """Whether it has sent presence."""
        return self.presence is not None
