"""The way through a proxy: a SOCKS5 connection (RFC 1928) as XEP-0065 uses it, and the stream that it carries."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn

from slixmpp import JID

from ..messages import Candidate
from ..wire import StreamBroken

#: At most so many bytes are handed over, or taken, at once.
CHUNK = 256 * 1024

_GREETING = b"\x05\x01\x00"  # version 5, one method: no authentication
_REPLIES = {
    1: "a general failure",
    2: "this is not allowed",
    3: "the network is unreachable",
    4: "the other side is not there",
    5: "the connection was refused",
    6: "the time ran out",
    7: "it does not know CONNECT",
    8: "it does not know this kind of address",
}


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, in seconds.

    :ivar discovery: to find the proxies of a server, or to ask one for its address.
    :ivar dial: to connect to one proxy, all its addresses together.
    :ivar answer: for the other side to connect to one of the proxies that it is offered.
    :ivar opening: to open a stream, whatever has to be tried for it.
    :ivar grace: to offer another proxy once one has failed.
    :ivar idle: for a stream without a byte moving.
    :ivar close: to deliver the rest at the end.
    """

    discovery: float = 5.0
    dial: float = 5.0
    answer: float = 30.0
    opening: float = 60.0
    grace: float = 3.0
    idle: float = 60.0
    close: float = 5.0


def destination(sid: str, requester: JID, target: JID) -> str:
    """The name by which a proxy knows a stream (XEP-0065 section 6): what both sides ask it to connect them to.

    :param requester: the real full JID of the side that opens, as the proxy sees it.
    :param target: the other side, as it is written into the activation.
    """
    text = f"{sid}{requester.full}{target.full}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def dial(addresses: Sequence[IPv4Address | IPv6Address], port: int, name: str, times: Times) -> SocketStream:
    """Connect to a proxy, at the first of its `addresses` that works, and ask it for `name`.

    :param name: see :func:`destination`.
    :raises StreamBroken: none works, or not within `times.dial` seconds. Cancelling leaves nothing open.
    """
    reasons = []
    for address in addresses:
        try:
            return await _connect(Candidate(address, port), name, times, times.dial / len(addresses))
        except StreamBroken as error:
            reasons.append(str(error))
    raise StreamBroken("; ".join(reasons) or "it has no address")


async def _connect(proxy: Candidate, name: str, times: Times, timeout: float) -> SocketStream:
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(str(proxy.address), proxy.port, limit=CHUNK // 2)
            try:
                await _shake_hands(reader, writer, name)
            except BaseException:
                writer.transport.abort()
                raise
            return SocketStream(reader, writer, times)
    except TimeoutError:
        raise StreamBroken(f"nothing answers at {proxy} within {timeout:g} s") from None
    except OSError as error:
        raise StreamBroken(f"{proxy} cannot be reached: {error.strerror or error}") from error
    except EOFError:
        raise StreamBroken(f"{proxy} closed the connection at once") from None
    except _Refused as error:
        raise StreamBroken(f"{proxy} {error}") from None


class _Refused(Exception):
    """What the proxy said instead of yes."""


async def _shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """RFC 1928 sections 3, 4 and 6: no authentication; CONNECT to a domain name and port 0."""
    writer.write(_GREETING)
    version, method = await reader.readexactly(2)
    if version != 5:
        raise _Refused("is not a SOCKS5 proxy")
    if method != 0:
        raise _Refused("wants a password")
    # In one piece: Prosody reads a request only from a single segment.
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name.encode("ascii") + b"\x00\x00")
    version, reply, _, kind = await reader.readexactly(4)
    if version != 5 or kind not in (1, 3, 4):
        raise _Refused("is not a SOCKS5 proxy")
    if reply != 0:
        raise _Refused(f"refused: {_REPLIES.get(reply, f'error {reply}')}")
    length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
    await reader.readexactly(length + 2)


class SocketStream:
    """A :class:`~slixmpp_bt.wire.Stream` over a connection to a proxy.

    It buffers at most 512 KiB in either direction.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, times: Times) -> None:
        self._reader = reader
        self._writer = writer
        self._times = times
        self._head = b""
        self._broken: str | None = None
        self._closing = False

    @property
    def is_open(self) -> bool:
        """Whether it has to be closed yet."""
        return not self._writer.is_closing()

    async def send(self, data: bytes) -> None:
        """See :meth:`slixmpp_bt.wire.Stream.send`. A side that takes nothing for `idle` seconds breaks it."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            self._check()
            if self._reader.at_eof() or self._writer.is_closing():
                self._break("the other side, or the relay, closed the stream")
            self._writer.write(view[start : start + CHUNK])
            try:
                async with asyncio.timeout(self._times.idle):
                    await self._writer.drain()
            except TimeoutError:
                self._break(f"the other side took nothing for {self._times.idle:g} s")
            except OSError as error:
                self._check()
                self._break(f"the connection to the relay broke: {error.strerror or error}")

    async def receive(self) -> bytes:
        """See :meth:`slixmpp_bt.wire.Stream.receive`. At most 256 KiB; nothing for `idle` seconds breaks it."""
        self._check()
        if self._head:
            head, self._head = self._head, b""
            return head
        try:
            async with asyncio.timeout(self._times.idle):
                data = await self._reader.read(CHUNK)
        except TimeoutError:
            self._break(f"nothing came for {self._times.idle:g} s")
        except OSError as error:
            self._check()
            self._break(f"the connection to the relay broke: {error.strerror or error}")
        # An aborted connection ends like one that was closed in good order.
        self._check()
        return data

    async def started(self) -> bool:
        """Wait until there is something to :meth:`receive`; False if it was closed before. Cancelling loses nothing.

        :raises StreamBroken: as :meth:`receive` does.
        """
        if not self._head:
            self._head = await self.receive()
        return bool(self._head)

    def abort(self, why: str) -> None:
        """Drop the connection; whoever waits for it, or comes later, is told `why`."""
        self._broken = self._broken or why
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """See :meth:`slixmpp_bt.wire.Stream.aclose`. What is not delivered within `close` seconds is lost."""
        if self._closing:
            return
        self._closing = True
        self._broken = self._broken or "the stream is closed"
        self._writer.close()
        try:
            async with asyncio.timeout(self._times.close):
                await self._writer.wait_closed()
        except OSError:
            pass  # broken, or out of time: there is nobody to tell
        finally:
            self._writer.transport.abort()

    def _check(self) -> None:
        if self._broken is not None:
            raise StreamBroken(self._broken)

    def _break(self, why: str) -> NoReturn:
        self.abort(why)
        raise StreamBroken(why)
