"""The catalogue's parts by themselves: nodes, reading, and what is taken of what was read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement

import pytest
from slixmpp import JID

from slixmpp_bt import intake
from slixmpp_bt.access import Access
from slixmpp_bt.catalogue.nodes import Nodes
from slixmpp_bt.catalogue.queue import Queue
from slixmpp_bt.catalogue.reading import BATCH, MOST_BYTES, read
from slixmpp_bt.errors import ConfigError, LimitExceeded, NotSupported, ProtocolError
from slixmpp_bt.messages import Offer
from slixmpp_bt.stanza import pubsub, within_budget

from .fakes import WEEK, World, until
from .security.offers import large_offer, small_offer
from .servers import Loopback
from .world import Member, member

NODE = "urn:example:node"
PRESENCE = Access("presence")


@asynccontextmanager
async def shelf(tmp_path: Path, pep_items: int = 100) -> AsyncIterator[tuple[Nodes, Member, list[str]]]:
    """Nodes of an account on the loopback server, its client, and the nodes that have lost something."""
    lost: list[str] = []
    async with Loopback(pep_items) as server:
        one = await member(server, f"{await server.add_user('alice')}/laptop", tmp_path / "alice")
        account = JID(one.jid.bare)
        yield Nodes(one.bt._connection.query, lambda: account, lambda groups: frozenset(), lost.append), one, lost


def item(world: World, lasts: float = WEEK) -> Offer:
    """An offer that ends so many seconds after the world's own now."""
    return replace(small_offer(), expires=datetime.fromtimestamp(world.clock() + lasts, UTC))


async def test_node_is_made_as_wanted_and_holds_what_is_published(tmp_path: Path) -> None:
    async with shelf(tmp_path) as (nodes, one, _):
        offer = small_offer()
        await nodes.publish(offer, NODE, PRESENCE)
        await nodes.publish(offer, NODE, PRESENCE)
        assert await nodes.ids(NODE) == {offer.id}
        answer = await one.bt._connection.query(pubsub.ask_config(NODE), JID(one.jid.bare), "get")
        config = pubsub.read_config(answer)
        assert config.value("access_model") == "presence"
        assert config.value("max_items") == "100"
        assert config.value("send_last_published_item") == "on_sub_and_presence"
        for _ in range(2):
            await nodes.retract(offer.id, NODE, PRESENCE)
        assert await nodes.ids(NODE) == frozenset()


