"""Stanzas: how they are addressed, answered and refused (RFC 6120 section 8)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from functools import lru_cache
from xml.etree.ElementTree import Element

from slixmpp import JID
from slixmpp.jid import InvalidJID

from .markup import CLIENT, IQ, E

STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
DELAY = "{urn:xmpp:delay}delay"
ERROR = f"{{{CLIENT}}}error"
BODY = f"{{{CLIENT}}}body"

_TYPES = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
}


class StanzaError(Exception):
    """A stanza is refused: a defined condition of RFC 6120 section 8.3.3, a text, a condition of an extension."""

    def __init__(self, condition: str, text: str = "", extension: Element | None = None) -> None:
        super().__init__(text or condition)
        self.condition = condition
        self.text = text
        self.extension = extension

    def element(self) -> Element:
        """The ``<error/>`` element."""
        error = E(ERROR, {"type": _TYPES[self.condition]}, E(f"{{{STANZAS}}}{self.condition}"))
        if self.text:
            error.append(E(f"{{{STANZAS}}}text", None, self.text))
        if self.extension is not None:
            error.append(self.extension)
        return error


@lru_cache(maxsize=4096)
def jid(text: str) -> JID:
    """`text` as a JID, normalised; not to be changed, as it is shared.

    :raises StanzaError: jid-malformed.
    """
    try:
        parsed = JID(text)
    except InvalidJID as error:
        raise StanzaError("jid-malformed", str(error)) from None
    if not parsed:
        raise StanzaError("jid-malformed", "an empty address")
    return parsed


def sender(stanza: Element) -> JID:
    """Whom `stanza` is from. Every stanza that is routed says so."""
    return jid(stanza.get("from", ""))


def kind(stanza: Element) -> str | None:
    """The type of a stanza."""
    return stanza.get("type")


def copy_for(stanza: Element, **attributes: str | None) -> Element:
    """A copy with other attributes (``from_`` for from; None removes one); the children are shared."""
    copy = Element(stanza.tag, dict(stanza.attrib))
    copy.text = stanza.text
    copy.extend(stanza)
    for key, value in attributes.items():
        if value is None:
            copy.attrib.pop(key.rstrip("_"), None)
        else:
            copy.set(key.rstrip("_"), value)
    return copy


def result(iq: Element, *payload: Element) -> Element:
    """The answer to a request."""
    return E(IQ, {"type": "result", "id": iq.get("id"), "from": iq.get("to"), "to": iq.get("from")}, *payload)


def refusal(stanza: Element, error: StanzaError) -> Element | None:
    """`stanza` on its way back with an error; None if nothing may be sent back (RFC 6120 section 8.3.1)."""
    if kind(stanza) == "error" or (stanza.tag == IQ and kind(stanza) == "result"):
        return None
    back = copy_for(stanza, type="error", to=stanza.get("from"), from_=stanza.get("to"))
    back.append(error.element())
    return back


def delayed(stanza: Element, by: str, when: datetime) -> Element:
    """A copy that tells since `when` it has been kept, and by whom (XEP-0203)."""
    copy = copy_for(stanza)
    copy.append(E(DELAY, {"from": by, "stamp": stamp(when)}))
    return copy


def now() -> datetime:
    """The current time, with its zone."""
    return datetime.now(UTC)


def stamp(when: datetime) -> str:
    """A time as XEP-0082 writes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_id() -> str:
    """An id for a stanza, a stream or an item."""
    return secrets.token_hex(8)
