"""The receiver's side: a sender that may answer anything, and a disk that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt.backends import PeerRefused, StorageFailed
from slixmpp_bt.backends.plain import PlainBackend
from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import (
    BTError,
    Cancelled,
    IntegrityError,
    LimitExceeded,
    NoRoute,
    ProtocolError,
    StorageError,
)
from slixmpp_bt.messages import Accept, Accepted, Candidate, Meta, MetaChunk, Offer, Peers, Reply, Report, Request
from slixmpp_bt.policy import Peer
from slixmpp_bt.storage import Landing
from slixmpp_bt.transfer import Transfer

from .fakes import Party, World, finish, settled, until

Answer = Callable[[Request, Reply], Reply]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


def lie(alice: Party, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `alice` answer something else than she would."""
    receive = alice.exchange.receive

    async def other(request: Request, peer: Peer, local: Any) -> Reply:
        return answer(request, await receive(request, peer, local))

    monkeypatch.setattr(alice.exchange, "receive", other)


def refuse(error: ProtocolError, kind: type = Accept) -> Answer:
    def answer(request: Request, reply: Reply) -> Reply:
        if isinstance(request, kind):
            raise error
        return reply

    return answer


async def failed(transfer: Transfer) -> BTError:
    """How it fails, and that nothing is left of it."""
    await until(lambda: transfer.ended)
    await finish(transfer.released())
    with pytest.raises(BTError) as caught:
        await transfer.wait()
    assert transfer.path is None
    return caught.value


