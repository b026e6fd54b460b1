"""Where this side lets itself be sent: the own server's proxies, public addresses, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import slixmpp
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from slixmpp_bt.messages import StreamHost
from slixmpp_bt.streams.proxies import Proxies, streamhosts
from slixmpp_bt.streams.socks5 import Times
from slixmpp_bt.testing import LoopbackServer, carries
from slixmpp_bt.wire import StreamBroken

NS = "http://jabber.org/protocol/bytestreams"
PUBLIC, PUBLIC6 = "192.0.43.8", "2a00:1450:4001:80b::200e"


def host(jid: str, address: str, port: int = 5000) -> StreamHost:
    return StreamHost(JID(jid), address, port)


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    components = {f"{name}.localhost": "x" for name in ("relay", "bot")}
    async with LoopbackServer(users={"alice": "x", "bob": "x"}, components=components, tls=False) as one:
        yield one


async def enter(server: LoopbackServer, patience: float = 10.0) -> tuple[slixmpp.ClientXMPP, Proxies]:
    alice = server.client("alice/a")
    await server.connect(alice)
    return alice, Proxies(alice, Times(discovery=patience))


async def serve(server: LoopbackServer, *hosts: str, proxy: bool = False, jid: str = "relay.localhost") -> list[str]:
    """A service that names itself, or who knows what, as streamhosts; found by disco only as a `proxy`."""
    component: Any = server.component("relay.localhost")
    asked: list[str] = []
    named = "".join(f"<streamhost jid='{jid}' host='{one}' port='5000'/>" for one in hosts)

    def answer(iq: Any) -> None:
        if iq["type"] == "get":
            tag = iq.get_payload()[0].tag
            asked.append(tag)
            identity = "<identity category='proxy' type='bytestreams'/>" if proxy else ""
            inner = identity if "disco#info" in tag else named
            namespace = tag[1:].partition("}")[0]
            payload = f"<query xmlns='{namespace}'>{inner}</query>"
            component.send_raw(f"<iq type='result' id='{iq['id']}' from='{iq['to']}' to='{iq['from']}'>{payload}</iq>")

    component.register_handler(Callback("answer", StanzaPath("iq"), answer))
    await server.connect(component)
    return asked


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let names resolve: the tests have no network. Anything else fails as it does without one."""
    known: dict[str, tuple[str, ...]] = {}

    async def resolve(self: object, name: str, port: object, **_: object) -> list[Any]:
        if name not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in known[name]]

    def install(**addresses: tuple[str, ...]) -> None:
        known.update({name.replace("_", "."): found for name, found in addresses.items()})
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)

    return install


async def test_own_proxies_of_a_slow_server_are_those_found_in_time(server: LoopbackServer) -> None:
    await serve(server, "127.0.0.1", proxy=True)
    alice, proxies = await enter(server, 1.0)
    held = server.faults.hold(lambda stanza: stanza.get("to") == "conference.localhost")
    assert await proxies.own(alice.boundjid) == (host("relay.localhost", "127.0.0.1"),)
    assert held.hits == 1
    proxies.forget()
    server.faults.lose(carries("http://jabber.org/protocol/disco#items"))
    assert await proxies.own(alice.boundjid) == ()


async def test_own_asked_twice_at_once_asks_once(server: LoopbackServer) -> None:
    asked = await serve(server, "127.0.0.1", proxy=True)
    alice, proxies = await enter(server)
    first, second = await asyncio.gather(*(proxies.own(alice.boundjid) for _ in range(2)))
    assert first == second != ()
    assert len(asked) == 2
    cancelled = asyncio.create_task(proxies.own(alice.boundjid))
    cancelled.cancel()
    proxies.forget()
    assert await proxies.own(alice.boundjid) == first


async def test_own_proxy_that_names_another_is_not_taken(server: LoopbackServer) -> None:
    await serve(server, "127.0.0.1", proxy=True, jid="evil.example")
    alice, proxies = await enter(server)
    assert await proxies.own(alice.boundjid) == ()


async def test_own_component_asks_the_server_above_it(server: LoopbackServer) -> None:
    await serve(server, "127.0.0.1", proxy=True)
    bot = server.component("bot.localhost")
    await server.connect(bot)
    assert await Proxies(bot, Times()).own(JID("files@bot.localhost/x")) == (host("relay.localhost", "127.0.0.1"),)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "fd00::5", PUBLIC])
async def test_usable_own_proxy_is_wherever_it_is(server: LoopbackServer, address: str) -> None:
    await serve(server, address, proxy=True)
    alice, proxies = await enter(server)
    proxies.own_only = True
    assert await proxies.usable(host("relay.localhost", address), alice.boundjid) == [ip_address(address)]
    with pytest.raises(StreamBroken, match="not a relay of this side's own server"):
        await proxies.usable(host("relay.localhost", address, 5001), alice.boundjid)


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC6, f"::ffff:{PUBLIC}"])
async def test_usable_public_literal_address_needs_no_question(server: LoopbackServer, address: str) -> None:
    alice, proxies = await enter(server)
    (found,) = await proxies.usable(host("proxy.elsewhere.example", address), alice.boundjid)
    assert str(found) in (PUBLIC, PUBLIC6)


_BAD = [
    "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254",
    "fe80::1", "fd00::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "100.64.0.1", "2002:7f00:1::",
]  # fmt: skip


