"""Messages: one of every kind, any that there can be, and what can be done to their XML."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any
from xml.etree import ElementTree as ET

from hypothesis import strategies as st
from slixmpp import JID
from slixmpp.stanza import Iq, Message
from slixmpp.xmlstream import ElementBase

from slixmpp_bt import messages, stanza
from slixmpp_bt.blocks import ranges_of
from slixmpp_bt.constants import NS, Mode, Route
from slixmpp_bt.messages import (
    Accept,
    Accepted,
    Candidate,
    Delegate,
    End,
    Fetch,
    Fetching,
    Here,
    Meta,
    MetaChunk,
    Offer,
    Peers,
    Report,
    Seek,
    Share,
    StreamHost,
    Withdraw,
)

stanza.register()

EXPIRES = datetime(2026, 11, 28, 7, tzinfo=UTC)
OFFER_DATE = EXPIRES - timedelta(days=90)
INFO = b"d9:file treed11:holiday.mp4d0:d6:lengthi1073741824e11:pieces root32:" + bytes(range(32)) + b"eeee"
OFFER = Offer(
    id="offer-1",
    mode=Mode.PRIVATE,
    expires=EXPIRES,
    name="holiday.mp4",
    size=2**30,
    info_hash=hashlib.sha256(INFO).digest(),
    info_length=len(INFO),
    info=INFO,
    desc="The lake, on Sunday",
    media_type="video/mp4",
    date=OFFER_DATE,
)
BARE_OFFER = replace(OFFER, info=None)
HERE = Candidate(ip_address("2001:db8::7"), 6881)
THERE = Candidate(ip_address("198.51.100.4"), 51413)

WITHDRAW = Withdraw("offer-1")
SEEK, HERE_IT_IS = Seek("offer-1"), Here("offer-1")
ACCEPT = Accept(
    "offer-1",
    "t-1",
    (HERE, THERE),
    frozenset({Route.SWARM, Route.IN_BAND}),
    frozenset({0, 1, 2, 7, 9}),
    5_000,
    b"a request",
)
ACCEPTED = Accepted(
    "offer-1",
    "t-1",
    (HERE,),
    (THERE,),
    Share(1, 4),
    b"hello",
    10,
    frozenset({Route.SWARM, Route.RELAY}),
    b"a certificate",
)
PROXY = StreamHost(JID("proxy.example.org"), "198.51.100.9", 7777)
FETCH = Fetch("offer-1", "t-1", "s-1", Route.RELAY, ((0, 15), (48, 48)), ((0, 1),), (PROXY,))
FETCHING = Fetching("offer-1", "t-1", 311_296)
META = Meta("offer-1", "t-1", 6_000, 6_000)
CHUNK = MetaChunk("offer-1", 6_000, b"eee")
PEERS = Peers("offer-1", "t-1", (HERE,), (THERE,), Share(0, 3))
REPORT = Report("offer-1", "t-1", 300, 900, ((Route.SWARM, 280), (Route.IN_BAND, 20)))
END = End("offer-1", "cancel", "media-error", "t-1", "The file was changed.")
SAMPLES = (
    OFFER,
    BARE_OFFER,
    WITHDRAW,
    SEEK,
    HERE_IT_IS,
    ACCEPT,
    ACCEPTED,
    META,
    CHUNK,
    FETCH,
    FETCHING,
    PEERS,
    REPORT,
    END,
)

BAD, BEYOND, UNKNOWN = "bad-request", "not-acceptable", "feature-not-implemented"


tokens = st.text("ABCxyz019._~-", min_size=1, max_size=messages.MAX_ID)
numbers = st.integers(0, messages.MAX_NUMBER)
letters = st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n")
moments = st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))
candidates = st.builds(Candidate, st.ip_addresses(), st.integers(1, 65_535))
shares = st.integers(1, messages.MAX_SHARES).flatmap(lambda n: st.builds(Share, st.integers(0, n - 1), st.just(n)))


def texts(most: int) -> st.SearchStrategy[str]:
    return st.text(letters, min_size=1, max_size=min(most, 60))


def several(most: int) -> st.SearchStrategy[tuple[Candidate, ...]]:
    return st.lists(candidates, max_size=most).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    info = draw(maybe(st.binary(min_size=1, max_size=200)))
    return Offer(
        id=draw(tokens),
        mode=draw(st.sampled_from(Mode)),
        expires=draw(moments),
        name=draw(texts(messages.MAX_NAME)),
        size=draw(numbers),
        info_hash=draw(st.binary(min_size=32, max_size=32)) if info is None else hashlib.sha256(info).digest(),
        info_length=draw(st.integers(1, messages.MAX_NUMBER)) if info is None else len(info),
        info=info,
        desc=draw(maybe(texts(messages.MAX_TEXT))),
        media_type=draw(st.sampled_from([None, "video/mp4", "inode/directory", "image/svg+xml"])),
        date=draw(maybe(moments)),
        delegate=draw(st.booleans()),
    )


@st.composite
def reports(draw: st.DrawFn) -> Report:
    total = draw(numbers)
    routes = draw(st.lists(st.tuples(st.sampled_from(Route), numbers), unique_by=lambda pair: pair[0]))
    return Report(draw(tokens), draw(tokens), draw(st.integers(0, total)), total, tuple(routes))


@st.composite
def fetches(draw: st.DrawFn) -> Fetch:
    numbers = st.frozensets(st.integers(0, 300), min_size=1, max_size=200).map(sorted).map(ranges_of)
    blocks, layers = draw(st.tuples(numbers, st.just(()) | numbers) | st.tuples(st.just(()), numbers))
    jids = st.sampled_from(["proxy.example.org", "p@example.org/x"]).map(JID)
    hosts = st.builds(StreamHost, jids, st.sampled_from(["proxy.example.org", "::1"]), st.integers(1, 65_535))
    return Fetch(
        draw(tokens), draw(tokens), draw(tokens), draw(st.sampled_from([Route.RELAY, Route.IN_BAND])),
        blocks, layers, tuple(draw(st.lists(hosts, max_size=messages.MAX_STREAMHOSTS))),
    )  # fmt: skip


selections = st.frozensets(st.integers(0, 40) | st.integers(0, messages.MAX_INDEX), min_size=1)
anything: st.SearchStrategy[Any] = st.one_of(
    offers(),
    st.builds(Withdraw, tokens),
    st.builds(Seek, tokens),
    st.builds(Here, tokens),
    st.builds(
        Accept,
        tokens,
        tokens,
        several(8),
        st.frozensets(st.sampled_from(Route)),
        maybe(selections),
        inline=numbers,
        request=maybe(st.binary(max_size=200)),
    ),
    st.builds(
        Accepted,
        *(tokens, tokens, several(8), several(64)),
        maybe(shares),
        maybe(st.binary(max_size=200)),
        report=maybe(st.integers(messages.MIN_REPORT, messages.MAX_REPORT)),
        routes=maybe(st.frozensets(st.sampled_from(Route), min_size=1)),
        certificate=maybe(st.binary(max_size=400)),
    ),
    fetches(),
    st.builds(Fetching, tokens, tokens, st.integers(1, messages.MAX_NUMBER)),
    st.builds(Meta, tokens, tokens, numbers, st.integers(1, messages.MAX_META_CHUNK)),
    st.builds(MetaChunk, tokens, numbers, st.binary(min_size=1, max_size=200)),
    st.builds(Peers, tokens, tokens, several(64), several(64), maybe(shares)),
    reports(),
    st.builds(
        End,
        tokens,
        st.sampled_from(["complete", "cancel", "decline"]),
        st.sampled_from(sorted(messages.REASONS)),
        maybe(tokens),
        text=maybe(texts(messages.MAX_TEXT)),
        seeding=maybe(numbers),
    ),
    st.builds(Delegate, tokens, tokens, maybe(st.binary(max_size=messages.MAX_KEY))),
)


hostile_text = st.sampled_from(
    ["", " ", "-1", "+1", "1e3", "0x10", "9" * 19, "9" * 5_000, "\u0665", "\u00b2", "NaN", "%s", "=", "====", "QQ",
     "QR==",     "0-", "-", "0-99999999", "5-1", "0--1", "fe80::1%eth0", "::ffff:0.0.0.0", "2026-02-30T00:00:00Z",
     "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00", "2026-01-01T24:00:00Z",
     "open", "swarm", "x" * 5_000, "\ud800", "/", "a/b", "é", "\u2028", "True", "None", "[]", "1 1", "1\n", "1_0", "٣"]
) | st.text(max_size=20)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> ET.Element:
    """A payload with up to five things done to it that its maker would not have done."""
    xml = stanza.build(draw(anything))
    for _ in range(draw(st.integers(1, 5))):
        element = draw(st.sampled_from(list(xml.iter())))
        damage = draw(st.sampled_from(["attribute", "lost attribute", "text", "child", "lost child", "tag", "comment"]))
        if damage == "attribute":
            names = [*element.attrib, "id", "transfer", "length", "index", "kind", "hash", "mode"]
            element.set(draw(st.sampled_from(names)), draw(hostile_text))
        elif damage == "lost attribute":
            element.attrib.pop(draw(st.sampled_from([*element.attrib, "id"])), None)
        elif damage == "text":
            element.text = draw(maybe(hostile_text))
        elif damage == "child" and len(element):
            child = draw(st.sampled_from(list(element)))
            element.extend(deepcopy(child) for _ in range(draw(st.sampled_from([1, 8, 70]))))
        elif damage == "lost child" and len(element):
            element.remove(draw(st.sampled_from(list(element))))
        elif damage == "tag":
            others = [
                f"{{{NS}}}{name}" for name in ("accept", "info", "select", "share", "end", "peers", "by", "nought")
            ]
            element.tag = draw(st.sampled_from(others))
        elif damage == "comment":
            element.append(ET.Comment("nothing"))
    return xml


def reread(xml: ET.Element) -> ET.Element:
    """`xml` after slixmpp has written it and an XML parser has read it."""
    return ET.fromstring(str(ElementBase(xml)))


def in_stanza(message: stanza.AnyMessage) -> Message | Iq:
    """`message` in a stanza, as it would be sent and then read."""
    if isinstance(message, Offer | Withdraw | Seek):
        filled = Message()
        stanza.fill_message(filled, message)
        return Message(xml=ET.fromstring(str(filled)))
    iq = Iq()
    iq["type"] = next(form.within for form in stanza.FORMS if form.carries is type(message))
    iq.append(stanza.build(message))
    return Iq(xml=ET.fromstring(str(iq)))


def changed(message: stanza.AnyMessage, change: Callable[[ET.Element], object]) -> ET.Element:
    xml = stanza.build(message)
    change(xml)
    return xml


def first(xml: ET.Element, name: str) -> ET.Element:
    return next(element for element in xml.iter() if element.tag.endswith("}" + name))


def having(name: str, attribute: str, value: str) -> Callable[[ET.Element], object]:
    return lambda xml: first(xml, name).set(attribute, value)


def lacking(name: str, attribute: str) -> Callable[[ET.Element], object]:
    return lambda xml: first(xml, name).attrib.pop(attribute)


def saying(name: str, text: str | None) -> Callable[[ET.Element], object]:
    return lambda xml: setattr(first(xml, name), "text", text)


def without(name: str) -> Callable[[ET.Element], object]:
    def remove(xml: ET.Element) -> None:
        parent = next(p for p in xml.iter() if any(c.tag.endswith("}" + name) for c in p))
        parent.remove(first(parent, name))

    return remove


def repeating(name: str, times: int) -> Callable[[ET.Element], object]:
    def repeat(xml: ET.Element) -> None:
        parent = next(p for p in xml.iter() if any(c.tag.endswith("}" + name) for c in p))
        parent.extend(deepcopy(first(parent, name)) for _ in range(times))

    return repeat
