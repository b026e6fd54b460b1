"""Each payload: how it is read, with every limit, and how it is written; and the table of them all."""

from __future__ import annotations

import dataclasses
from base64 import b64encode
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from itertools import groupby
from typing import Any, Literal, cast
from xml.etree.ElementTree import Element

from .. import messages
from ..constants import NS, Route
from ..messages import Candidate, Share
from . import elements
from .fetch import read_fetch, read_fetching, write_fetch, write_fetching
from .sharing import read_offer, torrent_of, write_offer
from .values import (
    NS_SFS,
    ROUTES,
    attribute,
    beyond,
    blob,
    clean,
    element,
    malformed,
    number,
    subelement,
    token,
    whole,
)

AnyMessage = messages.Message | messages.Request | messages.Reply


def _read_withdraw(xml: Element) -> messages.Withdraw:
    return messages.Withdraw(token(xml, "id"))


def _write_withdraw(withdraw: messages.Withdraw) -> Element:
    return element("withdraw", id=withdraw.id)


def _read_seek(xml: Element) -> messages.Seek:
    return messages.Seek(token(xml, "id"))


def _write_seek(seek: messages.Seek) -> Element:
    return element("seek", id=seek.id)


def _read_here(xml: Element) -> messages.Here:
    return messages.Here(token(xml, "id"))


def _write_here(here: messages.Here) -> Element:
    return element("here", id=here.id)


def _read_routes(xml: Element) -> frozenset[Route]:
    words = {route.text for route in xml.iterfind(f"{{{NS}}}route")}
    return frozenset(route for route in Route if route in words)


def _write_routes(xml: Element, routes: Iterable[Route]) -> None:
    for route in sorted(routes):
        subelement(xml, "route").text = route.value


def _read_blob(xml: Element, name: str, most: int) -> bytes | None:
    found = xml.find(f"{{{NS}}}{name}")
    return None if found is None else blob(found, most)


def _write_blob(xml: Element, name: str, data: bytes | None) -> None:
    if data is not None:
        subelement(xml, name).text = b64encode(data).decode()


def _read_accept(xml: Element) -> messages.Accept:
    select = xml.find(f"{{{NS}}}select")
    return messages.Accept(
        id=token(xml, "id"),
        transfer=token(xml, "transfer"),
        candidates=_read_candidates(xml, "candidate", messages.MAX_CANDIDATES),
        routes=_read_routes(xml),
        select=None if select is None else _read_select(select.text or ""),
        inline=number(xml, "inline") if "inline" in xml.attrib else 0,
        request=_read_blob(xml, "request", messages.MAX_REQUEST),
    )


def _write_accept(accept: messages.Accept) -> Element:
    xml = element("accept", id=accept.id, transfer=accept.transfer)
    if accept.inline:
        xml.set("inline", str(accept.inline))
    _write_candidates(xml, "candidate", accept.candidates)
    _write_routes(xml, accept.routes)
    if accept.select is not None:
        subelement(xml, "select").text = _ranges(accept.select)
    _write_blob(xml, "request", accept.request)
    return xml


def _read_accepted(xml: Element) -> messages.Accepted:
    peers = xml.find(f"{{{NS}}}peers")
    report = messages.MIN_REPORT, messages.MAX_REPORT
    return messages.Accepted(
        id=token(xml, "id"),
        transfer=token(xml, "transfer"),
        candidates=_read_candidates(xml, "candidate", messages.MAX_CANDIDATES),
        peers=() if peers is None else _read_candidates(peers, "candidate", messages.MAX_PEERS),
        share=_read_share(xml),
        content=_read_blob(xml, "content", messages.MAX_BLOB),
        certificate=_read_blob(xml, "certificate", messages.MAX_CERTIFICATE),
        report=number(xml, "report", *report) if "report" in xml.attrib else None,
        routes=_read_routes(xml) or None,
    )


def _write_accepted(accepted: messages.Accepted) -> Element:
    xml = element("accepted", id=accepted.id, transfer=accepted.transfer)
    if accepted.report is not None:
        xml.set("report", str(accepted.report))
    _write_candidates(xml, "candidate", accepted.candidates)
    if accepted.peers:
        _write_candidates(subelement(xml, "peers"), "candidate", accepted.peers)
    _write_share(xml, accepted.share)
    _write_routes(xml, accepted.routes or ())
    _write_blob(xml, "certificate", accepted.certificate)
    _write_blob(xml, "content", accepted.content)
    return xml


