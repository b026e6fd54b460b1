"""Personal eventing: the same on the loopback server, Prosody and ejabberd."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError

from slixmpp_bt.testing import LoopbackServer

from .servers import Server
from .testing_tools import PATIENCE, Inbox, settle, until

NODE = "urn:example:catalogue:0"
EVENT = "{http://jabber.org/protocol/pubsub#event}"
ERRORS = "{http://jabber.org/protocol/pubsub#errors}"


class Reader:
    """A client that publishes and reads; `notify` announces an interest in the node."""

    def __init__(self, client: slixmpp.ClientXMPP, *, notify: bool = False) -> None:
        self.client: Any = client
        for plugin in ("xep_0004", "xep_0030", "xep_0060", "xep_0115", "xep_0163", "xep_0199"):
            client.register_plugin(plugin)
        self.pubsub: Any = client.plugin["xep_0060"]
        self.notify = notify
        self.inbox = Inbox(client)

    @property
    def bare(self) -> JID:
        return JID(self.client.boundjid.bare)

    async def enter(self, server: Server) -> Reader:
        await server.connect(self.client, presence=not self.notify)
        if self.notify:
            self.client.plugin["xep_0030"].add_feature(f"{NODE}+notify")
            self.client.send_presence()
            await self.client.plugin["xep_0115"].update_caps(broadcast=True)
            for _ in range(2):  # The server asks what the caps stand for, and gets an answer.
                await settle(self.client, server.domain)
        return self

    async def publish(self, item_id: str, **options: Any) -> None:
        payload = fromstring(f"<offer xmlns='urn:example:offer' n='{item_id}'/>")
        await self.pubsub.publish(
            None, NODE, id=item_id, payload=payload, options=self.form(options) if options else None, timeout=PATIENCE
        )

    def form(self, options: dict[str, Any], kind: str = "publish-options") -> Any:
        form = self.client.plugin["xep_0004"].make_form(ftype="submit")
        form.add_field("FORM_TYPE", "hidden", value=f"http://jabber.org/protocol/pubsub#{kind}")
        for name, value in options.items():
            form.add_field(f"pubsub#{name}", value=value)
        return form

    async def items(self, owner: JID) -> list[str]:
        answer = await self.pubsub.get_items(owner, NODE, timeout=PATIENCE)
        return [item["id"] for item in answer["pubsub"]["items"]]

    def events(self) -> list[tuple[str, str | None]]:
        """What happened in the node: the local name of the entry, and its id."""
        entries = [e for m in self.inbox.select("message") for e in m.findall(f"{EVENT}event/{EVENT}items/*")]
        return [(entry.tag.rpartition("}")[2], entry.get("id")) for entry in entries]


async def contacts(server: Server, *, notify: bool = True) -> tuple[Reader, Reader]:
    jids = [await server.add_user(name) for name in ("erin", "frank")]
    await server.subscribe(*jids)
    erin, frank = Reader(server.client(f"{jids[0]}/x")), Reader(server.client(f"{jids[1]}/x"), notify=notify)
    return await erin.enter(server), await frank.enter(server)


async def refused(request: Any) -> tuple[str, str | None]:
    """The condition of an error and, if there is one, that of pubsub."""
    with pytest.raises(IqError) as caught:
        await request
    error: Element = caught.value.iq["error"].xml
    special = [child.tag.removeprefix(ERRORS) for child in error if child.tag.startswith(ERRORS)]
    return caught.value.condition, special[0] if special else None


async def test_publish_item_can_be_read_by_oneself_and_contacts(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    assert await erin.items(erin.bare) == await frank.items(erin.bare) == ["1"]
    answer = await frank.pubsub.get_item(erin.bare, NODE, "1", timeout=PATIENCE)
    assert answer["pubsub"]["items"]["item"]["payload"].get("n") == "1"


async def test_publish_interested_contact_is_notified(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    await until(lambda: frank.events() == [("item", "1")])
    message = next(m for m in frank.inbox.select("message") if m.find(f"{EVENT}event") is not None)
    assert (message.get("from"), message.get("type")) == (erin.bare.bare, "headline")
    assert message.find(f"{EVENT}event/{EVENT}items[@node='{NODE}']/{EVENT}item/{{urn:example:offer}}offer") is not None


async def test_publish_contact_without_interest_is_not_notified(server: Server) -> None:
    erin, frank = await contacts(server, notify=False)
    await erin.publish("1")
    await settle(erin.client, frank.client)
    assert frank.events() == []


async def test_publish_contact_who_comes_later_is_told_the_last(server: Server) -> None:
    erin = await Reader(server.client(f"{await server.add_user('erin')}/x")).enter(server)
    jid = await server.add_user("frank")
    await erin.client.disconnect()
    await server.subscribe(erin.bare, jid)
    erin = await Reader(server.client(erin.client.boundjid.full)).enter(server)
    for item in ("1", "2"):
        await erin.publish(item)
    frank = await Reader(server.client(f"{jid}/x"), notify=True).enter(server)
    await until(lambda: frank.events() == [("item", "2")])


async def test_publish_keeps_one_item_unless_told_otherwise(server: Server) -> None:
    erin, frank = await contacts(server)
    for item in ("1", "2"):
        await erin.publish(item)
    assert await frank.items(erin.bare) == ["2"]


async def test_publish_with_options_keeps_many_items(server: Server) -> None:
    erin, frank = await contacts(server)
    options = {"max_items": "10", "persist_items": "true"}
    if server.name == "ejabberd":  # It knows no such publish-options.
        await erin.publish("1")
        await erin.pubsub.set_node_config(None, NODE, erin.form(options, "node_config"), timeout=PATIENCE)
        options = {}
    for item in ("1", "2", "3"):
        await erin.publish(item, **options)
    assert sorted(await frank.items(erin.bare)) == ["1", "2", "3"]


async def test_publish_with_other_options_than_the_node_has_is_refused(server: Server) -> None:
    erin, _ = await contacts(server)
    await erin.publish("1", access_model="presence")
    assert await refused(erin.publish("2", access_model="whitelist")) == ("conflict", "precondition-not-met")
    assert await erin.items(erin.bare) == ["1"]


async def test_publish_to_somebody_else_is_forbidden(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    payload = fromstring("<offer xmlns='urn:example:offer'/>")
    request = frank.pubsub.publish(erin.bare, NODE, id="2", payload=payload, timeout=PATIENCE)
    assert (await refused(request))[0] == "forbidden"
    assert await erin.items(erin.bare) == ["1"]


async def test_retract_removes_and_notifies(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    await erin.pubsub.retract(None, NODE, "1", notify=True, timeout=PATIENCE)
    if server.name != "ejabberd":  # 23.01 tells nobody, whatever notify_retract says.
        await until(lambda: frank.events() == [("item", "1"), ("retract", "1")])
    assert await frank.items(erin.bare) == []


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("presence", ("not-authorized", "presence-subscription-required")),
        ("whitelist", ("not-allowed", "closed-node")),
    ],
)
async def test_access_stranger_is_refused(server: Server, model: str, answer: tuple[str, str]) -> None:
    erin, _ = await contacts(server)
    await erin.publish("1", access_model=model)
    alice = await Reader(server.client("alice/a")).enter(server)
    if server.name == "prosody":  # It does not say why.
        assert await refused(alice.items(erin.bare)) == ("forbidden", None)
        return
    assert await refused(alice.items(erin.bare)) == answer


async def test_access_whitelist_keeps_contacts_out_and_members_in(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1", access_model="whitelist")
    await refused(frank.items(erin.bare))
    await erin.pubsub.modify_affiliations(None, NODE, affiliations=[(frank.bare, "member")], timeout=PATIENCE)
    assert await frank.items(erin.bare) == ["1"]


async def test_access_who_may_not_read_is_not_notified(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1", access_model="whitelist")
    await settle(erin.client, frank.client)
    assert frank.events() == []


async def test_access_roster_lets_in_the_group() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        server.subscribe("alice", "bob")
        alice, bob = Reader(server.client("alice/a")), Reader(server.client("bob/b"))
        for reader in (alice, bob):
            await server.connect(reader.client)
        await alice.publish("1", access_model="roster", roster_groups_allowed=["friends"])
        assert await refused(bob.items(alice.bare)) == ("not-authorized", "not-in-roster-group")
        await alice.client.update_roster(bob.bare, groups=["friends"])
        assert await bob.items(alice.bare) == ["1"]


async def test_access_open_lets_strangers_read_and_subscribe(server: Server) -> None:
    erin, _ = await contacts(server)
    await erin.publish("1", access_model="open")
    alice = await Reader(server.client("alice/a")).enter(server)
    assert await alice.items(erin.bare) == ["1"]
    await alice.pubsub.subscribe(erin.bare, NODE, timeout=PATIENCE)
    await erin.publish("2")
    await until(lambda: ("item", "2") in alice.events())
    assert alice.events().count(("item", "2")) == 1


async def test_subscription_ended_gets_nothing_more(server: Server) -> None:
    if server.name == "ejabberd":
        pytest.skip("ejabberd 23.01 goes on")
    erin, _ = await contacts(server)
    await erin.publish("1", access_model="open")
    alice = await Reader(server.client("alice/a")).enter(server)
    await alice.pubsub.subscribe(erin.bare, NODE, timeout=PATIENCE)
    await alice.pubsub.unsubscribe(erin.bare, NODE, timeout=PATIENCE)
    await erin.publish("2")
    await settle(erin.client, alice.client)
    assert ("item", "2") not in alice.events()


async def test_create_node_twice_conflicts(server: Server) -> None:
    erin, _ = await contacts(server)
    await erin.pubsub.create_node(None, NODE, timeout=PATIENCE)
    assert (await refused(erin.pubsub.create_node(None, NODE, timeout=PATIENCE)))[0] == "conflict"


async def test_purge_empties_the_node() -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as server:
        alice = Reader(server.client("alice/a"))
        await server.connect(alice.client)
        await alice.publish("1")
        await alice.pubsub.purge(None, NODE)
        assert await alice.items(alice.bare) == []


async def test_affiliations_are_listed_and_outcasts_kept_out() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        alice, bob = Reader(server.client("alice/a")), Reader(server.client("bob/b"))
        for reader in (alice, bob):
            await server.connect(reader.client)
        await alice.publish("1", access_model="open")
        await alice.pubsub.modify_affiliations(None, NODE, affiliations=[(bob.bare, "outcast")])
        assert await refused(bob.items(alice.bare)) == ("forbidden", None)
        listed = await alice.pubsub.get_node_affiliations(None, NODE)
        assert [(a["jid"], a["affiliation"]) for a in listed["pubsub_owner"]["affiliations"]] == [(bob.bare, "outcast")]


async def test_items_newest_are_the_last() -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as server:
        alice = Reader(server.client("alice/a"))
        await server.connect(alice.client)
        for item in ("1", "2", "3"):
            await alice.publish(item, max_items="max")
        answer = await alice.pubsub.get_items(alice.bare, NODE, max_items=2)
        assert [item["id"] for item in answer["pubsub"]["items"]] == ["2", "3"]


async def test_items_of_unknown_node_are_not_found(server: Server) -> None:
    erin, _ = await contacts(server)
    assert (await refused(erin.items(erin.bare)))[0] == "item-not-found"


async def test_configure_node_changes_who_may_read(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    form = erin.form({"access_model": "whitelist"}, "node_config")
    await erin.pubsub.set_node_config(None, NODE, form, timeout=PATIENCE)
    await refused(frank.items(erin.bare))
    config = await erin.pubsub.get_node_config(None, NODE, timeout=PATIENCE)
    assert config["pubsub_owner"]["configure"]["form"].get_values()["pubsub#access_model"] == "whitelist"


async def test_delete_node_is_gone(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    await erin.pubsub.delete_node(None, NODE, timeout=PATIENCE)
    assert (await refused(frank.items(erin.bare)))[0] == "item-not-found"


async def test_disco_contact_finds_the_nodes(server: Server) -> None:
    erin, frank = await contacts(server)
    await erin.publish("1")
    items = await frank.client.plugin["xep_0030"].get_items(erin.bare, timeout=PATIENCE)
    assert (erin.bare.bare, NODE) in {(jid, node) for jid, node, _ in items["disco_items"]["items"]}
    if server.name == "loopback":
        info = await frank.client.plugin["xep_0030"].get_info(erin.bare, node=NODE, timeout=PATIENCE)
        assert ("pubsub", "leaf") in {identity[:2] for identity in info["disco_info"]["identities"]}
        items = await frank.client.plugin["xep_0030"].get_items(erin.bare, node=NODE, timeout=PATIENCE)
        assert {name for _, _, name in items["disco_items"]["items"]} == {"1"}


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        ("<publish/>", "bad-request"),
        ("<publish node='n'/>", "bad-request"),
        ("<publish node='n'><item><a xmlns='a'/><b xmlns='b'/></item></publish>", "bad-request"),
        ("<publish><item id='1'/></publish>", "bad-request"),
        ("<retract node='n'><item id='1'/></retract>", "item-not-found"),
        ("<items node='n'/>", "item-not-found"),
        ("<subscribe node='n' jid='bob@localhost'/>", "bad-request"),
        ("<subscribe node='n' jid='@'/>", "jid-malformed"),
        ("<subscribe node='n' jid='alice@localhost'/>", "item-not-found"),
        ("<dance/>", "feature-not-implemented"),
        ("", "bad-request"),
        ("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>{}</x></configure>", "not-acceptable"),
    ],
)
async def test_request_nonsense_is_refused(xml: str, condition: str) -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as server:
        alice = server.client("alice/a")
        await server.connect(alice)
        field = "<field var='pubsub#max_items'><value>-1</value></field>"
        iq = alice.make_iq_set()
        iq.append(fromstring(f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{xml.format(field)}</pubsub>"))
        assert (await refused(iq.send()))[0] == condition


async def test_restart_items_stay() -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as server:
        alice = Reader(server.client("alice/a"))
        await server.connect(alice.client)
        await alice.publish("1")
        await server.stop()
        await server.start()
        await until(lambda: not alice.client.is_connected())
        await server.connect(alice.client)
        assert await alice.items(alice.bare) == ["1"]


async def test_caps_false_answer_and_changed_caps_are_survived() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        server.subscribe("alice", "bob")
        alice, bob = Reader(server.client("alice/a")), Reader(server.client("bob/b"))
        for reader in (alice, bob):
            await server.connect(reader.client)
        caps = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:n' ver='{}'/>"
        bob.client.send_raw(f"<presence>{caps.format('unknown')}</presence>")
        await until(lambda: bob.inbox.select("iq", type="get"))
        await alice.publish("1")
        bob.client.plugin["xep_0030"].add_feature(f"{NODE}+notify")
        bob.client.plugin["xep_0030"].add_feature(f"{NODE}+notify", node="urn:n#known")
        bob.client.send_raw(f"<presence>{caps.format('known')}</presence>")
        await until(lambda: bob.events() == [("item", "1")])
