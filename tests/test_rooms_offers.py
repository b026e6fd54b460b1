"""Offers in rooms, on the loopback server, Prosody and ejabberd: real clients, real libtorrent, real files.

Prosody gives occupants ids (XEP-0421), the ejabberd that is tried (23.01) does not, and the loopback server does both.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from slixmpp import JID, Message
from slixmpp.exceptions import IqError

from slixmpp_bt import Expired, IncomingOffer, PeerGone, PeerNotFound, Route, State, Transfer
from slixmpp_bt.constants import NS
from slixmpp_bt.messages import Seek

from .servers import Ejabberd, Loopback, Options, Process, Prosody, RealServer, Server, joined
from .world import PATIENCE, Member, digest, done, make_file, member, until

MUC_CONFIG = "http://jabber.org/protocol/muc#roomconfig"


class Room:
    """A room, and its occupants by nick."""

    def __init__(self, server: Server, home: Path) -> None:
        self.jid = JID(f"r{secrets.token_hex(4)}@{server.conference}")
        self.members: dict[str, Member] = {}
        self.server = server
        self._home = home

    async def make(self, nick: str, *, config: dict[str, str] | None = None, **settings: Any) -> Member:
        """The first occupant, who owns the room and configures it."""
        owner = await self.enter(nick, **settings)
        form = owner.xmpp.plugin["xep_0004"].make_form(ftype="submit")
        form.add_field("FORM_TYPE", "hidden", value=MUC_CONFIG)
        for name, value in (config or {}).items():
            form.add_field(f"muc#roomconfig_{name}", value=value)
        await owner.xmpp.plugin["xep_0045"].set_room_config(self.jid, form, timeout=PATIENCE)
        return owner

    async def enter(self, nick: str, account: JID | None = None, *, history: bool = True, **settings: Any) -> Member:
        """A new member, by default of an account of its own, in the room."""
        account = account or await self.account()
        one = await member(self.server, f"{account}/device", self._home / secrets.token_hex(4), **settings)
        one.settings = settings
        await self.let_in(one, nick, **({} if history else {"maxstanzas": 0}))
        return one

    async def let_in(self, one: Member, nick: str, **how: Any) -> None:
        """Let a member enter (again); all who are there see it."""
        one.xmpp.register_plugin("xep_0045")
        await one.xmpp.plugin["xep_0045"].join_muc_wait(self.jid, nick, timeout=PATIENCE, **how)
        self.members[nick] = one
        await self.seen(nick)

    async def leave(self, nick: str) -> Member:
        """Let a member leave; all who stay see it."""
        one = self.members.pop(nick)
        one.xmpp.plugin["xep_0045"].leave_muc(self.jid, nick)
        await until(lambda: not one.bt._rooms.joined(self.jid, one.jid))
        await self.unseen(nick)
        return one

    async def rename(self, old: str, new: str) -> None:
        """Let a member change the nick; all see it."""
        one = self.members.pop(old)
        await one.xmpp.plugin["xep_0045"].set_self_nick(self.jid, new, timeout=PATIENCE)
        self.members[new] = one
        await self.seen(new)
        await self.unseen(old)

    async def seen(self, nick: str) -> None:
        """Wait until all see that `nick` is there."""
        jid, who = self.at(nick), self.members[nick]
        others = [one for one in self.members.values() if one is not who]
        await until(lambda: all(one.bt._rooms.occupant(jid, one.jid) for one in others))

    async def unseen(self, nick: str) -> None:
        """Wait until nobody is seen as `nick`."""
        await until(lambda: not any(one.bt._rooms.occupant(self.at(nick), one.jid) for one in self.members.values()))

    async def account(self) -> JID:
        """A new account on the server."""
        return await self.server.add_user("user")

    async def stop(self, nick: str) -> Member:
        """Let a member's program end in good order; all who stay see it."""
        one = self.members.pop(nick)
        await one.bt.aclose()
        await one.xmpp.disconnect()
        await self.unseen(nick)
        return one

    async def start(self, before: Member, **settings: Any) -> Member:
        """The same account and directories in another run. It is in no room yet."""
        return await member(self.server, before.jid.full, before.home, **{**before.settings, **settings})

    @property
    def gives_ids(self) -> bool:
        """Whether it does, as tried with the versions named above."""
        expected = self.server.name != "ejabberd"
        inside = [one for one in self.members.values() if one.bt._rooms.joined(self.jid, one.jid)]
        assert all(one.bt._rooms.gives_ids(self.jid, one.jid) == expected for one in inside)
        return expected

    def at(self, nick: str) -> JID:
        return JID(f"{self.jid}/{nick}")


