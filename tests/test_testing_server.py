"""The loopback server as a whole: its life, its limits, its numbers."""

from __future__ import annotations

import asyncio
import inspect
import socket
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqTimeout

import slixmpp_bt.testing
from slixmpp_bt.testing import LoopbackServer
from slixmpp_bt.testing.streams import TokenBucket

from .testing_tools import Inbox, raw, settle, until

USERS = {"alice": "secret", "bob": "secret"}


async def enter(server: LoopbackServer, *jids: str) -> list[slixmpp.ClientXMPP]:
    clients = [server.client(jid) for jid in jids]
    for client in clients:
        client.register_plugin("xep_0199")
        await server.connect(client)
    return clients


def of_server(task: asyncio.Task[Any]) -> bool:
    code: Any = getattr(task.get_coro(), "cr_code", None)
    return code is not None and str(Path(slixmpp_bt.testing.__file__).parent) in code.co_filename


def open_files() -> set[str]:
    return {str(link.resolve()) for link in Path("/proc/self/fd").iterdir() if link.exists()}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "8.8.8.8"])
def test_host_other_than_loopback_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        LoopbackServer(host=host)


@pytest.mark.parametrize("limit", [{"max_stanza": 0}, {"rate": 0}, {"rate": -1.0}, {"burst": 0}])
def test_limit_that_lets_nothing_through_is_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        LoopbackServer(**limit)


@pytest.mark.parametrize("host", ["localhost", ""])
def test_host_that_is_a_name_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="address"):
        LoopbackServer(host=host)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_host_of_ipv6_is_listened_on() -> None:
    async with LoopbackServer(users=USERS, host="::1") as server:
        await enter(server, "alice")


async def test_exit_leaves_no_task_socket_or_file() -> None:
    loop = asyncio.get_running_loop()
    before = open_files()
    async with LoopbackServer(users=USERS, components={"bot.localhost": "x"}) as server:
        alice, bob = await enter(server, "alice", "bob")
        bot = server.component("bot.localhost")
        await server.connect(bot)
        directory = server.ca_certs.parent if server.ca_certs else None
        server.faults.delay(lambda stanza: True, seconds=1_000)
        alice.send_message(JID("bob@localhost"), "on its way")
        async with raw(server) as idle, raw(server) as handshaking:
            idle.open()
            handshaking.open()
            await handshaking.expect("</features>")
            handshaking.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            await handshaking.expect("<proceed[^>]*/>")
            await server.aclose()
    assert not any(of_server(task) for task in asyncio.all_tasks())
    assert not any(client.is_connected() for client in (alice, bob, bot))
    assert directory is not None
    assert not directory.exists()
    await until(lambda: open_files() <= before)
    assert loop.is_running()
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_exit_with_a_client_that_does_not_listen_ends() -> None:
    async with LoopbackServer(users=USERS, tls=False) as server, raw(server) as deaf:
        await deaf.log_in("alice")
        stopped = asyncio.create_task(server.stop())
        await deaf.expect("<system-shutdown")
        await stopped


async def test_start_where_the_port_is_taken_raises_and_leaves_nothing() -> None:
    before = open_files()
    async with LoopbackServer() as server:
        with pytest.raises(OSError, match="in use"):
            async with LoopbackServer(port=server.port):
                pass
    await until(lambda: open_files() <= before)


@pytest.mark.parametrize("steps", range(5))
async def test_stop_ends_connections_that_are_just_being_made(steps: int, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with LoopbackServer() as server:
        callers = [socket.create_connection((server.host, server.port)) for _ in range(3)]
        for _ in range(steps):  # So many steps of the loop into their acceptance.
            await asyncio.sleep(0)
        await server.stop()
        for caller in callers:
            with caller:
                caller.setblocking(False)
                with suppress(ConnectionResetError):
                    async with asyncio.timeout(10):
                        while await loop.sock_recv(caller, 1_000):
                            pass
    assert "did not end" not in caplog.text


async def test_slow_reader_is_dropped_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slixmpp_bt.testing.streams, "MAX_UNSENT", 1_000_000)
    async with LoopbackServer(users=USERS, tls=False) as server, raw(server) as deaf:
        await deaf.log_in("bob")
        server.subscribe("alice", "bob")
        (alice,) = await enter(server, "alice/a")
        inbox = Inbox(alice)
        alice.send_presence()
        deaf.send("<presence/>")
        await until(lambda: inbox.select("presence", from_="bob@localhost/raw"))
        cast(asyncio.Transport, deaf.writer.transport).pause_reading()
        while not inbox.select("presence", type="unavailable", from_="bob@localhost/raw"):
            for _ in range(10):
                alice.send_message(JID("bob@localhost/raw"), "x" * 200_000)
            await settle(alice, "localhost")


