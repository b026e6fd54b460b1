"""In-band streams (XEP-0047): bytes in the XMPP stream itself, slow, but where XMPP passes they pass.

They share slixmpp's ``xep_0047`` with the application, whose own streams and settings are left as they are: a stream of
ours is let in by a permission of its own, for one sid from one full JID to another, once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

from slixmpp import JID, BaseXMPP, Iq
from slixmpp.exceptions import XMPPError

from ..wire import Expected, Stream, StreamBroken
from ._incoming import Incoming
from ._outgoing import Outgoing
from .window import Window

#: Of how many peers the shortest round trip is kept.
_PEERS_REMEMBERED = 64


class _Breakable(Protocol):
    @property
    def peer_jid(self) -> JID: ...

    def break_(self, error: StreamBroken, *, online: bool = True) -> None: ...


class InBandStreams:
    """The in-band streams of one client or component.

    The application sees an ``ibb_stream_start`` for each that the other side opens, as for any other; the stream object
    that comes with it is a closed one, on which whatever it tries ends at once.

    Whoever uses it sees to it that there is a session: slixmpp keeps what is sent without one for the next.

    :param xmpp: with ``xep_0047`` registered.
    """

    def __init__(self, xmpp: BaseXMPP) -> None:
        self._xmpp = xmpp
        self._plugin: Any = xmpp.plugin["xep_0047"]
        # By own JID and sid.
        self._expected: dict[tuple[JID, str], _Expectation] = {}
        self._live: set[_Breakable] = set()
        # Seconds; the latest peers last. A server that throttles hides it from a stream that begins behind another.
        self._shortest: dict[JID, float] = {}
        xmpp.add_event_handler("ibb_stream_start", self._started)

    def expect(self, sid: str, peer: JID, *, sender: JID) -> AbstractAsyncContextManager[Expected]:
        """See :meth:`slixmpp_bt.wire.Wire.expect_stream`.

        :param sid: best drawn at random: no other stream or application may use it meanwhile.
        :param sender: the own JID that `peer` opens it to. A client has only one.
        :raises StreamBroken: on entering: the sid is in use.
        """
        return self._expect(sid, peer, self._own(sender))

    async def open(self, sid: str, to: JID, *, sender: JID) -> Stream:
        """See :meth:`slixmpp_bt.wire.Wire.open_stream`. Takes a minute and a half at most. Cancelling it closes the
        stream, should the other side have opened it.

        :raises StreamBroken: no answer, a refusal, the end of the session, or there is a stream of that name already.
            `final` if asking again will not change it.
        """
        own = self._own(sender)
        self._check_free(own, sid, to)
        window = Window(self._shortest.get(to, math.inf))
        stream = Outgoing(self._xmpp, sid, own, to, window, self._outgoing_ended)
        self._live.add(stream)
        await stream.open()
        return stream

    def session_ended(self) -> None:
        """The session is over, and all streams and permissions with it."""
        self._break(StreamBroken("the session ended"), online=False)
        self._shortest.clear()

    def break_off(self, peer: JID) -> None:
        """Nobody is to be reached at `peer`, or in the room `peer`, under the same name any more: all streams with it
        break, without a word to whoever has the name now."""
        for one in tuple(self._live):
            if peer in (one.peer_jid, JID(one.peer_jid.bare)):
                one.break_(StreamBroken(f"{peer} is not there any more"), online=False)

    def close(self) -> None:
        """Break all streams, tell the other sides, and leave ``xep_0047`` as it was. Idempotent."""
        self._break(StreamBroken("in-band streams are switched off"), online=True)
        self._xmpp.del_event_handler("ibb_stream_start", self._started)

    def _break(self, error: StreamBroken, *, online: bool) -> None:
        for one in tuple(self._live):
            one.break_(error, online=online)

    @asynccontextmanager
    async def _expect(self, sid: str, peer: JID, own: JID) -> AsyncIterator[Expected]:
        self._check_free(own, sid, peer)
        expectation = self._expected[own, sid] = _Expectation(self._xmpp, own, sid, peer)
        self._live.add(expectation)
        try:
            yield expectation
        finally:
            try:
                await expectation.aclose()
            finally:
                del self._expected[own, sid]
                self._live.discard(expectation)

    def _started(self, theirs: Any) -> None:
        """``xep_0047`` has opened a stream; no data can have come for it yet."""
        expectation = self._expected.get((theirs.self_jid, theirs.sid))
        if expectation is not None and expectation.awaits(theirs.peer_jid):
            # So that nobody waits for what will never come that way.
            theirs.stream_in_closed = theirs.stream_out_closed = True
            expectation.open(theirs.block_size)

    def _outgoing_ended(self, stream: Outgoing) -> None:
        self._live.discard(stream)
        self._shortest.pop(stream.peer_jid, None)
        self._shortest[stream.peer_jid] = stream.window.shortest
        if len(self._shortest) > _PEERS_REMEMBERED:
            del self._shortest[next(iter(self._shortest))]

    def _own(self, sender: JID) -> JID:
        return sender if self._xmpp.is_component else self._xmpp.boundjid

    def _check_free(self, own: JID, sid: str, peer: JID) -> None:
        # slixmpp would let the new stream take the place of the old one.
        there = self._plugin.api["get_stream"](own, sid, peer, None)
        if (own, sid) in self._expected or (there.done() and there.result() is not None):
            raise StreamBroken(f"there is a stream {sid!r} with {peer} already", final=True)


class _Expectation:
    """A permission to open one stream, and then that stream.

    ``xep_0047`` has ``preauthorize_sid`` for this, but takes such a permission back as soon as a stream is asked for,
    even one that it then refuses for the size of its blocks. So this answers ``authorized_sid`` itself, for its sid.
    """

    def __init__(self, xmpp: BaseXMPP, own: JID, sid: str, peer: JID) -> None:
        self._xmpp, self._own, self._sid, self._peer = xmpp, own, sid, peer
        self._api: Any = xmpp.plugin["xep_0047"].api
        self._settled = asyncio.Event()
        self._error: StreamBroken | None = None
        self._stream: Incoming | None = None
        self._api.register(self._authorise, "authorized_sid", jid=own, node=sid)

    @property
    def peer_jid(self) -> JID:
        """Who may open it."""
        return self._peer

    def awaits(self, peer: JID) -> bool:
        """Whether the stream is still to come, from `peer`."""
        return peer == self._peer and not self._settled.is_set()

    def open(self, block_size: int) -> None:
        """It has come."""
        self._stream = Incoming(self._xmpp, self._sid, self._own, self._peer, block_size)
        self._stream.attach()
        self._settled.set()

    async def opened(self) -> Stream:
        """See :meth:`slixmpp_bt.wire.Expected.opened`."""
        await self._settled.wait()
        if self._stream is None:
            raise self._error or StreamBroken("the stream is not expected any more")
        return self._stream

    def break_(self, error: StreamBroken, *, online: bool = True) -> None:
        """End the permission and the stream at once."""
        self._error = error
        self._withdraw()
        if self._stream is not None:
            self._stream.break_(error, online=online)

    async def aclose(self) -> None:
        """End the stream, in good order, and the permission."""
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            self._withdraw()

    def _authorise(self, _jid: JID | None, _node: str | None, peer: JID | None, iq: Iq) -> bool:
        """Called for every request to open a stream of this sid to this JID."""
        if peer != self._peer:
            return False
        if not self.awaits(peer) or iq["ibb_open"]["stanza"] == "message":
            # Not merely False: the application may let in whatever comes.
            raise XMPPError("not-acceptable")
        return True

    def _withdraw(self) -> None:
        self._settled.set()
        self._api.unregister("authorized_sid", jid=self._own, node=self._sid)
        with suppress(AttributeError, KeyError):
            # slixmpp keeps an empty entry for whatever was unregistered, for ever.
            registry: Any = self._xmpp.api
            del registry._handlers["xep_0047"]["authorized_sid"]["node"][(self._own, self._sid)]
