"""Whom a receiver dials: no more than there is room for, and nobody whom no peer could be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from slixmpp_bt import dialling
from slixmpp_bt.dialling import FIRST_TURN, SECOND_TURN
from slixmpp_bt.messages import Candidate, Peers

from .fakes import World, finish


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def test_introductions_without_end_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "_MAX_KNOWN", 100)
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    assert sending.id is not None
    dialled = bob.backend.downloads[0].dialled
    for number in range(20):
        joined = tuple(Candidate(ip_address(f"127.1.{number}.{index}"), 1) for index in range(1, 65))
        await finish(bob.exchange.receive(Peers(offer.id, sending.id, joined), bob.know(alice), bob.jid))
    await world.pass_time(1)
    assert len(dialled.candidates) == 100
    # Those who leave make room.
    gone = tuple(dialled.candidates[1:50])
    await finish(bob.exchange.receive(Peers(offer.id, sending.id, joined, gone), bob.know(alice), bob.jid))
    await world.pass_time(1)
    assert len(dialled.candidates) == 100


async def test_of_two_receivers_that_hear_of_each_other_one_dials_first(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    assert sending.id is not None
    [own], [senders] = bob.backend.own, alice.backend.own
    low, high = (Candidate(ip_address("127.0.0.9"), own.port + by) for by in (-1, 1))
    dialled = bob.backend.downloads[0].dialled
    dialled.remove([senders])
    for joined in (senders, low, high):
        await finish(bob.exchange.receive(Peers(offer.id, sending.id, (joined,)), bob.know(alice), bob.jid))
    assert dialled.candidates == [senders]
    await world.pass_time((FIRST_TURN + SECOND_TURN) / 2)
    assert dialled.candidates == [senders, low]
    await finish(bob.exchange.receive(Peers(offer.id, sending.id, (), (low,)), bob.know(alice), bob.jid))
    await world.pass_time(SECOND_TURN)
    assert dialled.candidates == [senders, high]


async def test_who_left_before_it_was_dialled_is_not_dialled(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    assert sending.id is not None
    other = (Candidate(ip_address("127.0.0.9"), 1),)
    for joined, left in ((other, ()), ((), other)):
        await finish(bob.exchange.receive(Peers(offer.id, sending.id, joined, left), bob.know(alice), bob.jid))
    await world.pass_time(2 * SECOND_TURN)
    assert bob.backend.downloads[0].dialled.candidates == list(alice.backend.own)


async def test_introduction_of_addresses_that_may_not_be_dialled_is_ignored(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    assert sending.id is not None
    bad = tuple(Candidate(ip_address(text), 1) for text in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"))
    await finish(bob.exchange.receive(Peers(offer.id, sending.id, bad), bob.know(alice), bob.jid))
    assert bob.backend.downloads[0].dialled.candidates == list(alice.backend.own)
