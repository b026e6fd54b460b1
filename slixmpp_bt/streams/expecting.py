"""Accepting a relayed stream: the side that XEP-0065 calls the Target."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from slixmpp import JID, Iq

from ..messages import MAX_STREAMHOSTS, StreamHost
from ..threads import settle
from ..wire import StreamBroken
from .proxies import BYTESTREAMS, QUERY, Proxies, streamhosts
from .socks5 import SocketStream, Times, destination, dial

_DESTINATION = re.compile(r"[0-9a-f]{40}")

Run = Callable[[Callable[[], Coroutine[Any, Any, SocketStream]]], Coroutine[Any, Any, SocketStream]]


class Expectation:
    """A stream that the other side may open, once: an :class:`~slixmpp_bt.wire.Expected`. This side is what XEP-0065
    calls the Target.

    It is not told whether the other side succeeds at the proxy that it has chosen. So the stream counts as open with
    its first byte, and until then the other side may offer the rest of its proxies.
    """

    def __init__(
        self, proxies: Proxies, sid: str, peer: JID, sender: JID, times: Times
    ) -> None:  # fmt: skip
        self.sender = sender
        self._proxies = proxies
        self._times = times
        self._destination = destination(sid, peer, sender)
        self._requests: asyncio.Queue[Iq] = asyncio.Queue()
        self._left = MAX_STREAMHOSTS
        self._unanswered: Iq | None = None
        self._stream: SocketStream | None = None
        self._task: asyncio.Task[SocketStream]

    def start(self, run: Run) -> None:
        """Wait, until :meth:`aclose`. The waiting is done by `run`, which may end it with StreamBroken."""
        self._task = asyncio.create_task(run(self._run), name="slixmpp_bt relay")

    def abort(self, why: str) -> None:
        """The session is over, so nobody is to be answered any more."""
        self._unanswered = None
        if self._stream is not None:
            self._stream.abort(why)

    async def opened(self) -> SocketStream:
        """See :meth:`slixmpp_bt.wire.Expected.opened`."""
        await asyncio.wait({self._task})
        if self._task.cancelled():
            raise StreamBroken("the stream is not expected any more")
        return self._task.result()

    def take(self, iq: Iq) -> None:
        """The other side asks. More often than it has proxies to offer, or once the stream is open, it is refused."""
        if self._task.done() or not self._left or not self._requests.empty():
            refuse(iq, "not-acceptable")
            return
        self._left -= 1
        self._requests.put_nowait(iq)

    async def aclose(self) -> None:
        """Close the stream, or withdraw the permission."""
        try:
            self._task.cancel()
            await settle([self._task])
            self._refuse("not-acceptable")
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self._stream is not None:
                self._stream.abort("the stream is closed")

    async def _run(self) -> SocketStream:
        request = await self._requests.get()
        while True:
            self._unanswered = request
            self._stream = stream = await self._answer(request)
            again = await self._asked_again(stream)
            if again is None:
                return stream
            stream.abort("the other side tries another relay")
            request = again

    async def _answer(self, iq: Iq) -> SocketStream:
        """Connect to the first proxy of a request that works, and say which.

        :raises StreamBroken: none does.
        """
        query = iq.xml.find(QUERY)
        assert query is not None
        hosts = list(islice(streamhosts(query), MAX_STREAMHOSTS)) if query.get("mode", "tcp") == "tcp" else []
        named = query.get("dstaddr", "")
        try:
            used, stream = await self._connect(hosts, named if _DESTINATION.fullmatch(named) else self._destination)
        except StreamBroken:
            self._refuse("item-not-found")
            raise
        reply = iq.reply()
        answer = Element(QUERY, {"sid": query.get("sid", "")})
        SubElement(answer, f"{BYTESTREAMS}streamhost-used", {"jid": used.jid.full})
        reply.append(answer)
        reply.send()
        self._unanswered = None
        return stream

    async def _connect(self, hosts: list[StreamHost], name: str) -> tuple[StreamHost, SocketStream]:
        judged = [asyncio.ensure_future(self._proxies.usable(host, self.sender)) for host in hosts]
        reasons = []
        try:
            for host, judgement in zip(hosts, judged, strict=True):
                try:
                    return host, await dial(await judgement, host.port, name, self._times)
                except StreamBroken as error:
                    reasons.append(str(error))
        finally:
            for judgement in judged:
                judgement.cancel()
            await settle(judged)
        raise StreamBroken("; ".join(reasons) or "the other side named no relay")

    async def _asked_again(self, stream: SocketStream) -> Iq | None:
        """The request for another proxy, if one comes before the first byte of `stream`."""
        first, again = asyncio.ensure_future(stream.started()), asyncio.ensure_future(self._requests.get())
        try:
            await asyncio.wait({first, again}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                return again.result()
            if first.exception() is None and first.result():
                return None
            # Closed already. Perhaps the proxy has failed, and the other side is about to say so.
            await asyncio.wait({again}, timeout=self._times.grace)
            if again.done():
                return again.result()
            first.result()
            return None
        finally:
            first.cancel()
            again.cancel()
            await settle([first, again])

    def _refuse(self, condition: str) -> None:
        iq, self._unanswered = self._unanswered, None
        if iq is not None:
            refuse(iq, condition)


def refuse(iq: Iq, condition: str) -> None:
    """Answer a request with an error."""
    reply: Any = iq.reply()
    reply["error"]["condition"] = condition
    reply.send()