def _read_meta(xml: Element) -> messages.Meta:
    length = number(xml, "length", 1)
    if length > messages.MAX_META_CHUNK:
        raise beyond(f"{length} bytes of an info dict at once")
    return messages.Meta(token(xml, "id"), token(xml, "transfer"), number(xml, "offset"), length)


def _write_meta(meta: messages.Meta) -> Element:
    return element("meta", id=meta.id, transfer=meta.transfer, offset=meta.offset, length=meta.length)


def _read_chunk(xml: Element) -> messages.MetaChunk:
    data = blob(xml, messages.MAX_META_CHUNK)
    if not data:
        raise malformed("an empty <chunk/>")
    return messages.MetaChunk(token(xml, "id"), number(xml, "offset"), data)


def _write_chunk(chunk: messages.MetaChunk) -> Element:
    xml = element("chunk", id=chunk.id, offset=chunk.offset)
    xml.text = b64encode(chunk.data).decode()
    return xml


def _read_peers(xml: Element) -> messages.Peers:
    return messages.Peers(
        id=token(xml, "id"),
        transfer=token(xml, "transfer"),
        joined=_read_candidates(xml, "joined", messages.MAX_PEERS),
        left=_read_candidates(xml, "left", messages.MAX_PEERS),
        share=_read_share(xml),
    )


def _write_peers(peers: messages.Peers) -> Element:
    xml = element("peers", id=peers.id, transfer=peers.transfer)
    _write_candidates(xml, "joined", peers.joined)
    _write_candidates(xml, "left", peers.left)
    _write_share(xml, peers.share)
    return xml


def _read_report(xml: Element) -> messages.Report:
    had, total = number(xml, "had"), number(xml, "total")
    if had > total:
        raise malformed("a report of more than there is")
    by = {line.get("route"): line for line in xml.iterfind(f"{{{NS}}}by")}
    routes = tuple((Route(word), number(line, "bytes")) for word, line in by.items() if word in ROUTES)
    return messages.Report(token(xml, "id"), token(xml, "transfer"), had, total, routes)


def _write_report(report: messages.Report) -> Element:
    xml = element("report", id=report.id, transfer=report.transfer, had=report.had, total=report.total)
    for route, count in report.routes:
        subelement(xml, "by", route=route.value, bytes=count)
    return xml


def _read_end(xml: Element) -> messages.End:
    kind, reason = attribute(xml, "kind"), xml.get("reason")
    if kind not in ("complete", "cancel", "decline"):
        raise malformed("an <end/> of an unknown kind")
    return messages.End(
        id=token(xml, "id"),
        kind=cast('Literal["complete", "cancel", "decline"]', kind),
        reason=reason if reason in messages.REASONS else "general-error",
        transfer=token(xml, "transfer") if "transfer" in xml.attrib else None,
        text=(xml.findtext(f"{{{NS}}}text") or "")[: messages.MAX_TEXT] or None,
        seeding=number(xml, "seeding") if "seeding" in xml.attrib else None,
    )


def _write_end(end: messages.End) -> Element:
    xml = element("end", id=end.id, kind=end.kind, reason=end.reason)
    if end.transfer is not None:
        xml.set("transfer", end.transfer)
    if end.seeding is not None:
        xml.set("seeding", str(end.seeding))
    if end.text:
        subelement(xml, "text").text = clean(end.text[: messages.MAX_TEXT])
    return xml


def _read_delegate(xml: Element) -> messages.Delegate:
    return messages.Delegate(token(xml, "id"), token(xml, "transfer"), _read_blob(xml, "key", messages.MAX_KEY))


def _write_delegate(delegate: messages.Delegate) -> Element:
    xml = element("delegate", id=delegate.id, transfer=delegate.transfer)
    _write_blob(xml, "key", delegate.key)
    return xml


