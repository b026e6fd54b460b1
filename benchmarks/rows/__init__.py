"""The rows of the report: each module measures one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.networks.namespaces import Unavailable as NoNetworks
from tests.servers.process import Unavailable as NoServer

from ..places import MIB, Places
from ..process import Failed
from ..record import Record
from ..ways import Way

#: What may go wrong with a way and is no fault of the suite's: it is told in the report.
TROUBLE = (Failed, RuntimeError, OSError, ModuleNotFoundError, NoNetworks, NoServer)
KIB, GIB = 1024, 1024 * MIB
#: From this size on it matters what else the disk has to write.
_DISK = 16 * MIB


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything. Sizes in bytes, rates in bytes a second.

    :ivar in_band: the largest file sent in-band; more is extrapolated.
    :ivar slow_upload: the largest file uploaded to Prosody, as above.
    :ivar shared: the file for many receivers, sent at `cap`.
    :ivar small: how many small files; `offers`: how many offers; `idle`: how many that nobody accepts, looked at for
        `quiet` seconds.
    :ivar round_trips: of the distance, in seconds.
    :ivar losses: shares of packets.
    :ivar servers: by which the peers are compared.
    :ivar changes: how many of the engine's settings to look at.
    :ivar far_lossy: the file by uTP where packets are lost, which takes minutes else.
    """

    large: int = GIB
    sizes: tuple[int, ...] = (0, 1, KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB)
    in_band: int = 16 * MIB
    slow_upload: int = 32 * MIB
    shared: int = 64 * MIB
    cap: int = 20_000_000
    receivers: tuple[int, ...] = (1, 2, 4, 8)
    small: int = 1000
    offers: int = 1000
    idle: int = 10_000
    quiet: float = 10.0
    pings: int = 200
    round_trips: tuple[float, ...] = (0.020, 0.100, 0.200)
    losses: tuple[float, ...] = (0.0, 0.01)
    servers: tuple[str, ...] = ("prosody", "ejabberd")
    changes: int = 100
    far: int = 32 * MIB
    far_lossy: int = 4 * MIB


#: So little that all rows run within a minute or two; the figures mean nothing.
QUICK = Scale(
    large=4 * MIB,
    sizes=(0, 1, KIB, 64 * KIB, MIB),
    in_band=256 * KIB,
    slow_upload=256 * KIB,
    shared=MIB,
    cap=4_000_000,
    receivers=(1, 2),
    small=10,
    offers=10,
    idle=20,
    quiet=0.5,
    pings=10,
    round_trips=(0.020,),
    losses=(0.01,),
    servers=("prosody",),
    changes=2,
    far=256 * KIB,
    far_lossy=64 * KIB,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a row measures with."""

    scale: Scale
    runs: int
    places: Places


@dataclass(frozen=True, slots=True)
class Row:
    """How a row is measured and shown.

    :ivar about: what the table shows, in sentences.
    :ivar reference: the way that the others are compared with.
    :ivar columns: further figures, with their headings and factors.
    :ivar runs: how often, unless told otherwise.
    :ivar unit: of the figure ``seconds``, which some rows use for something else.
    """

    title: str
    about: str
    reference: str
    run: Callable[[Bench, Record], Awaitable[None]]
    columns: Mapping[str, tuple[str, float]]
    unit: str = "s"
    runs: int = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A way that takes part, and the largest file that it is given (0: any)."""

    way: Callable[[], Way]
    most: int = 0


async def settle(size: int) -> None:
    """Before a file of `size`: let the disk finish what it has, and the servers' connections come to rest, so that
    nobody pays for who came before. (Prosody sends nothing while an answer to the last packet is due, which may take
    40 ms.)"""
    if size >= _DISK:
        await asyncio.to_thread(os.sync)
    await asyncio.sleep(0.1)


async def interleave(bench: Bench, record: Record, case: str, size: int, entries: Mapping[str, Entry]) -> None:
    """Carry a file of `size` by each of `entries`, in fresh processes each, and all again as often as asked."""
    for _ in range(bench.runs):
        for key, entry in entries.items():
            await once(bench, record, case, size, key, entry)


async def once(bench: Bench, record: Record, case: str, size: int, key: str, entry: Entry) -> None:
    """Carry one file, or a smaller one that stands for it."""
    carried = min(size, entry.most or size)
    way = entry.way()
    cell = record.cell(case, key, way.title, way.inside)
    if carried < size:
        cell.note = f"extrapolated from {in_words(carried)}"
    try:
        source: Path = await bench.places.file(carried)
        await settle(carried)
        async with way:
            record.add(cell, await way.carry(source), size / carried if carried else 1.0)
    except TROUBLE as error:
        record.fail(cell, error)


def in_words(size: int) -> str:
    """A number of bytes."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"