@pytest.fixture
def room(server: Server, tmp_path: Path) -> Room:
    return Room(server, tmp_path)


@pytest.fixture
async def loopback(tmp_path: Path) -> AsyncIterator[Room]:
    """A room on the loopback server, for what no server has a say in."""
    async with Loopback() as server:
        yield Room(server, tmp_path)


HIDDEN, SHOWN = {"whois": "moderators"}, {"whois": "anyone"}


async def slow(
    room: Room, tmp_path: Path, route: Route = Route.SWARM, *, state: bool = False
) -> tuple[Member, Member, Transfer]:
    """Alice sends Bob a file through a room that hides JIDs and outlasts them, and it takes a while."""

    def settings(name: str) -> dict[str, Any]:
        return {"routes": [route], "state_dir": tmp_path / f"state of {name}" if state else None}

    config = {**HIDDEN, "persistentroom": "1"}
    alice = await room.make("alice", config=config, **settings("alice"), upload_limit=150_000)
    bob = await room.enter("bob", **settings("bob"), auto_accept=True)
    size = 600_000
    await alice.bt.offer(room.jid, make_file(tmp_path / "file", size), mtype="groupchat")
    receiving: Transfer = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 0)
    return alice, bob, receiving


async def whole(receiving: Transfer, tmp_path: Path) -> None:
    """Wait until the file has arrived as it is."""
    async with asyncio.timeout(40):  # a receiver may notice only after 10 s that nothing comes, and asks every 5 s
        assert digest(await receiving.wait()) == digest(tmp_path / "file")


async def refusal(one: Member, to: JID, payload: str) -> str:
    """The condition of the error that answers a request."""
    iq = one.xmpp.make_iq(ito=to, itype="set")
    iq.append(ElementTree.fromstring(payload))
    try:
        await iq.send(timeout=PATIENCE)
    except IqError as error:
        return str(error.condition)
    return "none"


@pytest.mark.parametrize("config", [HIDDEN, SHOWN], ids=["hidden", "shown"])
async def test_three_occupants_get_a_file_by_swarm(room: Room, tmp_path: Path, config: dict[str, str]) -> None:
    alice = await room.make("Alice ☃", config=config)
    others = [await room.enter(nick, auto_accept=True) for nick in ("bob", "carol", "dave")]
    source = make_file(tmp_path / "file", 300_000)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
    for one in others:
        receiving: Transfer = await one.expect("bt_transfer_end")
        assert receiving.complete
        assert receiving.path is not None
        assert digest(receiving.path) == digest(source)
        assert receiving.routes == {Route.SWARM: 300_000}
        incoming = receiving.offer
        assert isinstance(incoming, IncomingOffer)
        assert (incoming.room, incoming.peer, receiving.peer) == (room.jid, *[room.at("Alice ☃")] * 2)
        # The owner of a room that hides JIDs sees them; others do not.
        assert incoming.sender == (JID(alice.jid.bare) if config is SHOWN else None)
    await until(lambda: sum(t.complete for t in offer.transfers) == 3)
    assert {t.peer for t in offer.transfers} == {room.at(nick) for nick in ("bob", "carol", "dave")}
    assert alice.told("bt_offer") == []
    assert offer.state is State.OFFERED
    await offer.withdraw()


class Overheard:
    """All that a client gets, and what of it is the protocol's, as it comes by the stream."""

    def __init__(self, one: Member) -> None:
        self.everything: list[str] = []
        self.stanzas: list[Any] = []
        one.xmpp.add_filter("in", self._take)

    def _take(self, stanza: Any) -> Any:
        self.everything.append(str(stanza))
        if NS in str(stanza) and "disco#info" not in str(stanza) and stanza.name != "presence":
            self.stanzas.append(stanza)
        return stanza

    @property
    def requests(self) -> list[Any]:
        return [stanza for stanza in self.stanzas if stanza.name == "iq" and stanza["type"] in ("get", "set")]


