"""What becomes of a published source is noticed by itself, and looking for it costs little."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from slixmpp import JID

from slixmpp_bt.access import Access
from slixmpp_bt.catalogue.looking import PACE, REST, look_round
from slixmpp_bt.constants import Mode, Route, State
from slixmpp_bt.errors import SourceChanged
from slixmpp_bt.messages import Accept
from slixmpp_bt.outgoing import OutgoingOffer
from slixmpp_bt.policy import Peer

from .fakes import WEEK, Party, World, finish, until
from .test_publication import Shelf


@asynccontextmanager
async def rounds(party: Party) -> AsyncIterator[None]:
    """Somebody looks round."""
    looking = asyncio.create_task(look_round(party.exchange.registry.published))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        assert looking.cancelled()


async def published(world: World, party: Party, path: Path) -> OutgoingOffer:
    offer = party.exchange.offer(
        to=JID(party.jid.bare), local=party.jid, path=path, mode=Mode.PRIVATE, mtype="headline",
        node="n", access=Access("open"), expires=datetime.fromtimestamp(world.clock() + WEEK, UTC),
    )  # fmt: skip
    await until(lambda: offer.is_published)
    return offer


def tree(world: World, name: str) -> Path:
    directory = world.home / name
    (directory / "inner").mkdir(parents=True)
    (directory / "inner" / "file").write_bytes(b"content")
    return directory


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: (path / "inner" / "file").write_bytes(b"other content"),
    "deleted": shutil.rmtree,
    "moved": lambda path: path.rename(path.with_name("elsewhere")),
    "longer by a file": lambda path: (path / "another").write_bytes(b""),
    "a link now": link,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_source_that_is_not_what_it_was_is_withdrawn(tmp_path: Path, change: Callable[[Path], object]) -> None:
    async with World(tmp_path) as world:
        alice = world.party("alice@a.example/laptop")
        alice.context.shelf = shelf = Shelf()
        stays, goes = [await published(world, alice, tree(world, name)) for name in ("stays", "goes")]
        async with rounds(alice):
            await world.pass_time(2 * PACE)
            assert (stays.state, goes.state) == (State.OFFERED, State.OFFERED)
            change(goes.path)
            await world.pass_time(PACE + 1)
            await until(lambda: goes.state.terminal)
            await until(lambda: shelf.items == [stays.id])
        assert isinstance(goes.error, SourceChanged)
        assert stays.state is State.OFFERED


class Slow:
    """What takes a while to look at."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    async def look(self) -> None:
        self.looks.append(asyncio.get_running_loop().time())
        await asyncio.sleep(2.0)


async def test_slow_disk_is_looked_at_rarely(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        slow = Slow()
        looking = asyncio.create_task(look_round(lambda: [cast(OutgoingOffer, slow)], asyncio.get_running_loop().time))
        await world.pass_time(PACE + 2.5 * (2 + 2 * REST))
        looking.cancel()
        await asyncio.wait([looking])
        pauses = [later - earlier for earlier, later in pairwise(slow.looks)]
        assert pauses == pytest.approx([2 + 2 * REST] * 2, abs=1)


async def test_source_that_somebody_fetches_may_get_company(tmp_path: Path) -> None:
    """What was offered is still there, and whether it stays that the seed watches."""
    async with World(tmp_path) as world:
        alice = world.party("alice@a.example/laptop")
        alice.context.shelf = Shelf()
        offer = await published(world, alice, tree(world, "folder"))
        bob = JID("bob@b.example/phone")
        accept = Accept(offer.id, "t-1", routes=frozenset({Route.SWARM}))
        await finish(alice.exchange.receive(accept, Peer(jid=bob, bare=JID(bob.bare)), alice.jid))
        async with rounds(alice):
            (offer.path / "another").write_bytes(b"")
            await world.pass_time(2 * PACE)
            assert offer.state is State.OFFERED
