"""Who is told of whom, and who is to fetch what first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from slixmpp_bt import introducing as module
from slixmpp_bt.backends import PeerConnected
from slixmpp_bt.constants import Route
from slixmpp_bt.messages import Accept, Accepted, Candidate, Peers, Share
from slixmpp_bt.negotiation import Event
from slixmpp_bt.outgoing import OutgoingOffer

from .fakes import Party, World, finish, settled, until
from .test_seeding import candidate, connect, swarm


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


def dialled(party: Party) -> set[Candidate]:
    return set(party.backend.downloads[-1].dialled.candidates)


async def test_receivers_learn_of_each_other_only_by_confirmed_addresses(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol")
    await world.pass_time(20, step=1)
    assert not any(peers.joined for peers in alice.wire.of(Peers))
    connect(alice, "bob")
    await world.pass_time(6, step=1)
    assert dialled(carol) == {candidate("alice"), candidate("bob")}
    assert dialled(bob) == {candidate("alice")}
    assert [peers.joined for peers in alice.wire.of(Peers) if peers.joined] == [(candidate("bob"),)]
    await finish(offer.withdraw())


async def test_newcomer_is_told_of_the_confirmed_in_its_answer_and_not_again(world: World) -> None:
    alice, (bob,), offer = await swarm(world, "bob")
    connect(alice, "bob")
    carol = world.party("all@b.example/carol")
    carol.backend.own = (candidate("carol"),)
    accept = Accept(offer.id, "t2", carol.backend.own, frozenset({Route.SWARM}))
    await settled()
    answer = await finish(alice.exchange.receive(accept, alice.know(carol), alice.jid))
    assert isinstance(answer, Accepted)
    assert answer.peers == (candidate("bob"),)
    await world.pass_time(20, step=1)
    assert not any(peers.joined for peers in alice.wire.of(Peers))
    await finish(offer.withdraw())
    assert bob.told("bt_transfer_end")


async def test_peers_come_at_most_once_in_five_seconds_and_then_all_that_is_new(world: World) -> None:
    alice, (bob, *_), offer = await swarm(world, "bob", "carol", "dave")

    def told() -> int:
        return len([peers for peers in alice.wire.of(Peers) if _is_for(offer, peers, bob)])

    await world.pass_time(6)
    before = told()
    connect(alice, "carol")
    await world.pass_time(0.5)
    assert told() == before + 1
    await world.pass_time(1)
    connect(alice, "dave")
    await world.pass_time(3.5)
    assert told() == before + 1
    await world.pass_time(1)
    assert told() == before + 2
    await world.pass_time(1)
    assert dialled(bob) == {candidate(name) for name in ("alice", "carol", "dave")}
    await finish(offer.withdraw())


def _is_for(offer: OutgoingOffer, peers: Peers, party: Party) -> bool:
    return any(t.id == peers.transfer and t.peer == party.jid for t in offer.transfers)


async def test_one_that_does_not_answer_does_not_hold_up_the_others(world: World) -> None:
    alice, (_, carol, dave), offer = await swarm(world, "bob", "carol", "dave")
    carol.wire.up.clear()
    connect(alice, "bob")
    await world.pass_time(30, step=1)
    assert candidate("bob") in dialled(dave)
    told = [p for p in alice.wire.of(Peers) if p.joined and _is_for(offer, p, carol)]
    assert len(told) == 1  # what it missed it learns when it accepts again
    carol.wire.up.set()
    carol.exchange.session_started()
    await settled()
    assert candidate("bob") in dialled(carol)
    await finish(offer.withdraw())


async def test_receiver_that_is_gone_is_taken_back_and_one_that_stays_is_not(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol", seed_after=60)
    connect(alice, "bob")
    await world.pass_time(6, step=1)
    await world.carry(offer, bob)
    await until(lambda: bob.told("bt_transfer_end"))
    await world.pass_time(12, step=1)
    assert candidate("bob") in dialled(carol)
    assert "stopped" not in carol.told("bt_transfer_start")[0].diagnosis.get(Route.SWARM, "")
    # It said for how long it would stay.
    connect(alice, "carol")
    await world.pass_time(60, step=1)
    alice.backend.seeds[-1].events.put(PeerConnected(candidate("dave")))
    await world.pass_time(6, step=1)
    assert candidate("bob") not in dialled(carol)
    assert "stopped" not in carol.told("bt_transfer_start")[0].diagnosis[Route.SWARM]
    await finish(offer.withdraw())


async def test_receiver_that_accepts_again_is_still_told_who_left_meanwhile(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol")
    connect(alice, "bob")
    await world.pass_time(6)
    assert candidate("bob") in dialled(carol)
    await finish(bob.told("bt_transfer_start")[0].cancel())
    carol.told("bt_transfer_start")[0].feed(Event.STALL)
    carol.exchange.session_started()
    await world.pass_time(6)
    assert dialled(carol) == {candidate("alice")}
    await finish(offer.withdraw())


async def test_confirmed_addresses_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CONFIRMED", 10)
    alice, _, offer = await swarm(world, "bob")
    for number in range(50):
        alice.backend.seeds[0].events.put(PeerConnected(Candidate(ip_address(f"10.0.0.{number}"), 1)))
    await settled()
    assert len(offer.seeding.introducing._confirmed) == 10
    await finish(offer.withdraw())


# Shares


def share_of(party: Party) -> Share:
    found: Share = party.backend.downloads[-1].dialled.share
    return found


async def come(world: World, offer: OutgoingOffer, alice: Party, name: str, **more: object) -> Accepted:
    """Another device accepts; its answer."""
    party = world.party(f"all@b.example/{name}")
    party.backend.own = (Candidate(ip_address("127.0.0.9"), 6881),)
    accept = Accept(offer.id, f"t-{name}", party.backend.own, frozenset({Route.SWARM}), **more)  # type: ignore[arg-type]
    answer = await finish(alice.exchange.receive(accept, alice.know(party), alice.jid))
    assert isinstance(answer, Accepted)
    return answer


async def test_receiver_alone_gets_no_share(world: World) -> None:
    alice, (bob,), offer = await swarm(world, "bob")
    await world.pass_time(20, step=1)
    assert share_of(bob) == Share(0, 1)
    assert alice.wire.of(Peers) == []
    await finish(offer.withdraw())


async def test_receivers_together_have_a_share_each(world: World) -> None:
    _, others, offer = await swarm(world, "bob", "carol", "dave")
    await world.pass_time(8, step=0.25)
    assert sorted(share_of(party).index for party in others) == [0, 1, 2]
    assert {share_of(party).count for party in others} == {3}
    await finish(offer.withdraw())


async def test_who_began_alone_is_told_at_once_that_another_came(world: World) -> None:
    alice, (bob,), offer = await swarm(world, "bob")
    await world.pass_time(60, step=5)
    assert (await come(world, offer, alice, "carol")).share == Share(1, 2)
    await world.pass_time(0.5)  # those who come together are told together
    assert share_of(bob) == Share(0, 2)
    await finish(offer.withdraw())


async def test_who_takes_only_some_files_gets_no_share_and_makes_none(world: World) -> None:
    alice, (bob,), offer = await swarm(world, "bob")
    assert (await come(world, offer, alice, "carol", select=frozenset({0}))).share is None
    await world.pass_time(20, step=1)
    assert share_of(bob) == Share(0, 1)
    await finish(offer.withdraw())


async def test_who_comes_when_another_has_everything_and_stays_gets_no_share(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol", seed_after=600)
    await world.pass_time(8)
    await world.carry(offer, bob)
    await until(lambda: bob.told("bt_transfer_end"))
    await settled()
    before = share_of(carol)
    assert (await come(world, offer, alice, "dave")).share is None
    await world.pass_time(20, step=1)
    assert share_of(carol) == before
    await finish(offer.withdraw())


async def test_share_of_one_that_left_goes_to_the_next_that_comes(world: World) -> None:
    alice, (bob, carol, dave), offer = await swarm(world, "bob", "carol", "dave")
    await world.pass_time(8, step=0.25)
    await finish(carol.told("bt_transfer_start")[0].cancel())
    await world.pass_time(8, step=0.25)
    answer = await come(world, offer, alice, "erin")
    await world.pass_time(8, step=0.25)
    assert answer.share is not None
    assert {share.index for share in (share_of(bob), share_of(dave), answer.share)} == {0, 1, 2}
    await finish(offer.withdraw())
