"""The server behind its streams: whatever two users send, it answers with stanzas and raises nothing."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

from hypothesis import given, settings
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.testing.accounts import Account
from slixmpp_bt.testing.caps import Capabilities
from slixmpp_bt.testing.disco import Disco
from slixmpp_bt.testing.domain import Domain
from slixmpp_bt.testing.markup import StreamParser, StreamStart, serialise
from slixmpp_bt.testing.muc import Rooms
from slixmpp_bt.testing.pep import Pep
from slixmpp_bt.testing.routing import Router
from slixmpp_bt.testing.sasl import Credentials

HEADER = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
MUC, PUBSUB = "http://jabber.org/protocol/muc", "http://jabber.org/protocol/pubsub"


class World:
    """A server without sockets, and what it has sent to each session."""

    def __init__(self) -> None:
        router = Router()
        self.domain = Domain("localhost", router)
        Pep(self.domain, Disco(self.domain), Capabilities(self.domain))
        Rooms("conference.localhost", router)
        self.sent: dict[JID, list[Element]] = {}
        for name, resources in (("alice", "ab"), ("bob", "b")):
            account = Account(f"{name}@localhost", Credentials(name, "secret"))
            self.domain.accounts[account.jid] = account
            for resource in resources:
                stanzas: list[Element] = []
                session = self.domain.bind(account, resource, stanzas.append)
                self.sent[session.jid] = stanzas

    def receive(self, sender: str, stanza: Element) -> None:
        stanza.set("from", sender)
        self.domain.outbound(JID(sender), stanza)


senders = st.sampled_from(["alice@localhost/a", "alice@localhost/b", "bob@localhost/b"])
addresses = st.sampled_from(
    [
        "alice@localhost",
        "alice@localhost/a",
        "bob@localhost",
        "bob@localhost/b",
        "nobody@localhost",
        "localhost",
        "localhost/x",
        "conference.localhost",
        "den@conference.localhost",
        "den@conference.localhost/a",
        "den@conference.localhost/b",
        "elsewhere.test",
        "@",
        "a@b@c",
    ]
)
words = st.one_of(
    addresses,
    st.sampled_from(
        [
            "get",
            "set",
            "result",
            "error",
            "chat",
            "normal",
            "groupchat",
            "headline",
            "subscribe",
            "subscribed",
            "unsubscribe",
            "unsubscribed",
            "probe",
            "unavailable",
            "remove",
            "none",
            "participant",
            "moderator",
            "outcast",
            "member",
            "admin",
            "owner",
            "visitor",
            "n",
            "m",
            "1",
            "0",
            "-1",
            "max",
            "open",
            "presence",
            "roster",
            "whitelist",
            "submit",
            "cancel",
            "pubsub#access_model",
            "pubsub#max_items",
            "pubsub#nonsense",
            "pubsub#persist_items",
            "muc#roomconfig_whois",
            "muc#roomconfig_membersonly",
            "anyone",
            "FORM_TYPE",
            "2001-01-01T00:00:00Z",
        ]
    ),
    st.text(max_size=3),
)
tags = st.sampled_from(
    [
        *("{jabber:client}body", "{jabber:client}subject", "{jabber:client}priority", "{jabber:client}error"),
        *("{jabber:iq:roster}query", "{jabber:iq:roster}item", "{jabber:iq:roster}group", "{urn:xmpp:ping}ping"),
        *("{http://jabber.org/protocol/disco#info}query", "{http://jabber.org/protocol/disco#items}query"),
        *(f"{{{MUC}}}x", f"{{{MUC}}}history", f"{{{MUC}}}password", f"{{{MUC}#user}}x", f"{{{MUC}#user}}invite"),
        *(f"{{{MUC}#admin}}query", f"{{{MUC}#admin}}item", f"{{{MUC}#owner}}query", f"{{{MUC}#owner}}destroy"),
        *(
            f"{{{PUBSUB}}}{n}"
            for n in ["pubsub", "publish", "item", "items", "retract", "create", "configure", "subscribe"]
        ),
        *(f"{{{PUBSUB}#owner}}{n}" for n in ["pubsub", "configure", "affiliations", "affiliation", "delete", "purge"]),
        *(f"{{{PUBSUB}}}publish-options", "{jabber:x:data}x", "{jabber:x:data}field", "{jabber:x:data}value"),
        *("{http://jabber.org/protocol/caps}c", "{urn:xmpp:hints}store", "{urn:xmpp:delay}delay", "{urn:x}x"),
    ]
)
keys = st.sampled_from(
    [
        "id",
        "type",
        "jid",
        "node",
        "var",
        "name",
        "subscription",
        "nick",
        "role",
        "affiliation",
        "notify",
        "max_items",
        "maxstanzas",
        "seconds",
        "since",
        "ver",
    ]
)


def build(tag: str, attributes: dict[str, str], text: str, children: list[Element]) -> Element:
    element = Element(tag, attributes)
    element.text = text
    element.extend(children)
    return element


payloads = st.recursive(
    st.builds(build, tags, st.dictionaries(keys, words, max_size=4), words, st.just([])),
    lambda inner: st.builds(build, tags, st.dictionaries(keys, words, max_size=4), words, st.lists(inner, max_size=3)),
    max_leaves=6,
)
KINDS = tuple(f"{{jabber:client}}{name}" for name in ("message", "presence", "iq"))


@st.composite
def stanzas(draw: st.DrawFn) -> Element:
    attributes = draw(st.fixed_dictionaries({}, optional={"to": addresses, "type": words, "id": words}))
    return build(draw(st.sampled_from(KINDS)), attributes, "", draw(st.lists(payloads, max_size=2)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(senders, stanzas()), max_size=12))
def test_domain_any_stanzas_raise_nothing_and_are_answered_with_stanzas(received: list[tuple[str, Element]]) -> None:
    world = World()
    for sender, stanza in received:
        world.receive(sender, stanza)
    for session in [s for account in list(world.domain.sessions) for s in world.domain.connected(account)]:
        world.domain.unbind(session)
    for address, sent in world.sent.items():
        for stanza in sent:
            assert stanza.get("to") is None or JID(stanza.get("to")).bare == address.bare
            assert stanza.tag in KINDS


@given(st.lists(stanzas(), min_size=1, max_size=4))
def test_domain_a_conversation_survives_the_wire(said: list[Element]) -> None:
    parser = StreamParser(1_000_000)
    start, *received = parser.feed(HEADER + b"".join(serialise(_printable(stanza)) for stanza in said))
    assert isinstance(start, StreamStart)
    assert [tostring(stanza) for stanza in received if isinstance(stanza, Element)] == [tostring(s) for s in said]


def _printable(stanza: Element) -> Element:
    """Without the characters that no XML may contain."""
    for element in stanza.iter():
        element.text = "".join(filter(str.isprintable, element.text or ""))
        element.attrib.update({k: "".join(filter(str.isprintable, v)) for k, v in element.attrib.items()})
    return stanza
