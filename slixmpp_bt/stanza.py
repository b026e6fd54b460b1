"""The only XML of this library: its stanza elements, and the way between them and :mod:`slixmpp_bt.messages`.

:func:`find` and :func:`parse` either return a well-formed message or raise
:class:`~slixmpp_bt.errors.ProtocolError`, whatever the other side sent. Its condition is

``bad-request``
    something required is missing, or something is malformed;
``not-acceptable``
    it is well formed, but more than the limits in :mod:`slixmpp_bt.messages` allow;
``feature-not-implemented``
    an offer in a mode, or a payload, that this version does not know.

Unknown children, attributes and routes are ignored, so that later versions can add some.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import groupby
from typing import Any, ClassVar, Literal, cast
from xml.etree.ElementTree import Element, SubElement

from slixmpp.exceptions import XMPPError
from slixmpp.stanza import Iq, Message
from slixmpp.xmlstream import ElementBase, register_stanza_plugin
from slixmpp.xmlstream.tostring import tostring

from . import messages
from .constants import NS, STANZA_BUDGET, Mode, Route
from .errors import LimitExceeded, ProtocolError
from .messages import Candidate, Share

NS_SFS = "urn:xmpp:sfs:0"
NS_FILE = "urn:xmpp:file:metadata:0"
NS_FALLBACK = "urn:xmpp:fallback:0"
NS_HINTS = "urn:xmpp:hints"

#: What :class:`slixmpp.xmlstream.matcher.MatchXPath` finds messages with offers by, in clients and components.
#: ``<file-sharing/>`` is not registered with slixmpp: an application may have XEP-0447's own class there.
OFFER_XPATH = f"{{*}}message/{{{NS_SFS}}}file-sharing/{{{NS_SFS}}}sources/{{{NS}}}torrent"

AnyMessage = messages.Message | messages.Request | messages.Reply


# The elements ------------------------------------------------------------------------------------------------------


class Payload(ElementBase):
    """A child of a stanza that carries one message. The attributes are text here; :func:`find` checks them."""

    name = "payload"
    namespace = NS
    plugin_attrib = "bt_payload"
    interfaces: ClassVar[set[str]] = {"id", "transfer"}


class Torrent(Payload):
    """An offer: a source in a ``<file-sharing/>`` (XEP-0447) that is a child of a message or a PubSub item.

    .. code-block:: xml

        <file-sharing xmlns='urn:xmpp:sfs:0' disposition='attachment' id='offer-1'>
          <file xmlns='urn:xmpp:file:metadata:0'>
            <name>holiday.mp4</name>
            <size>1073741824</size>
            <media-type>video/mp4</media-type>
            <desc>The lake, on Sunday</desc>
            <date>2026-06-14T18:30:00Z</date>
          </file>
          <sources>
            <torrent xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' mode='private' expires='2026-11-28T07:00:00Z'>
              <info>ZDQ6bmFtZTExOmhvbGlkYXkubXA0ZQ==</info>
            </torrent>
          </sources>
        </file-sharing>

    Where the info dict is too large, ``<info hash='…' length='…'/>`` gives its SHA-256 in hexadecimal and its bytes.
    """

    name = "torrent"
    plugin_attrib = "bt_torrent"
    interfaces: ClassVar[set[str]] = {"mode", "expires"}


class Withdraw(Payload):
    """The offer is void. A child of a message.

    .. code-block:: xml

        <withdraw xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1'/>
    """

    name = "withdraw"
    plugin_attrib = "bt_withdraw"
    interfaces: ClassVar[set[str]] = {"id"}


class Accept(Payload):
    """The receiver wants it. An iq of type ``set``. Without ``<select/>`` all files are wanted.

    .. code-block:: xml

        <accept xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' inline='5000'>
          <candidate address='2001:db8::7' port='6881'/>
          <route>swarm</route>
          <route>in-band</route>
          <select>0-3 7 9-12</select>
        </accept>
    """

    name = "accept"
    plugin_attrib = "bt_accept"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "inline"}


class Accepted(Payload):
    """The result of an :class:`Accept`. ``<content/>`` is all that was wanted, where it was small.

    .. code-block:: xml

        <accepted xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' report='10'>
          <candidate address='198.51.100.4' port='6881'/>
          <peers>
            <candidate address='2001:db8::9' port='51413'/>
          </peers>
          <share index='1' count='4'/>
          <content>aGVsbG8=</content>
        </accepted>
    """

    name = "accepted"
    plugin_attrib = "bt_accepted"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "report"}


class Meta(Payload):
    """Asks for a part of the info dict. An iq of type ``get``.

    .. code-block:: xml

        <meta xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'
              offset='6000' length='6000'/>
    """

    name = "meta"
    plugin_attrib = "bt_meta"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "offset", "length"}


class Chunk(Payload):
    """The result of a :class:`Meta`.

    .. code-block:: xml

        <chunk xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' offset='6000'>ZWVl</chunk>
    """

    name = "chunk"
    plugin_attrib = "bt_chunk"
    interfaces: ClassVar[set[str]] = {"id", "offset"}


class Peers(Payload):
    """Other addresses of the swarm that came and went. An iq of type ``set``.

    .. code-block:: xml

        <peers xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'>
          <joined address='2001:db8::9' port='51413'/>
          <left address='203.0.113.5' port='6881'/>
          <share index='0' count='3'/>
        </peers>
    """

    name = "peers"
    plugin_attrib = "bt_peers"


class Report(Payload):
    """How far the receiver has come, in bytes. An iq of type ``set``.

    .. code-block:: xml

        <report xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' had='300' total='900'>
          <by route='swarm' bytes='280'/>
          <by route='in-band' bytes='20'/>
        </report>
    """

    name = "report"
    plugin_attrib = "bt_report"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "had", "total"}


class End(Payload):
    """It is over: ``complete``, ``cancel`` or ``decline``, with a reason of XEP-0166. An iq of type ``set``.

    .. code-block:: xml

        <end xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'
             kind='cancel' reason='media-error'>
          <text>The file was changed.</text>
        </end>

    With ``kind='complete'``, ``seeding='3600'`` says that the receiver goes on serving others for so many seconds.
    """

    name = "end"
    plugin_attrib = "bt_end"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "kind", "reason", "seeding", "text"}
    sub_interfaces: ClassVar[set[str]] = {"text"}


def register() -> None:
    """Make the payloads known to slixmpp, as ``iq["bt_accept"]`` and so on. Once is enough; again does no harm."""
    register_stanza_plugin(Message, Withdraw)
    for payload in (Accept, Accepted, Meta, Chunk, Peers, Report, End):
        register_stanza_plugin(Iq, payload)


# Between stanzas and messages --------------------------------------------------------------------------------------


def find(stanza: Message | Iq) -> AnyMessage | None:
    """The message that a stanza carries; the first one, of a message stanza with several.

    None for what is not ours: errors, stanzas without a payload of ours, and what is forwarded inside one (carbons,
    archives). An empty result is :class:`~slixmpp_bt.messages.Done`.

    :raises ProtocolError: it is malformed, breaks a limit, or is not what an iq of that type may carry.
    """
    if stanza.xml.get("type") == "error":
        return None
    if isinstance(stanza, Message):
        return next((form.read(xml) for form, xml in _payloads(stanza.xml) if form.within == "message"), None)
    found = _payloads(stanza.xml)
    if not found:
        return messages.Done() if stanza.xml.get("type") == "result" and not len(stanza.xml) else None
    form, xml = found[0]
    if len(found) > 1 or form.within != stanza.xml.get("type"):
        raise _malformed(f"<{form.name}/> in an iq of this type, or not alone in it")
    return form.read(xml)


def find_offers(message: Message) -> tuple[messages.Offer, ...]:
    """All offers of a message, in order; as in :func:`find`, errors and what is forwarded count as nothing.

    :raises ProtocolError: one of them is malformed or breaks a limit, or there are too many.
    """
    if message.xml.get("type") == "error":
        return ()
    found = [xml for form, xml in _payloads(message.xml) if form.carries is messages.Offer]
    if len(found) > messages.MAX_OFFERS:
        raise _beyond(f"{len(found)} offers in one message")
    return tuple(map(_read_offer, found))


def parse(xml: Element | ElementBase) -> AnyMessage:
    """The message of one payload: a ``<file-sharing/>`` with a ``<torrent/>``, or an element of our namespace.

    :raises ProtocolError: it is malformed, breaks a limit, or is none of ours.
    """
    xml = xml.xml if isinstance(xml, ElementBase) else xml
    form = _BY_TAG.get(xml.tag)
    if form is None:
        raise ProtocolError("an unknown payload", "feature-not-implemented")
    return form.read(xml)


def build(message: AnyMessage) -> Element:
    """The payload that says `message`. Characters that XML cannot hold become U+FFFD; long texts are cut.

    :raises TypeError: for :class:`~slixmpp_bt.messages.Done`, which is an iq result without a payload.
    """
    form = _BY_TYPE.get(type(message))
    if form is None:
        raise TypeError(f"{message!r} has no payload")
    return form.write(message)


def error(refusal: ProtocolError) -> XMPPError:
    """The stanza error that says `refusal`; with ``gone``, an ``<ended/>`` of our namespace says how it ended."""
    ended: dict[str, Any] = {"extension": "ended", "extension_ns": NS, "extension_args": {"reason": refusal.reason}}
    text = _clean(str(refusal))[: messages.MAX_TEXT]
    return XMPPError(cast(Any, refusal.condition), text=text, **(ended if refusal.reason else {}))


def read_error(iq: Iq) -> ProtocolError:
    """What the other side says against a request."""
    condition = str(iq["error"]["condition"]) or "undefined-condition"
    text = str(iq["error"]["text"])[: messages.MAX_TEXT]
    ended = iq["error"].xml.find(f"{{{NS}}}ended")
    reason = ended.get("reason") if ended is not None else None
    return ProtocolError(text or condition.replace("-", " "), condition, reason if reason in messages.REASONS else None)


def payload(reply: messages.Reply) -> Element | None:
    """The payload of an iq result that says `reply`; None for :class:`~slixmpp_bt.messages.Done`."""
    return None if isinstance(reply, messages.Done) else build(reply)


def fill_message(stanza: Message, message: messages.Message, body: str | None = None) -> None:
    """Put an offer or a withdrawal into a message stanza, with the hint that it is to be stored (XEP-0334).

    :param body: what clients show that cannot fetch the file, marked as a fallback (XEP-0428); by default its name
        and size, and what is needed to fetch it. A withdrawal has none.
    """
    stanza.append(build(message))
    if isinstance(message, messages.Offer):
        stanza["body"] = _clean(body) if body else _readable(message)
        fallback = Element(f"{{{NS_FALLBACK}}}fallback", {"for": NS_SFS})
        SubElement(fallback, f"{{{NS_FALLBACK}}}body")
        stanza.append(fallback)
    stanza.append(Element(f"{{{NS_HINTS}}}store"))


def size_of(stanza: ElementBase | Element) -> int:
    """Bytes of a stanza or payload as serialised, its namespace included."""
    text = tostring(stanza, top_level=True) if isinstance(stanza, Element) else str(stanza)
    return len(text.encode())


def within_budget(stanza: ElementBase | Element, budget: int = STANZA_BUDGET) -> None:
    """Check before it is sent: a server ends the stream for a stanza that is too large.

    :raises LimitExceeded: the stanza is larger than `budget` bytes.
    """
    if (size := size_of(stanza)) > budget:
        raise LimitExceeded(f"a stanza of {size} bytes would exceed the {budget} that may be sent")


# Offers ------------------------------------------------------------------------------------------------------------


def _torrent(xml: Element) -> Element | None:
    return xml.find(f"{{{NS_SFS}}}sources/{{{NS}}}torrent")


def _read_offer(xml: Element) -> messages.Offer:
    torrent, file = _torrent(xml), xml.find(f"{{{NS_FILE}}}file")
    if torrent is None or file is None:
        raise _malformed("a file-sharing without its <torrent/> or <file/>")
    try:
        mode = Mode(_attribute(torrent, "mode"))
    except ValueError:
        raise ProtocolError("an offer in a mode that this version does not know", "feature-not-implemented") from None
    info, info_hash, info_length = _read_info(torrent)
    name = file.findtext(f"{{{NS_FILE}}}name") or ""
    if not name:
        raise _malformed("an offer without a name")
    if len(name) > messages.MAX_NAME:
        raise _beyond(f"a name of {len(name)} characters")
    media_type = file.findtext(f"{{{NS_FILE}}}media-type") or ""
    return messages.Offer(
        id=_token(xml, "id"),
        mode=mode,
        expires=_instant(_attribute(torrent, "expires")),
        name=name,
        size=_whole(file.findtext(f"{{{NS_FILE}}}size") or "", "<size/>"),
        info_hash=info_hash,
        info_length=info_length,
        info=info,
        desc=(file.findtext(f"{{{NS_FILE}}}desc") or "")[: messages.MAX_TEXT] or None,
        media_type=media_type if len(media_type) < 128 and _MEDIA_TYPE.fullmatch(media_type) else None,
        date=_read_date(file),
    )


def _read_info(torrent: Element) -> tuple[bytes | None, bytes, int]:
    """The info dict (None if it is not there), its SHA-256 and its length."""
    info = torrent.find(f"{{{NS}}}info")
    if info is None:
        raise _malformed("a torrent without <info/>")
    if info.text and not info.text.isspace():
        whole = _blob(info)
        return whole, hashlib.sha256(whole).digest(), len(whole)
    digest = _attribute(info, "hash")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", digest):
        raise _malformed("a hash that is not SHA-256 in hexadecimal")
    return None, bytes.fromhex(digest), _number(info, "length", 1)


def _read_date(file: Element) -> datetime | None:
    """The file's date. It is only shown, and by other people's element: one that makes no sense is none."""
    try:
        return _instant(file.findtext(f"{{{NS_FILE}}}date") or "")
    except ProtocolError:
        return None


def _write_offer(offer: messages.Offer) -> Element:
    sharing = Element(f"{{{NS_SFS}}}file-sharing", {"disposition": "attachment", "id": offer.id})
    file = SubElement(sharing, f"{{{NS_FILE}}}file")
    fields = {
        "name": offer.name[: messages.MAX_NAME],
        "size": str(offer.size),
        "media-type": offer.media_type,
        "desc": offer.desc and offer.desc[: messages.MAX_TEXT],
        "date": offer.date and _stamp(offer.date),
    }
    for name, value in fields.items():
        if value:
            SubElement(file, f"{{{NS_FILE}}}{name}").text = _clean(value)
    sources = SubElement(sharing, f"{{{NS_SFS}}}sources")
    torrent = _child(sources, "torrent", mode=offer.mode.value, expires=_stamp(offer.expires))
    if offer.info is None:
        _child(torrent, "info", hash=offer.info_hash.hex(), length=offer.info_length)
    else:
        _child(torrent, "info").text = b64encode(offer.info).decode()
    return sharing


def _readable(offer: messages.Offer) -> str:
    """What XEP-0447 lets the body say: what the elements beside it say, and how to get at it."""
    name = offer.name if len(offer.name) <= 120 else offer.name[:119] + "…"
    size, unit = float(offer.size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    what = "a directory, " if offer.media_type == "inode/directory" else ""
    amount = f"{offer.size} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
    return _clean(f"{name} ({what}{amount}), to be fetched with a client that supports {NS}")


# The other payloads ------------------------------------------------------------------------------------------------


def _read_withdraw(xml: Element) -> messages.Withdraw:
    return messages.Withdraw(_token(xml, "id"))


def _write_withdraw(withdraw: messages.Withdraw) -> Element:
    return _element("withdraw", id=withdraw.id)


def _read_accept(xml: Element) -> messages.Accept:
    words = {route.text for route in xml.iterfind(f"{{{NS}}}route")}
    select = xml.find(f"{{{NS}}}select")
    return messages.Accept(
        id=_token(xml, "id"),
        transfer=_token(xml, "transfer"),
        candidates=_read_candidates(xml, "candidate", messages.MAX_CANDIDATES),
        routes=frozenset(route for route in Route if route in words),
        select=None if select is None else _read_select(select.text or ""),
        inline=_number(xml, "inline") if "inline" in xml.attrib else 0,
    )


def _write_accept(accept: messages.Accept) -> Element:
    xml = _element("accept", id=accept.id, transfer=accept.transfer)
    if accept.inline:
        xml.set("inline", str(accept.inline))
    _write_candidates(xml, "candidate", accept.candidates)
    for route in sorted(accept.routes):
        _child(xml, "route").text = route.value
    if accept.select is not None:
        _child(xml, "select").text = _ranges(accept.select)
    return xml


def _read_accepted(xml: Element) -> messages.Accepted:
    peers, content = xml.find(f"{{{NS}}}peers"), xml.find(f"{{{NS}}}content")
    report = messages.MIN_REPORT, messages.MAX_REPORT
    return messages.Accepted(
        id=_token(xml, "id"),
        transfer=_token(xml, "transfer"),
        candidates=_read_candidates(xml, "candidate", messages.MAX_CANDIDATES),
        peers=() if peers is None else _read_candidates(peers, "candidate", messages.MAX_PEERS),
        share=_read_share(xml),
        content=None if content is None else _blob(content),
        report=_number(xml, "report", *report) if "report" in xml.attrib else None,
    )


def _write_accepted(accepted: messages.Accepted) -> Element:
    xml = _element("accepted", id=accepted.id, transfer=accepted.transfer)
    if accepted.report is not None:
        xml.set("report", str(accepted.report))
    _write_candidates(xml, "candidate", accepted.candidates)
    if accepted.peers:
        _write_candidates(_child(xml, "peers"), "candidate", accepted.peers)
    _write_share(xml, accepted.share)
    if accepted.content is not None:
        _child(xml, "content").text = b64encode(accepted.content).decode()
    return xml


def _read_meta(xml: Element) -> messages.Meta:
    length = _number(xml, "length", 1)
    if length > messages.MAX_META_CHUNK:
        raise _beyond(f"{length} bytes of an info dict at once")
    return messages.Meta(_token(xml, "id"), _token(xml, "transfer"), _number(xml, "offset"), length)


def _write_meta(meta: messages.Meta) -> Element:
    return _element("meta", id=meta.id, transfer=meta.transfer, offset=meta.offset, length=meta.length)


def _read_chunk(xml: Element) -> messages.MetaChunk:
    data = _blob(xml, messages.MAX_META_CHUNK)
    if not data:
        raise _malformed("an empty <chunk/>")
    return messages.MetaChunk(_token(xml, "id"), _number(xml, "offset"), data)


def _write_chunk(chunk: messages.MetaChunk) -> Element:
    xml = _element("chunk", id=chunk.id, offset=chunk.offset)
    xml.text = b64encode(chunk.data).decode()
    return xml


def _read_peers(xml: Element) -> messages.Peers:
    return messages.Peers(
        id=_token(xml, "id"),
        transfer=_token(xml, "transfer"),
        joined=_read_candidates(xml, "joined", messages.MAX_PEERS),
        left=_read_candidates(xml, "left", messages.MAX_PEERS),
        share=_read_share(xml),
    )


def _write_peers(peers: messages.Peers) -> Element:
    xml = _element("peers", id=peers.id, transfer=peers.transfer)
    _write_candidates(xml, "joined", peers.joined)
    _write_candidates(xml, "left", peers.left)
    _write_share(xml, peers.share)
    return xml


def _read_report(xml: Element) -> messages.Report:
    had, total = _number(xml, "had"), _number(xml, "total")
    if had > total:
        raise _malformed("a report of more than there is")
    by = {line.get("route"): line for line in xml.iterfind(f"{{{NS}}}by")}
    routes = tuple((Route(word), _number(line, "bytes")) for word, line in by.items() if word in _ROUTES)
    return messages.Report(_token(xml, "id"), _token(xml, "transfer"), had, total, routes)


def _write_report(report: messages.Report) -> Element:
    xml = _element("report", id=report.id, transfer=report.transfer, had=report.had, total=report.total)
    for route, count in report.routes:
        _child(xml, "by", route=route.value, bytes=count)
    return xml


def _read_end(xml: Element) -> messages.End:
    kind, reason = _attribute(xml, "kind"), xml.get("reason")
    if kind not in ("complete", "cancel", "decline"):
        raise _malformed("an <end/> of an unknown kind")
    return messages.End(
        id=_token(xml, "id"),
        kind=cast('Literal["complete", "cancel", "decline"]', kind),
        reason=reason if reason in messages.REASONS else "general-error",
        transfer=_token(xml, "transfer") if "transfer" in xml.attrib else None,
        text=(xml.findtext(f"{{{NS}}}text") or "")[: messages.MAX_TEXT] or None,
        seeding=_number(xml, "seeding") if "seeding" in xml.attrib else None,
    )


def _write_end(end: messages.End) -> Element:
    xml = _element("end", id=end.id, kind=end.kind, reason=end.reason)
    if end.transfer is not None:
        xml.set("transfer", end.transfer)
    if end.seeding is not None:
        xml.set("seeding", str(end.seeding))
    if end.text:
        _child(xml, "text").text = _clean(end.text[: messages.MAX_TEXT])
    return xml


# Their parts -------------------------------------------------------------------------------------------------------


def _read_candidates(xml: Element, name: str, most: int) -> tuple[Candidate, ...]:
    found = xml.findall(f"{{{NS}}}{name}")
    if len(found) > most:
        raise _beyond(f"{len(found)} <{name}/> elements")
    return tuple(map(_read_candidate, found))


def _read_candidate(xml: Element) -> Candidate:
    text = _attribute(xml, "address")
    try:
        if "%" in text:  # a zone index means something on the sender's machine only
            raise ValueError(text)
        return Candidate(ip_address(text), _number(xml, "port", 1, 65535))
    except ValueError:
        raise _malformed("an address that is not a literal IP address") from None


def _write_candidates(xml: Element, name: str, candidates: Iterable[Candidate]) -> None:
    for candidate in candidates:
        _child(xml, name, address=candidate.address, port=candidate.port)


def _read_share(xml: Element) -> Share | None:
    share = xml.find(f"{{{NS}}}share")
    if share is None:
        return None
    count = _number(share, "count", 1, messages.MAX_SHARES)
    return Share(_number(share, "index", 0, count - 1), count)


def _write_share(xml: Element, share: Share | None) -> None:
    if share is not None:
        _child(xml, "share", index=share.index, count=share.count)


def _read_select(text: str) -> frozenset[int]:
    """Indices and ranges in any order; bounded before a range is unfolded."""
    chosen: set[int] = set()
    room = messages.MAX_SELECT
    for part in text.split(" "):
        first, dash, last = part.partition("-")
        low = _whole(first, "<select/>", 0, messages.MAX_INDEX)
        high = _whole(last, "<select/>", low, messages.MAX_INDEX) if dash else low
        room -= high - low + 1
        if room < 0:
            raise _beyond("a selection of too many files")
        chosen.update(range(low, high + 1))
    return frozenset(chosen)


def _ranges(indices: Iterable[int]) -> str:
    runs = (list(run) for _, run in groupby(enumerate(sorted(indices)), key=lambda pair: pair[1] - pair[0]))
    return " ".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else f"{run[0][1]}" for run in runs)


# Text and values ---------------------------------------------------------------------------------------------------

_ROUTES = frozenset(Route)
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{1,{messages.MAX_ID}}}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(f"the other side sent {what}", "bad-request")


def _beyond(what: str) -> ProtocolError:
    return ProtocolError(f"the other side sent {what}, which is more than is allowed", "not-acceptable")


def _attribute(xml: Element, name: str) -> str:
    value = xml.get(name)
    if value is None:
        raise _malformed(f"an element without {name}")
    return value


def _token(xml: Element, name: str) -> str:
    value = _attribute(xml, name)
    if not _TOKEN.fullmatch(value):
        raise _malformed(f"a malformed {name}")
    return value


def _whole(text: str, what: str, lowest: int = 0, highest: int = messages.MAX_NUMBER) -> int:
    if not (len(text) < 20 and text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
        raise _malformed(f"{what} that is not a number from {lowest} to {highest}")
    return int(text)


def _number(xml: Element, name: str, lowest: int = 0, highest: int = messages.MAX_NUMBER) -> int:
    return _whole(_attribute(xml, name), name, lowest, highest)


def _blob(xml: Element, most: int = messages.MAX_BLOB) -> bytes:
    """The base64 in `xml`, only as RFC 4648 section 4 writes it: no white space, padded, no stray bits."""
    text = xml.text or ""
    if len(text) > (most + 2) // 3 * 4:
        raise _beyond(f"{len(text)} characters of base64")
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if b64encode(data) != text.encode(errors="replace"):
        raise _malformed("malformed base64")
    return data


def _instant(text: str) -> datetime:
    """A moment as XEP-0082 writes it, in UTC. Its year leaves room for adding and subtracting."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC) if _STAMP.fullmatch(text) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not 1970 <= moment.year < 9999:
        raise _malformed("a malformed date")
    return moment


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _clean(text: str) -> str:
    """`text` without what XML 1.0 cannot hold; file names may have it, and a server ends the stream for it."""
    return _NOT_XML.sub("\ufffd", text.replace("\r\n", "\n"))


