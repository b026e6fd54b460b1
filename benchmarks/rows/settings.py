"""libtorrent's settings one by one, on loopback: what slixmpp_bt's are, and what another value would do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..places import MIB
from ..record import Record
from ..ways import Engine
from . import KIB, Bench, Entry, Row, in_words, interleave

_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "handshake not encrypted": {"out_enc_policy": 2, "in_enc_policy": 2},
    "send_buffer_watermark 256 KiB": {"send_buffer_watermark": 256 * KIB},
    "send_buffer_watermark 4 MiB": {"send_buffer_watermark": 4 * MIB},
    "max_queued_disk_bytes 16 MiB": {"max_queued_disk_bytes": 16 * MIB},
    "max_queued_disk_bytes 100 MiB (default)": {"max_queued_disk_bytes": 100 * MIB},
    "aio_threads 2": {"aio_threads": 2},
    "aio_threads 10 (default)": {"aio_threads": 10},
    "hashing_threads 2": {"hashing_threads": 2},
    "files mapped into memory (default)": {"disk_write_mode": 1, "mmap_file_size_cutoff": 40},
    "max_out_request_queue 2,000": {"max_out_request_queue": 2000},
    "socket buffers 1 MiB": {"recv_socket_buffer_size": MIB, "send_socket_buffer_size": MIB},
}
_PIECES = (256 * KIB, MIB, 4 * MIB)


async def run(bench: Bench, record: Record) -> None:
    """Two bare sessions, fresh each time."""
    places, size = bench.places, bench.scale.large
    entries = {name: Entry(partial(_engine, places, name, change, 0)) for name, change in _CHANGES.items()}
    for piece in _PIECES:
        name = f"pieces of {in_words(piece)}"
        entries[name] = Entry(partial(_engine, places, name, {}, piece))
    chosen = dict(list(entries.items())[: bench.scale.changes])
    await interleave(bench, record, in_words(size), size, chosen)


def _engine(places: Any, name: str, change: Mapping[str, Any], piece: int) -> Engine:
    way = Engine(places, change, piece)
    way.title = name
    return way


ROW = Row(
    title="The engine's settings, one by one",
    about="Two bare libtorrent sessions with slixmpp_bt's settings, and with one of them changed. Flush inside.",
    reference="ours",
    run=run,
    columns={
        "receiver peak": ("memory, receiver, MiB", 1),
        "receiver cpu": ("processor time, receiver, s", 1),
    },
)
