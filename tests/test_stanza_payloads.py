"""Every message there can be survives the way there and back."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from slixmpp_bt import stanza

from .samples import anything, in_stanza, reread


@given(anything)
@settings(deadline=None)
def test_parse_of_what_build_made_returns_the_message(message: stanza.AnyMessage) -> None:
    assert stanza.parse(reread(stanza.build(message))) == message


@given(anything)
@settings(deadline=None)
def test_find_in_the_stanza_sent_returns_the_message(message: stanza.AnyMessage) -> None:
    assert stanza.find(in_stanza(message)) == message


@given(anything, st.integers(0, 3))
@settings(deadline=None)
def test_parse_with_unknown_children_and_attributes_ignores_them(message: stanza.AnyMessage, place: int) -> None:
    xml = stanza.build(message)
    for element in list(xml.iter()):
        element.set("later", "1")
        element.set("{urn:example:later}id", "no")
        element.insert(place, ET.Element("{urn:example:later}candidate"))
        element.insert(place, ET.Element("{urn:example:later}torrent"))
    assert stanza.parse(xml) == message
