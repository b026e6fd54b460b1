"""The seed that receivers share, and a source that does not stay what it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt.backends import PeerConnected, PeerRefused, StorageFailed
from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import SourceChanged, StorageError
from slixmpp_bt.messages import Candidate
from slixmpp_bt.outgoing import OutgoingOffer

from .fakes import Party, World, finish, settled, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


HOSTS = {"alice": "127.0.0.1", "bob": "127.0.0.2", "carol": "127.0.0.3", "dave": "127.0.0.4"}


def candidate(name: str) -> Candidate:
    return Candidate(ip_address(HOSTS[name]), 6881)


async def swarm(world: World, *names: str, **config: Any) -> tuple[Party, list[Party], OutgoingOffer]:
    """A sender and devices of one account that fetch from it, each at an address of its own."""
    alice = world.party("alice@a.example/laptop")
    others = [world.party(f"all@b.example/{name}", auto_accept=True, **config) for name in names]
    for party, name in zip([alice, *others], ["alice", *names], strict=True):
        party.backend.own = (candidate(name),)
    offer = alice.offer("all@b.example", world.file())
    await until(lambda: all(party.backend.downloads for party in others))
    await settled()
    return alice, others, offer


def connect(alice: Party, name: str) -> None:
    """Somebody's connection reaches the seed, from a port of its own."""
    alice.backend.seeds[-1].events.put(PeerConnected(Candidate(ip_address(HOSTS[name]), 50_000)))


def dialled(party: Party) -> set[Candidate]:
    return set(party.backend.downloads[-1].dialled.candidates)


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
    alice.backend.seeds[0].events.put(PeerRefused(candidate("bob"), "connection refused"))
    await settled()
    words = offer.transfers[0].diagnosis[Route.SWARM]
    assert words == "the receiver's address does not answer: connection refused"
    await finish(offer.withdraw())
