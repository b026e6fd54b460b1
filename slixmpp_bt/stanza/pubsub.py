"""Offers as items of PubSub nodes: requests (XEP-0060), their answers, and events. The only PubSub of this library.

What comes from a server is hostile here as anywhere: a reader returns what is well formed, and leaves out the rest or
raises :class:`~slixmpp_bt.errors.ProtocolError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement

from .. import messages
from ..constants import NS
from ..errors import ProtocolError
from .sharing import read_offer, write_offer
from .values import NS_SFS, TOKEN, element, malformed

NS_PUBSUB = "http://jabber.org/protocol/pubsub"
NS_EVENT, NS_OWNER = f"{NS_PUBSUB}#event", f"{NS_PUBSUB}#owner"
NS_DATA, NS_VALIDATE = "jabber:x:data", "http://jabber.org/protocol/xdata-validate"
NS_RSM, NS_ITEMS = "http://jabber.org/protocol/rsm", "http://jabber.org/protocol/disco#items"
#: What :class:`slixmpp.xmlstream.matcher.MatchXPath` finds events by.
EVENT_XPATH = f"{{*}}message/{{{NS_EVENT}}}event"

#: At most so many ids of one node are read, and so many characters of one.
MAX_IDS, _MAX_ITEM_ID = 20_000, 1_023
#: At most so many items of one event are read. Servers send one; more would hold up the event loop.
MAX_NEWS = 20

#: Values of a data form by their field, without ``pubsub#``.
Fields: TypeAlias = Mapping[str, str | Iterable[str]]


@dataclass(frozen=True, slots=True)
class Item:
    """An item: its id, and the offer in it; None where there is none that can be read."""

    id: str
    offer: messages.Offer | None


@dataclass(frozen=True, slots=True)
class Page:
    """Items of a node.

    :ivar last: what to ask for the next page with (XEP-0059); None where the server has no pages.
    :ivar count: how many items the node has, where the server has pages and says so.
    """

    items: tuple[Item, ...]
    last: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened to a node.

    :ivar retracted: the ids of items that are gone, or withdrawn.
    :ivar emptied: whether all its items are gone.
    """

    node: str
    items: tuple[Item, ...] = ()
    retracted: frozenset[str] = frozenset()
    emptied: bool = False


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A node's configuration: each field's values, and the most items that the server allows, where it says so."""

    values: Mapping[str, tuple[str, ...]]
    most_items: int | None = None

    def value(self, name: str) -> str | None:
        """The first value of a field; None if there is no such field, or it is empty."""
        values = self.values.get(name)
        return values[0] if values else None


# Requests


def create(node: str, fields: Fields) -> Element:
    """Make a node (XEP-0060 section 8.1.3)."""
    pubsub = _request(NS_PUBSUB, "create", node)[0]
    SubElement(pubsub, f"{{{NS_PUBSUB}}}configure").append(_form("node_config", fields))
    return pubsub


def ask_config(node: str) -> Element:
    """Ask for a node's configuration (section 8.2)."""
    return _request(NS_OWNER, "configure", node)[0]


def configure(node: str, fields: Fields) -> Element:
    """Change a node's configuration."""
    pubsub, action = _request(NS_OWNER, "configure", node)
    action.append(_form("node_config", fields))
    return pubsub


def ask_affiliations(node: str) -> Element:
    """Ask who may do what (section 8.9)."""
    return _request(NS_OWNER, "affiliations", node)[0]


def affiliate(node: str, affiliations: Mapping[str, str]) -> Element:
    """Say who may do what: affiliations by bare JID."""
    pubsub, action = _request(NS_OWNER, "affiliations", node)
    for jid, affiliation in sorted(affiliations.items()):
        SubElement(action, f"{{{NS_OWNER}}}affiliation", {"jid": jid, "affiliation": affiliation})
    return pubsub


def subscribe(node: str, subscriptions: Mapping[str, str]) -> Element:
    """Say who is subscribed (section 8.8): subscriptions by bare JID."""
    pubsub, action = _request(NS_OWNER, "subscriptions", node)
    for jid, state in sorted(subscriptions.items()):
        SubElement(action, f"{{{NS_OWNER}}}subscription", {"jid": jid, "subscription": state})
    return pubsub


