"""The sender of a delegated offer gives its leave, at the latest when the receiver's End comes again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from slixmpp import JID

from slixmpp_bt.delegating import Delegating
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.messages import Delegate, End, Reply, Request
from slixmpp_bt.policy import Peer

from .fakes import Party, World, settled
from .fakes import until as come_true
from .test_delegation import Three, admits, loopback, three  # noqa: F401 (fixtures)
from .world import digest, done, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def fetched(world: World, alice: Party, bob: Party) -> None:
    """Bob has got everything that Alice has offered, and has said so."""
    offer = alice.offer("bob@b.example", world.file(), delegate=True)
    await come_true(lambda: bob.backend.downloads)
    await world.carry(offer, bob)
    await come_true(lambda: bob.told("bt_transfer_end"))
    await settled()


async def test_receiver_that_cannot_be_told_is_told_with_its_next_end(world: World) -> None:
    alice, bob = world.pair(seed_after=600)
    alice.wire.lost.add(Delegate)
    await fetched(world, alice, bob)
    assert len(alice.wire.of(Delegate)) == 1
    assert bob.exchange.delegation.offers == {}
    assert [end.kind for end in bob.context.outbox.waiting] == ["complete"]  # it has not got its answer
    alice.wire.lost.clear()
    bob.context.outbox.retry(world.clock())
    await come_true(lambda: bob.exchange.delegation.offers)
    await settled()
    assert bob.context.outbox.waiting == []


async def test_receiver_that_knows_no_such_thing_is_answered_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.pair(seed_after=600)
    receive = bob.exchange.receive

    async def older(request: Request, peer: Peer, local: JID) -> Reply:
        if isinstance(request, Delegate):
            raise ProtocolError("an unknown payload", "feature-not-implemented")
        return await receive(request, peer, local)

    monkeypatch.setattr(bob.exchange, "receive", older)
    await fetched(world, alice, bob)
    assert bob.context.outbox.waiting == []


@pytest.mark.parametrize("repeated", [1, 3])
async def test_repeated_end_gives_the_same_leave_once_more(world: World, repeated: int) -> None:
    alice, bob = world.pair(seed_after=600)
    await fetched(world, alice, bob)
    [offer] = bob.exchange.delegation.offers.values()
    end = bob.wire.of(End)[-1]
    for _ in range(repeated):
        await bob.wire.request(end, alice.jid, sender=bob.jid)
    assert list(bob.exchange.delegation.offers.values()) == [offer]


async def test_end_of_somebody_else_brings_no_leave(world: World) -> None:
    alice, bob = world.pair(seed_after=600)
    await fetched(world, alice, bob)
    eve = world.party("eve@e.example/x")
    with pytest.raises(ProtocolError, match="no such offer"):
        await eve.wire.request(bob.wire.of(End)[-1], alice.jid, sender=eve.jid)
    assert len(alice.wire.of(Delegate)) == 1


async def test_sender_that_was_restarted_gives_its_leave_by_what_it_has_kept(
    three: Three,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unable(self: Delegating, message: End, peer: Peer, local: JID) -> None:
        raise ProtocolError("there is something to be said first", "resource-constraint")

    with monkeypatch.context() as patch:
        patch.setattr(Delegating, "grant", unable)
        alice, phone, tablet = await three.start()
        three.source.write_bytes(bytes(300_000))
        offer = await alice.bt.offer(three.account, three.source, delegate=True)
        incoming = await tablet.expect_offer()
        await phone.expect("bt_transfer_end")
        await until(lambda: [t.complete for t in offer.transfers] == [True])
        await three.alice.crash()
    await three.alice.start("laptop")
    await until(lambda: admits(phone) == {offer.id})
    await three.alice.crash()
    [path] = await done(await incoming.accept())
    assert digest(path) == digest(three.source)
