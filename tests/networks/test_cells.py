"""A file from a host to another, by the best route that the networks between them allow.

Each cell is a real transfer between two processes on hosts of their own, over Prosody, with the plugin's defaults.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt.constants import Route
from slixmpp_bt.plugin import ROUTES

from ..world import digest, make_file
from .internet import Line
from .peers import Peer
from .server import PROXY_PORT, XMPP_PORT, CoreProsody

pytestmark = [pytest.mark.server, pytest.mark.timeout(100)]

MIB = 1024**2
OPEN = Line()
HOME = Line(nat=True)
NO_UDP = Line(udp=False)
HOME_NO_UDP = Line(nat=True, udp=False)
FAR = Line(delay=0.02, loss=0.001)
V4, V6 = Line(versions=(4,)), Line(versions=(6,))
#: What a strict firm lets through.
XMPP_AND_PROXY, XMPP_ONLY = Line(ports=(XMPP_PORT, PROXY_PORT)), Line(ports=(XMPP_PORT,))


def cell(sender: Line, receiver: Line, route: Route, mib: int, name: str) -> Any:
    """A row of the table; skipped while this version has not got the route."""
    missing = pytest.mark.skipif(route not in ROUTES, reason=f"the route {route} is not part of this version")
    return pytest.param(sender, receiver, route, mib * MIB, id=name, marks=missing)


CELLS = [
    cell(OPEN, OPEN, Route.SWARM, 8, "open"),
    cell(HOME, OPEN, Route.SWARM, 4, "sender behind NAT"),
    cell(OPEN, HOME, Route.SWARM, 4, "receiver behind NAT"),
    cell(NO_UDP, NO_UDP, Route.SWARM, 4, "UDP dropped"),
    cell(HOME_NO_UDP, NO_UDP, Route.SWARM, 4, "UDP dropped, sender behind NAT"),
    cell(V4, V4, Route.SWARM, 4, "IPv4 only"),
    cell(V6, V6, Route.SWARM, 4, "IPv6 only"),
    cell(FAR, FAR, Route.SWARM, 2, "far apart"),
    cell(HOME, HOME, Route.RELAY, 4, "both behind NAT"),
    cell(V4, V6, Route.RELAY, 4, "IPv4 only to IPv6 only"),
    cell(V6, V4, Route.RELAY, 4, "IPv6 only to IPv4 only"),
    cell(XMPP_AND_PROXY, XMPP_AND_PROXY, Route.RELAY, 4, "all dropped but XMPP and the proxy"),
    cell(XMPP_ONLY, XMPP_ONLY, Route.IN_BAND, 1, "all dropped but XMPP"),
]


class Meeting:
    """Alice's file on its way to Bob."""

    def __init__(self, prosody: CoreProsody, folder: Path, sender: Line, receiver: Line, size: int) -> None:
        internet = prosody.internet
        self.source = make_file(folder / "source.bin", size)
        self.hosts = {"sender": internet.attach(sender), "receiver": internet.attach(receiver)}
        self._prosody, self._folder = prosody, folder

    @asynccontextmanager
    async def running(self, **config: Any) -> AsyncIterator[None]:
        """Both peers, with `config`."""
        self.receiver = Peer(self.hosts["receiver"], self._prosody, "bob", self._folder / "bob", **config)
        arguments = ("--to", self.receiver.jid, "--path", str(self.source))
        self.sender = Peer(self.hosts["sender"], self._prosody, "alice", self._folder / "alice", *arguments, **config)
        async with self.receiver.running(), self.sender.running():
            yield

    async def routes(self) -> dict[str, int]:
        """By which routes it came, in bytes, after a look at what came."""
        received = await self.receiver.outcome()
        await self.sender.outcome()
        assert digest(Path(received["path"])) == digest(self.source)
        routes: dict[str, int] = received["routes"]
        assert sum(routes.values()) == self.source.stat().st_size
        return routes


@pytest.mark.parametrize(("sender", "receiver", "route", "size"), CELLS)
async def test_file_between_networks_arrives_by_best_route(
    prosody: CoreProsody, tmp_path: Path, sender: Line, receiver: Line, route: Route, size: int
) -> None:
    meeting = Meeting(prosody, tmp_path, sender, receiver, size)
    async with meeting.running():
        routes = await meeting.routes()
    assert set(routes) == {route}
    if route is not Route.SWARM:
        told = [said["diagnosis"].get(Route.SWARM) for said in meeting.receiver.seen if "diagnosis" in said]
        assert any(told), "nobody was told why the swarm is not used"


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_address_changed_in_mid_transfer_goes_on_where_it_was(
    prosody: CoreProsody, tmp_path: Path, who: str
) -> None:
    meeting = Meeting(prosody, tmp_path, OPEN, OPEN, 8 * MIB)
    async with meeting.running(upload_limit=2 * MIB):
        await meeting.receiver.until(lambda said: said["transferred"] >= 2 * MIB)
        meeting.hosts[who].move()
        routes = await meeting.routes()
    assert routes[Route.SWARM] >= 2 * MIB
    assert set(routes) <= {Route.SWARM, Route.RELAY}
