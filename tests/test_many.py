"""One offer, many receivers, one swarm: over real servers, with the real engine; full sizes by acceptance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt import OutgoingOffer, Transfer

from .servers import Server
from .world import Member, digest, done, make_file, member, until, visible

MIB = 1024**2


async def devices(server: Server, tmp_path: Path, count: int, **config: Any) -> tuple[Member, list[Member]]:
    """A sender, and so many devices of one account that accept everything."""
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    alice = await member(server, f"{a}/laptop", tmp_path / "alice")
    others = []
    for number in range(count):
        one = await member(server, f"{b}/{number}", tmp_path / f"bob{number}", auto_accept=True, **config)
        await visible(alice, one)
        others.append(one)
    return alice, others


async def receiving(members: list[Member]) -> list[Transfer]:
    return [await one.expect("bt_transfer_start") for one in members]


def copies(offer: OutgoingOffer) -> float:
    return offer.seeding.uploaded() / offer.size


@pytest.mark.parametrize("count", [2, 4])
async def test_sender_uploads_little_more_than_one_copy(server: Server, tmp_path: Path, count: int) -> None:
    alice, bobs = await devices(server, tmp_path, count)
    alice.bt.configure(upload_limit=4_000_000)
    source = make_file(tmp_path / "file", 12 * MIB)
    offer = await alice.bt.offer(bobs[0].jid.bare, source)
    paths = await done(*await receiving(bobs))
    await until(lambda: all(transfer.complete for transfer in offer.transfers))
    assert all(digest(path) == digest(source) for path in paths)
    assert len(offer.transfers) == count
    assert all(transfer.progress.transferred == 12 * MIB for transfer in offer.transfers)
    print(f"{count} receivers: {copies(offer):.2f} copies")
    assert copies(offer) < 1 + count / 4
    await offer.withdraw()