def publish(node: str, offer: messages.Offer, expected: Fields) -> Element:
    """Publish an offer (section 7.1), if the node is configured as `expected`."""
    pubsub, action = _request(NS_PUBSUB, "publish", node)
    SubElement(action, f"{{{NS_PUBSUB}}}item", {"id": offer.id}).append(build_item(offer))
    SubElement(pubsub, f"{{{NS_PUBSUB}}}publish-options").append(_form("publish-options", expected))
    return pubsub


def withdraw(node: str, id: str, expected: Fields) -> Element:
    """Publish in the item's place that it is withdrawn: ejabberd tells only subscribers when an item is retracted, not
    who has asked for news by entity capabilities."""
    pubsub, action = _request(NS_PUBSUB, "publish", node)
    said = element("withdraw", id=id)
    SubElement(action, f"{{{NS_PUBSUB}}}item", {"id": id}).append(said)
    SubElement(pubsub, f"{{{NS_PUBSUB}}}publish-options").append(_form("publish-options", expected))
    return pubsub


def retract(node: str, id: str) -> Element:
    """Take an item out of a node, and have everybody told (section 7.2)."""
    pubsub, action = _request(NS_PUBSUB, "retract", node)
    action.set("notify", "true")
    SubElement(action, f"{{{NS_PUBSUB}}}item", {"id": id})
    return pubsub


def ask_newest(node: str, most: int) -> Element:
    """Ask for the newest items (section 6.5.7)."""
    pubsub, action = _request(NS_PUBSUB, "items", node)
    action.set("max_items", str(most))
    return pubsub


def ask_items(node: str, ids: Iterable[str]) -> Element:
    """Ask for items by their ids (section 6.5.8)."""
    pubsub, action = _request(NS_PUBSUB, "items", node)
    for id in ids:
        SubElement(action, f"{{{NS_PUBSUB}}}item", {"id": id})
    return pubsub


def ask_page(node: str, most: int, after: str | None) -> Element:
    """Ask for the first items, or those after a page (section 6.5.4, XEP-0059)."""
    pubsub, _ = _request(NS_PUBSUB, "items", node)
    page = SubElement(pubsub, f"{{{NS_RSM}}}set")
    SubElement(page, f"{{{NS_RSM}}}max").text = str(most)
    if after is not None:
        SubElement(page, f"{{{NS_RSM}}}after").text = after
    return pubsub


def ask_ids(node: str) -> Element:
    """Ask for the ids of a node's items (section 5.5)."""
    return Element(f"{{{NS_ITEMS}}}query", {"node": node})


def build_item(offer: messages.Offer) -> Element:
    """The payload of an item: XEP-0498 section 4 has no ``disposition``."""
    sharing = write_offer(offer)
    del sharing.attrib["disposition"]
    return sharing


# Answers and events


def read_page(iq: Element, node: str) -> Page:
    """The items in an answer.

    :raises ProtocolError: it is no answer to that.
    """
    items = iq.find(f"{{{NS_PUBSUB}}}pubsub/{{{NS_PUBSUB}}}items")
    if items is None or items.get("node") != node:
        raise malformed("no items of the node that it was asked for")
    page = iq.find(f"{{{NS_PUBSUB}}}pubsub/{{{NS_RSM}}}set")
    found = tuple(_read_items(items, NS_PUBSUB))
    if page is None:
        return Page(found)
    last = page.findtext(f"{{{NS_RSM}}}last")
    # It is sent back, and what is too long for a stanza is no page's end.
    fits = last is not None and len(last) <= _MAX_ITEM_ID
    return Page(found, last if fits else None, _number(page.findtext(f"{{{NS_RSM}}}count")))


def read_ids(iq: Element) -> tuple[str, ...]:
    """The ids in an answer, at most :data:`MAX_IDS`.

    :raises ProtocolError: it is no answer to that.
    """
    query = iq.find(f"{{{NS_ITEMS}}}query")
    if query is None:
        raise malformed("no items of the node that it was asked for")
    names = (item.get("name", "") for item in query.iterfind(f"{{{NS_ITEMS}}}item"))
    return tuple(dict.fromkeys(name for name in names if 0 < len(name) <= _MAX_ITEM_ID))[:MAX_IDS]


