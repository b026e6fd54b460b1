"""Who is there and what they can do, as a real stream tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from xml.etree.ElementTree import Element

import pytest
import slixmpp
from slixmpp import JID

from slixmpp_bt.constants import NS
from slixmpp_bt.directory import Directory
from slixmpp_bt.errors import NotSupported, PeerNotFound
from slixmpp_bt.policy import is_known_by_id
from slixmpp_bt.rooms import Rooms
from slixmpp_bt.testing import LoopbackServer


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    users = {"alice": "x", "bob": "x", "carol": "x"}
    async with LoopbackServer(users=users, components={"bot.localhost": "x"}) as one:
        one.subscribe("alice", "bob")
        yield one


def book(client: slixmpp.ClientXMPP | slixmpp.ComponentXMPP) -> Rooms:
    """Of a client that may have joined rooms before."""
    rooms = Rooms(client, lambda: None)
    rooms.attach()
    return rooms


async def enter(server: LoopbackServer, jid: str, *, able: bool = True, priority: int = 0) -> slixmpp.ClientXMPP:
    client = server.client(jid)
    for plugin in ("xep_0030", "xep_0115", "xep_0045"):
        client.register_plugin(plugin)
    if able:
        client.plugin["xep_0030"].add_feature(NS)
    await server.connect(client)
    caps: Any = client.plugin["xep_0115"]
    await caps.update_caps()
    client.send_presence(ppriority=priority)
    return client


async def sees(client: slixmpp.ClientXMPP, *others: slixmpp.ClientXMPP) -> None:
    async with asyncio.timeout(20):
        for other in others:
            while other.boundjid.resource not in client.client_roster[other.boundjid.bare].resources:
                await asyncio.sleep(0.001)


async def test_account_whose_devices_nobody_sees_is_unknown_and_can_be_written_to(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    directory = Directory(alice, book(alice))
    for account in ("bob@localhost", "stranger@example.org"):
        assert await directory.supports(JID(account), alice.boundjid) is None
        assert await directory.resolve(JID(account), alice.boundjid) == JID(account)


async def test_device_of_highest_priority_that_is_able_is_chosen(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    low = await enter(server, "bob/low", priority=1)
    high = await enter(server, "bob/high", priority=5)
    unable = await enter(server, "bob/unable", able=False, priority=9)
    await sees(alice, low, high, unable)
    directory = Directory(alice, book(alice))
    assert await directory.resolve(JID("bob@localhost"), alice.boundjid) == high.boundjid
    assert await directory.supports(JID("bob@localhost"), alice.boundjid) is True
    assert await directory.supports(unable.boundjid, alice.boundjid) is False
    with pytest.raises(NotSupported, match="bob@localhost/unable"):
        await directory.resolve(unable.boundjid, alice.boundjid)


async def test_account_of_which_no_visible_device_is_able_is_not_supported(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    unable = await enter(server, "bob/unable", able=False)
    await sees(alice, unable)
    directory = Directory(alice, book(alice))
    assert await directory.supports(JID("bob@localhost"), alice.boundjid) is False
    with pytest.raises(NotSupported, match="no device of bob@localhost"):
        await directory.resolve(JID("bob@localhost"), alice.boundjid)


async def test_device_that_does_not_answer_holds_up_no_better_one(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    quick = await enter(server, "bob/quick", priority=5)
    await sees(alice, quick)
    caps: Any = alice.plugin["xep_0115"]
    silent = JID("bob@localhost/silent")
    asked = asyncio.Event()

    async def get_caps(jid: JID) -> Any:
        if jid == silent:
            asked.set()
            await asyncio.get_running_loop().create_future()
        return {"features": {NS}}

    caps.get_caps = get_caps
    directory = Directory(alice, book(alice))
    directory._visible = lambda jid, local: [quick.boundjid, silent]  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        assert await directory.resolve(JID("bob@localhost"), alice.boundjid) == quick.boundjid


async def test_device_that_is_not_there_is_not_found(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    directory = Directory(alice, book(alice))
    nowhere = JID("bob@localhost/nowhere")
    assert await directory.supports(nowhere, alice.boundjid) is None
    with pytest.raises(PeerNotFound, match="nowhere"):
        await directory.resolve(nowhere, alice.boundjid)


async def test_peer_is_known_by_the_roster(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    await alice.get_roster()
    directory = Directory(alice, book(alice))
    friend = directory.peer(JID("bob@localhost/b"), alice.boundjid)
    assert (friend.bare, friend.subscription, friend.room) == (JID("bob@localhost"), "both", None)
    assert friend.auto_authorize
    assert not friend.contact
    alice.auto_authorize = None
    assert directory.peer(JID("bob@localhost/b"), alice.boundjid).contact
    stranger = directory.peer(JID("carol@localhost/c"), alice.boundjid)
    assert (stranger.subscription, stranger.contact, stranger.may_know) == ("none", False, False)
    own = directory.peer(JID("alice@localhost/other"), alice.boundjid)
    assert own.contact
    # Looking does not write.
    assert not alice.client_roster.has_jid("carol@localhost")


async def in_a_room(server: LoopbackServer, *, anonymous: bool) -> tuple[slixmpp.ClientXMPP, Directory, JID]:
    """Alice, what she knows, and a room in which she sees Bob, a contact of hers."""
    alice, bob = await enter(server, "alice/a"), await enter(server, "bob/b")
    room = JID(server.create_room("tea", anonymous=anonymous))
    directory = Directory(alice, book(alice))
    for client, nick in ((bob, "bob"), (alice, "alice")):
        rooms: Any = client.plugin["xep_0045"]
        await rooms.join_muc_wait(room, nick, timeout=20)
    return alice, directory, room


async def test_occupant_of_a_room_that_hides_jids_has_no_account(server: LoopbackServer) -> None:
    alice, directory, room = await in_a_room(server, anonymous=True)
    occupant = directory.peer(JID(f"{room}/bob"), alice.boundjid)
    assert (occupant.bare, occupant.room, occupant.account, occupant.contact) == (None, room, None, False)
    assert is_known_by_id(occupant.owner)
    for nobody in (JID(f"{room}/nobody"), JID(f"{room}/alice"), room):
        known = directory.peer(nobody, alice.boundjid)
        assert (known.room, known.occupant, known.account) == (room, None, None)
    elsewhere = directory.peer(JID("other@conference.localhost/bob"), alice.boundjid)
    assert elsewhere.room is None


async def test_occupant_whose_jid_is_shown_is_who_it_is(server: LoopbackServer) -> None:
    alice, directory, room = await in_a_room(server, anonymous=False)
    alice.auto_authorize = None
    await alice.get_roster()
    occupant = directory.peer(JID(f"{room}/bob"), alice.boundjid)
    assert (occupant.jid, occupant.bare, occupant.room) == (JID(f"{room}/bob"), JID("bob@localhost"), room)
    assert occupant.contact
    assert is_known_by_id(occupant.owner)
    directory.blocked(["bob@localhost"])
    assert directory.peer(JID(f"{room}/bob"), alice.boundjid).blocked


async def test_message_of_a_room_that_was_not_joined_has_no_author(server: LoopbackServer) -> None:
    alice = await enter(server, "alice/a")
    directory = Directory(alice, book(alice))
    message = slixmpp.Message()
    message["from"], message["type"] = JID("other@conference.localhost/bob"), "groupchat"
    assert directory.author(message, alice.boundjid) is None
    message["type"] = "chat"
    author = directory.author(message, alice.boundjid)
    assert author is not None
    assert author.room is None
    message.xml.append(Element("{http://jabber.org/protocol/muc#user}x"))  # privately, by a room
    assert directory.author(message, alice.boundjid) is None


async def test_names_made_up_at_a_component_cost_no_memory(server: LoopbackServer) -> None:
    bot = server.component("bot.localhost")
    bot.register_plugin("xep_0030")
    bot.register_plugin("xep_0115")
    await server.connect(bot)
    directory = Directory(bot, book(bot))
    before = len(list(bot.roster.keys()))
    for number in range(100):
        peer = directory.peer(JID("mallory@m.example/x"), JID(f"made-up-{number}@bot.localhost"))
        assert peer.subscription == "none"
        assert await directory.supports(JID("x@example.org"), JID(f"made-up-{number}@bot.localhost")) is None
    assert len(list(bot.roster.keys())) == before
