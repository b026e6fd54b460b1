"""One offer, many receivers, one swarm: over real servers, with the real engine; full sizes by acceptance."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt import OutgoingOffer, Transfer

from .crashes import Worker, alive
from .servers import Loopback, Server
from .test_rooms_offers import Room
from .world import Member, digest, done, make_file, member, until, visible

MIB = 1024**2
#: Pieces that only the first to finish has until then.
LATE = frozenset({0, 1, 2, 3})


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


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


async def shared(server: Server, tmp_path: Path, count: int) -> float:
    """Have so many receive a file; copies that the sender uploaded."""
    alice, bobs = await devices(server, tmp_path, count)
    alice.bt.configure(upload_limit=4_000_000)
    source = make_file(tmp_path / "file", 6 * MIB)
    offer = await alice.bt.offer(bobs[0].jid.bare, source)
    paths = await done(*await receiving(bobs))
    await until(lambda: len(offer.transfers) == count and all(transfer.complete for transfer in offer.transfers))
    assert all(digest(path) == digest(source) for path in paths)
    assert all(transfer.progress.transferred == 6 * MIB for transfer in offer.transfers)
    uploaded = copies(offer)
    await offer.withdraw()
    return uploaded


async def test_sender_uploads_little_more_than_one_copy_to_four(server: Server, tmp_path: Path) -> None:
    assert await shared(server, tmp_path, 4) < 2


async def test_sender_uploads_little_more_than_one_copy_to_two(loopback: Loopback, tmp_path: Path) -> None:
    assert await shared(loopback, tmp_path, 2) < 1.5


# Without the sender


async def receivers(server: Server, b: JID, tmp_path: Path, count: int, **config: Any) -> list[Member]:
    settings = {"auto_accept": True, **config}
    return [await member(server, f"{b}/{number}", tmp_path / f"bob{number}", **settings) for number in range(count)]


async def sender(server: Server, a: JID, b: JID, tmp_path: Path, source: Path, rate: int) -> Worker:
    """A sender in a process of its own, to be killed."""
    options = ("--many", "--to", str(b), "--path", str(source), "--config", json.dumps({"upload_limit": rate}))
    return Worker(server, f"{a}/laptop", tmp_path / "alice", *options)


def download(one: Member) -> Any:
    """The engine's end of what a receiver fetches; None before and after."""
    transfers = one.told("bt_transfer_start")
    filling = transfers[0]._side._filling if transfers else None
    return filling.download if filling is not None else None


async def spread(bobs: list[Member], pieces: int) -> None:
    """Wait until each piece is had by some receiver."""
    async with asyncio.timeout(60):
        while len(frozenset().union(*(download(one).have() for one in bobs))) < pieces:
            assert not any(one.told("bt_transfer_end") for one in bobs), "it went too fast"
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("first", [False, True], ids=["together", "one-first"])
async def test_receivers_complete_when_the_sender_dies_after_one_copy(
    loopback: Loopback, tmp_path: Path, first: bool
) -> None:
    a, b = await loopback.add_user("alice"), await loopback.add_user("bob")
    await loopback.subscribe(a, b)
    source = make_file(tmp_path / "file", 6 * MIB)
    # They give each other little at first, so that nobody has everything when all is spread.
    bobs = await receivers(loopback, b, tmp_path, 4, upload_limit=100_000, routes=["swarm"])
    alice = await sender(loopback, a, b, tmp_path, source, 3_000_000)
    async with alive(alice):
        await alice.start()
        await until(lambda: all(map(download, bobs)))
        if first:
            for one in bobs[1:]:
                download(one).claim(LATE)
        await spread(bobs, 6 * MIB // (64 * 1024))
        await alice.kill()
    for one in bobs:
        one.bt.configure(upload_limit=None)
    if first:
        await done(bobs[0].told("bt_transfer_start")[0])
        assert not any(one.told("bt_transfer_end") for one in bobs[1:])
        for one in bobs[1:]:
            assert not LATE & download(one).have()
            download(one).release(LATE)
    for path in await done(*await receiving(bobs)):
        assert digest(path) == digest(source)


# Full size


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures, printed at the end; nothing is asserted about times."""
    figures: dict[str, Any] = {}
    yield figures
    print(f"\n{request.node.name}: {json.dumps(figures)}")


async def measured(server: Server, tmp_path: Path, source: Path, count: int) -> tuple[float, float]:
    """Seconds until so many occupants of a room, each a process of its own, have `source`, and copies uploaded."""
    room = Room(server, tmp_path / "alice")
    alice = await room.make("alice", upload_limit=20_000_000)
    nicks = [f"bob{number}" for number in range(count)]
    accounts = [await server.add_user(nick) for nick in nicks]
    bobs = [
        Worker(server, f"{account}/{nick}", tmp_path / nick, "--room", str(room.jid))
        for account, nick in zip(accounts, nicks, strict=True)
    ]
    async with alive(*bobs):
        await asyncio.gather(*(one.start() for one in bobs))
        await until(lambda: all(alice.bt._rooms.occupant(room.at(nick), alice.jid) for nick in nicks))
        begun = time.monotonic()
        offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
        ends = await asyncio.gather(*(one.ended() for one in bobs))
        seconds = time.monotonic() - begun
        assert [end["sha256"] for end in ends] == [digest(source)[""]] * count
        await until(lambda: len(offer.transfers) == count and all(transfer.complete for transfer in offer.transfers))
        uploaded = copies(offer)
        await offer.withdraw()
    await alice.bt.aclose()
    return seconds, uploaded


@pytest.mark.acceptance
@pytest.mark.timeout(600)
async def test_eight_in_a_room_have_a_large_file_almost_as_soon_as_one(
    server: Server, tmp_path: Path, report: dict[str, Any]
) -> None:
    source = make_file(tmp_path / "file", 100 * MIB)
    for count in (1, 2, 4, 8):
        seconds, uploaded = await measured(server, tmp_path / str(count), source, count)
        report[str(count)] = {"seconds": round(seconds, 2), "copies": round(uploaded, 2)}
    report["times the time of one"] = round(report["8"]["seconds"] / report["1"]["seconds"], 2)
    assert report["8"]["copies"] <= 1.4
