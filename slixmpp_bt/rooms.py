"""Who is who in the rooms (XEP-0045) that this side has joined.

A nick is nobody's for long, so an occupant is told by something that lasts: the id that the room gives (XEP-0421), or
the real JID where the room shows it. Where it does neither, all that is known is the stay: who leaves, and whoever
comes under the same nick, are two.

What an occupant says of itself counts for nothing. That the room gives ids is known from this side's own presence: it
sends none, so one that comes back is the room's, and so are then all others (XEP-0421 section 4 has rooms replace what
occupants put there).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from slixmpp import JID, BaseXMPP, Message, Presence
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp.xmlstream.stanzabase import StanzaBase

from .policy import occupant_of
from .stanza import sightings
from .stanza.sightings import Sighting

#: So many occupants of one room are known; more than any server lets in.
_MAX_OCCUPANTS = 10_000
#: The server's clock and this one differ by less than this, in seconds.
_CLOCKS = 600.0


@dataclass(frozen=True, slots=True)
class Occupant:
    """Somebody in a room.

    :ivar jid: the room's JID with the nick; the room's alone while the occupant is not there.
    :ivar owner: tells this occupant from all others, of any room (:func:`slixmpp_bt.policy.occupant_of`).
    :ivar real: the real bare JID, if the room shows it.
    """

    jid: JID
    owner: str
    real: JID | None = None

    @property
    def room(self) -> JID:
        """The room's JID."""
        return JID(self.jid.bare)


class Watcher(Protocol):
    """Is told what happens in the rooms that this side is in; of others than itself only."""

    def came(self, owner: str, jid: JID) -> None:
        """An occupant is there now, or was when this side came."""

    def left(self, owner: str, jid: JID) -> None:
        """An occupant, or this side, has left: whoever has this nick from now on may be somebody else."""

    def renamed(self, owner: str, old: JID, new: JID) -> None:
        """An occupant has changed the nick."""

    def moved(self, room: JID) -> None:
        """This side has changed its own nick: what is on its way to the old one is lost."""


@dataclass(slots=True)
class _Seen:
    real: JID | None
    id: str | None
    since: float
    stay: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    #: Decided when this side is in, and then the same until the end of the stay.
    owner: str = ""


@dataclass(slots=True)
class _Room:
    jid: JID
    seen: dict[str, _Seen] = field(default_factory=dict)
    #: This side's nick; None until it is in.
    nick: str | None = None
    #: This side's occupant id; None where the room gives none.
    own_id: str | None = None
    #: What there was when this side asked to be let in, in case that it was in already and is refused.
    before: _Room | None = None

    def at(self, nick: str) -> JID:
        return JID(f"{self.jid}/{nick}")

    def others(self) -> Iterator[tuple[JID, _Seen]]:
        return ((self.at(nick), seen) for nick, seen in tuple(self.seen.items()) if nick != self.nick)

    def owner(self, seen: _Seen) -> str:
        id = seen.id if self.own_id is not None else None
        return occupant_of(self.jid, id=id, real=seen.real, stay=seen.stay)


