"""Catalogues between two real servers: the publisher has an account on one, those who read on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import slixmpp

from slixmpp_bt import IncomingOffer

from .servers import Ejabberd, Options, Process, Prosody, RealServer, joined
from .test_catalogue_servers import ACCESS, listed, move, published, refused
from .world import Member, digest, done, make_file, member, until, visible

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def mixed() -> Iterator[dict[str, RealServer]]:
    """Prosody and ejabberd, which find each other."""
    prosody, ejabberd = Prosody(Options(domain="prosody.test")), Ejabberd(Options(domain="ejabberd.test"))
    with joined(prosody, ejabberd):
        yield {"prosody": prosody, "ejabberd": ejabberd}


@pytest.fixture(scope="module")
def alike() -> Iterator[tuple[RealServer, RealServer]]:
    """Two Prosodys, which find each other."""
    with joined(Prosody(Options(domain="one.test")), Prosody(Options(domain="two.test"))) as both:
        yield both


@dataclass(frozen=True)
class Federation:
    """Two servers, and a directory for their clients.

    :ivar here: the publisher's.
    :ivar there: the readers'.
    """

    here: Process
    there: Process
    home: Path

    async def pair(self, **config: Any) -> tuple[Member, Member]:
        """A publisher and a friend, who see each other's presence."""
        a, b = await self.here.add_user("alice"), await self.there.add_user("bob")
        await self.here.befriend(a, self.there, b)
        alice = await member(self.here, f"{a}/laptop", self.home / "alice", **config)
        bob = await self.enter(b, "phone")
        await visible(alice, bob)
        return alice, bob

    async def enter(self, account: slixmpp.JID | str, device: str, **config: Any) -> Member:
        """One more device of a reader."""
        jid = slixmpp.JID(f"{account}/{device}")
        return await member(self.there, jid, self.home / f"{jid.user}-{device}", **config)

    async def stranger(self) -> Member:
        """Somebody at the readers' server whom the publisher does not know."""
        return await self.enter(await self.there.add_user("carol"), "tablet")


@pytest.fixture(params=["prosody prosody", "prosody ejabberd", "ejabberd prosody"])
def _servers(request: pytest.FixtureRequest) -> tuple[RealServer, RealServer]:
    here, there = request.param.split()
    if here == there:
        pair: tuple[RealServer, RealServer] = request.getfixturevalue("alike")
        return pair
    both = request.getfixturevalue("mixed")
    return both[here], both[there]


@pytest.fixture
async def federation(_servers: tuple[RealServer, RealServer], tmp_path: Path) -> AsyncIterator[Federation]:
    async with Process(_servers[0]) as here, Process(_servers[1]) as there:
        yield Federation(here, there, tmp_path)


async def gone(reader: Member, *offers: IncomingOffer) -> None:
    """Wait until `reader` was told that these are over."""
    await until(lambda: set(offers) <= set(reader.told("bt_offer_end")))


@pytest.mark.parametrize("model", ACCESS)
async def test_access_holds_between_two_servers(federation: Federation, model: str) -> None:
    alice, bob = await federation.pair()
    await move(alice, bob, "Friends")
    carol = await federation.stranger()
    source = make_file(federation.home / "file", 300_000)
    access = ACCESS[model](alice, bob)
    kept = await alice.bt.publish(source, access=access)
    told = await bob.expect_offer()
    assert (told.id, str(told.sender)) == (kept.id, alice.jid.bare)
    assert await listed(bob, alice, 1) == [told]
    await done(await told.accept())
    assert digest(bob.inbox / "file") == digest(source)
    second = await alice.bt.publish(make_file(federation.home / "second", 1_000), access=access)
    news = await bob.expect_offer(2)
    assert news.id == second.id
    if model == "open":
        [found] = [offer for offer in await listed(carol, alice, 2) if offer.id == kept.id]
        await done(await found.accept())
        assert digest(carol.inbox / "file") == digest(source)
    else:
        assert await carol.bt.catalogue(alice.jid.bare) == []
        assert await refused(carol, alice, kept.id) == await refused(carol, alice, "no-such-offer")
    await second.withdraw()
    await gone(bob, news)
    await listed(bob, alice, 1)
    assert not carol.told("bt_offer")


