"""Nothing that arrives can do more than be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slixmpp.stanza import Iq, Message

from slixmpp_bt import messages, stanza
from slixmpp_bt.constants import NS, Route
from slixmpp_bt.errors import ProtocolError

from .samples import (
    ACCEPT,
    ACCEPTED,
    BAD,
    BARE_OFFER,
    BEYOND,
    CHUNK,
    END,
    FETCH,
    FETCHING,
    HERE_IT_IS,
    META,
    OFFER,
    OFFER_DATE,
    PEERS,
    PROXY,
    REPORT,
    SEEK,
    UNKNOWN,
    WITHDRAW,
    changed,
    damaged,
    first,
    having,
    lacking,
    repeating,
    saying,
    without,
)


@given(damaged())
@settings(deadline=None, max_examples=1_000)
def test_parse_of_damaged_xml_raises_only_protocol_errors(xml: ET.Element) -> None:
    try:
        message = stanza.parse(xml)
    except ProtocolError as error:
        condition = error.condition
    else:
        # Text may hold here what no XML parser would have let through; build replaces it.
        rebuilt = stanza.parse(stanza.build(message))
        assert type(rebuilt) is type(message)
        assert stanza.parse(stanza.build(rebuilt)) == rebuilt
        return
    assert condition in (BAD, BEYOND, UNKNOWN)


@given(damaged(), st.sampled_from(["chat", "groupchat", "error", "set", "get", "result", "", None]))
@settings(deadline=None, max_examples=300)
def test_find_in_damaged_stanzas_raises_only_protocol_errors(xml: ET.Element, kind: str | None) -> None:
    for root in (Message, Iq):
        outer = root()
        outer.xml.append(xml)
        outer.xml.attrib.pop("type", None)
        if kind is not None:
            outer.xml.set("type", kind)
        try:
            found = stanza.find(outer)
        except ProtocolError:
            continue
        assert kind != "error" or found is None


REFUSED: list[tuple[stanza.AnyMessage, Callable[[ET.Element], object], str]] = [
    (OFFER, lacking("file-sharing", "id"), BAD),
    (OFFER, having("file-sharing", "id", ""), BAD),
    (OFFER, having("file-sharing", "id", "a b"), BAD),
    (OFFER, having("file-sharing", "id", "a" * 65), BAD),
    (OFFER, having("file-sharing", "id", "id\n"), BAD),
    (OFFER, lacking("torrent", "mode"), BAD),
    (OFFER, having("torrent", "mode", "open"), UNKNOWN),
    (OFFER, lacking("torrent", "expires"), BAD),
    (OFFER, having("torrent", "expires", "2026-11-28"), BAD),
    (OFFER, having("torrent", "expires", "2026-11-28T07:00:00"), BAD),
    (OFFER, having("torrent", "expires", "2026-11-28T07:00:61Z"), BAD),
    (OFFER, having("torrent", "expires", "1969-12-31T23:59:59Z"), BAD),
    (OFFER, having("torrent", "expires", "9999-01-01T00:00:00Z"), BAD),
    (OFFER, having("torrent", "expires", "9999-12-31T23:59:59-14:00"), BAD),
    (OFFER, without("torrent"), BAD),
    (OFFER, without("file"), BAD),
    (OFFER, without("name"), BAD),
    (OFFER, saying("name", None), BAD),
    (OFFER, saying("name", "n" * 1_025), BEYOND),
    (OFFER, without("size"), BAD),
    (OFFER, saying("size", "-5"), BAD),
    (OFFER, saying("size", "1.0"), BAD),
    (OFFER, saying("size", "\u0665"), BAD),
    (OFFER, saying("size", str(2**63)), BAD),
    (OFFER, saying("size", "9" * 10_000), BAD),
    (OFFER, without("info"), BAD),
    (OFFER, saying("info", None), BAD),
    (OFFER, saying("info", "QQ"), BAD),
    (OFFER, saying("info", "QR=="), BAD),
    (OFFER, saying("info", "Q Q=="), BAD),
    (OFFER, saying("info", "Q=Q="), BAD),
    (OFFER, saying("info", "QQ==QQ=="), BAD),
    (OFFER, saying("info", "Q-_="), BAD),
    (OFFER, saying("info", "QQ==é"), BAD),
    (OFFER, saying("info", "A" * (messages.MAX_BLOB // 3 * 4 + 4)), BEYOND),
    (BARE_OFFER, lacking("info", "hash"), BAD),
    (BARE_OFFER, having("info", "hash", "00" * 31), BAD),
    (BARE_OFFER, having("info", "hash", "0 " * 32), BAD),
    (BARE_OFFER, having("info", "hash", "g" * 64), BAD),
    (BARE_OFFER, lacking("info", "length"), BAD),
    (BARE_OFFER, having("info", "length", "0"), BAD),
    (WITHDRAW, lacking("withdraw", "id"), BAD),
    (SEEK, lacking("seek", "id"), BAD),
    (HERE_IT_IS, having("here", "id", ""), BAD),
    (ACCEPT, lacking("accept", "transfer"), BAD),
    (ACCEPT, having("accept", "inline", "-1"), BAD),
    (ACCEPT, lacking("candidate", "address"), BAD),
    (ACCEPT, lacking("candidate", "port"), BAD),
    (ACCEPT, having("candidate", "address", "example.org"), BAD),
    (ACCEPT, having("candidate", "address", "127.1"), BAD),
    (ACCEPT, having("candidate", "address", "127.0.0.01"), BAD),
    (ACCEPT, having("candidate", "address", "2130706433"), BAD),
    (ACCEPT, having("candidate", "address", "10.0.0.0/8"), BAD),
    (ACCEPT, having("candidate", "address", "fe80::1%lo"), BAD),
    (ACCEPT, having("candidate", "address", "1" * 100_000), BAD),
    (ACCEPT, having("candidate", "port", "0"), BAD),
    (ACCEPT, having("candidate", "port", "65536"), BAD),
    (ACCEPT, repeating("candidate", 7), BEYOND),
    (ACCEPT, saying("select", None), BAD),
    (ACCEPT, saying("select", "1,2"), BAD),
    (ACCEPT, saying("select", "2-1"), BAD),
    (ACCEPT, saying("select", "1-2-3"), BAD),
    (ACCEPT, saying("select", "-2"), BAD),
    (ACCEPT, saying("select", "1  2"), BAD),
    (ACCEPT, saying("select", str(2**31)), BAD),
    (ACCEPT, saying("select", "0-2147483647"), BEYOND),
    (ACCEPT, saying("select", "0-65535 0"), BEYOND),
    (ACCEPTED, having("accepted", "report", "4"), BAD),
    (ACCEPTED, having("accepted", "report", "86401"), BAD),
    (ACCEPT, saying("request", "QQ"), BAD),
    (ACCEPT, saying("request", "A" * 1_372), BEYOND),
    (ACCEPTED, saying("certificate", "?"), BAD),
    (ACCEPTED, saying("certificate", "A" * 2_740), BEYOND),
    (ACCEPTED, saying("content", "?"), BAD),
    (ACCEPTED, having("share", "index", "4"), BAD),
    (ACCEPTED, having("share", "count", "0"), BAD),
    (ACCEPTED, lacking("share", "index"), BAD),
    (ACCEPTED, lambda xml: repeating("candidate", 64)(first(xml, "peers")), BEYOND),
    (META, having("meta", "length", "0"), BAD),
    (META, having("meta", "length", "6001"), BEYOND),
    (META, having("meta", "offset", "-1"), BAD),
    (CHUNK, saying("chunk", None), BAD),
    (CHUNK, saying("chunk", "A" * 8_004), BEYOND),
    (FETCH, lacking("fetch", "sid"), BAD),
    (FETCH, having("fetch", "kind", "swarm"), BAD),
    (FETCH, having("fetch", "kind", "pigeon"), BAD),
    (FETCH, saying("blocks", "1-"), BAD),
    (FETCH, saying("blocks", "2-1"), BAD),
    (FETCH, saying("blocks", "1 1"), BAD),
    (FETCH, saying("blocks", "5 1"), BAD),
    (FETCH, saying("blocks", "0-4 4-5"), BAD),
    (FETCH, saying("blocks", " ".join(str(2 * n) for n in range(600))), BAD),
    (FETCH, saying("blocks", str(2**31)), BAD),
    (FETCH, saying("blocks", "0-511"), BEYOND),
    (FETCH, saying("layers", "0-2147483647"), BEYOND),
    (FETCH, lacking("relay", "jid"), BAD),
    (FETCH, having("relay", "jid", "@@"), BAD),
    (FETCH, having("relay", "jid", ""), BAD),
    (FETCH, having("relay", "host", ""), BAD),
    (FETCH, having("relay", "host", "a b"), BAD),
    (FETCH, having("relay", "host", "h" * 256), BAD),
    (FETCH, having("relay", "port", "0"), BAD),
    (FETCHING, having("fetching", "length", "0"), BAD),
    (PEERS, repeating("joined", 64), BEYOND),
    (PEERS, repeating("left", 64), BEYOND),
    (REPORT, having("report", "had", "901"), BAD),
    (REPORT, lacking("by", "bytes"), BAD),
    (END, having("end", "kind", "finish"), BAD),
    (END, lacking("end", "kind"), BAD),
    (END, having("end", "transfer", ""), BAD),
]


@pytest.mark.parametrize(("message", "change", "condition"), REFUSED)
def test_parse_of_something_wrong_is_refused_with_the_condition(
    message: stanza.AnyMessage, change: Callable[[ET.Element], object], condition: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        stanza.parse(changed(message, change))
    assert caught.value.condition == condition
    assert len(str(caught.value)) < 200


TOLERATED: list[tuple[stanza.AnyMessage, Callable[[ET.Element], object], stanza.AnyMessage]] = [
    (OFFER, saying("date", "yesterday"), replace(OFFER, date=None)),
    (OFFER, saying("date", "2026-08-30T09:00:00+02:00"), OFFER),
    (OFFER, saying("date", "2026-08-30T07:00:00.250Z"), replace(OFFER, date=OFFER_DATE + timedelta(milliseconds=250))),
    (OFFER, saying("date", "2026-08-30T07:00:00.000000789Z"), OFFER),
    (OFFER, saying("media-type", "video"), replace(OFFER, media_type=None)),
    (OFFER, saying("media-type", "a/" + "b" * 200), replace(OFFER, media_type=None)),
    (OFFER, saying("desc", "d" * 2_001), replace(OFFER, desc="d" * 2_000)),
    (OFFER, saying("size", "0"), replace(OFFER, size=0)),
    (OFFER, saying("name", "n" * 1_024), replace(OFFER, name="n" * 1_024)),
    (OFFER, having("torrent", "expires", "2026-11-28T08:00:00+01:00"), OFFER),
    (OFFER, having("info", "hash", "00" * 32), OFFER),
    (BARE_OFFER, having("info", "hash", OFFER.info_hash.hex().upper()), BARE_OFFER),
    (BARE_OFFER, saying("info", "\n      "), BARE_OFFER),
    (ACCEPT, saying("route", "carrier-pigeon"), replace(ACCEPT, routes=frozenset({Route.SWARM}))),
    (ACCEPT, saying("select", "7 0-2 1 9"), ACCEPT),
    (ACCEPTED, saying("route", "carrier-pigeon"), replace(ACCEPTED, routes=frozenset({Route.SWARM}))),
    (FETCH, repeating("relay", 5), replace(FETCH, hosts=(PROXY,) * 3)),
    (FETCH, saying("layers", None), replace(FETCH, layers=())),
    (REPORT, having("by", "route", "carrier-pigeon"), replace(REPORT, routes=((Route.IN_BAND, 20),))),
    (END, having("end", "reason", "boredom"), replace(END, reason="general-error")),
    (END, lacking("end", "reason"), replace(END, reason="general-error")),
    (END, saying("text", "t" * 3_000), replace(END, text="t" * 2_000)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "change", "understood"), TOLERATED)
def test_parse_of_something_odd_but_harmless_is_understood(
    message: stanza.AnyMessage, change: Callable[[ET.Element], object], understood: stanza.AnyMessage
) -> None:
    assert stanza.parse(changed(message, change)) == understood


@pytest.mark.parametrize("tag", ["torrent", "{urn:xmpp:sfs:0}sources", f"{{{NS}}}catch", "{urn:example}accept"])
def test_parse_of_an_unknown_element_is_feature_not_implemented(tag: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        stanza.parse(ET.Element(tag))
    assert caught.value.condition == "feature-not-implemented"
