"""The specification (docs/protocol) says what the code does: its examples are valid, understood, and what we send."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pytest
import xmlschema
from slixmpp import Iq, Message
from xmlschema.validators import XsdAtomicRestriction

from slixmpp_bt import constants, errors, messages, outbox, stanza
from slixmpp_bt.manifest import Manifest, ManifestLimits

DIRECTORY = Path(__file__).parents[1] / "docs" / "protocol"
DOCUMENT = ElementTree.parse(DIRECTORY / "xep-bt.xml").getroot()
SCHEMA = xmlschema.XMLSchema(DIRECTORY / "bt.xsd")
LIMITS = ManifestLimits(max_size=1 << 30, max_files=100, max_length=1 << 20)


class Example(NamedTuple):
    """One stanza of an example."""

    caption: str
    xml: Element

    @property
    def stanza(self) -> Message | Iq:
        return (Message if self.xml.tag.endswith("}message") else Iq)(xml=self.xml)

    @property
    def payload(self) -> Element:
        """The element that :func:`slixmpp_bt.stanza.build` makes."""
        return next(child for child in self.xml if _ours(child) is not None)


def _ours(child: Element) -> Element | None:
    """The topmost element of our namespace in `child`."""
    return next((e for e in child.iter() if e.tag.startswith(f"{{{constants.NS}}}")), None)


def _examples() -> Iterator[Example]:
    for example in DOCUMENT.iter("example"):
        for xml in ElementTree.fromstring(f"<all>{example.text}</all>"):
            yield Example(f"{example.attrib['caption']} ({xml.get('id')}, {xml.get('type')})", xml)


EXAMPLES = list(_examples())
REFUSALS = [e for e in EXAMPLES if e.xml.get("type") == "error"]
CATALOGUE = [e for e in EXAMPLES if any("pubsub" in child.tag for child in e.xml)]
CARRIERS = [e for e in EXAMPLES if e not in REFUSALS + CATALOGUE and any(_ours(child) is not None for child in e.xml)]
OFFERS = [e for e in CARRIERS if isinstance(stanza.find(e.stanza), messages.Offer)]
WHOLE_OFFERS = [e for e in OFFERS if getattr(stanza.find(e.stanza), "info", None)]


def by_caption(examples: list[Example]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.caption)


@by_caption(CARRIERS)
def test_example_is_valid_by_the_schema(example: Example) -> None:
    ours = _ours(example.payload)
    assert ours is not None
    SCHEMA.validate(ours)


@by_caption(CARRIERS)
def test_example_understood_and_built_again_is_the_same(example: Example) -> None:
    message = stanza.find(example.stanza)
    assert message is not None
    assert _canonical(stanza.build(message)) == _canonical(example.payload)


@by_caption([e for e in CARRIERS if isinstance(e.stanza, Message)])
def test_example_message_is_what_we_would_send(example: Example) -> None:
    message = stanza.find(example.stanza)
    assert isinstance(message, messages.Message)
    sent = Message(xml=Element(example.xml.tag, example.xml.attrib))
    stanza.fill_message(sent, message)
    assert sorted(map(_canonical, sent.xml)) == sorted(map(_canonical, example.xml))


@by_caption([e for e in EXAMPLES if e not in CARRIERS + CATALOGUE])
def test_example_without_a_payload_carries_no_request(example: Example) -> None:
    assert stanza.find(example.stanza) in (None, messages.Done())


@by_caption(CATALOGUE)
def test_example_of_a_catalogue_is_valid_understood_and_what_we_would_send(example: Example) -> None:
    for ours in example.xml.iter():
        if ours.tag in (f"{{{constants.NS}}}torrent", f"{{{constants.NS}}}withdraw"):
            SCHEMA.validate(ours)
    assert [_canonical(built) for built in _rebuilt(example.xml)] == [_canonical(example.xml[0])]


def _rebuilt(xml: Element) -> Iterator[Element]:
    """What a catalogue's example says, understood and said again."""
    node, access = "urn:xmpp:pubsub-file-sharing:0:slixmpp-bt/presence", {"access_model": "presence"}
    kind, action = xml.get("type"), xml[0][0]
    if kind in ("headline", "result"):
        event = stanza.pubsub.read_event(xml)
        items = event.items if event is not None else stanza.pubsub.read_page(xml, node).items
        for item in items:
            assert item.offer is not None
            again = Element(xml[0].tag)
            inner = SubElement(again, action.tag, {"node": node})
            SubElement(inner, action[0].tag, {"id": item.id}).append(stanza.pubsub.build_item(item.offer))
            yield again
    elif action.tag.endswith("retract"):
        yield stanza.pubsub.retract(node, action[0].get("id", ""))
    elif action[0][0].tag.endswith("withdraw"):
        yield stanza.pubsub.withdraw(node, action[0].get("id", ""), access)
    else:
        offer = stanza.parse(action[0][0])
        assert isinstance(offer, messages.Offer)
        yield stanza.pubsub.publish(node, offer, access)