def _read_candidates(xml: Element, name: str, most: int) -> tuple[Candidate, ...]:
    found = xml.findall(f"{{{NS}}}{name}")
    if len(found) > most:
        raise beyond(f"{len(found)} <{name}/> elements")
    return tuple(map(_read_candidate, found))


def _read_candidate(xml: Element) -> Candidate:
    text = attribute(xml, "address")
    try:
        if "%" in text:  # a zone index means something on the sender's machine only
            raise ValueError(text)
        return Candidate(ip_address(text), number(xml, "port", 1, 65535))
    except ValueError:
        raise malformed("an address that is not a literal IP address") from None


def _write_candidates(xml: Element, name: str, candidates: Iterable[Candidate]) -> None:
    for candidate in candidates:
        subelement(xml, name, address=candidate.address, port=candidate.port)


def _read_share(xml: Element) -> Share | None:
    share = xml.find(f"{{{NS}}}share")
    if share is None:
        return None
    count = number(share, "count", 1, messages.MAX_SHARES)
    return Share(number(share, "index", 0, count - 1), count)


def _write_share(xml: Element, share: Share | None) -> None:
    if share is not None:
        subelement(xml, "share", index=share.index, count=share.count)


def _read_select(text: str) -> frozenset[int]:
    """Indices and ranges in any order; bounded before a range is unfolded."""
    chosen: set[int] = set()
    room = messages.MAX_SELECT
    for part in text.split(" "):
        first, dash, last = part.partition("-")
        low = whole(first, "<select/>", 0, messages.MAX_INDEX)
        high = whole(last, "<select/>", low, messages.MAX_INDEX) if dash else low
        room -= high - low + 1
        if room < 0:
            raise beyond("a selection of too many files")
        chosen.update(range(low, high + 1))
    return frozenset(chosen)


def _ranges(indices: Iterable[int]) -> str:
    runs = (list(run) for _, run in groupby(enumerate(sorted(indices)), key=lambda pair: pair[1] - pair[0]))
    return " ".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else f"{run[0][1]}" for run in runs)


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """One payload: its tag, what it carries, and which stanza carries it."""

    tag: str
    within: str
    carries: type[AnyMessage]
    read: Callable[[Element], AnyMessage]
    write: Callable[[Any], Element]

    @property
    def name(self) -> str:
        return self.tag.rpartition("}")[2]


FORMS = (
    Form(f"{{{NS_SFS}}}file-sharing", "message", messages.Offer, read_offer, write_offer),
    Form(elements.Withdraw.tag_name(), "message", messages.Withdraw, _read_withdraw, _write_withdraw),
    Form(elements.Seek.tag_name(), "message", messages.Seek, _read_seek, _write_seek),
    Form(elements.Here.tag_name(), "set", messages.Here, _read_here, _write_here),
    Form(elements.Accept.tag_name(), "set", messages.Accept, _read_accept, _write_accept),
    Form(elements.Accepted.tag_name(), "result", messages.Accepted, _read_accepted, _write_accepted),
    Form(elements.Meta.tag_name(), "get", messages.Meta, _read_meta, _write_meta),
    Form(elements.Chunk.tag_name(), "result", messages.MetaChunk, _read_chunk, _write_chunk),
    Form(elements.Fetch.tag_name(), "set", messages.Fetch, read_fetch, write_fetch),
    Form(elements.Fetching.tag_name(), "result", messages.Fetching, read_fetching, write_fetching),
    Form(elements.Peers.tag_name(), "set", messages.Peers, _read_peers, _write_peers),
    Form(elements.Report.tag_name(), "set", messages.Report, _read_report, _write_report),
    Form(elements.End.tag_name(), "set", messages.End, _read_end, _write_end),
    Form(elements.Delegate.tag_name(), "set", messages.Delegate, _read_delegate, _write_delegate),
)
BY_TAG = {form.tag: form for form in FORMS}
BY_TYPE = {form.carries: form for form in FORMS}


def payloads(stanza: Element) -> list[tuple[Form, Element]]:
    """The children of `stanza` that are ours. A file-sharing is, if one of its sources is."""
    found = ((BY_TAG.get(child.tag), child) for child in stanza)
    return [
        (form, child)
        for form, child in found
        if form and (form.carries is not messages.Offer or torrent_of(child) is not None)
    ]
