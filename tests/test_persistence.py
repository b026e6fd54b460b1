"""What outlasts a restart: clients that close, or die at some moment, and come back with the same state."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from slixmpp import Message
from slixmpp.xmlstream.stanzabase import StanzaBase

from slixmpp_bt import (
    Cancelled,
    Declined,
    LimitExceeded,
    Route,
    SourceChanged,
    State,
    StorageError,
    Transfer,
    manifest,
    outbox,
    registry,
)
from slixmpp_bt.backends.checkpoint import encode
from slixmpp_bt.constants import NS
from slixmpp_bt.content import Content
from slixmpp_bt.state import SavedCheckpoint, SavedDetails, SavedDownload, SavedOffer
from slixmpp_bt.state import State as SavedState

from .servers import Loopback
from .world import Member, digest, make_file, until, visible

SIZE = 3_000_000
#: Bytes per second at which there is time to do something in the middle.
SLOW = 1_500_000
#: Seconds until a test gives up: a receiver may notice only after 10 that nothing comes any more, and asks every 5.
PATIENCE = 40.0


class Person:
    """An account with one device, whose client starts and ends while its directories stay."""

    def __init__(self, server: Loopback, account: Any, home: Path, **config: Any) -> None:
        self._server = server
        self._account = account
        self._home = home
        self._config = config
        self._copy = home.with_name(f"copy of {home.name}")
        self.friends = False
        self.one: Member

    async def start(
        self, resource: str = "device", *, presence: bool = True, later: float = 0.0, **config: Any
    ) -> Member:
        """A new client with what the last one left, so many seconds `later`. Returns once that is taken up."""
        self.one = Member(self._server.client(f"{self._account}/{resource}"), self._home)
        self.one.register(**{"state_dir": self._home / "state", **self._config, **config})
        self.one.bt._context.now = lambda: time.time() + later
        await self._server.connect(self.one.xmpp, presence=presence)
        await self.one.bt.restored()
        return self.one

    async def another(self, resource: str) -> Member:
        """One more client beside the first, on the same state."""
        first = self.one
        second = await self.start(resource)
        self.one = first
        return second

    async def befriend(self, other: Person) -> None:
        """Let the two see each other's presence."""
        await self._server.subscribe(self._account, other._account)
        self.friends = other.friends = True

    async def stop(self) -> None:
        """Close everything in good order."""
        await self.one.bt.aclose()
        await self.one.xmpp.disconnect()

    async def crash(self) -> None:
        """End as by a kill at this moment: nothing that happens from now on is kept."""
        await self.one.bt._context.state.aclose()
        await self.stop()

    async def die_and_copy(self) -> None:
        """Die, and keep a copy of everything as it was at that moment."""
        await self.crash()
        shutil.copytree(self._home, self._copy)

    async def put_back(self) -> None:
        """Have everything as it was when the copy was made."""
        shutil.rmtree(self._home)
        shutil.copytree(self._copy, self._home)

    @property
    def database(self) -> Path:
        [path] = (self._home / "state").glob("*.db")
        return path


class Two:
    """A sender and a receiver who see each other's presence."""

    def __init__(self, alice: Person, bob: Person, home: Path) -> None:
        self.alice, self.bob, self.home = alice, bob, home

    async def start(self, **receiver: Any) -> tuple[Member, Member]:
        alice, bob = await self.alice.start(), await self.bob.start(**{"auto_accept": True, **receiver})
        if self.alice.friends:
            await visible(alice, bob)
        return alice, bob

    def file(self, size: int = SIZE, name: str = "file") -> Path:
        return make_file(self.home / name, size)

    async def running(self, **receiver: Any) -> tuple[Path, Transfer, Transfer]:
        """A transfer of which a part is there: its source, the sender's side, the receiver's."""
        alice, bob = await self.start(**receiver)
        alice.bt.configure(upload_limit=SLOW)
        source = self.file()
        sending = await alice.bt.send_file(bob.jid if not self.alice.friends else bob.jid.bare, source)
        receiving: Transfer = await bob.expect("bt_transfer_start")
        await until(lambda: receiving.progress.transferred > 300_000)
        return source, sending, receiving


