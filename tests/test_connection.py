"""The wire over slixmpp: every request is answered, refused or given up in time, and leaves nothing in the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import slixmpp
from slixmpp import JID
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from slixmpp_bt import stanza
from slixmpp_bt.connection import Connection
from slixmpp_bt.constants import NS, Mode
from slixmpp_bt.errors import LimitExceeded, PeerGone, ProtocolError
from slixmpp_bt.messages import Accept, Accepted, Done, End, Meta, Offer, Reply, Seek, Withdraw
from slixmpp_bt.rooms import Rooms
from slixmpp_bt.testing import LoopbackServer

END = End("o1", "cancel", "cancel", "t1")


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    stanza.register()
    async with LoopbackServer(users={"alice": "x", "bob": "x"}, components={"bot.localhost": "x"}) as one:
        yield one


async def enter(server: LoopbackServer, jid: str) -> tuple[slixmpp.ClientXMPP, Connection]:
    client = server.client(jid)
    connection = Connection(client, Rooms(client, lambda: None))
    client.add_event_handler("session_start", lambda _: connection.session_started())
    client.add_event_handler("session_end", lambda _: connection.session_ended())
    await server.connect(client)
    await connection.online()
    return client, connection


def reply_with(client: slixmpp.ClientXMPP, answer: str, kind: str = "result") -> list[slixmpp.Iq]:
    """Have `client` answer every request of ours with this payload; the requests."""
    asked: list[slixmpp.Iq] = []

    def handle(iq: Any) -> None:
        if iq["type"] in ("get", "set") and NS in str(iq):
            asked.append(iq)
            if answer != "nothing":
                client.send_raw(f"<iq type='{kind}' id='{iq['id']}' to='{iq['from']}'>{answer}</iq>")

    client.register_handler(Callback("answer", StanzaPath("iq"), handle))
    return asked


def handlers(client: slixmpp.ClientXMPP) -> list[str]:
    """What waits for an answer."""
    return [handler.name for handler in client._XMLStream__handlers if handler.name.startswith("IqCallback")]  # type: ignore[attr-defined]


async def ask_in_vain(
    alice: slixmpp.ClientXMPP, wire: Connection, bob: slixmpp.ClientXMPP
) -> tuple[asyncio.Future[Reply], list[slixmpp.Iq]]:
    """A request that `bob` has got and does not answer, and what he has got."""
    asked = reply_with(bob, "nothing")
    asking = asyncio.ensure_future(wire.request(END, bob.boundjid, sender=alice.boundjid))
    async with asyncio.timeout(20):
        while not asked:
            await asyncio.sleep(0.005)
    return asking, asked


async def test_request_is_answered_with_what_belongs_to_it(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    asked = reply_with(bob, f"<accepted xmlns='{NS}' id='o1' transfer='t1'/>")
    answer = await wire.request(Accept("o1", "t1"), bob.boundjid, sender=alice.boundjid)
    assert answer == Accepted("o1", "t1")
    assert asked[0]["type"] == "set"
    with pytest.raises(ProtocolError, match="not to what was asked"):
        await wire.request(Accept("o2", "t1"), bob.boundjid, sender=alice.boundjid)
    with pytest.raises(ProtocolError, match="not to what was asked"):
        await wire.request(Meta("o1", "t1", 0, 5), bob.boundjid, sender=alice.boundjid)
    assert asked[-1]["type"] == "get"
    with pytest.raises(ProtocolError, match="not to what was asked"):
        await wire.request(END, bob.boundjid, sender=alice.boundjid)
    assert handlers(alice) == []


async def test_request_is_answered_by_an_empty_result(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    reply_with(bob, "")
    assert await wire.request(END, bob.boundjid, sender=alice.boundjid) == Done()
    with pytest.raises(ProtocolError):
        await wire.request(Accept("o1", "t1"), bob.boundjid, sender=alice.boundjid)


@pytest.mark.parametrize("garbage", [f"<accepted xmlns='{NS}'/>", f"<accepted xmlns='{NS}' id='o1' transfer=''/>"])
async def test_answer_that_is_garbage_is_a_protocol_error(server: LoopbackServer, garbage: str) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    reply_with(bob, garbage)
    with pytest.raises(ProtocolError):
        await wire.request(Accept("o1", "t1"), bob.boundjid, sender=alice.boundjid)


async def test_refusal_has_its_condition_text_and_reason(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    ns = "urn:ietf:params:xml:ns:xmpp-stanzas"
    error = f"<error type='cancel'><gone xmlns='{ns}'/><text xmlns='{ns}'>too late</text>"
    reply_with(bob, f"{error}<ended xmlns='{NS}' reason='expired'/></error>", "error")
    with pytest.raises(ProtocolError, match="too late") as caught:
        await wire.request(END, bob.boundjid, sender=alice.boundjid)
    assert (caught.value.condition, caught.value.reason) == ("gone", "expired")


@pytest.mark.parametrize("error", [
    "", "<error/>", "<error type='strange'/>", "<error type='cancel'><unheard-of xmlns='urn:x'/></error>",
    "<error type='cancel'><unheard-of xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
])  # fmt: skip
async def test_refusal_without_a_known_condition_ends_the_request_as_ours(server: LoopbackServer, error: str) -> None:
    """slixmpp cannot make an exception of some of these, and says so only in its log."""
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    reply_with(bob, error, "error")
    with pytest.raises((ProtocolError, PeerGone)):
        await wire.request(END, bob.boundjid, sender=alice.boundjid, timeout=0.5)
    assert handlers(alice) == []


async def test_request_to_who_is_not_there_is_refused_by_the_server(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    with pytest.raises(ProtocolError) as caught:
        await wire.request(END, JID("bob@localhost/nowhere"), sender=alice.boundjid)
    assert caught.value.condition == "service-unavailable"


async def test_request_that_is_not_answered_in_time_is_given_up(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    reply_with(bob, "nothing")
    with pytest.raises(PeerGone, match="did not answer"):
        await wire.request(END, bob.boundjid, sender=alice.boundjid, timeout=0.05)
    assert handlers(alice) == []


async def test_request_ends_with_the_session(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    asking, _ = await ask_in_vain(alice, wire, bob)
    await alice.disconnect()
    with pytest.raises(PeerGone, match="session"):
        await asyncio.wait_for(asking, 20)
    assert not wire.is_online
    with pytest.raises(PeerGone, match="no session"):
        await wire.request(END, bob.boundjid, sender=alice.boundjid)
    with pytest.raises(PeerGone, match="no session"):
        await wire.send(Withdraw("o1"), bob.boundjid, sender=alice.boundjid, mtype="chat")
    assert handlers(alice) == []


async def test_cancelled_request_leaves_nothing_and_its_late_answer_is_ignored(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    asking, asked = await ask_in_vain(alice, wire, bob)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert handlers(alice) == []
    asked[0].reply().send()
    reply_with(bob, "")
    assert await wire.request(END, bob.boundjid, sender=alice.boundjid) == Done()


async def test_request_too_large_for_a_stanza_is_not_sent(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    asked = reply_with(bob, "")
    with pytest.raises(LimitExceeded):
        await wire.request(
            Accept("o1", "t1", select=frozenset(range(0, 100_000, 3))), bob.boundjid, sender=alice.boundjid
        )
    assert asked == []
    assert handlers(alice) == []


def offer(length: int) -> Offer:
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    return Offer("o1", Mode.PRIVATE, expires, "file", 5, b"h" * 32, length, b"i" * length)


@pytest.mark.parametrize(("length", "whole"), [(200, True), (20_000, False)])
async def test_offer_goes_out_whole_if_it_fits_and_without_its_info_dict_else(
    server: LoopbackServer, length: int, whole: bool
) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    bob.send_presence()
    heard: asyncio.Future[slixmpp.Message] = asyncio.get_running_loop().create_future()
    bob.add_event_handler("message", lambda message: heard.set_result(message))
    id = await wire.send(offer(length), bob.boundjid, sender=alice.boundjid, mtype="chat")
    message = await asyncio.wait_for(heard, 20)
    assert message["id"] == id
    [read] = stanza.find_offers(message)
    assert (read.info is not None) is whole
    assert read.info_length == length


async def test_component_speaks_as_who_it_is_told_to(server: LoopbackServer) -> None:
    bob, _ = await enter(server, "bob/b")
    asked = reply_with(bob, "")
    bot = server.component("bot.localhost")
    wire = Connection(bot, Rooms(bot, lambda: None))
    bot.add_event_handler("session_start", lambda _: wire.session_started())
    await server.connect(bot)
    await wire.online()
    for sender in ("clerk@bot.localhost/desk", "clerk@bot.localhost"):
        assert await wire.request(END, bob.boundjid, sender=JID(sender)) == Done()
        assert asked[-1]["from"] == JID(sender)


async def test_message_to_a_room_that_this_side_is_not_in_is_not_sent(server: LoopbackServer) -> None:
    alice, wire = await enter(server, "alice/a")
    room = JID("den@conference.localhost")
    sent: list[str] = []

    def look(stanza: Any) -> Any:
        sent.append(str(stanza))
        return stanza

    alice.add_filter("out", look)
    with pytest.raises(PeerGone, match="not in"):
        await wire.send(Seek("o1"), room, sender=alice.boundjid, mtype="groupchat")
    assert sent == []


async def test_request_to_an_occupant_who_is_not_there_is_not_sent(server: LoopbackServer) -> None:
    room = JID(server.create_room("den"))
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    wire._rooms.attach()
    sent: list[str] = []

    def look(stanza: Any) -> Any:
        sent.append(str(stanza))
        return stanza

    alice.add_filter("out", look)
    for client, nick in ((bob, "bob"), (alice, "alice")):
        client.register_plugin("xep_0045")
        await client.plugin["xep_0045"].join_muc_wait(room, nick, timeout=20)
    for to in (room, JID(f"{room}/nobody"), JID(f"{room}/alice")):
        with pytest.raises(PeerGone, match="nobody is at"):
            await wire.request(END, to, sender=alice.boundjid)
        with pytest.raises(PeerGone, match="nobody is at"):
            await wire.send(Withdraw("o1"), to, sender=alice.boundjid, mtype="chat")
    assert not any(NS in text for text in sent)
    await wire.send(Withdraw("o1"), room, sender=alice.boundjid, mtype="groupchat")
    asked = reply_with(bob, "")
    assert await wire.request(END, JID(f"{room}/bob"), sender=alice.boundjid) == Done()
    assert len(asked) == 1


@pytest.mark.parametrize("lost", ["peer", "room", "somebody else"])
async def test_request_to_who_is_not_there_any_more_ends_at_once(server: LoopbackServer, lost: str) -> None:
    alice, wire = await enter(server, "alice/a")
    bob, _ = await enter(server, "bob/b")
    asking, _ = await ask_in_vain(alice, wire, bob)
    jids = {"peer": bob.boundjid, "room": JID(bob.boundjid.bare), "somebody else": JID(f"{bob.boundjid.bare}/other")}
    wire.break_off(jids[lost])
    if lost == "somebody else":
        await asyncio.sleep(0)
        assert not asking.done()
        wire.session_ended()
    with pytest.raises(PeerGone, match="session ended" if lost == "somebody else" else "not there any more"):
        await asyncio.wait_for(asking, 20)
    assert handlers(alice) == []
