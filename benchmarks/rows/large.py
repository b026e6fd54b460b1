"""A large file from one process to another, by every way."""

from __future__ import annotations

from functools import partial

from ..record import Record
from ..ways import BestEngine, Engine, InBand, Plugin, Raw, Socks5, Upload, Wormhole
from . import Bench, Entry, Row, in_words, interleave


async def run(bench: Bench, record: Record) -> None:
    """One file, fresh processes each time."""
    places, scale = bench.places, bench.scale
    entries = {
        "private": Entry(partial(Plugin, places, "prosody", "private", hashed=True)),
        "sealed": Entry(partial(Plugin, places, "prosody", "sealed", hashed=True)),
        "private, hashing": Entry(partial(Plugin, places, "prosody", "private", hashed=False)),
        "sealed, hashing": Entry(partial(Plugin, places, "prosody", "sealed", hashed=False)),
        "engine": Entry(partial(Engine, places)),
        "engine, best": Entry(partial(BestEngine, places)),
        "sendfile": Entry(partial(Raw, places)),
        "wormhole": Entry(partial(Wormhole, places)),
    }
    for server in scale.servers:
        slow = scale.slow_upload if server == "prosody" else 0
        entries[f"socks5, {server}"] = Entry(partial(Socks5, places, server))
        entries[f"http, {server}"] = Entry(partial(Upload, places, server), slow)
        entries[f"in-band, {server}"] = Entry(partial(InBand, places, server), scale.in_band)
    await interleave(bench, record, in_words(scale.large), scale.large, entries)


ROW = Row(
    title="One large file, one to one",
    about=(
        "From the moment the sender is told to send until both sides have ended and the file is on the receiver's "
        "disk (fsync). Both processes are up, logged in and warm before. The file is in the page cache."
    ),
    reference="private",
    run=run,
    columns={
        "sender lag p99": ("lag p99, sender, ms", 1e3),
        "sender lag max": ("lag max, sender, ms", 1e3),
        "receiver lag max": ("lag max, receiver, ms", 1e3),
        "sender peak": ("memory, sender, MiB", 1),
        "receiver peak": ("memory, receiver, MiB", 1),
        "stanza bytes": ("XMPP bytes", 1),
    },
)
