"""Presence and subscriptions: the same on the loopback server, Prosody and ejabberd."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from slixmpp import JID
from slixmpp.exceptions import IqError

from slixmpp_bt.testing import LoopbackServer

from .servers import Server
from .testing_tools import Inbox, settle, until


class Person:
    """A client with an inbox that answers no subscription request by itself."""

    def __init__(self, server: Server, jid: str) -> None:
        self.server = server
        self.client: Any = server.client(jid)
        self.client.register_plugin("xep_0199")
        self.client.auto_authorize = None
        self.client.auto_subscribe = False
        self.inbox = Inbox(self.client)

    @property
    def jid(self) -> JID:
        return JID(self.client.boundjid)

    async def enter(self, **presence: Any) -> Person:
        await self.server.connect(self.client, presence=False)
        await self.appear(**presence)
        return self

    async def appear(self, **presence: Any) -> None:
        self.client.send_presence(**presence)
        await self.sees(self.jid.full)

    async def sees(self, who: str, word: str | None = None) -> Element:
        await until(lambda: self.inbox.select("presence", from_=who, type=word))
        return self.inbox.select("presence", from_=who, type=word)[-1]

    def subscription(self, contact: Person) -> str:
        return str(self.client.client_roster[contact.jid.bare]["subscription"])


async def strangers(server: Server) -> tuple[Person, Person]:
    erin, frank = [Person(server, f"{await server.add_user(name)}/x") for name in ("erin", "frank")]
    return await erin.enter(), await frank.enter()


async def friends(server: Server) -> tuple[Person, Person]:
    jids = [await server.add_user(name) for name in ("erin", "frank")]
    await server.subscribe(*jids)
    erin, frank = (Person(server, f"{jid}/x") for jid in jids)
    await erin.enter()
    await frank.enter()
    await erin.sees(frank.jid.full)
    await frank.sees(erin.jid.full)
    return erin, frank


async def test_presence_payload_arrives_as_it_was_sent(server: Server) -> None:
    erin, frank = await friends(server)
    erin.client.send_raw(
        "<presence><show>dnd</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:n' ver='AAAA'/>"
        "<x xmlns='urn:x' a='1'><y xmlns='urn:y'>z</y></x></presence>"
    )
    await until(lambda: any(p.find("{urn:x}x") is not None for p in frank.inbox.select("presence", type=None)))
    seen = frank.inbox.select("presence", from_=erin.jid.full)[-1]
    assert seen.findtext("{urn:x}x[@a='1']/{urn:y}y") == "z"
    caps = seen.find("{http://jabber.org/protocol/caps}c")
    assert caps is not None
    assert caps.get("ver") == "AAAA"


async def test_presence_of_strangers_is_not_told(server: Server) -> None:
    erin, frank = await strangers(server)
    await settle(erin.client, frank.client)
    assert frank.inbox.select("presence", from_=erin.jid.full) == []


async def test_presence_of_own_devices_is_told(server: Server) -> None:
    jid = await server.add_user("erin")
    phone, desk = Person(server, f"{jid}/phone"), Person(server, f"{jid}/desk")
    await phone.enter()
    await desk.enter()
    await phone.sees(desk.jid.full)
    await desk.sees(phone.jid.full)


async def test_presence_dropped_connection_is_told_as_unavailable(server: Server) -> None:
    erin, frank = await friends(server)
    erin.client.abort()
    await frank.sees(erin.jid.full, "unavailable")


async def test_presence_direct_is_taken_back_when_its_sender_drops(server: Server) -> None:
    erin, frank = await strangers(server)
    erin.client.send_presence(pto=frank.jid)
    await frank.sees(erin.jid.full)
    erin.client.abort()
    await frank.sees(erin.jid.full, "unavailable")


async def test_presence_unavailable_and_back_is_told_both_times(server: Server) -> None:
    erin, frank = await friends(server)
    erin.client.send_presence(ptype="unavailable")
    await frank.sees(erin.jid.full, "unavailable")
    frank.inbox.stanzas.clear()
    await erin.appear()
    await frank.sees(erin.jid.full)


async def test_presence_probe_by_a_contact_is_answered(server: Server) -> None:
    erin, frank = await friends(server)
    frank.inbox.stanzas.clear()
    frank.client.send_presence(pto=erin.jid.bare, ptype="probe")
    await frank.sees(erin.jid.full)


async def test_subscription_asked_and_granted_shows_presence(server: Server) -> None:
    erin, frank = await strangers(server)
    erin.client.send_presence_subscription(frank.jid.bare)
    request = await frank.sees(erin.jid.bare, "subscribe")
    assert JID(request.get("to")).bare == frank.jid.bare
    frank.client.send_presence_subscription(erin.jid.bare, ptype="subscribed")
    await erin.sees(frank.jid.bare, "subscribed")
    await erin.sees(frank.jid.full)
    await until(lambda: (erin.subscription(frank), frank.subscription(erin)) == ("to", "from"))
    for person in (erin, frank):
        person.client.send_presence(pshow="away")
    await until(
        lambda: erin.inbox.select("presence", from_=frank.jid.full)[-1].findtext("{jabber:client}show") == "away"
    )
    await settle(erin.client, frank.client)
    assert frank.inbox.select("presence", from_=erin.jid.full) == []


async def test_subscription_refused_leaves_nothing(server: Server) -> None:
    erin, frank = await strangers(server)
    erin.client.send_presence_subscription(frank.jid.bare)
    await frank.sees(erin.jid.bare, "subscribe")
    frank.client.send_presence_subscription(erin.jid.bare, ptype="unsubscribed")
    await erin.sees(frank.jid.bare, "unsubscribed")
    assert erin.subscription(frank) == "none"


async def test_subscription_ended_by_the_one_who_asked(server: Server) -> None:
    erin, frank = await friends(server)
    erin.client.send_presence_subscription(frank.jid.bare, ptype="unsubscribe")
    await until(lambda: (erin.subscription(frank), frank.subscription(erin)) == ("from", "to"))
    if server.name != "prosody":  # Prosody 0.12 omits what RFC 6121 section 3.3.3 demands.
        await erin.sees(frank.jid.full, "unavailable")


async def test_subscription_ended_by_the_one_who_was_asked(server: Server) -> None:
    erin, frank = await friends(server)
    frank.client.send_presence_subscription(erin.jid.bare, ptype="unsubscribed")
    await erin.sees(frank.jid.full, "unavailable")
    await until(lambda: (erin.subscription(frank), frank.subscription(erin)) == ("from", "to"))


async def test_subscription_asked_in_absence_waits(server: Server) -> None:
    erin = await Person(server, f"{await server.add_user('erin')}/x").enter()
    frank_jid = await server.add_user("frank")
    erin.client.send_presence_subscription(frank_jid)
    await settle(erin.client, server.domain)
    frank = await Person(server, f"{frank_jid}/x").enter()
    await frank.sees(erin.jid.bare, "subscribe")


async def test_subscription_asked_by_a_slixmpp_bot_with_its_defaults_is_mutual(server: Server) -> None:
    erin, frank = await strangers(server)
    for person in (erin, frank):
        person.client.auto_authorize = person.client.auto_subscribe = True
    erin.client.send_presence_subscription(frank.jid.bare)
    await until(lambda: erin.subscription(frank) == frank.subscription(erin) == "both")


async def test_subscription_unasked_grant_gives_nothing(server: Server) -> None:
    erin, frank = await strangers(server)
    frank.client.send_presence_subscription(erin.jid.bare, ptype="subscribed")
    await settle(frank.client, erin.client)
    assert erin.inbox.select("presence", from_=frank.jid.full) == []
    assert erin.subscription(frank) == "none"


async def test_subscription_asked_of_nobody_is_refused_or_silent(server: Server) -> None:
    erin, _ = await strangers(server)
    erin.client.send_presence_subscription(f"nobody@{server.domain}")
    await settle(erin.client, server.domain)
    if server.name == "loopback":
        await erin.sees(f"nobody@{server.domain}", "unsubscribed")
    await erin.client.get_roster()
    assert erin.client.client_roster[f"nobody@{server.domain}"]["subscription"] == "none"


async def test_presence_probe_by_a_stranger_tells_nothing(server: Server) -> None:
    erin, frank = await strangers(server)
    frank.client.send_presence(pto=erin.jid.bare, ptype="probe")
    await settle(frank.client, erin.client)
    assert frank.inbox.select("presence", from_=erin.jid.full) == []


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("", "bad-request"),
        ("<item jid='a@b'/><item jid='c@d'/>", "bad-request"),
        ("<item jid='@'/>", "jid-malformed"),
        ("<item jid='a@b' subscription='remove'/>", "item-not-found"),
        ("<item jid='alice@localhost'/>", "not-allowed"),
    ],
)
async def test_roster_nonsense_is_refused(query: str, condition: str) -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as server:
        alice = server.client("alice/a")
        await server.connect(alice)
        iq = alice.make_iq_set()
        iq.append(fromstring(f"<query xmlns='jabber:iq:roster'>{query}</query>"))
        with pytest.raises(IqError) as caught:
            await iq.send()
        assert caught.value.condition == condition


async def test_roster_item_set_is_pushed_and_kept(server: Server) -> None:
    jid = await server.add_user("erin")
    phone, desk = Person(server, f"{jid}/phone"), Person(server, f"{jid}/desk")
    await phone.enter()
    await desk.enter()
    contact = f"gina@{server.domain}"
    phone.client.update_roster(contact, name="Gina <&>", groups=["a", "b"])
    await until(lambda: contact in desk.client.client_roster)
    item = desk.client.client_roster[contact]
    assert (item["name"], sorted(item["groups"]), item["subscription"]) == ("Gina <&>", ["a", "b"], "none")


async def test_roster_item_removed_ends_both_subscriptions(server: Server) -> None:
    erin, frank = await friends(server)
    erin.client.del_roster_item(frank.jid.bare)
    await until(lambda: frank.subscription(erin) == "none")
    if server.name != "prosody":  # As above, of the user's removal and of the contact's.
        await frank.sees(erin.jid.full, "unavailable")
        await erin.sees(frank.jid.full, "unavailable")
    erin.client.client_roster._jids.clear()
    await erin.client.get_roster()
    assert frank.jid.bare not in erin.client.client_roster


async def test_subscribe_online_users_see_each_other_at_once() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}) as server:
        clients = [server.client("alice/a"), server.client("bob/b")]
        inboxes = [Inbox(client) for client in clients]
        for client in clients:
            await server.connect(client)
            await client.get_roster()
            client.send_presence()
        await server.wait_available("alice/a")
        await server.wait_available("bob/b")
        server.subscribe("alice", "bob")
        await until(lambda: inboxes[0].select("presence", from_="bob@localhost/b"))
        await until(lambda: inboxes[1].select("presence", from_="alice@localhost/a"))
        assert clients[0].client_roster["bob@localhost"]["subscription"] == "both"