async def test_stop_and_start_keep_port_and_memory() -> None:
    async with LoopbackServer(users=USERS) as server:
        server.subscribe("alice", "bob")
        (alice,) = await enter(server, "alice")
        alice.send_message(JID("bob@localhost"), "later")
        await settle(alice, "localhost")
        ports = server.port, server.component_port
        await server.stop()
        await server.stop()
        await until(lambda: not alice.is_connected())
        await server.start()
        await server.start()
        assert (server.port, server.component_port) == ports
        (bob,) = await enter(server, "bob")
        inbox = Inbox(bob)
        await bob.get_roster()
        assert bob.client_roster["alice@localhost"]["subscription"] == "both"
        bob.send_presence()
        await until(lambda: inbox.bodies() == ["later"])


async def test_kick_is_felt_by_both_sides_and_can_be_undone() -> None:
    async with LoopbackServer(users=USERS) as server:
        server.subscribe("alice", "bob")
        alice, bob = await enter(server, "alice/a", "bob/b")
        inbox = Inbox(bob)
        for client in (alice, bob):
            client.send_presence()
        await server.wait_available("alice/a")
        await server.wait_available("bob")
        server.kick("alice/a")
        await until(lambda: not alice.is_connected())
        await until(lambda: inbox.select("presence", type="unavailable", from_="alice@localhost/a"))
        with pytest.raises(LookupError):
            server.kick("alice/a")
        await server.connect(alice)
        await settle(bob, alice)


async def test_add_user_later_can_log_in_and_change_password() -> None:
    async with LoopbackServer() as server:
        server.add_user("carol", "one")
        await enter(server, "carol/a")
        server.add_user("carol", "two")
        with pytest.raises(ConnectionError):
            await server.connect(server.configure(slixmpp.ClientXMPP("carol@localhost", "one")))
        await enter(server, "carol/b")
        with pytest.raises(ValueError, match="nodeprep"):
            server.add_user("a b", "x")


async def test_client_unknown_user_is_refused() -> None:
    async with LoopbackServer(users=USERS) as server:
        for call in (server.client, server.component, server.kick):
            with pytest.raises(LookupError):
                call("mallory")


async def test_client_class_of_the_caller_gets_its_arguments() -> None:
    class Bot(slixmpp.ClientXMPP):
        def __init__(self, jid: str, password: str, *, colour: str) -> None:
            super().__init__(jid, password)
            self.colour = colour

    async with LoopbackServer(users=USERS) as server:
        bot = server.client("alice@localhost/a", Bot, colour="red")
        await server.connect(bot)
        assert (bot.colour, bot.boundjid.full) == ("red", "alice@localhost/a")


async def test_connect_to_a_stopped_server_times_out_and_gives_up() -> None:
    async with LoopbackServer(users=USERS) as server:
        alice = server.client("alice")
        await server.stop()
        with pytest.raises(TimeoutError):
            await server.connect(alice, timeout=0.05)
        assert not alice.is_connecting()


async def test_connect_cancelled_gives_up() -> None:
    async with LoopbackServer(users=USERS) as server:
        alice = server.client("alice")
        attempt = asyncio.create_task(server.connect(alice))
        await asyncio.sleep(0)  # It has begun.
        assert alice.is_connecting()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert not alice.is_connecting()


async def test_wait_available_nobody_times_out() -> None:
    async with LoopbackServer(users=USERS) as server:
        with pytest.raises(TimeoutError):
            await server.wait_available("alice", timeout=0.01)


