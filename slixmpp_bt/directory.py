"""Who is there and what they can do: rosters, rooms, service discovery, as slixmpp knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from slixmpp import JID, BaseXMPP, ComponentXMPP, Message
from slixmpp.exceptions import IqError, IqTimeout, XMPPError
from slixmpp.roster import RosterItem

from .constants import FEATURE_SEALED, NS, Mode
from .errors import NotSupported, PeerNotFound
from .policy import MAX_DEVICES, Peer
from .rooms import Occupant, Rooms
from .stanza import sightings
from .threads import settle

log = logging.getLogger(__name__)

#: How long somebody may take to say what they support, in seconds.
_TIMEOUT = 15.0


class Directory:
    """Looks peers up for one client or component.

    :param rooms: who is in the rooms that it has joined.
    """

    def __init__(self, xmpp: BaseXMPP, rooms: Rooms) -> None:
        self._xmpp = xmpp
        self._rooms = rooms
        self._blocked: frozenset[str] = frozenset()

    async def learn_blocked(self) -> None:
        """Ask whom the account blocks (XEP-0191), if the client has slixmpp's plugin for that."""
        blocking: Any = self._xmpp.plugin.get("xep_0191", None)
        if blocking is None:
            return
        try:
            found = await blocking.get_blocked_jids(timeout=_TIMEOUT)
        except XMPPError as error:
            log.debug("the block list is not known: %s", error)
            return
        self._blocked = frozenset(jid.full for jid in found)

    def blocked(self, jids: Iterable[str]) -> None:
        """The account blocks these, too."""
        self._blocked |= set(jids)

    def unblocked(self, jids: Iterable[str]) -> None:
        """It does not block these any more; nobody at all if none is named (XEP-0191 section 3.5)."""
        gone = set(jids)
        self._blocked = self._blocked - gone if gone else frozenset()

    def _is_blocked(self, jid: JID) -> bool:
        """XEP-0191 section 5: a full JID, an account, a device at a domain, or the domain."""
        forms = {jid.full, jid.bare, jid.domain, f"{jid.domain}/{jid.resource}"}
        return bool(self._blocked & forms)

    def peer(self, jid: JID, local: JID) -> Peer:
        """What is known of `jid` to the account or component JID `local`."""
        if (occupant := self._rooms.occupant(jid, local)) is not None:
            return self.occupant(occupant, local)
        if self._rooms.is_room(jid):
            return Peer(jid=jid, bare=None, room=JID(jid.bare), blocked=self._is_blocked(jid))
        if jid.bare == local.bare:
            # One's own devices; no roster has them.
            return Peer(jid=jid, bare=JID(jid.bare), subscription="both")
        entry = self._entry(jid, local)
        return Peer(
            jid=jid,
            bare=JID(jid.bare),
            subscription="none" if entry is None else entry["subscription"],
            auto_authorize=bool(self._xmpp.auto_authorize),
            blocked=self._is_blocked(jid),
            groups=frozenset() if entry is None else frozenset(map(str, entry["groups"])),
        )

    def members(self, groups: frozenset[str], local: JID) -> frozenset[str]:
        """Who is in one of these groups of the roster of `local`, and sees its presence: bare JIDs."""
        if local.bare not in self._xmpp.roster.keys():  # noqa: SIM118 (it has no __contains__)
            return frozenset()
        roster = self._xmpp.roster[local.bare]
        entries = ((str(jid), roster[jid]) for jid in roster.keys())  # noqa: SIM118
        return frozenset(
            jid
            for jid, entry in entries
            if entry["subscription"] in ("from", "both") and not groups.isdisjoint(map(str, entry["groups"]))
        )

    def author(self, message: Message, local: JID, *, archived: bool = False) -> Peer | None:
        """Who wrote a message; None if that cannot be told, or it was this side itself.

        :param archived: it does not come from the stream.
        """
        if not self._rooms.is_room(message["from"]):
            is_in_room = message["type"] == "groupchat" or sightings.from_a_room(message)
            return None if is_in_room else self.peer(message["from"], local)
        speaker = self._rooms.speaker(message, local, archived=archived)
        return self.occupant(speaker, local) if speaker is not None else None

    def occupant(self, occupant: Occupant, local: JID) -> Peer:
        """What is known of somebody in a room: what is known of the account, if the room shows it."""
        blocked = self._is_blocked(occupant.jid)
        if occupant.real is None:
            return Peer(jid=occupant.jid, bare=None, room=occupant.room, occupant=occupant.owner, blocked=blocked)
        account = self.peer(occupant.real, local)
        return replace(
            account, jid=occupant.jid, room=occupant.room, occupant=occupant.owner, blocked=blocked or account.blocked
        )

    def room(self, to: JID, local: JID) -> JID:
        """The room that an offer to all its occupants goes to.

        :raises ValueError: `to` has a resource, as an occupant has.
        :raises PeerNotFound: `local` is not in it.
        """
        if to.resource:
            raise ValueError(f"{to} is an occupant's JID, not a room's")
        if not self._rooms.joined(to, local):
            raise PeerNotFound(f"{to} is no room that this side has joined")
        return to

    async def supports(self, jid: JID, local: JID, mode: Mode = Mode.PRIVATE) -> bool | None:
        """See :meth:`slixmpp_bt.XEP_BT.supports`; with `mode`, whether it can take offers of that mode."""
        if jid.resource or not jid.local:
            try:
                return await self._ask(jid, local, mode)
            except PeerNotFound:
                return None
        answers = await self._ask_until_one_does(self._visible(jid, local), local, mode)
        return True if True in answers else False if False in answers else None

    async def resolve(self, to: JID, local: JID, mode: Mode = Mode.PRIVATE) -> JID:
        """Where an offer to `to` goes: to a device that supports this or, while none is visible, to the account.

        :raises NotSupported: who is there does not support it.
        :raises PeerNotFound: the device is not there, or the domain cannot be reached.
        :raises ValueError: it is a room.
        """
        self._check_no_room(to)
        if to.resource or not to.local:
            if await self._ask(to, local, mode):
                return to
            raise NotSupported(f"{to} does not support {_what(mode)}")
        devices = self._visible(to, local)
        answers = await self._ask_until_one_does(devices, local, mode)
        if True in answers:
            return devices[answers.index(True)]
        if answers and None not in answers:
            raise NotSupported(f"no device of {to} that is online supports {_what(mode)}")
        return to

    async def audience(self, to: JID, local: JID, mode: Mode = Mode.PRIVATE) -> tuple[JID, ...]:
        """To whom an offer to `to` is sent: every visible device of the account that supports this or, while none is
        visible, the account; a device or a domain itself.

        :raises NotSupported: devices are visible, and none supports it.
        :raises ValueError: it is a room.
        """
        self._check_no_room(to)
        if to.resource or not to.local:
            return (to,)
        devices = self._visible(to, local)
        answers = await asyncio.gather(*(self.supports(device, local, mode) for device in devices))
        able = tuple(device for device, answer in zip(devices, answers, strict=True) if answer)
        if not able and answers and None not in answers:
            raise NotSupported(f"no device of {to} that is online supports {_what(mode)}")
        return able or (to,)

    def _check_no_room(self, to: JID) -> None:
        if not to.resource and self._rooms.is_room(to):
            raise ValueError(f"{to} is a room: offer it there with mtype='groupchat', or to one occupant")

    def _visible(self, jid: JID, local: JID) -> list[JID]:
        """The available devices of an account, the highest priority first; not more than are admitted anyway."""
        entry = self._entry(jid, local)
        if entry is None:
            return []
        resources = entry.resources
        ranked = sorted(resources, key=lambda name: -int(resources[name]["priority"] or 0))
        devices = [JID(f"{jid.bare}/{name}") for name in ranked if name]
        return [device for device in devices if device != self._xmpp.boundjid][:MAX_DEVICES]

    async def _ask_until_one_does(self, devices: list[JID], local: JID, mode: Mode) -> list[bool | None]:
        """The answers of `devices`, which are all asked at once, up to the first that supports this."""
        asked = [asyncio.ensure_future(self.supports(device, local, mode)) for device in devices]
        answers: list[bool | None] = []
        try:
            for question in asked:
                answers.append(await question)
                if answers[-1]:
                    break
        finally:
            for question in asked:
                question.cancel()
            if asked:
                await settle(asked)
        return answers

    async def _ask(self, jid: JID, local: JID, mode: Mode) -> bool:
        caps: Any = self._xmpp.plugin["xep_0115"]
        known = await caps.get_caps(jid=jid)
        if known is None:
            try:
                iq = await self._xmpp.plugin["xep_0030"].get_info(
                    jid=jid, ifrom=local if isinstance(self._xmpp, ComponentXMPP) else None,
                    cached=False, timeout=_TIMEOUT,
                )  # fmt: skip
            except IqError as error:
                if error.condition in ("feature-not-implemented", "forbidden", "not-allowed"):
                    return False
                raise PeerNotFound(f"{jid} is not there: {error.condition.replace('-', ' ')}") from error
            except IqTimeout as error:
                raise PeerNotFound(f"{jid} does not answer") from error
            known = iq["disco_info"]
        return {NS, FEATURE_SEALED} <= set(known["features"]) if mode is Mode.SEALED else NS in known["features"]

    def _entry(self, jid: JID, local: JID) -> RosterItem | None:
        """What the roster of `local` says of `jid`."""
        # Looking up a roster makes one, and anybody can make up names at a component.
        if local.bare not in self._xmpp.roster.keys():  # noqa: SIM118 (it has no __contains__)
            return None
        roster = self._xmpp.roster[local.bare]
        return roster[jid.bare] if roster.has_jid(jid.bare) else None


def _what(mode: Mode) -> str:
    return f"file transfer by {NS}" + (", sealed" if mode is Mode.SEALED else "")
