"""Receivers that have everything admit others in the place of a sender that is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt import Mode, OutgoingOffer, Route, State, Transfer
from slixmpp_bt.constants import NS
from slixmpp_bt.content import Content
from slixmpp_bt.messages import Accept, Delegate, Fetch, Here, Meta, Request
from slixmpp_bt.sealing import Authority
from slixmpp_bt.seals import utc
from slixmpp_bt.state import SavedDelegation

from .security.raw import Raw, anonymous, condition, raw
from .servers import Loopback, Server
from .test_persistence import Person
from .test_rooms_offers import HIDDEN, SHOWN, Overheard, Room
from .world import PATIENCE, Member, digest, done, make_file, until, visible

SIZE = 300_000


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


class Three:
    """Alice, and Bob with two devices: the phone takes what comes at once, and serves it on; the tablet when told."""

    def __init__(self, server: Loopback, home: Path, a: Any, b: Any) -> None:
        self.server, self.home, self.account = server, home, b
        self.source = home / "file"
        self.alice = Person(server, a, home / "alice")
        self.phone = Person(server, b, home / "phone", auto_accept=True, seed_after=600)
        self.tablet = Person(server, b, home / "tablet")

    async def start(self, **config: Any) -> tuple[Member, Member, Member]:
        alice = await self.alice.start("laptop", **config)
        return alice, await self.phone.start("phone", **config), await self.tablet.start("tablet", **config)

    async def fetched(self, size: int = SIZE, *, mode: Mode = Mode.SEALED, delegate: bool = True, **config: Any) -> Any:
        """Alice has offered a file, which the phone has and the tablet does not; what the tablet was offered."""
        alice, phone, tablet = await self.start(**config)
        make_file(self.source, size)
        await alice.bt.offer(self.account, self.source, mode=mode, delegate=delegate)
        incoming = await tablet.expect_offer()
        transfer: Transfer = await phone.expect("bt_transfer_end")
        assert transfer.complete
        await until(lambda: not phone.bt._context.outbox.waiting)  # Alice has answered: whatever she gives is there
        return incoming

    async def stop(self) -> None:
        for person in (self.alice, self.phone, self.tablet):
            if hasattr(person, "one"):
                await person.stop()


@pytest.fixture
async def three(loopback: Loopback, tmp_path: Path) -> AsyncIterator[Three]:
    a, b = await loopback.add_user("alice"), await loopback.add_user("bob")
    await loopback.subscribe(a, b)
    party = Three(loopback, tmp_path, a, b)
    yield party
    await party.stop()


def own(one: Member) -> list[OutgoingOffer]:
    """Its own offers."""
    return [offer for offer in one.bt.offers if isinstance(offer, OutgoingOffer)]


def admits(one: Member) -> set[str]:
    """The ids of the offers that it serves in the place of others."""
    return set(one.bt._exchange.delegation.offers)


async def kept(one: Member) -> list[SavedDelegation]:
    return await one.bt._context.state.load(SavedDelegation)


# Another device


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("route", "size"), [(Route.INLINE, 3_000), (Route.SWARM, SIZE), (Route.RELAY, SIZE), (Route.IN_BAND, 60_000)]
)
async def test_device_fetches_from_another_one_when_the_sender_is_gone(
    three: Three, mode: Mode, route: Route, size: int
) -> None:
    incoming = await three.fetched(size, mode=mode, routes=[route])
    await three.alice.crash()
    phone, tablet = three.phone.one, three.tablet.one
    transfer = await incoming.accept()
    [path] = await done(transfer)
    assert digest(path) == digest(three.source)
    assert (transfer.peer, transfer.routes) == (phone.jid, {route: size})
    assert admits(phone) == {incoming.id}
    # It is nobody's own offer, and no transfer of the user's.
    assert (*phone.bt.offers, *phone.bt.transfers) == ()
    assert [name for name, data in phone.events if not data.incoming] == []
    assert tablet.leftovers() == phone.leftovers() == []


async def test_manifest_that_fits_no_offer_is_fetched_from_a_delegate(three: Three) -> None:
    tree = three.home / "tree"
    for number in range(120):
        make_file(tree / f"a file with a long name, and a number in it, which is {number}", 40)
    three.source = tree
    alice, phone, tablet = await three.start()
    await alice.bt.offer(three.account, tree, delegate=True)
    incoming = await tablet.expect_offer()
    assert incoming.message.info is None
    await phone.expect("bt_transfer_end")
    await until(lambda: admits(phone))
    await three.alice.crash()
    [path] = await done(await incoming.accept())
    assert digest(path) == digest(tree)


async def test_own_device_fetches_from_another_one_when_the_one_that_offered_is_gone(three: Three) -> None:
    laptop = Person(three.server, three.account, three.home / "laptop")
    one, phone, tablet = await laptop.start("laptop"), *(await three.start())[1:]
    make_file(three.source, SIZE)
    await visible(one, phone)
    await visible(one, tablet)
    await one.bt.offer(three.account, three.source, delegate=True)
    incoming = await tablet.expect_offer()
    await phone.expect("bt_transfer_end")
    await until(lambda: admits(phone))
    await laptop.crash()
    transfer = await incoming.accept()
    [path] = await done(transfer)
    assert digest(path) == digest(three.source)
    assert transfer.peer == phone.jid


async def test_catalogue_item_is_fetched_from_another_device_when_the_publisher_is_gone(three: Three) -> None:
    alice, phone, tablet = await three.start()
    make_file(three.source, SIZE)
    await alice.bt.publish(three.source, delegate=True)
    incoming = await tablet.expect_offer()
    await phone.expect("bt_transfer_end")
    await until(lambda: admits(phone))
    await three.alice.crash()
    [path] = await done(await incoming.accept())
    assert digest(path) == digest(three.source)


async def test_catalogue_item_that_is_retracted_is_served_no_longer(three: Three) -> None:
    alice, phone, _ = await three.start()
    make_file(three.source, SIZE)
    offer = await alice.bt.publish(three.source, delegate=True)
    await phone.expect("bt_transfer_end")
    await until(lambda: admits(phone) == {offer.id})
    await offer.withdraw()
    await until(lambda: not admits(phone))
    assert await kept(phone) == []


async def test_transfer_that_lost_the_sender_in_the_middle_goes_on_at_a_delegate(three: Three) -> None:
    incoming = await three.fetched(1_500_000)
    three.alice.one.bt.configure(upload_limit=100_000)
    three.phone.one.bt.configure(upload_limit=1)
    transfer = await incoming.accept()
    await until(lambda: transfer.progress.transferred > 0)
    await three.alice.crash()
    three.phone.one.bt.configure(upload_limit=None)
    # It may notice only after 10 s that nothing comes any more.
    path = await transfer.wait()
    assert digest(path) == digest(three.source)
    assert transfer.peer in (three.phone.one.jid, three.alice.one.jid)


async def test_delegate_serves_by_the_settings_that_it_has_now(three: Three) -> None:
    incoming = await three.fetched(60_000)
    await three.alice.crash()
    three.phone.one.bt.configure(routes=["in-band"])
    transfer = await incoming.accept()
    [path] = await done(transfer)
    assert digest(path) == digest(three.source)
    assert transfer.routes == {Route.IN_BAND: 60_000}


async def test_delegate_that_was_restarted_goes_on(three: Three) -> None:
    incoming = await three.fetched()
    [terms] = await kept(three.phone.one)
    assert (terms.offer, terms.granted) == (incoming.id, True)
    await three.alice.crash()
    await three.phone.stop()
    transfer = await incoming.accept()
    await until(lambda: transfer.state is State.WAITING)
    phone = await three.phone.start("phone again")
    [path] = await done(transfer)
    assert digest(path) == digest(three.source)
    assert transfer.peer == phone.jid
    assert phone.bt.offers == ()


async def test_key_goes_with_the_seed_that_it_is_for(three: Three) -> None:
    await three.fetched()
    assert b"PRIVATE KEY" in ((await kept(three.phone.one))[0].authority_key or b"")
    await three.phone.stop()
    phone = await three.phone.start("phone", later=601)
    async with asyncio.timeout(PATIENCE):
        while await kept(phone):
            await asyncio.sleep(0.01)
    assert admits(phone) == set()


async def test_sender_that_is_back_is_asked_again_and_told_of_the_end(three: Three) -> None:
    incoming = await three.fetched(1_500_000)
    await three.alice.crash()
    three.phone.one.bt.configure(upload_limit=50_000)
    transfer = await incoming.accept()
    await until(lambda: transfer.progress.transferred > 0)
    assert transfer.peer == three.phone.one.jid
    alice = await three.alice.start("laptop")
    await until(lambda: transfer.peer == alice.jid)
    path = await transfer.wait()
    assert digest(path) == digest(three.source)
    [offer] = own(alice)
    await until(lambda: [t.complete for t in offer.transfers] == [True])


async def test_sender_may_end_what_a_delegate_serves(three: Three) -> None:
    incoming = await three.fetched(1_500_000)
    await three.alice.crash()
    three.phone.one.bt.configure(upload_limit=50_000)
    transfer = await incoming.accept()
    await until(lambda: transfer.progress.transferred > 0)
    assert transfer.peer == three.phone.one.jid
    alice = await three.alice.start("elsewhere", presence=False)
    [offer] = own(alice)
    await offer.withdraw()
    await until(lambda: transfer.ended)
    assert transfer.state is State.CANCELLED


async def test_withdrawn_offer_is_served_no_longer_and_its_key_forgotten(three: Three) -> None:
    incoming = await three.fetched()
    [offer] = own(three.alice.one)
    assert admits(three.phone.one) == {incoming.id}
    await offer.withdraw()
    await until(lambda: not admits(three.phone.one))
    assert await kept(three.phone.one) == []


async def test_file_that_was_changed_after_it_was_received_is_not_served(three: Three) -> None:
    incoming = await three.fetched()
    await three.alice.crash()
    (three.phone.one.inbox / "file").write_bytes(bytes(SIZE))
    transfer = await incoming.accept()
    await until(lambda: not admits(three.phone.one))
    await until(lambda: transfer.state is State.WAITING)
    assert transfer.error is None
    assert transfer.progress.transferred == 0


# Who is not let


@pytest.mark.parametrize("mode", list(Mode))
async def test_offer_that_is_not_delegated_gives_nothing_away(three: Three, mode: Mode) -> None:
    alice, phone, tablet = await three.start()
    everything = Overheard(phone).everything
    make_file(three.source, SIZE)
    await alice.bt.offer(three.account, three.source, mode=mode)
    incoming = await tablet.expect_offer()
    await phone.expect("bt_transfer_end")
    await until(lambda: not phone.bt._context.outbox.waiting)
    assert any(NS in stanza and "<accepted" in stanza for stanza in everything)  # and it is no deaf one
    assert not any("<delegate" in stanza or "delegate=" in stanza or "<key" in stanza for stanza in everything)
    assert await kept(phone) == []
    await three.alice.crash()
    everything.clear()
    transfer = await incoming.accept()
    await until(lambda: transfer.state is State.WAITING and not transfer._queue and transfer._doing is None)
    assert not any("<seek" in stanza for stanza in everything)
    assert admits(phone) == set()
    await three.alice.start("laptop")
    [path] = await done(transfer)
    assert digest(path) == digest(three.source)


@pytest.mark.parametrize("how", ["some of it", "leaves"])
async def test_receiver_of_a_part_and_one_that_leaves_admit_nobody(three: Three, how: str) -> None:
    alice = await three.alice.start("laptop")
    phone = await three.phone.start("phone", auto_accept=False, seed_after=0 if how == "leaves" else 600)
    for name in ("one", "two"):
        make_file(three.home / "tree" / name, 50_000)
    await alice.bt.offer(three.account, three.home / "tree", delegate=True)
    everything = Overheard(phone).everything
    incoming = await phone.expect_offer()
    transfer = await incoming.accept(select=incoming.files[:1] if how == "some of it" else None)
    await done(transfer)
    await until(lambda: not phone.bt._context.outbox.waiting)
    assert not any("<delegate" in stanza for stanza in everything)
    assert admits(phone) == set()


async def test_key_of_another_offer_is_refused(
    three: Three, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong(self: Content) -> Authority:
        return Authority.make(utc(1.8e9))

    monkeypatch.setattr(Content, "authority", wrong)
    with caplog.at_level(logging.WARNING, "slixmpp_bt"):
        await three.fetched()
    assert admits(three.phone.one) == set()
    [terms] = await kept(three.phone.one)
    assert (terms.granted, terms.authority_key) == (False, None)
    assert "the key is not that of the certificate authority" in caplog.text
    assert "PRIVATE KEY" not in caplog.text


async def test_leave_from_somebody_else_than_the_sender_counts_for_nothing(three: Three) -> None:
    alice, phone, _ = await three.start()
    make_file(three.source, SIZE)
    await alice.bt.offer(three.account, three.source, mode=Mode.PRIVATE)
    transfer: Transfer = await phone.expect("bt_transfer_end")
    await transfer.released()
    stranger = await raw(three.server, await three.server.add_user("eve"))
    message = Delegate(transfer.offer.id, str(transfer.id))
    unknown = await stranger.ask(phone.jid, Delegate("unknown", "unknown"))
    answer = await stranger.ask(phone.jid, message)
    assert condition(answer) == "item-not-found"
    assert anonymous(answer) == anonymous(unknown)
    # The sender itself, of an offer that was not to be delegated.
    await until(lambda: not phone.bt._context.outbox.waiting)
    with pytest.raises(Exception, match="no such offer"):
        await alice.bt._context.wire.request(message, phone.jid, sender=alice.jid)
    assert admits(phone) == set()


ALL = frozenset(Route)


async def answers(one: Raw, to: Any, id: str, transfer: str) -> list[Any]:
    """What somebody is answered who wants an offer."""
    requests: tuple[Request, ...] = (
        Accept(id, transfer, routes=ALL, inline=5_000),
        Meta(id, transfer, 0, 100),
        Fetch(id, transfer, "s-1", Route.IN_BAND, blocks=((0, 0),)),
    )
    kinds = ("set", "get", "set")
    return [await one.ask(to, request, kind=kind) for request, kind in zip(requests, kinds, strict=True)]


async def test_stranger_is_answered_by_a_delegate_as_about_an_unknown_offer(three: Three) -> None:
    incoming = await three.fetched()
    phone = three.phone.one
    transfer = phone.told("bt_transfer_end")[0]
    alice = await raw(three.server, f"{three.alice.one.jid.bare}/elsewhere")
    for one in (alice, await raw(three.server, await three.server.add_user("eve"))):
        for id in ("t-1", transfer.id):
            known = await answers(one, phone.jid, incoming.id, id)
            unknown = await answers(one, phone.jid, "unknown", id)
            assert [condition(answer) for answer in known] == ["item-not-found"] * 3
            assert list(map(anonymous, known)) == list(map(anonymous, unknown))
    other = await raw(three.server, f"{three.account}/watch")
    assert condition((await answers(other, phone.jid, incoming.id, "t-1"))[0]) != "item-not-found"


# Rooms


@pytest.fixture
def room(server: Server, tmp_path: Path) -> Room:
    return Room(server, tmp_path)


async def in_room(room: Room, tmp_path: Path, config: dict[str, str]) -> tuple[Member, Member, Member]:
    """Alice, who is gone, has offered a file in a room; Bob has it and serves it on, and Carol was offered it."""
    state = {"state_dir": tmp_path / "state"}  # without it who leaves says that the offer is void
    alice = await room.make("alice", config={**config, "persistentroom": "1"}, **state)
    bob = await room.enter("bob", auto_accept=True, seed_after=600)
    carol = await room.enter("carol")
    await alice.bt.offer(room.jid, make_file(tmp_path / "file", SIZE), mtype="groupchat", delegate=True)
    await carol.expect_offer()
    assert (await bob.expect("bt_transfer_end")).complete
    await until(lambda: admits(bob))
    await room.stop("alice")
    return alice, bob, carol


@pytest.mark.parametrize("config", [HIDDEN, SHOWN], ids=["hidden", "shown"])
async def test_occupant_fetches_from_another_one_when_the_sender_is_gone(
    room: Room, tmp_path: Path, config: dict[str, str]
) -> None:
    _, bob, carol = await in_room(room, tmp_path, config)
    transfer = await carol.told("bt_offer")[0].accept()
    [path] = await done(transfer)
    assert digest(path) == digest(tmp_path / "file")
    assert transfer.peer == room.at("bob")
    assert (*bob.bt.offers, *bob.bt.transfers) == ()


@pytest.mark.parametrize("config", [HIDDEN, SHOWN], ids=["hidden", "shown"])
async def test_sender_that_comes_back_to_the_room_makes_no_other_offer_of_it(
    room: Room, tmp_path: Path, config: dict[str, str]
) -> None:
    alice = await room.make("alice", config={**config, "persistentroom": "1"})
    bob = await room.enter("bob")
    source = make_file(tmp_path / "file", SIZE)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat", delegate=True)
    incoming = await bob.expect_offer()
    await room.leave("alice")
    assert incoming.alive
    assert bob.told("bt_offer_end") == []
    await room.let_in(alice, "alice again")
    transfer = await incoming.accept()
    [path] = await done(transfer)
    assert digest(path) == digest(source)
    assert transfer.peer == room.at("alice again")
    assert bob.told("bt_offer") == [incoming]
    await until(lambda: [t.complete for t in offer.transfers] == [True])


async def test_who_is_in_another_room_or_has_left_is_answered_as_about_an_unknown_offer(
    room: Room, tmp_path: Path
) -> None:
    _, bob, carol = await in_room(room, tmp_path, HIDDEN)
    [id] = admits(bob)
    other = Room(room.server, tmp_path)
    dave = await other.make("dave")
    await other.let_in(bob, "bob")
    strange = Accept(id, "t-1", routes=ALL)
    for one, to in ((dave, other.at("bob")), (dave, bob.jid)):
        with pytest.raises(Exception, match="no such offer"):
            await one.bt._context.wire.request(strange, to, sender=one.jid)
    await room.leave("carol")
    with pytest.raises(Exception, match="no such offer"):
        await carol.bt._context.wire.request(strange, bob.jid, sender=carol.jid)


async def test_here_from_another_room_counts_for_nothing(room: Room, tmp_path: Path) -> None:
    _, bob, carol = await in_room(room, tmp_path, HIDDEN)
    [id] = admits(bob)
    await room.leave("bob")
    transfer = await carol.told("bt_offer")[0].accept()
    await until(lambda: transfer.state is State.WAITING)
    other = Room(room.server, tmp_path)
    dave = await other.make("dave")
    await other.let_in(carol, "carol")
    with pytest.raises(Exception, match="no such offer"):
        await dave.bt._context.wire.request(Here(id), other.at("carol"), sender=dave.jid)
    now = carol.bt._context.now
    carol.bt._context.now = lambda: now() + 60  # who comes is not asked more often than twice a minute
    await room.let_in(bob, "bob")
    [path] = await done(transfer)
    assert digest(path) == digest(tmp_path / "file")
