"""The item by which an own offer is known in a catalogue: the counterpart of :mod:`slixmpp_bt.announcement`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from slixmpp import JID

from .access import Access
from .errors import BTError, PeerGone
from .messages import Offer
from .shelf import Shelf
from .wire import Wire

log = logging.getLogger(__name__)


class Publication:
    """One item of a PubSub node of the account's.

    :param owner: the account.
    """

    def __init__(self, wire: Wire, shelf: Shelf, owner: JID, node: str, access: Access) -> None:
        self._wire = wire
        self._shelf = shelf
        self._owner = JID(owner.bare)
        self._node = node
        self._access = access
        self._item: str | None = None
        self._retracting = False

    @property
    def made(self) -> bool:
        """Whether the item may be in the node."""
        return self._item is not None

    @property
    def told(self) -> tuple[tuple[JID, str], ...]:
        """The account and the item's id, while the item may be in the node."""
        return ((self._owner, self._item),) if self._item is not None else ()

    def restore(self, told: Iterable[tuple[JID, str]]) -> None:
        """Take up what :attr:`told` was."""
        self._item = next((item for _, item in told), None)

    def lost(self) -> None:
        """The item is not in the node any more, and nobody here has taken it out."""
        self._item = None

    def reached(self, device: JID) -> bool:
        """Nobody is told one by one."""
        return True

    async def make(self, offer: Offer) -> None:
        """Publish it, as soon as there is a session. Where that ends meanwhile, or the server does not answer, the next
        session sees to it.

        :raises BTError: it cannot be published.
        """
        await self._wire.online()
        try:
            await self._shelf.prepare(self._node, self._access)
            self._item = offer.id
            await self._shelf.publish(offer, self._node, self._access)
        except PeerGone as error:
            log.warning("%s is to be published in %s in the next session: %s", offer.id, self._node, error)
        except BTError:
            # It may have got there all the same.
            await self.withdraw(offer.id)
            raise

    async def extend(self, offer: Offer, device: JID) -> None:
        """Nobody is told one by one."""

    def bounced(self, stanza_id: str, peer: JID) -> bool:
        """No message was sent that could come back."""
        return False

    def forget(self, target: JID) -> None:
        """Nobody is told one by one."""

    async def withdraw(self, id: str) -> None:
        """Take the item out of the node. What fails is tried again in the next session."""
        if self._retracting or self._item is None:
            return
        self._retracting = True
        try:
            await self._shelf.retract(id, self._node, self._access)
            self._item = None
        except BTError as error:
            log.info("the item of an offer that has ended is not out of %s yet: %s", self._node, error)
        finally:
            self._retracting = False