def _element(name: str, **attributes: object) -> Element:
    return Element(f"{{{NS}}}{name}", {key: str(value) for key, value in attributes.items()})


def _child(parent: Element, name: str, **attributes: object) -> Element:
    parent.append(child := _element(name, **attributes))
    return child


# The table ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    """One payload: its tag, what it carries, and which stanza carries it."""

    tag: str
    within: str
    carries: type[AnyMessage]
    read: Callable[[Element], AnyMessage]
    write: Callable[[Any], Element]

    @property
    def name(self) -> str:
        return self.tag.rpartition("}")[2]


_FORMS = (
    _Form(f"{{{NS_SFS}}}file-sharing", "message", messages.Offer, _read_offer, _write_offer),
    _Form(Withdraw.tag_name(), "message", messages.Withdraw, _read_withdraw, _write_withdraw),
    _Form(Accept.tag_name(), "set", messages.Accept, _read_accept, _write_accept),
    _Form(Accepted.tag_name(), "result", messages.Accepted, _read_accepted, _write_accepted),
    _Form(Meta.tag_name(), "get", messages.Meta, _read_meta, _write_meta),
    _Form(Chunk.tag_name(), "result", messages.MetaChunk, _read_chunk, _write_chunk),
    _Form(Peers.tag_name(), "set", messages.Peers, _read_peers, _write_peers),
    _Form(Report.tag_name(), "set", messages.Report, _read_report, _write_report),
    _Form(End.tag_name(), "set", messages.End, _read_end, _write_end),
)
_BY_TAG = {form.tag: form for form in _FORMS}
_BY_TYPE = {form.carries: form for form in _FORMS}


def _payloads(stanza: Element) -> list[tuple[_Form, Element]]:
    """The children of `stanza` that are ours. A file-sharing is, if one of its sources is."""
    found = ((_BY_TAG.get(child.tag), child) for child in stanza)
    return [
        (form, child)
        for form, child in found
        if form and (form.carries is not messages.Offer or _torrent(child) is not None)
    ]
