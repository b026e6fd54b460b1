"""The sender's side: what it shows of a receiver that may say anything, and how pausing one leaves the others alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slixmpp_bt.constants import Route, State
from slixmpp_bt.messages import Accept, Peers, Report
from slixmpp_bt.seeding import TURN
from slixmpp_bt.transfer import Transfer

from .fakes import Party, World, finish, settled, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def report(alice: Party, bob: Party, transfer: Transfer, had: int, *routes: tuple[Route, int]) -> None:
    assert transfer.id is not None
    message = Report(transfer.offer.id, transfer.id, had, 100_000, routes)
    await finish(alice.exchange.receive(message, alice.know(bob), alice.jid))


async def test_bytes_sent_count_from_the_accept_on_and_never_run_backwards(world: World) -> None:
    alice, bob = world.pair()
    _, sending, _ = await world.running(alice, bob)
    seed = alice.backend.seeds[0].dialled
    seen = []
    for uploaded in (0, 30_000, 60_000, 50_000, 500_000):
        seed.uploaded, seed.peers = uploaded, 1
        await world.pass_time(0.3)
        seen.append(sending.progress.transferred)
    assert seen == [0, 30_000, 60_000, 60_000, 100_000]
    assert sending.state is State.RUNNING
    assert sending.progress.peers == 1
    assert sending.routes == {Route.SWARM: 100_000}
    assert not sending.complete


async def test_bytes_sent_before_a_pause_still_count_when_the_seed_is_open_again(world: World) -> None:
    alice, bob = world.pair()
    _, sending, _ = await world.running(alice, bob)
    alice.backend.seeds[0].dialled.uploaded = 40_000
    await world.pass_time(0.3)
    await sending.pause()
    await settled()
    assert alice.backend.seeds[0].dialled.closed
    await sending.resume()
    await until(lambda: len(alice.backend.seeds) == 2)
    alice.backend.seeds[1].dialled.uploaded = 10_000
    await world.pass_time(0.3)
    assert sending.progress.transferred == 50_000


async def test_report_replaces_counting_and_is_held_to_reason(world: World) -> None:
    alice, bob = world.pair()
    _, sending, _ = await world.running(alice, bob)
    alice.backend.seeds[0].dialled.uploaded = 90_000
    await report(alice, bob, sending, 20_000, (Route.SWARM, 15_000), (Route.RELAY, 5_000))
    await world.pass_time(0.3)
    assert sending.progress.transferred == 20_000
    assert sending.routes == {Route.SWARM: 15_000, Route.RELAY: 5_000}
    await report(alice, bob, sending, 2**63 - 1, (Route.IN_BAND, 2**63 - 1), (Route.RELAY, 2**62))
    await world.pass_time(0.3)
    assert sending.progress.transferred == 100_000
    assert sum(sending.routes.values()) == 100_000
    assert not sending.ended
    await report(alice, bob, sending, 5)
    await world.pass_time(0.3)
    assert sending.progress.transferred == 100_000


async def test_reports_without_end_make_no_more_progress_than_others(world: World) -> None:
    alice, bob = world.pair()
    _, sending, _ = await world.running(alice, bob)
    before = len(alice.told("bt_progress"))
    for had in range(0, 50_000, 500):
        await report(alice, bob, sending, had)
    await world.pass_time(1)
    assert len(alice.told("bt_progress")) - before <= 5


async def test_pausing_one_of_two_sends_that_one_away_and_serves_the_other(world: World) -> None:
    alice, bob = world.pair()
    carol = world.party("bob@b.example/tablet", auto_accept=True)
    offer, sending, _ = await world.running(alice, bob, single=False)
    await until(lambda: len(offer.transfers) == 2 and carol.backend.downloads)
    await world.pass_time(2 * TURN)
    seed = alice.backend.seeds[0].dialled
    assert set(seed.candidates) == {*bob.backend.own, *carol.backend.own}
    await sending.pause()
    await settled()
    assert not seed.closed
    assert seed.candidates == list(carol.backend.own)
    assert bob.backend.downloads[0].dialled.candidates == []
    assert carol.backend.downloads[0].dialled.candidates == list(alice.backend.own)
    await sending.resume()
    await settled()
    assert bob.backend.downloads[0].dialled.candidates == list(alice.backend.own)
    await world.pass_time(2 * TURN)
    assert set(seed.candidates) == {*bob.backend.own, *carol.backend.own}
    await finish(offer.withdraw())


async def test_receiver_has_its_turn_to_dial_before_the_sender_does(world: World) -> None:
    alice, bob = world.pair()
    offer, _, _ = await world.running(alice, bob)
    seed = alice.backend.seeds[0].dialled
    assert seed.candidates == []
    await world.pass_time(2 * TURN)
    assert seed.candidates == list(bob.backend.own)
    await finish(offer.withdraw())


async def test_receiver_that_was_sent_away_in_its_turn_is_not_dialled(world: World) -> None:
    alice, bob = world.pair()
    carol = world.party("bob@b.example/tablet", auto_accept=True)
    offer, sending, _ = await world.running(alice, bob, single=False)
    await until(lambda: len(offer.transfers) == 2 and carol.backend.downloads)
    await sending.pause()
    await world.pass_time(2 * TURN)
    assert alice.backend.seeds[0].dialled.candidates == list(carol.backend.own)
    await finish(offer.withdraw())


async def test_pause_takes_hold_even_if_the_receiver_does_not_answer(world: World) -> None:
    alice, bob = world.pair()
    _, sending, _ = await world.running(alice, bob)
    alice.wire.gates[Peers] = asyncio.Event()
    await sending.pause()
    await settled()
    assert alice.backend.seeds[0].dialled.closed
    await sending.resume()
    await until(lambda: len(alice.backend.seeds) == 2)
    await finish(sending.cancel())


async def test_receiver_paused_while_the_sender_resumes_asks_again_when_it_goes_on(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    await sending.pause()
    await receiving.pause()
    await world.pass_time(60, step=1)
    await sending.resume()
    await settled()
    assert bob.backend.downloads[0].dialled.paused
    asked = len(bob.wire.of(Accept))
    await receiving.resume()
    await settled()
    assert len(bob.wire.of(Accept)) == asked + 1
    assert not bob.backend.downloads[0].dialled.paused
    await world.carry(offer, bob)
    await finish(receiving.wait())


async def test_diagnosis_says_in_words_what_it_waits_for(world: World) -> None:
    alice, bob = world.pair(auto_accept=False)
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    assert offer.single is not None
    said = [offer.single.diagnosis[Route.SWARM]]
    waiting = await bob.expect("bt_offer")
    said.append(offer.single.diagnosis[Route.SWARM])
    receiving = await finish(waiting.accept())
    await until(lambda: bob.backend.downloads)
    await settled()
    said += [offer.single.diagnosis[Route.SWARM], receiving.diagnosis[Route.SWARM]]
    await offer.single.pause()
    said.append(offer.single.diagnosis[Route.SWARM])
    assert said == [
        "the file is still being hashed",
        "the receiver has not accepted yet",
        "waiting for the receiver to connect",
        "dialling the sender",
        "paused on this side",
    ]
    await finish(offer.single.cancel())
    assert offer.single.diagnosis == {}
