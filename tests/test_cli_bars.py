"""The progress bars of slixmpp-bt, drawn on a terminal in memory while real transfers run."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from slixmpp_bt import IncomingOffer, Progress, Route
from slixmpp_bt.cli.bars import Bars, brought, clock, reasons

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
            assert "[b]a.bin\ufffd to bob: 10.0 MB by swarm, complete\n" in screen.getvalue()
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


async def test_bars_of_a_receiver_whose_sender_pauses_say_that_and_nothing_else(tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    screen = Screen()
    async with (
        friends() as server,
        peer(server, "alice", tmp_path, upload_limit=100_000) as alice,
        peer(server, "bob", tmp_path, auto_accept=True) as bob,
    ):
        with screen.bars as bars:
            transfer = await alice.bt.send_file("bob@localhost", file)
            received = await bob.told("bt_transfer_start")
            following = asyncio.create_task(bars.follow(received, "a.bin"))
            await moving(received)
            await transfer.pause()
            await screen.shows("of 10.0 MB")
            await until(lambda: "the sender has stopped serving for now" in reasons(received.diagnosis))
            assert reasons(received.diagnosis) == "the sender has stopped serving for now"
            await received.cancel()
            await following


async def test_bars_of_a_transfer_by_a_stream_name_the_route_instead_of_peers(tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 500_000)
    screen = Screen()
    async with (
        friends() as server,
        peer(server, "alice", tmp_path, routes=["in-band"], upload_limit=50_000) as alice,
        peer(server, "bob", tmp_path, auto_accept=True) as bob,
    ):
        with screen.bars as bars:
            transfer = await alice.bt.send_file("bob@localhost", file)
            following = asyncio.create_task(bars.follow(await bob.told("bt_transfer_start"), "a.bin"))
            await screen.shows(" left, by in-band")
            alice.bt.configure(upload_limit=None)
            await transfer.wait()
            await following


@pytest.mark.parametrize(
    ("diagnosis", "text"),
    [
        ({}, ""),
        (dict.fromkeys(Route, "paused on this side"), "paused on this side"),
        (
            {"inline": "too large", "swarm": "dialling", "relay": "it was not needed so far", "in-band": "no"},
            "dialling",
        ),
        (
            {"inline": "too large", "swarm": "off", "relay": "it failed: no proxy", "in-band": "off"},
            "swarm, in-band: off; relay: it failed: no proxy",
        ),
        ({"in-band": "it failed: timeout"}, "in-band: it failed: timeout"),
    ],
)
def test_reasons_of_a_diagnosis_are_those_that_matter(diagnosis: dict[str, str], text: str) -> None:
    assert reasons({Route(route): why for route, why in diagnosis.items()}) == text


def test_brought_by_several_routes_names_each_with_its_bytes() -> None:
    now = Progress(100_000, 100_000, routes={Route.RELAY: 40_000, Route.SWARM: 60_000})
    assert brought(now) == "60.0 kB by swarm, 40.0 kB by relay"


def test_brought_of_an_empty_file_is_nothing_by_no_route() -> None:
    assert brought(Progress()) == "0 bytes"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (7, "0:07"), (59.6, "1:00"), (750, "12:30"), (10_800, "3:00:00")]
)
def test_clock_of_seconds_is_what_a_clock_shows(seconds: float, text: str) -> None:
    assert clock(seconds) == text
