"""Which proxies (XEP-0065) there are, and where this side may connect to (docs/protocol, section "Addresses")."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from copy import copy
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal
from xml.etree.ElementTree import Element

from slixmpp import JID, BaseXMPP, ComponentXMPP
from slixmpp.exceptions import XMPPError
from slixmpp.jid import InvalidJID

from .. import addresses
from ..messages import MAX_STREAMHOSTS, Candidate, StreamHost
from ..wire import StreamBroken
from .socks5 import Times

BYTESTREAMS = "{http://jabber.org/protocol/bytestreams}"
QUERY = f"{BYTESTREAMS}query"
_INFO = "{http://jabber.org/protocol/disco#info}"
_ITEMS = "{http://jabber.org/protocol/disco#items}"

#: So many of a server's services are asked what they are, and so many addresses of one name are looked at.
_MAX_ITEMS, _MAX_ADDRESSES = 32, 4

Address = IPv4Address | IPv6Address


async def ask(
    xmpp: BaseXMPP, kind: Literal["get", "set"], to: JID, payload: Element, *, sender: JID, timeout: float
) -> Element:
    """Send an iq and return its result, the whole stanza. Cancelling it forgets the answer.

    :raises XMPPError: it was refused, or not answered within `timeout` seconds.
    """
    iq = xmpp.make_iq(ito=to, itype=kind)
    if isinstance(xmpp, ComponentXMPP):
        iq["from"] = sender
    iq.append(payload)
    answer = iq.send(timeout=timeout)
    try:
        result: Element = (await answer).xml
    finally:
        if answer.cancelled():
            # slixmpp keeps the handler and the timer of an iq until its answer or its timeout.
            xmpp.remove_handler(f"IqCallback_{iq['id']}")
            xmpp.cancel_schedule(f"IqTimeout_{iq['id']}")
    return result


def streamhosts(query: Element | None) -> Iterator[StreamHost]:
    """The well-formed ones that a ``<query/>`` names."""
    for element in () if query is None else query.findall(f"{BYTESTREAMS}streamhost"):
        host, port = element.get("host", "").lower(), element.get("port", "")
        try:
            jid = JID(element.get("jid", ""))
        except InvalidJID:
            continue
        if jid.domain and 1 <= len(host) <= 255 and port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535:
            yield StreamHost(jid, host, int(port))


class Proxies:
    """Finds the proxies of the own server, and judges those that others name.

    :ivar own_only: no others are used, whatever they are.
    """

    def __init__(self, xmpp: BaseXMPP, times: Times) -> None:
        self.own_only = False
        self._xmpp = xmpp
        self._times = times
        self._found: dict[str, tuple[StreamHost, ...]] = {}
        self._lock = asyncio.Lock()

    def judging(self, own_only: bool) -> Proxies:
        """The same, which know what these know, for streams that use no others, or may."""
        one = copy(self)
        one.own_only = own_only
        return one

    def forget(self) -> None:
        """The session is over."""
        self._found.clear()

    async def own(self, sender: JID) -> tuple[StreamHost, ...]:
        """Those of the own server, which is asked once; at most 3. A component's server is that of the domain which
        its own is part of."""
        server = sender.domain
        if isinstance(self._xmpp, ComponentXMPP):
            server = server.partition(".")[2] or server
        async with self._lock:
            found = self._found
            if server not in found:
                found[server] = await self._discover(JID(server), sender)
            return found[server]

    async def _discover(self, server: JID, sender: JID) -> tuple[StreamHost, ...]:
        """XEP-0065 section 4: the server's items, those that are proxies, where they listen."""
        items: list[JID] = []
        found: dict[JID, list[StreamHost]] = {}

        async def look_at(item: JID) -> None:
            if await self._is_proxy(item, sender):
                found[item] = await self._addresses_of(item, sender)

        try:
            async with asyncio.timeout(self._times.discovery):
                items = await self._items(server, sender)
                await asyncio.gather(*map(look_at, items))
        except (TimeoutError, XMPPError):
            pass  # what has answered by then will do
        return tuple(host for item in items for host in found.get(item, ()))[:MAX_STREAMHOSTS]

    async def _items(self, server: JID, sender: JID) -> list[JID]:
        found = []
        for item in (await self._ask(server, f"{_ITEMS}query", sender)).iter(f"{_ITEMS}item"):
            try:
                jid = JID(item.get("jid", ""))
            except InvalidJID:
                continue
            if jid.full == jid.domain and jid.domain and item.get("node") is None:
                found.append(jid)
        return found[:_MAX_ITEMS]

    async def _is_proxy(self, service: JID, sender: JID) -> bool:
        try:
            answer = await self._ask(service, f"{_INFO}query", sender)
        except XMPPError:
            return False
        kinds = {(identity.get("category"), identity.get("type")) for identity in answer.iter(f"{_INFO}identity")}
        return ("proxy", "bytestreams") in kinds

    async def _addresses_of(self, proxy: JID, sender: JID) -> list[StreamHost]:
        """What a proxy says itself. ejabberd names itself with a resource, which is the node of its cluster."""
        try:
            answer = await self._ask(proxy, QUERY, sender)
        except XMPPError:
            return []
        return [
            host for host in streamhosts(answer.find(QUERY)) if not host.jid.local and host.jid.domain == proxy.domain
        ]

    async def _ask(self, to: JID, payload: str, sender: JID) -> Element:
        return await ask(self._xmpp, "get", to, Element(payload), sender=sender, timeout=self._times.discovery)

    async def usable(self, host: StreamHost, sender: JID) -> list[Address]:
        """Where this side may connect to for `host`.

        The proxies of the own server, as found by :meth:`own`, are used wherever they are. Anybody else's only at
        global addresses: literal ones, or those of a name that is the proxy's own domain, or above it, or that the
        proxy itself confirms. Elsewhere only what the proxy itself confirms, and only beside a proxy of the own
        server, which says by that what kind of network this is.

        :raises StreamBroken: nowhere, and why.
        """
        own = await self.own(sender)
        if self.own_only and host not in own:
            raise StreamBroken(f"{host.jid} is not a relay of this side's own server")
        try:
            async with asyncio.timeout(self._times.discovery):
                return await (self._resolve(host) if host in own else self._judge(host, own, sender))
        except TimeoutError:
            raise StreamBroken(f"it took too long to find out where the relay {host.jid} is") from None

    async def _judge(self, host: StreamHost, own: Sequence[StreamHost], sender: JID) -> list[Address]:
        if not (_literal(host.host) or _is_named_after(host) or await self._confirms(host, sender)):
            raise StreamBroken(f"{host.jid} does not confirm that it is at {host.host}")
        found = await self._resolve(host)
        good = [address for address in found if address.is_global]
        if not good:
            good = [address for address in found if _is_beside(address, own)]
            if not (good and await self._confirms(host, sender)):
                raise StreamBroken(f"{host.jid} is at {host.host}, which is no public address")
        return good

    async def _confirms(self, host: StreamHost, sender: JID) -> bool:
        # Only a service: nobody shall be made to send requests to some person's devices.
        return not host.jid.local and host in await self._addresses_of(host.jid, sender)

    async def _resolve(self, host: StreamHost) -> list[Address]:
        """The addresses of a host's name. Loopback ones among them, never those that name no single host."""
        literal = _literal(host.host)
        found = [literal] if literal else await self._look_up(host.host)
        here = [Candidate(IPv4Address("127.0.0.1"), 0)]
        candidates = [Candidate(address, host.port) for address in found]
        fit = addresses.acceptable(candidates, here, most=_MAX_ADDRESSES)
        if not fit:
            raise StreamBroken(f"{host.jid} is at {host.host}, which is no address to connect to")
        return [candidate.address for candidate in fit]

    async def _look_up(self, name: str) -> list[Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise StreamBroken(f"the name {name} of a relay cannot be resolved") from None
        return [ip_address(address[0]) for *_, address in found if "%" not in str(address[0])]


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_named_after(host: StreamHost) -> bool:
    """Whether the name is the domain of the proxy's JID, or one above it: its owner answers for both."""
    return "." in host.host and f".{host.jid.domain}".endswith(f".{host.host}")


def _is_beside(address: Address, own: Sequence[StreamHost]) -> bool:
    """Whether a proxy of the own server is announced by a literal address of the same local network."""
    for host in own:
        mine = _literal(host.host)
        if mine is None or mine.version != address.version or mine.is_global:
            continue
        if mine.is_loopback or address.is_loopback:
            if mine.is_loopback and address.is_loopback:
                return True
        elif address in ip_network((mine, 24 if mine.version == 4 else 64), strict=False):
            return True
    return False
