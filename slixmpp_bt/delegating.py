"""What the sender of a delegated offer gives a receiver that has everything: leave to admit others in its place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from slixmpp import JID

from .constants import Mode, State
from .content import Content
from .context import Context
from .errors import BTError, PeerGone, ProtocolError
from .messages import Delegate, End
from .policy import Peer
from .receivers import Receivers
from .seals import Sealer
from .state import SavedReceiver

if TYPE_CHECKING:
    from .outgoing import OutgoingOffer

log = logging.getLogger(__name__)

#: So long a receiver may take to answer, in seconds: it waits for the answer to its End itself.
_PATIENCE = 15.0


class Delegating:
    """Delegates one own offer, if that is what it was made for."""

    def __init__(self, context: Context, offer: OutgoingOffer, content: Content, receivers: Receivers) -> None:
        self._context = context
        self._offer = offer
        self._content = content
        self._receivers = receivers

    async def grant(self, message: End, peer: Peer, local: JID) -> None:
        """A receiver has said that it is complete, and waits for the answer. If it goes on serving everything, let it
        admit others. Whoever has not got everything, or leaves, is given nothing.

        The answer to its End waits for this. So there is nothing to be kept here: who cannot be told has not got that
        answer either, keeps its End, and repeats it.

        :param local: the own JID that it spoke to.
        :raises ProtocolError: ``resource-constraint``: it cannot be told now.
        """
        receiver = self._receivers.completed(message.transfer, peer.owner) if self._may(message) else None
        if receiver is None or receiver.select is not None:
            return
        try:
            delegate = Delegate(self._offer.id, receiver.transfer, await self._key_for(receiver))
            await self._context.wire.request(delegate, peer.jid, sender=local, timeout=_PATIENCE)
        except PeerGone as error:
            raise ProtocolError("there is something to be said first", "resource-constraint") from error
        except BTError as error:
            log.info("%s does not admit others in this side's place: %s", peer.jid, error)

    def _may(self, message: End) -> bool:
        stays = message.kind == "complete" and bool(message.seeding)
        return self._offer.delegate and stays and self._offer.state is State.OFFERED

    async def _key_for(self, receiver: SavedReceiver) -> bytes | None:
        """The offer's authority, sealed to the key that the receiver has shown; None if the offer has none.

        :raises ProtocolError: it has never shown one.
        """
        if self._offer.mode is not Mode.SEALED:
            return None
        if receiver.request is None:
            raise ProtocolError("it has shown no key")
        sealer = Sealer(self._offer.id, receiver.transfer, receiver.request)
        return sealer.seal("authority", 0, (await self._content.authority()).key)
