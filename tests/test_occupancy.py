"""Offers and transfers of occupants that leave, come back, or have another nick; the room itself is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt.constants import State
from slixmpp_bt.errors import PeerGone, ProtocolError
from slixmpp_bt.messages import Accept, End, Offer, Withdraw
from slixmpp_bt.policy import Peer, occupant_of

from .fakes import Party, World, finish, settled, until

ROOM = JID("den@rooms.example")
LASTING, PASSING = "id of {}", "stay of {}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


def owner(name: str, kind: str = LASTING) -> str:
    word = kind.format(name)
    return occupant_of(ROOM, id=word) if kind is LASTING else occupant_of(ROOM, stay=word)


def at(nick: str) -> JID:
    return JID(f"{ROOM}/{nick}")


def occupants(world: World, kind: str = LASTING, **config: Any) -> tuple[Party, Party]:
    """A sender and a receiver in a room that hides their JIDs."""
    alice, bob = world.party(f"{ROOM}/alice"), world.party(f"{ROOM}/bob", **{"auto_accept": True, **config})

    def know(other: Party) -> Peer:
        name = "alice" if other is alice else "bob"
        return Peer(jid=other.jid, bare=None, room=ROOM, occupant=owner(name, kind))

    for one in (alice, bob):
        one.know = know  # type: ignore[method-assign]
    return alice, bob


async def test_sender_that_leaves_is_waited_for_and_found_under_another_nick(world: World) -> None:
    alice, bob = occupants(world)
    offer, _, receiving = await world.running(alice, bob, to=at("bob").full)
    bob.exchange.occupancy.left(owner("alice"), at("alice"))
    assert receiving.peer == ROOM
    assert not receiving.ended
    asked = len(bob.wire.of(Accept))
    bob.exchange.occupancy.came(owner("mallory"), at("alice"))
    await settled()
    assert (receiving.peer, len(bob.wire.of(Accept))) == (ROOM, asked)
    alice.jid = at("alice two")
    bob.exchange.occupancy.came(owner("alice"), alice.jid)
    await settled()
    assert (receiving.peer, len(bob.wire.of(Accept))) == (alice.jid, asked + 1)
    await world.carry(offer, bob)
    await finish(receiving.wait())


async def test_sender_that_would_not_be_known_again_ends_the_transfer(world: World) -> None:
    alice, bob = occupants(world, PASSING)
    _, _, receiving = await world.running(alice, bob, to=at("bob").full)
    bob.exchange.occupancy.left(owner("alice", PASSING), at("alice"))
    with pytest.raises(PeerGone, match="alice has left the room"):
        await finish(receiving.wait())
    await finish(receiving.released())
    assert list(bob.inbox.iterdir()) == []
    assert bob.wire.of(End) == []  # to whom?
    assert bob.exchange.registry.offers == ()


@pytest.mark.parametrize("kind", [LASTING, PASSING])
async def test_open_offer_outlasts_its_sender_if_that_would_be_known_again(world: World, kind: str) -> None:
    alice, bob = occupants(world, kind, auto_accept=False)
    alice.offer(at("bob").full, world.file())
    offer = await bob.expect("bt_offer")
    bob.exchange.occupancy.left(owner("alice", kind), at("alice"))
    assert offer.peer == ROOM
    assert len(bob.told("bt_offer_end")) == (kind is PASSING)
    bob.exchange.occupancy.came(owner("alice", kind), at("alice two"))
    assert offer.peer == (at("alice two") if kind is LASTING else ROOM)


async def test_nicks_are_followed(world: World) -> None:
    alice, bob = occupants(world)
    offer, sending, receiving = await world.running(alice, bob, to=at("bob").full)
    alice.jid, bob.jid = at("alice two"), at("bob two")
    bob.exchange.occupancy.renamed(owner("alice"), at("alice"), alice.jid)
    alice.exchange.occupancy.renamed(owner("bob"), at("bob"), bob.jid)
    assert (receiving.peer, sending.peer, offer.to) == (alice.jid, bob.jid, bob.jid)
    await world.carry(offer, bob)
    await finish(receiving.wait())
    await until(lambda: sending.complete)


async def test_other_device_of_the_sender_is_asked_only_while_nothing_moves(world: World) -> None:
    alice, bob = occupants(world)
    await world.running(alice, bob, to=at("bob").full)
    [receiving] = bob.exchange.registry.transfers
    bob.exchange.occupancy.came(owner("alice"), at("alice at home"))
    assert receiving.peer == at("alice")
    await world.pass_time(12, step=0.5)
    assert receiving.state is State.WAITING
    alice.jid = at("alice at home")
    bob.exchange.occupancy.came(owner("alice"), at("alice at home"))
    await settled()
    assert receiving.peer == at("alice at home")


async def test_offer_to_an_occupant_ends_with_its_stay_unless_it_was_accepted(world: World) -> None:
    alice, bob = occupants(world)
    _, sending, receiving = await world.running(alice, bob, to=at("bob").full, single=False)
    other = alice.offer(at("bob").full, world.file("other"), lasts=100)
    await until(lambda: other.state is State.OFFERED)
    bob.wire.lost.add(Accept)
    third = alice.offer(at("carol").full, world.file("third"))
    await until(lambda: third.state is State.OFFERED)
    alice.exchange.occupancy.left(owner("carol"), at("carol"))
    assert isinstance(third.error, PeerGone)
    alice.exchange.occupancy.left(owner("bob"), at("bob"))
    assert (sending.peer, sending.ended, receiving.ended) == (ROOM, False, False)
    # The nick invites nobody any more.
    mallory = Peer(jid=at("bob"), bare=None, room=ROOM, occupant=owner("mallory"))
    for offer in (other, sending.offer):
        for transfer in ("another", sending.id or ""):
            with pytest.raises(ProtocolError) as refused:
                await finish(alice.exchange.receive(Accept(offer.id, transfer), mallory, alice.jid))
            assert refused.value.condition == "item-not-found"
    alice.exchange.occupancy.came(owner("bob"), at("bob two"))
    assert sending.peer == at("bob two")


async def test_last_words_wait_for_whom_they_are_for(world: World) -> None:
    alice, bob = occupants(world)
    _, sending, receiving = await world.running(alice, bob, to=at("bob").full)
    bob.exchange.occupancy.left(owner("alice"), at("alice"))
    await finish(receiving.cancel("enough"))
    bob.exchange.occupancy.came(owner("mallory"), at("alice"))
    bob.exchange.session_started()
    await world.pass_time(100, step=5)
    assert bob.wire.of(End) == []
    bob.exchange.occupancy.came(owner("alice"), at("alice"))
    await until(lambda: sending.state is State.CANCELLED)
    assert len(bob.wire.of(End)) == 1


async def test_offer_that_comes_back_from_the_room_is_none(world: World) -> None:
    alice, bob = occupants(world)
    own = alice.offer(at("bob").full, world.file())
    await until(lambda: bob.told("bt_transfer_start"))
    [said] = alice.wire.of(Offer)
    own.to = ROOM
    assert alice.exchange.intake.receive_offer(said, alice.know(alice), alice.jid) is None


async def test_withdrawal_counts_from_its_occupant_alone(world: World) -> None:
    alice, bob = occupants(world, auto_accept=False)
    own = alice.offer(at("bob").full, world.file())
    offer = await bob.expect("bt_offer")
    bob.exchange.withdrawn(Withdraw(own.id), Peer(at("alice"), None, room=ROOM, occupant=owner("mallory")))
    assert offer.alive
    bob.exchange.withdrawn(Withdraw(own.id), bob.know(alice))
    assert not offer.alive
