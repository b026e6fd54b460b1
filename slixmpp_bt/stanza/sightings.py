"""What rooms say of who is in them: presence (XEP-0045 section 7), occupant ids (XEP-0421), delays (XEP-0203)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from xml.etree.ElementTree import Element

from slixmpp import JID
from slixmpp.jid import InvalidJID
from slixmpp.stanza import Message, Presence

from ..errors import ProtocolError
from .values import instant

_MUC = "{http://jabber.org/protocol/muc}"
_USER = "{http://jabber.org/protocol/muc#user}"
_OCCUPANT_ID = "{urn:xmpp:occupant-id:0}occupant-id"
_DELAY = "{urn:xmpp:delay}delay"
#: At most so many characters of an occupant id; a longer one is as good as none.
_MAX_OCCUPANT_ID = 256


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a room says of one occupant.

    :ivar nick: under which name.
    :ivar here: whether the occupant is in the room.
    :ivar own: whether it is this side itself (status 110).
    :ivar real: the real JID, if the room shows it.
    :ivar id: the occupant id; whether the room or the occupant has put it there is not known.
    :ivar new_nick: where `here` is false because the occupant changes the nick (status 303): the new one.
    """

    nick: str
    here: bool
    own: bool = False
    real: JID | None = None
    id: str | None = None
    new_nick: str | None = None


def sighting(presence: Presence) -> Sighting | None:
    """What a presence stanza says of an occupant; None for errors, and where it comes from nobody in a room."""
    xml, nick = presence.xml, presence["from"].resource
    x = xml.find(f"{_USER}x")
    if x is None or not nick or xml.get("type") not in (None, "unavailable"):
        return None
    here = xml.get("type") is None
    codes = {status.get("code") for status in x.iterfind(f"{_USER}status")}
    item = x.find(f"{_USER}item")
    shown = "" if item is None else item.get("jid", "")
    renamed = not here and "303" in codes and item is not None
    new_nick = _nick(item.get("nick", ""), presence["from"].bare) if renamed and item is not None else None
    return Sighting(nick, here, "110" in codes, _jid(shown), occupant_id(xml), new_nick)


def enters(presence: Presence) -> bool:
    """Whether a presence stanza of this side asks to be let into a room."""
    return presence.xml.get("type") is None and presence.xml.find(f"{_MUC}x") is not None


def from_a_room(stanza: Presence | Message) -> bool:
    """Whether a room has marked a stanza as one of its occupants'."""
    return stanza.xml.find(f"{_USER}x") is not None


def occupant_id(xml: Element) -> str | None:
    """The occupant id in a stanza; None if there is none that can be one."""
    found = xml.findall(_OCCUPANT_ID)
    id = found[0].get("id", "") if len(found) == 1 else ""
    return id if 0 < len(id) <= _MAX_OCCUPANT_ID else None


def was_delayed(message: Message) -> bool:
    """Whether a message was said some time ago: history, or an offline store."""
    return message.xml.find(_DELAY) is not None


def said_at(message: Message) -> datetime | None:
    """When a delayed message was said; None if it does not say, or not in a way that can be read."""
    stamps = [delay.get("stamp", "") for delay in message.xml.iterfind(_DELAY)]
    try:
        return min(map(instant, stamps), default=None)
    except ProtocolError:
        return None


def _jid(text: str) -> JID | None:
    try:
        return JID(JID(text).bare) if text else None
    except InvalidJID:
        return None


def _nick(text: str, room: str) -> str | None:
    """A nick as the resource of an address has it."""
    try:
        return str(JID(f"{room}/{text}").resource) or None
    except InvalidJID:
        return None
