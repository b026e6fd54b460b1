"""What a hostile publisher says by PubSub: events that nobody asked for, and answers to who lists what it publishes."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from slixmpp import JID, Iq
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from slixmpp_bt import BTError, IncomingOffer
from slixmpp_bt.catalogue import DEFAULT_NODES
from slixmpp_bt.messages import Offer
from slixmpp_bt.stanza import pubsub, size_of

from ..samples import hostile_text
from ..security.offers import large_offer, small_offer
from ..security.raw import Raw
from ..servers import Loopback
from ..world import Member, done, make_file, visible
from . import COUNT, cursory, patient
from .test_stanzas import Trouble, good_offers, sendable

EVENT, PS = pubsub.NS_EVENT, pubsub.NS_PUBSUB
NODE = DEFAULT_NODES[0]
#: Ids that are used again and again, some by somebody else.
IDS = ["item-1", "item-2", "item-3", "alices", "mine", "no id", "", "x" * 2_000]
ids = st.sampled_from(IDS)
nodes = st.sampled_from([NODE] * 6 + [DEFAULT_NODES[3], "another", "", "x" * 5_000, "../presence"])
MIB = 1024**2


def fitting(payload: Element) -> Element:
    """`payload`, if a server lets it through."""
    assume(size_of(sendable(payload)) < 200_000)
    return payload


@st.composite
def entries(draw: st.DrawFn, namespace: str = EVENT) -> Element:
    """An item, with an offer in it or with something else; or that one is gone."""
    id = draw(ids)
    kind = draw(st.sampled_from(["good", "good", "good", "other", "damaged", "empty", "withdraw", "retract"]))
    if kind == "retract":
        return Element(f"{{{namespace}}}retract", {"id": id})
    entry = Element(f"{{{namespace}}}item", {"id": id})
    if draw(st.booleans()):
        entry.set("publisher", draw(st.sampled_from(["alice@localhost", "bob@localhost/phone", "@", ""])))
    if kind == "withdraw":
        entry.append(pubsub.withdraw("n", id, {})[0][0][0])
    elif kind != "empty":
        content = pubsub.build_item(replace(draw(good_offers()), id=id if kind != "other" else draw(ids)))
        if kind == "damaged":
            where = draw(st.sampled_from(list(content.iter())))
            where.set(draw(st.sampled_from([*where.attrib, "id", "mode", "expires"])), draw(hostile_text))
            where.text = draw(hostile_text)
        entry.extend([content] * draw(st.sampled_from([1, 1, 1, 2])))
    return entry


@st.composite
def events(draw: st.DrawFn) -> Element:
    """What goes into a message: an event, as it should be or not."""
    event = Element(f"{{{EVENT}}}event")
    name = draw(st.sampled_from(["items"] * 8 + ["purge", "delete", "configuration", "subscription", "nonsense"]))
    inner = SubElement(event, f"{{{EVENT}}}{name}", {"node": draw(nodes)})
    inner.extend(draw(st.lists(entries(), max_size=4)))
    if draw(st.integers(0, 20)) == 0:
        inner.extend(deepcopy(draw(entries())) for _ in range(100))
    if draw(st.integers(0, 10)) == 0:
        event.append(deepcopy(inner))
    return fitting(event)


@st.composite
def pages(draw: st.DrawFn) -> Element:
    """An answer to who asks for items, or for their ids."""
    if draw(st.integers(0, 3)) == 0:
        query = Element(f"{{{pubsub.NS_ITEMS}}}query", {"node": draw(nodes)})
        for id in draw(st.lists(ids | hostile_text, max_size=30)):
            SubElement(query, f"{{{pubsub.NS_ITEMS}}}item", {"jid": "eve@e.example", "name": id})
        return fitting(query)
    answer = Element(f"{{{PS}}}pubsub")
    items = SubElement(answer, f"{{{PS}}}items", {"node": draw(st.sampled_from([NODE, NODE, NODE, "another", ""]))})
    items.extend(draw(st.lists(entries(PS), max_size=3)))
    for number in range(draw(st.sampled_from([0, 0, 19, 20, 200]))):
        items.append(Element(f"{{{PS}}}item", {"id": f"filler-{number}"}))
    if draw(st.booleans()):
        page = SubElement(answer, f"{{{pubsub.NS_RSM}}}set")
        for name in draw(st.lists(st.sampled_from(["first", "last", "count"]), max_size=4)):
            SubElement(page, f"{{{pubsub.NS_RSM}}}{name}").text = draw(hostile_text | st.just("1000"))
    return fitting(answer)


class Bout:
    """Bob, with the plugin, and Eve, a contact of his, who says what is drawn."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.trouble = Trouble()
        self.server = Loopback()
        self.answers: list[Element] = []
        self.asked = self.said = 0

    async def start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self.trouble.hear)
        logging.getLogger().addHandler(self.trouble)
        await self.server.__aenter__()
        await self.server.subscribe("alice@localhost", "bob@localhost")
        self.bob = Member(self.server.client("bob/phone"), self.home / "bob")
        self.bob.register(auto_accept=False)
        self.alice = Member(self.server.client("alice/a"), self.home / "alice")
        self.alice.register()
        self.eve = Raw(self.server.component("gateway"))
        for path in (f"{{{PS}}}pubsub", f"{{{pubsub.NS_ITEMS}}}query"):
            matcher = MatchXPath(f"{{{self.eve.xmpp.default_ns}}}iq/{path}")
            self.eve.xmpp.register_handler(Callback(path, matcher, lambda iq: self._answer(cast(Iq, iq))))
        await self.server.connect(self.bob.xmpp, self.alice.xmpp, self.eve.xmpp)
        await visible(self.bob, self.alice)
        self.jid = JID(f"eve@{self.eve.jid.domain}")
        self.exchange: Any = self.bob.bt._exchange
        entry = self.bob.xmpp.roster[self.bob.jid.bare][self.jid.bare]
        entry["from"] = entry["to"] = True
        published = await self.alice.bt.publish(make_file(self.home / "source", 30_000))
        self.told = await self.bob.expect_offer()
        assert self.told.id == published.id

    async def stop(self) -> None:
        try:
            await self.server.__aexit__(None, None, None)
        finally:
            logging.getLogger().removeHandler(self.trouble)

    def _answer(self, iq: Iq) -> None:
        self.asked += 1
        reply = iq.reply()
        if self.answers:
            reply.append(deepcopy(self.answers[self.asked % len(self.answers)]))
        else:
            reply["type"] = "error"
            reply["error"]["condition"] = "forbidden"
        reply.send()

    @property
    def theirs(self) -> dict[str, IncomingOffer]:
        """What Bob knows of Eve."""
        return {offer.id: offer for offer in self.exchange.registry.items_of(self.jid.bare)}

    async def say(self, payload: Element, *, sender: JID | str | None = None, kind: str = "headline") -> None:
        """Send a message, and wait until Bob has dealt with it."""
        message: Any = self.eve.xmpp.make_message(
            mto=self.bob.jid, mfrom=JID(sender or self.jid), mtype=cast(Any, kind)
        )
        message.append(sendable(payload))
        message.send()
        self.said += 1
        await self.eve.ask(self.bob.jid, Element("{urn:xmpp:ping}ping"), kind="get", ifrom=JID(f"{self.jid}/x"))

    def check(self, before: dict[str, IncomingOffer]) -> None:
        """What holds whatever was said."""
        assert self.trouble.found == []
        for id, item in self.theirs.items():
            assert (item.id, item.key, item.peer.bare) == (id, self.jid.bare, self.jid.bare)
            assert item.node in DEFAULT_NODES
            if id in before and before[id].alive:
                assert item is before[id]
        assert self.told.alive
        others = {item.key for item in self.exchange.registry.items_of()} - {self.jid.bare}
        assert others == {self.alice.jid.bare}
        assert not self.bob.bt.transfers
        self.bob.events.clear()


