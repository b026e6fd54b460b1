"""Where messages go: the same on the loopback server, Prosody and ejabberd."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import slixmpp
from slixmpp import JID

from slixmpp_bt.testing import LoopbackServer
from slixmpp_bt.testing.accounts import MAX_OFFLINE

from .servers import Server
from .testing_tools import Inbox, settle, until

DELAY = "{urn:xmpp:delay}delay"


class Cast:
    """Alice, and devices of Bob's with their inboxes."""

    def __init__(self, server: Server, bob: JID) -> None:
        self.server = server
        self.bob = bob
        self.inboxes: dict[str, Inbox] = {}
        self.devices: dict[str, slixmpp.ClientXMPP] = {}

    async def enter(self, **priorities: int | None) -> None:
        """Connect Alice and Bob's devices; priority None sends no presence."""
        self.alice: Any = self._client("alice/a")
        self.inboxes["alice"] = Inbox(self.alice)
        await self.server.connect(self.alice)
        for name, priority in priorities.items():
            device = self.devices[name] = self._client(f"{self.bob}/{name}")
            self.inboxes[name] = Inbox(device)
            await self.server.connect(device, presence=False)
            if priority is not None:
                device.send_presence(ppriority=priority)
                # Its own presence comes back when the server has taken it in.
                await until(partial(self.inboxes[name].select, "presence", from_=f"{self.bob}/{name}"))

    def _client(self, jid: str) -> slixmpp.ClientXMPP:
        client = self.server.client(jid)
        client.register_plugin("xep_0199")
        return client

    async def say(self, to: str, mtype: str, body: str = "hello") -> dict[str, list[str]]:
        """What everybody has heard after Alice has sent this; for Alice herself, the errors."""
        self.alice.send_message(to, body, mtype=mtype)
        await settle(self.alice, self.server.domain)
        for device in self.devices.values():
            await settle(self.alice, device)
        return {name: inbox.bodies() for name, inbox in self.inboxes.items() if name != "alice" and inbox.bodies()}


@pytest.fixture
async def cast(server: Server) -> Cast:
    return Cast(server, await server.add_user("bob"))


@pytest.mark.parametrize("mtype", ["chat", "normal"])
async def test_message_to_account_goes_to_the_highest_priority(cast: Cast, mtype: str) -> None:
    await cast.enter(phone=1, desk=5, away=-1, silent=None)
    assert await cast.say(cast.bob.bare, mtype) == {"desk": ["hello"]}


async def test_message_to_account_headline_goes_to_all_that_are_not_negative(cast: Cast) -> None:
    await cast.enter(phone=1, desk=5, away=-1, silent=None)
    assert await cast.say(cast.bob.bare, "headline") == {"phone": ["hello"], "desk": ["hello"]}


@pytest.mark.parametrize("mtype", ["chat", "normal", "headline"])
async def test_message_to_resource_goes_there_alone(cast: Cast, mtype: str) -> None:
    await cast.enter(phone=1, desk=5, away=-1)
    assert await cast.say(f"{cast.bob}/away", mtype) == {"away": ["hello"]}


async def test_message_to_resource_that_is_gone_goes_to_the_account(cast: Cast) -> None:
    await cast.enter(phone=1, desk=5)
    assert await cast.say(f"{cast.bob}/gone", "chat") == {"desk": ["hello"]}


async def test_message_to_nobody_bounces(cast: Cast) -> None:
    await cast.enter()
    await cast.say(f"nobody@{cast.server.domain}", "chat")
    error = cast.inboxes["alice"].select("message", type="error")[0]
    assert error.find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}service-unavailable") is not None


async def test_message_to_absent_account_is_kept_and_delivered_with_its_age(cast: Cast) -> None:
    await cast.enter()
    for number in range(3):
        await cast.say(cast.bob.bare, "chat", str(number))
    await cast.enter(phone=0)
    phone = cast.inboxes["phone"]
    await until(lambda: len(phone.bodies()) == 3)
    assert phone.bodies() == ["0", "1", "2"]
    assert all(message.find(DELAY) is not None for message in phone.select("message"))
    assert cast.inboxes["alice"].select("message", type="error") == []


async def test_message_kept_is_delivered_once(cast: Cast) -> None:
    await cast.enter()
    await cast.say(cast.bob.bare, "chat")
    await cast.enter(phone=0)
    await until(lambda: cast.inboxes["phone"].bodies())
    await cast.enter(desk=0)
    await settle(cast.devices["desk"], cast.devices["desk"])
    assert cast.inboxes["desk"].bodies() == []


async def test_message_to_negative_priority_is_kept(cast: Cast) -> None:
    await cast.enter(away=-1)
    assert await cast.say(cast.bob.bare, "chat") == {}
    await cast.enter(phone=0)
    await until(lambda: cast.inboxes["phone"].bodies() == ["hello"])


async def test_message_headline_to_absent_account_is_lost(cast: Cast) -> None:
    await cast.enter()
    await cast.say(cast.bob.bare, "headline")
    await cast.enter(phone=0)
    await settle(cast.devices["phone"], cast.devices["phone"])
    assert cast.inboxes["phone"].bodies() == []
    assert cast.inboxes["alice"].select("message", type="error") == []


async def test_message_groupchat_to_account_bounces(cast: Cast) -> None:
    await cast.enter(phone=0)
    assert await cast.say(cast.bob.bare, "groupchat") == {}
    assert len(cast.inboxes["alice"].select("message", type="error")) == 1


async def _absent(*children: str) -> list[str]:
    """What alice gets back for a message with these children to bob who is away, and what bob then gets."""
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        alice, bob = server.client("alice/a"), server.client("bob/b")
        inboxes = [Inbox(alice), Inbox(bob)]
        for client in (alice, bob):
            client.register_plugin("xep_0199")
        await server.connect(alice)
        alice.send_raw(f"<message to='bob@localhost' id='m'>{''.join(children)}</message>")
        await settle(alice, "localhost")
        await server.connect(bob)
        bob.send_presence()
        await settle(bob, "localhost")
        return [message.get("type", "normal") for inbox in inboxes for message in inbox.select("message")]


@pytest.mark.parametrize(
    ("children", "result"),
    [
        (["<body>hi</body>"], ["normal"]),
        (["<x xmlns='urn:x'/>", "<store xmlns='urn:xmpp:hints'/>"], ["normal"]),
        (["<x xmlns='urn:x'/>"], ["error"]),
        (["<body>hi</body>", "<no-store xmlns='urn:xmpp:hints'/>"], ["error"]),
        (["<body>hi</body>", "<no-permanent-store xmlns='urn:xmpp:hints'/>"], ["error"]),
    ],
)
async def test_message_to_absent_account_is_kept_if_it_has_something_to_say(
    children: list[str], result: list[str]
) -> None:
    assert await _absent(*children) == result


async def test_message_beyond_the_store_bounces() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        alice = server.client("alice/a")
        alice.register_plugin("xep_0199")
        inbox = Inbox(alice)
        await server.connect(alice)
        for _ in range(MAX_OFFLINE + 1):
            alice.send_raw("<message to='bob@localhost'><body>hi</body></message>")
        await settle(alice, "localhost")
        assert len(inbox.select("message", type="error")) == 1