@pytest.mark.parametrize(("there", "changed"), [("true", True), ("1", True), ("false", False), ("0", False)])
async def test_node_tells_absent_subscribers_too_where_the_server_has_that(there: str, changed: bool) -> None:
    """ejabberd takes whoever has an account elsewhere for absent."""
    form = Element("iq")
    parts = (f"{{{pubsub.NS_OWNER}}}pubsub", f"{{{pubsub.NS_OWNER}}}configure", f"{{{pubsub.NS_DATA}}}x")
    inside = form
    for part in parts:
        inside = SubElement(inside, part)
    for name, text in (("persist_items", "true"), ("presence_based_delivery", there), ("max_items", "10")):
        field = SubElement(inside, f"{{{pubsub.NS_DATA}}}field", {"var": f"pubsub#{name}"})
        SubElement(field, f"{{{pubsub.NS_DATA}}}value").text = text
    said: list[str] = []

    async def answer(payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
        if payload.tag == f"{{{pubsub.NS_ITEMS}}}query":
            raise ProtocolError("there are none", "item-not-found")
        if kind == "set":
            said.extend(field.get("var", "") for field in payload.iter(f"{{{pubsub.NS_DATA}}}field"))
        return form

    await Nodes(answer, lambda: JID("alice@a.example"), lambda groups: frozenset(), said.append).prepare(NODE, PRESENCE)
    assert ("pubsub#presence_based_delivery" in said) is changed
    assert "pubsub#persist_items" not in said


async def test_node_takes_no_more_than_the_server_keeps(tmp_path: Path) -> None:
    async with shelf(tmp_path, 3) as (nodes, _, _):
        offers = [small_offer() for _ in range(3)]
        await nodes.prepare(NODE, PRESENCE, coming=2)
        with pytest.raises(LimitExceeded):
            await nodes.prepare(NODE, PRESENCE, coming=3)
        await asyncio.gather(*(nodes.publish(offer, NODE, PRESENCE) for offer in offers))
        with pytest.raises(LimitExceeded, match="keeps 3"):
            await nodes.publish(small_offer(), NODE, PRESENCE)
        await nodes.publish(offers[0], NODE, PRESENCE)  # it is there already
        assert await nodes.ids(NODE) == {offer.id for offer in offers}


async def test_node_of_another_access_is_used_only_once_it_is_empty(tmp_path: Path) -> None:
    async with shelf(tmp_path) as (nodes, _, _):
        offer = small_offer()
        await nodes.publish(offer, NODE, PRESENCE)
        for _ in range(2):
            with pytest.raises(ConfigError, match="another node"):
                await nodes.prepare(NODE, Access("open"))
            nodes.session_started()  # and so it has to find out
        await nodes.retract(offer.id, NODE, PRESENCE)
        await nodes.prepare(NODE, Access("open"))
        await nodes.publish(offer, NODE, Access("open"))


async def test_server_that_does_not_say_how_much_it_keeps_is_found_out(tmp_path: Path) -> None:
    """One that has no max_items in its configuration, and lets the oldest fall out."""
    async with shelf(tmp_path, 2) as (real, one, _):
        lost: list[str] = []

        async def silent(payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
            answer = await one.bt._connection.query(payload, to, kind)
            for form in answer.iter(f"{{{pubsub.NS_DATA}}}x"):
                for field in [f for f in form if f.get("var") == "pubsub#max_items"]:
                    form.remove(field)
            return answer

        await real.prepare(NODE, PRESENCE)  # it is two
        nodes = Nodes(silent, real._owner, lambda groups: frozenset(), lost.append)
        offers = [small_offer() for _ in range(3)]
        for offer in offers[:2]:
            await nodes.publish(offer, NODE, PRESENCE)
        with pytest.raises(LimitExceeded, match="keeps 2"):
            await nodes.publish(offers[2], NODE, PRESENCE)
        assert lost == [NODE]
        assert await nodes.ids(NODE) == {offers[1].id}
        with pytest.raises(LimitExceeded):
            await nodes.prepare(NODE, PRESENCE, coming=1)


async def test_few_items_are_on_their_way_at_once(tmp_path: Path) -> None:
    """A slow server takes longer for hundreds than an answer is waited for."""
    async with shelf(tmp_path) as (real, one, _):
        under_way, most = 0, 0

        async def query(payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await one.bt._connection.query(payload, to, kind)
            finally:
                under_way -= 1

        nodes = Nodes(query, real._owner, lambda groups: frozenset(), lambda node: None)
        await asyncio.gather(*(nodes.publish(small_offer(), NODE, PRESENCE) for _ in range(40)))
        assert len(await nodes.ids(NODE)) == 40
        assert most == 4


@pytest.mark.parametrize("condition", ["not-acceptable", "feature-not-implemented", "service-unavailable"])
async def test_server_without_such_nodes_is_not_supported(condition: str) -> None:
    async def refuse(payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
        raise ProtocolError("no", "item-not-found" if kind == "get" else condition)

    nodes = Nodes(refuse, lambda: JID("alice@a.example"), lambda groups: frozenset(), lambda node: None)
    with pytest.raises(NotSupported):
        await nodes.prepare(NODE, PRESENCE)


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
@pytest.mark.parametrize("refused", [False, True])
async def test_reading_gives_everything_whatever_the_server_can(tmp_path: Path, count: int, refused: bool) -> None:
    async with shelf(tmp_path) as (nodes, one, _):
        await nodes.prepare(NODE, PRESENCE)
        offers = [small_offer() for _ in range(count)]
        await asyncio.gather(*(nodes.publish(offer, NODE, PRESENCE) for offer in offers))

        async def query(payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
            if refused and payload.tag == f"{{{pubsub.NS_ITEMS}}}query":
                raise ProtocolError("strangers are not told", "service-unavailable")
            return await one.bt._connection.query(payload, to, kind)

        ids = {offer.id for offer in offers}
        for room in (10_000, 1_000_000):
            listing = await read(query, JID(one.jid.bare), NODE, room=room)
            if not refused or room > 10_000 or count < BATCH:
                assert {each.id for each in listing.items} == ids == set(listing.ids or ())
            else:
                assert listing.ids is None
                assert {each.id for each in listing.items} < ids


class Hostile:
    """A server that answers as no server should: pages without end, of the largest info dicts there are, or ids that
    fit no request."""

    def __init__(self, size: int, ids: tuple[str, ...] = ()) -> None:
        self.asked: list[Element] = []
        self._info = b"x" * size
        self._ids = ids

    async def query(self, payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
        within_budget(payload)
        self.asked.append(payload)
        iq = Element("iq")
        if payload.tag == f"{{{pubsub.NS_ITEMS}}}query":
            query = SubElement(iq, payload.tag)
            for id in self._ids:
                SubElement(query, f"{{{pubsub.NS_ITEMS}}}item", {"name": id})
            return iq
        answer = SubElement(iq, f"{{{pubsub.NS_PUBSUB}}}pubsub")
        items = SubElement(answer, f"{{{pubsub.NS_PUBSUB}}}items", {"node": NODE})
        for _ in range(BATCH if self._ids else 1):
            offer = replace(small_offer(), info=self._info)
            SubElement(items, f"{{{pubsub.NS_PUBSUB}}}item", {"id": offer.id}).append(pubsub.build_item(offer))
        if not self._ids:
            page = SubElement(answer, f"{{{pubsub.NS_RSM}}}set")
            SubElement(page, f"{{{pubsub.NS_RSM}}}count").text = "999999999"
            SubElement(page, f"{{{pubsub.NS_RSM}}}last").text = f"{len(self.asked)}"
        return iq


async def test_reading_ends_when_it_has_become_too_much() -> None:
    pages = Hostile(190_000)
    listing = await read(pages.query, JID("eve@e.example"), NODE)
    assert len(pages.asked) == len(listing.items) + 1 == -(-MOST_BYTES // 190_000) + 1
    assert listing.ids is None  # so nothing counts as gone
    named = Hostile(40_000, tuple(f"id-{n}" for n in range(2_000)))
    listing = await read(named.query, JID("eve@e.example"), NODE, room=0)
    assert len(listing.items) == -(-MOST_BYTES // (40_000 * BATCH)) * BATCH
    assert listing.ids is not None
    assert set(named._ids) < listing.ids


async def test_reading_does_not_ask_for_what_is_no_offer() -> None:
    long = tuple("&" * 1_000 + f"{n}" for n in range(50))
    server = Hostile(10, (*long, "id-1", "not an offer's", "id-2"))
    await read(server.query, JID("eve@e.example"), NODE)
    asked = [entry.get("id") for entry in server.asked[-1].iter(f"{{{pubsub.NS_PUBSUB}}}item")]
    assert asked == ["id-1", "id-2"]


async def test_taking_many_items_leaves_others_their_turn(tmp_path: Path) -> None:
    async with Loopback() as server:
        bob = await member(server, f"{await server.add_user('bob')}/phone", tmp_path / "bob")
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        catalogue = bob.bt._catalogue
        items = [pubsub.Item(offer.id, offer) for offer in (small_offer() for _ in range(100))]
        publisher = catalogue._peer_of(JID("eve@e.example"), bob.jid)
        running = asyncio.create_task(others())
        taken = [offer async for offer in catalogue._take_all(items, publisher, NODE)]
        running.cancel()
        assert [offer.id for offer in taken] == [item.id for item in items]
        assert turns >= 100


async def test_items_of_one_publisher_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_MAX_ITEMS", 30)
    async with World(tmp_path) as world:
        alice, bob = world.pair(auto_accept=False, limits={"max_offers_per_peer": 3})
        publisher = replace(bob.know(alice), jid=JID(alice.jid.bare))
        found = [bob.exchange.intake.take_item(item(world), publisher, bob.jid, NODE) for _ in range(40)]
        assert [offer is not None for offer in found] == [True] * 30 + [False] * 10
        first = found[0]
        assert first is not None
        assert bob.exchange.intake.take_item(first.message, publisher, bob.jid, NODE) is first
        sent = bob.exchange.intake.receive_offer(item(world), bob.know(alice), bob.jid)
        assert sent is not None  # what is listed does not count against what is sent
        bob.exchange.registry.vanished(first)
        assert bob.told("bt_offer_end") == [first]
        assert bob.exchange.intake.take_item(item(world), publisher, bob.jid, NODE) is not None


async def test_items_beyond_the_limits_and_own_ones_are_left_out(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        alice, bob = world.pair(auto_accept=False, limits={"max_size": 4, "max_files": 10})
        publisher = replace(bob.know(alice), jid=JID(alice.jid.bare))
        for message in (
            item(world),
            replace(large_offer(2_000), expires=item(world).expires),
            item(world, lasts=-1_000),
        ):
            assert bob.exchange.intake.take_item(message, publisher, bob.jid, NODE) is None
        within = replace(item(world), size=4)
        assert bob.exchange.intake.take_item(within, publisher, bob.jid, NODE) is None  # it lies about its manifest
        own = alice.offer(bob.jid.bare, world.file())
        itself = replace(alice.know(alice), jid=JID(alice.jid.bare))
        assert alice.exchange.intake.take_item(replace(item(world), id=own.id), itself, alice.jid, NODE) is None
        assert not bob.wire.sent  # nobody is told


async def test_accepted_items_wait_for_a_place(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        alice, bob = world.pair(limits={"max_transfers": 2})
        publisher = replace(bob.know(alice), jid=JID(alice.jid.bare))
        queue = Queue(bob.context, bob.exchange.registry, bob.exchange.intake.authorize)
        offers = [bob.exchange.intake.take_item(item(world), publisher, bob.jid, NODE) for _ in range(5)]
        taken = [offer for offer in offers if offer is not None]
        await queue.found(taken)
        await until(lambda: len(bob.exchange.registry.transfers) == 2)
        assert [offer.transfer is not None for offer in taken] == [True, True, False, False, False]
        assert not bob.told("bt_offer")
        for running in bob.exchange.registry.transfers:
            await running.cancel()
        await until(lambda: len(bob.exchange.registry.transfers) == 2 and taken[3].transfer is not None)
        assert taken[4].transfer is None


async def test_news_that_no_rule_accepts_are_told_and_what_was_missed_is_not(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        alice, bob = world.pair(auto_accept=False)
        publisher = replace(bob.know(alice), jid=JID(alice.jid.bare))
        queue = Queue(bob.context, bob.exchange.registry, bob.exchange.intake.authorize)
        missed, new = (bob.exchange.intake.take_item(item(world), publisher, bob.jid, NODE) for _ in range(2))
        assert missed is not None
        assert new is not None
        await queue.found([missed])
        queue.appeared(new)
        assert await bob.expect("bt_offer") is new
        assert bob.told("bt_offer") == [new]
        await missed.decline("no, thanks")
        assert not bob.wire.sent  # it was for others, too
