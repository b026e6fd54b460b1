"""The launchers of real servers themselves, and the one view of all servers."""

from __future__ import annotations

import asyncio

import pytest
import slixmpp
from slixmpp import JID

from .servers import Ejabberd, Options, Process, Prosody, RealServer, Server, started


async def _pair(server: Server) -> tuple[slixmpp.ClientXMPP, slixmpp.ClientXMPP]:
    alice, bob = server.client("alice/a"), server.client("bob/b")
    for xmpp in (alice, bob):
        xmpp.register_plugin("xep_0199")
    await server.connect(alice, bob)
    return alice, bob


async def test_connect_two_clients_exchange_iqs_over_tls(server: Server) -> None:
    alice, bob = await _pair(server)
    assert alice.transport is not None
    assert alice.transport.get_extra_info("cipher") is not None
    assert await alice.plugin["xep_0199"].ping(bob.boundjid, timeout=10) >= 0
    assert bob.boundjid.full == f"bob@{server.domain}/b"


async def test_connect_wrong_password_raises(server: Server) -> None:
    alice = server.client("alice/a")
    alice.password = "wrong"
    with pytest.raises(match="alice"):
        await server.connect(alice)


async def test_add_user_same_name_twice_makes_two_accounts(server: Server) -> None:
    jids = [await server.add_user("erin") for _ in range(2)]
    assert len(set(jids)) == 2
    await server.connect(*(server.client(f"{jid}/x") for jid in jids))


async def test_subscribe_two_accounts_see_each_others_presence(server: Server) -> None:
    jids = [await server.add_user(name) for name in ("erin", "frank")]
    await server.subscribe(*jids)
    erin, frank = (server.client(f"{jid}/x") for jid in jids)
    seen: asyncio.Queue[JID] = asyncio.Queue()
    erin.add_event_handler("got_online", lambda presence: seen.put_nowait(presence["from"]))
    await server.connect(erin, frank)
    async with asyncio.timeout(10):
        while await seen.get() != frank.boundjid:
            pass
    assert frank.client_roster[erin.boundjid.bare]["subscription"] == "both"


async def test_component_connected_answers_clients(server: Server) -> None:
    alice, bot = server.client("alice/a"), server.component("bot")
    for xmpp in (alice, bot):
        xmpp.register_plugin("xep_0199")
    await server.connect(alice, bot)
    assert await alice.plugin["xep_0199"].ping(JID(f"files@bot.{server.domain}"), timeout=10) >= 0


async def test_message_to_offline_account_is_stored(server: Server) -> None:
    jid = await server.add_user("erin")
    alice, erin = server.client("alice/a"), server.client(f"{jid}/x")
    alice.register_plugin("xep_0199")
    await server.connect(alice)
    alice.send_message(jid, "hello")
    await alice.plugin["xep_0199"].ping(JID(server.domain), timeout=10)
    got: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    erin.add_event_handler("message", lambda message: got.set_result(message["body"]))
    await server.connect(erin)
    assert await asyncio.wait_for(got, 10) == "hello"


@pytest.mark.server
@pytest.mark.parametrize("kind", ["prosody", "ejabberd"])
async def test_services_real_server_are_found_by_disco(kind: str, request: pytest.FixtureRequest) -> None:
    async with Process(request.getfixturevalue(kind)) as server:
        alice = server.client("alice/a")
        for plugin in ("xep_0030", "xep_0065"):
            alice.register_plugin(plugin)
        await server.connect(alice)
        items = await alice.plugin["xep_0030"].get_items(JID(server.domain))
        found = {jid for jid, _, _ in items["disco_items"]["items"]}
        assert {server.conference, server.proxy, f"upload.{server.domain}"} <= found
        proxies = await alice.plugin["xep_0065"].discover_proxies()
        assert proxies == {server.proxy: (server.host, str(server.process.ports["proxy"]))}


@pytest.mark.server
@pytest.mark.parametrize("cls", [Prosody, Ejabberd])
async def test_restart_killed_server_keeps_accounts(cls: type[RealServer]) -> None:
    with started(cls()) as process:
        async with Process(process) as server:
            jid = await server.add_user("erin")
            await server.connect(server.client(f"{jid}/before"))
            process.restart()
            process.restart(kill=True)
            await server.connect(server.client(f"{jid}/after"))


@pytest.mark.server
@pytest.mark.parametrize("cls", [Prosody, Ejabberd])
async def test_rate_limits_much_data_is_held_back(cls: type[RealServer]) -> None:
    with started(cls(Options(rate_limits=True))) as process:
        async with Process(process) as server:
            alice = server.client("alice/a")
            alice.register_plugin("xep_0199")
            await server.connect(alice)
            for _ in range(6):
                alice.send_message(JID(f"bob@{server.domain}"), "x" * 5_000)
            # At 10 kB/s, or 3 kB/s after 20 kB, this takes seconds; unlimited it takes milliseconds.
            assert await alice.plugin["xep_0199"].ping(JID(server.domain), timeout=60) > 1
