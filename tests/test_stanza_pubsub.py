"""PubSub as servers say it: what is well formed is understood, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.constants import Mode
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.messages import Offer
from slixmpp_bt.stanza import pubsub

from .samples import hostile_text

OFFER = Offer("o-1", Mode.PRIVATE, datetime(2026, 12, 1, tzinfo=UTC), "letter.txt", 5, bytes(32), 200)
PS = pubsub.NS_PUBSUB


def message(*entries: Element, node: str = "n", kind: str = "headline") -> Element:
    xml = Element("{jabber:client}message", {"type": kind})
    items = SubElement(SubElement(xml, f"{{{PS}#event}}event"), f"{{{PS}#event}}items", {"node": node})
    items.extend(entries)
    return xml


def item(offer: Offer, id: str | None = None, **attributes: str) -> Element:
    xml = Element(f"{{{PS}#event}}item", {"id": offer.id if id is None else id, **attributes})
    xml.append(pubsub.build_item(offer))
    return xml


def test_event_with_items_and_retractions_is_read() -> None:
    gone = Element(f"{{{PS}#event}}retract", {"id": "o-2"})
    event = pubsub.read_event(message(item(OFFER, publisher="somebody@else.example"), gone))
    assert event == pubsub.Event("n", (pubsub.Item("o-1", OFFER),), frozenset({"o-2"}))


def test_event_of_a_withdrawal_retracts() -> None:
    entry = pubsub.withdraw("n", "o-1", {})[0][0]
    entry.tag = f"{{{PS}#event}}item"
    assert pubsub.read_event(message(entry)) == pubsub.Event("n", (pubsub.Item("o-1", None),), frozenset({"o-1"}))


def test_event_of_thousands_is_read_in_part_and_retracts_all() -> None:
    gone = [Element(f"{{{PS}#event}}retract", {"id": f"gone-{n}"}) for n in range(10_000)]
    new = [item(replace(OFFER, id=f"new-{n}")) for n in range(10_000)]
    event = pubsub.read_event(message(*new, *gone))
    assert event is not None
    assert [each.id for each in event.items] == [f"new-{n}" for n in range(pubsub.MAX_NEWS)]
    assert event.retracted == {f"gone-{n}" for n in range(10_000)}


@pytest.mark.parametrize("length", [1_023, 1_024, 200_000])
def test_end_of_a_page_that_fits_no_request_is_none(length: int) -> None:
    page = fromstring(
        f"<iq><pubsub xmlns='{PS}'><set xmlns='{pubsub.NS_RSM}'><count>5</count><last>{'x' * length}</last></set>"
        "<items node='n'><item id='i'/></items></pubsub></iq>"
    )
    assert (pubsub.read_page(page, "n").last is None) is (length > 1_023)


@pytest.mark.parametrize("what", ["purge", "delete"])
def test_event_of_an_emptied_node_is_read(what: str) -> None:
    text = f"<message><event xmlns='{PS}#event'><{what} node='n'/></event></message>"
    assert pubsub.read_event(fromstring(text)) == pubsub.Event("n", emptied=True)


def test_errors_forwarded_events_and_others_say_nothing() -> None:
    forwarded = Element("message")
    forwarded.append(message(item(OFFER)))
    configured = f"<message><event xmlns='{PS}#event'><configuration node='n'/></event></message>"
    empty = f"<message><event xmlns='{PS}#event'/></message>"
    strange = (forwarded, fromstring(configured), fromstring(empty), message(item(OFFER), kind="error"))
    assert [pubsub.read_event(xml) for xml in strange] == [None] * 4


def test_item_whose_id_is_not_its_offers_carries_none() -> None:
    event = pubsub.read_event(
        message(item(OFFER, "other"), item(OFFER, ""), item(replace(OFFER, id="bad id"), "bad id"))
    )
    assert event is not None
    assert event.items == (pubsub.Item("other", None), pubsub.Item("bad id", None))


def test_item_has_no_disposition_and_no_address() -> None:
    xml = pubsub.publish("n", OFFER, {"access_model": "presence"})
    assert b"disposition" not in tostring(xml)
    assert b"candidate" not in tostring(xml)


def test_answers_of_servers_are_read() -> None:
    """As Prosody 0.12 and ejabberd 23.01 write them."""
    form = fromstring(
        f"<iq><pubsub xmlns='{PS}#owner'><configure node='n'><x xmlns='jabber:x:data' type='form'>"
        "<field var='pubsub#max_items'><validate xmlns='http://jabber.org/protocol/xdata-validate'>"
        "<range max='256' min='1'/></validate><value>max</value></field>"
        "<field var='pubsub#access_model'><value>presence</value><option><value>open</value></option></field>"
        "<field var='pubsub#title'/></x></configure></pubsub></iq>"
    )
    config = pubsub.read_config(form)
    assert (config.most_items, config.value("max_items"), config.value("access_model")) == (256, "max", "presence")
    assert (config.value("title"), config.value("persist_items")) == (None, None)
    page = fromstring(
        f"<iq><pubsub xmlns='{PS}'><set xmlns='{pubsub.NS_RSM}'><count>5</count><last>2026</last></set>"
        "<items node='n'><item id='i'/></items></pubsub></iq>"
    )
    assert pubsub.read_page(page, "n") == pubsub.Page((pubsub.Item("i", None),), "2026", 5)
    ids = fromstring(
        f"<iq><query xmlns='{pubsub.NS_ITEMS}' node='n'><item name='a'/><item/><item name='a'/></query></iq>"
    )
    assert pubsub.read_ids(ids) == ("a",)


@pytest.mark.parametrize("read", [lambda xml: pubsub.read_page(xml, "n"), pubsub.read_ids, pubsub.read_config])
def test_answers_to_something_else_raise(read: object) -> None:
    assert callable(read)
    wrong = f"<iq><pubsub xmlns='{PS}'><items node='another'/></pubsub></iq>"
    for xml in (Element("iq"), fromstring(wrong)):
        with pytest.raises(ProtocolError):
            read(xml)


@given(st.data())
def test_whatever_comes_is_read_or_refused(data: st.DataObject) -> None:
    """Nothing but the library's own error comes of any event or answer."""
    event = message(item(OFFER), Element(f"{{{PS}#event}}retract", {"id": "o-2"}))
    for _ in range(data.draw(st.integers(1, 4))):
        each = data.draw(st.sampled_from(list(event.iter())))
        each.set(data.draw(st.sampled_from([*each.attrib, "id", "node"])), data.draw(hostile_text))
        if len(each) and data.draw(st.booleans()):
            each.remove(each[0])
        elif data.draw(st.booleans()):
            each.append(deepcopy(data.draw(st.sampled_from(list(event.iter())))))
    found = pubsub.read_event(event)
    assert found is None or all(i.offer is None or i.offer.id == i.id for i in found.items)
    for read in (lambda xml: pubsub.read_page(xml, "n"), pubsub.read_ids, pubsub.read_config):
        with suppress(ProtocolError):
            read(event)
