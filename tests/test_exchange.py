"""Who is heard, and what both sides are told when something changes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from slixmpp import JID

from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.messages import (
    Accept,
    Candidate,
    Done,
    End,
    Here,
    Meta,
    Peers,
    Report,
    Request,
    Seek,
    Withdraw,
)
from slixmpp_bt.policy import Peer

from .fakes import Party, World, finish, settled, until

MALLORY = Peer(jid=JID("mallory@m.example/x"), bare=JID("mallory@m.example"), subscription="both")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def ask(party: Party, request: Request, peer: Peer, local: str | None = None) -> str:
    """What is answered: the reply's kind, or the condition."""
    try:
        reply = await finish(party.exchange.receive(request, peer, JID(local or party.jid)))
    except ProtocolError as error:
        return f"{error.condition}: {error}"
    return type(reply).__name__


async def test_request_by_who_has_no_agreement_is_answered_as_an_unknown_one(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    assert sending.id is not None
    for party, kinds in ((alice, (Meta, Report, End, Accept)), (bob, (Peers, End))):
        for kind in kinds:
            for id in (offer.id, "unknown"):
                requests: dict[type, Request] = {
                    Meta: Meta(id, sending.id, 0, 10),
                    Report: Report(id, sending.id, 1, 2),
                    End: End(id, "cancel", "cancel", sending.id),
                    Accept: Accept(id, sending.id, routes=frozenset({Route.SWARM})),
                    Peers: Peers(id, sending.id),
                }
                assert await ask(party, requests[kind], MALLORY) in (
                    "item-not-found: no such offer", "item-not-found: no such transfer",
                )  # fmt: skip
    assert not sending.ended
    assert not receiving.ended


async def test_receiver_may_not_introduce_and_sender_may_not_complete(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    assert sending.id is not None
    assert await ask(alice, Peers(offer.id, sending.id), alice.know(bob)) != "Done"
    assert await ask(bob, End(offer.id, "complete", "success", sending.id), bob.know(alice)) != "Done"
    assert not receiving.ended


async def test_end_from_another_device_counts_only_with_the_id_of_the_transfer(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    elsewhere = replace(bob.know(alice), jid=JID("alice@a.example/other"))
    assert await ask(bob, End(offer.id, "cancel", "cancel", "guessed"), elsewhere) != "Done"
    assert not receiving.ended
    assert await ask(bob, End(offer.id, "cancel", "cancel", sending.id, "moved"), elsewhere) == "Done"
    assert receiving.state is State.CANCELLED


async def test_request_to_another_name_of_a_component_finds_nothing(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    assert sending.id is not None
    accept = Accept(offer.id, sending.id, routes=frozenset({Route.SWARM}))
    for local, found in (("desk@a.example", False), ("alice@a.example", True), ("alice@a.example/desk", True)):
        for request in (accept, Meta(offer.id, sending.id, 0, 10)):
            answer = await ask(alice, request, alice.know(bob), local)
            assert answer.startswith("item-not-found") is not found


async def test_end_that_was_lost_is_repeated_at_contact_until_it_is_heard(world: World) -> None:
    alice, bob = world.pair()
    _, sending, receiving = await world.running(alice, bob)
    bob.wire.lost.add(End)
    await finish(receiving.cancel("enough"))
    await settled()
    assert not sending.ended
    bob.exchange.session_started()
    await settled()
    assert not sending.ended
    bob.wire.lost.clear()
    bob.exchange.contact(JID("alice@a.example/some other device"))
    await settled()
    assert sending.state is State.CANCELLED
    sent = len(bob.wire.of(End))
    bob.exchange.session_started()
    await settled()
    assert len(bob.wire.of(End)) == sent


async def test_end_after_a_withdrawal_is_answered(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    bob.exchange.withdrawn(Withdraw(offer.id), bob.know(alice))
    assert receiving.state is State.CANCELLED
    for _ in range(2):
        end = End(offer.id, "cancel", "cancel", sending.id)
        assert isinstance(await finish(bob.exchange.receive(end, bob.know(alice), bob.jid)), Done)
        await world.pass_time(60, step=5)
    assert len(bob.told("bt_transfer_end")) == 1
    assert bob.told("bt_offer_end") == []


async def test_withdrawal_just_before_closing_leaves_no_part_files(world: World) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob)
    bob.exchange.withdrawn(Withdraw(offer.id), bob.know(alice))
    await bob.aclose()
    assert receiving.is_released
    assert list(bob.inbox.iterdir()) == []


async def test_logs_hold_no_addresses_above_debug(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    assert sending.id is not None
    joined = (Candidate(bob.backend.own[0].address, 4711),)
    await ask(bob, Peers(offer.id, sending.id, joined, joined), bob.know(alice))
    await finish(sending.cancel("enough"))
    await settled()
    loud = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert any("cancelled: enough" in line for line in loud)
    assert not any("127.0.0.1" in line or "4711" in line for line in loud)


async def test_addresses_that_change_are_told_to_both_sides(world: World) -> None:
    alice, bob = world.pair()
    await world.running(alice, bob)
    new = tuple(Candidate(ip_address("127.0.0.1"), port) for port in (7001, 7002))
    alice.backend.own, bob.backend.own = new[:1], new[1:]
    alice.exchange.addresses_changed()
    await until(lambda: alice.wire.of(Peers))
    await world.pass_time(1)
    await until(lambda: set(new[:1]) <= set(bob.backend.downloads[0].dialled.candidates))
    bob.exchange.addresses_changed()
    await world.pass_time(2)
    await until(lambda: set(new[1:]) <= set(alice.backend.seeds[0].dialled.candidates))
    assert bob.wire.of(Accept)[-1].candidates == new[1:]


async def test_receiver_that_lost_sight_of_the_sender_seeks_it_and_goes_on_where_it_is(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    alice.jid = JID("alice@a.example/a new name")
    await world.pass_time(30, step=0.5)
    assert bob.wire.of(Seek)
    assert alice.wire.of(Here)
    assert receiving.peer == alice.jid
    await world.carry(offer, bob)
    await finish(receiving.wait())
    await until(lambda: sending.complete)


async def test_seek_of_somebody_not_invited_is_not_answered(world: World) -> None:
    alice, bob = world.pair()
    offer, _, _ = await world.running(alice, bob)
    stranger = Peer(jid=JID("carol@c.example/x"), bare=JID("carol@c.example"))
    for peer, id in ((stranger, offer.id), (alice.know(bob), "unknown")):
        alice.exchange.sought(Seek(id), peer, alice.jid)
    await settled()
    assert alice.wire.of(Here) == []
    for _ in range(5):
        alice.exchange.sought(Seek(offer.id), alice.know(bob), alice.jid)
    await settled()
    assert len(alice.wire.of(Here)) == 1
    assert await ask(bob, Here("unknown"), bob.know(alice)) != "Done"
    assert await ask(bob, Here(offer.id), stranger) != "Done"
