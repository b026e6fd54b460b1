"""The stanzas by which an own offer becomes known, and void: to whom they went, and which came back."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from slixmpp import JID

from .errors import BTError
from .messages import Message, Offer, Withdraw
from .wire import Wire

log = logging.getLogger(__name__)


class Announcement:
    """Where one offer is told.

    A chat message to a bare JID reaches only the resources of highest priority, so each device that is known gets its
    own; the account itself only while none is.

    :param targets: the devices, or the account, device or room itself.
    """

    def __init__(self, wire: Wire, targets: Iterable[JID], *, local: JID, mtype: str) -> None:
        self._wire = wire
        self._targets = tuple(dict.fromkeys(targets))
        self._local = local
        self._mtype = mtype
        #: By the id of its stanza, who was told and has not sent it back.
        self._told: dict[str, JID] = {}

    @property
    def made(self) -> bool:
        """Whether anybody may have got the offer."""
        return bool(self._told)

    @property
    def told(self) -> tuple[tuple[JID, str], ...]:
        """Who was told, and by which stanza; single occupants of a room left out, whose nicks last for one stay."""
        kept = (told for told in self._told.items() if not self._is_occupant(told[1]))
        return tuple((target, stanza) for stanza, target in kept)

    def restore(self, told: Iterable[tuple[JID, str]]) -> None:
        """Take up what :attr:`told` was."""
        self._told = {stanza: target for target, stanza in told}
        self._targets = tuple(dict.fromkeys((*self._told.values(), *self._targets)))

    def reached(self, device: JID) -> bool:
        """Whether a device is one of those that are told."""
        return device in self._targets

    async def make(self, offer: Offer) -> None:
        """Tell everybody, as soon as there is a session; a room, as soon as this side is in it.

        :raises BTError: nobody could be told.
        """
        await self._ready()
        for target in self._targets:
            await self._tell(offer, target)

    async def extend(self, offer: Offer, device: JID) -> None:
        """Tell a device that came later, unless it was told."""
        if not self.reached(device):
            self._targets += (device,)
            try:
                await self._tell(offer, device)
            except BTError as error:
                log.debug("%s was not told of an offer: %s", device, error)

    def bounced(self, stanza_id: str, peer: JID) -> bool:
        """A stanza came back. Returns whether it was the last one that anybody could have had.

        What was said in a room comes back from the room itself: all its occupants know the stanza's id.
        """
        told = self._told.get(stanza_id)
        if told is None or peer.bare != told.bare or (self._mtype == "groupchat" and peer != told):
            return False
        del self._told[stanza_id]
        return not self._told

    async def withdraw(self, id: str) -> None:
        """Tell whoever got the offer that it is void; a room once this side is in it."""
        if self._mtype == "groupchat":
            await self._ready()
        for target in dict.fromkeys(self._told.values()):
            try:
                await self._send(Withdraw(id), target)
            except BTError as error:
                log.warning("could not withdraw an offer from %s: %s", target, error)

    def forget(self, target: JID) -> None:
        """Whoever was told under this name is gone."""
        self._targets = tuple(other for other in self._targets if other != target)
        self._told = {stanza: told for stanza, told in self._told.items() if told != target}

    async def _ready(self) -> None:
        """Wait for the session; for a room, until this side is in it."""
        if self._mtype == "groupchat":
            for room in self._targets:
                await self._wire.entered(room, sender=self._local)
        else:
            await self._wire.online()

    async def _tell(self, offer: Offer, target: JID) -> None:
        self._told[await self._send(offer, target)] = target

    async def _send(self, message: Message, target: JID) -> str:
        mtype = "chat" if self._is_occupant(target) else self._mtype
        return await self._wire.send(message, target, sender=self._local, mtype=mtype)

    def _is_occupant(self, target: JID) -> bool:
        """Whether it is one occupant of the room that all was told."""
        return self._mtype == "groupchat" and bool(target.resource)
