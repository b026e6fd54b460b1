"""The loopback server's proxy (XEP-0065): it joins exactly the two that it is told to, and nobody waits in it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError

from slixmpp_bt.testing import LoopbackServer

NS = "http://jabber.org/protocol/bytestreams"
PROXY = JID("proxy.localhost")
Leg = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(users={"alice": "x", "bob": "x"}, proxy=True) as one:
        yield one


async def enter(server: LoopbackServer) -> slixmpp.ClientXMPP:
    alice = server.client("alice/a")
    for plugin in ("xep_0030", "xep_0065"):
        alice.register_plugin(plugin)
    await server.connect(alice)
    return alice


async def port_of(alice: slixmpp.ClientXMPP) -> int:
    answer = await alice.plugin["xep_0065"].get_network_address(PROXY, timeout=5)
    host = answer["socks"]["streamhost"]
    assert (host["jid"], host["host"]) == (PROXY, "127.0.0.1")
    return int(host["port"])


def name_of(sid: str) -> bytes:
    return hashlib.sha1(f"{sid}alice@localhost/abob@localhost/b".encode()).hexdigest().encode()


async def leg(port: int, name: bytes) -> Leg:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x03\x28" + name + b"\x00\x00")
    assert await reader.readexactly(47) == b"\x05\x00\x00\x03\x28" + name + b"\x00\x00"
    return reader, writer


async def joined(alice: slixmpp.ClientXMPP, sid: str) -> tuple[Leg, Leg]:
    port = await port_of(alice)
    legs = await leg(port, name_of(sid)), await leg(port, name_of(sid))
    await activate(alice, sid)
    return legs


async def activate(alice: slixmpp.ClientXMPP, sid: str) -> None:
    await alice.plugin["xep_0065"].activate(PROXY, sid, "bob@localhost/b", timeout=5)


async def close(*legs: Leg) -> None:
    for _, writer in legs:
        writer.close()
        await writer.wait_closed()


async def test_proxy_switched_on_is_found_by_disco(server: LoopbackServer) -> None:
    alice = await enter(server)
    found = await alice.plugin["xep_0065"].discover_proxies()
    assert found == {"proxy.localhost": ("127.0.0.1", str(await port_of(alice)))}
    assert (await alice.plugin["xep_0030"].get_items(PROXY, timeout=5))["disco_items"]["items"] == set()


async def test_proxy_not_switched_on_is_not_there() -> None:
    async with LoopbackServer(users={"alice": "x"}) as server:
        alice = await enter(server)
        assert await alice.plugin["xep_0065"].discover_proxies() == {}
        with pytest.raises(IqError, match="remote-server-not-found"):
            await port_of(alice)


async def test_activate_two_legs_are_joined_in_both_directions_until_one_closes(server: LoopbackServer) -> None:
    target, requester = await joined(await enter(server), "s1")
    data = bytes(range(256)) * 40_000
    requester[1].write(data)
    target[1].write(b"hello")
    assert await requester[0].readexactly(5) == b"hello"
    requester[1].close()
    assert await target[0].read() == data
    await close(target, requester)


async def test_activate_slow_reader_holds_the_sender_back(server: LoopbackServer) -> None:
    target, requester = await joined(await enter(server), "s1")
    requester[1].write(bytes(64 * 1024 * 1024))
    with pytest.raises(TimeoutError):
        # Nothing is read, so more than all buffers hold cannot leave.
        await asyncio.wait_for(requester[1].drain(), 0.3)
    rest = 64 * 1024 * 1024
    while rest:
        rest -= len(await target[0].read(1024 * 1024))
    await requester[1].drain()
    await close(target, requester)


async def test_activate_streams_do_not_mix(server: LoopbackServer) -> None:
    alice = await enter(server)
    pairs = [await joined(alice, f"s{number}") for number in range(4)]
    for number, (_, (_, writer)) in enumerate(pairs):
        writer.write(str(number).encode() * 1000)
        writer.close()
    for number, ((reader, _), _) in enumerate(pairs):
        assert await reader.read() == str(number).encode() * 1000
    await close(*(one for pair in pairs for one in pair))


async def test_activate_wrong_is_refused(server: LoopbackServer) -> None:
    alice = await enter(server)
    with pytest.raises(IqError, match="item-not-found"):
        await activate(alice, "s1")
    lonely = await leg(await port_of(alice), name_of("s1"))
    with pytest.raises(IqError, match="not-allowed"):
        await activate(alice, "s1")
    with pytest.raises(IqError, match="item-not-found"):
        await activate(alice, "s2")
    with pytest.raises(IqError, match="jid-malformed"):
        await alice.plugin["xep_0065"].activate(PROXY, "s1", "", timeout=5)
    await close(lonely)


async def test_handle_other_requests_are_refused(server: LoopbackServer) -> None:
    alice = await enter(server)
    for to in ("proxy.localhost", "somebody@proxy.localhost"):
        iq = alice.make_iq_get(queryxmlns="jabber:iq:version", ito=JID(to))
        with pytest.raises(IqError, match="service-unavailable"):
            await iq.send(timeout=5)
    alice.send_message(PROXY, "hello")  # which goes nowhere, and breaks nothing
    assert await port_of(alice)


@pytest.mark.parametrize(
    ("greeting", "request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x05\xff"),
        (b"\x05\x01\x02", b"", b"\x05\xff"),
        (b"\x05\x01\x00", b"\x05\x01\x00\x01" + bytes(43), b"\x05\x00\x05\x01\x00\x01" + bytes(6)),
        (b"\x05\x01\x00", b"\x05\x01\x00\x03\x28" + b"a" * 40 + b"\x00\x50", b"\x05\x00\x05\x01\x00\x01" + bytes(6)),
        (b"\x05\x01\x00", b"\x05\x01\x00\x03\x28" + b"a" * 400, b"\x05\x00\x05\x01\x00\x01" + bytes(6)),
    ],
)
async def test_connection_that_does_not_speak_it_is_refused(
    server: LoopbackServer, greeting: bytes, request_: bytes, answer: bytes
) -> None:
    port = await port_of(await enter(server))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(greeting + request_)
    assert await reader.read() == answer
    writer.close()
    await writer.wait_closed()


async def test_connection_third_for_one_name_is_refused(server: LoopbackServer) -> None:
    port = await port_of(await enter(server))
    legs = [await leg(port, name_of("s1")) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Byte by byte: what comes in pieces is put together.
    for byte in b"\x05\x01\x00\x05\x01\x00\x03\x28" + name_of("s1") + b"\x00\x00":
        writer.write(bytes([byte]))
        await writer.drain()
    assert await reader.read() == b"\x05\x00\x05\x01\x00\x01" + bytes(6)
    await close(*legs, (reader, writer))


async def test_stop_ends_all_connections_and_start_listens_at_the_same_port() -> None:
    async with LoopbackServer(users={"alice": "x"}, proxy=True) as server:
        alice = await enter(server)
        port = await port_of(alice)
        waiting, (target, requester) = await leg(port, name_of("s0")), await joined(alice, "s1")
        await server.stop()
        for reader, _ in (waiting, target, requester):
            assert await reader.read() == b""
        await close(waiting, target, requester)
        await server.start()
        again = server.client("alice/a")
        again.register_plugin("xep_0065")
        await server.connect(again)
        assert await port_of(again) == port
