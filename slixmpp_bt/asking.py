"""How a receiver asks the sender, and what the answers mean for the transfer."""

from __future__ import annotations

import logging
from collections.abc import Callable

from slixmpp import JID

from .context import Context
from .errors import BTError, LimitExceeded, PeerGone, ProtocolError
from .messages import MAX_META_CHUNK, Accept, Accepted, Meta, MetaChunk, Offer, Reply, Request, Seek
from .outbox import NOT_NOW

log = logging.getLogger(__name__)


#: Who answers so is there, and knows the offer.
_THERE = frozenset({"internal-server-error", "resource-constraint"})


class NotNow(Exception):
    """The sender cannot be asked now; the text says why.

    :ivar lost: whether it is perhaps somewhere else now.
    """

    def __init__(self, text: str, *, lost: bool = True) -> None:
        super().__init__(text)
        self.lost = lost


class Over(Exception):
    """The sender says that the offer has ended, and how (a word of XEP-0166)."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"the sender has ended the offer: {text}")
        self.reason = reason


class Asking:
    """One transfer's line to the sender.

    :param peer: where the sender, or who stands in for it, is at the moment.

    Every method raises :class:`NotNow`, :class:`Over`, or :class:`~slixmpp_bt.errors.ProtocolError` for a refusal.
    """

    def __init__(
        self, context: Context, offer: Offer, transfer: str, peer: Callable[[], JID], local: JID, *,
        in_room: bool = False,
    ) -> None:  # fmt: skip
        self._in_room = in_room
        self._context = context
        self._offer = offer
        self._transfer = transfer
        self._peer = peer
        self._local = local

    async def seek(self, sender: JID) -> None:
        """Ask all devices of the sender, and whoever else has its account's name, which of them has the offer; in a
        room, the occupant."""
        to = sender if self._in_room else JID(sender.bare)
        try:
            await self._context.wire.send(Seek(self._offer.id), to, sender=self._local, mtype="headline")
        except BTError as error:
            log.debug("%s was not sought: %s", to, error)

    async def accept(self, message: Accept) -> Accepted:
        """Accept the offer, for the first time or again."""
        reply = await self._ask(message)
        assert isinstance(reply, Accepted)
        return reply

    async def manifest(self) -> bytes:
        """The info dict, where the offer had no room for it.

        :raises LimitExceeded: it is over ``max_manifest_size``.
        """
        length, info = self._offer.info_length, bytearray()
        if length > self._context.config.limits.max_manifest_size:
            raise LimitExceeded(f"a manifest of {length} bytes is over max_manifest_size")
        await self._ask(Accept(self._offer.id, self._transfer))
        while len(info) < length:
            room = min(MAX_META_CHUNK, length - len(info))
            chunk = await self._ask(Meta(self._offer.id, self._transfer, len(info), room))
            if not isinstance(chunk, MetaChunk) or chunk.offset != len(info) or not 0 < len(chunk.data) <= room:
                raise ProtocolError("the sender's manifest came in disorder")
            info += chunk.data
        return bytes(info)

    async def _ask(self, request: Request) -> Reply:
        try:
            return await self._context.wire.request(request, self._peer(), sender=self._local)
        except PeerGone as error:
            raise NotNow(f"the sender cannot be reached: {error}") from error
        except ProtocolError as error:
            if error.condition == "gone":
                raise Over(error.reason or "cancel", str(error)) from error
            if error.condition in NOT_NOW:
                lost = error.condition not in _THERE
                raise NotNow(f"the sender cannot serve it now: {error}", lost=lost) from error
            raise
