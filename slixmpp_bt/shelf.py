"""Where offers are published: a small interface, so that offers need not know PubSub."""

from __future__ import annotations

from typing import Protocol

from .access import Access
from .errors import NotSupported
from .messages import Offer


class Shelf(Protocol):
    """The account's PubSub nodes. Every method waits for nothing but the server's answers."""

    async def prepare(self, node: str, access: Access) -> None:
        """See that the node is there, lets in whom `access` says, and has room for one more item.

        :raises LimitExceeded: the next item would push the oldest out.
        :raises NotSupported: the server has no such nodes.
        :raises ConfigError: the node is there for other people.
        :raises BTError: it cannot be asked.
        """

    async def publish(self, offer: Offer, node: str, access: Access) -> None:
        """Put the offer into the node, as the item of the offer's id; again does no harm.

        :raises BTError: as :meth:`prepare`; or the server refuses it.
        """

    async def retract(self, id: str, node: str, access: Access) -> None:
        """Take the item out of the node, and have everybody told. One that is not there any more counts as taken out.

        :raises BTError: the server cannot be asked, or refuses.
        """


class NoShelf:
    """What there is before the plugin has made one, and in tests without PubSub."""

    async def prepare(self, node: str, access: Access) -> None:
        """See :class:`Shelf`."""
        raise NotSupported("there is no PubSub here")

    async def publish(self, offer: Offer, node: str, access: Access) -> None:
        """See :class:`Shelf`."""
        raise NotSupported("there is no PubSub here")

    async def retract(self, id: str, node: str, access: Access) -> None:
        """See :class:`Shelf`."""
        raise NotSupported("there is no PubSub here")
