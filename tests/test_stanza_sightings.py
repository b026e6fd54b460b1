"""What rooms say of their occupants, read from whatever comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import slixmpp
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.stanza import sightings
from slixmpp_bt.stanza.sightings import Sighting

USER = "http://jabber.org/protocol/muc#user"
ID = "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{}'/>"


def presence(inner: str, **attributes: str) -> Any:
    written = "".join(f" {name}='{value}'" for name, value in {"from": "den@rooms.example/bob", **attributes}.items())
    return slixmpp.Presence(xml=fromstring(f"<presence xmlns='jabber:client'{written}>{inner}</presence>"))


def message(inner: str) -> Any:
    xml = f"<message xmlns='jabber:client' type='groupchat' from='den@rooms.example/bob'>{inner}</message>"
    return slixmpp.Message(xml=fromstring(xml))


def x(inner: str = "") -> str:
    return f"<x xmlns='{USER}'>{inner}</x>"


@pytest.mark.parametrize(
    ("stanza", "expected"),
    [
        (presence(x()), Sighting("bob", True)),
        (presence(x("<status code='110'/>")), Sighting("bob", True, own=True)),
        (presence(x("<item jid='bob@b.example/home'/>")), Sighting("bob", True, real=JID("bob@b.example"))),
        (presence(x("<item jid='@@@'/>")), Sighting("bob", True)),
        (presence(x() + ID.format("7")), Sighting("bob", True, id="7")),
        (presence(x() + ID.format("7") * 2), Sighting("bob", True)),
        (presence(x() + ID.format("7" * 257)), Sighting("bob", True)),
        (presence(x() + ID.format("")), Sighting("bob", True)),
        (presence(x(), type="unavailable"), Sighting("bob", False)),
        (
            presence(x("<item nick='Bob II'/><status code='303'/>"), type="unavailable"),
            Sighting("bob", False, new_nick="Bob II"),
        ),
        (presence(x("<item nick='Bob II'/>"), type="unavailable"), Sighting("bob", False)),
        (presence(x("<status code='303'/>"), type="unavailable"), Sighting("bob", False)),
        (presence(x("<item nick=''/><status code='303'/>"), type="unavailable"), Sighting("bob", False)),
        (presence(x("<item nick='Bob II'/><status code='303'/>")), Sighting("bob", True)),
        (presence(""), None),
        (presence(x(), type="error"), None),
        (presence(x(), **{"from": "den@rooms.example"}), None),
    ],
)
def test_sighting_of_what_a_room_says(stanza: Any, expected: Sighting | None) -> None:
    assert sightings.sighting(stanza) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_sighting_of_whatever_a_room_says_does_not_raise(text: str) -> None:
    stanza = presence(x("<item/><status code='303'/>") + ID.format("1"), type="unavailable")
    item = stanza.xml.find(f"{{{USER}}}x/{{{USER}}}item")
    item.set("nick", text)
    item.set("jid", text)
    seen = sightings.sighting(stanza)
    assert seen is not None
    assert seen.new_nick is None or JID(f"den@rooms.example/{seen.new_nick}").resource == seen.new_nick


def test_enters_is_asking_to_be_let_in() -> None:
    muc = "<x xmlns='http://jabber.org/protocol/muc'/>"
    assert sightings.enters(presence(muc))
    assert not sightings.enters(presence(""))
    assert not sightings.enters(presence(muc, type="unavailable"))


@pytest.mark.parametrize(
    ("inner", "delayed", "moment"),
    [
        ("", False, None),
        ("<delay xmlns='urn:xmpp:delay' stamp='2026-11-21T10:00:00Z'/>", True, datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("<delay xmlns='urn:xmpp:delay' stamp='tomorrow'/>", True, None),
        ("<delay xmlns='urn:xmpp:delay'/>", True, None),
        (
            "<delay xmlns='urn:xmpp:delay' stamp='2026-11-21T10:00:00Z'/>"
            "<delay xmlns='urn:xmpp:delay' stamp='2026-11-21T09:00:00Z'/>",
            True,
            datetime(2026, 11, 21, 9, tzinfo=UTC),
        ),
    ],
)
def test_delay_says_when(inner: str, delayed: bool, moment: datetime | None) -> None:
    assert sightings.was_delayed(message(inner)) is delayed
    assert sightings.said_at(message(inner)) == moment
