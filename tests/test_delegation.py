"""Receivers that have everything admit others in the place of a sender that is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt import Mode

from .servers import Loopback
from .test_persistence import Person
from .world import digest, done, make_file, until


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


class Three:
    """Alice, and Bob with two devices: the phone takes what comes at once, and serves it on; the tablet when told."""

    def __init__(self, server: Loopback, home: Path, a: Any, b: Any, **config: Any) -> None:
        self.home, self.account = home, b
        self.alice = Person(server, a, home / "alice", **config)
        self.phone = Person(server, b, home / "phone", **{"auto_accept": True, "seed_after": 600, **config})
        self.tablet = Person(server, b, home / "tablet", **config)

    async def stop(self) -> None:
        for person in (self.alice, self.phone, self.tablet):
            if hasattr(person, "one"):
                await person.stop()


@pytest.fixture
async def three(loopback: Loopback, tmp_path: Path) -> AsyncIterator[Three]:
    a, b = await loopback.add_user("alice"), await loopback.add_user("bob")
    await loopback.subscribe(a, b)
    party = Three(loopback, tmp_path, a, b)
    yield party
    await party.stop()


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("size", [3_000, 300_000])
async def test_device_fetches_from_another_one_when_the_sender_is_gone(three: Three, mode: Mode, size: int) -> None:
    phone, tablet = await three.phone.start("phone"), await three.tablet.start("tablet")
    alice = await three.alice.start("laptop")
    source = make_file(three.home / "file", size)
    await alice.bt.offer(three.account, source, mode=mode, delegate=True)
    incoming = await tablet.expect_offer()
    first = await phone.expect("bt_transfer_end")
    assert first.complete
    await until(lambda: phone.bt._exchange.delegation.offers)
    await three.alice.crash()
    del three.alice.one
    transfer = await incoming.accept()
    [path] = await done(transfer)
    assert digest(path) == digest(source)
    assert transfer.peer == phone.jid
    assert phone.bt.offers == ()