@pytest.mark.parametrize("condition", ["bad-request", "forbidden", "undefined-condition", "feature-not-implemented"])
async def test_refusal_of_the_accept_fails_both_sides(
    world: World, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.pair()
    lie(alice, refuse(ProtocolError("not like this", condition)), monkeypatch)
    alice.offer(bob.jid.bare, world.file(), single=True)
    assert "not like this" in str(await failed(await bob.expect("bt_transfer_start")))
    await until(lambda: alice.told("bt_transfer_end"))
    assert list(bob.inbox.iterdir()) == []


@pytest.mark.parametrize("condition", ["item-not-found", "resource-constraint", "service-unavailable"])
async def test_sender_that_cannot_answer_now_is_asked_again_until_it_can(
    world: World, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.pair()
    with monkeypatch.context() as patch:
        lie(alice, refuse(ProtocolError("not now", condition)), patch)
        offer = alice.offer(bob.jid.bare, world.file(), single=True)
        receiving = await bob.expect("bt_transfer_start")
        await until(lambda: receiving.state is State.WAITING)
        assert "not now" in receiving.diagnosis[Route.SWARM]
        await world.pass_time(100, step=1)
        assert 3 <= len(bob.wire.of(Accept)) <= 8
    before = len(bob.wire.of(Accept))
    while len(bob.wire.of(Accept)) == before:
        await world.pass_time(1)
    await world.carry(offer, bob)
    await finish(receiving.wait())


async def test_gone_ends_with_the_reason_that_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = world.pair()
    lie(alice, refuse(ProtocolError("taken by another", "gone", "cancel")), monkeypatch)
    alice.offer(bob.jid.bare, world.file())
    receiving = await bob.expect("bt_transfer_start")
    assert isinstance(await failed(receiving), Cancelled)
    assert receiving.state is State.CANCELLED


async def test_sender_away_is_waited_for_and_asked_when_it_comes_back(world: World) -> None:
    alice, bob = world.pair(auto_accept=False)
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    waiting = await bob.expect("bt_offer")
    alice.wire.up.clear()
    receiving = await finish(waiting.accept())
    await until(lambda: receiving.state is State.WAITING)
    assert "cannot be reached" in receiving.diagnosis[Route.SWARM]
    alice.wire.up.set()
    bob.exchange.contact(alice.jid)
    await until(lambda: receiving.state is State.CONNECTING)
    await world.carry(offer, bob)
    await finish(receiving.wait())


async def test_sender_without_addresses_can_dial_a_receiver_that_has_some(world: World) -> None:
    alice, bob = world.pair()
    alice.backend.own = ()
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    receiving = await bob.expect("bt_transfer_start")
    await settled()
    assert receiving.state is State.CONNECTING
    await world.carry(offer, bob)
    await finish(receiving.wait())


async def test_two_sides_without_addresses_have_no_route(world: World) -> None:
    alice, bob = world.pair()
    alice.backend.own = bob.backend.own = ()
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    error = await failed(await bob.expect("bt_transfer_start"))
    assert isinstance(error, NoRoute)
    assert error.reasons[Route.SWARM] == "the other side has named no address"
    assert all("configuration" in why for route, why in error.reasons.items() if route is not Route.SWARM)
    await until(lambda: offer.state.terminal)
    assert offer.single is not None
    assert isinstance(offer.single.error, NoRoute)


@pytest.mark.parametrize("size", [0, 100_000])
async def test_receiver_that_hides_its_address_fetches_only_what_needs_none(world: World, size: int) -> None:
    alice, bob = world.pair(reveal_address="never")
    offer = alice.offer(bob.jid.bare, world.file(size=size), single=True)
    receiving = await bob.expect("bt_transfer_start")
    if size:
        assert isinstance(await failed(receiving), NoRoute)
        assert list(bob.inbox.iterdir()) == []
        await until(lambda: offer.state.terminal)
    else:
        assert (await finish(receiving.wait())).read_bytes() == b""
    assert all(accept.candidates == () for accept in bob.wire.of(Accept))


async def test_receiver_without_an_engine_has_no_route(world: World) -> None:
    alice = world.party("alice@a.example/laptop")
    bob = world.party("bob@b.example/phone", PlainBackend(()), auto_accept=True)
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    error = await failed(await bob.expect("bt_transfer_start"))
    assert isinstance(error, NoRoute)
    assert "no BitTorrent engine" in error.reasons[Route.SWARM]
    await until(lambda: offer.state is State.FAILED)


BAD_CHUNKS: dict[str, Callable[[MetaChunk], MetaChunk]] = {
    "other offset": lambda chunk: replace(chunk, offset=chunk.offset + 1),
    "empty": lambda chunk: replace(chunk, data=b""),
    "too long": lambda chunk: replace(chunk, data=chunk.data + b"x" * 6_000),
    "other content": lambda chunk: replace(chunk, data=b"x" * len(chunk.data)),
}


@pytest.mark.parametrize("how", BAD_CHUNKS)
async def test_manifest_that_is_not_what_was_offered_is_refused(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.pair()
    for index in range(200):
        (world.home / "many").mkdir(exist_ok=True)
        (world.home / "many" / f"file with a long name {index}").write_bytes(b"x" * 10)

    def answer(request: Request, reply: Reply) -> Reply:
        return BAD_CHUNKS[how](reply) if isinstance(reply, MetaChunk) else reply

    lie(alice, answer, monkeypatch)
    alice.offer(bob.jid.bare, world.home / "many", single=True)
    error = await failed(await bob.expect("bt_transfer_start"))
    assert isinstance(error, ProtocolError | IntegrityError)
    assert list(bob.inbox.iterdir()) == []
    assert len(bob.wire.of(Meta)) <= 4


async def test_manifest_beyond_the_limit_is_not_even_asked_for(world: World) -> None:
    alice, bob = world.pair(auto_accept=False)
    for index in range(200):
        (world.home / "many").mkdir(exist_ok=True)
        (world.home / "many" / f"file with a long name {index}").write_bytes(b"x" * 10)
    alice.offer(bob.jid.bare, world.home / "many", single=True)
    waiting = await bob.expect("bt_offer")
    bob.context.config = bob.context.config.replace(limits={"max_manifest_size": 100})
    assert isinstance(await failed(await finish(waiting.accept())), LimitExceeded)
    assert bob.wire.of(Meta) == []


async def test_disk_that_fails_ends_both_sides_with_its_words(world: World) -> None:
    alice, bob = world.pair()
    _, sending, receiving = await world.running(alice, bob)
    bob.backend.downloads[0].events.put(StorageFailed(StorageError("the disk is full")))
    assert str(await failed(receiving)) == "the disk is full"
    await until(lambda: sending.ended)
    assert isinstance(sending.error, StorageError)
    assert list(bob.inbox.iterdir()) == []


async def test_disk_without_room_is_noticed_before_a_byte_moves(world: World) -> None:
    alice, bob = world.pair(limits={"min_free_space": 1 << 60})
    alice.offer(bob.jid.bare, world.file(), single=True)
    assert isinstance(await failed(await bob.expect("bt_transfer_start")), StorageError)
    assert bob.backend.downloads == []
    assert list(bob.inbox.iterdir()) == []


async def test_part_files_that_cannot_be_removed_do_not_spoil_what_is_published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob)

    async def fail(_: object) -> None:
        raise StorageError("busy")

    monkeypatch.setattr(Landing, "discard", fail)
    await world.carry(offer, bob)
    assert (await finish(receiving.wait())).read_bytes() == offer.path.read_bytes()
    await finish(receiving.released())


async def test_introduction_while_paused_or_publishing_breaks_nothing(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    assert sending.id is not None
    peers = Peers(offer.id, sending.id, (Candidate(ip_address("127.0.0.9"), 1),))
    await receiving.pause()
    await finish(bob.exchange.receive(peers, bob.know(alice), bob.jid))
    assert bob.backend.downloads[0].dialled.candidates == list(alice.backend.own)
    await receiving.resume()
    await settled()
    carrying = asyncio.ensure_future(world.carry(offer, bob))
    while not receiving.ended:
        await finish(bob.exchange.receive(peers, bob.know(alice), bob.jid))
        await settled()
    await finish(_done(carrying))
    assert receiving.complete


async def _done(task: asyncio.Task[None]) -> None:
    await task


async def test_diagnosis_speaks_of_the_senders_address_only(world: World) -> None:
    alice, bob = world.pair()
    _, _, receiving = await world.running(alice, bob)
    await world.pass_time(11)
    events = bob.backend.downloads[0].events
    events.put(PeerRefused(Candidate(ip_address("127.0.0.9"), 1), "connection refused"))
    await settled()
    assert receiving.diagnosis[Route.SWARM] == "dialling the sender"
    events.put(PeerRefused(alice.backend.own[0], "connection refused"))
    await settled()
    assert receiving.diagnosis[Route.SWARM] == "the sender's address does not answer: connection refused"


async def test_progress_never_runs_backwards_even_if_stored_pieces_are_lost(world: World) -> None:
    alice, bob = world.pair()
    _, _, receiving = await world.running(alice, bob)
    before = receiving.progress.transferred
    assert before > 0
    bob.backend.downloads[0]._verified = 0
    await world.pass_time(1)
    assert receiving.progress.transferred == before


async def test_finished_receiver_serves_for_as_long_as_configured(world: World) -> None:
    alice, bob = world.pair(seed_after=60)
    offer, _, receiving = await world.running(alice, bob)
    await world.carry(offer, bob)
    path = await finish(receiving.wait())
    await finish(receiving.released())
    manifest = offer._content.loaded.manifest if offer._content.loaded else None
    assert manifest is not None
    await world.pass_time(59, step=1)
    assert any(handle.is_open_for(manifest) for handle in bob.backend._handles)
    await world.pass_time(2, step=1)
    assert not any(handle.is_open_for(manifest) for handle in bob.backend._handles)
    assert list(bob.inbox.iterdir()) == [path]


async def test_reports_go_out_at_the_pace_that_was_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = world.pair()

    def answer(request: Request, reply: Reply) -> Reply:
        return replace(reply, report=7) if isinstance(reply, Accepted) else reply

    lie(alice, answer, monkeypatch)
    _, sending, receiving = await world.running(alice, bob)
    await world.pass_time(7, step=0.5)
    [report] = bob.wire.of(Report)
    assert report.had == receiving.progress.transferred
    assert sending.progress.transferred == report.had
    # Nothing to tell while nothing moves.
    await world.pass_time(30, step=0.5)
    assert len(bob.wire.of(Report)) <= 2


async def test_offer_whose_size_is_not_its_manifests_is_never_shown(world: World) -> None:
    alice, bob = world.pair(auto_accept=False)
    alice.offer(bob.jid.bare, world.file())
    await bob.expect("bt_offer")
    message = replace(alice.wire.of(Offer)[0], id="another", size=5)
    assert bob.exchange.intake.receive_offer(message, bob.know(alice), bob.jid) is None
