"""Faults and taps, as a bot's tests use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element, fromstring

import pytest
from slixmpp import JID

from slixmpp_bt.testing import Faults, LoopbackServer, carries

from .testing_tools import Inbox, settle, until


class Scene:
    """Alice, who speaks, and Bob, who hears."""

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.alice, self.bob = server.client("alice/a"), server.client("bob/b")
        self.inbox = Inbox(self.bob)
        for client in (self.alice, self.bob):
            client.register_plugin("xep_0199")

    def say(self, *bodies: str) -> None:
        for body in bodies:
            self.alice.send_message(JID("bob@localhost/b"), body)

    async def heard(self) -> list[str]:
        await settle(self.alice, self.bob)
        return self.inbox.bodies()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        scene = Scene(server)
        for client in (scene.alice, scene.bob):
            await server.connect(client)
        yield scene


BODY = carries("{jabber:client}body")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("urn:a", True), ("{urn:a}x", True), ("{urn:a}y", False), ("urn:b", True), ("{urn:b}y", True), ("urn", False)],
)
def test_carries_finds_namespaces_and_tags_at_any_depth(name: str, expected: bool) -> None:
    stanza = fromstring("<message xmlns='jabber:client'><x xmlns='urn:a'><y xmlns='urn:b'/></x></message>")
    assert carries(name)(stanza) is expected


async def test_lose_count_loses_so_many(scene: Scene) -> None:
    lost = scene.server.faults.lose(BODY, count=2)
    scene.say("1", "2", "3")
    assert await scene.heard() == ["3"]
    assert lost.hits == 2


async def test_lose_without_count_loses_until_released(scene: Scene) -> None:
    lost = scene.server.faults.lose(BODY, count=None)
    scene.say("1", "2")
    assert await scene.heard() == []
    lost.release()
    lost.release()
    scene.say("3")
    assert await scene.heard() == ["3"]


async def test_lose_predicate_sees_the_stanza_with_its_addresses(scene: Scene) -> None:
    seen: list[Element] = []

    def look(stanza: Element) -> bool:
        seen.append(stanza)
        return False

    scene.server.faults.lose(look, count=None)
    scene.say("1")
    assert await scene.heard() == ["1"]
    message = next(stanza for stanza in seen if stanza.tag == "{jabber:client}message")
    assert (message.get("from"), message.get("to")) == ("alice@localhost/a", "bob@localhost/b")


async def test_duplicate_arrives_twice(scene: Scene) -> None:
    scene.server.faults.duplicate(BODY)
    scene.say("1", "2")
    assert await scene.heard() == ["1", "1", "2"]


async def test_hold_arrives_in_order_when_released(scene: Scene) -> None:
    release = scene.server.faults.hold(BODY)
    scene.say("1", "2")
    assert await scene.heard() == []
    release()
    scene.say("3")
    assert await scene.heard() == ["1", "2", "3"]


async def test_hold_released_after_its_sender_left_still_arrives(scene: Scene) -> None:
    release = scene.server.faults.hold(BODY)
    scene.say("1")
    assert await scene.heard() == []
    await scene.alice.disconnect()
    release()
    await until(lambda: scene.inbox.bodies() == ["1"])


async def test_delay_is_overtaken(scene: Scene) -> None:
    late = scene.server.faults.delay(BODY, seconds=1_000, count=1)
    scene.say("1", "2")
    assert await scene.heard() == ["2"]
    late.release()
    assert await scene.heard() == ["2", "1"]


async def test_delay_passes(scene: Scene) -> None:
    scene.server.faults.delay(BODY, seconds=0.01)
    scene.say("1")
    await until(lambda: scene.inbox.bodies() == ["1"])


async def test_clear_ends_everything(scene: Scene) -> None:
    scene.server.faults.lose(BODY, count=None)
    scene.server.faults.clear()
    scene.say("1")
    assert await scene.heard() == ["1"]


async def test_clear_forgets_what_was_on_its_way() -> None:
    arrived: list[Element] = []
    faults = Faults()
    held, late = faults.hold(BODY), faults.delay(lambda _: True, seconds=0)
    for xml in ("<m xmlns='jabber:client'><body/></m>", "<m/>"):
        faults.pass_through(fromstring(xml), arrived.append)
    assert (held.hits, late.hits) == (1, 1)
    faults.clear()
    held.release()
    late.release()
    await asyncio.sleep(0)
    assert arrived == []


async def test_first_matching_fault_decides(scene: Scene) -> None:
    first, second = scene.server.faults.lose(BODY), scene.server.faults.duplicate(BODY)
    scene.say("1", "2")
    assert await scene.heard() == ["2", "2"]
    assert (first.hits, second.hits) == (1, 1)


async def test_tap_sees_what_clients_send_even_if_it_is_lost(scene: Scene) -> None:
    overheard: list[tuple[JID, JID, bytes]] = []
    remove = scene.server.tap(lambda *seen: overheard.append(seen))
    scene.server.faults.lose(BODY)
    scene.say("<secret>")
    await scene.heard()
    from_, to, xml = next(seen for seen in overheard if b"body" in seen[2])
    assert (from_, to) == (scene.alice.boundjid, scene.bob.boundjid)
    assert b"<body>&lt;secret&gt;</body>" in xml
    remove()
    remove()
    overheard.clear()
    scene.say("2")
    await scene.heard()
    assert overheard == []


async def test_tap_stanza_without_address_is_for_the_own_account(scene: Scene) -> None:
    overheard: list[tuple[JID, JID, bytes]] = []
    scene.server.tap(lambda *seen: overheard.append(seen))
    scene.alice.send_presence()
    await scene.heard()
    assert overheard[0][:2] == (scene.alice.boundjid, JID("alice@localhost"))