# Routes


@pytest.mark.parametrize(
    ("route", "size"), [(Route.INLINE, 3_000), (Route.RELAY, 200_000), (Route.IN_BAND, 60_000), (Route.SWARM, 60_000)]
)
async def test_each_route_leads_through_a_room_that_hides_jids(
    room: Room, tmp_path: Path, route: Route, size: int
) -> None:
    settings: dict[str, Any] = {"routes": [route], "auto_accept": True}
    alice = await room.make("Alice One", config=HIDDEN, **settings)
    bob = await room.enter("bob ☃", **settings)
    source = make_file(tmp_path / "file", size)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat", desc="for all")
    receiving: Transfer = await bob.expect("bt_transfer_end")
    assert receiving.routes == {route: size}
    assert digest(await receiving.wait()) == digest(source)
    await until(lambda: [t.complete for t in offer.transfers] == [True])
    assert offer.transfers[0].routes == {route: size}


# Who comes late, and who comes again


async def test_who_comes_late_is_offered_it_and_who_comes_again_is_not(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice", config=HIDDEN)
    bob = await room.enter("bob")
    source = make_file(tmp_path / "file", 3_000)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
    await bob.expect_offer()
    carol = await room.enter("carol")
    late = await carol.expect_offer()
    assert (late.id, late.peer, late.room, late.sender) == (offer.id, room.at("alice"), room.jid, None)
    assert digest(await (await late.accept()).wait()) == digest(source)
    await room.leave("bob")
    await room.let_in(bob, "bob")
    await room.let_in(carol, "carol")  # without having left
    if room.gives_ids:
        assert (len(bob.told("bt_offer")), len(carol.told("bt_offer"))) == (1, 1)
        assert bob.told("bt_offer_end") == []
    else:  # whether alice is the same nobody can tell, so it is another offer
        await bob.expect("bt_offer_end")
        await bob.expect_offer(2)
    assert alice.told("bt_offer") == []


async def test_sender_that_comes_again_makes_no_offer_to_itself(room: Room, tmp_path: Path) -> None:
    alice, bob = await room.make("alice"), await room.enter("bob")
    await alice.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    await bob.expect_offer()
    await room.leave("alice")
    await room.let_in(alice, "alice again")
    one = await alice.bt.offer(room.jid, make_file(tmp_path / "other", 3_000), mtype="groupchat")
    await until(lambda: one.id in [offer.id for offer in bob.told("bt_offer")])
    assert alice.told("bt_offer") == []
    offers = [offer.id for offer in bob.told("bt_offer")]
    assert len(offers) == (2 if room.gives_ids else 3)


async def test_withdrawn_offer_ends_for_all_and_late_ones_too(room: Room, tmp_path: Path) -> None:
    alice, bob = await room.make("alice"), await room.enter("bob")
    offer = await alice.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    incoming = await bob.expect_offer()
    await offer.withdraw()
    assert await bob.expect("bt_offer_end") is incoming
    assert not incoming.alive
    carol = await room.enter("carol")
    # History has been, when who entered hears what is said after it.
    last = await alice.bt.offer(room.jid, make_file(tmp_path / "last", 3_000), mtype="groupchat")
    await until(lambda: last.id in [offer.id for offer in carol.told("bt_offer")])
    assert [offer for offer in carol.bt.offers if offer.id != last.id] == []


async def test_expired_offer_in_a_room_is_not_accepted(loopback: Room, tmp_path: Path) -> None:
    alice, bob = await loopback.make("alice"), await loopback.enter("bob")
    offer = await alice.bt.offer(loopback.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat", expires=1)
    incoming = await bob.expect_offer()
    await until(lambda: offer.expires.timestamp() < time.time())
    transfer = await incoming.accept()
    with pytest.raises(Expired):
        await done(transfer)
    assert offer.state is State.EXPIRED


# Nicks


async def test_nick_taken_while_an_offer_is_open_inherits_nothing(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice", config={**HIDDEN, "persistentroom": "1"})
    bob = await room.enter("bob")
    source = make_file(tmp_path / "file", 3_000)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
    incoming = await bob.expect_offer()
    await room.leave("alice")
    mallory = await room.enter("alice")
    overheard = Overheard(mallory)
    mallory.xmpp.send_raw(
        f"<message to='{room.jid}' type='groupchat'><withdraw xmlns='{NS}' id='{offer.id}'/></message>"
    )
    assert await refusal(mallory, room.at("bob"), f"<here xmlns='{NS}' id='{offer.id}'/>") == "item-not-found"
    if room.gives_ids:
        transfer = await incoming.accept()
        await until(lambda: transfer.state is State.WAITING)
        assert incoming.peer == transfer.peer == room.jid
        await room.let_in(alice, "alice two")
        assert digest((await done(transfer))[0]) == digest(source)
        assert transfer.peer == room.at("alice two")
    else:
        await bob.expect("bt_offer_end")
        with pytest.raises(Expired):
            await incoming.accept()
    assert overheard.requests == []


async def test_nick_of_the_sender_taken_while_it_is_fetched_inherits_nothing(room: Room, tmp_path: Path) -> None:
    alice, bob, receiving = await slow(room, tmp_path)
    await room.leave("alice")
    mallory = await room.enter("alice")
    overheard = Overheard(mallory)
    end = f"<end xmlns='{NS}' id='{receiving.offer.id}' transfer='{receiving.id}' kind='cancel' reason='cancel'/>"
    assert await refusal(mallory, room.at("bob"), end) == "item-not-found"
    if room.gives_ids:
        await room.let_in(alice, "alice two")
        alice.bt.configure(upload_limit=None)
        await whole(receiving, tmp_path)
        assert receiving.peer == room.at("alice two")
    else:
        with pytest.raises(PeerGone, match="alice has left"):
            await done(receiving)
    assert overheard.requests == []
    assert bob.leftovers() == []


async def test_nick_of_a_receiver_taken_while_it_fetches_inherits_nothing(room: Room, tmp_path: Path) -> None:
    alice, bob, receiving = await slow(room, tmp_path)
    [sending] = alice.bt.transfers
    await room.leave("bob")
    mallory = await room.enter("bob")
    overheard = Overheard(mallory)
    for kind in ("accept", "report had='1' total='1'", "end kind='complete' reason='success'"):
        request = f"<{kind} xmlns='{NS}' id='{receiving.offer.id}' transfer='{receiving.id}'/>"
        assert await refusal(mallory, room.at("alice"), request) == "item-not-found"
    assert alice.bt.transfers == (sending,)
    assert sending.peer == room.jid
    if room.gives_ids:
        await room.let_in(bob, "bob two")
        alice.bt.configure(upload_limit=None)
        await whole(receiving, tmp_path)
        await until(lambda: sending.complete)
        assert sending.peer == room.at("bob two")
    else:  # the owner sees who comes back, but Bob does not see whether Alice is the same
        with pytest.raises(PeerGone, match="alice has left"):
            await done(receiving)
    assert overheard.requests == []


@pytest.mark.parametrize("route", [Route.SWARM, Route.RELAY])
async def test_nick_changes_while_it_is_fetched_stop_nothing(loopback: Room, tmp_path: Path, route: Route) -> None:
    await changing_nicks_stop_nothing(loopback, tmp_path, route)


async def test_nick_changes_while_it_is_fetched_in_band_stop_nothing(room: Room, tmp_path: Path) -> None:
    await changing_nicks_stop_nothing(room, tmp_path, Route.IN_BAND)


async def changing_nicks_stop_nothing(room: Room, tmp_path: Path, route: Route) -> None:
    """Both change their nicks in mid-file, and it arrives."""
    alice, bob, receiving = await slow(room, tmp_path, route)
    [sending] = alice.bt.transfers
    await room.rename("alice", "alice two")
    assert receiving.peer == room.at("alice two")
    await room.rename("bob", "bob two")
    assert sending.peer == room.at("bob two")
    alice.bt.configure(upload_limit=None)
    await whole(receiving, tmp_path)
    await until(lambda: sending.complete)
    assert [*alice.told("bt_offer"), *alice.told("bt_offer_end"), *bob.told("bt_offer_end")] == []


async def test_occupant_that_is_sent_a_file_may_change_the_nick_before_it_accepts(room: Room, tmp_path: Path) -> None:
    alice, bob = await room.make("alice", config=HIDDEN), await room.enter("bob")
    source = make_file(tmp_path / "file", 100_000)
    sending = await alice.bt.send_file(room.at("bob"), source)
    incoming = await bob.expect_offer()
    assert (incoming.room, incoming.peer, incoming.sender) == (room.jid, room.at("alice"), None)
    await room.rename("bob", "bob two")
    await room.rename("alice", "alice two")
    assert digest((await done(await incoming.accept()))[0]) == digest(source)
    await done(sending)
    assert sending.peer == room.at("bob two")


# Leaving


async def test_kicked_receiver_that_comes_back_goes_on(room: Room, tmp_path: Path) -> None:
    alice, bob, receiving = await slow(room, tmp_path)
    [sending] = alice.bt.transfers
    await alice.xmpp.plugin["xep_0045"].set_role(room.jid, "bob", "none", timeout=PATIENCE)
    await until(lambda: not bob.bt._rooms.joined(room.jid, bob.jid))
    await until(lambda: alice.bt._rooms.occupant(room.at("bob"), alice.jid) is None)
    assert sending.peer == room.jid
    if room.gives_ids:
        assert receiving.peer == room.jid
        await room.let_in(bob, "bob")
        alice.bt.configure(upload_limit=None)
        await whole(receiving, tmp_path)
        await until(lambda: sending.complete)
    else:
        with pytest.raises(PeerGone, match="alice has left"):
            await done(receiving)


async def test_former_occupant_is_answered_as_about_an_unknown_offer(room: Room, tmp_path: Path) -> None:
    alice, bob = await room.make("alice", config=SHOWN), await room.enter("bob")
    offer = await alice.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    incoming = await bob.expect_offer()
    assert incoming.sender == JID(alice.jid.bare)
    for id in (offer.id, "unknown"):
        accept = f"<accept xmlns='{NS}' id='{id}' transfer='t'/>"
        assert await refusal(bob, alice.jid, accept) == "item-not-found"  # past the room
    await room.leave("bob")
    for id in (offer.id, "unknown"):
        accept = f"<accept xmlns='{NS}' id='{id}' transfer='t'/>"
        assert await refusal(bob, alice.jid, accept) == "item-not-found"
        # Through the room it does not get at all.
        assert await refusal(bob, room.at("alice"), accept) in ("not-acceptable", "item-not-found")
    assert offer.transfers == ()


async def test_receiver_finds_the_sender_in_the_room_by_asking(room: Room, tmp_path: Path) -> None:
    alice, bob = await room.make("alice", config=HIDDEN), await room.enter("bob")
    offer = await alice.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    await bob.expect_offer()
    overheard = Overheard(bob)
    await bob.bt._connection.send(Seek(offer.id), room.at("alice"), sender=bob.jid, mtype="headline")
    await until(lambda: overheard.requests)
    [here] = overheard.requests
    assert (here["from"], here.xml[0].tag) == (room.at("alice"), f"{{{NS}}}here")


async def test_lost_connection_of_either_is_made_up_for_by_entering_again(loopback: Room, tmp_path: Path) -> None:
    room, server = loopback, loopback.server
    assert isinstance(server, Loopback)
    _, bob, receiving = await slow(room, tmp_path)
    for nick in ("bob", "alice"):
        one = room.members.pop(nick)
        server.server.kick(one.jid.full)
        await until(lambda: not one.bt._rooms.joined(room.jid, one.jid))  # noqa: B023
        await server.connect(one.xmpp)
        await room.let_in(one, nick)
        one.bt.configure(upload_limit=None)
    await whole(receiving, tmp_path)
    assert len(bob.told("bt_transfer_start")) == 1


# Who may


async def test_room_is_no_account(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice")
    file = make_file(tmp_path / "file", 10)
    for sending in (alice.bt.send_file(room.jid, file), alice.bt.offer(room.jid, file)):
        with pytest.raises(ValueError, match="groupchat"):
            await sending
    await room.leave("alice")
    with pytest.raises(PeerNotFound, match="joined"):
        await alice.bt.offer(room.jid, file, mtype="groupchat")
    assert alice.bt.offers == ()


async def test_without_voice_the_refusal_is_the_offers_error_and_fetching_is_free(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice", config={"moderatedroom": "1"})
    bob = await room.enter("bob", auto_accept=True)
    await alice.xmpp.plugin["xep_0045"].set_role(room.jid, "bob", "visitor", timeout=PATIENCE)
    offer = await bob.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    await until(lambda: offer.state.terminal)
    assert offer.state is State.FAILED
    assert isinstance(offer.error, PeerGone)
    assert str(room.jid) in str(offer.error)
    await alice.bt.offer(room.jid, make_file(tmp_path / "other", 100_000), mtype="groupchat")
    await done(await bob.expect("bt_transfer_start"))


async def test_members_only_room_is_as_any_other(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice", config={"membersonly": "1", **SHOWN})
    account = await room.account()
    await alice.xmpp.plugin["xep_0045"].set_affiliation(room.jid, "member", jid=account.bare, timeout=PATIENCE)
    bob = await room.enter("bob", account, auto_accept=[alice.jid.bare])
    await alice.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    receiving = await bob.expect("bt_transfer_end")
    assert receiving.complete


async def test_room_on_a_list_and_hidden_contacts_are_not_accepted_by_themselves(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice", config=HIDDEN)
    account = await room.account()
    await room.server.subscribe(alice.jid.bare, account)
    bob = await room.enter("bob", account, auto_accept=[room.jid.bare, alice.jid.bare])
    carol = await room.enter("carol", auto_accept="roster")
    carol.xmpp.auto_authorize = None
    source = make_file(tmp_path / "file", 3_000)
    await alice.bt.offer(room.jid, source, mtype="groupchat")
    for one, nick in ((bob, "bob"), (carol, "carol")):
        await one.expect_offer()
        await alice.bt.offer(room.at(nick), source)  # nor privately
        await one.expect_offer(2)
        assert one.told("bt_transfer_start") == []


async def test_occupant_cannot_make_an_offer_bounce(room: Room, tmp_path: Path) -> None:
    alice, mallory = await room.make("alice"), await room.enter("mallory")
    overheard = Overheard(mallory)
    offer = await alice.bt.offer(room.jid, make_file(tmp_path / "file", 10), mtype="groupchat")
    await until(lambda: overheard.stanzas)
    errors = Overheard(alice)
    error = "<error type='modify'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    id = overheard.stanzas[0]["id"]
    mallory.xmpp.send_raw(f"<message to='{room.at('alice')}' type='error' id='{id}'>{error}</message>")
    mallory.xmpp.send_raw(f"<message to='{room.at('alice')}' type='chat' id='last'><body>last</body></message>")
    await until(lambda: any("last" in text for text in errors.everything))
    assert offer.state is State.OFFERED


async def test_archived_offer_counts_where_its_occupant_can_be_told(room: Room, tmp_path: Path) -> None:
    alice, bob = await room.make("alice", config=HIDDEN), await room.enter("bob")
    overheard = Overheard(bob)
    offer = await alice.bt.offer(room.jid, make_file(tmp_path / "file", 3_000), mtype="groupchat")
    await bob.expect_offer()
    carol = await room.enter("carol", history=False)
    archived = Message(xml=copy.deepcopy(overheard.stanzas[0].xml))
    archived["to"] = carol.jid
    found = carol.bt.handle_offer(archived)
    if room.gives_ids:
        assert found is not None
        assert (found.id, found.peer, found.room) == (offer.id, room.at("alice"), room.jid)
        await done(await found.accept())
    else:
        assert found is None
    assert carol.bt.handle_offer(archived) is None


# Restarts


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_restart_in_mid_file_goes_on_once_it_is_in_the_room_again(room: Room, tmp_path: Path, who: str) -> None:
    alice, bob, receiving = await slow(room, tmp_path, state=True)
    id = receiving.id
    again = await room.start(await room.stop(who), upload_limit=None)
    await until(lambda: again.bt._ready.is_set())
    if room.gives_ids:
        [transfer] = again.bt.transfers
        assert transfer.id == id
        assert transfer.peer == room.jid
    await room.let_in(again, f"{who} two")
    if not room.gives_ids:
        with pytest.raises(PeerGone):
            await done(receiving if who == "alice" else again.told("bt_transfer_end")[0])
        return
    alice, bob = room.members.get("alice two", alice), room.members.get("bob two", bob)
    alice.bt.configure(upload_limit=None)
    [receiving] = bob.bt.transfers
    await whole(receiving, tmp_path)
    await until(lambda: alice.bt.transfers == ())
    assert len(alice.bt.offers) == 1


async def test_offer_of_an_earlier_run_is_told_to_who_comes_late(room: Room, tmp_path: Path) -> None:
    alice = await room.make("alice", config={"persistentroom": "1"}, state_dir=tmp_path / "state")
    await room.enter("bob")
    source = make_file(tmp_path / "file", 3_000)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
    await until(lambda: offer.state is State.OFFERED and offer._announcement.made)
    one = await room.stop("alice")
    again = await room.start(one, state_dir=tmp_path / "state")
    await room.let_in(again, "alice")
    carol = await room.enter("carol", auto_accept=True)
    receiving = await carol.expect("bt_transfer_end")
    assert digest(await receiving.wait()) == digest(source)
    assert receiving.offer.id == offer.id


# Components


async def test_component_offers_in_a_room_as_one_of_its_names(server: Server, tmp_path: Path) -> None:
    bot = Member(server.component("bot"), tmp_path / "bot")
    bot.register()
    bot.xmpp.register_plugin("xep_0045")
    await server.connect(bot.xmpp)
    room, speaker = Room(server, tmp_path), JID(f"files@{bot.jid.bare}/x")
    await room.make("alice", config=HIDDEN)
    bob = await room.enter("bob", auto_accept=True)
    muc = bot.xmpp.plugin["xep_0045"]
    await muc.join_muc_wait(room.jid, "files", timeout=PATIENCE, presence_options={"pfrom": speaker})
    source = make_file(tmp_path / "file", 100_000)
    with pytest.raises(PeerNotFound, match="joined"):
        await bot.bt.offer(room.jid, source, mtype="groupchat", ifrom=f"other@{bot.jid.bare}/x")
    await bot.bt.offer(room.jid, source, mtype="groupchat", ifrom=speaker)
    receiving = await bob.expect("bt_transfer_start")
    assert digest((await done(receiving))[0]) == digest(source)
    assert receiving.peer == room.at("files")


# Two servers


@pytest.fixture(scope="module")
def federation() -> Iterator[dict[str, RealServer]]:
    """Prosody and ejabberd, which find each other."""
    prosody, ejabberd = Prosody(Options(domain="prosody.test")), Ejabberd(Options(domain="ejabberd.test"))
    with joined(prosody, ejabberd):
        yield {"prosody": prosody, "ejabberd": ejabberd}


@pytest.mark.server
@pytest.mark.parametrize("host", ["prosody", "ejabberd"])
async def test_addresses_stay_between_those_who_accepted_on_two_servers(
    federation: dict[str, RealServer], tmp_path: Path, host: str
) -> None:
    """The room hides JIDs; the sender is on its server, the receivers are on both, and so is who does not accept."""
    other = {"prosody": "ejabberd", "ejabberd": "prosody"}[host]
    async with Process(federation[host]) as here, Process(federation[other]) as there:
        room = Room(here, tmp_path)
        alice = await room.make("alice", config=HIDDEN)
        receivers = [await room.enter("bob", auto_accept=True)]
        idle = [await room.enter("idle here")]
        room.server = there
        receivers += [await room.enter(nick, auto_accept=True) for nick in ("carol", "dave")]
        idle.append(await room.enter("idle there"))
        overheard = [Overheard(one) for one in idle]
        source = make_file(tmp_path / "file", 2_000_000)
        offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
        for one in receivers:
            receiving = await one.expect("bt_transfer_end")
            assert digest(await receiving.wait()) == digest(source)
            assert receiving.offer.sender is None
            assert receiving.routes == {Route.SWARM: 2_000_000}
        await until(lambda: sum(t.complete for t in offer.transfers) == 3)
        assert sorted(t.peer.resource for t in offer.transfers) == ["bob", "carol", "dave"]
        for one, heard in zip(idle, overheard, strict=True):
            assert (await one.expect_offer()).id == offer.id
            assert [stanza.name for stanza in heard.stanzas] == ["message"]
            assert not any(word in text for text in heard.everything for word in ("address=", "127.0.0.", "::1"))