class Book:
    """The rooms of one client, or of all JIDs that a component speaks as: the book-keeping, without a stream.

    Rooms are told apart by the bare JID that has joined them, too.

    :param watcher: asked for whenever there is something to tell.
    """

    def __init__(self, watcher: Callable[[], Watcher | None], *, now: Callable[[], float] = time.time) -> None:
        self._watcher = watcher
        self._now = now
        self._rooms: dict[tuple[str, str], _Room] = {}
        #: JIDs that are rooms', whether this side is in or not.
        self._known: set[str] = set()
        self._changed = asyncio.Event()

    # what is asked

    def is_room(self, jid: JID) -> bool:
        """Whether `jid` is a room's, or an occupant's of one, as far as is known."""
        return jid.bare in self._known

    def joined(self, room: JID, local: JID) -> bool:
        """Whether `local` is in `room`."""
        return self._joined(room, local) is not None

    async def entered(self, room: JID, local: JID) -> None:
        """Return once `local` is in `room`; at once if it is."""
        while not self.joined(room, local):
            await self._changed.wait()

    def gives_ids(self, room: JID, local: JID) -> bool:
        """Whether the room gives occupant ids, so that its history tells who said what."""
        found = self._joined(room, local)
        return found is not None and found.own_id is not None

    def occupant(self, jid: JID, local: JID) -> Occupant | None:
        """Who is at `jid` now; None if nobody is, or it is this side itself."""
        room = self._joined(jid, local)
        seen = room.seen.get(jid.resource) if room is not None else None
        if room is None or seen is None or jid.resource == room.nick:
            return None
        return Occupant(jid, seen.owner, seen.real)

    def occupants(self) -> list[tuple[str, JID]]:
        """All others that are there: who, and where."""
        joined = (room for room in self._rooms.values() if room.nick is not None)
        return [(seen.owner, jid) for room in joined for jid, seen in room.others()]

    def absent(self, jid: JID, local: JID) -> bool:
        """Whether nobody is there to whom a stanza to `jid` could go: what goes to a room itself reaches the room."""
        return self.is_room(jid) and self.occupant(jid, local) is None

    def speaker(self, message: Message, local: JID, *, archived: bool = False) -> Occupant | None:
        """Who has said something in a room that `local` is in, or there to this side alone; None if that cannot be
        told, or it was this side itself.

        :param archived: the message does not come from the stream, so that it may be old without saying so.
        """
        jid = JID(message["from"])
        room = self._joined(jid, local)
        if room is None or not jid.resource or jid.resource == room.nick:
            return None
        old = archived or sightings.was_delayed(message)
        id = sightings.occupant_id(message.xml) if room.own_id is not None else None
        if id is not None:
            return self._by_id(room, id, jid)
        seen = room.seen.get(jid.resource)
        if seen is None or (old and not self._was_there(seen, message)):
            return None
        return Occupant(jid, seen.owner, seen.real)

    def _by_id(self, room: _Room, id: str, said_as: JID) -> Occupant | None:
        there = {jid: seen for jid, seen in room.others() if seen.id == id}
        if not there:
            owner = occupant_of(room.jid, id=id)
            return None if id == room.own_id else Occupant(room.jid, owner)
        jid = said_as if said_as in there else next(iter(there))
        return Occupant(jid, there[jid].owner, there[jid].real)

    def _was_there(self, seen: _Seen, message: Message) -> bool:
        """Whether an occupant was there when a delayed message was said."""
        said = sightings.said_at(message)
        return said is not None and said.timestamp() > seen.since + _CLOCKS

    def _joined(self, jid: JID, local: JID) -> _Room | None:
        room = self._rooms.get((local.bare, jid.bare))
        return room if room is not None and room.nick is not None else None

    # what happens

    def know(self, rooms: Iterable[JID]) -> None:
        """These are the JIDs of rooms: of an earlier run, say."""
        self._known.update(room.bare for room in rooms)

    def enter(self, room: JID, local: JID) -> None:
        """`local` asks to be let in. If it was in, what happens meanwhile is not seen, so that all stays end."""
        self.know([room])
        before = self._joined(room, local)
        if before is not None:
            self._leave(before)
        self._rooms[local.bare, room.bare] = _Room(JID(room.bare), before=before)

    def refused(self, room: JID, local: JID) -> None:
        """The room does not let `local` in (again)."""
        found = self._rooms.get((local.bare, room.bare))
        if found is None or found.nick is not None:
            return
        del self._rooms[local.bare, room.bare]
        if found.before is not None:
            self._rooms[local.bare, room.bare] = found.before
            self._welcome(found.before)

    def see(self, what: Sighting, room: JID, local: JID) -> None:
        """The room says something of an occupant. What a room says that `local` did not ask to be let into is
        ignored."""
        found = self._rooms.get((local.bare, room.bare))
        if found is None:
            return
        if not what.here:
            self._see_leave(what, found, local)
        elif what.nick in found.seen:
            self._see_again(what, found)
        elif len(found.seen) < _MAX_OCCUPANTS:
            self._see_come(what, found)
        if what.here and what.own and found.nick is None:
            found.nick, found.own_id, found.before = what.nick, what.id, None
            self._welcome(found)

    def clear(self) -> None:
        """The session is over, and with it this side's stay in every room."""
        rooms, self._rooms = self._rooms, {}
        for room in rooms.values():
            if room.nick is not None:
                self._leave(room)

    def _see_come(self, what: Sighting, room: _Room) -> None:
        seen = room.seen[what.nick] = _Seen(what.real, what.id, self._now())
        if room.nick is not None and what.nick != room.nick:
            seen.owner = room.owner(seen)
            self._came(seen, room.at(what.nick))

    def _see_again(self, what: Sighting, room: _Room) -> None:
        seen = room.seen[what.nick]
        if room.own_id is not None and what.id is not None and what.id != seen.id and what.nick != room.nick:
            # Somebody else has the nick, and that the first one left was missed.
            self._drop(what.nick, room)
            self._see_come(what, room)
        else:
            seen.real = what.real

    def _see_leave(self, what: Sighting, room: _Room, local: JID) -> None:
        is_self = what.own or what.nick == room.nick
        if what.new_nick is not None and what.nick in room.seen:
            self._see_rename(what.nick, what.new_nick, room)
        elif is_self and room.nick is not None:
            del self._rooms[local.bare, room.jid.bare]
            self._leave(room)
        else:
            self._drop(what.nick, room)

    def _see_rename(self, old: str, new: str, room: _Room) -> None:
        if new in room.seen and new != old:
            self._drop(new, room)
        seen = room.seen[new] = room.seen.pop(old)
        is_self, is_in, watcher = old == room.nick, room.nick is not None, self._watcher()
        room.nick = new if is_self else room.nick
        if watcher is not None and is_self:
            watcher.moved(room.jid)
        elif watcher is not None and is_in:
            watcher.renamed(seen.owner, room.at(old), room.at(new))

    def _drop(self, nick: str, room: _Room) -> None:
        seen = room.seen.pop(nick, None)
        if seen is not None and room.nick is not None:
            self._left(seen, room.at(nick))

    def _welcome(self, room: _Room) -> None:
        """This side is in: from now on it is known who is who."""
        for seen in room.seen.values():
            seen.owner = room.owner(seen)
        for jid, seen in room.others():
            self._came(seen, jid)
        self._changed.set()
        self._changed = asyncio.Event()

    def _leave(self, room: _Room) -> None:
        for jid, seen in room.others():
            self._left(seen, jid)
            seen.stay = secrets.token_urlsafe(12)

    def _came(self, seen: _Seen, jid: JID) -> None:
        if (watcher := self._watcher()) is not None:
            watcher.came(seen.owner, jid)

    def _left(self, seen: _Seen, jid: JID) -> None:
        if (watcher := self._watcher()) is not None:
            watcher.left(seen.owner, jid)


