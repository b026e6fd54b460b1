"""What both ends of an in-band stream have in common: their place in ``xep_0047``, their iqs, how they end.

``xep_0047`` keeps stream objects by own JID, sid and peer, and gives each its stanzas. The ends take the place of its
own ones, which answer before anybody has taken the data, keep any amount of it, send one block at a time and outlive
their session.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from slixmpp import JID, BaseXMPP, Iq
from slixmpp.exceptions import XMPPError
from slixmpp.xmlstream.stanzabase import StanzaBase

from ..wire import StreamBroken

#: Block numbers begin again after this many (XEP-0047 section 2.2).
SEQUENCE = 65_536
#: Seconds that the other side has for the answer to a closing.
_CLOSE_TIMEOUT = 10.0


class StreamEnd:
    """What both directions have in common.

    ``sid``, ``self_jid`` and ``peer_jid``, ``_recv_data`` and ``_closed`` are the names that ``xep_0047`` uses.
    """

    def __init__(self, xmpp: BaseXMPP, sid: str, own: JID, peer: JID) -> None:
        self.sid, self.self_jid, self.peer_jid = sid, own, peer
        self.over = False
        self._xmpp = xmpp
        self._api: Any = xmpp.plugin["xep_0047"].api
        self._waiting: dict[asyncio.Future[Iq], Iq] = {}
        self._changed = asyncio.Event()
        self._error = StreamBroken("the stream was closed by this side")
        # Whether a <close/> was sent, or came.
        self._parted = False

    def attach(self) -> None:
        """From now on what the peer sends for this stream comes here."""
        self._api["set_stream"](self.self_jid, self.sid, self.peer_jid, self)

    def break_(self, error: StreamBroken, *, online: bool = True) -> None:
        """End it at once. Does nothing if it is over.

        :param online: whether there is a session in which the other side can be told.
        """
        if not self.over:
            self._error = error
            self._end(online)

    async def aclose(self) -> None:
        """See :meth:`slixmpp_bt.wire.Stream.aclose`; takes at most half a minute."""
        if self.over:
            return
        try:
            await self._flush()
            if not self._parted and not self.over:
                self._parted = True
                with suppress(XMPPError, StreamBroken):
                    await self._ask("ibb_close", _CLOSE_TIMEOUT)
        except asyncio.CancelledError:
            self.break_(self._error)
            raise
        if not self.over:
            self._end(online=True)

    async def _flush(self) -> None:
        """Wait until what was sent has arrived."""

    def _ask(self, payload: str, timeout: float, **values: object) -> asyncio.Future[Iq]:
        """Send an iq. The answer may be left alone, and fails when the stream ends."""
        iq = self._iq(payload, values)
        answer: asyncio.Future[Iq] = iq.send(timeout=timeout)
        self._waiting[answer] = iq
        answer.add_done_callback(self._forget)
        return answer

    def _iq(self, payload: str, values: dict[str, object]) -> Iq:
        iq = self._xmpp.make_iq_set(ito=self.peer_jid, ifrom=self.self_jid if self._xmpp.is_component else None)
        for name, value in {"sid": self.sid, **values}.items():
            iq[payload][name] = value
        return iq

    def _forget(self, answer: asyncio.Future[Iq]) -> None:
        iq = self._waiting.pop(answer)
        if not answer.cancelled():
            answer.exception()  # seen, even if nobody awaits it
        # slixmpp keeps the handler and the timer of an iq until its answer or its timeout.
        self._xmpp.remove_handler(f"IqCallback_{iq['id']}")
        self._xmpp.cancel_schedule(f"IqTimeout_{iq['id']}")

    def _end(self, online: bool) -> None:
        self.over = True
        self._api["del_stream"](self.self_jid, self.sid, self.peer_jid, None)
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(self._error)
        if online and not self._parted:
            # Past Iq.send(), which would wait for an answer.
            self._xmpp.send(self._iq("ibb_close", {}))
        self._parted = True
        self._changed.set()

    async def _change(self) -> None:
        """Return when something has happened."""
        self._changed.clear()
        await self._changed.wait()

    def _closed(self, iq: Iq) -> None:
        """The other side closes the stream. ``xep_0047`` forgets it then."""
        iq.reply().send()
        self._parted = True
        self._peer_closed()

    def _peer_closed(self) -> None:
        raise NotImplementedError

    def _recv_data(self, stanza: StanzaBase) -> None:
        raise NotImplementedError
