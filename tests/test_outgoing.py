"""Own offers: preparing, whom they admit, withdrawing, iterating, expiry."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt import content, receivers
from slixmpp_bt.backends.plain import PlainBackend
from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import Cancelled, Declined, Expired, NoRoute, PathError, PeerGone, ProtocolError, SourceChanged
from slixmpp_bt.manifest import Made
from slixmpp_bt.messages import Accept, End, Meta, Offer, Withdraw
from slixmpp_bt.outgoing import OutgoingOffer
from slixmpp_bt.policy import Peer
from slixmpp_bt.transfer import Transfer

from .fakes import Party, World, finish, settled, until

SWARM = frozenset({Route.SWARM})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def offered(world: World, alice: Party, *, single: bool = False, to: str = "bob@b.example") -> OutgoingOffer:
    """An offer that is out, to somebody whose answers the test writes."""
    offer = alice.offer(to, world.file(size=100_000), single=single)
    await until(lambda: alice.wire.of(Offer))
    return offer


def stranger(resource: str = "phone") -> Peer:
    jid = JID(f"bob@b.example/{resource}")
    return Peer(jid=jid, bare=JID(jid.bare))


async def accept(alice: Party, offer: OutgoingOffer, id: str, resource: str = "phone", **more: object) -> object:
    message = Accept(offer.id, id, routes=SWARM, **more)  # type: ignore[arg-type]
    return await finish(alice.exchange.receive(message, stranger(resource), alice.jid))


async def end(alice: Party, offer: OutgoingOffer, id: str | None, kind: str, resource: str = "phone") -> None:
    message = End(offer.id, kind, "cancel" if kind == "cancel" else "decline", id, "no cats")  # type: ignore[arg-type]
    await finish(alice.exchange.receive(message, stranger(resource), alice.jid))


async def test_offer_of_a_path_that_cannot_be_read_fails_naming_it(world: World) -> None:
    alice, bob = world.pair()
    os.mkfifo(world.home / "pipe")
    offer = alice.offer(bob.jid.bare, world.home / "pipe", single=True)
    assert offer.single is not None
    with pytest.raises(PathError, match="pipe"):
        await finish(offer.single.wait())
    await finish(offer.single.released())
    assert (offer.state, offer.alive) == (State.FAILED, False)
    assert alice.wire.sent == []


async def test_hashing_shows_as_progress_and_can_be_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = asyncio.Event()

    async def hash_half(path: Path, *, salt: bytes, progress: Callable[[int, int], None], **_: object) -> Made:
        for done in range(0, 50_001, 100):
            progress(done, 100_000)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()
        raise AssertionError

    monkeypatch.setattr(content, "make", hash_half)
    alice, bob = world.pair()
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    assert offer.single is not None
    assert offer.state is State.PREPARING
    assert offer.single.diagnosis == dict.fromkeys(Route, "the file is still being hashed")
    await world.pass_time(2)
    assert (offer.single.progress.transferred, offer.single.progress.total) == (50_000, 100_000)
    assert len(alice.told("bt_progress")) == 1
    await finish(offer.single.cancel())
    await settled()
    assert stopped.is_set()
    assert State(offer.state) is State.CANCELLED
    assert alice.wire.sent == []


async def test_progress_after_hashing_begins_at_nothing(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, single=True)
    assert offer.single is not None
    await settled()
    assert offer.single.state is State.OFFERED
    assert offer.single.progress.transferred == 0
    assert offer.single.progress.total == 100_000
    await accept(alice, offer, "t1")
    await world.pass_time(1)
    assert State(offer.single.state) is State.CONNECTING  # nothing has moved


async def test_offer_waits_for_a_session(world: World) -> None:
    alice, bob = world.pair()
    alice.wire.up.clear()
    offer = alice.offer(bob.jid.bare, world.file())
    await until(lambda: offer.state is State.OFFERED)
    await settled()
    assert alice.wire.sent == []
    alice.wire.up.set()
    await bob.expect("bt_transfer_start")


async def test_iterating_gives_each_transfer_once_and_ends_with_the_offer(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    seen: list[list[Transfer]] = [[], []]

    async def collect(into: list[Transfer]) -> None:
        async for transfer in offer:
            into.append(transfer)
            if len(into) == 1:
                # Another one begins while this one is looked at.
                await accept(alice, offer, f"from the loop {id(into)}", f"tablet {id(into)}")

    watching = [asyncio.ensure_future(collect(one)) for one in seen]
    await accept(alice, offer, "t1")
    await until(lambda: all(len(one) == 3 for one in seen))
    await end(alice, offer, None, "decline", "watch")
    await finish(offer.withdraw())
    await until(lambda: all(task.done() for task in watching))
    assert [[t.id for t in one] for one in seen] == [[t.id for t in offer.transfers if t.id]] * 2


async def test_declined_by_one_of_many_goes_on_for_the_others(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    for _ in range(3):
        await end(alice, offer, None, "decline", "watch")
    [declined] = offer.transfers
    assert declined.state is State.DECLINED
    with pytest.raises(Declined, match="no cats"):
        await declined.wait()
    await accept(alice, offer, "t1")
    assert offer.state is State.OFFERED
    assert [t.state for t in offer.transfers] == [State.DECLINED, State.CONNECTING]
    await finish(offer.withdraw())


async def test_single_offer_is_taken_by_the_first_device_only(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, single=True)
    await accept(alice, offer, "t1", "phone")
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t2", "tablet")
    assert (caught.value.condition, caught.value.reason) == ("gone", "cancel")
    # The same receiver under a new name is still the first.
    await accept(alice, offer, "t1", "phone after a reconnect")
    assert offer.single is not None
    assert offer.single.peer.resource == "phone after a reconnect"
    await finish(offer.withdraw())


async def test_end_of_a_receiver_that_came_back_under_another_name_counts(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, to="bob@b.example/phone", single=True)
    await accept(alice, offer, "t1")
    with pytest.raises(ProtocolError) as caught:
        await end(alice, offer, "guessed", "complete", "another device")
    assert caught.value.condition == "item-not-found"
    await end(alice, offer, "t1", "complete", "another device")
    assert offer.state is State.COMPLETE


async def test_accept_after_the_end_is_told_how_it_ended(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    await accept(alice, offer, "t1")
    await end(alice, offer, "t1", "cancel")
    await accept(alice, offer, "t2")
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t1")
    assert (caught.value.condition, caught.value.reason) == ("gone", "cancel")
    await finish(offer.withdraw())
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t3")
    assert (caught.value.condition, caught.value.reason) == ("gone", "cancel")


async def test_end_that_overtakes_its_accept_is_remembered(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    await end(alice, offer, "t1", "cancel")
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t1")
    assert caught.value.condition == "gone"
    assert offer.transfers == ()
    await finish(offer.withdraw())


async def test_decline_after_accepting_is_a_cancellation(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, single=True)
    await accept(alice, offer, "t1")
    await end(alice, offer, "t1", "decline")
    assert offer.state is State.CANCELLED


@pytest.mark.parametrize("what", ["cancel", "withdraw", "pause", "end"])
async def test_accept_overtaken_while_the_seed_opens_leaves_no_seed(world: World, what: str) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, single=True)
    assert offer.single is not None
    alice.backend.gate.clear()
    asking = asyncio.ensure_future(accept(alice, offer, "t1"))
    await until(lambda: offer.single is not None and offer.single.id)
    await settled()
    ways: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "cancel": offer.single.cancel,
        "withdraw": offer.withdraw,
        "pause": offer.single.pause,
        "end": partial(end, alice, offer, "t1", "cancel"),
    }
    done = asyncio.ensure_future(ways[what]())
    await settled()
    alice.backend.gate.set()
    await until(lambda: done.done() and asking.done())
    await settled()
    error = asking.exception()
    assert isinstance(error, ProtocolError)
    assert error.condition == ("resource-constraint" if what == "pause" else "gone")
    assert all(seed.dialled.closed for seed in alice.backend.seeds)


async def test_withdraw_reaches_those_who_have_not_accepted_and_those_who_have(world: World) -> None:
    alice, bob = world.pair()
    carol = world.party("carol@b.example/x", auto_accept=False)
    bob.jid, carol.jid = JID("friends@b.example/bob"), JID("friends@b.example/carol")
    offer, _, receiving = await world.running(alice, bob, single=False, to="friends@b.example")
    waiting = await carol.expect("bt_offer")
    await finish(offer.withdraw())
    await finish(offer.withdraw())
    await until(lambda: receiving.ended)
    assert receiving.state is State.CANCELLED
    assert carol.told("bt_offer_end") == [waiting]
    assert len(alice.wire.of(Withdraw)) == 1
    with pytest.raises(Expired):
        await waiting.accept()


@pytest.mark.parametrize("single", [True, False])
async def test_closing_takes_back_what_nobody_has_accepted(world: World, single: bool) -> None:
    alice, bob = world.pair(auto_accept=False)
    alice.offer(bob.jid.bare, world.file(), single=single)
    waiting = await bob.expect("bt_offer")
    await alice.aclose()
    assert bob.told("bt_offer_end") == [waiting]


async def test_closing_says_nothing_of_offers_that_are_over(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    expired = alice.offer("bob@b.example", world.file(), lasts=10.0)
    offer = await offered(world, alice)
    await finish(offer.withdraw())
    await world.pass_time(60, step=5)
    assert (offer.state, expired.state) == (State.CANCELLED, State.EXPIRED)
    said = len(alice.wire.sent)
    await alice.aclose()
    assert len(alice.wire.sent) == said


async def test_offer_that_bounces_fails_and_is_not_withdrawn(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, single=True)
    await settled()
    alice.exchange.bounced(
        f"stanza {len(alice.wire.sent)}", JID("bob@b.example"), PeerGone("bob@b.example: no such account")
    )
    assert offer.state is State.FAILED
    await settled()
    assert alice.wire.of(Withdraw) == []


async def test_offer_expires_for_newcomers_to_the_second_and_goes_on_for_others(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = alice.offer("bob@b.example", world.file(), lasts=100.0)
    await until(lambda: alice.wire.of(Offer))
    await accept(alice, offer, "t1")
    await world.pass_time(100.0, step=1.0)
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t2", "tablet")
    assert (caught.value.condition, caught.value.reason) == ("gone", "expired")
    assert offer.state is State.EXPIRED
    await accept(alice, offer, "t1")
    assert [t.ended for t in offer.transfers] == [False]
    assert offer.alive


async def test_source_that_changed_is_noticed_at_the_accept(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice, single=True)
    offer.path.write_bytes(b"other")
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t1")
    assert (caught.value.condition, caught.value.reason) == ("gone", "media-error")
    assert offer.single is not None
    with pytest.raises(SourceChanged, match="file"):
        await offer.single.wait()
    assert alice.backend.seeds == []


async def test_selection_outside_of_the_offer_is_refused_and_one_inside_is_the_size(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    (world.home / "tree").mkdir()
    for index in range(3):
        (world.home / "tree" / f"{index}").write_bytes(b"x" * 1000 * (index + 1))
    offer = alice.offer("bob@b.example", world.home / "tree")
    await until(lambda: alice.wire.of(Offer))
    with pytest.raises(ProtocolError) as caught:
        await accept(alice, offer, "t1", select=frozenset({0, 3}))
    assert caught.value.condition == "bad-request"
    assert not offer.transfers
    await accept(alice, offer, "t1", select=frozenset({0, 2}))
    [sending] = offer.transfers
    assert sending.size == 4000
    await end(alice, offer, "t1", "complete")
    assert sending.progress.total == 4000
    await finish(offer.withdraw())


async def test_manifest_is_given_in_parts_to_its_receiver_only(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    await accept(alice, offer, "t1")
    info = alice.wire.of(Offer)[0].info
    assert info is not None
    for offset in (0, 10, len(info) - 1):
        chunk = await finish(alice.exchange.receive(Meta(offer.id, "t1", offset, 20), stranger(), alice.jid))
        assert getattr(chunk, "data", None) == info[offset : offset + 20]
    for message, peer in (
        (Meta(offer.id, "t1", 0, 20), stranger("tablet")),
        (Meta(offer.id, "t2", 0, 20), stranger()),
        (Meta("o2", "t1", 0, 20), stranger()),
    ):
        with pytest.raises(ProtocolError) as caught:
            await finish(alice.exchange.receive(message, peer, alice.jid))
        assert caught.value.condition == "item-not-found"
    with pytest.raises(ProtocolError) as caught:
        await finish(alice.exchange.receive(Meta(offer.id, "t1", len(info), 20), stranger(), alice.jid))
    assert caught.value.condition == "bad-request"
    await finish(offer.withdraw())


async def test_sender_that_hides_its_address_ends_both_sides_with_no_route(world: World) -> None:
    alice = world.party("alice@a.example/laptop", reveal_address="never")
    bob = world.party("bob@b.example/phone", auto_accept=True)
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.ended and offer.state.terminal)
    assert offer.single is not None
    for transfer in (offer.single, receiving):
        with pytest.raises(NoRoute, match="not reveal its address") as caught:
            await transfer.wait()
        assert "address" in caught.value.reasons[Route.SWARM]
    # Dialling would have revealed it too.
    assert alice.backend.seeds == []


async def test_sender_without_an_engine_ends_both_sides_with_no_route(world: World) -> None:
    alice = world.party("alice@a.example/laptop", PlainBackend(()))
    bob = world.party("bob@b.example/phone", auto_accept=True)
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.ended and offer.state.terminal)
    assert offer.single is not None
    for transfer in (offer.single, receiving):
        with pytest.raises(NoRoute, match="no BitTorrent engine") as caught:
            await transfer.wait()
        assert Route.SWARM in caught.value.reasons


async def test_receivers_without_end_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "MAX_RECEIVERS", 5)
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    for number in range(30):
        await accept(alice, offer, f"t{number}")
        await end(alice, offer, f"t{number}", "cancel")
        await end(alice, offer, f"never accepted {number}", "cancel")
        await end(alice, offer, None, "decline", f"watch {number}")
    assert len(offer.transfers) <= 6
    assert len(offer.receivers._over) <= 5
    await finish(offer.withdraw())


async def test_offer_failing_in_an_unforeseen_way_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(content, "make", explode)
    alice, bob = world.pair()
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    assert offer.single is not None
    await until(lambda: offer.state.terminal)
    assert "unforeseen" in str(offer.single.error)


async def test_offer_without_bytes_needs_no_engine(world: World) -> None:
    alice, bob = world.pair()
    await alice.backend.aclose()
    await bob.backend.aclose()
    offer = alice.offer(bob.jid.bare, world.file(size=0), single=True)
    assert offer.single is not None
    await finish(offer.single.wait())
    assert (bob.inbox / "file").read_bytes() == b""


async def test_cancelled_offer_says_so(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    await finish(offer.withdraw())
    assert offer.state is State.CANCELLED
    assert isinstance(offer.error, Cancelled)
    assert not offer.alive


async def test_reminder_repeats_the_offer_until_somebody_accepts(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    await settled()
    await finish(offer.remind())
    first, second = alice.wire.of(Offer)
    assert first == second
    await accept(alice, offer, "t1")
    await finish(offer.remind())
    assert len(alice.wire.of(Offer)) == 2


async def test_reminder_of_what_was_changed_ends_the_offer(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    offer = await offered(world, alice)
    offer.path.write_bytes(b"other")
    with pytest.raises(SourceChanged, match="file"):
        await finish(offer.remind())
    assert offer.state is State.FAILED
    await finish(offer.remind())
