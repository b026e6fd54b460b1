"""Others' offers on their way in: each is looked at once, and nothing grows without bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from slixmpp import JID

from slixmpp_bt import intake, registry
from slixmpp_bt.constants import Mode
from slixmpp_bt.incoming import IncomingOffer
from slixmpp_bt.messages import End, Offer, Withdraw
from slixmpp_bt.policy import Peer

from .fakes import Party, World, settled, until

MALLORY = Peer(jid=JID("mallory@m.example/x"), bare=JID("mallory@m.example"), subscription="both")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


def an_offer(world: World, id: str = "o1", size: int = 1000, lasts: float = 1000.0) -> Offer:
    expires = datetime.fromtimestamp(world.clock() + lasts, UTC)
    return Offer(id, Mode.PRIVATE, expires, "file", size, b"h" * 32, 200)


def hear(bob: Party, world: World, id: str = "o1", peer: Peer = MALLORY, **more: int) -> IncomingOffer | None:
    return bob.exchange.intake.receive_offer(an_offer(world, id, **more), peer, bob.jid)


async def test_same_offer_again_is_ignored_and_other_content_warned_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bob = world.party("bob@b.example/phone")
    assert hear(bob, world) is not None
    assert hear(bob, world) is None
    assert caplog.text == ""
    other = replace(an_offer(world), info_hash=b"x" * 32)
    assert bob.exchange.intake.receive_offer(other, MALLORY, bob.jid) is None
    assert "other content" in caplog.text
    # Another account may use the same id.
    someone = replace(MALLORY, jid=JID("a@m.example/x"), bare=JID("a@m.example"))
    assert hear(bob, world, peer=someone) is not None
    await settled()
    assert len(bob.told("bt_offer")) == 2


async def test_offer_that_is_over_is_not_taken_again(world: World) -> None:
    bob = world.party("bob@b.example/phone")
    offer = hear(bob, world)
    assert offer is not None
    bob.exchange.withdrawn(Withdraw("o1"), MALLORY)
    assert hear(bob, world) is None
    assert hear(bob, world, "o2", lasts=-601) is None
    assert hear(bob, world, "o3", lasts=-599) is not None


async def test_withdrawal_by_somebody_else_is_ignored(world: World) -> None:
    bob = world.party("bob@b.example/phone")
    offer = hear(bob, world)
    someone = replace(MALLORY, jid=JID("a@m.example/x"), bare=JID("a@m.example"))
    bob.exchange.withdrawn(Withdraw("o1"), someone)
    assert bob.exchange.registry.offers == (offer,)


async def test_own_offer_that_comes_back_is_ignored(world: World) -> None:
    alice = world.party("alice@a.example/laptop", auto_accept=True)
    world.party("alice@a.example/tablet")
    alice.offer("alice@a.example", world.file())
    await until(lambda: alice.wire.of(Offer))
    await settled()
    assert [type(offer).__name__ for offer in alice.exchange.registry.offers] == ["OutgoingOffer"]


@pytest.mark.parametrize("known", [True, False])
async def test_offer_beyond_the_limits_is_declined_unseen_to_those_who_may_know(world: World, known: bool) -> None:
    bob = world.party("bob@b.example/phone", limits={"max_size": 999})
    peer = MALLORY if known else replace(MALLORY, subscription="none")
    assert hear(bob, world, peer=peer) is None
    await settled()
    assert bob.events == []
    assert [end.kind for end in bob.wire.of(End)] == (["decline"] if known else [])
    assert bob.exchange.registry.offers == ()


async def test_offers_of_one_peer_and_of_all_together_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_WAITING", 30)
    monkeypatch.setattr(registry, "_MAX_REMEMBERED", 50)
    bob = world.party("bob@b.example/phone", limits={"max_offers_per_peer": 5, "max_transfers": 5})
    for account in range(20):
        jid = JID(f"user{account}@m.example/x")
        peer = Peer(jid=jid, bare=JID(jid.bare))
        for number in range(50):
            hear(bob, world, f"o{number}", peer=peer)
        await settled()
    assert len(bob.exchange.registry.offers) == 30
    assert len(bob.exchange.registry.past) <= 50
    assert len(bob.told("bt_offer")) == 30


async def test_rule_that_raises_leaves_the_offer_to_the_application(world: World) -> None:
    bob = world.party("bob@b.example/phone")

    async def explode(offer: IncomingOffer) -> bool:
        raise RuntimeError("in the application")

    bob.exchange.intake.authorize = explode
    offer = hear(bob, world)
    await settled()
    assert bob.told("bt_offer") == [offer]


async def test_offer_answered_while_the_rule_is_asked_is_not_announced(world: World) -> None:
    bob = world.party("bob@b.example/phone")
    gate = asyncio.Event()

    async def ponder(offer: IncomingOffer) -> bool:
        await gate.wait()
        return True

    bob.exchange.intake.authorize = ponder
    first, second = hear(bob, world), hear(bob, world, "o2")
    assert first is not None
    assert second is not None
    await settled()
    await first.decline()
    bob.exchange.withdrawn(Withdraw("o2"), MALLORY)
    gate.set()
    await settled()
    assert [name for name, _ in bob.events] == ["bt_offer_end"]
    assert (first.transfer, second.transfer) == (None, None)


async def test_large_manifest_in_an_offer_is_checked_before_anybody_sees_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_PARSED_AT_ONCE", 10)
    alice, bob = world.pair(auto_accept=False)
    alice.offer(bob.jid.bare, world.file())
    assert (await bob.expect("bt_offer")).files[0].size == 100_000
    for id, message in (
        ("garbage", replace(an_offer(world, "garbage"), info=b"not bencode at all")),
        ("other", replace(alice.wire.of(Offer)[0], id="other", size=99_999)),
    ):
        bob.exchange.intake.receive_offer(message, MALLORY, bob.jid)
        await settled()
        assert len(bob.told("bt_offer")) == 1, id
    assert len(bob.exchange.registry.offers) == 1


async def test_closed_exchange_takes_nothing(world: World) -> None:
    bob = world.party("bob@b.example/phone")
    await bob.aclose()
    assert hear(bob, world) is None
    await bob.aclose()
