"""What hashing costs: time against the hardware's, and the event loop's lag."""

from __future__ import annotations

import asyncio

from .. import hashing
from ..record import Record
from ..ways import Trip
from . import Bench, Row, in_words, settle


async def run(bench: Bench, record: Record) -> None:
    """The page cache is warm: the file was just written."""
    source = await bench.places.file(bench.scale.large)
    await settle(bench.scale.large)
    case = in_words(bench.scale.large)
    for _ in range(bench.runs):
        took = await asyncio.to_thread(hashing.raw, source)
        record.add(record.cell(case, "hardware", "hashlib's SHA-256 in as many threads as there are cores"), Trip(took))
        took, lags = await hashing.manifest(source)
        lags.sort()
        figures = {"lag p50": lags[len(lags) // 2], "lag p99": lags[len(lags) * 99 // 100], "lag max": lags[-1]}
        record.add(record.cell(case, "manifest", "slixmpp_bt: the manifest (BEP 52 Merkle tree)"), Trip(took, figures))


ROW = Row(
    title="Hashing",
    about="Hashing a file from the page cache, on all cores, while the event loop is watched.",
    reference="manifest",
    run=run,
    columns={"lag p50": ("lag p50, ms", 1e3), "lag p99": ("lag p99, ms", 1e3), "lag max": ("lag max, ms", 1e3)},
)
