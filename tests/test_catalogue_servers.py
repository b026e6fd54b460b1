"""Catalogues on real servers: who sees what, who gets it, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import SubElement

import pytest
import slixmpp

from slixmpp_bt import (
    Cancelled,
    ConfigError,
    Expired,
    IncomingOffer,
    LimitExceeded,
    OutgoingOffer,
    ProtocolError,
    SourceChanged,
    State,
    content,
    stanza,
)
from slixmpp_bt.catalogue import looking
from slixmpp_bt.messages import Accept

from .servers import Ejabberd, Loopback, Options, Process, Prosody, Server, started
from .world import Member, digest, done, make_file, member, pair, until


async def published(offer: OutgoingOffer) -> OutgoingOffer:
    """Once its item is in the node."""
    await until(lambda: offer.is_published or offer.state.terminal)
    assert offer.error is None, offer.error
    return offer


async def listed(
    reader: Member, publisher: Member, count: int, node: str | None = None, patience: float = 12
) -> list[IncomingOffer]:
    """What `publisher` publishes, once that is so many."""
    async with asyncio.timeout(patience):
        while len(offers := await reader.bt.catalogue(publisher.jid.bare, node=node)) != count:
            await asyncio.sleep(0.02)
    return offers


async def test_published_file_is_listed_fetched_and_withdrawn(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    source = make_file(tmp_path / "holiday.mp4", 300_000)
    offer = await alice.bt.publish(source, desc="The lake")
    told = await bob.expect_offer()
    assert (told.name, told.size, told.desc, str(told.sender)) == ("holiday.mp4", 300_000, "The lake", alice.jid.bare)
    assert await listed(bob, alice, 1) == [told]
    await done(await told.accept())
    assert digest(bob.inbox / "holiday.mp4") == digest(source)
    await until(lambda: [t.state for t in offer.transfers] == [State.COMPLETE])
    assert not alice.told("bt_offer")
    await offer.withdraw()
    await listed(bob, alice, 0)


Who = Callable[[Member, Member], Any]
#: For each kind of access, what lets in bob.
ACCESS: dict[str, Who] = {
    "presence": lambda alice, bob: "presence",
    "open": lambda alice, bob: "open",
    "whitelist": lambda alice, bob: [bob.jid.bare],
    "group": lambda alice, bob: "group:Friends",
}


async def move(whose: Member, contact: Member, group: str) -> None:
    """Put a contact into this group of the roster, and no other."""
    assert isinstance(whose.xmpp, slixmpp.ClientXMPP)
    answer = whose.xmpp.update_roster(slixmpp.JID(contact.jid.bare), groups=[group])
    assert answer is not None
    await answer


async def trio(server: Server, tmp_path: Path, **config: Any) -> tuple[Member, Member, Member]:
    """A publisher, a friend in her roster group, and a stranger."""
    alice, bob = await pair(server, tmp_path, auto_accept=False, **config)
    await move(alice, bob, "Friends")
    carol = await member(server, f"{await server.add_user('carol')}/tablet", tmp_path / "carol")
    return alice, bob, carol


async def refused(who: Member, publisher: Member, id: str) -> str:
    """In what words `who` is refused an offer."""
    with pytest.raises(ProtocolError) as refusal:
        await who.bt._connection.request(Accept(id, "transfer-1"), publisher.jid, sender=who.jid)
    assert refusal.value.condition == "item-not-found"
    return str(refusal.value)


@pytest.mark.parametrize("model", ACCESS)
async def test_access_lets_in_whom_it_says_and_nobody_else(server: Server, tmp_path: Path, model: str) -> None:
    alice, bob, carol = await trio(server, tmp_path)
    source = make_file(tmp_path / "file", 40_000)
    offer = await alice.bt.publish(source, access=ACCESS[model](alice, bob))
    await done(await (await bob.expect_offer()).accept())
    assert digest(bob.inbox / "file") == digest(source)
    if model == "open":
        [found] = await listed(carol, alice, 1)
        await done(await found.accept())
        assert digest(carol.inbox / "file") == digest(source)
    else:
        assert await carol.bt.catalogue(alice.jid.bare) == []
        assert await refused(carol, alice, offer.id) == await refused(carol, alice, "no-such-offer")


@pytest.mark.parametrize("model", ["presence", "group"])
async def test_access_that_is_lost_is_noticed_at_the_next_accept(server: Server, tmp_path: Path, model: str) -> None:
    alice, bob, _ = await trio(server, tmp_path)
    await alice.bt.publish(make_file(tmp_path / "file", 40_000), access=ACCESS[model](alice, bob))
    offer = await bob.expect_offer()
    if model == "presence":
        alice.xmpp.send_presence(pto=bob.jid.bare, ptype="unsubscribed")
    else:
        await move(alice, bob, "Strangers")
    entry = alice.xmpp.roster[alice.jid.bare][bob.jid.bare]
    await until(lambda: entry["subscription"] == "to" or entry["groups"] == ["Strangers"])
    await refused(bob, alice, offer.id)
    await listed(bob, alice, 0)


async def test_node_for_some_takes_nothing_for_others(server: Server, tmp_path: Path) -> None:
    alice, bob, carol = await trio(server, tmp_path)
    source = make_file(tmp_path / "file", 1_000)
    for_bob = await published(await alice.bt.publish(source, access=bob.jid.bare))
    with pytest.raises(ConfigError, match="another node"):
        await alice.bt.publish(source, access=carol.jid.bare)
    other = await published(await alice.bt.publish(source, access=carol.jid.bare, node="for-carol"))
    assert await carol.bt.catalogue(alice.jid.bare) == []
    [found] = await listed(carol, alice, 1, "for-carol")
    await done(await found.accept())
    with pytest.raises(ProtocolError):
        await bob.bt.catalogue(alice.jid.bare, node="for-carol")
    await for_bob.withdraw()
    await until(lambda: not for_bob.is_published)
    await published(await alice.bt.publish(source, access=carol.jid.bare))
    await listed(carol, alice, 1)
    assert other.state is State.OFFERED


async def test_watched_node_tells_its_news(server: Server, tmp_path: Path) -> None:
    alice, bob, _ = await trio(server, tmp_path)
    assert await bob.bt.catalogue(alice.jid.bare, node="films") == []
    await asyncio.sleep(0.2)  # the server learns of it with the next presence
    await alice.bt.publish(make_file(tmp_path / "film", 1_000), node="films")
    assert (await bob.expect_offer()).node == "films"


async def test_other_devices_mirror_everything(server: Server, tmp_path: Path) -> None:
    """One that is online, and one that comes when everything is published."""
    a = await server.add_user("alice")
    laptop = await member(server, f"{a}/laptop", tmp_path / "laptop")
    backup = await member(server, f"{a}/backup", tmp_path / "backup", auto_accept=[a], limits={"max_transfers": 2})
    for index in range(5):
        access = "open" if index == 4 else "presence"
        await published(await laptop.bt.publish(make_file(tmp_path / f"file {index}", 50_000, index), access=access))
    late = await member(server, f"{a}/late", tmp_path / "late", auto_accept=[a], limits={"max_transfers": 2})
    for device in (backup, late):
        await device.expect("bt_transfer_end", 5)
        assert {path.name for path in device.inbox.iterdir()} == {f"file {index}" for index in range(5)}
        assert not device.told("bt_offer")
    await laptop.expect("bt_transfer_end", 10)
    assert await laptop.bt.catalogue() == []
    assert len(await backup.bt.catalogue()) == 5


async def test_withdrawn_item_is_told_and_ends_what_runs(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    alice.bt.configure(upload_limit=100_000)
    first = await alice.bt.publish(make_file(tmp_path / "first", 1_000))
    told = await bob.expect_offer()
    second = await alice.bt.publish(make_file(tmp_path / "second", 1_000_000))
    running = await (await bob.expect_offer(2)).accept()
    await until(lambda: running.progress.transferred)
    await first.withdraw()
    assert await bob.expect("bt_offer_end") is told
    with pytest.raises(Expired):
        await told.accept()
    await second.withdraw()
    with pytest.raises(Cancelled, match="withdrawn"):
        await done(running)


async def test_only_the_publishers_own_events_count(server: Server, tmp_path: Path) -> None:
    alice, bob, carol = await trio(server, tmp_path)
    offer = await alice.bt.publish(make_file(tmp_path / "file", 1_000))
    told = await bob.expect_offer()
    item = stanza.pubsub.build_item(replace(told.message, id="forged"))
    speaker = server.component("gateway")
    await server.connect(speaker)
    for xmpp, sender in ((carol.xmpp, carol.jid), (alice.xmpp, alice.jid), (speaker, f"alice@{speaker.boundjid}")):
        for kind in ("item", "retract"):
            message = xmpp.make_message(mto=bob.jid, mfrom=sender, mtype="headline")
            event = SubElement(message.xml, f"{{{stanza.pubsub.NS_EVENT}}}event")
            items = SubElement(event, f"{{{stanza.pubsub.NS_EVENT}}}items", {"node": told.node or ""})
            entry = SubElement(items, f"{{{stanza.pubsub.NS_EVENT}}}{kind}", {"id": told.id})
            if kind == "item":
                entry.set("id", "forged")
                entry.set("publisher", alice.jid.bare)
                entry.append(item)
            message.send()
        done_saying = xmpp.make_message(mto=bob.jid, mfrom=sender, mbody="that was it")
        done_saying.send()
        await bob.xmpp.wait_until("message", 10)
    assert bob.told("bt_offer") == [told]
    assert not bob.told("bt_offer_end")
    assert await listed(bob, alice, 1) == [told]
    assert offer.is_published


async def test_publisher_that_comes_back_serves_on_and_clears_away(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    state = {"state_dir": tmp_path / "state"}
    laptop = await member(server, f"{alice.jid.bare}/other", tmp_path / "laptop", **state)
    kept, moved, short = (make_file(tmp_path / name, 30_000) for name in ("kept", "moved", "short"))
    for source in (kept, moved, short):
        offer = await published(await laptop.bt.publish(source, expires=2.0 if source is short else None))
    await alice.bt.publish(make_file(tmp_path / "another device's", 30_000))
    offers = {o.name: o for o in await listed(bob, alice, 4)}
    await laptop.bt.aclose()
    await laptop.xmpp.disconnect()
    waiting = await offers["kept"].accept()
    moved.unlink()
    await until(lambda: offer.expires.timestamp() < time.time())
    again = await member(server, f"{alice.jid.bare}/renamed", tmp_path / "laptop", **state)
    await done(waiting)
    assert digest(bob.inbox / "kept") == digest(kept)
    assert {o.name for o in await listed(bob, alice, 2)} == {"kept", "another device's"}
    assert [o.name for o in again.bt.offers if isinstance(o, OutgoingOffer) and o.alive] == ["kept"]


@pytest.mark.parametrize("kept", [True, False], ids=["state", "no state"])
async def test_source_that_is_gone_is_withdrawn_while_the_publisher_runs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """What is kept on disk is not loaded for that; of an earlier run's, too."""
    monkeypatch.setattr(looking, "PACE", 0.05)
    monkeypatch.setattr(content, "_LINGER", 0.05)
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    settings = {"state_dir": tmp_path / "state" if kept else None}
    laptop = await member(server, f"{alice.jid.bare}/other", tmp_path / "laptop", **settings)
    sources = [make_file(tmp_path / name, 30_000) for name in ("first", "second", "stays")]
    offers = [await published(await laptop.bt.publish(source)) for source in sources]
    told = [await bob.expect_offer(number) for number in (1, 2, 3)]
    if kept:
        await until(lambda: not any(offer._content.loaded for offer in offers))
    sources[0].unlink()
    await until(lambda: bob.told("bt_offer_end") == told[:1])
    assert isinstance(offers[0].error, SourceChanged)
    if kept:
        assert not any(offer._content.loaded for offer in offers)
        await laptop.bt.aclose()
        await laptop.xmpp.disconnect()
        await member(server, f"{alice.jid.bare}/renamed", tmp_path / "laptop", **settings)
    sources[1].write_bytes(b"something else")
    await until(lambda: bob.told("bt_offer_end") == told[:2])
    assert await listed(bob, alice, 1) == told[2:]


