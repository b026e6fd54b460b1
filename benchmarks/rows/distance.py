"""Over a line with delay and loss, between network namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from tests.networks import namespaces
from tests.networks.internet import DOMAIN, SERVICES, Host, Internet, Line
from tests.networks.server import XMPP_PORT, CoreProsody
from tests.servers import PASSWORD, started

from ..places import MIB, Account, Places
from ..record import Record
from ..ways import Engine, Plugin
from . import TROUBLE, Bench, Entry, Row, in_words, interleave

_UTP = {"enable_outgoing_utp": True, "enable_incoming_utp": True}
_ONLY_UTP = {**_UTP, "enable_outgoing_tcp": False, "enable_incoming_tcp": False}
_BIG = {
    "recv_socket_buffer_size": 8 * MIB,
    "send_socket_buffer_size": 8 * MIB,
    "send_buffer_watermark": 16 * MIB,
    "max_out_request_queue": 4000,
    "max_allowed_in_request_queue": 4000,
}


class Far(Plugin):
    """slixmpp_bt on two hosts, with Prosody between."""

    def __init__(self, places: Places, server: CoreProsody, hosts: tuple[Host, Host]) -> None:
        super().__init__(places, "prosody", "sealed", hashed=True)
        self._core, self._hosts = server, hosts

    async def open(self) -> None:
        inbox = self.places.new_folder("inbox")
        configs: list[dict[str, Any]] = [
            {"state_dir": str(self.folder / "state")},
            {"download_dir": str(inbox), "auto_accept": True},
        ]
        sides = [
            await self.side("plugin", tuple(host.command()), account=self._account(name), config=self._with(config))
            for host, name, config in zip(self._hosts, ("alice", "bob"), configs, strict=True)
        ]
        self._sender, self._receiver = sides
        self._to = f"bob@{DOMAIN}/device"
        await self._sender.call("see", jid=self._to)

    def _account(self, name: str) -> dict[str, Any]:
        jid = f"{name}@{DOMAIN}/device"
        return Account(jid, PASSWORD, SERVICES[0], XMPP_PORT, str(self._core.ca_certs)).config()

    @staticmethod
    def _with(config: dict[str, Any]) -> dict[str, Any]:
        return {"listen": ["0.0.0.0"], **config}


async def run(bench: Bench, record: Record) -> None:
    """Each distance in an internet of its own."""
    try:
        namespaces.require()
    except TROUBLE as error:
        record.fail(record.cell("all", "sealed"), error)
        return
    for trip in bench.scale.round_trips:
        for loss in bench.scale.losses:
            await _measure(bench, record, trip, loss)


async def _measure(bench: Bench, record: Record, trip: float, loss: float) -> None:
    """A packet takes both lines, so each line delays it by a quarter of the round trip."""
    with ExitStack() as stack:
        internet = stack.enter_context(Internet())
        server = await asyncio.to_thread(stack.enter_context, started(CoreProsody(internet)))
        lines = Line(versions=(4,), delay=trip / 4, loss=loss), Line(versions=(4,), delay=trip / 4)
        hosts = internet.attach(lines[0]), internet.attach(lines[1])
        case = f"RTT {trip * 1000:.0f} ms, loss {loss:.0%}"
        entries = {"sealed": Entry(partial(Far, bench.places, server, hosts))}
        entries |= _engines(bench, hosts, bool(loss))
        await interleave(bench, record, case, bench.scale.far, entries)


def _engines(bench: Bench, hosts: tuple[Host, Host], lossy: bool) -> dict[str, Entry]:
    ways: Mapping[str, tuple[str, dict[str, Any]]] = {
        "tcp": ("libtorrent, TCP, our settings", {}),
        "tcp, big": ("libtorrent, TCP, big buffers", _BIG),
        "utp": ("libtorrent, uTP, our settings", _ONLY_UTP),
        "utp, big": ("libtorrent, uTP, big buffers", {**_ONLY_UTP, **_BIG}),
    }

    def make(title: str, settings: Mapping[str, Any]) -> Engine:
        prefixes = tuple(hosts[0].command()), tuple(hosts[1].command())
        way = Engine(bench.places, settings, 0, prefixes, (hosts[0].address[4], hosts[1].address[4]))
        way.title = title
        return way

    slow = bench.scale.far_lossy if lossy else 0
    return {
        key: Entry(partial(make, title, settings), slow if key.startswith("utp") else 0)
        for key, (title, settings) in ways.items()
    }


ROW = Row(
    title="Distance and loss",
    about=(
        f"{in_words(32 * MIB)} between two network namespaces, over a line that delays and loses packets. slixmpp_bt "
        "agrees over Prosody in the middle, and dials by TCP."
    ),
    reference="sealed",
    run=run,
    columns={},
)
