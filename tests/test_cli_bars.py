"""The progress bars of slixmpp-bt, drawn on a terminal in memory while real transfers run."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from slixmpp_bt import IncomingOffer
from slixmpp_bt.cli.bars import Bars, clock

from .commands import friends, moving, peer
from .world import make_file, until


class Screen(io.StringIO):
    """What was written to a terminal, the same things over and over as it is redrawn."""

    def __init__(self) -> None:
        super().__init__()
        self.bars = Bars(Console(file=self, force_terminal=True, color_system=None, width=200))

    async def shows(self, words: str) -> None:
        """Wait until `words` come, from now on."""
        self.seek(0)
        self.truncate()
        await until(lambda: words in self.getvalue())


async def test_bars_of_a_transfer_say_what_is_going_on(tmp_path: Path) -> None:
    file = make_file(tmp_path / "[b]a.bin", 10_000_000)
    screen = Screen()
    async with (
        friends() as server,
        peer(server, "alice", tmp_path, upload_limit=100_000) as alice,
        peer(server, "bob", tmp_path) as bob,
    ):
        with screen.bars as bars:
            transfer = await alice.bt.send_file("bob@localhost", file)
            following = asyncio.create_task(bars.follow(transfer, "[b]a.bin\x1b to bob"))
            await screen.shows("[b]a.bin\ufffd to bob")
            await screen.shows("the receiver has not accepted yet")
            offer: IncomingOffer = await bob.told("bt_offer")
            received = await offer.accept()
            await moving(received)
            await screen.shows("kB of 10.0 MB, ")
            await transfer.pause()
            await screen.shows("paused on this side")
            with bars.hidden():
                question, before = screen.getvalue(), transfer.progress.transferred
                await transfer.resume()
                await until(lambda: transfer.progress.transferred > before)
                assert screen.getvalue() == question
            await screen.shows("kB/s")
            alice.bt.configure(upload_limit=None)
            await following
            assert "[b]a.bin\ufffd to bob: 10.0 MB, complete\n" in screen.getvalue()
            assert transfer.complete


async def test_bars_of_a_failure_leave_nothing_behind(tmp_path: Path) -> None:
    out = io.StringIO()
    async with friends() as server, peer(server, "alice", tmp_path) as alice:
        with Bars(Console(file=out)) as bars:
            transfer = await alice.bt.send_file("bob@localhost", make_file(tmp_path / "a.bin", 10))
            following = asyncio.create_task(bars.follow(transfer, "a.bin"))
            await transfer.cancel()
            await following
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (7, "0:07"), (59.6, "1:00"), (750, "12:30"), (10_800, "3:00:00")]
)
def test_clock_of_seconds_is_what_a_clock_shows(seconds: float, text: str) -> None:
    assert clock(seconds) == text
