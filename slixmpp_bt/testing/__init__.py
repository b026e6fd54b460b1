"""A real XMPP server in the test's own process, for those who test bots.

:class:`LoopbackServer` speaks to any client: STARTTLS, SASL, rosters and presence, messages kept for later, rooms,
personal eventing, external components. It listens on a loopback address and on nothing else, keeps everything in
memory, and starts within milliseconds, so each test can have its own::

    import asyncio

    import slixmpp
    from slixmpp_bt.testing import LoopbackServer, carries


    class Parrot(slixmpp.ClientXMPP):
        def __init__(self, jid, password):
            super().__init__(jid, password)
            self.add_event_handler("session_start", self.start)
            self.add_event_handler("message", self.repeat)

        async def start(self, event):
            self.send_presence()

        def repeat(self, message):
            message.reply(message["body"]).send()


    async def test_parrot_when_spoken_to_repeats():
        async with LoopbackServer(users={"parrot": "secret", "alice": "secret"}) as server:
            bot, alice = server.client("parrot", Parrot), server.client("alice/phone")
            await server.connect(bot)
            await server.connect(alice)
            await server.wait_available("parrot")
            heard = asyncio.get_running_loop().create_future()
            alice.add_event_handler("message", heard.set_result)
            lost = server.faults.lose(carries("{jabber:client}body"))
            alice.send_message("parrot@localhost", "Never heard.")
            alice.send_message("parrot@localhost", "Pretty bird!")
            assert (await heard)["body"] == "Pretty bird!"
            assert lost.hits == 1

What goes wrong in the world can go wrong here: :attr:`LoopbackServer.faults` loses, repeats, delays and holds stanzas,
:meth:`~LoopbackServer.kick` drops a connection, :meth:`~LoopbackServer.stop` and :meth:`~LoopbackServer.start` are a
restart of the server, and `max_stanza`, `rate` and `burst` are the limits that real servers have. Prosody as Debian
ships it reads 10,000 bytes a second, ejabberd 3,000 with a burst of 20,000; both accept stanzas of 262,144 bytes.

With ``proxy=True`` it also offers a SOCKS5 proxy (XEP-0065), by which clients send bytes around the server.

It is not a server to run: there is no federation, no archive, no carbons, no stream management, and its passwords are
in memory as they are.
"""

from __future__ import annotations

from .faults import Fault, Faults, carries
from .server import LoopbackServer
from .traffic import Counters, Traffic

__all__ = ["Counters", "Fault", "Faults", "LoopbackServer", "Traffic", "carries"]
