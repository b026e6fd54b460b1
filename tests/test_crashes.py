"""Processes killed in mid-transfer, and what their next lives make of it; full sizes by acceptance."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt.state import SavedDetails, SavedOffer, SavedReceiver
from slixmpp_bt.state import State as SavedState

from .crashes import Worker, alive
from .servers import Ejabberd, Loopback, Process, Prosody, RealServer, Server, started
from .world import digest

MIB = 1024**2
#: Mebibytes, kills, and bytes per second.
SIZES = [
    pytest.param(16, 3, 8, id="16MiB-3kills"),
    pytest.param(256, 20, 20, id="256MiB-20kills", marks=pytest.mark.acceptance),
]


def make_file(path: Path, mib: int) -> Path:
    """A file of random bytes."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(random.randbytes(MIB))
    return path


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures, printed at the end."""
    figures: dict[str, Any] = {}
    yield figures
    print(f"\n{request.node.name}: {json.dumps(figures)}")


async def two(
    server: Server, tmp_path: Path, source: Path, rate: int, *more: str, small_disk: int | None = None
) -> tuple[Worker, Worker]:
    """A sender, capped at `rate` bytes per second, and a receiver, not yet started.

    :param more: options for both.
    :param small_disk: bytes of the disk of the receiver's inbox.
    """
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    config = json.dumps({"upload_limit": rate})
    options = ("--to", str(b), "--path", str(source), "--config", config, *more)
    sender = Worker(server, f"{a}/laptop", tmp_path / "alice", *options)
    before: tuple[str, ...] = ()
    if small_disk is not None:
        mount = f'mount -t tmpfs -o size={small_disk} small "$0" && exec "$@"'
        before = ("unshare", "--mount", "sh", "-c", mount, str(tmp_path / "bob" / "inbox"))
        more += ("--config", json.dumps({"limits": {"min_free_space": 0}}))
    return sender, Worker(server, f"{b}/phone", tmp_path / "bob", *more, before=before)


def moments(size: int, count: int) -> list[int]:
    """When to kill: so many bytes from the beginning, at random, in order."""
    chance = random.Random(size + count)
    return sorted(chance.randrange(size // 50, size - size // 4) for _ in range(count))


def parts(worker: Worker) -> list[Path]:
    """Part files that are left."""
    return [path for path in worker.inbox.iterdir() if path.name.startswith(".")]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("mib", "kills", "rate"), SIZES)
@pytest.mark.parametrize("victim", ["receiver", "sender"])
async def test_killed_side_goes_on_by_itself(
    tmp_path: Path, mib: int, kills: int, rate: int, victim: str, report: dict[str, Any]
) -> None:
    source = make_file(tmp_path / "large file", mib)
    async with Loopback() as server:
        sender, receiver = await two(server, tmp_path, source, rate * MIB)
        killed = receiver if victim == "receiver" else sender
        async with alive(sender, receiver):
            await receiver.start()
            await sender.start()
            for moment in moments(mib * MIB, kills):
                await receiver.moved(moment)
                await killed.kill()
                await killed.start()
            end, there = await receiver.ended(), await sender.ended()
            await receiver.heard(lambda line: line["event"] == "released")
    report["twice"] = receiver.fetched - mib * MIB
    report["share"] = report["twice"] / (mib * MIB)
    assert (end["state"], there["state"]) == ("complete", "complete")
    assert [path.name for path in receiver.inbox.iterdir()] == [source.name]
    assert digest(Path(end["path"])) == digest(source)
    assert report["share"] <= 0.05 or mib < 256


@pytest.mark.parametrize("moment", ["published", pytest.param("noted", marks=pytest.mark.acceptance)])
async def test_receiver_killed_before_it_says_complete_publishes_no_second_copy(tmp_path: Path, moment: str) -> None:
    source = make_file(tmp_path / "file", 1)
    async with Loopback() as server:
        sender, receiver = await two(server, tmp_path, source, 100 * MIB)
        async with alive(sender, receiver):
            await receiver.start("--die", moment)
            await sender.start()
            await receiver.died()
            assert source.name in [path.name for path in receiver.inbox.iterdir()]
            await receiver.start()
            end, there = await receiver.ended(), await sender.ended()
            await receiver.heard(lambda line: line["event"] == "released")
    assert (end["state"], there["state"]) == ("complete", "complete")
    assert [path.name for path in receiver.inbox.iterdir()] == [source.name]
    assert receiver.fetched == MIB


@pytest.mark.server
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(Prosody, (), id="prosody"),
        pytest.param(Ejabberd, ("--sm",), id="ejabberd-sm", marks=pytest.mark.acceptance),
        pytest.param(Prosody, ("--sm",), id="prosody-sm", marks=pytest.mark.acceptance),
        pytest.param(Ejabberd, (), id="ejabberd", marks=pytest.mark.acceptance),
    ],
)
async def test_server_killed_in_mid_transfer_stops_nothing(
    tmp_path: Path, kind: type[RealServer], options: tuple[str, ...]
) -> None:
    source = make_file(tmp_path / "file", 8)
    with started(kind()) as process:
        async with Process(process) as server:
            sender, receiver = await two(server, tmp_path, source, 4 * MIB, *options)
            async with alive(sender, receiver):
                await receiver.start()
                await sender.start()
                await receiver.moved(MIB)
                process.kill()
                end = await receiver.ended()
                assert end["state"] == "complete"
                assert not any(line["event"] == "end" for line in sender.told)
                await asyncio.to_thread(process.start)
                assert (await sender.ended())["state"] == "complete"
    assert digest(Path(end["path"])) == digest(source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
async def test_full_disk_is_waited_for(tmp_path: Path) -> None:
    source = make_file(tmp_path / "file", 8)
    async with Loopback() as server:
        sender, receiver = await two(server, tmp_path, source, 2 * MIB, small_disk=12 * MIB)
        async with alive(sender, receiver):
            await receiver.start()
            await sender.start()
            await receiver.moved(2 * MIB)
            receiver.say("fill")
            await receiver.heard(lambda line: line["event"] == "filled")
            await receiver.asked(lambda counts: "waits for the disk" in json.dumps(counts["why"]))
            assert not any(line["event"] == "end" for line in receiver.told)
            receiver.say("free")
            end, there = await receiver.ended(), await sender.ended()
            await receiver.stop()  # its disk goes with it
    assert (end["state"], there["state"]) == ("complete", "complete")
    assert end["sha256"] == digest(source)[""]


COUNTS = [pytest.param(300, id="300"), pytest.param(10_000, id="10000", marks=pytest.mark.acceptance)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", COUNTS)
async def test_idle_offers_cost_no_torrents_after_a_restart(tmp_path: Path, count: int, report: dict[str, Any]) -> None:
    source = make_file(tmp_path / "file", 1)
    async with Loopback() as server:
        sender, receiver = await two(server, tmp_path, source, 100 * MIB)
        async with alive(sender, receiver):
            await sender.start()  # nobody is there, so the offer waits
            await sender.asked(lambda counts: counts["offered"] == 1)
            await sender.stop()
            await multiply(sender, count)
            await sender.start()
            ready = await sender.heard(lambda line: line["event"] == "ready")
            report |= {key: ready[key] for key in ("seconds", "rss_mib", "cpu")}
            assert (ready["offered"], ready["torrents"]) == (count, 0)
            await receiver.start()
            await receiver.ended()
            await sender.ended()
            counts = await sender.asked(lambda counts: counts["torrents"] == 0)
            report["cpu after"] = counts["cpu"]
            assert counts["offered"] == count - 1


async def multiply(worker: Worker, count: int) -> None:
    """Have so many offers in the worker's state instead of one."""
    account = JID(worker.jid.bare)
    state = await SavedState.open(worker.home / "state", account)
    [offer], [details] = await state.load(SavedOffer), await state.load(SavedDetails)
    receivers = await state.load(SavedReceiver)
    for number in range(1, count):
        id = f"copy-{number}"
        copies = [replace(receiver, offer=id) for receiver in receivers]
        state.save(replace(offer, id=id), replace(details, offer=id), *copies)
    await state.aclose()
