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

from typing import Any, cast
from xml.etree.ElementTree import Element, SubElement

from slixmpp.exceptions import XMPPError
from slixmpp.stanza import Iq, Message
from slixmpp.xmlstream import ElementBase
from slixmpp.xmlstream.tostring import tostring

from .. import messages
from ..constants import NS, STANZA_BUDGET
from ..errors import LimitExceeded, ProtocolError
from . import pubsub
from .elements import (
    Accept,
    Accepted,
    Chunk,
    Delegate,
    End,
    Fetch,
    Fetching,
    Here,
    Meta,
    Payload,
    Peers,
    Report,
    Seek,
    Torrent,
    Withdraw,
    register,
)
from .payloads import BY_TAG, BY_TYPE, FORMS, AnyMessage, payloads
from .sharing import read_offer, readable
from .values import NS_FALLBACK, NS_HINTS, NS_SFS, beyond, clean, malformed

#: What a room reads of a Withdraw.
WITHDRAWN = "A file that was offered here is not offered any more."
#: What :class:`slixmpp.xmlstream.matcher.MatchXPath` finds messages with offers by, in clients and components.
#: ``<file-sharing/>`` is not registered with slixmpp: an application may have XEP-0447's own class there.
OFFER_XPATH = f"{{*}}message/{{{NS_SFS}}}file-sharing/{{{NS_SFS}}}sources/{{{NS}}}torrent"


def find(stanza: Message | Iq) -> AnyMessage | None:
    """The message that a stanza carries; the first one, of a message stanza with several.

    None for what is not ours: errors, stanzas without a payload of ours, and what is forwarded inside one (carbons,
    archives). An empty result is :class:`~slixmpp_bt.messages.Done`.

    :raises ProtocolError: it is malformed, breaks a limit, or is not what an iq of that type may carry.
    """
    if stanza.xml.get("type") == "error":
        return None
    if isinstance(stanza, Message):
        return next((form.read(xml) for form, xml in payloads(stanza.xml) if form.within == "message"), None)
    found = payloads(stanza.xml)
    if not found:
        return messages.Done() if stanza.xml.get("type") == "result" and not len(stanza.xml) else None
    form, xml = found[0]
    if len(found) > 1 or form.within != stanza.xml.get("type"):
        raise malformed(f"<{form.name}/> in an iq of this type, or not alone in it")
    return form.read(xml)


def find_offers(message: Message) -> tuple[messages.Offer, ...]:
    """All offers of a message, in order; as in :func:`find`, errors and what is forwarded count as nothing.

    :raises ProtocolError: one of them is malformed or breaks a limit, or there are too many.
    """
    if message.xml.get("type") == "error":
        return ()
    found = [xml for form, xml in payloads(message.xml) if form.carries is messages.Offer]
    if len(found) > messages.MAX_OFFERS:
        raise beyond(f"{len(found)} offers in one message")
    return tuple(map(read_offer, found))


def parse(xml: Element | ElementBase) -> AnyMessage:
    """The message of one payload: a ``<file-sharing/>`` with a ``<torrent/>``, or an element of our namespace.

    :raises ProtocolError: it is malformed, breaks a limit, or is none of ours.
    """
    xml = xml.xml if isinstance(xml, ElementBase) else xml
    form = BY_TAG.get(xml.tag)
    if form is None:
        raise ProtocolError("an unknown payload", "feature-not-implemented")
    return form.read(xml)


def build(message: AnyMessage) -> Element:
    """The payload that says `message`. Characters that XML cannot hold become U+FFFD; long texts are cut.

    :raises TypeError: for :class:`~slixmpp_bt.messages.Done`, which is an iq result without a payload.
    """
    form = BY_TYPE.get(type(message))
    if form is None:
        raise TypeError(f"{message!r} has no payload")
    return form.write(message)


def error(refusal: ProtocolError) -> XMPPError:
    """The stanza error that says `refusal`; with ``gone``, an ``<ended/>`` of our namespace says how it ended."""
    ended: dict[str, Any] = {"extension": "ended", "extension_ns": NS, "extension_args": {"reason": refusal.reason}}
    text = clean(str(refusal))[: messages.MAX_TEXT]
    # slixmpp thinks that "gone" may be mended; here it never can.
    kind: dict[str, Any] = {"etype": "cancel"} if refusal.condition == "gone" else {}
    return XMPPError(cast(Any, refusal.condition), text=text, **kind, **(ended if refusal.reason else {}))


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
    """Put a message into a message stanza, with the hint whether it is to be stored (XEP-0334).

    :param body: what clients show that cannot fetch the file, marked as a fallback (XEP-0428); by default its name
        and size, and what is needed to fetch it. Others have none, but for a Withdraw in a room: without a body, its
        history would keep the offer alone.
    """
    stanza.append(build(message))
    if isinstance(message, messages.Offer):
        _fall_back(stanza, NS_SFS, clean(body) if body else readable(message))
    elif isinstance(message, messages.Withdraw) and stanza["type"] == "groupchat":
        _fall_back(stanza, NS, WITHDRAWN)
    hint = "no-store" if isinstance(message, messages.Seek) else "store"
    stanza.append(Element(f"{{{NS_HINTS}}}{hint}"))


def _fall_back(stanza: Message, what: str, body: str) -> None:
    stanza["body"] = body
    fallback = Element(f"{{{NS_FALLBACK}}}fallback", {"for": what})
    SubElement(fallback, f"{{{NS_FALLBACK}}}body")
    stanza.append(fallback)


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


__all__ = [
    "FORMS",
    "OFFER_XPATH",
    "Accept",
    "Accepted",
    "AnyMessage",
    "Chunk",
    "Delegate",
    "End",
    "Fetch",
    "Fetching",
    "Here",
    "Meta",
    "Payload",
    "Peers",
    "Report",
    "Seek",
    "Torrent",
    "Withdraw",
    "build",
    "error",
    "fill_message",
    "find",
    "find_offers",
    "parse",
    "payload",
    "pubsub",
    "read_error",
    "register",
    "size_of",
    "within_budget",
]