async def test_receiver_that_comes_back_goes_on(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    alice.bt.configure(upload_limit=50_000)
    state = {"state_dir": tmp_path / "state", "auto_accept": False}
    phone = await member(server, f"{bob.jid.bare}/other", tmp_path / "phone", **state)
    sources = [make_file(tmp_path / name, 700_000) for name in ("asked", "fetched", "gone")]
    for number, source in enumerate(sources):
        await alice.bt.publish(source)
        await phone.expect_offer(number + 1)
    gone = next(o for o in alice.bt.offers if o.name == "gone" and isinstance(o, OutgoingOffer))
    fetched = await phone.told("bt_offer")[1].accept()
    await until(lambda: fetched.progress.transferred)
    await phone.bt.aclose()
    await phone.xmpp.disconnect()
    await gone.withdraw()
    await until(lambda: not gone.is_published)
    alice.bt.configure(upload_limit=None)
    again = await member(server, f"{bob.jid.bare}/renamed", tmp_path / "phone", **state)
    transfer = await again.expect("bt_transfer_start")
    await done(transfer)
    assert digest(again.inbox / "fetched") == digest(sources[1])
    await until(lambda: {o.name for o in again.told("bt_offer_end")} == {"gone"})
    [asked] = [o for o in again.told("bt_offer") if o.name == "asked"]
    await done(await asked.accept())
    assert digest(again.inbox / "asked") == digest(sources[0])


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures, printed at the end; nothing is asserted about them."""
    figures: dict[str, Any] = {}
    yield figures
    print(f"\n{request.node.name}: {json.dumps(figures)}")


@asynccontextmanager
async def small(name: str, pep_items: int) -> AsyncIterator[Server]:
    """A server of its own, whose nodes hold so many items."""
    if name == "loopback":
        async with Loopback(pep_items) as server:
            yield server
        return
    kind = Prosody if name == "prosody" else Ejabberd
    running = ExitStack()
    process = await asyncio.to_thread(running.enter_context, started(kind(Options(pep_items=pep_items))))
    try:
        async with Process(process) as server:
            yield server
    finally:
        await asyncio.to_thread(running.close)


KINDS = ["loopback", *(pytest.param(name, marks=pytest.mark.server) for name in ("prosody", "ejabberd"))]


@pytest.mark.parametrize("kind", KINDS)
async def test_full_node_is_told_before_the_oldest_falls_out(kind: str, tmp_path: Path) -> None:
    async with small(kind, 10) as server:
        alice, bob = await pair(server, tmp_path, auto_accept=False)
        source = make_file(tmp_path / "file", 10)
        offers = [await alice.bt.publish(source) for _ in range(10)]  # they need not be there yet
        with pytest.raises(LimitExceeded, match="keeps 10"):
            await alice.bt.publish(source)
        for offer in offers:
            await published(offer)
        assert {offer.id for offer in await listed(bob, alice, 10)} == {offer.id for offer in offers}
        await offers[3].withdraw()
        await until(lambda: not offers[3].is_published)
        await published(await alice.bt.publish(source))
        await listed(bob, alice, 10)


SIZES = [pytest.param(30, 3, id="30"), pytest.param(500, 20, id="500", marks=pytest.mark.acceptance)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "fetched"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
async def test_large_catalogue(kind: str, count: int, fetched: int, tmp_path: Path, report: dict[str, Any]) -> None:
    """A new contact sees all, fetches some, is told of the next at once, and of those that are withdrawn."""
    async with small(kind, count + 1) as server:
        alice, bob = await pair(server, tmp_path, auto_accept=False)
        begun = time.monotonic()
        offers = [await alice.bt.publish(make_file(tmp_path / "files" / f"{n}", 6_000, n)) for n in range(count)]
        async with asyncio.timeout(300):
            while len(bob.told("bt_offer")) < count:
                await asyncio.sleep(0.05)
        report["published in s"] = time.monotonic() - begun
        new = await member(server, bob.jid.bare + "/new", tmp_path / "new")
        begun = time.monotonic()
        found = await listed(new, alice, count, patience=60)
        report["listed in s"] = time.monotonic() - begun
        assert {offer.id for offer in found} == {offer.id for offer in offers}
        await asyncio.gather(*[(await offer.accept()).wait() for offer in found[:fetched]])
        assert len(list(new.inbox.iterdir())) == fetched
        told = len(new.told("bt_offer"))
        extra = await alice.bt.publish(make_file(tmp_path / "files" / "extra", 6_000))
        assert (await new.expect_offer(told + 1)).id == extra.id
        with pytest.raises(LimitExceeded):
            await alice.bt.publish(make_file(tmp_path / "files" / "one too many", 6_000))
        for offer in offers[-5:]:
            await offer.withdraw()
        gone = {offer.id for offer in offers[-5:]}
        await until(lambda: gone <= {offer.id for offer in new.told("bt_offer_end")})
        assert len(await listed(new, alice, count - 4, patience=60)) == count - 4
