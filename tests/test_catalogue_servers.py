"""Catalogues on real servers: who sees what, who gets it, and what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from slixmpp_bt import IncomingOffer, OutgoingOffer, State

from .servers import Server
from .world import Member, digest, done, make_file, pair, until


async def published(offer: OutgoingOffer) -> OutgoingOffer:
    """Once its item is in the node."""
    await until(lambda: offer.is_published or offer.state.terminal)
    assert offer.error is None, offer.error
    return offer


async def listed(reader: Member, publisher: Member, count: int, node: str | None = None) -> list[IncomingOffer]:
    """What `publisher` publishes, once that is so many."""
    async with asyncio.timeout(12):
        while len(offers := await reader.bt.catalogue(publisher.jid.bare, node=node)) != count:
            await asyncio.sleep(0.02)
    return offers


async def test_published_file_is_listed_fetched_and_withdrawn(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    source = make_file(tmp_path / "holiday.mp4", 300_000)
    offer = await alice.bt.publish(source, desc="The lake")
    told = await bob.expect_offer()
    assert (told.name, told.size, told.desc, str(told.sender)) == ("holiday.mp4", 300_000, "The lake", alice.jid.bare)
    assert await listed(bob, alice, 1) == [told]
    await done(await told.accept())
    assert digest(bob.inbox / "holiday.mp4") == digest(source)
    await until(lambda: [t.state for t in offer.transfers] == [State.COMPLETE])
    assert not alice.told("bt_offer")
    await offer.withdraw()
    await listed(bob, alice, 0)
