"""Streams through a proxy that a server offers (XEP-0065 section 6, mediated connection).

slixmpp's own plugin for it may be at work in the same client: what is expected here is taken out of the incoming
stanzas before it, or anything else, sees them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from slixmpp import JID, BaseXMPP, ComponentXMPP, Iq
from slixmpp.jid import InvalidJID
from slixmpp.xmlstream.stanzabase import StanzaBase

from ..messages import StreamHost
from ..threads import settle
from ..wire import StreamBroken
from .expecting import Expectation
from .opening import Opening
from .proxies import QUERY, Proxies
from .socks5 import SocketStream, Times

T = TypeVar("T")


class RelayStreams:
    """Opens and accepts relayed streams for one client or component.

    :param times: how long things may take; the defaults suit everything but tests.
    """

    def __init__(self, xmpp: BaseXMPP, *, times: Times | None = None) -> None:
        self._xmpp = xmpp
        self._times = times or Times()
        self._proxies = Proxies(xmpp, self._times)
        self._session = _Session()
        #: By sid and the full JID of who opens it.
        self._expected: dict[tuple[str, str], Expectation] = {}
        self._open: list[SocketStream] = []

    def session_ended(self) -> None:
        """The session is over: all streams break, and whoever waits for one waits in vain."""
        self._end("the session has ended")

    def close(self) -> None:
        """The end: as :meth:`session_ended`, and no stream comes about any more. Idempotent."""
        self._session.closed = True
        self._end("this side has been closed")

    def _end(self, why: str) -> None:
        self._proxies.forget()
        self._session.end(why)
        for expectation in self._expected.values():
            expectation.abort(why)
        for stream in self._open:
            stream.abort(why)
        self._open = []

    async def relays(self, *, sender: JID) -> tuple[StreamHost, ...]:
        """See :meth:`slixmpp_bt.wire.Wire.relays`. Takes `discovery` seconds at most, the first time."""
        try:
            return await self._session.run(lambda: self._proxies.own(sender))
        except StreamBroken:
            return ()

    @asynccontextmanager
    async def expect(
        self, sid: str, peer: JID, *, sender: JID, own_only: bool = False
    ) -> AsyncIterator[Expectation]:  # fmt: skip
        """See :meth:`slixmpp_bt.wire.Wire.expect_stream`.

        :param own_only: use only proxies of the own server: others, if they are the other side's, learn this side's
            address.
        :raises StreamBroken: it is expected already.
        """
        key = (sid, peer.full)
        if key in self._expected:
            raise StreamBroken(f"the stream {sid} is expected already")
        expectation = Expectation(self._proxies.judging(own_only), sid, peer, sender, self._times)
        expectation.start(self._session.run)
        if not self._expected:
            self._xmpp.add_filter("in", self._take)
        self._expected[key] = expectation
        try:
            yield expectation
        finally:
            del self._expected[key]
            if not self._expected:
                self._xmpp.del_filter("in", self._take)
            await expectation.aclose()

    async def open(
        self, sid: str, to: JID, *, sender: JID, hosts: tuple[StreamHost, ...] = (), own_only: bool = False
    ) -> SocketStream:  # fmt: skip
        """See :meth:`slixmpp_bt.wire.Wire.open_stream`. Takes `opening` seconds at most.

        The other side chooses among at most 3 proxies, those of this side's server first; if the one it chooses does
        not work for this side too, it is offered the rest.
        """
        opening = Opening(self._xmpp, self._proxies.judging(own_only), sid, to, sender, self._times)
        stream: SocketStream | None = None
        try:
            async with asyncio.timeout(self._times.opening):
                stream = await self._session.run(lambda: opening.run(hosts))
        except TimeoutError:
            raise StreamBroken(f"no relayed stream came about within {self._times.opening:g} s") from None
        finally:
            opening.drop_all_but(stream)
        self._open = [stream, *(other for other in self._open if other.is_open)]
        return stream

    def _take(self, stanza: StanzaBase) -> StanzaBase | None:
        """A filter of slixmpp: keeps what is expected here from every other handler. It must not raise."""
        if not isinstance(stanza, Iq) or stanza.xml.get("type") != "set":
            return stanza
        query = stanza.xml.find(QUERY)
        sid, peer = "" if query is None else query.get("sid", ""), stanza.xml.get("from", "")
        expectation = self._expected.get((sid, peer))
        if query is None or expectation is None or not self._is_for(expectation, stanza.xml.get("to", "")):
            return stanza
        expectation.take(stanza)
        return None

    def _is_for(self, expectation: Expectation, to: str) -> bool:
        """A client has only one address, of which a server may leave parts out."""
        if not isinstance(self._xmpp, ComponentXMPP):
            return True
        try:
            return bool(JID(to) == expectation.sender)
        except InvalidJID:
            return False


class _Session:
    """Ends what is under way when the session ends."""

    def __init__(self) -> None:
        self.closed = False
        self._over: asyncio.Future[str] | None = None

    def end(self, why: str) -> None:
        over, self._over = self._over, None
        if over is not None and not over.done():
            over.set_result(why)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work`, unless and until the session ends.

        :raises StreamBroken: it has ended.
        """
        if self.closed:
            raise StreamBroken("this side has been closed", final=True)
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        over, task = self._over, asyncio.ensure_future(work())
        try:
            pending: set[asyncio.Future[Any]] = {over, task}
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                raise StreamBroken(over.result())
            return task.result()
        finally:
            task.cancel()
            await settle([task])