@pytest.fixture
async def strangers(tmp_path: Path) -> AsyncIterator[Two]:
    """Two who do not see each other's presence."""
    async with Loopback() as server:
        a, b = await server.add_user("alice"), await server.add_user("bob")
        yield Two(Person(server, a, tmp_path / "alice"), Person(server, b, tmp_path / "bob"), tmp_path)


@pytest.fixture
async def two(strangers: Two) -> Two:
    """Two who do."""
    await strangers.alice.befriend(strangers.bob)
    return strangers


def fast(*members: Member) -> None:
    """Lift the cap."""
    for one in members:
        one.bt.configure(upload_limit=None)


async def over(*transfers: Transfer) -> list[Path]:
    """Wait for the end of all."""
    async with asyncio.timeout(PATIENCE):
        return [await transfer.wait() for transfer in transfers]


async def resumed(one: Member) -> Transfer:
    """The one transfer that a client has after its start."""
    await until(lambda: one.bt.transfers)
    [transfer] = one.bt.transfers
    return transfer


async def came_true(condition: Any) -> None:
    """As ``until``, for what takes a few retries."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def published(one: Member) -> list[str]:
    return sorted(path.name for path in one.inbox.iterdir())


@pytest.mark.parametrize(("who", "how"), [("alice", "crash"), ("bob", "crash"), ("bob", "stop")])
async def test_transfer_interrupted_by_a_restart_goes_on(two: Two, who: str, how: str) -> None:
    source, sending, receiving = await two.running()
    person = getattr(two, who)
    await getattr(person, how)()
    assert len(two.bob.one.leftovers()) > 0
    one = await person.start(**({"auto_accept": True} if who == "bob" else {}))
    again = await resumed(one)
    assert again.id == receiving.id
    fast(two.alice.one)
    sending, receiving = (again, receiving) if who == "alice" else (sending, again)
    [_, path] = await over(sending, receiving)
    await receiving.released()
    assert digest(path) == digest(source)
    assert published(two.bob.one) == [source.name]
    assert receiving.routes == {Route.SWARM: SIZE}
    assert [two.alice.one.bt.offers, two.bob.one.bt.offers] == [(), ()]


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_side_that_comes_back_under_another_name_is_found(two: Two, who: str) -> None:
    _source, sending, receiving = await two.running()
    person = getattr(two, who)
    await person.stop()
    one = await person.start("elsewhere", **({"auto_accept": True} if who == "bob" else {}))
    again = await resumed(one)
    fast(two.alice.one)
    sending, receiving = (again, receiving) if who == "alice" else (sending, again)
    await over(sending, receiving)
    assert receiving.peer == two.alice.one.jid
    assert sending.peer == two.bob.one.jid


async def test_both_under_other_names_find_each_other_without_presence(strangers: Two) -> None:
    await strangers.running()
    await strangers.alice.stop()
    await strangers.bob.stop()
    receiving = await resumed(await strangers.bob.start("elsewhere", auto_accept=True))
    sending = await resumed(await strangers.alice.start("there"))
    await over(receiving, sending)


async def test_pause_survives_a_restart(two: Two) -> None:
    _, sending, receiving = await two.running()
    await receiving.pause()
    await two.bob.stop()
    bob = await two.bob.start(auto_accept=True)
    again = await resumed(bob)
    assert again.state is State.PAUSED
    fast(two.alice.one)
    await again.resume()
    await over(again, sending)


async def test_pause_of_the_sender_survives_a_restart(two: Two) -> None:
    _, sending, receiving = await two.running()
    await sending.pause()
    await two.alice.stop()
    alice = await two.alice.start()
    again = await resumed(alice)
    assert again.state is State.PAUSED
    await again.resume()
    await over(again, receiving)


async def test_offer_not_accepted_is_valid_after_a_restart(two: Two) -> None:
    alice, bob = await two.start(auto_accept=False)
    await alice.bt.send_file(bob.jid.bare, two.file())
    offer = await bob.expect_offer()
    await two.alice.stop()
    alice = await two.alice.start()
    sending = await resumed(alice)
    assert sending.state is State.OFFERED
    await over(await offer.accept(), sending)


async def test_unanswered_offer_is_told_again(two: Two) -> None:
    alice, bob = await two.start(auto_accept=False)
    sending = await alice.bt.send_file(bob.jid.bare, two.file())
    first = await bob.expect_offer()
    await two.bob.stop()
    bob = await two.bob.start()
    offer = await bob.expect_offer()
    assert (offer.id, offer.name, offer.size, offer.files) == (first.id, "file", SIZE, first.files)
    await over(await offer.accept(), sending)


async def test_expired_offer_is_not_told_again(two: Two) -> None:
    alice, bob = await two.start(auto_accept=False)
    await alice.bt.send_file(bob.jid.bare, two.file(), expires=3600)
    await bob.expect_offer()
    await two.bob.stop()
    await two.alice.stop()
    bob, alice = await two.bob.start(later=5000), await two.alice.start(later=5000)
    assert bob.bt.offers == ()
    assert bob.told("bt_offer") == []
    await alice.expect("bt_transfer_end")
    assert alice.bt.offers == ()


async def test_choice_of_files_survives_a_restart(two: Two) -> None:
    alice, bob = await two.start(auto_accept=False)
    for name in ("one", "two", "three"):
        make_file(two.home / "folder" / name, 400_000)
    alice.bt.configure(upload_limit=200_000)
    await alice.bt.send_file(bob.jid.bare, two.home / "folder")
    offer = await bob.expect_offer()
    await offer.accept(select=[file for file in offer.files if file.path.name != "two"])
    for _ in range(2):  # the second time it was never opened before
        await two.bob.crash()
        bob = await two.bob.start()
    receiving = await resumed(bob)
    fast(alice)
    [path] = await over(receiving)
    assert digest(path).keys() == {"one", "three"}


async def test_file_offered_again_is_not_hashed_again(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    hashing: Any = manifest
    original = hashing.hash_files

    async def hash_files(sources: Any, *arguments: Any) -> list[bytes]:
        hashed.extend(source.path for source in sources)
        result: list[bytes] = await original(sources, *arguments)
        return result

    monkeypatch.setattr(manifest, "hash_files", hash_files)
    source = two.file()
    alice, bob = await two.start()
    await over(await alice.bt.send_file(bob.jid.bare, source))
    assert len(hashed) == 1
    await two.alice.stop()
    alice = await two.alice.start()
    await visible(alice, bob)
    await over(await alice.bt.send_file(bob.jid.bare, source))
    assert len(hashed) == 1


@pytest.mark.parametrize("seen", [True, False])
async def test_completion_is_told_after_the_senders_absence(
    strangers: Two, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_SWEEP", 0.2)
    monkeypatch.setattr(outbox, "_SEEK_FIRST", 0.2)
    two = strangers
    if seen:
        await two.alice.befriend(two.bob)
    _, _, receiving = await two.running()
    fast(two.alice.one)
    two.alice.one.xmpp.add_filter("in", lambda stanza: None if _is_end(stanza) else stanza)
    await over(receiving)
    await two.alice.stop()
    await two.bob.stop()
    bob = await two.bob.start()
    assert bob.bt._context.outbox.waiting
    alice = await two.alice.start("elsewhere")
    sending = await resumed(alice)
    await over(sending)
    await came_true(lambda: not bob.bt._context.outbox.waiting)


def _is_end(stanza: Any) -> bool:
    return stanza.xml.find(f"{{{NS}}}end") is not None


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_cancelling_is_told_after_the_others_absence(two: Two, who: str) -> None:
    _, sending, receiving = await two.running()
    away, here = (two.alice, receiving) if who == "alice" else (two.bob, sending)
    await away.stop()
    await here.cancel("no more")
    one = await away.start("elsewhere")
    end: Transfer = await one.expect("bt_transfer_end")
    with pytest.raises(Cancelled, match="no more"):
        await end.wait()
    await end.released()
    assert two.bob.one.leftovers() == []


async def test_cancelling_is_told_without_presence(strangers: Two) -> None:
    _, sending, _ = await strangers.running()
    await strangers.bob.stop()
    await sending.cancel("no more")
    await strangers.alice.stop()
    await strangers.alice.start("elsewhere")
    bob = await strangers.bob.start("elsewhere")
    end: Transfer = await bob.expect("bt_transfer_end")
    with pytest.raises(Cancelled, match="no more"):
        await end.wait()


async def test_declining_is_told_after_the_senders_absence(two: Two) -> None:
    alice, bob = await two.start(auto_accept=False)
    await alice.bt.send_file(bob.jid.bare, two.file())
    offer = await bob.expect_offer()
    await two.alice.stop()
    await offer.decline("not now")
    await two.bob.stop()
    await two.bob.start()
    alice = await two.alice.start("elsewhere")
    end: Transfer = await alice.expect("bt_transfer_end")
    with pytest.raises(Declined, match="not now"):
        await end.wait()


async def test_withdrawing_is_told_after_the_receivers_absence(two: Two) -> None:
    alice, bob = await two.start(auto_accept=False)
    outgoing = await alice.bt.offer(bob.jid.bare, two.file())
    await bob.expect_offer()
    await two.bob.stop()
    await outgoing.withdraw()
    bob = await two.bob.start()
    await came_true(lambda: bob.bt.offers == ())


@pytest.mark.parametrize("change", ["moved", "deleted", "replaced"])
async def test_accepting_what_changed_in_the_senders_absence_says_so(two: Two, change: str) -> None:
    alice, bob = await two.start(auto_accept=False)
    source = two.file()
    await alice.bt.offer(bob.jid.bare, source)
    offer = await bob.expect_offer()
    await two.alice.stop()
    if change == "moved":
        source.rename(two.home / "elsewhere")
    elif change == "deleted":
        source.unlink()
    else:
        make_file(two.home / "other", SIZE, seed=2).replace(source)
    await two.alice.start()
    with pytest.raises(SourceChanged):
        await over(await offer.accept())


async def test_source_that_changed_meanwhile_ends_the_transfers_of_both_sides(two: Two) -> None:
    source, _, receiving = await two.running()
    await two.alice.stop()
    make_file(source, SIZE, seed=2)
    alice = await two.alice.start()
    sending = await resumed(alice)
    for transfer in (sending, receiving):
        with pytest.raises(SourceChanged):
            await over(transfer)
        await transfer.released()
    assert published(two.bob.one) == []


def harm(parts: list[Path], inbox: Path) -> None:
    """Zero one part file, cut one short, put other content into one, and remove one."""
    zeroed, cut, replaced, removed = parts
    zeroed.write_bytes(bytes(zeroed.stat().st_size))
    os.truncate(cut, cut.stat().st_size // 3)
    make_file(replaced, 1_000_000, seed=7)
    removed.unlink()
    assert all(part.is_relative_to(inbox) for part in parts)


async def test_damaged_part_files_are_noticed_and_fetched_again(two: Two) -> None:
    alice, bob = await two.start()
    alice.bt.configure(upload_limit=SLOW)
    source = two.home / "folder"
    for number in range(4):
        make_file(source / str(number), 1_000_000, seed=number)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    receiving: Transfer = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 1_000_000)
    await two.bob.crash()
    harm(sorted(path for path in bob.inbox.rglob("*") if path.is_file()), bob.inbox)
    bob = await two.bob.start(auto_accept=True)
    fast(alice)
    [path, _] = await over(await resumed(bob), sending)
    assert digest(path) == digest(source)


async def test_damage_that_only_the_end_can_show_is_fetched_again(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    """As after a kill at which the piece layers were not known yet: nothing can be checked until they are."""
    source, sending, _ = await two.running()
    await two.bob.crash()
    bob = two.bob.one
    state = await SavedState.open(two.bob.database.parent, bob.jid)
    [download] = await state.load(SavedDownload)
    assert download.info is not None
    known = manifest.Manifest.parse(download.info, manifest.ManifestLimits(SIZE, 1, 10_000))
    state.save(SavedCheckpoint(download.transfer, encode(known, [0, 1, 2, 3])))
    await state.aclose()
    [part] = [path for path in bob.inbox.rglob("*") if path.is_file()]
    with part.open("r+b") as file:
        file.write(bytes(known.piece_length))
    bob = await two.bob.start(auto_accept=True)
    fast(two.alice.one)
    [path, _] = await over(await resumed(bob), sending)
    assert digest(path) == digest(source)
    assert "part files were changed" in caplog.text


async def test_part_file_that_became_a_link_is_not_written_to(two: Two) -> None:
    await two.running()
    await two.bob.crash()
    [part] = [path for path in two.bob.one.inbox.rglob("*") if path.is_file()]
    part.unlink()
    part.symlink_to(make_file(two.home / "innocent", 1000))
    before = digest(two.home / "innocent")
    bob = await two.bob.start(auto_accept=True)
    with pytest.raises(StorageError):
        await over(await resumed(bob))
    assert digest(two.home / "innocent") == before


async def test_part_files_of_a_transfer_cancelled_before_it_went_on_are_removed(two: Two) -> None:
    await two.running()
    await two.bob.crash()
    await two.alice.stop()
    bob = await two.bob.start(auto_accept=True)
    receiving = await resumed(bob)
    assert bob.leftovers()
    await receiving.cancel()
    assert published(bob) == []


async def test_second_client_on_the_same_state_works_without(
    two: Two, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = await two.start()
    second = await two.alice.another("second")
    assert "going on without persistence" in caplog.text
    assert "in use" in caplog.text
    await visible(second, bob)
    await over(await second.bt.send_file(bob.jid.bare, two.file()))
    assert second.bt._context.state.path is None
    assert alice.bt._context.state.path is not None
    await second.bt.aclose()


async def test_offer_that_was_being_hashed_begins_anew(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = await two.start()
    hashing: Any = manifest
    original, forever = hashing.hash_files, asyncio.Event()

    async def never(*_: Any) -> list[bytes]:
        await forever.wait()
        raise AssertionError

    monkeypatch.setattr(manifest, "hash_files", never)
    source = two.file()
    first = await alice.bt.send_file(bob.jid.bare, source)
    assert first.state is State.PREPARING
    await two.alice.crash()
    monkeypatch.setattr(manifest, "hash_files", original)
    alice = await two.alice.start()
    sending = await resumed(alice)
    await over(sending)
    assert digest(bob.inbox / source.name) == digest(source)


@pytest.mark.parametrize("known", [False, True])
async def test_offer_hashed_but_not_sent_is_sent_later(two: Two, known: bool) -> None:
    """Offered while there was no connection, and closed before there was one."""
    alice, bob = await two.start()
    alice.xmpp.send_presence(ptype="unavailable") if known else None
    alice.bt._connection.session_ended()
    offer = await alice.bt.offer(bob.jid.bare, two.file()) if known else None
    sending = await alice.bt.send_file(bob.jid, two.file()) if offer is None else None
    await until(lambda: (offer or sending.offer).state is State.OFFERED)  # type: ignore[union-attr]
    await two.alice.crash()
    await two.alice.start()
    receiving: Transfer = await bob.expect("bt_transfer_start")
    await over(receiving)


async def test_offer_is_kept_before_anybody_hears_of_it(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a kill in between takes along the key by which its receivers know it."""
    alice, bob = await two.start(auto_accept=False)
    kept = two.home / "as it was when the offer left"
    keep = Content.keep

    def keep_slowly(content: Content, offer: SavedOffer) -> asyncio.Future[None]:
        alice.bt._context.state._post(lambda _: time.sleep(0.3), None)
        return keep(content, offer)

    monkeypatch.setattr(Content, "keep", keep_slowly)

    def copy(stanza: StanzaBase) -> StanzaBase:
        if isinstance(stanza, Message) and b"file-sharing" in ET.tostring(stanza.xml) and not kept.exists():
            shutil.copytree(two.alice.database.parent, kept)
        return stanza

    alice.xmpp.add_filter("out", copy)
    await alice.bt.offer(bob.jid.bare, two.file())
    await bob.expect_offer()
    state = await SavedState.open(kept, alice.jid)
    try:
        [offer], [details] = await state.load(SavedOffer), await state.load(SavedDetails)
        assert (offer.state, details.offer) == (State.OFFERED, offer.id)
    finally:
        await state.aclose()