async def test_stanza_above_the_limit_ends_the_session_as_elsewhere() -> None:
    async with LoopbackServer(users=USERS, max_stanza=10_000) as server:
        alice, bob = await enter(server, "alice", "bob")
        alice.send_message(bob.boundjid, "x" * 9_000)
        await settle(alice, bob)
        errors: list[str] = []
        alice.add_event_handler("stream_error", lambda error: errors.append(error["condition"]))
        alice.send_message(bob.boundjid, "x" * 10_000)
        await until(lambda: not alice.is_connected())
        assert errors == ["policy-violation"]


async def test_rate_slow_session_is_read_slowly_and_in_order() -> None:
    async with LoopbackServer(users=USERS, tls=False, rate=20_000, burst=1_000) as server:
        alice, bob = await enter(server, "alice/a", "bob/b")
        inbox = Inbox(bob)
        for number in range(10):
            alice.send_message(bob.boundjid, f"{number}" * 1_000)
        with pytest.raises(IqTimeout):
            # 10 kB at 20 kB/s: half a second.
            await alice.plugin["xep_0199"].send_ping(bob.boundjid, timeout=0.1)
        await until(lambda: len(inbox.bodies()) == 10)
        assert inbox.bodies() == [f"{number}" * 1_000 for number in range(10)]
        await settle(alice, bob)


async def test_rate_sender_that_goes_on_is_held_back_by_tcp() -> None:
    async with LoopbackServer(users=USERS, tls=False, rate=1_000, burst=1_000) as server, raw(server) as client:
        await client.log_in("alice")
        client.send(b" " * 64 * 1024 * 1024)  # More than the buffers of two sockets hold.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 1)
        cast(asyncio.Transport, client.writer.transport).abort()


async def test_rate_one_session_does_not_slow_another() -> None:
    async with LoopbackServer(users=USERS, rate=1_000, burst=20_000) as server:
        alice, bob = await enter(server, "alice/a", "bob/b")
        for _ in range(10):
            alice.send_message(JID("localhost"), "x" * 10_000)
        await bob.plugin["xep_0199"].send_ping(JID("localhost"), timeout=10)
        server.kick("alice/a")
        await until(lambda: not alice.is_connected())


@pytest.mark.parametrize(("rate", "burst"), [(100.0, 1_000.0), (3_000.0, 20_000.0), (0.5, 1.0)])
def test_token_bucket_lets_through_the_burst_and_then_the_rate(rate: float, burst: float) -> None:
    bucket, now, passed = TokenBucket(rate, burst, 0.0), 0.0, 0
    while passed < 10 * burst:
        passed += bucket.take(1_000_000, now)
        assert passed <= burst + rate * now
        now += bucket.wait(1_000_000)
    assert passed >= burst + rate * now - max(1.0, rate)


async def test_traffic_counts_both_ways() -> None:
    async with LoopbackServer(users=USERS) as server:
        alice, bob = await enter(server, "alice/a", "bob/b")
        server.traffic.reset()
        for _ in range(3):
            alice.send_message(bob.boundjid, "x" * 1_000)
        await settle(alice, bob)
        sent, received = server.traffic["alice@localhost/a"], server.traffic[bob.boundjid]
        assert (sent.stanzas_in, received.stanzas_out) == (4, 4)
        assert 3_000 < sent.bytes_in < 4_000
        assert 3_000 < received.bytes_out < 4_000
        assert received.bytes_in < 1_000
        assert server.traffic.total.bytes_in == sent.bytes_in + received.bytes_in
        assert server.traffic["nobody@localhost"].bytes_in == 0


async def test_docstring_example_runs() -> None:
    text = inspect.getdoc(slixmpp_bt.testing)
    assert text is not None
    example = textwrap.dedent(text[text.index("    import asyncio") : text.index("What goes wrong")])
    namespace: dict[str, Any] = {}
    exec(compile(example, "slixmpp_bt.testing docstring", "exec"), namespace)
    await namespace["test_parrot_when_spoken_to_repeats"]()
