"""Sender and receiver in two processes, over real servers, dialled from either side; full sizes by acceptance."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .servers import Server
from .world import digest, make_file

MIB = 1024**2
ROOT = Path(__file__).parent.parent
SIZES = [pytest.param(32, id="32MiB"), pytest.param(1024, id="1GiB", marks=pytest.mark.acceptance)]
COUNTS = [pytest.param(200, id="200files"), pytest.param(2000, id="2000files", marks=pytest.mark.acceptance)]


class Peer:
    """A process of tests/peer.py."""

    def __init__(self, server: Server, jid: str, home: Path, *options: str) -> None:
        self._arguments = [
            sys.executable, "-m", "tests.peer", "--jid", jid, "--host", server.host, "--port", str(server.port),
            "--ca-certs", str(server.ca_certs), "--home", str(home), *options,
        ]  # fmt: skip

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"

    async def outcome(self) -> dict[str, Any]:
        out, _ = await self._process.communicate()
        assert self._process.returncode == 0
        result: dict[str, Any] = json.loads(out)
        return result

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


def tree(root: Path, count: int) -> Path:
    """`count` files in nested folders, with names that hurt."""
    parts = ["with space", "ümläut ß", "🎉🎂", "x" * 120, "ordinary", ".hidden", "日本語"]
    for index in range(count):
        names = [parts[index % 7], parts[index // 7 % 7], parts[index // 49 % 7]][: 1 + index % 3]
        make_file(root.joinpath(*names, f"file {index} ä🎁".ljust(40 + index % 180, "y")), index * 37 % 5000, index)
    make_file(root / ("n" * 255), 100_000)
    return root


async def transfer(server: Server, tmp_path: Path, source: Path, dials: str) -> tuple[dict[str, Any], dict[str, Any]]:
    a, b = await server.add_user("alice"), await server.add_user("bob")
    unreachable = {"sender": ("--unreachable",), "receiver": (), "both": ()}[dials]
    sender = Peer(server, f"{a}/laptop", tmp_path / "alice", "--to", f"{b}/phone", "--path", str(source), *unreachable)
    receiver = Peer(server, f"{b}/phone", tmp_path / "bob", *(("--unreachable",) if dials == "receiver" else ()))
    try:
        await receiver.start()
        await sender.start()
        async with asyncio.timeout(600):
            return await sender.outcome(), await receiver.outcome()
    finally:
        for peer in (sender, receiver):
            peer.kill()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures, printed at the end; nothing is asserted about them."""
    figures: dict[str, Any] = {}
    yield figures
    print(f"\n{request.node.name}: {json.dumps(figures)}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dials", ["sender", "receiver", "both"])
@pytest.mark.parametrize("mib", SIZES)
async def test_large_file_arrives_between_processes(
    server: Server, tmp_path: Path, mib: int, dials: str, report: dict[str, Any]
) -> None:
    source = tmp_path / "large file"
    with source.open("wb") as file:
        for _ in range(mib // 16):
            file.write(os.urandom(16 * MIB))
    started = time.monotonic()
    sent, received = await transfer(server, tmp_path, source, dials)
    report |= {"seconds": time.monotonic() - started, "sender": sent, "receiver": received}
    assert digest(Path(received["path"])) == digest(source)
    assert received["routes"] == {"swarm": mib * MIB}
    assert sent["chat"]["answered"] == sent["chat"]["sent"] > 0
    assert sent["stanza_bytes"] + received["stanza_bytes"] < 10_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", COUNTS)
async def test_directory_arrives_between_processes(
    server: Server, tmp_path: Path, count: int, report: dict[str, Any]
) -> None:
    source = tree(tmp_path / "many files", count)
    sent, received = await transfer(server, tmp_path, source, "both")
    report |= {"sender": sent, "receiver": received}
    assert digest(Path(received["path"])) == digest(source)
