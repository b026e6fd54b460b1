"""A disk that does not take what arrives, or not now: what is verified stays, and it goes on afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slixmpp_bt import Cancelled, Route, State, Transfer, disk

from .servers import Loopback
from .world import Member, digest, done, make_file, pair, until

SIZE = 3_000_000
#: Bytes per second at which there is time to do something in the middle.
SLOW = 1_500_000


@pytest.fixture
async def loopback(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loopback]:
    monkeypatch.setattr(disk, "_TICK", 0.2)
    async with Loopback() as view:
        yield view


async def running(loopback: Loopback, tmp_path: Path) -> tuple[Member, Member, Path, Transfer, Transfer]:
    """A transfer in the middle: sender, receiver, source, and both sides of it."""
    alice, bob = await pair(loopback, tmp_path, auto_accept=True)
    alice.bt.configure(upload_limit=SLOW)
    source = make_file(tmp_path / "file", SIZE)
    sending = await alice.bt.send_file(bob.jid, source)
    incoming: Transfer = await bob.expect("bt_transfer_start")
    await until(lambda: incoming.progress.transferred > 300_000)
    return alice, bob, source, sending, incoming


@contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """Let nobody make or remove a name in `directory`, not even root, to whom permissions mean nothing."""
    if os.geteuid() == 0:
        set_flag = subprocess.run(["chattr", "+i", directory], check=False, capture_output=True)
        if set_flag.returncode:
            pytest.skip("this file system knows no immutable directories")
    else:
        directory.chmod(0o500)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", directory], check=True)
        else:
            directory.chmod(0o700)


def waits(transfer: Transfer) -> bool:
    return transfer.state is State.WAITING and "waits for the disk" in transfer.diagnosis.get(Route.SWARM, "")


async def arrived(source: Path, *transfers: Transfer) -> None:
    """Wait for the end; the receiver has what was offered."""
    *_, path = await done(*transfers)
    assert digest(path) == digest(source)


async def test_directory_that_became_read_only_is_waited_for_and_published_into(
    loopback: Loopback, tmp_path: Path
) -> None:
    alice, bob, source, sending, incoming = await running(loopback, tmp_path)
    with unwritable(bob.inbox):
        alice.bt.configure(upload_limit=None)
        await until(lambda: waits(incoming))
        assert incoming.progress.transferred == SIZE
        assert not sending.ended
    await arrived(source, sending, incoming)
    assert [path.name for path in bob.inbox.iterdir()] == ["file"]


async def test_transfer_that_waits_for_a_read_only_directory_can_be_cancelled(
    loopback: Loopback, tmp_path: Path
) -> None:
    alice, bob, _, sending, incoming = await running(loopback, tmp_path)
    with unwritable(bob.inbox):
        alice.bt.configure(upload_limit=None)
        await until(lambda: waits(incoming))
        await incoming.cancel()
    for transfer in (sending, incoming):
        with pytest.raises(Cancelled):
            await transfer.wait()


async def test_transfer_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(
    loopback: Loopback, tmp_path: Path
) -> None:
    alice, bob, source, sending, incoming = await running(loopback, tmp_path)
    bob.bt.configure(limits={"min_free_space": 2**60})
    await until(lambda: waits(incoming))
    had = incoming.progress.transferred
    assert had < SIZE
    bob.bt.configure(limits={"min_free_space": 0})
    alice.bt.configure(upload_limit=None)
    await arrived(source, sending, incoming)
