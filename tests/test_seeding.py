"""The seed that receivers share: who is introduced to whom, and a source that does not stay what it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt import seeding as module
from slixmpp_bt.backends import PeerConnected, PeerRefused, StorageFailed
from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import SourceChanged, StorageError
from slixmpp_bt.messages import Accept, Accepted, Candidate, Peers
from slixmpp_bt.negotiation import Event
from slixmpp_bt.outgoing import OutgoingOffer

from .fakes import Party, World, finish, settled, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


HOSTS = {"alice": "127.0.0.1", "bob": "127.0.0.2", "carol": "127.0.0.3", "dave": "127.0.0.4"}


def _candidate(name: str) -> Candidate:
    return Candidate(ip_address(HOSTS[name]), 6881)


async def swarm(world: World, *names: str, **config: Any) -> tuple[Party, list[Party], OutgoingOffer]:
    """A sender and devices of one account that fetch from it, each at an address of its own."""
    alice = world.party("alice@a.example/laptop")
    others = [world.party(f"all@b.example/{name}", auto_accept=True, **config) for name in names]
    for party, name in zip([alice, *others], ["alice", *names], strict=True):
        party.backend.own = (_candidate(name),)
    offer = alice.offer("all@b.example", world.file())
    await until(lambda: all(party.backend.downloads for party in others))
    await settled()
    return alice, others, offer


def connect(alice: Party, name: str) -> None:
    """Somebody's connection reaches the seed, from a port of its own."""
    alice.backend.seeds[-1].events.put(PeerConnected(Candidate(ip_address(HOSTS[name]), 50_000)))


def dialled(party: Party) -> set[Candidate]:
    return set(party.backend.downloads[-1].dialled.candidates)


