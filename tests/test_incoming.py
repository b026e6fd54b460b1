"""Others' offers in their user's hands: accepting, choosing, declining, and when that is too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slixmpp_bt.constants import State
from slixmpp_bt.errors import Cancelled, ConfigError, Declined, Expired, LimitExceeded, PathError
from slixmpp_bt.incoming import GRACE, IncomingOffer
from slixmpp_bt.messages import Accept, Withdraw

from .fakes import Party, World, finish, settled, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as one:
        yield one


async def received(world: World, **config: object) -> tuple[Party, Party, IncomingOffer]:
    """An offer that waits for an answer."""
    alice, bob = world.pair(auto_accept=False, **config)
    alice.offer(bob.jid.bare, world.file())
    return alice, bob, await bob.expect("bt_offer")


async def test_accept_twice_at_once_begins_one_transfer(world: World) -> None:
    _, bob, offer = await received(world)
    first, second = await finish(_both(offer.accept(), offer.accept()))
    assert first is second
    assert bob.exchange.registry.transfers == (first,)
    assert await offer.accept() is first
    assert len(bob.told("bt_transfer_start")) == 1


async def _both(*coroutines: object) -> list[object]:
    return list(await asyncio.gather(*coroutines))  # type: ignore[call-overload]


async def test_accept_without_a_place_to_put_it_says_so(world: World) -> None:
    _, _, offer = await received(world, download_dir=None)
    with pytest.raises(ConfigError, match="dest"):
        await finish(offer.accept())
    with pytest.raises(PathError, match="nowhere"):
        await finish(offer.accept(world.home / "nowhere"))
    with pytest.raises(PathError, match="file"):
        await finish(offer.accept(world.home / "file"))
    assert not offer.answered
    (world.home / "place").mkdir()
    await finish(offer.accept(world.home / "place"))


async def test_select_of_nothing_or_of_another_offer_is_refused(world: World) -> None:
    _, _, offer = await received(world)
    for select in ([], lambda file: False, ["file"]):
        with pytest.raises(ValueError, match="select"):
            await finish(offer.accept(select=select))  # type: ignore[arg-type]
    assert not offer.answered
    assert offer.chosen(offer.files) is None
    assert offer.chosen(lambda file: True) is None


@pytest.mark.parametrize("during", [False, True])
@pytest.mark.parametrize("what", ["declined", "withdrawn", "closed"])
async def test_accept_of_what_is_over_raises_expired(world: World, what: str, during: bool) -> None:
    """Over before the call, or while it looks at the disk."""
    alice, bob, offer = await received(world)
    accepting = asyncio.ensure_future(offer.accept()) if during else None
    await asyncio.sleep(0)
    if what == "declined":
        await offer.decline()
    elif what == "withdrawn":
        own = alice.exchange.registry.offers[0]
        bob.exchange.withdrawn(Withdraw(own.id), bob.know(alice))
    else:
        closing = asyncio.ensure_future(bob.exchange.aclose())
        await until(closing.done)
    with pytest.raises(Expired):
        await finish(accepting if accepting is not None else offer.accept())  # type: ignore[arg-type]
    await settled()
    assert offer.transfer is None
    assert bob.exchange.registry.transfers == ()


async def test_offer_is_hidden_only_minutes_after_its_expiry(world: World) -> None:
    alice, bob = world.pair(auto_accept=False)
    for lasts in (100.0, 200.0):
        alice.offer(bob.jid.bare, world.file(f"file {lasts}"), lasts=lasts)
        await settled()
    first, second = await bob.expect("bt_offer"), await bob.expect("bt_offer", 2)
    if first.expires > second.expires:
        first, second = second, first
    await world.pass_time(GRACE + 60, step=5)
    assert bob.told("bt_offer_end") == []
    await world.pass_time(90, step=5)
    assert bob.told("bt_offer_end") == [first]
    with pytest.raises(Expired, match="over"):
        await finish(first.accept())
    assert bob.exchange.registry.offers == (second,)
    await world.pass_time(100, step=5)
    assert bob.told("bt_offer_end") == [first, second]


async def test_decline_tells_the_reason_once(world: World) -> None:
    alice, _, offer = await received(world)
    await offer.decline("no cats")
    await offer.decline("no dogs")
    await settled()
    [own] = alice.exchange.registry.offers
    [declined] = own.transfers  # type: ignore[union-attr]
    with pytest.raises(Declined, match="no cats"):
        await declined.wait()


async def test_decline_after_accepting_has_no_effect(world: World) -> None:
    _, _, offer = await received(world)
    transfer = await finish(offer.accept())
    await offer.decline()
    assert not transfer.ended
    assert offer.alive


async def test_accept_again_after_a_failure_waits_for_the_old_one_and_begins_anew(world: World) -> None:
    alice, bob, offer = await received(world)
    first = await finish(offer.accept())
    await until(lambda: bob.backend.downloads)
    cancelling = asyncio.ensure_future(first.cancel())
    await asyncio.sleep(0)
    second = await finish(offer.accept())
    await until(cancelling.done)
    assert second is not first
    assert second.id != first.id
    [own] = alice.exchange.registry.offers
    await until(lambda: len(bob.backend.downloads) == 2)
    await world.carry(own, bob)  # type: ignore[arg-type]
    await finish(second.wait())
    assert first.state is State.CANCELLED


async def test_failed_offer_stays_acceptable_and_known_for_as_long_as_it_lasts(world: World) -> None:
    alice, bob, offer = await received(world)
    first = await finish(offer.accept())
    await until(lambda: bob.backend.downloads)
    await finish(first.cancel())
    await world.pass_time(120, step=5)
    assert bob.exchange.registry.offers == ()
    second = await finish(offer.accept())
    assert bob.exchange.registry.transfers == (second,)
    await until(lambda: len(bob.backend.downloads) == 2)
    # The sender's words find it.
    [own] = alice.exchange.registry.offers
    await finish(own.withdraw())  # type: ignore[union-attr]
    await until(lambda: second.ended)
    with pytest.raises(Cancelled, match="withdrawn"):
        await second.wait()
    with pytest.raises(Expired):
        await finish(offer.accept())


async def test_max_transfers_bounds_what_runs_at_once(world: World) -> None:
    alice, bob = world.pair(auto_accept=False, limits={"max_transfers": 1})
    for index in range(2):
        alice.offer(bob.jid.bare, world.file(f"file {index}"))
    first, second = await bob.expect("bt_offer"), await bob.expect("bt_offer", 2)
    running = await finish(first.accept())
    with pytest.raises(LimitExceeded, match="max_transfers"):
        await finish(second.accept())
    await finish(running.cancel())
    await finish(second.accept())


async def test_manifest_too_large_for_an_offer_is_fetched_and_chosen_from(world: World) -> None:
    alice, bob = world.pair(auto_accept=False)
    for index in range(300):
        (world.home / "many" / f"{index}").mkdir(parents=True)
        (world.home / "many" / f"{index}" / "file").write_bytes(b"x" * 100)
    own = alice.offer(bob.jid.bare, world.home / "many")
    offer = await bob.expect("bt_offer")
    assert offer.files == ()
    transfer = await finish(offer.accept(select=lambda file: file.path.parts[0] == "7"))
    await until(lambda: bob.backend.downloads)
    assert len(offer.files) == 300
    assert transfer.size == 100
    assert bob.wire.of(Accept)[0].routes == frozenset()
    await world.carry(own, bob)
    path = await finish(transfer.wait())
    assert [str(p.relative_to(path)) for p in sorted(path.rglob("*"))] == ["7", "7/file"]