async def test_usable_other_address_is_refused_even_if_confirmed(server: LoopbackServer) -> None:
    await serve(server, *_BAD)
    alice, proxies = await enter(server)
    for address in _BAD:
        with pytest.raises(StreamBroken, match=r"no public address|no address to connect to"):
            await proxies.usable(host("relay.localhost", address), alice.boundjid)


async def test_usable_name_with_other_addresses_is_refused(server: LoopbackServer, names: Callable[..., None]) -> None:
    await serve(server, "relay.host.example")
    alice, proxies = await enter(server)
    for address in _BAD:
        names(relay_host_example=(address,))
        with pytest.raises(StreamBroken, match=r"no public address|no address to connect to"):
            await proxies.usable(host("relay.localhost", "relay.host.example"), alice.boundjid)


async def test_usable_name_confirmed_leads_to_its_public_addresses(
    server: LoopbackServer, names: Callable[..., None]
) -> None:
    await serve(server, "relay.host.example")
    names(relay_host_example=("127.0.0.1", PUBLIC6, "10.0.0.1", PUBLIC))
    alice, proxies = await enter(server)
    found = await proxies.usable(host("relay.localhost", "relay.host.example"), alice.boundjid)
    assert list(map(str, found)) == [PUBLIC6, PUBLIC]


@pytest.mark.parametrize("name", ["proxy.host.example", "host.example"])
async def test_usable_name_of_the_proxys_own_domain_needs_no_question(
    server: LoopbackServer, names: Callable[..., None], name: str
) -> None:
    names(proxy_host_example=(PUBLIC,), host_example=(PUBLIC,))
    alice, proxies = await enter(server)
    assert await proxies.usable(host("proxy.host.example", name), alice.boundjid) == [ip_address(PUBLIC)]


@pytest.mark.parametrize(
    "named",
    [
        host("proxy.host.example", "victim.example"),
        host("proxy.host.example", "t.example"),
        host("victim@localhost/x", "victim.example"),
        host("relay.localhost", "victim.example"),
        host("relay.localhost", "relay.host.example", 5001),
        host("proxy.host.example", "example"),
        host("proxy.host.example", "localhost"),
    ],
)
async def test_usable_name_not_confirmed_is_refused_and_not_resolved(
    server: LoopbackServer, names: Callable[..., None], named: StreamHost
) -> None:
    await serve(server, "relay.host.example")
    names()
    alice, proxies = await enter(server)
    with pytest.raises(StreamBroken, match="does not confirm"):
        await proxies.usable(named, alice.boundjid)


async def test_usable_name_that_does_not_resolve_is_refused(server: LoopbackServer, names: Callable[..., None]) -> None:
    names()
    alice, proxies = await enter(server)
    with pytest.raises(StreamBroken, match="cannot be resolved"):
        await proxies.usable(host("proxy.host.example", "host.example"), alice.boundjid)


@pytest.mark.parametrize(
    ("own", "other", "fits"),
    [
        ("127.0.0.2", "127.0.0.1", True),
        ("127.0.0.2", "10.0.0.1", False),
        ("10.0.0.2", "10.0.0.1", True),
        ("10.0.0.2", "10.0.1.1", False),
        ("10.0.0.2", "127.0.0.1", False),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "10.0.0.1", False),
        (PUBLIC, "127.0.0.1", False),
        ("localhost", "127.0.0.1", False),
    ],
)
async def test_usable_beside_the_own_proxy_is_a_local_address_that_is_confirmed(
    server: LoopbackServer, own: str, other: str, fits: bool
) -> None:
    await serve(server, other)
    alice, proxies = await enter(server)
    proxies._found = {"localhost": (host("proxy.localhost", own),)}
    if fits:
        assert await proxies.usable(host("relay.localhost", other), alice.boundjid) == [ip_address(other)]
    with pytest.raises(StreamBroken, match="no public address"):
        await proxies.usable(host("relay.localhost", other, 22 if fits else 5000), alice.boundjid)


async def test_usable_proxy_that_does_not_answer_is_given_up(server: LoopbackServer) -> None:
    alice, proxies = await enter(server, 1.0)
    await proxies.own(alice.boundjid)
    server.faults.hold(lambda stanza: stanza.get("to") == "relay.localhost")
    with pytest.raises(StreamBroken, match=r"took too long|does not confirm"):
        await proxies.usable(host("relay.localhost", "relay.host.example"), alice.boundjid)


attribute = st.one_of(
    st.none(),
    st.sampled_from(["", "proxy.example", "a@b@c", "127.0.0.1", "5000", "-1", "99999", "٣", "1e3"]),
    st.text(),
)


@given(st.lists(st.fixed_dictionaries({"jid": attribute, "host": attribute, "port": attribute})))
def test_streamhosts_of_anything_are_well_formed(named: list[dict[str, str | None]]) -> None:
    query = fromstring(f"<query xmlns='{NS}'/>")
    for attributes in named:
        given_ = {key: value for key, value in attributes.items() if value is not None}
        query.append(query.makeelement(f"{{{NS}}}streamhost", given_))
    for one in streamhosts(query):
        assert one.jid.domain
        assert 1 <= len(one.host) <= 255
        assert 1 <= one.port <= 65535
