"""What somebody sees who records every byte that passes: of a sealed offer no part of the content, whatever the route.

The streams to the server are without TLS here, so that the servers are among those who record."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import slixmpp

from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.testing import LoopbackServer

from ..world import Member, digest, done, make_file, until, visible
from .taps import Tap, Taps, traces

KIB = 1024
SIZES = {Route.INLINE: 3 * KIB, Route.SWARM: 400 * KIB, Route.RELAY: 400 * KIB, Route.IN_BAND: 100 * KIB}


@pytest.mark.parametrize("route", list(Route))
@pytest.mark.parametrize("mode", list(Mode))
async def test_capture_of_everything_shows_content_only_of_private_offers(
    tmp_path: Path, mode: Mode, route: Route
) -> None:
    source = make_file(tmp_path / "out" / "file.bin", SIZES[route])
    taps = Taps()
    async with LoopbackServer(users={"alice": "x", "bob": "x"}, tls=False, proxy=True) as server:
        server.subscribe("alice", "bob")
        server.port = await taps.before(server)
        try:
            alice, bob = [Member(server.client(f"{name}/device"), tmp_path / name) for name in ("alice", "bob")]
            for one in (alice, bob):
                one.register(mode=mode, routes=[str(route)], backend=taps.engine, auto_accept=True)
                await server.connect(one.xmpp)
                assert isinstance(one.xmpp, slixmpp.ClientXMPP)
                await one.xmpp.get_roster()
                one.xmpp.send_presence()
            await visible(alice, bob)
            sending = await alice.bt.send_file(bob.jid, source)
            await done(sending, await bob.expect("bt_transfer_start"))
            assert digest(bob.inbox / source.name) == digest(source)
            assert bob.told("bt_transfer_end")[0].routes == {route: SIZES[route]}
            for one in (alice, bob):
                await one.bt.aclose()
        finally:
            await taps.close()
    content = source.read_bytes()
    assert any(b"file.bin" in heard for heard in taps.heard)  # the names are not hidden, and the tap is no deaf one
    assert sum(map(len, taps.heard)) > len(content)
    assert not any(b"PRIVATE KEY" in heard for heard in taps.heard)
    found = traces(content, taps.heard)
    if mode is Mode.SEALED:
        assert found == 0
    else:
        # All but what lies across the border of two blocks.
        assert found > 0.9 * traces(content, [content])


async def test_capture_of_a_delegated_offer_shows_no_key(tmp_path: Path) -> None:
    source = make_file(tmp_path / "out" / "file.bin", 3 * KIB)
    async with LoopbackServer(users={"alice": "x", "bob": "x"}, tls=False) as server:
        clients = Tap(server.port)
        await clients.open()
        server.port = clients.port
        try:
            alice, bob = [Member(server.client(f"{name}/device"), tmp_path / name) for name in ("alice", "bob")]
            for one in (alice, bob):
                one.register(auto_accept=True, seed_after=60)
                await server.connect(one.xmpp)
                one.xmpp.send_presence()
            offer = await alice.bt.offer(bob.jid.bare, source, delegate=True)
            await until(lambda: bob.bt._exchange.delegation.offers)
            authority = await alice.bt._exchange.registry.outgoing[offer.id]._content.authority()
            for one in (alice, bob):
                await one.bt.aclose()
        finally:
            await clients.close()
    assert any(b"<delegate" in heard for heard in clients.heard)
    assert not any(b"PRIVATE KEY" in heard for heard in clients.heard)
    number = authority._signer.private_numbers().private_value.to_bytes(32)
    assert traces(number, list(map(bytes, clients.heard)), step=1) == 0
    assert traces(number, [number], step=1) > 0


def test_traces_finds_what_is_hidden_in_base64_at_any_alignment() -> None:
    content = bytes(range(256)) * 8
    whole = traces(content, [content])
    assert whole > 1
    for before in range(3):
        assert traces(content, [base64.b64encode(bytes(before) + content)]) == whole
    assert traces(content, [bytes(10_000)]) == 0
