"""Who stands in for a sender that is away can waste time, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from slixmpp.stanza import Iq

from slixmpp_bt import Route, State, Transfer, deputies
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.messages import Accept, Accepted, End, Here, Seek
from slixmpp_bt.negotiation import Event
from slixmpp_bt.outgoing import OutgoingOffer
from slixmpp_bt.sealing import Authority, public_key, seal
from slixmpp_bt.seals import utc
from slixmpp_bt.stanza import AnyMessage

from .fakes import Party, World, finish, settled
from .fakes import until as come_true
from .security.raw import condition, raw
from .servers import Loopback
from .test_delegation import Three, in_room, loopback, own, three  # noqa: F401 (fixtures)
from .test_rooms_offers import HIDDEN, Overheard, Room
from .world import Member, digest, done, make_file, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def parties(world: World, *, delegate: bool = True) -> tuple[Party, Party, Party, OutgoingOffer]:
    """Alice has made an offer to an account, of whose devices Bob's has everything, and Carol's nothing."""
    alice = world.party("alice@a.example/laptop")
    bob = world.party("all@b.example/bob", auto_accept=True, seed_after=3600)
    carol = world.party("all@b.example/carol")
    offer = alice.offer("all@b.example", world.file(), delegate=delegate)
    await come_true(lambda: bob.backend.downloads and carol.told("bt_offer"))
    await world.carry(offer, bob)
    await come_true(lambda: bob.told("bt_transfer_end"))
    await settled()
    return alice, bob, carol, offer


async def at_bob(world: World) -> tuple[Party, Party, Party, OutgoingOffer, Transfer]:
    """As before, but Alice is gone, and Carol fetches from Bob."""
    alice, bob, carol, offer = await parties(world)
    alice.wire.up.clear()
    transfer = await finish(carol.told("bt_offer")[0].accept())
    await settled()
    assert (transfer.peer, transfer.state) == (bob.jid, State.CONNECTING)
    return alice, bob, carol, offer, transfer


async def test_device_fetches_from_another_one_which_keeps_one_seed(world: World) -> None:
    _, bob, carol, offer, transfer = await at_bob(world)
    assert bob.backend.seeds == []  # the one that it has was its download
    [handle] = [handle for handle in bob.backend._handles if not handle._closed]
    await world.carry(offer, carol)
    await finish(transfer.wait())
    await settled()
    [served] = bob.exchange.delegation.offers.values()
    assert [t.complete for t in served.transfers] == [True]
    assert not handle._closed
    assert [end.kind for end in carol.context.outbox.waiting] == ["complete"]  # which is for Alice


async def test_here_of_who_was_not_sought_moves_nothing(world: World) -> None:
    alice, bob, carol, _ = await parties(world)
    transfer = await finish(carol.told("bt_offer")[0].accept())
    await settled()
    await finish(bob.wire.request(Here(transfer.offer.id), carol.jid, sender=bob.jid))
    await settled()
    assert (transfer.peer, transfer.state) == (alice.jid, State.CONNECTING)
    assert bob.wire.of(Seek) == carol.wire.of(Seek) == []


@pytest.mark.parametrize("delegate", [True, False])
async def test_here_of_a_stranger_or_for_what_is_not_delegated_is_refused(world: World, delegate: bool) -> None:
    alice, bob, carol, _ = await parties(world, delegate=delegate)
    alice.wire.up.clear()
    bob.wire.up.clear()
    transfer = await finish(carol.told("bt_offer")[0].accept())
    await settled()
    assert len(carol.wire.of(Seek)) == (2 if delegate else 1)
    bob.wire.up.set()
    other = world.party("eve@e.example/x") if delegate else bob
    with pytest.raises(ProtocolError, match="no such offer"):
        await finish(other.wire.request(Here(transfer.offer.id), carol.jid, sender=other.jid))
    assert (transfer.peer, transfer.state) == (alice.jid, State.WAITING)


async def test_one_that_brings_nothing_is_left_alone_for_a_while(world: World) -> None:
    alice, bob, carol, offer, transfer = await at_bob(world)
    await world.pass_time(15)
    assert transfer.peer == bob.jid  # it may be slow
    await world.pass_time(10)
    assert (transfer.peer, transfer.state) == (alice.jid, State.WAITING)
    asked, given_up = len(bob.wire.of(Here)), world.clock()
    while world.clock() < given_up + deputies._LEFT_ALONE - 10:
        await world.pass_time(10, step=2.5)
        assert transfer.peer == alice.jid
    assert len(bob.wire.of(Here)) > asked  # it goes on saying so
    for _ in range(100):
        await world.pass_time(10, step=2.5)
        if transfer.peer == bob.jid:
            break
    await world.carry(offer, carol)
    await finish(transfer.wait())
    assert transfer.peer == bob.jid


async def test_pause_is_not_held_against_anybody(world: World) -> None:
    _, bob, carol, offer, transfer = await at_bob(world)
    await finish(transfer.pause())
    await world.pass_time(100, step=5)
    await finish(transfer.resume())
    await world.pass_time(2)
    assert (transfer.peer, transfer.state) == (bob.jid, State.CONNECTING)
    await world.carry(offer, carol)
    await finish(transfer.wait())


async def test_one_that_goes_is_given_up(world: World) -> None:
    alice, bob, _, _, transfer = await at_bob(world)
    bob.wire.up.clear()
    transfer.feed(Event.FOUND)
    await settled()
    assert (transfer.peer, transfer.state) == (alice.jid, State.WAITING)


async def test_sender_that_comes_back_is_asked_again_and_told_of_the_end(world: World) -> None:
    alice, bob, carol, offer, transfer = await at_bob(world)
    await world.carry(offer, carol, 2)
    await world.pass_time(0.5)
    alice.wire.up.set()
    carol.exchange.contact(alice.jid)
    await settled()
    assert transfer.peer == alice.jid
    await world.carry(offer, carol)
    await finish(transfer.wait())
    await settled()
    assert [t.complete for t in offer.transfers if t.peer == carol.jid] == [True]
    assert carol.context.outbox.waiting == []
    [served] = bob.exchange.delegation.offers.values()
    assert [t.complete for t in served.transfers] == [True]  # who was asked once is told, too


async def test_end_of_a_deputy_counts_for_nothing_and_that_of_the_sender_does(world: World) -> None:
    alice, bob, carol, _, transfer = await at_bob(world)
    end = End(transfer.offer.id, "cancel", "cancel", transfer=transfer.id)
    with pytest.raises(ProtocolError, match="no such offer"):
        await finish(bob.wire.request(end, carol.jid, sender=bob.jid))
    assert not transfer.ended
    alice.wire.up.set()
    await finish(alice.wire.request(end, carol.jid, sender=alice.jid))
    assert transfer.state is State.CANCELLED


# By hand


def refusing(how: str) -> Any:
    return lambda request, iq: how


def accepting(what: str) -> Any:
    """Answers an Accept with something that is of no use."""
    other = Authority.make(utc(1.8e9))

    def answer(request: AnyMessage, iq: Iq) -> AnyMessage | str:
        if not isinstance(request, Accept):
            return "item-not-found"
        routes, certificate, content = frozenset(Route), None, None
        if what == "no routes":
            routes = frozenset({Route.IN_BAND})
        if what == "foreign certificate" and request.request:
            certificate = other.sign(request.request, utc(1.8e9))
        if what == "wrong content" and request.request:
            content = seal(public_key(request.request), b"", bytes(3_000))
        return Accepted(request.id, request.transfer, routes=routes, certificate=certificate, content=content)

    return answer


LIARS = {
    "gone": refusing("gone"),
    "bad-request": refusing("bad-request"),
    "item-not-found": refusing("item-not-found"),
    "resource-constraint": refusing("resource-constraint"),
    "no certificate": accepting("nothing"),
    "foreign certificate": accepting("foreign certificate"),
    "wrong content": accepting("wrong content"),
    "no routes": accepting("no routes"),
}


@pytest.mark.parametrize("how", list(LIARS))
async def test_device_that_lies_ends_nothing_and_the_sender_goes_on(three: Three, how: str) -> None:  # noqa: F811
    alice, tablet = await three.alice.start("laptop"), await three.tablet.start("tablet", routes=["inline", "swarm"])
    make_file(three.source, 3_000)
    await alice.bt.offer(three.account, three.source, delegate=True)
    incoming = await tablet.expect_offer()
    liar = await raw(three.server, f"{three.account}/liar", LIARS[how])
    await three.alice.crash()
    transfer = await incoming.accept()
    side: Any = transfer._side
    await until(lambda: side.deputies._sought)
    assert condition(await liar.ask(tablet.jid, Here(incoming.id))) is None
    await liar.expect_asked(Accept)
    await until(lambda: side.deputies.current is None)
    assert transfer.peer == incoming.peer
    assert transfer.state is State.WAITING
    await three.alice.start("laptop")
    [path] = await done(transfer)
    assert digest(path) == digest(three.source)


# Rooms


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with Loopback() as server:
        yield Room(server, tmp_path)


async def running(room: Room, tmp_path: Path) -> tuple[Member, Member, Transfer]:
    """Carol fetches slowly from Bob what Alice, who is gone, has offered in a room; Alice, Bob, and the transfer."""
    alice, bob, carol = await in_room(room, tmp_path, HIDDEN)
    bob.bt.configure(upload_limit=50_000)
    transfer = await carol.told("bt_offer")[0].accept()
    await until(lambda: transfer.progress.transferred > 0)
    assert transfer.peer == room.at("bob")
    return alice, bob, transfer


async def test_deputy_with_another_nick_is_followed(room: Room, tmp_path: Path) -> None:
    _, bob, transfer = await running(room, tmp_path)
    await room.rename("bob", "robert")
    await until(lambda: transfer.peer == room.at("robert"))
    bob.bt.configure(upload_limit=None)
    [path] = await done(transfer)
    assert digest(path) == digest(tmp_path / "file")


async def test_nick_of_a_deputy_that_has_left_inherits_nothing(room: Room, tmp_path: Path) -> None:
    _, bob, transfer = await running(room, tmp_path)
    await room.leave("bob")
    mallory = await room.enter("bob")
    overheard = Overheard(mallory)
    assert transfer.peer == room.jid
    bob.bt.configure(upload_limit=None)
    async with asyncio.timeout(40):
        path = await transfer.wait()
    assert digest(path) == digest(tmp_path / "file")
    await transfer.released()
    # What is said in the room now comes after whatever was sent to the nick before.
    carol = room.members["carol"]
    carol.xmpp.send_message(mto=room.jid, mbody="done", mtype="groupchat")
    await until(lambda: any(">done<" in text for text in overheard.everything))
    assert overheard.requests == []


async def test_sender_in_the_room_again_is_asked_again(room: Room, tmp_path: Path) -> None:
    alice, _, transfer = await running(room, tmp_path)
    alice = await room.start(alice)
    await room.let_in(alice, "alice")
    await until(lambda: transfer.peer == room.at("alice"))
    [path] = await done(transfer)
    assert digest(path) == digest(tmp_path / "file")
    [offer] = own(alice)
    await until(lambda: [t.complete for t in offer.transfers] == [True])
