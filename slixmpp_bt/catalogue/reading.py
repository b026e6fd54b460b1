"""Reading a node: in batches that no server cuts, whatever it can."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from xml.etree.ElementTree import Element

from slixmpp import JID

from ..errors import ProtocolError
from ..stanza import pubsub, size_of

#: So many items are asked for at once. An item has 9,000 bytes at most, and servers let stanzas of 256 KiB through.
BATCH = 20
#: So many items of one node are read, and about so many bytes of info dicts in them: no more are taken anyway.
MOST, MOST_BYTES = 2_000, 8 * 1024 * 1024
#: About so many bytes are asked for at once where a server has no pages: other servers take stanzas of 512 KiB at most,
#: the own one sends what it likes.
FAR, NEAR = 200_000, 8_000_000


class Query(Protocol):
    """Sends an iq with a payload, and returns the whole iq that answers it.

    :raises ProtocolError: the answer is an error.
    :raises PeerGone: there is no answer, or no session.
    """

    async def __call__(self, payload: Element, to: JID, kind: Literal["get", "set"]) -> Element: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a node.

    :ivar items: those that were read: all, but for those that were known.
    :ivar ids: of everything that is in it; None if that could not be found out.
    """

    items: tuple[pubsub.Item, ...]
    ids: frozenset[str] | None


async def read(query: Query, jid: JID, node: str, known: Collection[str] = (), room: int = FAR) -> Listing:
    """Read a node of the account `jid`: at most :data:`MOST` items, and little more than :data:`MOST_BYTES`. Cancelling
    it does no harm.

    A small node takes one request. A large one is read by pages (XEP-0059) where the answer shows that there are such.
    Else as many as fit are asked for, and the others by the ids that disco#items gives. Strangers are not told those
    (XEP-0030 section 8), and get no more than fit.

    :param known: ids of items that need not be read again.
    :param room: so many bytes, about, may one answer have: :data:`FAR` or :data:`NEAR`.
    :raises ProtocolError: the server says why not.
    :raises PeerGone: it does not answer.
    """
    answer = await query(pubsub.ask_newest(node, BATCH), jid, "get")
    newest = pubsub.read_page(answer, node)
    if newest.last is not None and newest.count is not None and newest.count > len(newest.items):
        return await _by_pages(query, jid, node)
    if newest.last is not None or len(newest.items) < BATCH:
        return _all(newest.items)
    return await _by_ids(query, jid, node, known, len(newest.items) * room // size_of(answer))


async def read_ids(query: Query, jid: JID, node: str) -> frozenset[str]:
    """The ids of a node's items; empty if there is no such node.

    :raises ProtocolError: the server says why not.
    :raises PeerGone: it does not answer.
    """
    try:
        return frozenset(pubsub.read_ids(await query(pubsub.ask_ids(node), jid, "get")))
    except ProtocolError as error:
        if error.condition != "item-not-found":
            raise
        return frozenset()


async def _by_pages(query: Query, jid: JID, node: str) -> Listing:
    there: dict[str, pubsub.Item] = {}
    after: str | None = None
    while len(there) < MOST and _weight(there) < MOST_BYTES:
        page = pubsub.read_page(await query(pubsub.ask_page(node, BATCH, after), jid, "get"), node)
        new = {item.id: item for item in page.items if item.id not in there}
        there |= new
        if not new or page.last is None or len(there) >= (page.count or 0):
            return _all(tuple(there.values()))
        after = page.last
    return Listing(tuple(there.values()), None)


async def _by_ids(query: Query, jid: JID, node: str, known: Collection[str], fit: int) -> Listing:
    """As many of the newest as `fit` one answer, and by their ids what is missing then."""
    try:
        ids = pubsub.read_ids(await query(pubsub.ask_ids(node), jid, "get"))
    except ProtocolError:
        page = pubsub.read_page(await query(pubsub.ask_newest(node, min(fit, MOST)), jid, "get"), node)
        return _all(page.items) if len(page.items) < min(fit, MOST) else Listing(page.items, None)
    missing = [id for id in ids if id not in known and pubsub.may_be_offer(id)]
    there: dict[str, pubsub.Item] = {}
    if len(missing) > BATCH:  # one by one is slow: for each item, Prosody reads all of them from its disk
        answer = await query(pubsub.ask_newest(node, min(fit, len(ids), MOST)), jid, "get")
        there = {item.id: item for item in pubsub.read_page(answer, node).items}
        missing = [id for id in missing if id not in there]
    for start in range(0, min(len(missing), MOST), BATCH):
        if _weight(there) >= MOST_BYTES:
            break
        batch = pubsub.ask_items(node, missing[start : start + BATCH])
        there |= {item.id: item for item in pubsub.read_page(await query(batch, jid, "get"), node).items}
    return Listing(tuple(there.values()), frozenset(ids) | frozenset(there))


def _weight(items: Mapping[str, pubsub.Item]) -> int:
    return sum(len(item.offer.info or b"") for item in items.values() if item.offer is not None)


def _all(items: tuple[pubsub.Item, ...]) -> Listing:
    return Listing(items, frozenset(item.id for item in items))
