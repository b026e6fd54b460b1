"""Every size, by the ways that need nothing but an XMPP server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from ..record import Record
from ..ways import InBand, Plugin, Upload, Way
from . import KIB, TROUBLE, Bench, Row, in_words, settle

#: Files up to this size are carried so often in each run.
_SMALL, _TIMES = 1024 * KIB, 5


async def run(bench: Bench, record: Record) -> None:
    """The sides of all ways stay up, and each size goes by each way in turn."""
    for server in bench.scale.servers:
        ways: dict[str, Way] = {
            f"sealed, {server}": Plugin(bench.places, server, "sealed", hashed=False),
            f"in-band, {server}": InBand(bench.places, server),
            f"http, {server}": Upload(bench.places, server),
        }
        for way, title in zip(ways.values(), ("slixmpp_bt", "in-band", "HTTP"), strict=True):
            way.title = f"{title}, {server}"
        async with AsyncExitStack() as stack:
            for key, way in list(ways.items()):
                try:
                    await stack.enter_async_context(way)
                except TROUBLE as error:
                    record.fail(record.cell("all", key, way.title), error)
                    del ways[key]
            await _measure(bench, record, server, ways)


async def _measure(bench: Bench, record: Record, server: str, ways: Mapping[str, Way]) -> None:
    plugin = ways.get(f"sealed, {server}")
    if isinstance(plugin, Plugin):
        cell = record.cell("XMPP round trip", f"sealed, {server}", plugin.title)
        cell.series["seconds"] = await plugin.round_trip(bench.scale.pings)
    first = await bench.places.file(64 * KIB)
    for key, way in ways.items():
        await _carry(record, f"{in_words(64 * KIB)}, the first of a process", key, way, first)
    for _ in range(bench.runs):
        for size in bench.scale.sizes:
            source = await bench.places.file(size)
            for _ in range(_TIMES if size <= _SMALL and bench.runs > 1 else 1):
                for key, way in ways.items():
                    if size <= _most(bench, key):
                        await settle(size)
                        await _carry(record, in_words(size), key, way, source)


def _most(bench: Bench, key: str) -> int:
    limits = {"in-band": bench.scale.in_band, "http, prosody": bench.scale.slow_upload}
    return next((most for name, most in limits.items() if key.startswith(name)), bench.scale.large)


async def _carry(record: Record, case: str, key: str, way: Way, source: Path) -> None:
    cell = record.cell(case, key, way.title, way.inside)
    try:
        record.add(cell, await way.carry(source))
    except TROUBLE as error:
        record.fail(cell, error)
        await way.reopen()


ROW = Row(
    title="Every size",
    about=(
        "Seconds, by size and way; in brackets how many times that of slixmpp_bt on the same server. As above, but in "
        "processes that have sent something before, mode ``sealed``, hashing inside the time. Not run: in-band above "
        "16 MiB, and HTTP upload to Prosody above 32 MiB."
    ),
    reference="sealed",
    run=run,
    columns={},
)