MOMENTS = ["hashing", "offered", "contact", "running", "paused", "publishing"]


@pytest.mark.parametrize(("moment", "how"), [*((moment, "aclose") for moment in MOMENTS), ("running", "disable")])
async def test_closing_ends_in_bounded_time(two: Two, moment: str, how: str) -> None:
    alice, bob = await two.start(auto_accept=moment not in ("offered", "contact"))
    alice.bt.configure(upload_limit=SLOW if moment != "publishing" else None)
    sending = await alice.bt.send_file(bob.jid.bare, two.file())
    if moment == "contact":
        offer = await bob.expect_offer()
        alice.bt._ready.clear()  # it does not answer any more
        await offer.accept()
    elif moment == "offered":
        await bob.expect_offer()
    elif moment != "hashing":
        receiving: Transfer = await bob.expect("bt_transfer_start")
        await until(lambda: receiving.progress.transferred > 100_000)
        if moment == "paused":
            await sending.pause()
    async with asyncio.timeout(15):
        for one in (alice, bob):
            if how == "disable":
                plugin = one.bt
                one.disable()
                await until(lambda plugin=plugin: plugin._ended)
            await one.bt.aclose() if how == "aclose" else await plugin.aclose()


def _cut(path: Path, chance: random.Random) -> None:
    """Shorten the database, or the log beside it, at random."""
    log_file = path.with_name(f"{path.name}-wal")
    victim = chance.choice([p for p in (path, log_file) if p.exists() and p.stat().st_size])
    os.truncate(victim, chance.randrange(victim.stat().st_size))