async def test_receivers_learn_of_each_other_only_by_confirmed_addresses(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol")
    await world.pass_time(20, step=1)
    assert alice.wire.of(Peers) == []
    connect(alice, "bob")
    await world.pass_time(6, step=1)
    assert dialled(carol) == {_candidate("alice"), _candidate("bob")}
    assert dialled(bob) == {_candidate("alice")}
    assert all(peers.joined == (_candidate("bob"),) for peers in alice.wire.of(Peers))
    await finish(offer.withdraw())


async def test_newcomer_is_told_of_the_confirmed_in_its_answer_and_not_again(world: World) -> None:
    alice, (bob,), offer = await swarm(world, "bob")
    connect(alice, "bob")
    carol = world.party("all@b.example/carol")
    carol.backend.own = (_candidate("carol"),)
    accept = Accept(offer.id, "t2", carol.backend.own, frozenset({Route.SWARM}))
    await settled()
    answer = await finish(alice.exchange.receive(accept, alice.know(carol), alice.jid))
    assert isinstance(answer, Accepted)
    assert answer.peers == (_candidate("bob"),)
    await world.pass_time(20, step=1)
    assert alice.wire.of(Peers) == []
    await finish(offer.withdraw())
    assert bob.told("bt_transfer_end")


async def test_peers_come_at_most_once_in_five_seconds_and_then_all_that_is_new(world: World) -> None:
    alice, (bob, *_), offer = await swarm(world, "bob", "carol", "dave")

    def told() -> int:
        return len([peers for peers in alice.wire.of(Peers) if _is_for(offer, peers, bob)])

    connect(alice, "carol")
    await settled()
    assert told() == 1
    await world.pass_time(1)
    connect(alice, "dave")
    await world.pass_time(3.9)
    assert told() == 1
    await world.pass_time(0.2)
    assert told() == 2
    assert dialled(bob) == {_candidate(name) for name in ("alice", "carol", "dave")}
    await finish(offer.withdraw())


def _is_for(offer: OutgoingOffer, peers: Peers, party: Party) -> bool:
    return any(t.id == peers.transfer and t.peer == party.jid for t in offer.transfers)


async def test_one_that_does_not_answer_does_not_hold_up_the_others(world: World) -> None:
    alice, (_, carol, dave), offer = await swarm(world, "bob", "carol", "dave")
    carol.wire.up.clear()
    connect(alice, "bob")
    await world.pass_time(30, step=1)
    assert _candidate("bob") in dialled(dave)
    told = [p for p in alice.wire.of(Peers) if _is_for(offer, p, carol)]
    assert len(told) == 1  # what it missed it learns when it accepts again
    carol.wire.up.set()
    carol.exchange.session_started()
    await settled()
    assert _candidate("bob") in dialled(carol)
    await finish(offer.withdraw())


async def test_receiver_that_is_gone_is_taken_back_and_one_that_stays_is_not(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol", seed_after=60)
    connect(alice, "bob")
    await world.pass_time(6, step=1)
    await world.carry(offer, bob)
    await until(lambda: bob.told("bt_transfer_end"))
    await world.pass_time(12, step=1)
    assert _candidate("bob") in dialled(carol)
    assert "stopped" not in carol.told("bt_transfer_start")[0].diagnosis.get(Route.SWARM, "")
    # It said for how long it would stay.
    connect(alice, "carol")
    await world.pass_time(60, step=1)
    alice.backend.seeds[-1].events.put(PeerConnected(_candidate("dave")))
    await world.pass_time(6, step=1)
    assert _candidate("bob") not in dialled(carol)
    assert "stopped" not in carol.told("bt_transfer_start")[0].diagnosis[Route.SWARM]
    await finish(offer.withdraw())


async def test_receiver_that_accepts_again_is_still_told_who_left_meanwhile(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol")
    connect(alice, "bob")
    await settled()
    assert _candidate("bob") in dialled(carol)
    await finish(bob.told("bt_transfer_start")[0].cancel())
    carol.told("bt_transfer_start")[0].feed(Event.STALL)
    carol.exchange.session_started()
    await world.pass_time(6)
    assert dialled(carol) == {_candidate("alice")}
    await finish(offer.withdraw())


async def test_seed_closes_with_the_last_receiver_and_opens_for_the_next(world: World) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol")
    seed = alice.backend.seeds[0].dialled
    await finish(bob.told("bt_transfer_start")[0].cancel())
    await settled()
    assert not seed.closed
    await finish(carol.told("bt_transfer_start")[0].cancel())
    await until(lambda: seed.closed)
    incoming = carol.told("bt_transfer_start")[0].offer
    await finish(incoming.accept())
    await until(lambda: len(alice.backend.seeds) == 2)
    await finish(offer.withdraw())
    await settled()
    assert alice.backend.seeds[1].dialled.closed


async def test_accept_while_the_seed_closes_gets_an_open_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, (bob, carol), offer = await swarm(world, "bob", "carol")
    gate, seed = asyncio.Event(), alice.backend.seeds[0]
    aclose = seed.aclose

    async def slowly() -> None:
        await gate.wait()
        await aclose()

    monkeypatch.setattr(seed, "aclose", slowly)
    await finish(bob.told("bt_transfer_start")[0].cancel())
    first = carol.told("bt_transfer_start")[0]
    await finish(first.cancel())
    await settled()
    again = await finish(first.offer.accept())
    await settled()
    gate.set()
    await until(lambda: len(alice.backend.seeds) == 2)
    await settled()
    assert not alice.backend.seeds[1].dialled.closed
    await until(lambda: len(carol.backend.downloads) == 2)
    await world.carry(offer, carol)
    await finish(again.wait())
    await finish(offer.withdraw())


async def test_source_that_changes_while_served_ends_all_with_the_reason(world: World) -> None:
    alice, others, offer = await swarm(world, "bob", "carol")
    offer.path.write_bytes(b"other")
    await world.pass_time(5.5, step=0.5)
    await until(lambda: all(party.told("bt_transfer_end") for party in others))
    for transfer in (*offer.transfers, *(party.told("bt_transfer_end")[0] for party in others)):
        assert transfer.state is State.FAILED
        with pytest.raises(SourceChanged, match="file"):
            await transfer.wait()
    assert isinstance(offer.error, SourceChanged)
    await until(lambda: alice.backend.seeds[0].dialled.closed)


@pytest.mark.parametrize("changed", [True, False])
async def test_reading_that_fails_ends_the_offer_with_the_cause(world: World, changed: bool) -> None:
    alice, _, offer = await swarm(world, "bob")
    if changed:
        offer.path.unlink()
    alice.backend.seeds[0].events.put(StorageFailed(StorageError("the disk is failing")))
    await until(lambda: offer.state.terminal)
    assert type(offer.error) is (SourceChanged if changed else StorageError)


async def test_refused_address_is_named_in_words_without_the_address(world: World) -> None:
    alice, _, offer = await swarm(world, "bob")
    alice.backend.seeds[0].events.put(PeerRefused(_candidate("bob"), "connection refused"))
    await settled()
    words = offer.transfers[0].diagnosis[Route.SWARM]
    assert words == "the receiver's address does not answer: connection refused"
    await finish(offer.withdraw())


async def test_confirmed_addresses_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CONFIRMED", 10)
    alice, _, offer = await swarm(world, "bob")
    for number in range(50):
        alice.backend.seeds[0].events.put(PeerConnected(Candidate(ip_address(f"10.0.0.{number}"), 1)))
    await settled()
    assert len(offer.seeding._confirmed) == 10
    await finish(offer.withdraw())
