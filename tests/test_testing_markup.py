"""The parser and the serialiser of the loopback server's streams."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import suppress
from xml.etree.ElementTree import Element, canonicalize, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.testing.markup import (
    COMPONENT,
    MAX_DEPTH,
    E,
    Event,
    StreamEnd,
    StreamError,
    StreamParser,
    StreamStart,
    serialise,
)

HEADER = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost'>"


def feed(parser: StreamParser, *parts: bytes) -> list[Event]:
    return [event for part in parts for event in parser.feed(part)]


def stanza_of(xml: str) -> Element:
    start, stanza = feed(StreamParser(100_000), HEADER + xml.encode())
    assert isinstance(start, StreamStart)
    assert isinstance(stanza, Element)
    return stanza


def failure(parser: StreamParser, *parts: bytes) -> tuple[list[Event], str]:
    events: list[Event] = []
    try:
        for part in parts:
            events.extend(parser.feed(part))
    except StreamError as error:
        return events, error.condition
    pytest.fail("nothing was wrong")


def canonical(element: Element) -> str:
    return canonicalize(tostring(element, "unicode"), rewrite_prefixes=True)


# What can be in a stanza: characters that XML has, with a liking for those that need escaping.
text = st.text(st.one_of(st.sampled_from("<>&'\"\r\n\t ]é€😀"), st.characters(codec="utf-8", exclude_categories=["C"])))
names = st.sampled_from(["a", "body", "x-y", "é"])
namespaces = st.sampled_from(["jabber:client", "urn:a", "http://b/?x=1&y='\"2", "jabber:component:accept", ""])
tags = st.builds(lambda ns, name: f"{{{ns}}}{name}" if ns else name, namespaces, names)
attributes = st.dictionaries(
    st.one_of(names, st.sampled_from(["{http://www.w3.org/XML/1998/namespace}lang", "{urn:attributes}k", "{urn:b}k"])),
    text,
    max_size=3,
)


def build(tag: str, attrib: dict[str, str], inner: str, tail: str, children: list[Element]) -> Element:
    element = Element(tag, attrib)
    element.text, element.tail = inner or None, tail or None
    element.extend(children)
    return element


elements = st.recursive(
    st.builds(build, tags, attributes, text, text, st.just([])),
    lambda inner: st.builds(build, tags, attributes, text, text, st.lists(inner, max_size=3)),
    max_leaves=8,
)


@given(elements, st.integers(1, 50))
def test_parser_after_serialiser_gives_back_every_element(element: Element, size: int) -> None:
    element.tail = None
    data = HEADER + serialise(element)
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    _, again = feed(StreamParser(1_000_000), *parts)
    assert isinstance(again, Element)
    assert ET.tostring(again) == ET.tostring(element)


def test_serialise_unknown_payload_keeps_namespaces() -> None:
    xml = (
        "<message xmlns='jabber:client' to='a@b'><x:p xmlns:x='urn:x' x:y='1' xml:lang='de'><q xmlns=''/>"
        "<message xmlns='jabber:client'><body>&lt;é</body></message></x:p> tail</message>"
    )
    again = ET.fromstring(f"<r xmlns='jabber:client'>{serialise(stanza_of(xml)).decode()}</r>")[0]
    assert canonical(again) == canonicalize(xml, rewrite_prefixes=True)


def test_serialise_client_stanza_declares_no_default_namespace() -> None:
    assert serialise(E("{jabber:client}iq", {"id": '"\n'}, E("{urn:x}y"), "t")) == (
        b'<iq id="&quot;&#10;"><y xmlns="urn:x"/>t</iq>'
    )


def test_parser_component_stream_moves_only_what_inherits_to_jabber_client() -> None:
    header = HEADER.replace(b"jabber:client", COMPONENT.encode())
    xml = b"<message><body>hi</body><f xmlns='urn:f'><message xmlns='jabber:component:accept'/></f></message>"
    _, stanza = feed(StreamParser(1_000, COMPONENT), header + xml)
    assert isinstance(stanza, Element)
    assert [element.tag for element in stanza.iter()] == [
        "{jabber:client}message",
        "{jabber:client}body",
        "{urn:f}f",
        "{jabber:component:accept}message",
    ]


def test_parser_whitespace_between_stanzas_is_ignored() -> None:
    events = feed(StreamParser(1_000), HEADER, b" \n", b"<iq/> ", b"<iq/>", b"</stream:stream>")
    assert [type(event) for event in events] == [StreamStart, Element, Element, StreamEnd]


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        (b"<iq></message>", "not-well-formed"),
        (b"<iq a='1' a='2'/>", "not-well-formed"),
        (b"<x:iq/>", "not-well-formed"),
        (b"\xff", "not-well-formed"),
        (b"<body>\x00</body>", "not-well-formed"),
        (b"<!-- hello -->", "restricted-xml"),
        (b"<?php ?>", "restricted-xml"),
        (b"<iq>&lol;</iq>", "not-well-formed"),
        (b"hello", "bad-format"),
    ],
)
def test_parser_bad_xml_fails_after_what_was_good(xml: bytes, condition: str) -> None:
    events, found = failure(StreamParser(1_000), HEADER + b"<iq/>" + xml + b"<iq/>")
    assert found == condition
    assert [type(event) for event in events] == [StreamStart, Element]


def test_parser_document_type_fails() -> None:
    bomb = b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;'>]>"
    assert failure(StreamParser(1_000), b"<?xml version='1.0'?>" + bomb + HEADER)[1] == "restricted-xml"


def message_of(size: int) -> bytes:
    frame = b"<message><body></body></message>"
    return frame[:15] + b"x" * (size - len(frame)) + frame[15:]


@pytest.mark.parametrize("step", [1, 7, 100, 100_000])
def test_parser_stanza_of_the_limit_passes_and_a_larger_one_fails(step: int) -> None:
    data = HEADER + message_of(500) + message_of(500)
    parts = [data[i : i + step] for i in range(0, len(data), step)]
    assert len(feed(StreamParser(500), *parts)) == 3
    events, condition = failure(StreamParser(499), *parts)
    assert (len(events), condition) == (1, "policy-violation")


def test_parser_stanza_without_end_fails_at_the_limit() -> None:
    parser = StreamParser(1_000)
    feed(parser, HEADER, b"<message><body>")
    assert failure(parser, b"x" * 2_000)[1] == "policy-violation"


def test_parser_tag_without_end_fails_at_the_limit() -> None:
    parser = StreamParser(1_000)
    feed(parser, HEADER, b"<message><body>hi</body>")
    assert failure(parser, b"<body " + b"a" * 2_000)[1] == "policy-violation"


def test_parser_first_tag_without_end_fails_at_the_limit() -> None:
    parser = StreamParser(1_000)
    feed(parser, HEADER)
    assert failure(parser, b"<message to='" + b"a" * 2_000)[1] == "policy-violation"
    assert failure(StreamParser(1_000), HEADER[:-1] + b" a='" + b"a" * 2_000)[1] == "policy-violation"


def test_parser_deep_nesting_fails() -> None:
    deep = b"<a>" * (MAX_DEPTH + 1)
    assert failure(StreamParser(100_000), HEADER + deep)[1] == "policy-violation"


@given(st.lists(st.sampled_from([HEADER, b"<iq>", b"</iq>", b"<", b"&", b"\xff", b"<![CDATA[", b"</stream:stream>"])))
def test_parser_garbage_raises_nothing_but_stream_errors(parts: list[bytes]) -> None:
    parser = StreamParser(1_000)
    with suppress(StreamError):
        assert len(feed(parser, *parts)) <= len(parts)
