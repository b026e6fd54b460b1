"""Rooms (XEP-0045): the service that keeps them."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from slixmpp import JID

from .disco import INFO, ITEMS, info, items
from .markup import IQ, PRESENCE
from .muc_admin import ADMIN, OWNER, answer_admin, answer_owner
from .muc_room import MUC, Room, RoomConfig
from .routing import Router
from .stanzas import StanzaError, kind, result, sender

_MAX_ROOMS = 1_000
_FEATURES = (MUC, "urn:xmpp:occupant-id:0")


class Rooms:
    """A :class:`~.routing.Host`: the rooms of one domain. Who first enters a room that is not there makes it."""

    def __init__(self, name: str, router: Router) -> None:
        self.name = name
        self.rooms: dict[str, Room] = {}
        self._router = router
        router.hosts[name] = self

    def create(self, address: str, config: RoomConfig, owner: str | None = None) -> Room:
        """A new room.

        :raises StanzaError: conflict: there is one; resource-constraint: there are too many.
        """
        if address in self.rooms:
            raise StanzaError("conflict", "the room exists")
        if len(self.rooms) >= _MAX_ROOMS:
            raise StanzaError("resource-constraint")
        room = self.rooms[address] = Room(address, config, self._router.route)
        if owner is not None:
            room.affiliations[owner] = "owner"
        return room

    def empty(self) -> None:
        """Everybody is gone, without a word: the server has restarted."""
        for room in list(self.rooms.values()):
            room.occupants.clear()
            self._tidy(room)

    def handle(self, stanza: Element, to: JID) -> None:
        """:raises StanzaError: nobody takes it."""
        if not to.local:
            self._service(stanza)
            return
        room = self.rooms.get(to.bare)
        if room is None:
            room = self._made_for(stanza, to)
            if room is None:
                return
        if stanza.tag == PRESENCE:
            room.presence(stanza, to)
        elif stanza.tag != IQ:
            room.message(stanza, to)
        elif to.resource:
            room.iq(stanza, to)
        else:
            self._room_request(room, stanza)
        self._tidy(room)

    def _made_for(self, stanza: Element, to: JID) -> Room | None:
        if stanza.tag == PRESENCE and kind(stanza) is None:
            if not to.resource:
                raise StanzaError("jid-malformed", "a nick is missing")
            return self.create(to.bare, RoomConfig(), sender(stanza).bare)
        if stanza.tag == PRESENCE:
            return None
        raise StanzaError("item-not-found", "there is no such room")

    def _tidy(self, room: Room) -> None:
        if not room.occupants and not room.config.persistent:
            self.rooms.pop(room.address, None)

    def _service(self, stanza: Element) -> None:
        if stanza.tag == PRESENCE or kind(stanza) in ("result", "error"):
            return
        tag = stanza[0].tag if stanza.tag == IQ and len(stanza) else ""
        if tag == f"{INFO}query":
            answer = info([("conference", "text", "Rooms")], _FEATURES)
        elif tag == f"{ITEMS}query":
            answer = items((room.address, None, room.config.name) for room in self.rooms.values())
        else:
            raise StanzaError("service-unavailable")
        self._router.route(result(stanza, answer))

    def _room_request(self, room: Room, stanza: Element) -> None:
        if kind(stanza) not in ("get", "set"):
            return
        tag = stanza[0].tag if len(stanza) == 1 else ""
        answer: Element | None = None
        if tag == f"{INFO}query":
            answer = info([("conference", "text", room.config.name)], (*_FEATURES, *room.config.features()))
        elif tag == f"{ITEMS}query":
            answer = items((f"{room.address}/{nick}", None, None) for nick in room.occupants)
        elif tag == f"{ADMIN}query":
            answer = answer_admin(room, stanza)
        elif tag == f"{OWNER}query":
            answer = answer_owner(room, stanza)
            if answer is not None and answer.tag == f"{OWNER}destroy":
                self.rooms.pop(room.address, None)
                answer = None
        elif tag != "{urn:xmpp:ping}ping":
            raise StanzaError("service-unavailable")
        self._router.route(result(stanza, *([] if answer is None else [answer])))
