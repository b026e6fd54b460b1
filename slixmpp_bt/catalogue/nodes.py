"""The account's own nodes: made, configured, and never fuller than the server lets them be."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element

from slixmpp import JID

from ..access import Access
from ..constants import STANZA_BUDGET
from ..errors import BTError, ConfigError, LimitExceeded, NotSupported, ProtocolError
from ..messages import Offer
from ..stanza import pubsub, size_of
from .reading import Query, read_ids

log = logging.getLogger(__name__)

#: How a node is wanted, as far as the server knows these options.
_WANTED = {
    "persist_items": "1",
    "deliver_payloads": "1",
    "deliver_notifications": "1",
    "notify_retract": "1",
    # ejabberd takes subscribers of other servers for absent. News are headlines, which nobody keeps for who is away.
    "presence_based_delivery": "0",
    "notification_type": "headline",
    "send_last_published_item": "on_sub_and_presence",
}
#: So many items are wanted in a node, and no more are asked for.
_MOST = 10_000
#: What a server says no with to what it does not have.
_REFUSALS = frozenset({
    "bad-request", "conflict", "feature-not-implemented", "forbidden", "not-acceptable", "not-allowed",
    "resource-constraint", "service-unavailable",
})  # fmt: skip
#: So many items are on their way at once: a server takes a while for each, and each answer is waited for.
_AT_ONCE = 4
#: Room for what a publish has around its item: stanza, node, id and options.
_AROUND = 1_000


@dataclass(slots=True)
class _Node:
    """What is known of a node in this session.

    :ivar limit: how many items it may have; None where the server does not say.
    :ivar ids: of the items that are in it, other devices' too; `coming`: of those that are on their way.
    :ivar widened: whether the server was asked for more room already.
    """

    access: Access
    limit: int | None
    ids: set[str]
    coming: set[str] = field(default_factory=set)
    widened: bool = False

    def has_room(self, count: int) -> bool:
        """Whether so many more fit."""
        return self.limit is None or len(self.ids | self.coming) + count <= self.limit


class Nodes:
    """Implements :class:`~slixmpp_bt.shelf.Shelf` over PubSub.

    :param owner: the account.
    :param members: the bare JIDs of those in these groups of the roster who see the account's presence.
    :param lost: called with a node some of whose items have fallen out.
    """

    def __init__(
        self,
        query: Query,
        owner: Callable[[], JID],
        members: Callable[[frozenset[str]], frozenset[str]],
        lost: Callable[[str], None],
    ) -> None:
        self._query = query
        self._owner = owner
        self._members = members
        self._lost = lost
        self._nodes: dict[str, _Node] = {}
        self._sending = asyncio.Semaphore(_AT_ONCE)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def session_started(self) -> None:
        """What was known may have changed."""
        self._nodes.clear()

    def heard(self, event: pubsub.Event) -> None:
        """Something has happened to a node, perhaps by another device."""
        node = self._nodes.get(event.node)
        if node is not None:
            node.ids.update(item.id for item in event.items)
            node.ids.difference_update(event.retracted)
            if event.emptied:
                del self._nodes[event.node]

    async def ids(self, node: str) -> frozenset[str]:
        """The ids of the items that are in it now; empty if there is no such node.

        :raises BTError: the server cannot be asked.
        """
        return await read_ids(self._query, self._owner(), node)

    async def prepare(self, node: str, access: Access, coming: int = 0) -> None:
        """See :meth:`slixmpp_bt.shelf.Shelf.prepare`.

        :param coming: so many items beside this one are about to be published.
        """
        async with self._locks[node]:
            known = await self._open(node, access)
            await self._make_room(node, known, coming + 1)

    async def publish(self, offer: Offer, node: str, access: Access) -> None:
        """See :meth:`slixmpp_bt.shelf.Shelf.publish`. An offer whose info dict does not fit is published without."""
        async with self._locks[node]:
            known = await self._open(node, access)
            if offer.id not in known.ids:
                await self._make_room(node, known, 1)
            known.coming.add(offer.id)
        if size_of(pubsub.build_item(offer)) > STANZA_BUDGET - _AROUND:
            offer = replace(offer, info=None)
        try:
            async with self._sending:
                await self._set(pubsub.publish(node, offer, {"access_model": _model(access)}))
            known.ids.add(offer.id)
        except ProtocolError as error:
            if error.condition == "conflict":
                self._nodes.pop(node, None)
                raise ConfigError(f"access: somebody has changed whom {node} lets in") from error
            raise
        finally:
            known.coming.discard(offer.id)
        if known.limit is None:
            await self._check_for_losses(offer.id, node, known)

    async def retract(self, id: str, node: str, access: Access) -> None:
        """See :meth:`slixmpp_bt.shelf.Shelf.retract`."""
        told = self._set(pubsub.withdraw(node, id, {"access_model": _model(access)}))
        # Both leave before the first is answered: this may be the last that this side says.
        outcomes = await asyncio.gather(told, self._set(pubsub.retract(node, id)), return_exceptions=True)
        if isinstance(outcomes[0], BaseException):
            log.debug("that %s is withdrawn was not told: %s", id, outcomes[0])
        if isinstance(outcomes[1], BaseException) and getattr(outcomes[1], "condition", None) != "item-not-found":
            raise outcomes[1]
        if node in self._nodes:
            self._nodes[node].ids.discard(id)

    async def roster_changed(self) -> None:
        """Somebody may have entered or left a group."""
        for name, node in list(self._nodes.items()):
            if node.access.model == "group":
                try:
                    await self._let_in(name, self._names(node.access))
                except BTError as error:
                    log.warning("%s was not told who is in its groups now: %s", name, error)

    # opening

    async def _open(self, node: str, access: Access) -> _Node:
        """The node, made and configured as it has to be."""
        known = self._nodes.get(node)
        if known is None:
            known = self._nodes[node] = await self._find(node, access)
        elif known.access != access:
            if known.ids | known.coming:
                raise _taken(node, known.access)
            del self._nodes[node]
            return await self._open(node, access)
        return known

    async def _find(self, node: str, access: Access) -> _Node:
        config, new = await self._config(node), False
        if config is None:
            await self._create(node, access)
            config, new = await self._config(node), True
        if config is None:
            raise NotSupported("the server has no PEP (XEP-0163): it forgets nodes")
        ids = set(await self.ids(node))
        await self._restrict(node, access, config, ids)
        there = {name: config.value(name) for name in _WANTED}
        changes = {name: value for name, value in _WANTED.items() if _plain(there[name]) not in (None, value)}
        if changes:
            await self._change(node, changes)
        known = _Node(access, _whole(config.value("max_items")), ids)
        if new or (known.limit is None and config.value("max_items") is not None):
            await self._widen(node, known, config.most_items)
        return known

    async def _config(self, node: str) -> pubsub.NodeConfig | None:
        try:
            return pubsub.read_config(await self._query(pubsub.ask_config(node), self._owner(), "get"))
        except ProtocolError as error:
            if error.condition == "item-not-found":
                return None
            if error.condition in _REFUSALS:
                raise NotSupported(f"the server has no PEP (XEP-0163) that can be configured: {error}") from error
            raise

    async def _create(self, node: str, access: Access) -> None:
        try:
            await self._set(pubsub.create(node, {"access_model": _model(access)}))
        except ProtocolError as error:
            if error.condition == "conflict":  # another device was faster
                return
            if error.condition in _REFUSALS:
                raise NotSupported(
                    f"the server makes no node with the access model {_model(access)}: {error}"
                ) from error
            raise

    async def _restrict(self, node: str, access: Access, config: pubsub.NodeConfig, ids: set[str]) -> None:
        """Let in exactly whom `access` means, unless others were promised something else."""
        if config.value("access_model") not in (None, _model(access)):
            if ids:
                raise _taken(node, None)
            if not await self._change(node, {"access_model": _model(access)}):
                raise NotSupported(f"the server does not give {node} the access model {_model(access)}")
        if _model(access) == "whitelist":
            there, wanted = await self._listed(node), self._names(access)
            if access.model == "whitelist" and ids and there != wanted:
                raise _taken(node, None)
            await self._let_in(node, wanted, there)

    async def _listed(self, node: str) -> frozenset[str]:
        answer = await self._query(pubsub.ask_affiliations(node), self._owner(), "get")
        found = pubsub.read_affiliations(answer)
        return frozenset(jid for jid, word in found.items() if word in ("member", "publisher"))

    async def _let_in(self, node: str, wanted: frozenset[str], there: frozenset[str] | None = None) -> None:
        there = await self._listed(node) if there is None else there
        new, old = wanted - there, there - wanted
        if not new and not old:
            return
        # In this order: Prosody makes nobody an outsider who is subscribed, and subscribes no outsider.
        await self._subscribe(node, dict.fromkeys(old, "none"))
        await self._set(pubsub.affiliate(node, dict.fromkeys(new, "member") | dict.fromkeys(old, "none")))
        await self._subscribe(node, dict.fromkeys(new, "subscribed"))

    async def _subscribe(self, node: str, states: Mapping[str, str]) -> None:
        """Those on a whitelist are not told the news by ejabberd, but for subscribers."""
        if states:
            try:
                await self._set(pubsub.subscribe(node, states))
            except ProtocolError as error:
                log.debug("the subscriptions to %s stay as they are: %s", node, error)

    def _names(self, access: Access) -> frozenset[str]:
        return self._members(access.names) if access.model == "group" else access.names

    # room

    async def _make_room(self, node: str, known: _Node, count: int) -> None:
        """
        :raises LimitExceeded: there is none for so many more.
        """
        if not known.has_room(count):
            await self._widen(node, known)
        if not known.has_room(count):
            raise _full(node, known)

    async def _widen(self, node: str, known: _Node, most: int | None = None) -> None:
        """Ask the server for more room, once in a session. Where it does not say how much it
        allows (`most`), that is found out by halving."""
        if known.widened:
            return
        known.widened = True
        if most is None and (config := await self._config(node)) is not None:
            most = config.most_items
        # What was allowed at last, and the least that is sure to be refused.
        low, high = known.limit or 0, (most or _MOST) + 1
        probe = low + 1 if known.ids and most is None else high - 1
        while high - low > 1:
            if await self._change(node, {"max_items": str(probe)}):
                low = known.limit = probe
            else:
                high = probe
            probe = (low + high) // 2

    async def _check_for_losses(self, id: str, node: str, known: _Node) -> None:
        """The server does not say how many items it keeps: look whether an old one had to make room."""
        there = await self.ids(node)
        if lost := known.ids - there:
            known.limit, known.ids = len(there), set(there)
            await self.retract(id, node, known.access)
            log.warning("%s keeps %d items only; %d fell out and are published again", node, known.limit, len(lost))
            self._lost(node)
            raise _full(node, known)

    async def _change(self, node: str, fields: pubsub.Fields) -> bool:
        """Change the configuration; whether the server does that."""
        try:
            await self._set(pubsub.configure(node, fields))
        except ProtocolError as error:
            if error.condition not in _REFUSALS:
                raise
            log.debug("%s cannot be configured with %s: %s", node, fields, error)
            return False
        return True

    async def _set(self, payload: Element) -> None:
        await self._query(payload, self._owner(), "set")


def _model(access: Access) -> str:
    """The access model of the node. Not ``roster``: Prosody does not have it, and ejabberd's keeps out the owner."""
    return access.model if access.model in ("presence", "open") else "whitelist"


def _full(node: str, known: _Node) -> LimitExceeded:
    return LimitExceeded(
        f"{node} has {len(known.ids)} items, and the server keeps {known.limit}: one more would push out the oldest"
    )


def _taken(node: str, access: Access | None) -> ConfigError:
    whom = f"for {access!r}" if access is not None else "for others"
    return ConfigError(f"access: what is in {node} is {whom}; name another node, or withdraw that first")


def _plain(value: str | None) -> str | None:
    """A boolean as one digit (XEP-0004 section 3.3 has two ways to write one); anything else as it is."""
    return {"true": "1", "false": "0"}.get(value, value) if value is not None else None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