@pytest.fixture(scope="module")
def bout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Bout]]:
    with asyncio.Runner() as runner:
        one = Bout(tmp_path_factory.mktemp("bout"))
        try:
            runner.run(one.start())
            yield runner, one
        finally:
            runner.run(one.stop())


@patient
def test_whatever_an_event_says_only_items_of_its_sender_come_and_go(bout: tuple[asyncio.Runner, Bout]) -> None:
    runner, one = bout

    @given(events())
    @cursory
    def hear(event: Element) -> None:
        before = one.theirs
        one.answers = []
        runner.run(one.say(event))
        one.check(before)

    hear()
    assert one.said >= COUNT // 10


WRAPPED = {
    "of type error": {"kind": "error"},
    "of a full JID": {"sender": "eve@gateway.localhost/x"},
    "of a stranger": {"sender": "mallory@gateway.localhost"},
    "of a domain": {"sender": "gateway.localhost"},
}


@patient
@pytest.mark.parametrize("how", [*WRAPPED.values(), None], ids=[*WRAPPED, "forwarded"])
def test_whatever_an_event_says_it_counts_for_nothing(bout: tuple[asyncio.Runner, Bout], how: dict[str, str]) -> None:
    runner, one = bout

    @given(events())
    @cursory
    def hear(event: Element) -> None:
        before, known = one.theirs, len(one.exchange.registry.past)
        payload = event
        if how is None:
            payload = Element("{urn:xmpp:carbons:2}received")
            message = SubElement(SubElement(payload, "{urn:xmpp:forward:0}forwarded"), "{jabber:client}message")
            message.append(event)
        runner.run(one.say(payload, **(how or {})))
        assert (one.theirs, len(one.exchange.registry.past)) == (before, known)
        one.check(before)

    hear()


