"""The receiving end of an in-band stream (XEP-0047 section 2.2): everything checked, little held."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections import deque

from slixmpp import JID, BaseXMPP, Iq
from slixmpp.exceptions import XMPPError
from slixmpp.xmlstream.stanzabase import StanzaBase

from ..wire import StreamBroken
from ._ends import SEQUENCE, StreamEnd
from .window import BLOCK, LARGEST

#: Bytes that wait to be taken, unanswered, before the other side counts as a flood.
MAX_HELD = 2 * LARGEST * BLOCK
#: Seconds without a block after which this side gives up: at least, at most, and as a multiple of the usual gap.
_IDLE = (60.0, 300.0)
_IDLE_GAPS = 20


class Incoming(StreamEnd):
    """The end that the other side opened, and that receives.

    A block is answered when it is taken, so what a peer may send ahead is up to whoever takes it.
    """

    def __init__(self, xmpp: BaseXMPP, sid: str, own: JID, peer: JID, block_size: int) -> None:
        super().__init__(xmpp, sid, own, peer)
        self.block_size = block_size
        self._blocks: deque[tuple[Iq, bytes]] = deque()
        self._held = 0
        self._next = 0
        self._complete = False
        self._gap = 0.0
        # When something last came, or was answered: since then the other side is to move.
        self._since = time.monotonic()

    async def send(self, data: bytes) -> None:
        """Not on this end.

        :raises StreamBroken: always.
        """
        raise StreamBroken("only the side that opened the stream sends on it", final=True)

    async def receive(self) -> bytes:
        """See :meth:`slixmpp_bt.wire.Stream.receive`. What it returns is answered, and no more of it held."""
        while not self._blocks:
            if self.over:
                raise self._error
            if self._complete:
                return b""
            try:
                async with asyncio.timeout(self._since + self.patience - time.monotonic()):
                    await self._change()
            except TimeoutError:
                self.break_(StreamBroken(f"nothing came for {self.patience:.0f} s"))
        iq, data = self._blocks.popleft()
        self._held -= len(data)
        self._since = time.monotonic()
        iq.reply().send()
        return data

    @property
    def patience(self) -> float:
        """Seconds without a block after which the stream counts as broken."""
        least, most = _IDLE
        return min(most, max(least, _IDLE_GAPS * self._gap))

    def _recv_data(self, stanza: StanzaBase) -> None:
        if self._parted:
            raise XMPPError("item-not-found")
        refusal = self._take(stanza)
        if refusal is not None:
            # XEP-0047 section 2.2: nothing that follows can be of use.
            self.break_(StreamBroken(f"the other side sent a block that cannot be: {refusal.condition}"))
            raise refusal

    def _take(self, stanza: StanzaBase) -> XMPPError | None:
        if not isinstance(stanza, Iq):
            return XMPPError("not-acceptable", "iqs were agreed on")
        try:
            sequence, data = _parse(stanza)
        except ValueError:
            return XMPPError("bad-request")
        if sequence != self._next:
            return XMPPError("unexpected-request", etype="cancel")
        if len(data) > self.block_size:
            return XMPPError("bad-request", "larger than agreed")
        if self._held and self._held + len(data) > MAX_HELD:
            return XMPPError("resource-constraint", "too many blocks without waiting for an answer", etype="cancel")
        now = time.monotonic()
        if not self._blocks:
            gap = now - self._since
            self._gap = 0.75 * self._gap + 0.25 * gap if self._next else gap
        self._since = now
        self._next = (self._next + 1) % SEQUENCE
        self._held += len(data)
        self._blocks.append((stanza, data))
        self._changed.set()
        return None

    def _peer_closed(self) -> None:
        self._complete = True
        self._changed.set()

    def _end(self, online: bool) -> None:
        if online:
            for iq, _ in self._blocks:
                iq.exception(XMPPError("item-not-found"))
        self._blocks.clear()
        super()._end(online)


def _parse(stanza: Iq) -> tuple[int, bytes]:
    """The sequence number and the bytes of a block.

    :raises ValueError: it has none, or not in the form that XEP-0047 and RFC 4648 section 4 want.
    """
    element = stanza["ibb_data"].xml
    sequence, text = element.get("seq", ""), (element.text or "").strip()
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) <= 5) or not text or len(element):
        raise ValueError("not a block")
    try:
        return int(sequence), base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
