"""Fetch and its answer: what is asked for over a stream."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from slixmpp import JID, InvalidJID

from .. import messages
from ..constants import NS, Route
from .values import HOST, attribute, beyond, element, malformed, number, subelement, token, whole


def read_fetch(xml: Element) -> messages.Fetch:
    kind = attribute(xml, "kind")
    if kind not in (Route.RELAY, Route.IN_BAND):
        raise malformed("a <fetch/> by an unknown kind of stream")
    blocks, layers = (_read_ranges(xml, name) for name in ("blocks", "layers"))
    if not blocks and not layers:
        raise malformed("a <fetch/> for nothing")
    if sum(last - first + 1 for first, last in (*blocks, *layers)) * messages.BLOCK > messages.MAX_FETCH:
        raise beyond("a <fetch/> for too much at once")
    hosts = [_read_host(relay) for relay in xml.findall(f"{{{NS}}}relay")[: messages.MAX_STREAMHOSTS]]
    return messages.Fetch(
        id=token(xml, "id"),
        transfer=token(xml, "transfer"),
        sid=token(xml, "sid"),
        kind=Route(kind),
        blocks=blocks,
        layers=layers,
        hosts=tuple(hosts),
    )


def write_fetch(fetch: messages.Fetch) -> Element:
    xml = element("fetch", id=fetch.id, transfer=fetch.transfer, sid=fetch.sid, kind=fetch.kind.value)
    for name, ranges in (("layers", fetch.layers), ("blocks", fetch.blocks)):
        if ranges:
            words = (f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)
            subelement(xml, name).text = " ".join(words)
    for host in fetch.hosts:
        subelement(xml, "relay", jid=host.jid, host=host.host, port=host.port)
    return xml


def _read_ranges(xml: Element, name: str) -> tuple[tuple[int, int], ...]:
    """Ranges in ascending order that do not overlap."""
    text = xml.findtext(f"{{{NS}}}{name}") or ""
    ranges: list[tuple[int, int]] = []
    for part in text.split(" ", messages.MAX_RANGES) if text else ():
        first, dash, last = part.partition("-")
        low = whole(first, f"<{name}/>", ranges[-1][1] + 1 if ranges else 0, messages.MAX_INDEX)
        ranges.append((low, whole(last, f"<{name}/>", low, messages.MAX_INDEX) if dash else low))
    return tuple(ranges)


def _read_host(xml: Element) -> messages.StreamHost:
    host = attribute(xml, "host")
    if not HOST.fullmatch(host):
        raise malformed("a malformed host")
    try:
        jid = JID(attribute(xml, "jid"))
    except InvalidJID:
        jid = JID()
    if not jid.domain:
        raise malformed("a malformed jid")
    return messages.StreamHost(jid, host, number(xml, "port", 1, 65535))


def read_fetching(xml: Element) -> messages.Fetching:
    return messages.Fetching(token(xml, "id"), token(xml, "transfer"), number(xml, "length", 1))


def write_fetching(fetching: messages.Fetching) -> Element:
    return element("fetching", id=fetching.id, transfer=fetching.transfer, length=fetching.length)
