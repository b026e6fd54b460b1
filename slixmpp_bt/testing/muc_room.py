"""One room: who is in it, and what they say to all or to one (XEP-0045 sections 7 and 8)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element

from slixmpp import JID

from .markup import CLIENT, MESSAGE, PRESENCE, E, serialise
from .stanzas import BODY, DELAY, StanzaError, copy_for, delayed, kind, now, result, sender

MUC = "http://jabber.org/protocol/muc"
USER = f"{{{MUC}#user}}"
OCCUPANT_ID = "{urn:xmpp:occupant-id:0}occupant-id"
SUBJECT = f"{{{CLIENT}}}subject"
HISTORY = 20
_MAX_OCCUPANTS = 500
_RANK = {"outcast": 0, "none": 1, "member": 2, "admin": 3, "owner": 4}
#: What only the room may say; whoever else does is not repeated.
_OURS = frozenset({f"{{{MUC}}}x", f"{USER}x", OCCUPANT_ID})


@dataclass(slots=True)
class RoomConfig:
    """What a room's owner decides. Anonymous rooms show real JIDs to moderators only; in moderated ones whoever enters
    as nobody special may only listen.

    :ivar occupant_ids: whether the room gives them (XEP-0421), which is the service's to decide. One that does not also
        passes on what occupants put there themselves.
    """

    name: str = ""
    anonymous: bool = True
    persistent: bool = False
    members_only: bool = False
    password: str = ""
    moderated: bool = False
    occupant_ids: bool = True

    def features(self) -> Iterable[str]:
        """The features of XEP-0045 section 15.3 that stand for it."""
        yield "muc_semianonymous" if self.anonymous else "muc_nonanonymous"
        yield "muc_persistent" if self.persistent else "muc_temporary"
        yield "muc_membersonly" if self.members_only else "muc_open"
        yield "muc_passwordprotected" if self.password else "muc_unsecured"
        yield "muc_moderated" if self.moderated else "muc_unmoderated"


@dataclass(slots=True)
class Occupant:
    """Somebody in a room, with the payload of the last presence."""

    nick: str
    jid: JID
    role: str
    payload: list[Element]


class Room:
    """A room. `send` routes a stanza that has its addresses."""

    def __init__(self, address: str, config: RoomConfig, send: Callable[[Element], None]) -> None:
        self.address = address
        self.config = config
        #: By nick.
        self.occupants: dict[str, Occupant] = {}
        #: By bare JID.
        self.affiliations: dict[str, str] = {}
        self._send = send
        self._secret = secrets.token_bytes(16)
        self._history: deque[tuple[datetime, Element]] = deque(maxlen=HISTORY)
        self._subject = E(MESSAGE, {"type": "groupchat", "from": address}, E(SUBJECT))

    # Who is who

    def who(self, address: JID) -> Occupant | None:
        """The occupant with this real full JID."""
        return next((occupant for occupant in self.occupants.values() if occupant.jid == address), None)

    def occupant(self, stanza: Element) -> Occupant:
        """The occupant that sent `stanza`.

        :raises StanzaError: not-acceptable: whoever sent it is not in the room.
        """
        found = self.who(sender(stanza))
        if found is None:
            raise StanzaError("not-acceptable", "you are not in the room")
        return found

    def affiliation(self, address: JID) -> str:
        """The lasting standing of a real JID."""
        return self.affiliations.get(address.bare, "none")

    def outranks(self, one: JID, other: JID) -> bool:
        """Whether `one` stands higher than `other`, or both are owners."""
        mine, theirs = _RANK[self.affiliation(one)], _RANK[self.affiliation(other)]
        return mine > theirs or mine == _RANK["owner"]

    def usual_role(self, address: JID) -> str:
        """The role with which somebody enters."""
        standing = self.affiliation(address)
        if standing in ("owner", "admin"):
            return "moderator"
        return "visitor" if self.config.moderated and standing == "none" else "participant"

    def _occupant_id(self, address: JID) -> list[Element]:
        if not self.config.occupant_ids:
            return []
        digest = hmac.new(self._secret, address.bare.encode(), hashlib.sha256).hexdigest()
        return [E(OCCUPANT_ID, {"id": digest})]

    def _theirs(self, stanza: Element) -> list[Element]:
        """What somebody says that the room has no say in."""
        ours = _OURS if self.config.occupant_ids else _OURS - {OCCUPANT_ID}
        return [child for child in stanza if child.tag not in ours and child.tag != DELAY]

    # Presence

    def presence(self, stanza: Element, to: JID) -> None:
        """Somebody enters, changes the nick or the status, or leaves.

        :raises StanzaError: they may not.
        """
        here = self.who(sender(stanza))
        if kind(stanza) in ("unavailable", "error"):
            if here is not None:
                self.remove(here, payload=self._theirs(stanza))
        elif kind(stanza) is None and not to.resource:
            raise StanzaError("jid-malformed", "a nick is missing")
        elif kind(stanza) is None and here is None:
            self._enter(stanza, to)
        elif here is not None and here.nick != to.resource:
            self._rename(here, stanza, to)
        elif here is not None:
            here.payload = self._theirs(stanza)
            self.announce(here)
            if stanza.find(f"{{{MUC}}}x") is not None:
                self._brief(here, stanza, set())

    def _enter(self, stanza: Element, to: JID) -> None:
        x = stanza.find(f"{{{MUC}}}x")
        if x is None:
            raise StanzaError("not-acceptable", "you are not in the room")
        address = sender(stanza)
        self._check(address, x.findtext(f"{{{MUC}}}password") or "", to.resource)
        created = not self.occupants and self.affiliation(address) == "owner" and not self.config.persistent
        occupant = Occupant(to.resource, address, self.usual_role(address), self._theirs(stanza))
        self.occupants[occupant.nick] = occupant
        self.announce(occupant, but=occupant)
        self._brief(occupant, stanza, {201} if created else set())

    def _check(self, address: JID, password: str, nick: str) -> None:
        if self.affiliation(address) == "outcast":
            raise StanzaError("forbidden", "you are banned")
        if self.config.members_only and _RANK[self.affiliation(address)] < _RANK["member"]:
            raise StanzaError("registration-required", "the room is for members")
        if self.config.password and password != self.config.password:
            raise StanzaError("not-authorized", "the password is wrong")
        if nick in self.occupants:
            raise StanzaError("conflict", "the nick is in use")
        if len(self.occupants) >= _MAX_OCCUPANTS:
            raise StanzaError("service-unavailable", "the room is full")

    def _brief(self, occupant: Occupant, stanza: Element, codes: set[int]) -> None:
        """What XEP-0045 section 7.1 prescribes, in its order: occupants, oneself, history, subject."""
        for other in self.occupants.values():
            if other is not occupant:
                self._show(other, occupant)
        self._show(occupant, occupant, codes=codes | ({100} if not self.config.anonymous else set()))
        for when, message in self._wanted(stanza.find(f"{{{MUC}}}x/{{{MUC}}}history")):
            self._send(delayed(copy_for(message, to=occupant.jid.full), self.address, when))
        self._send(copy_for(self._subject, to=occupant.jid.full))

    def _wanted(self, history: Element | None) -> list[tuple[datetime, Element]]:
        """What somebody who enters wants to know of the past (XEP-0045 section 7.2.13)."""
        kept = list(self._history)
        if history is None:
            return kept
        since = _since(history)
        kept = [entry for entry in kept if since is None or entry[0] >= since]
        stanzas, characters = _number(history, "maxstanzas"), _number(history, "maxchars")
        if stanzas is not None:
            kept = kept[len(kept) - stanzas :] if stanzas < len(kept) else kept
        if characters is not None:
            while kept and sum(len(serialise(message)) for _, message in kept) > characters:
                del kept[0]
        return kept

    def _rename(self, occupant: Occupant, stanza: Element, to: JID) -> None:
        if to.resource in self.occupants:
            raise StanzaError("conflict", "the nick is in use")
        for other in list(self.occupants.values()):
            self._show(occupant, other, gone=True, codes={303}, nick=to.resource)
        del self.occupants[occupant.nick]
        occupant.nick, occupant.payload = to.resource, self._theirs(stanza)
        self.occupants[occupant.nick] = occupant
        self.announce(occupant)

    def announce(self, occupant: Occupant, *, but: Occupant | None = None) -> None:
        """Tell all of an occupant's presence."""
        for other in list(self.occupants.values()):
            if other is not but:
                self._show(occupant, other)

    def remove(self, occupant: Occupant, *, codes: set[int] | None = None, payload: Iterable[Element] = ()) -> None:
        """Let an occupant go, or make one go: `codes` tell why (XEP-0045 section 15.6)."""
        occupant.role, occupant.payload = "none", list(payload)
        for other in list(self.occupants.values()):
            self._show(occupant, other, gone=True, codes=codes)
        self.occupants.pop(occupant.nick, None)

    def _show(
        self,
        whom: Occupant,
        to: Occupant,
        *,
        gone: bool = False,
        codes: set[int] | None = None,
        nick: str | None = None,
    ) -> None:
        codes = (codes or set()) | ({110} if whom is to else set())
        visible = not self.config.anonymous or to.role == "moderator" or whom is to
        item = {
            "affiliation": self.affiliation(whom.jid),
            "role": whom.role,
            "jid": whom.jid.full if visible else None,
            "nick": nick,
        }
        statuses = (E(f"{USER}status", {"code": str(code)}) for code in sorted(codes))
        x = E(f"{USER}x", None, E(f"{USER}item", item), *statuses)
        addresses = {"from": f"{self.address}/{whom.nick}", "to": to.jid.full}
        if gone:
            addresses["type"] = "unavailable"
        self._send(E(PRESENCE, addresses, *whom.payload, *self._occupant_id(whom.jid), x))

    # Messages

    def message(self, stanza: Element, to: JID) -> None:
        """Something said to all, or to one.

        :raises StanzaError: by somebody who is not there, or to nobody.
        """
        if kind(stanza) == "error":
            # It could not be delivered: whoever it was for is gone.
            ghost = self.who(sender(stanza))
            if ghost is not None and not to.resource:
                self.remove(ghost, codes={333})
        elif to.resource:
            self._private(stanza, to)
        elif kind(stanza) == "groupchat":
            self._public(stanza)
        elif not self._invite(stanza):
            raise StanzaError("bad-request", "a message to a room is of type groupchat")

    def _public(self, stanza: Element) -> None:
        speaker = self.occupant(stanza)
        if speaker.role == "visitor":
            raise StanzaError("forbidden", "visitors may only listen")
        said = copy_for(stanza, from_=f"{self.address}/{speaker.nick}", to=None)
        said[:] = [*self._theirs(stanza), *self._occupant_id(speaker.jid)]
        if stanza.find(SUBJECT) is not None and stanza.find(BODY) is None:
            if speaker.role != "moderator":
                raise StanzaError("forbidden", "moderators change the subject")
            self._subject = said
        elif stanza.find(BODY) is not None:
            self._history.append((now(), said))
        self.tell_all(said)

    def tell_all(self, message: Element) -> None:
        """Send a message to everybody in the room."""
        for other in list(self.occupants.values()):
            self._send(copy_for(message, to=other.jid.full))

    def _private(self, stanza: Element, to: JID) -> None:
        if kind(stanza) == "groupchat":
            raise StanzaError("bad-request", "what is said to all goes to the room")
        said = self._passed_on(stanza, to)
        said[:] = [*self._theirs(stanza), E(f"{USER}x"), *self._occupant_id(sender(stanza))]
        self._send(said)

    def _invite(self, stanza: Element) -> bool:
        invite = stanza.find(f"{USER}x/{USER}invite")
        if invite is None or not invite.get("to"):
            return False
        inviter = self.occupant(stanza)
        passed = E(f"{USER}invite", {"from": inviter.jid.bare}, *invite)
        password = [E(f"{USER}password", None, self.config.password)] if self.config.password else []
        x = E(f"{USER}x", None, passed, *password)
        self._send(E(MESSAGE, {"from": self.address, "to": invite.get("to"), "id": stanza.get("id")}, x))
        return True

    # Requests from one to the other

    def iq(self, stanza: Element, to: JID) -> None:
        """Pass a request, or the answer to one, from one occupant to another (XEP-0045 section 17.2).

        :raises StanzaError: one of the two is not there.
        """
        if kind(stanza) not in ("get", "set"):
            if self.who(sender(stanza)) is not None and to.resource in self.occupants:
                self._send(self._passed_on(stanza, to))
        elif self.occupant(stanza).nick == to.resource and stanza.find("{urn:xmpp:ping}ping") is not None:
            # Somebody wants to know whether they are still in the room (XEP-0410).
            self._send(result(stanza))
        else:
            self._send(self._passed_on(stanza, to))

    def _passed_on(self, stanza: Element, to: JID) -> Element:
        speaker, hearer = self.occupant(stanza), self.occupants.get(to.resource)
        if hearer is None:
            raise StanzaError("item-not-found", "there is nobody of that name")
        return copy_for(stanza, from_=f"{self.address}/{speaker.nick}", to=hearer.jid.full)


def _number(history: Element, name: str) -> int | None:
    text = history.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _since(history: Element) -> datetime | None:
    seconds = _number(history, "seconds")
    if seconds is not None:
        return now() - timedelta(seconds=seconds)
    try:
        since = datetime.fromisoformat(history.get("since", ""))
    except ValueError:
        return None
    return since if since.tzinfo is not None else since.replace(tzinfo=UTC)
