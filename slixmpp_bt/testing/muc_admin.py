"""What moderators, admins and owners of a room may do (XEP-0045 sections 8 to 10)."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from slixmpp import JID

from .forms import flag, form, submitted
from .markup import MESSAGE, E
from .muc_room import MUC, USER, Occupant, Room
from .stanzas import StanzaError, jid, kind, new_id, sender

ADMIN = f"{{{MUC}#admin}}"
OWNER = f"{{{MUC}#owner}}"
_CONFIG = f"{MUC}#roomconfig"
_ROLES = ("none", "visitor", "participant", "moderator")
_AFFILIATIONS = ("outcast", "none", "member", "admin", "owner")


def answer_admin(room: Room, stanza: Element) -> Element | None:
    """Roles and affiliations: changed one by one, or listed.

    :raises StanzaError: whoever asks may not, or it makes no sense.
    """
    items = stanza[0].findall(f"{ADMIN}item")
    by = sender(stanza)
    if not items:
        raise StanzaError("bad-request")
    if kind(stanza) == "get":
        return _listed(room, items[0], by)
    for item in items:
        if item.get("role") is not None:
            _set_role(room, item, by)
        else:
            _set_affiliation(room, item, by)
    return None


def _listed(room: Room, item: Element, by: JID) -> Element:
    _require(room, by, "admin", "owner")
    wanted, role = item.get("affiliation"), item.get("role")
    found = [{"jid": address, "affiliation": a} for address, a in room.affiliations.items() if a == wanted]
    found += [{"nick": o.nick, "jid": o.jid.full, "role": o.role} for o in room.occupants.values() if o.role == role]
    return E(f"{ADMIN}query", None, *(E(f"{ADMIN}item", attributes) for attributes in found))


def _set_role(room: Room, item: Element, by: JID) -> None:
    actor, target, role = room.who(by), room.occupants.get(item.get("nick", "")), item.get("role")
    if target is None:
        raise StanzaError("item-not-found", "there is nobody of that name")
    if role not in _ROLES:
        raise StanzaError("bad-request")
    if actor is None or actor.role != "moderator":
        raise StanzaError("forbidden")
    if not room.outranks(by, target.jid):
        raise StanzaError("not-allowed", "not to those who stand as high")
    if role == "none":
        room.remove(target, codes={307})
    else:
        target.role = role
        room.announce(target)


def _set_affiliation(room: Room, item: Element, by: JID) -> None:
    affiliation, target = item.get("affiliation"), JID(jid(item.get("jid", "")).bare)
    if affiliation not in _AFFILIATIONS:
        raise StanzaError("bad-request")
    _require(room, by, *(("owner",) if affiliation in ("admin", "owner") else ("admin", "owner")))
    if not room.outranks(by, target):
        raise StanzaError("not-allowed", "not to those who stand as high")
    if affiliation == "none":
        room.affiliations.pop(target.bare, None)
    else:
        room.affiliations[target.bare] = affiliation
    for occupant in [o for o in room.occupants.values() if o.jid.bare == target.bare]:
        _stands(room, occupant, affiliation)


def _stands(room: Room, occupant: Occupant, affiliation: str) -> None:
    if affiliation == "outcast":
        room.remove(occupant, codes={301})
    elif affiliation == "none" and room.config.members_only:
        room.remove(occupant, codes={321})
    else:
        occupant.role = room.usual_role(occupant.jid)
        room.announce(occupant)


def _require(room: Room, by: JID, *affiliations: str) -> None:
    if room.affiliation(by) not in affiliations:
        raise StanzaError("forbidden")


def answer_owner(room: Room, stanza: Element) -> Element | None:
    """The room's configuration; or its end, for which the answer is the ``<destroy/>`` that was asked for.

    :raises StanzaError: whoever asks does not own it, or it makes no sense.
    """
    _require(room, sender(stanza), "owner")
    query = stanza[0]
    if kind(stanza) == "get":
        return E(f"{OWNER}query", None, form(_CONFIG, _settings(room)))
    destroy = query.find(f"{OWNER}destroy")
    if destroy is not None:
        for occupant in list(room.occupants.values()):
            room.remove(occupant)
        return destroy
    values = submitted(query)
    if values is not None:
        _configure(room, values)
    return None


def _settings(room: Room) -> dict[str, str]:
    config = room.config
    return {
        "muc#roomconfig_roomname": config.name,
        "muc#roomconfig_whois": "moderators" if config.anonymous else "anyone",
        "muc#roomconfig_persistentroom": str(int(config.persistent)),
        "muc#roomconfig_membersonly": str(int(config.members_only)),
        "muc#roomconfig_moderatedroom": str(int(config.moderated)),
        "muc#roomconfig_passwordprotectedroom": str(int(bool(config.password))),
        "muc#roomconfig_roomsecret": config.password,
    }


def _configure(room: Room, values: dict[str, list[str]]) -> None:
    config, was_anonymous = room.config, room.config.anonymous
    first = {name.removeprefix("muc#roomconfig_"): (value or [""])[0] for name, value in values.items()}
    config.name = first.get("roomname", config.name)
    config.anonymous = first.get("whois", "moderators" if config.anonymous else "anyone") != "anyone"
    config.persistent = flag([first.get("persistentroom", str(int(config.persistent)))])
    config.members_only = flag([first.get("membersonly", str(int(config.members_only)))])
    config.moderated = flag([first.get("moderatedroom", str(int(config.moderated)))])
    if not flag([first.get("passwordprotectedroom", "1")]):
        config.password = ""
    else:
        config.password = first.get("roomsecret", config.password)
    codes = {104} | ({173 if config.anonymous else 172} if config.anonymous != was_anonymous else set())
    statuses = (E(f"{USER}status", {"code": str(code)}) for code in sorted(codes))
    addresses = {"type": "groupchat", "from": room.address, "id": new_id()}
    room.tell_all(E(MESSAGE, addresses, E(f"{USER}x", None, *statuses)))
