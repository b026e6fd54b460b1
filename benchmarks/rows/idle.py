"""Offers that nobody accepts: memory, processor time, and the restart."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ..process import Answer, Remote, remote
from ..record import Record
from ..ways import Trip
from . import TROUBLE, Bench, Row

#: So many offers that wait for an answer one client keeps.
_MOST = 2_000


async def run(bench: Bench, record: Record) -> None:
    """Once: it takes long, and varies little."""
    try:
        await _measure(bench, record)
    except TROUBLE as error:
        record.fail(record.cell("all", "sender"), error)


async def _measure(bench: Bench, record: Record) -> None:
    count, quiet = bench.scale.idle, bench.scale.quiet
    folder = bench.places.new_folder("idle")
    one, first = await bench.places.accounts("prosody", "laptop", "phone")
    others = [(await bench.places.accounts("prosody", "x", "phone"))[1] for _ in range(_MOST, count, _MOST)]
    sending: dict[str, Any] = {"account": one.config(), "config": {"state_dir": str(folder / "state")}}
    source = await bench.places.file(10 * 1024)
    each = min(count, _MOST)
    async with AsyncExitStack() as stack:
        receivers = [
            await stack.enter_async_context(
                remote("plugin", folder, {"account": to.config(), "config": _hearing(folder)})
            )
            for to in (first, *others)
        ]
        async with remote("plugin", folder, sending) as sender:
            await _rest(record, "no offer", sender, receivers[0], quiet)
            for receiver in receivers:
                made, heard = await asyncio.gather(
                    sender.call("offer_many", to=receiver.ready["jid"], path=str(source), count=each),
                    receiver.call("hear_many", count=each),
                )
                _note(record, f"{each} offers made", "sender", made, made.peak_mib)
                _note(record, f"{each} offers made", "receiver", heard, heard.peak_mib)
            await _rest(record, f"{count} idle offers, {each} of them heard", sender, receivers[0], quiet)
        async with remote("plugin", folder, sending) as sender:
            back = await sender.call("restored", count=each * len(receivers))
            _note(record, "after a restart, until all are back", "sender", back, back.peak_mib)


def _hearing(folder: Path) -> dict[str, Any]:
    return {"download_dir": str(folder), "limits": {"max_offers_per_peer": 10 * _MOST}}


async def _rest(record: Record, case: str, sender: Remote, receiver: Remote, seconds: float) -> None:
    for side, way in ((sender, "sender"), (receiver, "receiver")):
        answer = await side.call("idle", seconds=seconds)
        _note(record, case, way, answer, answer.value["rss_mib"])


def _note(record: Record, case: str, way: str, answer: Answer, memory: float) -> None:
    figures = {"rss": memory, "cpu": answer.cpu}
    record.add(record.cell(case, way, f"slixmpp_bt, {way}"), Trip(answer.ended - answer.begun, figures))


ROW = Row(
    title="Idle offers",
    about=(
        "10,000 offers to devices that accept none, 2,000 each; each case for as long as the time says, and the memory "
        "at its end (or, while offers are made, the most)."
    ),
    reference="sender",
    runs=1,
    run=run,
    columns={"rss": ("memory, MiB", 1), "cpu": ("processor time, s", 1)},
)
