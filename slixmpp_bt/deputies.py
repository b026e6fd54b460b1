"""Who stands in for a sender that is away: receivers of the same offer that have everything, where it is delegated.

Whoever says that it does is tried, one at a time, and only while somebody is sought. It can give no other content than
what was offered, and end nothing; what it can do is waste time, so one that brings nothing is left alone for a while.
As soon as the sender is back, it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from slixmpp import JID

from . import policy
from .constants import State
from .context import Context
from .errors import BTError
from .messages import End, Seek
from .negotiation import Event
from .policy import Peer
from .transfer import Transfer

if TYPE_CHECKING:
    from .incoming import IncomingOffer

log = logging.getLogger(__name__)

#: So long one that was of no use is left alone, in seconds; and so many are remembered for it.
_LEFT_ALONE, _MAX_LEFT_ALONE = 300.0, 256
#: So often in a row one may stand still.
_PATIENCE = 2
#: So many that were asked are told of the end.
_MAX_ASKED = 16
#: Who comes into a room is asked at most once in so many seconds.
_COMERS_PACE = 30.0


class Deputies:
    """Those of one incoming transfer.

    :param stop: stops what goes on with the one that is given up.
    :ivar current: who stands in now; None while the sender itself is asked.
    """

    def __init__(self, context: Context, offer: IncomingOffer, stop: Callable[[], None]) -> None:
        self.current: Peer | None = None
        self._context = context
        self._offer = offer
        self._stop = stop
        self._sought = False
        self._left_alone: dict[str, float] = {}
        self._asked: dict[str, JID] = {}
        self._had, self._in_vain = -1, 0
        self._sought_at = 0.0

    @property
    def source(self) -> Peer:
        """Who is asked now: a deputy, or the sender."""
        return self.current or self._offer.source

    async def seek(self) -> None:
        """Ask who has the offer: in the room that it was made in, or among the own account's devices. Only if the
        sender lets others admit."""
        local, room = self._offer.local, self._offer.room
        if not self._offer.message.delegate or (room is None and self._offer.peer.bare == local.bare):
            return  # in the latter case, whoever seeks the sender seeks them
        self._sought, self._sought_at = True, self._context.now()
        to, mtype = (JID(local.bare), "headline") if room is None else (room, "groupchat")
        try:
            await self._context.wire.send(Seek(self._offer.id), to, sender=local, mtype=mtype)
        except BTError as error:
            log.debug("nobody was sought at %s: %s", to, error)

    def found(self) -> None:
        """Somebody has answered: nobody is sought any more."""
        self._sought = False

    def somebody_came(self) -> None:
        """Somebody is there who may have the offer, if anybody is sought."""
        pace = 0.0 if self._offer.room is None else _COMERS_PACE
        if self._offer.message.delegate and self._context.now() - self._sought_at >= pace:
            self._transfer.feed(Event.RETRY)

    def take(self, peer: Peer) -> bool:
        """`peer` says that it has the offer. Go there, if somebody is sought. Returns whether it is one who may."""
        offer, transfer = self._offer, self._offer.transfer
        if not offer.message.delegate or not policy.may_stand_in(peer, offer.room, offer.local):
            return False
        if transfer is None or transfer.state is not State.WAITING or not self._sought or self.current is not None:
            return True
        if self._left_alone.get(peer.owner, 0.0) > self._context.now():
            return True
        log.info("%s: %s stands in for the sender", transfer, peer.jid)
        self._sought = False
        self.current, self._had, self._in_vain = peer, -1, 0
        self._go(transfer, peer.jid)
        transfer.feed(Event.FOUND)
        return True

    def stalled(self, had: int) -> None:
        """Nothing has come for a while (:class:`~slixmpp_bt.negotiation.Timing`), and `had` bytes are here. Ask again
        at once; one that has brought nothing since it was asked again is given up.
        """
        if self.current is None:
            return
        self._in_vain = self._in_vain + 1 if had == self._had else 1
        self._had = had
        if self._in_vain >= _PATIENCE:
            self.lose(self.current.jid, "it has brought nothing")
        asyncio.get_running_loop().call_soon(self._transfer.feed, Event.RETRY)

    def lose(self, asked: JID, why: str) -> bool:
        """What was asked of `asked` has failed. If that is the deputy, ask the sender again, and others than this one;
        returns False if it is not."""
        lost = self.current
        if lost is None or lost.jid != asked:
            return False
        log.info("%s: %s does not stand in for the sender any more: %s", self._transfer, asked, why)
        self._left_alone.pop(lost.owner, None)
        self._left_alone[lost.owner] = self._context.now() + _LEFT_ALONE
        while len(self._left_alone) > _MAX_LEFT_ALONE:
            del self._left_alone[next(iter(self._left_alone))]
        self._stop()
        return self.dismiss()

    def dismiss(self) -> bool:
        """The sender is to be asked again. Returns whether somebody stood in."""
        if self.current is None:
            return False
        self.current = None
        self._go(self._transfer, self._offer.peer)
        return True

    def renamed(self, old: JID, new: JID | None) -> None:
        """The occupant of a room who was at `old` is at `new`, or nowhere any more."""
        stands_in = self.current is not None and self.current.jid == old
        if new is None and stands_in:
            self.lose(old, "it has left")
            self._transfer.feed(Event.NOT_HERE)
        elif new is not None and self.current is not None and stands_in:
            self.current = replace(self.current, jid=new)
            self._go(self._transfer, new)
        moved = {owner: new if jid == old else jid for owner, jid in self._asked.items()}
        self._asked = {owner: jid for owner, jid in moved.items() if jid is not None}

    def tell(self, end: End) -> None:
        """Tell those who were asked that it is over. It does no harm if one does not hear of it."""
        if self._asked:
            self._context.tasks.spawn(self._tell(end), f"tell deputies {end.id}")

    async def _tell(self, end: End) -> None:
        for jid in self._asked.values():
            try:
                await self._context.wire.request(end, jid, sender=self._offer.local)
            except BTError as error:
                log.debug("%s was not told of the end: %s", jid, error)

    @property
    def _transfer(self) -> Transfer:
        assert self._offer.transfer is not None
        return self._offer.transfer

    def _go(self, transfer: Transfer, where: JID) -> None:
        if self.current is not None and len(self._asked) < _MAX_ASKED:
            self._asked[self.current.owner] = where
        if not transfer.ended:
            transfer.peer = where
