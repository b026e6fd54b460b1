"""The XML in its stanzas: what is found in them, what is sent, and what lives beside it."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from slixmpp import ClientXMPP
from slixmpp.stanza import Iq, Message
from slixmpp.xmlstream import ElementBase
from slixmpp.xmlstream.matcher import MatchXPath, StanzaPath

from slixmpp_bt import messages, stanza
from slixmpp_bt.constants import STANZA_BUDGET
from slixmpp_bt.errors import LimitExceeded, ProtocolError
from slixmpp_bt.messages import (
    Done,
    Offer,
)

from .samples import (
    ACCEPT,
    ACCEPTED,
    BAD,
    BARE_OFFER,
    BEYOND,
    CHUNK,
    END,
    EXPIRES,
    META,
    OFFER,
    SAMPLES,
    UNKNOWN,
    WITHDRAW,
    changed,
    first,
    in_stanza,
    without,
)


def message_with(*payloads: ET.Element, kind: str = "chat") -> Message:
    message = Message()
    message["type"] = kind
    for payload in payloads:
        message.append(payload)
    return message


def iq_with(kind: str, *payloads: ET.Element) -> Iq:
    iq = Iq()
    iq["type"] = kind
    for payload in payloads:
        iq.append(payload)
    return iq


def foreign_sharing() -> ET.Element:
    return changed(OFFER, without("torrent"))


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_find_in_an_error_returns_none(message: stanza.AnyMessage) -> None:
    carrier = in_stanza(message)
    carrier.xml.set("type", "error")
    assert stanza.find(carrier) is None


def test_find_without_a_payload_of_ours_returns_none() -> None:
    assert stanza.find(message_with()) is None
    assert stanza.find(message_with(foreign_sharing())) is None
    assert stanza.find(message_with(stanza.build(ACCEPT))) is None
    assert stanza.find(iq_with("set", ET.Element("{jabber:iq:version}query"))) is None
    assert stanza.find(iq_with("result", ET.Element("{jabber:iq:version}query"))) is None
    assert stanza.find(iq_with("set")) is None


def test_find_in_an_empty_result_returns_done() -> None:
    assert stanza.find(iq_with("result")) == Done()


def test_find_of_an_offer_beside_foreign_files_returns_it() -> None:
    assert stanza.find(message_with(foreign_sharing(), stanza.build(OFFER))) == OFFER


@pytest.mark.parametrize("wrapper", ["{urn:xmpp:carbons:2}received", "{urn:xmpp:mam:2}result"])
@pytest.mark.parametrize("message", [OFFER, WITHDRAW], ids=["offer", "withdraw"])
def test_find_of_what_is_forwarded_returns_none(wrapper: str, message: messages.Message) -> None:
    inner = in_stanza(message)
    outer = ET.Element(wrapper)
    forwarded = ET.SubElement(outer, "{urn:xmpp:forward:0}forwarded")
    forwarded.append(inner.xml)
    assert stanza.find(message_with(outer)) is None
    assert stanza.find_offers(message_with(outer)) == ()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("get", ACCEPT),
        ("result", ACCEPT),
        ("set", ACCEPTED),
        ("set", META),
        ("get", CHUNK),
        ("get", END),
        ("set", OFFER),
    ],
)
def test_find_in_an_iq_of_the_wrong_type_is_bad_request(kind: str, message: stanza.AnyMessage) -> None:
    with pytest.raises(ProtocolError) as caught:
        stanza.find(iq_with(kind, stanza.build(message)))
    assert caught.value.condition == "bad-request"


def test_find_in_an_iq_with_two_payloads_is_bad_request() -> None:
    with pytest.raises(ProtocolError) as caught:
        stanza.find(iq_with("set", stanza.build(ACCEPT), stanza.build(END)))
    assert caught.value.condition == "bad-request"


def test_find_offers_of_several_returns_all_in_order() -> None:
    second = replace(BARE_OFFER, id="offer-2")
    found = stanza.find_offers(
        message_with(stanza.build(OFFER), foreign_sharing(), stanza.build(WITHDRAW), stanza.build(second))
    )
    assert found == (OFFER, second)


def test_find_offers_in_an_error_returns_none_of_them() -> None:
    assert stanza.find_offers(message_with(stanza.build(OFFER), kind="error")) == ()


def test_find_offers_of_too_many_is_not_acceptable() -> None:
    offers = [stanza.build(replace(OFFER, id=f"o{n}")) for n in range(messages.MAX_OFFERS + 1)]
    assert len(stanza.find_offers(message_with(*offers[:-1]))) == messages.MAX_OFFERS
    with pytest.raises(ProtocolError) as caught:
        stanza.find_offers(message_with(*offers))
    assert caught.value.condition == "not-acceptable"


@pytest.mark.parametrize("namespace", ["jabber:client", "jabber:component:accept"])
def test_offer_xpath_matches_messages_with_offers_only(namespace: str) -> None:
    def arrived(*payloads: ET.Element) -> Message:
        xml = ET.Element(f"{{{namespace}}}message")
        xml.extend(payloads)
        return Message(xml=xml)

    matcher = MatchXPath(stanza.OFFER_XPATH)
    assert matcher.match(arrived(foreign_sharing(), stanza.build(OFFER)))
    assert not matcher.match(arrived(foreign_sharing()))
    assert not matcher.match(arrived(stanza.build(WITHDRAW)))


@pytest.mark.parametrize("message", SAMPLES[2:], ids=lambda message: type(message).__name__)
def test_registered_payloads_are_matched_by_stanza_path(message: stanza.AnyMessage) -> None:
    carrier = in_stanza(message)
    element = next(iter(carrier.xml))
    name = "bt_" + element.tag.rpartition("}")[2]
    kind = f"iq@type={carrier['type']}" if isinstance(carrier, Iq) else "message"
    assert StanzaPath(f"{kind}/{name}").match(carrier)
    assert not StanzaPath("iq@type=error/bt_accept").match(carrier)
    assert carrier[name]["id"] == "offer-1"


# What is sent -------------------------------------------------------------------------------------------------------


def test_build_of_the_empty_answer_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        stanza.build(Done())


def test_build_with_a_selection_writes_it_in_ranges() -> None:
    xml = stanza.build(replace(ACCEPT, select=frozenset({12, 11, 10, 9, 7, 0, 1, 2, 3, 14, 15})))
    assert first(xml, "select").text == "0-3 7 9-12 14-15"


@pytest.mark.parametrize("name", ["bell\x07.txt", "nul\x00", "half\ud800", "line\rfeed", "not\uffff"])
def test_fill_message_with_a_name_that_xml_cannot_hold_is_still_xml(name: str) -> None:
    message = Message()
    stanza.fill_message(message, replace(OFFER, name=name, desc=name))
    found = stanza.find(Message(xml=ET.fromstring(str(message))))
    assert isinstance(found, Offer)
    assert found.name == found.desc == re.sub("[\x07\x00\ud800\r\uffff]", "\ufffd", name)


def test_fill_message_with_lines_of_another_system_keeps_them_as_lines() -> None:
    found = stanza.find(in_stanza(replace(OFFER, desc="one\r\ntwo")))
    assert found == replace(OFFER, desc="one\ntwo")


def test_fill_message_with_texts_that_are_too_long_cuts_them() -> None:
    found = stanza.find(in_stanza(replace(OFFER, name="n" * 2_000, desc="d" * 3_000)))
    assert found == replace(OFFER, name="n" * 1_024, desc="d" * 2_000)


def test_fill_message_with_an_offer_adds_body_fallback_and_hint() -> None:
    message = in_stanza(OFFER)
    assert message["body"].startswith("holiday.mp4 (1.1 GB)")
    fallback = message.xml.find("{urn:xmpp:fallback:0}fallback[@for='urn:xmpp:sfs:0']")
    assert fallback is not None
    assert fallback.find("{urn:xmpp:fallback:0}body") is not None
    assert message.xml.find("{urn:xmpp:hints}store") is not None


@pytest.mark.parametrize(
    ("size", "media_type", "words"),
    [(0, None, "(0 bytes)"), (999, None, "(999 bytes)"), (1_500, None, "(1.5 kB)"), (10**16, None, "(10000.0 TB)"),
     (2_000_000, "inode/directory", "(a directory, 2.0 MB)")],
)  # fmt: skip
def test_fill_message_with_any_size_says_it_in_words(size: int, media_type: str | None, words: str) -> None:
    assert words in in_stanza(replace(OFFER, size=size, media_type=media_type))["body"]


def test_fill_message_with_a_body_uses_it() -> None:
    message = Message()
    stanza.fill_message(message, OFFER, "Have a look\x00")
    assert message["body"] == "Have a look\ufffd"


def test_fill_message_with_a_withdrawal_adds_the_hint_and_no_body() -> None:
    message = in_stanza(WITHDRAW)
    assert message["body"] == ""
    assert message.xml.find("{urn:xmpp:hints}store") is not None


def test_fill_message_never_tells_an_address() -> None:
    assert not re.search(r"address|\bport\b", str(in_stanza(OFFER)))


def test_size_of_a_single_file_offer_is_small() -> None:
    carrier = in_stanza(replace(OFFER, info=b"x" * 184, desc=None, date=None))
    assert stanza.size_of(carrier) < 1_200


def test_size_of_counts_the_bytes_of_the_text_sent() -> None:
    carrier = in_stanza(replace(OFFER, name="füß & <co>"))
    assert stanza.size_of(carrier) == len(str(carrier).encode())
    assert stanza.size_of(carrier.xml) == len(str(carrier).encode())


def test_within_budget_of_a_larger_stanza_raises() -> None:
    carrier = in_stanza(OFFER)
    size = stanza.size_of(carrier)
    stanza.within_budget(carrier, size)
    with pytest.raises(LimitExceeded, match=str(size)):
        stanza.within_budget(carrier, size - 1)


def test_fill_message_without_the_info_dict_fits_with_the_longest_file_name_there_is() -> None:
    message = Message()
    message["to"], message["type"] = "juliet@capulet.lit/" + "b" * 1_000, "groupchat"
    stanza.fill_message(message, replace(BARE_OFFER, name="'" * 255, desc="d" * messages.MAX_TEXT))
    stanza.within_budget(message, STANZA_BUDGET)


# Refusals -----------------------------------------------------------------------------------------------------------


def refused(refusal: ProtocolError, monkeypatch: pytest.MonkeyPatch) -> Iq:
    """The answer that slixmpp makes of `refusal`, as it arrives."""
    answers: list[Iq] = []
    monkeypatch.setattr(Iq, "send", lambda self: answers.append(self))
    iq_with("set", stanza.build(ACCEPT)).exception(stanza.error(refusal))
    return Iq(xml=ET.fromstring(str(answers[0])))


@pytest.mark.parametrize("condition", [BAD, BEYOND, UNKNOWN, "gone", "item-not-found", "resource-constraint"])
@pytest.mark.parametrize("reason", [None, "cancel", "media-error"])
def test_read_error_of_a_refusal_returns_it(
    condition: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = refused(ProtocolError("no more of it\x00", condition, reason), monkeypatch)
    read = stanza.read_error(answer)
    assert (str(read), read.condition, read.reason) == ("no more of it\ufffd", condition, reason)
    assert stanza.find(answer) is None


@pytest.mark.parametrize("reason", ["boredom", "", "x" * 5_000])
def test_read_error_of_an_unknown_reason_ignores_it(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = refused(ProtocolError("over", "gone", reason), monkeypatch)
    assert stanza.read_error(answer).reason is None


@pytest.mark.parametrize("inside", ["", "<odd xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>", "<error/>", "text"])
def test_read_error_of_an_error_that_says_nothing_is_undefined(inside: str) -> None:
    read = stanza.read_error(
        Iq(xml=ET.fromstring(f"<iq xmlns='jabber:client' type='error'><error>{inside}</error></iq>"))
    )
    assert (str(read), read.condition, read.reason) == ("undefined condition", "undefined-condition", None)


@pytest.mark.parametrize("reply", [Done(), ACCEPTED, CHUNK])
def test_payload_of_a_reply_is_what_find_reads(reply: messages.Reply) -> None:
    xml = stanza.payload(reply)
    assert stanza.find(iq_with("result", *([] if xml is None else [xml]))) == reply


# Beside slixmpp's own plugins, and the documentation ----------------------------------------------------------------


async def test_offers_beside_the_plugins_of_slixmpp_are_found_and_leave_theirs_usable() -> None:
    client = ClientXMPP("romeo@montague.lit/orchard", "secret")
    for plugin in ("xep_0446", "xep_0447", "xep_0428", "xep_0334", "xep_0300"):
        client.register_plugin(plugin)
    stanza.register()
    message = client.make_message("juliet@capulet.lit", mtype="chat")
    stanza.fill_message(message, replace(OFFER, size=0))
    arrived = Message(
        stream=client, xml=ET.fromstring(str(message).replace("<message", "<message xmlns='jabber:client'"))
    )
    assert stanza.find(arrived) == replace(OFFER, size=0)
    assert arrived["sfs"]["disposition"] == "attachment"
    assert arrived["sfs"]["file"]["name"] == "holiday.mp4"
    assert arrived["fallback"].get_stripped_body("urn:xmpp:sfs:0") == ""
    assert MatchXPath(stanza.OFFER_XPATH).match(arrived)


async def test_files_of_the_plugin_of_slixmpp_are_none_of_ours() -> None:
    client = ClientXMPP("romeo@montague.lit/orchard", "secret")
    client.register_plugin("xep_0447")
    message = client.make_message("juliet@capulet.lit", mtype="chat")
    sharing: Any = client.plugin["xep_0447"].get_sfs(data=b"hello", uris=["https://files.example/hello"], file=None)  # type: ignore[call-overload]
    message.append(sharing)
    assert stanza.find(message) is None
    assert stanza.find_offers(message) == ()


ELEMENTS = [value for value in vars(stanza).values() if inspect.isclass(value) and stanza.Payload in value.mro()[1:]]


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: element.__name__)
def test_examples_in_the_docstrings_are_understood(element: type[ElementBase]) -> None:
    assert element.plugin_attrib == "bt_" + element.name
    example = re.search(r"code-block:: xml\n\n((?: {4}.*\n)+)", inspect.cleandoc(element.__doc__ or "") + "\n")
    assert example
    xml = ET.fromstring(example[1].strip())
    message = stanza.parse(xml)
    assert stanza.parse(stanza.build(message)) == message
    assert set(re.findall(r"(?: |``|<)([a-z]+)(?:='|>)", element.__doc__ or "")) >= element.interfaces


def test_moments_with_another_zone_are_written_and_read_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    xml = stanza.build(replace(OFFER, expires=EXPIRES.astimezone(east)))
    assert first(xml, "torrent").get("expires") == "2026-11-28T07:00:00Z"
    first(xml, "torrent").set("expires", "2026-11-28T09:00:00+02:00")
    read = stanza.parse(xml)
    assert isinstance(read, Offer)
    assert read.expires.tzinfo is UTC
