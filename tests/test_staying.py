"""Finished receivers that go on serving: for how long, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt import staying
from slixmpp_bt.messages import End
from slixmpp_bt.state import SavedSeed

from .fakes import Party, World, finish, settled
from .fakes import until as come_true
from .servers import Loopback
from .test_persistence import Person
from .test_seeding import connect, swarm
from .world import LISTEN, Member, digest, done, make_file, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def finished(world: World, *, answered: bool = True, **config: Any) -> tuple[Party, Party]:
    """A sender, and a receiver that has everything and knew of another one; whether the sender heard of the end."""
    alice, (bob, _), offer = await swarm(world, "bob", "carol", **config)
    connect(alice, "carol")
    await world.pass_time(8)
    if not answered:
        bob.wire.lost.add(End)
    await world.carry(offer, bob)
    await come_true(lambda: bob.told("bt_transfer_end"))
    await settled()
    return alice, bob


def serves(party: Party) -> bool:
    """Whether it has an open seed."""
    return any(not handle._closed for handle in party.backend._handles)


async def test_receiver_that_the_sender_answers_goes(world: World) -> None:
    _, bob = await finished(world)
    await world.pass_time(1)
    assert not serves(bob)


async def test_receiver_stays_for_seed_after(world: World) -> None:
    _, bob = await finished(world, seed_after=600)
    await world.pass_time(595, step=5)
    assert serves(bob)
    await world.pass_time(10)
    assert not serves(bob)


async def test_receiver_whose_sender_does_not_answer_stays_for_a_while(world: World) -> None:
    _, bob = await finished(world, answered=False)
    await world.pass_time(staying._QUIET - 5, step=1)
    assert serves(bob)
    await world.pass_time(10)
    assert not serves(bob)


async def test_receiver_whose_sender_does_not_answer_goes_when_it_does(world: World) -> None:
    _, bob = await finished(world, answered=False)
    bob.wire.lost.clear()
    bob.context.outbox.retry(world.clock())
    await world.pass_time(2)
    assert not serves(bob)


async def test_receiver_alone_keeps_no_seed(world: World) -> None:
    _, (bob,), offer = await swarm(world, "bob")
    bob.wire.lost.add(End)
    await world.carry(offer, bob)
    await come_true(lambda: bob.told("bt_transfer_end"))
    await settled()
    assert not serves(bob)
    await finish(offer.withdraw())


# After a restart

#: Pieces that the slower receiver leaves alone until the test lets it have them.
LATE = frozenset({0, 5, 9})
SIZE = 1_500_000


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


def download(one: Member) -> Any:
    transfers = one.told("bt_transfer_start")
    return transfers[0]._side._filling.download if transfers and transfers[0]._side._filling else None


async def kept(one: Member) -> list[SavedSeed]:
    return await one.bt._context.state.load(SavedSeed)


async def test_receiver_serves_after_a_restart_while_the_sender_is_away(loopback: Loopback, tmp_path: Path) -> None:
    a, b = await loopback.add_user("alice"), await loopback.add_user("bob")
    await loopback.subscribe(a, b)
    alice = Person(loopback, a, tmp_path / "alice")
    quick = Person(loopback, b, tmp_path / "quick", auto_accept=True, seed_after=3600)
    slow = Person(loopback, b, tmp_path / "slow", auto_accept=True, routes=["swarm"])
    first, second, sender = await quick.start("quick"), await slow.start("slow"), await alice.start()
    sender.bt.configure(upload_limit=100_000)
    source = make_file(tmp_path / "file", SIZE)
    await sender.bt.offer(b, source)
    await until(lambda: download(second))
    download(second).claim(LATE)
    transfer = await first.expect("bt_transfer_start")
    await until(lambda: len(transfer._side._filling.known) > len(LISTEN))  # it knows of the other
    sender.bt.configure(upload_limit=None)
    await done(transfer)
    await transfer.released()
    await until(lambda: download(second)._missing <= LATE)
    await alice.crash()
    await quick.stop()
    first = await quick.start("quick")
    assert len(await kept(first)) == 1
    download(second).release(LATE)
    [path] = await done(second.told("bt_transfer_start")[0])
    assert digest(path) == digest(source)
    for person in (quick, slow):
        await person.stop()


async def served_on(loopback: Loopback, tmp_path: Path) -> tuple[Person, Person, Path]:
    """A sender, a receiver that has everything and goes on serving it for a minute, and what it published."""
    a, b = await loopback.add_user("alice"), await loopback.add_user("bob")
    await loopback.subscribe(a, b)
    alice = Person(loopback, a, tmp_path / "alice")
    bob = Person(loopback, b, tmp_path / "bob", auto_accept=True, seed_after=60)
    receiver, sender = await bob.start(), await alice.start()
    await sender.bt.send_file(receiver.jid, make_file(tmp_path / "file", 100_000))
    transfer = await receiver.expect("bt_transfer_start")
    [path] = await done(transfer)
    await transfer.released()
    return alice, bob, path


async def test_restart_after_the_time_forgets_the_seed(loopback: Loopback, tmp_path: Path) -> None:
    alice, bob, path = await served_on(loopback, tmp_path)
    [saved] = await kept(bob.one)
    assert saved.published == path
    assert b"PRIVATE KEY" in (saved.private_key or b"")
    await bob.stop()
    receiver = await bob.start(later=61)
    async with asyncio.timeout(20):
        while await kept(receiver):
            await asyncio.sleep(0.01)
    await bob.stop()
    await alice.stop()


async def test_published_file_that_is_gone_is_not_served(loopback: Loopback, tmp_path: Path) -> None:
    alice, bob, path = await served_on(loopback, tmp_path)
    await bob.stop()
    path.unlink()
    receiver = await bob.start()
    async with asyncio.timeout(20):
        while await kept(receiver):
            await asyncio.sleep(0.01)
    await bob.stop()
    await alice.stop()
