"""Counting and overhearing what passes through the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from slixmpp import JID

from .markup import serialise
from .stanzas import StanzaError, jid

#: Called with the sender's full JID, the address, and the stanza as a client would receive it.
Tap = Callable[[JID, JID, bytes], None]


@dataclass(slots=True)
class Counters:
    """What one full JID has sent (in) and was sent (out) since its first session began: bytes of XML, and stanzas."""

    bytes_in: int = 0
    bytes_out: int = 0
    stanzas_in: int = 0
    stanzas_out: int = 0


class Traffic:
    """Counters by full JID (by domain for a component), and taps.

    ``traffic["alice@localhost/phone"].bytes_in`` are bytes the server received from there, whitespace included, since
    the resource was first bound; ``bytes_out`` what it sent there. A JID that was never connected has zeros.
    """

    def __init__(self) -> None:
        self._counters: dict[str, Counters] = {}
        self._taps: list[Tap] = []

    def __getitem__(self, address: str | JID) -> Counters:
        return self._counters.setdefault(JID(str(address)).full, Counters())

    @property
    def total(self) -> Counters:
        """The sums over all JIDs."""
        total = Counters()
        for counters in self._counters.values():
            total.bytes_in += counters.bytes_in
            total.bytes_out += counters.bytes_out
            total.stanzas_in += counters.stanzas_in
            total.stanzas_out += counters.stanzas_out
        return total

    def reset(self) -> None:
        """Everything from zero."""
        for counters in self._counters.values():
            counters.bytes_in = counters.bytes_out = counters.stanzas_in = counters.stanzas_out = 0

    def tap(self, callback: Tap) -> Callable[[], None]:
        """Let `callback` see each stanza that a client or component sends, before any fault happens to it.

        :returns: a function that ends it.
        """
        self._taps.append(callback)

        def remove() -> None:
            if callback in self._taps:
                self._taps.remove(callback)

        return remove

    def overhear(self, address: JID, stanza: Element) -> None:
        """A stanza came in from `address`; one without an address of its own is for the sender's account."""
        if not self._taps:
            return
        try:
            to = jid(stanza.get("to", address.bare))
        except StanzaError:
            return
        xml = serialise(stanza)
        for callback in tuple(self._taps):
            callback(address, to, xml)