CUTS = [pytest.param(4, id="4cuts"), pytest.param(100, id="100cuts", marks=pytest.mark.acceptance)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("cuts", CUTS)
async def test_database_cut_anywhere_never_stops_the_plugin(
    two: Two, cuts: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(cuts)
    source, _, _ = await two.running()
    people = (two.bob, two.alice)
    for person in people:
        await person.die_and_copy()
    for _ in range(cuts):
        for person in people:
            await person.put_back()
        _cut(two.bob.database, chance)
        await two.alice.start()
        bob = await two.bob.start()
        for transfer in bob.bt.transfers:
            [path] = await over(transfer)
            assert digest(path) == digest(source)
        whole = [name for name in published(bob) if not name.startswith(".")]
        assert whole == ([source.name] if bob.told("bt_transfer_end") else [])
        for person in people:
            await person.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_download_beyond_todays_limits_is_left_as_it_is_and_told(two: Two) -> None:
    source, sending, _ = await two.running()
    await two.bob.stop()
    bob = await two.bob.start(limits={"max_size": SIZE - 1})
    left = await bob.bt.restored()
    assert [(offer.name, type(error)) for offer, error in left.items()] == [(source.name, LimitExceeded)]
    assert (bob.bt.offers, bob.bt.transfers) == ((), ())
    await two.bob.stop()
    bob = await two.bob.start()
    assert await bob.bt.restored() == {}
    fast(two.alice.one)
    await over(sending, await resumed(bob))


async def test_client_knows_whether_what_it_has_is_kept(two: Two) -> None:
    await two.alice.start()
    second = await two.alice.another("second")
    third = await two.bob.start(state_dir=None)
    assert [one.bt.persistent for one in (two.alice.one, second, third)] == [True, False, False]
    await second.bt.aclose()


async def test_ends_that_nobody_has_heard_of_are_untold(two: Two) -> None:
    _, sending, receiving = await two.running()
    await two.bob.crash()
    await receiving.released()
    await sending.cancel()
    assert await two.alice.one.bt.untold() == {sending.offer.id}
    await two.bob.start()
    await came_true(lambda: not two.alice.one.bt._context.outbox.waiting)
    assert await two.alice.one.bt.untold() == frozenset()
