"""Rosters, and the four-step dance of presence subscriptions (RFC 6121 sections 2 and 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from .accounts import MAX_ROSTER, Account, Contact
from .markup import IQ, PRESENCE, E
from .stanzas import StanzaError, copy_for, jid, kind, new_id

if TYPE_CHECKING:
    from .domain import Domain, Request

ROSTER = "{jabber:iq:roster}"
SUBSCRIPTIONS = frozenset({"subscribe", "subscribed", "unsubscribe", "unsubscribed"})


class Rosters:
    """Changes rosters and tells the clients that asked for them."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    # Requests

    def answer(self, request: Request) -> Element | None:
        """Roster get and set (RFC 6121 sections 2.2 to 2.5)."""
        account = request.owner()
        if request.is_set:
            self._set(account, request.payload)
            return None
        session = self._domain.session(request.sender)
        if session is not None:
            session.interested = True
        return E(f"{ROSTER}query", None, *(_item(contact) for contact in account.roster.values() if contact.visible))

    def _set(self, account: Account, query: Element) -> None:
        items = query.findall(f"{ROSTER}item")
        if len(items) != 1:
            raise StanzaError("bad-request", "a roster set has one item")
        address = jid(items[0].get("jid", "")).bare
        if items[0].get("subscription") == "remove":
            self._remove(account, address)
            return
        contact = self._listed(account, address)
        contact.name = items[0].get("name")
        contact.groups = tuple(dict.fromkeys(group.text or "" for group in items[0].findall(f"{ROSTER}group")))
        self._push(account, contact)

    def _remove(self, account: Account, address: str) -> None:
        contact = account.roster.get(address)
        if contact is None or not contact.visible:
            raise StanzaError("item-not-found")
        if contact.to or contact.ask:
            self._between("unsubscribe", account.jid, address)
        if contact.from_ or contact.request is not None:
            self._hide(account, contact)
        del account.roster[address]
        self._push(account, Contact(address), removed=True)

    def befriend(self, one: Account, other: Account) -> None:
        """Subscribe the two to each other as if both had asked and agreed."""
        for account, peer in ((one, other), (other, one)):
            contact = self._listed(account, peer.jid)
            contact.to = contact.from_ = True
            contact.ask, contact.request = False, None
            self._push(account, contact)
        for account, peer in ((one, other), (other, one)):
            self._domain.presences.show(account, peer.jid)

    # Subscriptions

    def outbound(self, account: Account, stanza: Element, address: str) -> None:
        """A user asks, agrees, or ends (RFC 6121, the parts of section 3 about the user's server)."""
        word = kind(stanza)
        contact = self._listed(account, address) if word == "subscribe" else account.contact(address)
        if word == "subscribed":
            if contact.request is None:
                return
            contact.request, contact.from_, contact.listed = None, True, True
        elif word == "unsubscribed":
            if contact.from_ or contact.request is not None:
                self._hide(account, contact)
                self._push(account, contact)
            return
        elif word == "subscribe":
            contact.ask = not contact.to
        else:
            contact.to = contact.ask = False
        self._push(account, contact)
        self._domain.router.route(copy_for(stanza, from_=account.jid, to=address))
        if word == "subscribed":
            self._domain.presences.show(account, address)

    def inbound(self, account: Account, stanza: Element, address: str) -> None:
        """Somebody asks, agrees, or ends (RFC 6121, the parts of section 3 about the contact's server)."""
        word = kind(stanza)
        contact = account.contact(address)
        if word == "subscribe":
            self._asked(account, contact, stanza)
            return
        if word == "unsubscribe":
            if not contact.from_ and contact.request is None:
                return
            self._domain.presences.hide(account, address)
            contact.from_, contact.request = False, None
        else:
            if not (contact.ask or (contact.to and word == "unsubscribed")):
                return
            contact.to, contact.ask = word == "subscribed", False
        for session in self._domain.connected(account.jid):
            if session.interested:
                session.send(stanza)
        self._push(account, contact)

    def _asked(self, account: Account, contact: Contact, stanza: Element) -> None:
        if contact.from_:
            self._between("subscribed", account.jid, contact.jid)
            self._domain.presences.show(account, contact.jid)
        elif contact.request is None:
            _keep(account, contact)
            contact.request = stanza
            for session in self._domain.available(account.jid):
                session.send(stanza)

    def _hide(self, account: Account, contact: Contact) -> None:
        self._between("unsubscribed", account.jid, contact.jid)
        if contact.from_:
            self._domain.presences.hide(account, contact.jid)
        contact.from_, contact.request = False, None

    def _between(self, word: str, from_: str, to: str) -> None:
        self._domain.router.route(E(PRESENCE, {"type": word, "from": from_, "to": to, "id": new_id()}))

    # Items

    def _listed(self, account: Account, address: str) -> Contact:
        if address == account.jid:
            raise StanzaError("not-allowed", "nobody is in their own roster")
        contact = account.contact(address)
        _keep(account, contact)
        contact.listed = True
        return contact

    def _push(self, account: Account, contact: Contact, *, removed: bool = False) -> None:
        if not (contact.visible or removed):
            return
        for session in self._domain.connected(account.jid):
            if session.interested:
                query = E(f"{ROSTER}query", None, _item(contact, removed=removed))
                session.send(E(IQ, {"type": "set", "id": new_id(), "to": session.jid.full}, query))


def _keep(account: Account, contact: Contact) -> None:
    if contact.jid not in account.roster and len(account.roster) >= MAX_ROSTER:
        raise StanzaError("resource-constraint", f"a roster may have {MAX_ROSTER} entries")
    account.roster[contact.jid] = contact


def _item(contact: Contact, *, removed: bool = False) -> Element:
    attributes = {
        "jid": contact.jid,
        "name": contact.name,
        "subscription": "remove" if removed else contact.subscription,
        "ask": "subscribe" if contact.ask else None,
    }
    return E(f"{ROSTER}item", attributes, *(E(f"{ROSTER}group", None, group) for group in contact.groups))
