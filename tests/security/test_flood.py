"""More than anybody wants: offers by the thousand, requests by the hundred. What it costs is bounded."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt import State, intake, registry
from slixmpp_bt.constants import Route
from slixmpp_bt.messages import Fetch
from slixmpp_bt.policy import MAX_DEVICES
from slixmpp_bt.sealing import ReceiverKey
from slixmpp_bt.state import SavedPast

from ..servers import Loopback
from ..test_security import accept_of, set_up
from ..world import Member, done, make_file, pair, until
from .offers import large_offer, small_offer
from .raw import Raw, condition, raw

KIB, MIB = 1024, 1024**2
#: What `limits.max_offers_per_peer` is by default.
FROM_ONE = 20


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


@pytest.fixture
def memory() -> Iterator[Any]:
    """A function that says how many bytes more than at its first call are in use."""
    tracemalloc.start()
    begun = []

    def used() -> int:
        gc.collect()
        now = tracemalloc.get_traced_memory()[0]
        begun.append(now)
        return now - begun[0]

    yield used
    tracemalloc.stop()


async def hostile_server(loopback: Loopback) -> Raw:
    """Whoever speaks for all names of a domain of its own."""
    gateway = Raw(loopback.component("gateway"))
    await loopback.connect(gateway.xmpp)
    return gateway


def name(gateway: Raw, number: int) -> JID:
    return JID(f"eve{number}@{gateway.jid.domain}/x")


async def heard_out(asking: Raw, bob: Member, ifrom: JID | None = None) -> None:
    """Wait until Bob has taken what was sent to him before."""
    await asking.ask(bob.jid, accept_of(small_offer()), ifrom=ifrom)
    exchange: Any = bob.bt._exchange
    await until(lambda: all(offer.answered or offer.announced for offer in exchange.registry.incoming.values()))


async def test_thousand_offers_of_one_stranger_cost_what_twenty_do(
    loopback: Loopback, tmp_path: Path, memory: Any
) -> None:
    alice, bob = await pair(loopback, tmp_path, auto_accept="roster")
    bob.xmpp.auto_authorize = None
    held = await alice.bt.send_file(bob.jid, make_file(tmp_path / "held", 200 * KIB))
    await bob.expect("bt_transfer_start")
    await done(held)
    running = await alice.bt.send_file(bob.jid, make_file(tmp_path / "running", 200 * KIB), desc="goes on")
    stranger = await raw(loopback, f"{await loopback.add_user('mallory')}/x")
    offers = [small_offer(f"spam {number}.txt") for number in range(1_000)]
    memory()
    begun = time.perf_counter()
    for one in offers:
        stranger.tell(bob.jid, one)
    await heard_out(stranger, bob)
    took, grown = time.perf_counter() - begun, memory()
    print(f"1,000 offers of one stranger: {took:.2f} s, {grown / MIB:.2f} MiB more, of that 20 that wait")
    assert len(bob.told("bt_offer")) == FROM_ONE
    assert len([one for one in bob.bt.offers if one.peer == stranger.jid]) == FROM_ONE  # type: ignore[union-attr]
    assert grown < 8 * MIB
    assert not stranger.asked  # who is not known learns nothing, not even that it was too much
    await done(running)


async def test_large_offers_of_one_stranger_are_bounded_in_memory(
    loopback: Loopback, tmp_path: Path, memory: Any
) -> None:
    _, bob = await pair(loopback, tmp_path, auto_accept=False)
    stranger = await raw(loopback, f"{await loopback.add_user('mallory')}/x")
    offers = [large_offer() for _ in range(FROM_ONE + 2)]
    memory()
    for one in offers:
        stranger.tell(bob.jid, one)
    await heard_out(stranger, bob)
    grown = memory()
    print(f"{len(offers)} offers of 90 kB each: {grown / MIB:.2f} MiB more")
    assert len(bob.told("bt_offer")) == FROM_ONE
    assert grown < FROM_ONE * 3 * MIB


async def test_offers_from_every_name_of_a_hostile_server_are_bounded(
    loopback: Loopback, tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_WAITING", 200)
    _, bob = await pair(loopback, tmp_path, auto_accept=False)
    gateway = await hostile_server(loopback)
    memory()
    for number in range(1_000):
        gateway.tell(bob.jid, small_offer(), ifrom=name(gateway, number))
    await heard_out(gateway, bob, name(gateway, 0))
    print(f"1,000 offers of as many names, of which 200 may wait: {memory() / MIB:.2f} MiB more")
    assert len(bob.told("bt_offer")) == 200
    assert not gateway.asked


async def test_offer_of_a_contact_arrives_however_many_strangers_there_are(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_WAITING", 100)
    alice, bob = await pair(loopback, tmp_path, auto_accept="roster")
    bob.xmpp.auto_authorize = None
    gateway = await hostile_server(loopback)
    for number in range(150):
        gateway.tell(bob.jid, small_offer(days=2_000_000), ifrom=name(gateway, number))
    await heard_out(gateway, bob, name(gateway, 0))
    sending = await alice.bt.send_file(bob.jid, make_file(tmp_path / "file", 10))
    async with asyncio.timeout(3):
        await sending.wait()


async def test_large_offers_from_every_name_of_a_hostile_server_are_bounded_in_memory(
    loopback: Loopback, tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_WAITING_BYTES", 200_000)
    _, bob = await pair(loopback, tmp_path, auto_accept=False)
    gateway = await hostile_server(loopback)
    offers = [large_offer() for _ in range(6)]
    memory()
    for number, one in enumerate(offers):
        gateway.tell(bob.jid, one, ifrom=name(gateway, number))
    await heard_out(gateway, bob, name(gateway, 0))
    waiting = len(bob.told("bt_offer"))
    print(f"{waiting} offers of 90 kB, while they wait, cost {memory() / waiting / MIB:.2f} MiB each")
    assert waiting == 2


async def test_refused_offers_leave_no_more_rows_than_are_remembered(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_MAX_REMEMBERED", 50)
    _, bob = await pair(loopback, tmp_path, auto_accept=False, state_dir=tmp_path / "state", limits={"max_size": 1})
    gateway = await hostile_server(loopback)
    for number in range(300):
        gateway.tell(bob.jid, small_offer(days=2_000_000), ifrom=name(gateway, number))
    await heard_out(gateway, bob, name(gateway, 0))
    context: Any = bob.bt._context
    assert 0 < len(await context.state.load(SavedPast)) <= 100


async def test_offer_that_never_expires_is_kept_no_longer_than_transfers_may_live(
    loopback: Loopback, tmp_path: Path
) -> None:
    _, bob = await pair(loopback, tmp_path, auto_accept=False)
    stranger = await raw(loopback, f"{await loopback.add_user('mallory')}/x")
    sent = small_offer(days=2_000_000)
    stranger.tell(bob.jid, sent)
    kept = await bob.expect_offer()
    assert kept.expires <= sent.expires - timedelta(days=1_900_000)


# From those who are invited


async def test_certificate_requests_of_an_invited_peer_are_limited(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path)
    keys = [ReceiverKey.make() for _ in range(120)]
    answers = [condition(await scene.bob.ask(scene.alice.jid, accept_of(scene.offer, key))) for key in keys]
    assert answers.count(None) == 99  # and the one before
    assert set(answers[99:]) == {"resource-constraint"}
    again = await scene.bob.ask(scene.alice.jid, accept_of(scene.offer, keys[98]))
    assert condition(again) is None  # the same request gets the same answer, which costs nothing
    assert len(scene.own.transfers) == 1
    await scene.own.withdraw()


async def test_certificate_requests_of_one_device_leave_some_for_the_others(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path)
    tablet = await raw(loopback, f"{scene.bob.jid.bare}/tablet")
    for _ in range(100):
        await scene.bob.ask(scene.alice.jid, accept_of(scene.offer))
    try:
        assert condition(await tablet.ask(scene.alice.jid, accept_of(scene.offer, transfer="t-2"))) is None
    finally:
        await scene.own.withdraw()


async def test_transfers_of_one_device_are_bounded(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path)
    for number in range(50):
        await scene.bob.ask(scene.alice.jid, accept_of(scene.offer, scene.key, f"made-up-{number}"))
    running = [transfer for transfer in scene.own.transfers if not transfer.ended]
    try:
        assert len(running) <= MAX_DEVICES
    finally:
        await scene.own.withdraw()


async def test_fetches_by_the_hundred_keep_one_stream(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path)
    others = len(asyncio.all_tasks())
    asked = [
        scene.bob.ask(scene.alice.jid, Fetch(scene.own.id, "t-1", f"sid-{number}", Route.IN_BAND, ((0, 3),)))
        for number in range(300)
    ]
    most = 0
    for answer in asyncio.as_completed(asked):
        assert condition(await answer) is None
        streams = [task for task in asyncio.all_tasks() if task.get_name().startswith("slixmpp_bt stream")]
        most = max(most, len(streams))
    print(f"300 fetches: {most} streams at once at most, {others} tasks before")
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("slixmpp_bt stream")])
    assert scene.own.state is State.OFFERED
    await scene.own.withdraw()
