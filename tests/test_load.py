"""Many transfers: at once, and one after another; full numbers by acceptance."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest

from .servers import Server
from .world import digest, done, make_file, pair, until

AT_ONCE = [pytest.param(10, id="10"), pytest.param(50, id="50", marks=pytest.mark.acceptance)]
IN_A_ROW = [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.acceptance)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", AT_ONCE)
async def test_many_transfers_at_once_end_well(server: Server, tmp_path: Path, count: int) -> None:
    alice, bob = await pair(server, tmp_path, limits={"max_transfers": count})
    sources = [make_file(tmp_path / "out" / f"file {n}", 30_000 * n, n) for n in range(count)]
    sending = await asyncio.gather(*(alice.bt.send_file(bob.jid.bare, source) for source in sources))
    async with asyncio.timeout(300):
        await asyncio.gather(*(transfer.wait() for transfer in sending))
    for source in sources:
        assert digest(bob.inbox / source.name) == digest(source)
    await until(lambda: not bob.bt.transfers)
    assert bob.leftovers() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", IN_A_ROW)
async def test_transfers_in_a_row_end_well(server: Server, tmp_path: Path, count: int) -> None:
    alice, bob = await pair(server, tmp_path)
    rng, times = random.Random(7), []
    for index in range(count):
        source = make_file(tmp_path / f"file {index}", int(2 ** rng.uniform(0, 20)), index)
        started = time.monotonic()
        await done(await alice.bt.send_file(bob.jid.bare, source))
        times.append(time.monotonic() - started)
        assert digest(bob.inbox / source.name) == digest(source)
    times.sort()
    print(json.dumps({"server": server.name, "count": count, "median": times[count // 2], "max": times[-1]}))
