"""slixmpp-bt cancel, as a process with a command line."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slixmpp_bt import IncomingOffer, State
from slixmpp_bt.testing import LoopbackServer

from .commands import CLI, account, error_until, friends, moving, peer, ran, running, stop
from .world import make_file


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with friends() as server:
        yield server


def cancel(server: LoopbackServer) -> list[str]:
    """The command line by which alice gives up everything."""
    return [*CLI, "cancel", *account(server, "alice")]


async def test_cancel_ends_what_was_kept_and_tells_the_other_sides(server: LoopbackServer, tmp_path: Path) -> None:
    home, account_ = tmp_path / "alice", account(server, "alice")
    async with peer(server, "bob", tmp_path, upload_limit=100_000) as bob:
        async with running(*CLI, "receive", "--anybody", "--dir", "in", *account_, home=home) as process:
            await server.wait_available("alice")
            theirs = await bob.bt.send_file("alice@localhost", make_file(tmp_path / "theirs.bin", 10_000_000))
            await bob.told("bt_transfer_start")
            await stop(process)
        assert len(list((home / "in").iterdir())) == 1
        own = make_file(tmp_path / "own.bin", 10)
        async with running(*CLI, "send", "bob@localhost", str(own), *account_, home=home) as process:
            offer: IncomingOffer = await bob.told("bt_offer")
            await stop(process, signal.SIGTERM)
        code, out, error = await ran(*cancel(server), home=home)
        assert await bob.told("bt_offer_end") is offer
        assert await bob.told("bt_transfer_end") is theirs
        assert (theirs.state, str(theirs.error)) == (State.CANCELLED, "it was given up")
    assert (code, out) == (0, "")
    withdrawn, cancelled = error.splitlines()
    assert withdrawn == "withdrawn: offer of own.bin to bob@localhost"
    assert cancelled.startswith("cancelled: theirs.bin from bob@localhost, ")
    assert list((home / "in").iterdir()) == []
    assert await ran(*cancel(server), home=home) == (0, "", "nothing is kept\n")


async def test_cancel_whose_other_side_is_away_says_who_is_told_later(server: LoopbackServer, tmp_path: Path) -> None:
    home, account_ = tmp_path / "alice", account(server, "alice")
    async with peer(server, "bob", tmp_path, auto_accept=True, download_limit=1_000_000) as bob:
        own = make_file(tmp_path / "own.bin", 10_000_000)
        async with running(*CLI, "send", "bob@localhost", str(own), *account_, home=home) as process:
            await moving(await bob.told("bt_transfer_start"))
            await stop(process)
        await bob.xmpp.disconnect()
        code, _, error = await ran(*cancel(server), home=home)
    assert code == 0
    assert error.startswith("cancelled: own.bin to bob@localhost, ")
    assert error.endswith("bob@localhost could not be told yet: the next send or receive does that\n")


async def test_cancel_beside_a_running_command_leaves_that_alone(server: LoopbackServer, tmp_path: Path) -> None:
    home = tmp_path / "alice"
    line = [*CLI, "receive", "--anybody", *account(server, "alice")]
    async with running(*line, home=home) as process:
        await error_until(process, "waiting for files")
        code, _, error = await ran(*cancel(server), home=home)
    assert code == 1
    assert error == "slixmpp-bt: another receive of alice@localhost is running: it is left as it is\n"


async def test_cancel_where_nothing_was_ever_kept_does_not_even_connect(server: LoopbackServer, tmp_path: Path) -> None:
    line = cancel(server)
    await server.stop()
    assert await ran(*line, home=tmp_path / "alice") == (0, "", "nothing is kept\n")
