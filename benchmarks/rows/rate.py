"""How many small files, and how many offers, a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..process import remote
from ..record import Record
from ..ways import InBand, Plugin, Trip, Upload
from . import KIB, TROUBLE, Bench, Row

_SIZE = 10 * KIB
_AT_ONCE = 16


async def run(bench: Bench, record: Record) -> None:
    """Small files by the ways that need nothing but a server; then offers that nobody accepts."""
    folder = bench.places.new_folder("small")
    sources = [await bench.places.file(_SIZE, f"small {number}") for number in range(bench.scale.small)]
    ways: dict[str, Callable[[], Plugin | InBand | Upload]] = {}
    for server in bench.scale.servers:
        ways |= {
            f"sealed, {server}": partial(Plugin, bench.places, server, "sealed", hashed=False),
            f"private, {server}": partial(Plugin, bench.places, server, "private", hashed=False),
            f"in-band, {server}": partial(InBand, bench.places, server),
            f"http, {server}": partial(Upload, bench.places, server),
        }
    for _ in range(bench.runs):
        for key, make in ways.items():
            way = make()
            server = key.rpartition(" ")[2]
            cell = record.cell(f"files of 10 KiB, {server}", key.partition(",")[0], way.title)
            try:
                async with way:
                    trip = await way.carry_many(sources, _AT_ONCE)
                record.add(cell, Trip(trip.seconds / len(sources), {"rate": len(sources) / trip.seconds}))
            except TROUBLE as error:
                record.fail(cell, error)
        cell = record.cell("offers, prosody", "sealed", "slixmpp_bt: made, and heard by the other side's application")
        try:
            record.add(cell, await _offers(bench, folder, sources[0]))
        except TROUBLE as error:
            record.fail(cell, error)


async def _offers(bench: Bench, folder: Path, source: Path) -> Trip:
    count = bench.scale.offers
    one, other = await bench.places.accounts("prosody", "laptop", "phone")
    hearing = {"download_dir": str(folder), "limits": {"max_offers_per_peer": 10 * count}}
    async with (
        remote("plugin", folder, {"account": other.config(), "config": hearing}) as receiver,
        remote("plugin", folder, {"account": one.config(), "config": {}}) as sender,
    ):
        await sender.call("see", jid=other.jid)
        sent, heard = await asyncio.gather(
            sender.call("offer_many", to=other.jid, path=str(source), count=count),
            receiver.call("hear_many", count=count),
        )
    seconds = max(sent.ended, heard.ended) - sent.begun
    return Trip(seconds / count, {"rate": count / seconds})


ROW = Row(
    title="Small files and offers a second",
    about="1,000 files of 10 KiB, 16 at once, to the end of the last one; and 1,000 offers, one after another.",
    reference="sealed",
    run=run,
    columns={"rate": ("a second", 1)},
)
