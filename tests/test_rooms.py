"""Who is who in rooms: the book-keeping, fed by hand and by chance; and what passes a real stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import slixmpp
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.policy import is_known_by_id, lasts, occupant_of
from slixmpp_bt.rooms import Book, Rooms
from slixmpp_bt.stanza.sightings import Sighting
from slixmpp_bt.testing import LoopbackServer

from .testing_tools import PATIENCE

ROOM, OTHER = JID("garden@rooms.example"), JID("orchard@rooms.example")
LOCAL, SECOND = JID("romeo@montague.example/x"), JID("benvolio@montague.example/x")
JULIET = JID("juliet@capulet.example")
DELAYED = "<delay xmlns='urn:xmpp:delay' stamp='{}'/>"


@dataclass
class Told:
    """Who is where, as a watcher is told."""

    there: dict[str, str] = field(default_factory=dict)
    moves: list[JID] = field(default_factory=list)

    def came(self, owner: str, jid: JID) -> None:
        assert jid.full not in self.there
        self.there[jid.full] = owner

    def left(self, owner: str, jid: JID) -> None:
        assert self.there.pop(jid.full) == owner

    def renamed(self, owner: str, old: JID, new: JID) -> None:
        assert self.there.pop(old.full) == owner
        assert new.full not in self.there
        self.there[new.full] = owner

    def moved(self, room: JID) -> None:
        self.moves.append(room)


class Scene:
    """A book with one room, which gives ids or does not."""

    def __init__(self, *, ids: bool = True, now: float = 1_800_000_000.0) -> None:
        self.told = Told()
        self.now = now
        self.ids = ids
        self.book = Book(lambda: self.told, now=lambda: self.now)

    def enter(self, *others: str, nick: str = "me") -> Scene:
        self.book.enter(ROOM, LOCAL)
        for other in others:
            self.see(other)
        self.see(nick, own=True)
        return self

    def see(self, nick: str, here: bool = True, *, id: str | None = None, **what: Any) -> None:
        id = id or (f"id of {nick}" if self.ids else None)
        self.book.see(Sighting(nick, here, id=id, **what), ROOM, LOCAL)

    def owner(self, nick: str) -> str | None:
        found = self.book.occupant(JID(f"{ROOM}/{nick}"), LOCAL)
        return None if found is None else found.owner

    def said(self, nick: str, *, id: str | None = None, delay: str | None = None, archived: bool = False) -> Any:
        """Who the book says has said something."""
        message = slixmpp.Message()
        message["from"], message["type"] = JID(f"{ROOM}/{nick}"), "groupchat"
        if id is not None:
            message.xml.append(fromstring(f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{id}'/>"))
        if delay is not None:
            message.xml.append(fromstring(DELAYED.format(delay)))
        return self.book.speaker(message, LOCAL, archived=archived)


# Who is there


def test_room_that_was_not_asked_for_is_none() -> None:
    scene = Scene()
    scene.see("juliet")
    scene.see("me", own=True)
    assert not scene.book.joined(ROOM, LOCAL)
    assert not scene.book.is_room(ROOM)
    assert scene.told.there == {}


def test_occupants_are_told_of_once_this_side_is_in() -> None:
    scene = Scene()
    scene.book.enter(ROOM, LOCAL)
    scene.see("juliet")
    assert scene.owner("juliet") is None
    assert scene.told.there == {}
    scene.see("me", own=True)
    assert scene.told.there == {f"{ROOM}/juliet": occupant_of(ROOM, id="id of juliet")}
    assert scene.owner("me") is None
    assert not scene.book.joined(ROOM, SECOND)
    assert scene.book.absent(ROOM, LOCAL)
    assert scene.book.absent(JID(f"{ROOM}/nobody"), LOCAL)
    assert not scene.book.absent(JID(f"{ROOM}/juliet"), LOCAL)
    assert not scene.book.absent(JULIET, LOCAL)


def test_ids_that_the_room_does_not_give_count_for_nothing() -> None:
    scene = Scene(ids=False)
    scene.book.enter(ROOM, LOCAL)
    scene.see("juliet", id="mine, I say")
    scene.see("me", own=True)
    owner = scene.owner("juliet")
    assert owner is not None
    assert not lasts(owner)
    assert not scene.book.gives_ids(ROOM, LOCAL)
    assert scene.said("juliet", id="of somebody else").owner == owner


def test_real_jid_that_is_shown_lasts_where_there_are_no_ids() -> None:
    scene = Scene(ids=False)
    scene.book.enter(ROOM, LOCAL)
    scene.see("juliet", real=JULIET)
    scene.see("me", own=True)
    assert scene.owner("juliet") == occupant_of(ROOM, real=JULIET)
    scene.see("juliet")  # not shown any more: still the same stay
    assert scene.owner("juliet") == occupant_of(ROOM, real=JULIET)
    occupant = scene.book.occupant(JID(f"{ROOM}/juliet"), LOCAL)
    assert occupant is not None
    assert occupant.real is None


def test_nick_that_was_left_and_taken_is_somebody_else() -> None:
    for ids in (True, False):
        scene = Scene(ids=ids).enter("juliet")
        first = scene.owner("juliet")
        scene.see("juliet", here=False)
        assert scene.owner("juliet") is None
        scene.see("juliet", id="id of mallory" if ids else None)
        assert scene.owner("juliet") not in (None, first)


def test_leave_that_was_missed_shows_by_the_id() -> None:
    scene = Scene().enter("juliet")
    first = scene.owner("juliet")
    scene.see("juliet", id="id of mallory")
    assert scene.owner("juliet") == occupant_of(ROOM, id="id of mallory") != first


def test_change_of_nick_keeps_who_it_is() -> None:
    for ids in (True, False):
        scene = Scene(ids=ids).enter("juliet")
        first = scene.owner("juliet")
        scene.see("juliet", here=False, new_nick="jule")
        scene.see("jule", id="id of juliet" if ids else None)
        assert scene.owner("juliet") is None
        assert scene.owner("jule") == first
        assert list(scene.told.there) == [f"{ROOM}/jule"]


def test_own_change_of_nick_is_told_and_no_occupants() -> None:
    scene = Scene().enter("juliet")
    scene.see("me", here=False, own=True, new_nick="I")
    scene.see("I", own=True, id="id of me")
    assert scene.told.moves == [ROOM]
    assert scene.owner("I") is None
    assert list(scene.told.there) == [f"{ROOM}/juliet"]
    scene.see("me", id="id of mallory")
    assert scene.owner("me") is not None


@pytest.mark.parametrize("how", ["leave", "session", "again"])
def test_all_stays_end_with_this_sides_own(how: str) -> None:
    for ids in (True, False):
        scene = Scene(ids=ids).enter("juliet")
        first = scene.owner("juliet")
        if how == "leave":
            scene.see("me", here=False, own=True)
        elif how == "session":
            scene.book.clear()
        else:
            scene.book.enter(ROOM, LOCAL)
        assert scene.told.there == {}
        assert not scene.book.joined(ROOM, LOCAL)
        assert scene.book.is_room(ROOM)
        assert scene.book.absent(JID(f"{ROOM}/juliet"), LOCAL)
        scene.enter("juliet")
        assert (scene.owner("juliet") == first) is ids


def test_who_is_refused_while_in_is_in_as_before() -> None:
    scene = Scene().enter("juliet")
    scene.book.enter(ROOM, LOCAL)
    scene.book.refused(ROOM, LOCAL)
    assert scene.book.joined(ROOM, LOCAL)
    assert list(scene.told.there) == [f"{ROOM}/juliet"]
    scene.book.refused(ROOM, LOCAL)
    assert scene.book.joined(ROOM, LOCAL)
    scene.book.enter(OTHER, LOCAL)
    scene.book.refused(OTHER, LOCAL)
    assert not scene.book.joined(OTHER, LOCAL)


async def test_entered_returns_when_this_side_is_in() -> None:
    scene = Scene()
    waiting = asyncio.ensure_future(scene.book.entered(ROOM, LOCAL))
    scene.book.enter(ROOM, LOCAL)
    scene.see("juliet")
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.see("me", own=True)
    await asyncio.wait_for(waiting, PATIENCE)
    await scene.book.entered(ROOM, LOCAL)


# Who said it


def test_speaker_of_what_is_said_now_is_who_has_the_nick() -> None:
    for ids in (True, False):
        scene = Scene(ids=ids).enter("juliet")
        assert scene.said("juliet").owner == scene.owner("juliet")
        assert scene.said("me") is None
        assert scene.said("nobody") is None


def test_speaker_in_the_history_is_told_by_the_id_alone() -> None:
    scene = Scene().enter("juliet", "nurse")
    past = "2026-01-01T00:00:00Z"
    assert scene.said("jule", id="id of juliet", delay=past).jid == JID(f"{ROOM}/juliet")
    gone = scene.said("juliet", id="id of tybalt", delay=past)
    assert (gone.jid, gone.owner, gone.room) == (ROOM, occupant_of(ROOM, id="id of tybalt"), ROOM)
    assert scene.said("juliet", id="id of me", delay=past) is None
    assert scene.said("juliet", delay=past) is None


def test_speaker_with_two_devices_is_the_one_whose_nick_it_is() -> None:
    scene = Scene().enter()
    for nick in ("juliet", "juliet at home"):
        scene.see(nick, id="id of juliet")
    for nick in ("juliet", "juliet at home"):
        assert scene.said(nick, id="id of juliet").jid == JID(f"{ROOM}/{nick}")
    assert scene.said("before", id="id of juliet").jid.bare == ROOM


def test_speaker_in_a_history_without_ids_must_have_been_there_all_the_time() -> None:
    scene = Scene(ids=False, now=1_800_000_000.0).enter("juliet")  # 2027-01-15T08:00:00Z
    for stamp in ("2027-01-15T07:00:00Z", "2027-01-15T08:05:00Z", "yesterday"):
        assert scene.said("juliet", delay=stamp) is None
    assert scene.said("juliet", delay="2027-01-15T09:00:00Z").owner == scene.owner("juliet")
    assert scene.said("juliet", archived=True) is None


# By chance


class Theatre:
    """A room as it is, beside what the book makes of what the room says."""

    def __init__(self, ids: bool) -> None:
        self.scene = Scene(ids=ids)
        self.ids = ids
        #: Who has a nick; and who was seen to be behind an owner.
        self.there: dict[str, int] = {}
        self.stays: dict[str, int] = {}
        self.stay = 0
        self.behind: dict[str, int] = {}
        self.scene.enter()

    def step(self, what: str, person: int, nick: str, missed: bool) -> None:
        mine = next((name for name, who in self.there.items() if who == person), None)
        if what == "come" and mine is None and nick not in self.there:
            self.there[nick] = person
            self.stay += 1
            self.stays[nick] = self.stay
            self._say(nick)
        elif what == "leave" and mine is not None:
            del self.there[mine]
            if not (missed and self.ids):  # without ids nothing may be missed
                self.scene.see(mine, here=False, id=self._id(person))
        elif what == "rename" and mine is not None and nick not in self.there:
            self.there[nick] = self.there.pop(mine)
            self.stays[nick] = self.stays.pop(mine)
            self.scene.see(mine, here=False, id=self._id(person), new_nick=nick)
            self._say(nick)
        elif what == "say" and mine is not None:
            self._say(mine)
        elif what == "again":
            self.scene.book.enter(ROOM, LOCAL)
            for name in self.there:
                self._say(name)
                self.stay += 1
                self.stays[name] = self.stay
            self.scene.see("me", own=True)

    def check(self) -> None:
        for nick, person in self.there.items():
            owner = self.scene.owner(nick)
            assert owner is not None
            assert self.scene.told.there[f"{ROOM}/{nick}"] == owner
            assert self.behind.setdefault(owner, self._who(nick, person)) == self._who(nick, person)

    def _who(self, nick: str, person: int) -> int:
        return person if self.ids else self.stays[nick]

    def _say(self, nick: str) -> None:
        self.scene.see(nick, id=self._id(self.there[nick]))

    def _id(self, person: int) -> str | None:
        return f"person {person}" if self.ids else None


steps = st.tuples(
    st.sampled_from(["come", "come", "leave", "rename", "say", "again"]), st.integers(0, 3), st.sampled_from("abcd"),
    st.booleans(),
)  # fmt: skip


@given(st.booleans(), st.lists(steps, max_size=40))
def test_whatever_happens_no_owner_is_ever_two(ids: bool, script: list[tuple[str, int, str, bool]]) -> None:
    theatre = Theatre(ids)
    for step in script:
        theatre.step(*step)
        theatre.check()


def test_owner_of_an_occupant_is_no_accounts() -> None:
    owners = [occupant_of(ROOM, id="x"), occupant_of(ROOM, real=JULIET), occupant_of(ROOM, stay="x")]
    assert len(set(owners)) == 3
    assert all(" " in owner for owner in owners)  # as no bare JID can have
    assert [lasts(owner) for owner in owners] == [True, True, False]
    assert [is_known_by_id(owner) for owner in owners] == [True, False, False]
    tricky = occupant_of(ROOM, id="stay:1 id:2")
    assert lasts(tricky)
    assert lasts(JULIET.bare)
    assert not is_known_by_id(JULIET.bare)


# By a stream


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(users={"alice": "x", "bob": "x", "eve": "x"}) as one:
        yield one


async def guest(server: LoopbackServer, name: str, *, book: bool = True) -> tuple[slixmpp.ClientXMPP, Rooms, Told]:
    client = server.client(name)
    told = Told()
    rooms = Rooms(client, lambda: told)
    if book:
        rooms.attach()
    client.register_plugin("xep_0045")
    await server.connect(client)
    return client, rooms, told


async def join(client: slixmpp.ClientXMPP, room: str, nick: str) -> None:
    await client.plugin["xep_0045"].join_muc_wait(JID(room), nick, timeout=PATIENCE)


async def test_stream_tells_who_is_who(server: LoopbackServer) -> None:
    room = server.create_room("den", anonymous=False)
    alice, book, told = await guest(server, "alice")
    bob, _, _ = await guest(server, "bob")
    await join(bob, room, "Bob ☃")
    await join(alice, room, "alice")
    occupant = book.occupant(JID(f"{room}/Bob ☃"), alice.boundjid)
    assert occupant is not None
    assert (occupant.real, is_known_by_id(occupant.owner)) == (JID("bob@localhost"), True)
    assert told.there == {f"{room}/Bob ☃": occupant.owner}
    book.detach()


async def test_forged_presence_of_a_stranger_makes_no_room(server: LoopbackServer) -> None:
    alice, book, told = await guest(server, "alice")
    eve, _, _ = await guest(server, "eve")
    x = "<x xmlns='http://jabber.org/protocol/muc#user'><item role='participant'/><status code='110'/></x>"
    seen = asyncio.Event()
    alice.add_event_handler("groupchat_presence", lambda _: seen.set())
    eve.send_raw(f"<presence to='{alice.boundjid}'>{x}</presence>")
    await asyncio.wait_for(seen.wait(), PATIENCE)
    assert not book.is_room(eve.boundjid)
    assert told.there == {}


@pytest.mark.parametrize("ids", [True, False])
async def test_book_that_begins_late_knows_who_is_there(server: LoopbackServer, ids: bool) -> None:
    room = server.create_room("den", occupant_ids=ids)
    alice, book, told = await guest(server, "alice", book=False)
    bob, _, _ = await guest(server, "bob")
    await join(bob, room, "bob")
    await join(alice, room, "alice")
    book.attach()
    assert book.joined(JID(room), alice.boundjid)
    assert list(told.there) == [f"{room}/bob"]
    # slixmpp does not keep the ids, so the stay is all that is known.
    assert not lasts(told.there[f"{room}/bob"])
    book.detach()
