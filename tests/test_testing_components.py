"""External components of the loopback server."""

from __future__ import annotations

import asyncio
import hashlib
import re

import pytest
import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError

from slixmpp_bt.testing import LoopbackServer

from .testing_tools import Inbox, RawClient, raw, settle

COMPONENT = "jabber:component:accept"


def server() -> LoopbackServer:
    return LoopbackServer(users={"alice": "secret"}, components={"bot.localhost": "hush"}, tls=False)


async def shake_hands(client: RawClient, secret: str = "hush") -> None:
    client.open("bot.localhost", COMPONENT)
    header = await client.expect("<stream:stream[^>]*>")
    assert "xmlns='jabber:component:accept'" in header
    stream_id = re.search(" id='([^']+)'", header)
    assert stream_id is not None
    digest = hashlib.sha1((stream_id[1] + secret).encode()).hexdigest()
    client.send(f"<handshake>{digest}</handshake>")


async def test_component_answers_and_asks() -> None:
    async with server() as loopback:
        alice, bot = loopback.client("alice/phone"), loopback.component("bot.localhost")
        for xmpp in (alice, bot):
            xmpp.register_plugin("xep_0199")
            await loopback.connect(xmpp)
        await settle(alice, "files@bot.localhost/x")
        await bot.plugin["xep_0199"].send_ping(alice.boundjid, ifrom=JID("files@bot.localhost"))


async def test_component_stanzas_are_in_the_namespace_of_each_stream() -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot, raw(loopback) as alice:
        await shake_hands(bot)
        await bot.expect("<handshake/>")
        await alice.log_in("alice")
        inner = "<f xmlns='urn:f'><message xmlns='jabber:client'/></f>"
        alice.send(f"<message to='bot.localhost'><body>hi</body>{inner}</message>")
        text = await bot.expect("</message>")
        assert re.fullmatch(
            r'<message[^>]*><body>hi</body><f xmlns="urn:f"><message xmlns="jabber:client"/></f></message>', text
        )
        assert "xmlns" not in text.split(">")[0]
        bot.send("<message from='bot.localhost' to='alice@localhost/raw'><body>ho</body></message>")
        assert "xmlns" not in await alice.expect("</message>")


async def test_component_messages_are_understood_by_slixmpp_on_both_sides() -> None:
    async with server() as loopback:
        alice, bot = loopback.client("alice/phone"), loopback.component("bot.localhost")
        heard: asyncio.Queue[str] = asyncio.Queue()
        bot.add_event_handler("message", lambda message: message.reply("ho").send())
        alice.add_event_handler("message", lambda message: heard.put_nowait(message["body"]))
        for xmpp in (alice, bot):
            await loopback.connect(xmpp)
        alice.send_message(JID("bot.localhost"), "hi")
        assert await asyncio.wait_for(heard.get(), 10) == "ho"


async def test_component_error_reaches_the_client_with_its_condition() -> None:
    async with server() as loopback:
        alice, bot = loopback.client("alice/phone"), loopback.component("bot.localhost")
        alice.register_plugin("xep_0199")
        for xmpp in (alice, bot):
            await loopback.connect(xmpp)
        with pytest.raises(IqError) as caught:
            await alice.plugin["xep_0199"].send_ping(JID("bot.localhost"))
        assert caught.value.condition == "feature-not-implemented"


async def test_component_not_connected_is_told_to_who_asks() -> None:
    async with server() as loopback:
        alice = loopback.client("alice/phone")
        alice.register_plugin("xep_0199")
        await loopback.connect(alice)
        with pytest.raises(IqError) as caught:
            await alice.plugin["xep_0199"].send_ping(JID("bot.localhost"))
        assert caught.value.condition == "remote-server-timeout"


async def test_component_wrong_secret_is_not_authorized() -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot:
        await shake_hands(bot, "guess")
        assert "<not-authorized" in await bot.rest()


@pytest.mark.parametrize("opening", ["<message/>", "<iq type='get' id='1' to='alice@localhost'/>", "<handshake/>"])
async def test_component_without_handshake_is_not_authorized(opening: str) -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot:
        bot.open("bot.localhost", COMPONENT)
        bot.send(opening)
        assert "<not-authorized" in await bot.rest()


async def test_component_unknown_domain_is_refused() -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot:
        bot.open("spam.localhost", COMPONENT)
        assert "<host-unknown" in await bot.rest()


@pytest.mark.parametrize("sender", ["", "from='alice@localhost'", "from='notbot.localhost'", "from='@'"])
async def test_component_false_sender_ends_the_stream(sender: str) -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot:
        await shake_hands(bot)
        bot.send(f"<message {sender} to='alice@localhost'/>")
        assert "<invalid-from" in await bot.rest()


async def test_component_stanza_without_address_is_refused() -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot:
        await shake_hands(bot)
        bot.send("<message from='bot.localhost'/><message from='bot.localhost' to='alice@localhost/nowhere'/>")
        assert "<bad-request" in await bot.expect("</message>")
        assert "<service-unavailable" in await bot.expect("</message>")


async def test_component_unknown_stanza_ends_the_stream() -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as bot:
        await shake_hands(bot)
        bot.send("<letter from='bot.localhost' to='alice@localhost'/>")
        assert "<unsupported-stanza-type" in await bot.rest()


async def test_component_second_connection_replaces_the_first() -> None:
    async with server() as loopback, raw(loopback, loopback.component_port) as older:
        await shake_hands(older)
        await older.expect("<handshake/>")
        bot, alice = loopback.component("bot.localhost"), loopback.client("alice/phone")
        for xmpp in (bot, alice):
            xmpp.register_plugin("xep_0199")
            await loopback.connect(xmpp)
        assert "<conflict" in await older.rest()
        await settle(alice, "bot.localhost")


async def test_component_kicked_can_come_back() -> None:
    async with server() as loopback:
        bot = loopback.component("bot.localhost")
        await loopback.connect(bot)
        gone = asyncio.get_running_loop().create_future()
        bot.add_event_handler("disconnected", gone.set_result, disposable=True)
        loopback.kick("bot.localhost")
        await asyncio.wait_for(gone, 10)
        await loopback.connect(bot)


async def test_component_contact_sees_presence_and_its_end() -> None:
    async with server() as loopback:
        alice, bot = loopback.client("alice/phone"), loopback.component("bot.localhost")
        for xmpp in (alice, bot):
            xmpp.register_plugin("xep_0199")
        inbox = Inbox(bot)
        bot.auto_authorize = True
        await loopback.connect(bot)
        await loopback.connect(alice)
        alice.send_presence()
        bot.send_presence_subscription("alice@localhost", pfrom="files@bot.localhost")
        async with asyncio.timeout(10):
            while not inbox.select("presence", type="subscribed", from_="alice@localhost"):
                await asyncio.sleep(0.001)
        await settle(alice, "bot.localhost")
        assert inbox.select("presence", type=None, from_="alice@localhost/phone", to="files@bot.localhost")
        loopback.kick("alice/phone")
        async with asyncio.timeout(10):
            while not inbox.select("presence", type="unavailable", from_="alice@localhost/phone"):
                await asyncio.sleep(0.001)


async def test_component_class_of_the_caller_gets_its_arguments() -> None:
    class Gateway(slixmpp.ComponentXMPP):
        def __init__(self, name: str, secret: str, *, colour: str) -> None:
            super().__init__(name, secret)  # type: ignore[no-untyped-call]
            self.colour = colour

    async with server() as loopback:
        gateway = loopback.component("bot.localhost", Gateway, colour="red")
        await loopback.connect(gateway)
        assert gateway.colour == "red"
