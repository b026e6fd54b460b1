"""Requests and discovery: what the server answers itself, and what it says where nobody does."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from slixmpp.exceptions import IqError

from slixmpp_bt.testing import LoopbackServer

from .servers import Server
from .testing_tools import Inbox, settle

INFO = "http://jabber.org/protocol/disco#info"


async def enter(server: Server, jid: str) -> Any:
    client = server.client(jid)
    for plugin in ("xep_0030", "xep_0199"):
        client.register_plugin(plugin)
    await server.connect(client)
    return client


async def features(client: Any, jid: str, node: str | None = None) -> Any:
    return (await client.plugin["xep_0030"].get_info(jid, node=node, timeout=20))["disco_info"]


async def condition(client: Any, kind: str, to: str | None, payload: str) -> str:
    iq = client.make_iq(itype=kind, ito=to)
    iq.append(ET.fromstring(payload))
    with pytest.raises(IqError) as caught:
        await iq.send(timeout=20)
    return str(caught.value.condition)


async def test_request_between_clients_arrives_unchanged(server: Server) -> None:
    alice, bob = await enter(server, "alice/a"), await enter(server, "bob/b")
    inbox = Inbox(bob)
    payload = "<p xmlns='urn:p' xml:lang='de' a='&lt;'><p:q xmlns:p='urn:q' p:r='1'>&amp;é\t\n</p:q><s xmlns=''/></p>"
    alice.send_raw(f"<iq type='set' id='1' to='{bob.boundjid.full}'>{payload}</iq>")
    await settle(alice, bob)
    arrived = inbox.select("iq", type="set")[0][0]
    # The order of attributes means nothing, and servers change it.
    assert ET.canonicalize(ET.tostring(arrived)) == ET.canonicalize(ET.tostring(ET.fromstring(payload)))


@pytest.mark.parametrize("to", ["bob@{}/nowhere", "nobody@{}/x", "nobody@{}"])
async def test_request_to_a_resource_that_is_not_there_is_refused(server: Server, to: str) -> None:
    alice = await enter(server, "alice/a")
    payload = "<x xmlns='urn:x'/>"
    assert await condition(alice, "get", to.format(server.domain), payload) == "service-unavailable"


@pytest.mark.parametrize("to", [None, "{}", "alice@{}", "bob@{}"])
async def test_request_that_the_server_does_not_know_is_refused(server: Server, to: str | None) -> None:
    alice = await enter(server, "alice/a")
    payload = "<x xmlns='urn:x'/>"
    assert await condition(alice, "get", to and to.format(server.domain), payload) in (
        "service-unavailable",
        "feature-not-implemented",  # ejabberd's word
    )


async def test_request_to_another_server_finds_none() -> None:
    async with LoopbackServer(users={"alice": "secret"}) as loopback:
        alice = loopback.client("alice")
        await loopback.connect(alice)
        payload = "<x xmlns='urn:x'/>"
        assert await condition(alice, "get", "a@elsewhere.test", payload) == "remote-server-not-found"


@pytest.mark.parametrize("xml", ["<iq type='get' id='1'/>", "<iq type='set' id='1'><a xmlns='x'/><b xmlns='x'/></iq>"])
async def test_request_malformed_is_a_bad_request(xml: str) -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as loopback:
        alice = loopback.client("alice")
        alice.register_plugin("xep_0199")
        inbox = Inbox(alice)
        await loopback.connect(alice)
        alice.send_raw(xml)
        await settle(alice, "localhost")
        error = inbox.select("iq", type="error", id="1")[0]
        assert error.find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}bad-request") is not None


async def test_ping_of_server_and_own_account_is_answered(server: Server) -> None:
    alice = await enter(server, "alice/a")
    for to in (server.domain, alice.boundjid.bare):
        await settle(alice, to)


async def test_info_of_server_tells_what_it_is(server: Server) -> None:
    alice = await enter(server, "alice/a")
    info = await features(alice, server.domain)
    assert {i[:2] for i in info["identities"]} >= {("server", "im")}
    assert {INFO, "urn:xmpp:ping"} <= set(info["features"])


async def test_items_of_server_are_its_services(server: Server) -> None:
    alice = await enter(server, "alice/a")
    items = await alice.plugin["xep_0030"].get_items(server.domain, timeout=20)
    assert server.conference in {jid for jid, _, _ in items["disco_items"]["items"]}


async def test_info_of_rooms_service_tells_what_it_is(server: Server) -> None:
    info = await features(await enter(server, "alice/a"), server.conference)
    assert {i[:2] for i in info["identities"]} >= {("conference", "text")}
    assert "http://jabber.org/protocol/muc" in info["features"]


async def test_info_of_account_is_for_contacts(server: Server) -> None:
    jids = [await server.add_user(name) for name in ("erin", "frank", "gina")]
    await server.subscribe(jids[0], jids[1])
    erin, frank, gina = [await enter(server, f"{jid}/x") for jid in jids]
    for client in (erin, frank):
        info = await features(client, erin.boundjid.bare)
        assert {i[:2] for i in info["identities"]} >= {("account", "registered"), ("pubsub", "pep")}
        assert "http://jabber.org/protocol/pubsub#publish" in info["features"]
    # ejabberd says subscription-required, the others what RFC 6121 section 8.5.1 says.
    assert await condition(gina, "get", erin.boundjid.bare, f"<query xmlns='{INFO}'/>") in (
        "service-unavailable",
        "subscription-required",
    )


async def test_info_of_unknown_node_is_not_found(server: Server) -> None:
    alice = await enter(server, "alice/a")
    payload = f"<query xmlns='{INFO}' node='urn:no'/>"
    assert await condition(alice, "get", server.domain, payload) == "item-not-found"
    if server.name != "ejabberd":  # It says nothing about it.
        assert await condition(alice, "get", alice.boundjid.bare, payload) == "item-not-found"


async def test_roster_of_somebody_else_is_not_told(server: Server) -> None:
    alice = await enter(server, "alice/a")
    payload = "<query xmlns='jabber:iq:roster'/>"
    assert await condition(alice, "get", f"bob@{server.domain}", payload) in ("forbidden", "service-unavailable")