async def test_device_that_comes_later_sees_everything(federation: Federation) -> None:
    """It is told of the newest at once, and lists, fetches and hears of the end of all."""
    alice, bob = await federation.pair()
    sources = [make_file(federation.home / f"file {n}", 20_000, n) for n in range(25)]
    offers = [await published(await alice.bt.publish(source)) for source in sources]
    await bob.expect_offer(25)  # else they are on their way yet
    late = await federation.enter(bob.jid.bare, "late")
    found = {offer.id: offer for offer in await listed(late, alice, 25)}
    assert found.keys() == {offer.id for offer in offers}
    assert (await late.expect_offer()).id == offers[-1].id
    await done(*[await found[offer.id].accept() for offer in offers[:3]])
    assert {path.name for path in late.inbox.iterdir()} == {"file 0", "file 1", "file 2"}
    for offer in offers[-3:]:
        await offer.withdraw()
    await gone(late, *(found[offer.id] for offer in offers[-3:]))
    await listed(late, alice, 22)


async def test_presence_that_is_lost_is_noticed_by_another_server(federation: Federation) -> None:
    alice, bob = await federation.pair()
    await alice.bt.publish(make_file(federation.home / "file", 40_000))
    offer = await bob.expect_offer()
    alice.xmpp.send_presence(pto=bob.jid.bare, ptype="unsubscribed")
    entry = alice.xmpp.roster[alice.jid.bare][bob.jid.bare]
    await until(lambda: entry["subscription"] == "to")
    assert await refused(bob, alice, offer.id) == await refused(bob, alice, "no-such-offer")
    await listed(bob, alice, 0)


async def test_group_is_followed_by_another_server(federation: Federation) -> None:
    """Who enters it sees everything and is told of what is new; who has left it sees and is told nothing."""
    alice, bob = await federation.pair()
    friends = "group:Friends"
    offers = [await published(await alice.bt.publish(make_file(federation.home / "first", 40_000), access=friends))]
    assert await bob.bt.catalogue(alice.jid.bare) == []
    await move(alice, bob, "Friends")
    await listed(bob, alice, 1)
    before = len(bob.told("bt_offer"))
    offers.append(await alice.bt.publish(make_file(federation.home / "second", 40_000), access=friends))
    news = await bob.expect_offer(before + 1)
    assert news.id == offers[-1].id
    await move(alice, bob, "Strangers")
    await listed(bob, alice, 0)
    for offer in offers:
        assert await refused(bob, alice, offer.id) == await refused(bob, alice, "no-such-offer")
    await published(await alice.bt.publish(make_file(federation.home / "third", 40_000), access=friends))
    alice.xmpp.send_message(mto=bob.jid, mbody="there is something new, but not for you")
    await bob.xmpp.wait_until("message", 10)
    assert bob.told("bt_offer")[before + 1 :] == []


async def test_mirror_on_another_server_outlives_restarts_of_both(federation: Federation) -> None:
    """What was published and withdrawn while it was away, and by a publisher that was away meanwhile."""
    a, b = await federation.here.add_user("alice"), await federation.there.add_user("bob")
    await federation.here.befriend(a, federation.there, b)
    state, rule = {"state_dir": federation.home / "state"}, {"auto_accept": [str(a)]}
    alice = await member(federation.here, f"{a}/laptop", federation.home / "alice", **state)
    mirror = await federation.enter(b, "mirror", **state, **rule)
    first = await published(await alice.bt.publish(make_file(federation.home / "first", 50_000)))
    await done(await mirror.expect("bt_transfer_start"))
    await mirror.bt.aclose()
    await mirror.xmpp.disconnect()
    await published(await alice.bt.publish(make_file(federation.home / "second", 50_000)))
    await published(await alice.bt.publish(make_file(federation.home / "third", 50_000)))
    await first.withdraw()
    await alice.bt.aclose()
    await alice.xmpp.disconnect()
    again = await federation.enter(b, "again", **state, **rule)
    await again.expect("bt_transfer_start", 2)
    back = await member(federation.here, f"{a}/renamed", federation.home / "alice", **state)
    await again.expect("bt_transfer_end", 2)
    assert {path.name for path in again.inbox.iterdir()} == {"second", "third"}
    await listed(again, back, 2)
    async with asyncio.timeout(10):
        await published(await back.bt.publish(make_file(federation.home / "fourth", 50_000)))
        await again.expect("bt_transfer_end", 3)