@patient
def test_whatever_is_answered_listing_gives_offers_or_our_own_errors(bout: tuple[asyncio.Runner, Bout]) -> None:
    runner, one = bout

    async def read() -> list[IncomingOffer] | None:
        try:
            return await one.bob.bt.catalogue(one.jid)
        except BTError:
            return None

    @given(st.lists(pages(), max_size=3))
    @cursory
    def listed(answers: list[Element]) -> None:
        before, asked = one.theirs, one.asked
        one.answers = [sendable(answer) for answer in answers]
        found = runner.run(read())
        assert found is None or set(found) <= set(one.theirs.values())
        assert one.asked - asked <= 400
        one.check(before)

    listed()


@patient
def test_flood_of_items_is_bounded_and_harms_nobody(bout: tuple[asyncio.Runner, Bout]) -> None:
    """Items by the thousand, and large ones: what is known stays within bounds, and a friend is heard."""
    runner, one = bout

    async def flood() -> None:
        one.answers = []
        await one.say(event_of(*(small_offer() for _ in range(300))))
        for _ in range(100):
            await one.say(event_of(*(small_offer() for _ in range(20))))
        assert len(one.theirs) <= 1_000
        await one.say(gone(*one.theirs, *(f"unknown-{n}" for n in range(5_000))))
        assert one.theirs == {}
        large = large_offer(90_000)
        for number in range(130):
            await one.say(event_of(replace(large, id=f"large-{number}")))
        assert 0 < len(one.theirs) < 130
        assert sum(len(item.message.info or b"") for item in one.theirs.values()) <= 8 * MIB
        await one.say(emptied())
        assert one.theirs == {}
        assert len(one.exchange.registry.past) <= 10_000
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("slixmpp_bt")]
        assert len(tasks) < 50
        await done(await one.told.accept())

    runner.run(flood())
    assert one.trouble.found == []
    print(f"{one.said} events, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")


def event_of(*offers: Offer) -> Element:
    event = Element(f"{{{EVENT}}}event")
    items = SubElement(event, f"{{{EVENT}}}items", {"node": NODE})
    for each in offers:
        SubElement(items, f"{{{EVENT}}}item", {"id": each.id}).append(pubsub.build_item(each))
    return event


def gone(*which: str) -> Element:
    event = Element(f"{{{EVENT}}}event")
    items = SubElement(event, f"{{{EVENT}}}items", {"node": NODE})
    for id in which:
        SubElement(items, f"{{{EVENT}}}retract", {"id": id})
    return event


def emptied() -> Element:
    event = Element(f"{{{EVENT}}}event")
    SubElement(event, f"{{{EVENT}}}purge", {"node": NODE})
    return event
