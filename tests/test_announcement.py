"""To whom an offer's stanza goes, and what comes of it when some come back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest
from slixmpp import JID

from slixmpp_bt.announcement import Announcement
from slixmpp_bt.constants import Mode
from slixmpp_bt.errors import PeerGone
from slixmpp_bt.messages import Message, Offer, Withdraw
from slixmpp_bt.wire import Wire

PHONE, LAPTOP, TABLET = (JID(f"bob@b.example/{name}") for name in ("phone", "laptop", "tablet"))
ALICE = JID("alice@a.example/desk")
ROOM = JID("den@rooms.example")


class Recorder:
    """A wire that keeps what is sent, and fails for some."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, JID]] = []
        self.deaf: set[JID] = set()
        self.inside = asyncio.Event()

    async def online(self) -> None:
        pass

    async def entered(self, room: JID, *, sender: JID) -> None:
        assert sender == ALICE
        await self.inside.wait()

    async def send(self, message: Message, to: JID, *, sender: JID, mtype: str) -> str:
        assert (sender, mtype) == (ALICE, "groupchat" if to == ROOM else "chat")
        if to in self.deaf:
            raise PeerGone("there is no session")
        self.sent.append((message, to))
        return f"id {len(self.sent)}"


def an_offer() -> Offer:
    return Offer("o-1", Mode.PRIVATE, datetime(2030, 1, 1, tzinfo=UTC), "a file", 1, bytes(32), 1, b"x")


def announcement(wire: Recorder, *targets: JID) -> Announcement:
    return Announcement(cast(Wire, wire), targets, local=ALICE, mtype="chat")


async def test_every_device_is_told_once_and_hears_of_the_withdrawal() -> None:
    wire, offer = Recorder(), an_offer()
    announced = announcement(wire, PHONE, LAPTOP, PHONE)
    assert not announced.made
    await announced.make(offer)
    await announced.extend(offer, TABLET)
    await announced.extend(offer, PHONE)
    await announced.withdraw(offer.id)
    devices = (PHONE, LAPTOP, TABLET)
    assert wire.sent == [(offer, d) for d in devices] + [(Withdraw("o-1"), d) for d in devices]


async def test_offer_is_lost_when_the_last_of_its_stanzas_comes_back() -> None:
    wire = Recorder()
    announced = announcement(wire, PHONE, LAPTOP)
    await announced.make(an_offer())
    assert not announced.bounced("id 7", PHONE)
    assert not announced.bounced("id 1", JID("carol@c.example/phone"))
    assert not announced.bounced("id 1", PHONE)
    assert announced.bounced("id 2", LAPTOP)
    assert not announced.made
    await announced.withdraw("o-1")
    assert all(isinstance(message, Offer) for message, _ in wire.sent)


async def test_device_that_cannot_be_told_later_harms_nothing() -> None:
    wire = Recorder()
    announced = announcement(wire, PHONE)
    await announced.make(an_offer())
    wire.deaf = {TABLET}
    await announced.extend(an_offer(), TABLET)
    assert announced.made


async def test_offer_that_reaches_nobody_raises() -> None:
    wire = Recorder()
    wire.deaf = {PHONE}
    with pytest.raises(PeerGone):
        await announcement(wire, PHONE).make(an_offer())


async def test_room_is_told_once_this_side_is_in_and_newcomers_one_by_one() -> None:
    wire, offer, carol = Recorder(), an_offer(), JID(f"{ROOM}/carol")
    announcement = Announcement(cast(Wire, wire), [ROOM], local=ALICE, mtype="groupchat")
    making = asyncio.ensure_future(announcement.make(offer))
    await asyncio.sleep(0)
    assert wire.sent == []
    wire.inside.set()
    await making
    assert wire.sent == [(offer, ROOM)]
    for _ in range(2):
        await announcement.extend(offer, carol)
    assert wire.sent[1:] == [(offer, carol)]
    # A nick lasts for a stay, and not for longer than this run.
    assert [target for target, _ in announcement.told] == [ROOM]
    announcement.forget(carol)
    assert not announcement.reached(carol)
    await announcement.extend(offer, carol)
    await announcement.withdraw("o-1")
    assert [to for _, to in wire.sent[2:]] == [carol, ROOM, carol]
    assert not announcement.bounced("id 3", carol)
    assert not announcement.bounced("id 1", carol)
    assert announcement.bounced("id 1", ROOM)
