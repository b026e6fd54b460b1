"""The routes on servers: with the swarm made unreachable, everything arrives by inline, relay or in-band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slixmpp_bt.constants import Route, State

from .servers import Server
from .world import Member, digest, done, make_file, member, until, visible

KIB, MIB = 1024, 1024**2


async def plain_pair(server: Server, tmp_path: Path, **both: Any) -> tuple[Member, Member]:
    """A sender and a receiver without an engine, who see each other."""
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    alice = await member(server, f"{a}/laptop", tmp_path / "alice", backend="plain", **both)
    bob = await member(server, f"{b}/phone", tmp_path / "bob", backend="plain", auto_accept=True, **both)
    await visible(alice, bob)
    return alice, bob


@pytest.mark.parametrize(
    ("routes", "size"),
    [
        pytest.param(["inline"], 4_000, id="inline"),
        pytest.param(["relay"], 8 * MIB, id="relay"),
        pytest.param(["in-band"], 1 * MIB, id="in-band"),
    ],
)
async def test_file_arrives_by_each_route_alone(server: Server, tmp_path: Path, routes: list[str], size: int) -> None:
    alice, bob = await plain_pair(server, tmp_path, routes=routes)
    source = make_file(tmp_path / "file", size)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    receiving = await bob.expect("bt_transfer_start")
    await done(sending, receiving)
    assert digest(bob.inbox / "file") == digest(source)
    assert sending.routes == receiving.routes == {Route(routes[0]): size}
