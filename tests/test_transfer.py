"""Transfer: its states as a user sees them, its progress, and every moment at which either side may stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from slixmpp_bt.constants import Route, State
from slixmpp_bt.errors import Cancelled, Expired
from slixmpp_bt.messages import Accept, Accepted, End, Meta
from slixmpp_bt.negotiation import Event
from slixmpp_bt.progress import Progress
from slixmpp_bt.transfer import Transfer

from .fakes import World, finish, settled, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def test_transfer_from_offer_to_file_ends_complete_on_both_sides(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    assert (sending.state, receiving.state) == (State.CONNECTING, State.RUNNING)
    await world.carry(offer, bob)
    path = await finish(receiving.wait())
    assert path.read_bytes() == offer.path.read_bytes()
    assert await finish(sending.wait()) == offer.path
    for one, transfer in ((alice, sending), (bob, receiving)):
        assert [name for name, _ in one.events if name != "bt_progress"] == ["bt_transfer_start", "bt_transfer_end"]
        assert transfer.progress.transferred == transfer.progress.total == transfer.size == 100_000
        assert transfer.progress.eta == 0.0
        assert transfer.routes == {Route.SWARM: 100_000}
        assert transfer.diagnosis == {}
    assert [p.name for p in bob.inbox.iterdir()] == ["file"]


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_cancel_tells_both_sides_why_and_leaves_nothing(world: World, who: str) -> None:
    alice, bob = world.pair()
    _, sending, receiving = await world.running(alice, bob)
    await finish((sending if who == "sender" else receiving).cancel("enough"))
    await until(lambda: sending.ended and receiving.ended)
    for transfer in (sending, receiving):
        with pytest.raises(Cancelled, match="enough"):
            await finish(transfer.wait())
        assert transfer.state is State.CANCELLED
        await finish(transfer.released())
    assert list(bob.inbox.iterdir()) == []
    assert alice.backend.seeds[0].dialled.closed
    assert bob.backend.downloads[0].dialled.closed


async def test_wait_again_and_again_raises_the_same_error_with_a_short_traceback(world: World) -> None:
    alice, bob = world.pair()
    _, sending, _ = await world.running(alice, bob)
    await finish(sending.cancel())
    depths = []
    for _ in range(5):
        with pytest.raises(Cancelled) as caught:
            await sending.wait()
        assert caught.value is sending.error
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


async def test_wait_by_several_ends_for_all_and_cancelling_one_cancels_nothing(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, _ = await world.running(alice, bob)
    waiting = [asyncio.ensure_future(sending.wait()) for _ in range(3)]
    await settled()
    waiting[0].cancel()
    await settled()
    assert not sending.ended
    await world.carry(offer, bob)
    await until(lambda: all(task.done() for task in waiting))
    assert waiting[0].cancelled()
    assert [task.result() for task in waiting[1:]] == [offer.path] * 2


async def _watch(world: World, transfer: Transfer, into: list[tuple[float, Progress]]) -> None:
    async for progress in transfer:
        into.append((world.clock(), progress))


async def test_iterators_see_at_most_four_a_second_each_and_the_same_end(world: World) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob, size=1_000_000)
    seen: list[list[tuple[float, Progress]]] = [[], []]
    watchers = [asyncio.ensure_future(_watch(world, receiving, one)) for one in seen]
    for _ in range(8):
        await world.carry(offer, bob, 2)
        await world.clock.advance(0.25, step=0.05)
        # States that change add no items.
        receiving.feed(Event.STALL)
        receiving.feed(Event.MOVED)
    await world.carry(offer, bob)
    await until(lambda: all(task.done() for task in watchers))
    for one in seen:
        assert len(one) >= 4
        moments, items = [at for at, _ in one], [item for _, item in one]
        assert all(later - sooner >= 0.2499 for sooner, later in pairwise(moments[:-1]))
        assert items[-1] is receiving.progress
        assert items[-1].transferred == items[-1].total == 1_000_000
        assert [item.transferred for item in items] == sorted(item.transferred for item in items)
    assert [progress async for progress in receiving] == [receiving.progress]


async def test_progress_event_comes_at_most_four_times_a_second_and_only_when_bytes_move(world: World) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob, size=1_000_000)
    before = len(bob.told("bt_progress"))
    for _ in range(20):
        await world.carry(offer, bob, 1)
        receiving.touch()
        await world.clock.advance(0.05, step=0.05)
    assert 2 <= len(bob.told("bt_progress")) - before <= 5
    await world.pass_time(1)
    before = len(bob.told("bt_progress"))
    await world.pass_time(5)
    assert len(bob.told("bt_progress")) == before


async def test_bytes_that_stop_coming_make_it_wait_and_new_ones_run_again(world: World) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob)
    assert Route.SWARM not in receiving.diagnosis
    await world.pass_time(11)
    assert receiving.state is State.WAITING
    assert receiving.diagnosis[Route.SWARM] == "dialling the sender"
    assert receiving.progress.eta is None
    await world.carry(offer, bob, 1)
    await world.pass_time(1.5)
    assert State(receiving.state) is State.RUNNING


async def test_presence_that_flutters_makes_no_queue_of_questions(world: World) -> None:
    alice, bob = world.pair()
    await world.running(alice, bob)
    await world.pass_time(11)
    bob.wire.gates[Accept] = asyncio.Event()
    before = len(bob.wire.of(Accept))
    for _ in range(50):
        bob.exchange.contact(alice.jid)
    await settled()
    bob.wire.gates.pop(Accept).set()
    await settled()
    assert 1 <= len(bob.wire.of(Accept)) - before <= 2


@pytest.mark.parametrize("moment", [Accept, Meta])
@pytest.mark.parametrize("what", ["cancel", "withdraw", "close"])
async def test_end_while_the_sender_is_asked_leaves_nothing(world: World, moment: type, what: str) -> None:
    alice, bob = world.pair()
    bob.wire.gates[moment] = gate = asyncio.Event()
    source = world.home / "many"
    for index in range(1 if moment is Accept else 300):
        (source / f"{index}").mkdir(parents=True)
        (source / f"{index}" / "file").write_bytes(b"x" * 20_000)
    offer = alice.offer(bob.jid.bare, source)
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: bob.wire.of(moment))
    if what == "cancel":
        await finish(receiving.cancel())
    elif what == "withdraw":
        await finish(offer.withdraw())
    else:
        await bob.aclose()
    gate.set()
    await settled()
    assert receiving.ended
    with pytest.raises(Cancelled):
        await receiving.wait()
    assert list(bob.inbox.iterdir()) == []
    await finish(offer.withdraw())
    await settled()
    assert all(seed.dialled.closed for seed in alice.backend.seeds)


@pytest.mark.parametrize("who", ["receiver", "sender"])
async def test_pause_while_the_download_is_being_opened_loses_nothing(world: World, who: str) -> None:
    """Half opened, it looked as if there was nothing to fetch."""
    alice, bob = world.pair()
    bob.backend.gate.clear()
    offer = alice.offer(bob.jid.bare, world.file(), single=True)
    receiving = await bob.expect("bt_transfer_start")
    await settled()
    paused = receiving if who == "receiver" else offer.transfers[0]
    await paused.pause()
    await settled()
    bob.backend.gate.set()
    await settled()
    assert paused.state is State.PAUSED
    await paused.resume()
    await world.pass_time(30)
    await world.carry(offer, bob)
    assert (await finish(receiving.wait())).read_bytes() == offer.path.read_bytes()


@pytest.mark.parametrize("who", ["receiver", "sender"])
async def test_pause_longer_than_a_stall_ends_with_resume(world: World, who: str) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    paused = receiving if who == "receiver" else sending
    await paused.pause()
    await settled()
    if who == "receiver":
        assert bob.backend.downloads[0].dialled.paused
    else:
        assert bob.backend.downloads[0].dialled.candidates == []
        assert alice.backend.seeds[0].dialled.closed
    await world.pass_time(1000, step=5)
    assert paused.state is State.PAUSED
    assert "paused on this side" in paused.diagnosis[Route.SWARM]
    other = sending if who == "receiver" else receiving
    assert other.state is State.WAITING
    assert other.diagnosis[Route.SWARM]
    await paused.resume()
    await settled()
    # The receiver hears of it at once, however long its next question is away.
    assert set(bob.backend.downloads[0].dialled.candidates) >= set(alice.backend.own)
    assert not bob.backend.downloads[0].dialled.paused
    await world.carry(offer, bob)
    await finish(receiving.wait())
    await finish(sending.wait())


async def test_pause_and_resume_at_once_end_as_the_last_said(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    for transfer in (sending, receiving):
        for _ in range(5):
            await transfer.pause()
            await transfer.resume()
    await settled()
    assert not bob.backend.downloads[0].dialled.paused
    assert set(bob.backend.downloads[0].dialled.candidates) >= set(alice.backend.own)
    assert not alice.backend.seeds[-1].dialled.closed
    for transfer in (sending, receiving):
        await transfer.pause()
    await settled()
    assert bob.backend.downloads[0].dialled.paused
    assert alice.backend.seeds[-1].dialled.closed
    await finish(offer.withdraw())


async def test_transfer_that_outlives_its_time_expires_on_both_sides(world: World) -> None:
    alice, bob = world.pair(limits={"transfer_ttl": 3600})
    _, sending, receiving = await world.running(alice, bob)
    await world.pass_time(3700, step=10)
    for transfer in (sending, receiving):
        assert transfer.state is State.EXPIRED
        with pytest.raises(Expired):
            await transfer.wait()


async def test_ended_transfer_keeps_no_timer(world: World) -> None:
    alice, bob = world.pair()
    _, sending, receiving = await world.running(alice, bob)
    await finish(sending.cancel())
    await until(lambda: receiving.ended)
    for transfer in (sending, receiving):
        transfer.touch()
        assert transfer._timer is None
        assert transfer._samples._timer is None
        await transfer.pause()
        await transfer.resume()
        await finish(transfer.cancel("again"))
        assert str(transfer.error) == "cancelled on this side"


async def test_closing_lets_a_file_that_just_appears_appear(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob)
    gate = asyncio.Event()
    download = bob.backend.downloads[0]
    finished = download.finished

    async def slowly() -> bool:
        await gate.wait()
        return bool(await finished())

    monkeypatch.setattr(download, "finished", slowly)
    await world.carry(offer, bob)
    await settled()
    closing = asyncio.ensure_future(bob.exchange.aclose())
    await settled()
    assert not closing.done()
    gate.set()
    await until(closing.done)
    assert receiving.complete
    assert [path.name for path in bob.inbox.iterdir()] == ["file"]


async def test_loop_shut_down_while_a_file_appears_ends_the_transfer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.pair()
    offer, _, receiving = await world.running(alice, bob)
    reached = asyncio.Event()

    async def never() -> bool:
        reached.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    monkeypatch.setattr(bob.backend.downloads[0], "finished", never)
    await world.carry(offer, bob)
    await finish(_set(reached))
    for task in asyncio.all_tasks():  # as asyncio.run does
        if task.get_name().startswith("slixmpp_bt"):
            task.cancel()
    await bob.aclose()
    assert receiving.state is State.FAILED
    with pytest.raises(Cancelled):
        await receiving.wait()
    assert list(bob.inbox.iterdir()) == []


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def test_release_cut_short_is_finished_by_closing(world: World) -> None:
    alice, bob = world.pair()
    _, _, receiving = await world.running(alice, bob)
    cancelling = asyncio.ensure_future(receiving.cancel())
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if task.get_name().startswith("slixmpp_bt"):
            task.cancel()
    await bob.aclose()
    await until(cancelling.done)
    assert list(bob.inbox.iterdir()) == []


async def test_repetitions_of_every_message_change_nothing(world: World) -> None:
    alice, bob = world.pair()
    offer, sending, receiving = await world.running(alice, bob)
    accept = bob.wire.of(Accept)[-1]
    answers = [await finish(alice.exchange.receive(accept, alice.know(bob), alice.jid)) for _ in range(3)]
    assert len({answer for answer in answers if isinstance(answer, Accepted)}) == 1
    assert len(alice.backend.seeds) == 1
    await world.carry(offer, bob)
    await finish(sending.wait())
    end = bob.wire.of(End)[-1]
    for _ in range(3):
        await finish(alice.exchange.receive(end, alice.know(bob), alice.jid))
    assert sending.complete
    assert receiving.complete
    assert len(alice.told("bt_transfer_end")) == len(bob.told("bt_transfer_end")) == 1