@by_caption(REFUSALS)
def test_example_refusal_understood_and_said_again_is_the_same(example: Example) -> None:
    iq = example.stanza
    assert isinstance(iq, Iq)
    said = stanza.error(stanza.read_error(iq))
    again = Iq(xml=Element(example.xml.tag, example.xml.attrib))
    again["error"]["condition"], again["error"]["text"] = said.condition, said.text
    again["error"]["type"] = example.stanza["error"]["type"]
    if said.extension is not None:
        ended = Element(f"{{{said.extension_ns}}}{said.extension}", said.extension_args)
        SCHEMA.validate(ended)
        again["error"].append(ended)
    assert _canonical(again.xml) == _canonical(example.xml)


def test_refusals_have_an_example_with_a_reason() -> None:
    read = [stanza.read_error(e.stanza) for e in REFUSALS if isinstance(e.stanza, Iq)]
    assert {(refusal.condition, refusal.reason is not None) for refusal in read} == {
        ("item-not-found", False), ("gone", True), ("resource-constraint", False),
    }  # fmt: skip


@by_caption(EXAMPLES)
def test_example_keeps_to_the_budget(example: Example) -> None:
    stanza.within_budget(example.stanza)


@by_caption(WHOLE_OFFERS)
def test_example_manifest_is_real(example: Example) -> None:
    offer = stanza.find(example.stanza)
    assert isinstance(offer, messages.Offer)
    assert offer.info is not None
    manifest = Manifest.parse(offer.info, LIMITS)
    assert (manifest.name, manifest.size) == (offer.name, offer.size)
    assert manifest.info_hash == hashlib.sha256(offer.info).digest() == offer.info_hash


def test_every_message_has_an_example() -> None:
    shown = {type(stanza.find(example.stanza)) for example in EXAMPLES}
    assert shown >= {form.carries for form in stanza.FORMS} | {messages.Done}


@pytest.mark.parametrize("unknown", [Element(f"{{{constants.NS}}}news"), Element("{urn:example}x")])
def test_example_with_something_unknown_is_understood_all_the_same(unknown: Element) -> None:
    for example in CARRIERS:
        expected = stanza.find(example.stanza)
        extended = ElementTree.fromstring(ElementTree.tostring(example.xml))
        ours = next(e for e in map(_ours, extended) if e is not None)
        ours.append(unknown)
        ours.set("news", "1")
        assert stanza.find(replace_xml(example, extended)) == expected


def test_schema_in_the_document_is_the_schema_file() -> None:
    section = next(s for s in DOCUMENT.iter("section1") if s.get("anchor") == "schema")
    written = (section.findtext("code") or "").strip()
    assert written == (DIRECTORY / "bt.xsd").read_text().partition("?>")[2].strip()


def test_schema_has_the_elements_of_the_code() -> None:
    ours = {form.name for form in stanza.FORMS if form.tag.startswith(f"{{{constants.NS}}}")}
    assert set(SCHEMA.elements) == ours | {"torrent", "ended"}
    assert SCHEMA.target_namespace == constants.NS


@pytest.mark.parametrize(
    ("type_name", "words"),
    [("mode", set(constants.Mode)), ("route", set(constants.Route))],
)
def test_schema_vocabulary_is_that_of_the_code(type_name: str, words: set[str]) -> None:
    described = SCHEMA.types[type_name]
    assert isinstance(described, XsdAtomicRestriction)
    assert set(described.enumeration or ()) == words


def table(caption: str) -> dict[str, str]:
    """A table of the document: the second cell of each row by the first."""
    rows = next(t for t in DOCUMENT.iter("table") if t.get("caption") == caption).findall("tr")[1:]
    cells = (["".join(cell.itertext()) for cell in row] for row in rows)
    return {first: second for first, second, *_ in cells}


def test_reasons_are_those_that_the_code_sends() -> None:
    assert set(table("Reasons in use")) == {"success", "general-error", *errors.BY_REASON}
    assert set(table("Reasons in use")) <= messages.REASONS


def test_conditions_that_mean_not_now_are_those_of_the_code() -> None:
    section = next(s for s in DOCUMENT.iter("section2") if s.get("anchor") == "rules-errors")
    named = {e.text for p in section.findall("p") for e in p.iter("tt")}
    later = {row[0].findtext("tt") for row in section.iter("tr") if row[2].text == "asks again later"}
    assert named | later == outbox.NOT_NOW


def test_limits_are_those_of_the_code() -> None:
    assert [int(most.replace(",", "")) for most in table("Limits").values()] == [
        messages.MAX_CANDIDATES, messages.MAX_PEERS, messages.MAX_META_CHUNK, messages.MAX_SELECT, messages.MAX_SHARES,
        messages.MAX_OFFERS, messages.MAX_NAME, messages.MAX_TEXT, messages.MAX_ID, messages.MAX_KEY,
        messages.MAX_REPORT, messages.MAX_NUMBER,
    ]  # fmt: skip


def replace_xml(example: Example, xml: Element) -> Message | Iq:
    return example._replace(xml=xml).stanza


def _canonical(xml: Element) -> str:
    return ElementTree.canonicalize(ElementTree.tostring(xml), strip_text=True)