class Rooms(Book):
    """The book of one client or component, kept by what passes its stream."""

    def __init__(self, xmpp: BaseXMPP, watcher: Callable[[], Watcher | None]) -> None:
        super().__init__(watcher)
        self._xmpp = xmpp

    def attach(self) -> None:
        """Begin to listen."""
        self._xmpp.register_handler(
            Callback("BT occupants", MatchXPath(f"{{{self._xmpp.default_ns}}}presence"), self._take)
        )
        self._xmpp.add_filter("out", self._look)
        if self._xmpp.session_bind_event.is_set():
            self._take_over()

    def detach(self) -> None:
        """Undo :meth:`attach`."""
        self._xmpp.remove_handler("BT occupants")
        self._xmpp.del_filter("out", self._look)

    def _take(self, presence: StanzaBase) -> None:
        assert isinstance(presence, Presence)
        room = JID(presence["from"])
        if not self.is_room(room):
            return
        local = self._local(presence["to"])
        if presence.xml.get("type") == "error":
            self.refused(room, local)
        elif (what := sightings.sighting(presence)) is not None:
            self.see(what, room, local)

    def _look(self, stanza: StanzaBase) -> StanzaBase:
        """A filter of slixmpp, for what leaves. It must not raise."""
        if isinstance(stanza, Presence) and sightings.enters(stanza) and stanza["to"].resource:
            self.enter(JID(stanza["to"]), self._local(stanza["from"]))
        return stanza

    def _take_over(self) -> None:
        """This plugin was registered in the middle of a session: slixmpp's own knows where the client is, but no
        occupant ids."""
        muc: Any = self._xmpp.plugin.get("xep_0045", None)
        for local, rooms in (muc.rooms if muc is not None else {}).items():
            own = self._local(local or "")
            for room, occupants in rooms.items():
                self.enter(JID(room), own)
                nick = muc.our_nicks[local].get(room)
                for each in sorted(occupants, key=lambda each: each == nick):
                    real = occupants[each].get("jid") or None
                    real = JID(real.bare) if isinstance(real, JID) and real.bare else None
                    self.see(Sighting(each, True, each == nick, real), JID(room), own)

    def _local(self, jid: JID | str) -> JID:
        jid = JID(jid)
        return jid if jid.bare else JID(self._xmpp.boundjid)
