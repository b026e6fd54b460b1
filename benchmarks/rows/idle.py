"""Offers that nobody accepts: memory, processor time, and the restart."""

from __future__ import annotations

import asyncio
from typing import Any

from ..process import Answer, remote
from ..record import Record
from ..ways import Trip
from . import TROUBLE, Bench, Row


async def run(bench: Bench, record: Record) -> None:
    """Once: it takes long, and varies little."""
    try:
        await _measure(bench, record)
    except TROUBLE as error:
        record.fail(record.cell("all", "sender"), error)


async def _measure(bench: Bench, record: Record) -> None:
    count, quiet = bench.scale.idle, bench.scale.quiet
    folder = bench.places.new_folder("idle")
    one, other = await bench.places.accounts("prosody", "laptop", "phone")
    sending: dict[str, Any] = {"account": one.config(), "config": {"state_dir": str(folder / "state")}}
    limits = {"max_offers_per_peer": 10 * count}
    hearing = {"account": other.config(), "config": {"download_dir": str(folder), "limits": limits}}
    source = await bench.places.file(10 * 1024)

    def note(case: str, way: str, answer: Answer, rss: float) -> None:
        title = f"slixmpp_bt, {way}"
        figures = {"rss": rss, "cpu": answer.cpu}
        record.add(record.cell(case, way, title), Trip(answer.ended - answer.begun, figures))

    async with remote("plugin", folder, hearing) as receiver:
        async with remote("plugin", folder, sending) as sender:
            await sender.call("see", jid=other.jid)
            for side, way in ((sender, "sender"), (receiver, "receiver")):
                answer = await side.call("idle", seconds=quiet)
                note("no offer", way, answer, answer.value["rss_mib"])
            made, heard = await asyncio.gather(
                sender.call("offer_many", to=other.jid, path=str(source), count=count),
                receiver.call("hear_many", count=count),
            )
            note(f"{count} offers made", "sender", made, made.peak_mib)
            note(f"{count} offers made", "receiver", heard, heard.peak_mib)
            for side, way in ((sender, "sender"), (receiver, "receiver")):
                answer = await side.call("idle", seconds=quiet)
                note(f"{count} idle offers", way, answer, answer.value["rss_mib"])
        async with remote("plugin", folder, sending) as sender:
            back = await sender.call("restored", count=count)
            note("after a restart, until all are back", "sender", back, back.peak_mib)


ROW = Row(
    title="Idle offers",
    about="10,000 offers to a device that accepts none; each case for as long as the time says.",
    reference="sender",
    runs=1,
    run=run,
    columns={"rss": ("memory, MiB", 1), "cpu": ("processor time, s", 1)},
)
