"""Service discovery (XEP-0030): what the server, its accounts and its services are and can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from xml.etree.ElementTree import Element

from .domain import Domain, Request
from .markup import E
from .stanzas import StanzaError

INFO = "{http://jabber.org/protocol/disco#info}"
ITEMS = "{http://jabber.org/protocol/disco#items}"
_BASICS = ("http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "urn:xmpp:ping")


def info(
    identities: Iterable[tuple[str, str, str]], features: Iterable[str], *forms: Element, node: str | None = None
) -> Element:
    """The answer to disco#info: identities are category, type and name."""
    return E(
        f"{INFO}query",
        {"node": node},
        *(E(f"{INFO}identity", {"category": c, "type": t, "name": n or None}) for c, t, n in identities),
        *(E(f"{INFO}feature", {"var": feature}) for feature in (*_BASICS, *features)),
        *forms,
    )


def items(entries: Iterable[tuple[str, str | None, str | None]], *, node: str | None = None) -> Element:
    """The answer to disco#items: entries are JID, node and name."""
    return E(
        f"{ITEMS}query",
        {"node": node},
        *(E(f"{ITEMS}item", {"jid": address, "node": n, "name": name}) for address, n, name in entries),
    )


class Disco:
    """Answers for the server and its accounts.

    An account answers its user, and contacts who may see the user's presence (XEP-0030 section 8, RFC 6121 section
    8.5.1). `account_nodes` tells an account's items, and the info of one of them, or None for an unknown one.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.server_features: list[str] = ["jabber:iq:roster", "msgoffline"]
        self.account_identities: list[tuple[str, str, str]] = [("account", "registered", "")]
        self.account_features: list[str] = []
        self.node_info: Callable[[Request, str], Element] | None = None
        self.node_items: Callable[[Request, str | None], Element] | None = None
        domain.serve(f"{INFO}query", self._info)
        domain.serve(f"{ITEMS}query", self._items)

    def _info(self, request: Request) -> Element:
        node = request.payload.get("node") or None
        if request.account is None:
            if node is not None:
                raise StanzaError("item-not-found")
            return info([("server", "im", "slixmpp_bt loopback server")], self.server_features)
        self._check(request)
        if node is None:
            return info(self.account_identities, self.account_features)
        if self.node_info is None:
            raise StanzaError("item-not-found")
        return self.node_info(request, node)

    def _items(self, request: Request) -> Element:
        node = request.payload.get("node") or None
        if request.account is None:
            others = (name for name in self._domain.router.hosts if name != self._domain.name)
            return items(((name, None, None) for name in others) if node is None else ())
        self._check(request)
        return self.node_items(request, node) if self.node_items is not None else items(())

    def _check(self, request: Request) -> None:
        assert request.account is not None
        if not request.account.shows_presence_to(request.sender.bare):
            raise StanzaError("service-unavailable")
