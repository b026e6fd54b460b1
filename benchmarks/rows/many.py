"""One file to many devices, from a sender whose rate is capped."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from ..process import remote
from ..record import Record
from ..ways import Trip
from . import TROUBLE, Bench, Row


async def run(bench: Bench, record: Record) -> None:
    """Each number of receivers in turn, in fresh processes."""
    for _ in range(bench.runs):
        for count in bench.scale.receivers:
            cell = record.cell(f"{count} receivers", "sealed", "slixmpp_bt, sealed")
            try:
                record.add(cell, await _share(bench, count))
            except TROUBLE as error:
                record.fail(cell, error)
    one = record.cell("1 receivers", "sealed").median("seconds")
    for cell in [cell for cell in record.cells if cell.series and one is not None]:
        count = int(cell.case.split()[0])
        times = record.cell(cell.case, "one by one", f"{count} times the time of one")
        times.series["seconds"] = [value * count for value in record.cell("1 receivers", "sealed").series["seconds"]]


async def _share(bench: Bench, count: int) -> Trip:
    folder = bench.places.new_folder("many")
    source = await bench.places.file(bench.scale.shared)
    names = [f"device{number}" for number in range(count)]
    accounts = await bench.places.accounts("prosody", "laptop", *names)
    async with AsyncExitStack() as stack:
        receivers = [
            await stack.enter_async_context(
                remote("plugin", folder, {"account": account.config(), "config": _receiving(folder / name)})
            )
            for account, name in zip(accounts[1:], names, strict=True)
        ]
        config = {"account": accounts[0].config(), "config": {"upload_limit": bench.scale.cap}, "counting": True}
        sender = await stack.enter_async_context(remote("plugin", folder, config))
        for account in accounts[1:]:
            await sender.call("see", jid=account.jid)
        to = accounts[1].jid.partition("/")[0]
        sent, *received = await asyncio.gather(
            sender.call("offer", to=to, path=str(source), count=count),
            *(receiver.call("receive") for receiver in receivers),
        )
    ended = max(answer.ended for answer in (sent, *received))
    figures = {"copies": sent.value["uploaded"] / bench.scale.shared}
    for answer in received:
        await asyncio.to_thread(_remove, answer.value["path"])
    return Trip(ended - sent.begun, figures)


def _receiving(inbox: Path) -> dict[str, object]:
    return {"download_dir": str(inbox), "auto_accept": True}


def _remove(path: str) -> None:
    Path(path).unlink()


ROW = Row(
    title="Many receivers of one offer",
    about=(
        "64 MiB to N devices of one account, each in a process of its own, from a sender capped at 20 MB/s; until all "
        "have it. The receivers share what they have."
    ),
    reference="sealed",
    run=run,
    columns={"copies": ("copies uploaded by the sender", 1)},
)
