"""One item: published once there is a session, kept in mind until it is known to be gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from slixmpp import JID

from slixmpp_bt.access import Access
from slixmpp_bt.errors import BTError, LimitExceeded, NotSupported, PeerGone
from slixmpp_bt.messages import Offer
from slixmpp_bt.publication import Publication
from slixmpp_bt.shelf import NoShelf

from .fakes import World
from .security.offers import small_offer

ALICE = JID("alice@a.example/laptop")


class Shelf:
    """Remembers what is in it; fails with `error` while there is one."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.error: BTError | None = None

    async def prepare(self, node: str, access: Access) -> None:
        pass

    async def publish(self, offer: Offer, node: str, access: Access) -> None:
        self.items.append(offer.id)
        if self.error is not None:
            raise self.error

    async def retract(self, id: str, node: str, access: Access) -> None:
        if self.error is not None and not isinstance(self.error, LimitExceeded):
            raise self.error
        self.items.remove(id)


async def test_item_is_published_kept_in_mind_and_withdrawn(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        wire, shelf, offer = world.party(ALICE.full).wire, Shelf(), small_offer()
        publication = Publication(wire, shelf, ALICE, "node", Access("open"))
        wire.up.clear()
        making = asyncio.ensure_future(publication.make(offer))
        await asyncio.sleep(0)
        assert not publication.made
        wire.up.set()
        await making
        assert shelf.items == [offer.id]
        again = Publication(wire, shelf, ALICE, "node", Access("open"))
        again.restore(publication.told)
        assert again.told == publication.told == ((JID(ALICE.bare), offer.id),)
        shelf.error = PeerGone("there is no session")
        await again.withdraw(offer.id)
        assert again.made  # so it is tried again
        shelf.error = None
        await again.withdraw(offer.id)
        await again.withdraw(offer.id)
        assert not again.made
        assert shelf.items == []


async def test_item_that_is_refused_is_taken_out_and_one_without_an_answer_is_not(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        wire, shelf, offer = world.party(ALICE.full).wire, Shelf(), small_offer()
        publication = Publication(wire, shelf, ALICE, "node", Access("open"))
        shelf.error = LimitExceeded("it is full")
        with pytest.raises(LimitExceeded):
            await publication.make(offer)
        assert not publication.made
        assert shelf.items == []
        shelf.error = PeerGone("no answer")
        await publication.make(offer)
        assert publication.made  # it may be there


async def test_without_a_shelf_nothing_is_published(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        publication = Publication(world.party(ALICE.full).wire, NoShelf(), ALICE, "node", Access("open"))
        with pytest.raises(NotSupported):
            await publication.make(small_offer())
