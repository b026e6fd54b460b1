"""The PEP catalogue: offers that an account publishes, and what others publish (docs/protocol, section "Catalogues").

Own nodes are in :mod:`~slixmpp_bt.catalogue.nodes`, and what is in them is looked at by
:mod:`~slixmpp_bt.catalogue.looking`; others' are read by :mod:`~slixmpp_bt.catalogue.reading`, and what has appeared in
them goes through :mod:`~slixmpp_bt.catalogue.queue`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from xml.etree.ElementTree import Element

from slixmpp import JID

from ..access import Access
from ..context import Context
from ..errors import BTError, PeerNotFound, ProtocolError
from ..incoming import IncomingOffer
from ..intake import Intake
from ..policy import Peer
from ..registry import Registry
from ..stanza import pubsub
from .looking import look_round
from .nodes import Nodes
from .queue import Queue
from .reading import FAR, NEAR, Query, read

log = logging.getLogger(__name__)

#: XEP-0498 section 5.2: a directory is a node of this name, an id of one's own, and a path.
_DIRECTORY = "urn:xmpp:pubsub-file-sharing:0:slixmpp-bt/"
#: The nodes that everybody is told about. A node has one access model, so there is one for each.
DEFAULT_NODES = tuple(_DIRECTORY + model for model in ("presence", "group", "whitelist", "open"))
#: So many further nodes are watched, and so long may a node's name be.
_MAX_WATCHED, _MAX_NODE = 64, 1_023
#: Answers that mean "nothing for you": no such node or account, no PEP there, not let in.
_NOTHING = frozenset({
    "feature-not-implemented", "forbidden", "item-not-found", "not-allowed", "not-authorized", "payment-required",
    "service-unavailable", "subscription-required",
})  # fmt: skip


class Catalogue:
    """What the plugin's account publishes, and what it reads of others.

    :ivar nodes: the account's own.
    :ivar watched: the nodes whose news are wanted.
    :param local: the own full JID.
    :param peer_of: what is known of an account.
    :param members: who is in some groups of the roster, and sees the account's presence.
    :param watch: called with a node to be told of its news from now on.
    :param withdrawn: told which items are gone, and whose.
    """

    def __init__(
        self,
        context: Context,
        registry: Registry,
        intake: Intake,
        query: Query,
        *,
        local: Callable[[], JID],
        peer_of: Callable[[JID, JID], Peer],
        members: Callable[[frozenset[str]], frozenset[str]],
        watch: Callable[[str], None],
        withdrawn: Callable[[str, str], None],
    ) -> None:
        self.watched = set(DEFAULT_NODES)
        self._context = context
        self._registry = registry
        self._intake = intake
        self._query = query
        self._local = local
        self._peer_of = peer_of
        self._watch = watch
        self._withdrawn = withdrawn
        self._queue = Queue(context, registry, intake.authorize)
        #: Nodes that were read in this session, by publisher.
        self._caught_up: set[tuple[str, str]] = set()
        self._looking = False
        self.nodes = Nodes(query, lambda: JID(local().bare), members, self._republish)

    @staticmethod
    def node_for(access: Access, node: str | None) -> str:
        """The node for offers with this access.

        :raises ValueError: `node` is no name of a node.
        """
        if node is not None and not (isinstance(node, str) and 0 < len(node) <= _MAX_NODE):
            raise ValueError(f"node must be the name of a PubSub node, not {node!r}")
        return node if node is not None else _DIRECTORY + access.model

    async def prepare(self, node: str, access: Access) -> None:
        """See that one more offer can be published there; raises as :meth:`slixmpp_bt.shelf.Shelf.prepare`."""
        coming = sum(own.node == node and own.alive and not own.is_published for own in self._registry.published())
        await self.nodes.prepare(node, access, coming)

    # what others publish

    async def read(self, jid: JID, node: str | None) -> list[IncomingOffer]:
        """What the account `jid` publishes in `node`, or in the usual ones; without this very client's.

        :raises PeerNotFound: its server cannot be reached.
        :raises ProtocolError: it does not let this side read `node`.
        :raises PeerGone: there is no session, or no answer.
        """
        if node is not None and node not in self.watched and len(self.watched) < _MAX_WATCHED:
            self.watched.add(node)
            self._watch(node)
        peer = self._peer_of(JID(jid.bare), self._local())
        nodes = (node,) if node is not None else DEFAULT_NODES
        found = await asyncio.gather(*(self._read(peer, each, strict=node is not None) for each in nodes))
        return [offer for offers in found for offer in offers]

    async def _read(self, peer: Peer, node: str, *, strict: bool) -> list[IncomingOffer]:
        before = self._registry.items_of(peer.owner, node)
        try:
            listing = await read(self._query, JID(peer.jid.bare), node, room=self._room(peer))
        except ProtocolError as error:
            if error.condition in ("remote-server-not-found", "remote-server-timeout"):
                raise PeerNotFound(f"the server of {peer.jid.bare} cannot be reached") from error
            if error.condition not in _NOTHING or (strict and error.condition != "item-not-found"):
                raise
            return []
        self._keep(before, listing.ids)
        return [offer async for offer in self._take_all(listing.items, peer, node)]

    def _room(self, peer: Peer) -> int:
        return NEAR if peer.jid.domain == self._local().domain else FAR

    async def _take_all(self, items: Iterable[pubsub.Item], peer: Peer, node: str) -> AsyncIterator[IncomingOffer]:
        """As :meth:`_take`, and others on the event loop have their turn after each."""
        for item in items:
            if (offer := self._take(item, peer, node)) is not None:
                yield offer
            await asyncio.sleep(0)

    def _take(self, item: pubsub.Item, peer: Peer, node: str) -> IncomingOffer | None:
        return self._intake.take_item(item.offer, peer, self._local(), node) if item.offer is not None else None

    def _keep(self, offers: Iterable[IncomingOffer], ids: frozenset[str] | None) -> None:
        """What is not among `ids` any more is gone."""
        for offer in offers:
            if ids is not None and offer.id not in ids:
                self._registry.vanished(offer)

    # news

    def heard(self, message: Element, sender: JID) -> None:
        """An event has come. It counts if it is from an account whose presence this one sees, or from this one; who
        is said to have published an item means nothing."""
        event, local = pubsub.read_event(message), self._local()
        if event is None or sender.resource or event.node not in self.watched:
            return
        peer = self._peer_of(sender, local)
        if peer.subscription not in ("to", "both") or peer.room is not None:
            log.debug("news of %s, whose presence is not seen, are ignored", sender)
            return
        if sender.bare == local.bare:
            self.nodes.heard(event)
        for offer in self._registry.items_of(peer.owner, event.node):
            if event.emptied or offer.id in event.retracted:
                self._registry.vanished(offer)
        for id in event.retracted:
            self._withdrawn(id, peer.owner)
        for item in event.items:
            if item.offer is not None and self._registry.is_new(peer.owner, item.id):
                taken = self._take(item, peer, event.node)
                if taken is not None:
                    self._queue.appeared(taken)
        if event.items:
            self._catch_up(peer, event.node)

    def _catch_up(self, peer: Peer, node: str) -> None:
        """The first news of a publisher in a session may be what was published last while this side was away."""
        if (peer.owner, node) not in self._caught_up:
            self._caught_up.add((peer.owner, node))
            self._context.tasks.spawn(self._read_missed(peer, node), f"catalogue of {peer.owner}")

    async def _read_missed(self, peer: Peer, node: str) -> None:
        before = self._registry.items_of(peer.owner, node)
        known = self._registry.known_ids(peer.owner)
        try:
            listing = await read(self._query, JID(peer.jid.bare), node, known, self._room(peer))
        except BTError as error:
            log.info("the catalogue of %s was not read: %s", peer.owner, error)
            return
        self._keep(before, listing.ids)
        new = (item for item in listing.items if self._registry.is_new(peer.owner, item.id))
        await self._queue.found([offer async for offer in self._take_all(new, peer, node)])

    # sessions

    def session_started(self) -> None:
        """There is a session again, and what an earlier run has left is taken up."""
        self.nodes.session_started()
        self._caught_up.clear()
        if not self._looking:
            self._looking = True
            self._context.tasks.spawn(look_round(self._registry.published), "look at what is published")
        self._context.tasks.spawn(self._reconcile(), "reconcile catalogue")
        restored, self._registry.restored_items = self._registry.restored_items, []
        for offer in restored:
            self._queue.appeared(offer)
        # Where everything was retracted meanwhile, no news will come.
        for peer, node in {(o.key, o.node): (o.source, o.node) for o in self._registry.items_of()}.values():
            if node is not None:
                self._catch_up(peer, node)

    def roster_changed(self) -> None:
        """Somebody may have entered or left a group."""
        self._context.tasks.spawn(self.nodes.roster_changed(), "roster groups")

    def _republish(self, node: str) -> None:
        self._context.tasks.spawn(self._reconcile(node), f"publish again in {node}")

    async def _reconcile(self, only: str | None = None) -> None:
        """Compare what the nodes have with what they are to have. Other devices' items are left alone."""
        nodes = {own.node for own in self._registry.published() if own.node is not None}
        for node in nodes if only is None else nodes & {only}:
            try:
                ids = await self.nodes.ids(node)
            except BTError as error:
                log.warning("%s was not compared with what is to be in it: %s", node, error)
                continue
            for own in self._registry.published():
                if own.node == node:
                    await own.review(is_there=own.id in ids)


__all__ = ["DEFAULT_NODES", "Catalogue", "Query"]
