"""Attributes, numbers, texts, times: read strictly, written plainly."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from xml.etree.ElementTree import Element

from .. import messages
from ..constants import NS, Route
from ..errors import ProtocolError

NS_SFS = "urn:xmpp:sfs:0"
NS_FILE = "urn:xmpp:file:metadata:0"
NS_FALLBACK = "urn:xmpp:fallback:0"
NS_HINTS = "urn:xmpp:hints"


ROUTES = frozenset(Route)
#: An id.
TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{1,{messages.MAX_ID}}}")
MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
#: A host name or a literal address.
HOST = re.compile(r"[^\x00-\x20\x7f]{1,255}")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def malformed(what: str) -> ProtocolError:
    return ProtocolError(f"the other side sent {what}", "bad-request")


def beyond(what: str) -> ProtocolError:
    return ProtocolError(f"the other side sent {what}, which is more than is allowed", "not-acceptable")


def attribute(xml: Element, name: str) -> str:
    value = xml.get(name)
    if value is None:
        raise malformed(f"an element without {name}")
    return value


def token(xml: Element, name: str) -> str:
    value = attribute(xml, name)
    if not TOKEN.fullmatch(value):
        raise malformed(f"a malformed {name}")
    return value


def whole(text: str, what: str, lowest: int = 0, highest: int = messages.MAX_NUMBER) -> int:
    if not (len(text) < 20 and text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
        raise malformed(f"{what} that is not a number from {lowest} to {highest}")
    return int(text)


def number(xml: Element, name: str, lowest: int = 0, highest: int = messages.MAX_NUMBER) -> int:
    return whole(attribute(xml, name), name, lowest, highest)


def blob(xml: Element, most: int = messages.MAX_BLOB) -> bytes:
    """The base64 in `xml`, only as RFC 4648 section 4 writes it: no white space, padded, no stray bits."""
    text = xml.text or ""
    if len(text) > (most + 2) // 3 * 4:
        raise beyond(f"{len(text)} characters of base64")
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if b64encode(data) != text.encode(errors="replace"):
        raise malformed("malformed base64")
    return data


def instant(text: str) -> datetime:
    """A moment as XEP-0082 writes it, in UTC. Its year leaves room for adding and subtracting."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC) if _STAMP.fullmatch(text) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not 1970 <= moment.year < 9999:
        raise malformed("a malformed date")
    return moment


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def clean(text: str) -> str:
    """`text` without what XML 1.0 cannot hold; file names may have it, and a server ends the stream for it."""
    return _NOT_XML.sub("\ufffd", text.replace("\r\n", "\n"))


def element(name: str, **attributes: object) -> Element:
    return Element(f"{{{NS}}}{name}", {key: str(value) for key, value in attributes.items()})


def subelement(parent: Element, name: str, **attributes: object) -> Element:
    parent.append(child := element(name, **attributes))
    return child
