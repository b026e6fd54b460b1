"""Opening a relayed stream: the side that has the bytes, which XEP-0065 calls the Requester."""

from __future__ import annotations

import asyncio
from xml.etree.ElementTree import Element, SubElement

from slixmpp import JID, BaseXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.jid import InvalidJID

from ..messages import MAX_STREAMHOSTS, StreamHost
from ..wire import StreamBroken
from .proxies import BYTESTREAMS, QUERY, Address, Proxies, ask
from .socks5 import SocketStream, Times, destination, dial


class Opening:
    """One attempt to open one stream."""

    def __init__(
        self, xmpp: BaseXMPP, proxies: Proxies, sid: str, to: JID, sender: JID, times: Times
    ) -> None:  # fmt: skip
        self._xmpp = xmpp
        self._proxies = proxies
        self._sid = sid
        self._to = to
        self._sender = sender
        self._times = times
        self._destination = destination(sid, sender, to)
        self._addresses: dict[StreamHost, list[Address]] = {}
        self._streams: list[SocketStream] = []

    async def run(self, hosts: tuple[StreamHost, ...]) -> SocketStream:
        """Open it. Whatever comes of that, :meth:`drop_all_but` must follow.

        :param hosts: proxies that the other side has found.
        :raises StreamBroken: the other side refuses, or no proxy works.
        """
        offered = await self._candidates(hosts)
        if not offered:
            raise StreamBroken("neither side's server offers a relay that may be used", final=True)
        reasons = []
        while offered:
            used = await self._offer(offered)
            chosen = [host for host in offered if host.jid == used]
            offered = [host for host in offered if host.jid != used]
            for host in chosen:
                try:
                    return await self._connect(host)
                except StreamBroken as error:
                    reasons.append(str(error))
            if not chosen:
                reasons.append(f"{self._to} chose a relay that it was not offered")
                break
        raise StreamBroken("; ".join(reasons))

    def drop_all_but(self, good: SocketStream | None) -> None:
        """Close every connection that :meth:`run` has made but that one. Not earlier: the other side would take the
        end of a connection for the end of the stream."""
        for stream in self._streams:
            if stream is not good:
                stream.abort("another relay is used")

    async def _candidates(self, hosts: tuple[StreamHost, ...]) -> list[StreamHost]:
        """Own proxies first, but not so many that none of the other side's is left."""
        own = await self._proxies.own(self._sender)
        others = [host for host in dict.fromkeys(hosts[:MAX_STREAMHOSTS]) if host not in own]
        judged = await asyncio.gather(
            *(self._proxies.usable(host, self._sender) for host in others), return_exceptions=True
        )
        for host, found in zip(others, judged, strict=True):
            if not isinstance(found, BaseException):
                self._addresses[host] = found
            elif not isinstance(found, StreamBroken):
                raise found
        room = MAX_STREAMHOSTS - min(1, len(self._addresses))
        return [*own[:room], *self._addresses][:MAX_STREAMHOSTS]

    async def _offer(self, hosts: list[StreamHost]) -> JID:
        """Let the other side choose and connect.

        :raises StreamBroken: it refuses, does not answer, or none works for it.
        """
        query = Element(QUERY, {"sid": self._sid, "mode": "tcp", "dstaddr": self._destination})
        for host in hosts:
            attributes = {"jid": host.jid.full, "host": host.host, "port": str(host.port)}
            SubElement(query, f"{BYTESTREAMS}streamhost", attributes)
        try:
            answer = await self._ask(self._to, query, self._times.answer)
        except IqTimeout:
            raise StreamBroken(f"{self._to} did not answer within {self._times.answer:g} s") from None
        except IqError as error:
            raise _refused(self._to, error.condition) from None
        used = answer.find(f"{QUERY}/{BYTESTREAMS}streamhost-used")
        try:
            return JID("" if used is None else used.get("jid", ""))
        except InvalidJID:
            return JID("")

    async def _connect(self, host: StreamHost) -> SocketStream:
        """Follow the other side to the proxy, and let the proxy join the two (XEP-0065 section 6.3)."""
        if host not in self._addresses:
            self._addresses[host] = await self._proxies.usable(host, self._sender)
        stream = await dial(self._addresses[host], host.port, self._destination, self._times)
        self._streams.append(stream)
        query = Element(QUERY, {"sid": self._sid})
        SubElement(query, f"{BYTESTREAMS}activate").text = self._to.full
        try:
            await self._ask(host.jid, query, self._times.discovery)
        except IqTimeout:
            raise StreamBroken(f"the relay {host.jid} did not answer within {self._times.discovery:g} s") from None
        except IqError as error:
            raise StreamBroken(f"the relay {host.jid} refused: {error.condition.replace('-', ' ')}") from None
        return stream

    async def _ask(self, to: JID, query: Element, timeout: float) -> Element:
        return await ask(self._xmpp, "set", to, query, sender=self._sender, timeout=timeout)


def _refused(who: JID, condition: str) -> StreamBroken:
    if condition == "feature-not-implemented":
        return StreamBroken(f"{who} does not know relayed streams", final=True)
    if condition == "item-not-found":
        return StreamBroken(f"{who} can reach none of the relays")
    return StreamBroken(f"{who} refused a relayed stream: {condition.replace('-', ' ')}")