def may_be_offer(id: str) -> bool:
    """Whether an item with this id can be an offer. Others are not worth asking for, nor fit by the dozen."""
    return TOKEN.fullmatch(id) is not None


def read_config(iq: Element) -> NodeConfig:
    """The configuration in an answer.

    :raises ProtocolError: there is none in it.
    """
    form = iq.find(f"{{{NS_OWNER}}}pubsub/{{{NS_OWNER}}}configure/{{{NS_DATA}}}x")
    if form is None:
        raise malformed("no configuration of the node")
    values: dict[str, tuple[str, ...]] = {}
    most = None
    for field in form.iterfind(f"{{{NS_DATA}}}field"):
        name = field.get("var", "").removeprefix("pubsub#")
        values[name] = tuple(value.text or "" for value in field.iterfind(f"{{{NS_DATA}}}value"))
        if name == "max_items":
            limit = field.find(f"{{{NS_VALIDATE}}}validate/{{{NS_VALIDATE}}}range")
            most = _number(limit.get("max")) if limit is not None else None
    return NodeConfig(values, most)


def read_affiliations(iq: Element) -> dict[str, str]:
    """Affiliations by JID."""
    found = iq.iterfind(f"{{{NS_OWNER}}}pubsub/{{{NS_OWNER}}}affiliations/{{{NS_OWNER}}}affiliation")
    return {entry.get("jid", ""): entry.get("affiliation", "") for entry in found}


def read_event(message: Element) -> Event | None:
    """What a message says has happened to a node; None if nothing. What is forwarded in it says nothing."""
    event = message.find(f"{{{NS_EVENT}}}event")
    if message.get("type") == "error" or event is None or not len(event):
        return None
    entry, node = event[0], event[0].get("node", "")
    if entry.tag in (f"{{{NS_EVENT}}}purge", f"{{{NS_EVENT}}}delete"):
        return Event(node, emptied=True)
    if entry.tag != f"{{{NS_EVENT}}}items":
        return None
    withdrawn = (item for item in entry.iterfind(f"{{{NS_EVENT}}}item") if item.find(f"{{{NS}}}withdraw") is not None)
    gone = (*entry.iterfind(f"{{{NS_EVENT}}}retract"), *withdrawn)
    news = islice(_read_items(entry, NS_EVENT), MAX_NEWS)
    return Event(node, tuple(news), frozenset(item.get("id", "") for item in gone))


def _read_items(items: Element, namespace: str) -> Iterator[Item]:
    for item in items.iterfind(f"{{{namespace}}}item"):
        id, sharing = item.get("id", ""), item.find(f"{{{NS_SFS}}}file-sharing")
        if not 0 < len(id) <= _MAX_ITEM_ID:
            continue
        try:
            offer = read_offer(sharing) if sharing is not None else None
        except ProtocolError:
            offer = None
        # An item that is retracted is known by its id, so it has to be the offer's.
        yield Item(id, offer if offer is not None and offer.id == id else None)


def _request(namespace: str, name: str, node: str) -> tuple[Element, Element]:
    pubsub = Element(f"{{{namespace}}}pubsub")
    return pubsub, SubElement(pubsub, f"{{{namespace}}}{name}", {"node": node})


def _form(kind: str, fields: Fields) -> Element:
    form = Element(f"{{{NS_DATA}}}x", {"type": "submit"})
    _field(form, "FORM_TYPE", [f"{NS_PUBSUB}#{kind}"]).set("type", "hidden")
    for name, value in fields.items():
        _field(form, f"pubsub#{name}", [value] if isinstance(value, str) else value)
    return form


def _field(form: Element, name: str, values: Iterable[str]) -> Element:
    field = SubElement(form, f"{{{NS_DATA}}}field", {"var": name})
    for value in values:
        SubElement(field, f"{{{NS_DATA}}}value").text = value
    return field


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else None
