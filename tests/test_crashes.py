"""Processes killed in mid-transfer, and what their next lives make of it; full sizes by acceptance."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .crashes import Worker, alive
from .servers import Loopback, Server
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


async def two(server: Server, tmp_path: Path, source: Path, rate: int) -> tuple[Worker, Worker]:
    """A sender, capped at `rate` bytes per second, and a receiver, not yet started."""
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    config = json.dumps({"upload_limit": rate})
    options = ("--to", str(b), "--path", str(source), "--config", config)
    return Worker(server, f"{a}/laptop", tmp_path / "alice", *options), Worker(server, f"{b}/phone", tmp_path / "bob")


def moments(size: int, count: int) -> list[int]:
    """When to kill: so many bytes from the beginning, at random, in order."""
    chance = random.Random(size + count)
    return sorted(chance.randrange(size // 50, size - size // 20) for _ in range(count))


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
