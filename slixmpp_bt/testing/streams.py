"""One stream over one TCP connection (RFC 6120 section 4): bytes in, stanzas out, limits, and a tidy end."""

from __future__ import annotations

import asyncio
import logging
import ssl
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar
from xml.etree.ElementTree import Element

from slixmpp import JID

from .listening import PATIENCE, Connection
from .markup import STREAMS, E, Event, StreamEnd, StreamError, StreamParser, StreamStart, serialise
from .stanzas import new_id
from .traffic import Counters, Traffic

log = logging.getLogger(__name__)

STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
#: What may wait to be read by the other side, in bytes, before it counts as dead.
MAX_UNSENT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What the server allows in a stream: bytes in a stanza, bytes per second, bytes at once; None for no limit."""

    max_stanza: int
    rate: float | None = None
    burst: float | None = None
    tls: ssl.SSLContext | None = None
    announce_limits: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """What all streams of a server share.

    :ivar tasks: the server's running tasks.
    :ivar accept: takes what a client or component at an address has sent.
    """

    policy: StreamPolicy
    traffic: Traffic
    tasks: set[asyncio.Task[None]]
    accept: Callable[[JID, Element], None]


class TokenBucket:
    """How much may pass now: `burst` at once, refilled at `rate` a second."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, wanted: int, now: float) -> int:
        """As much of `wanted` as may pass at the time `now`."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken

    def wait(self, wanted: int) -> float:
        """Seconds until `wanted`, or at least a tenth of a second's worth of it, may pass."""
        worth = max(1.0, min(wanted, self._burst, self._rate / 10))
        return max(0.0, (worth - self._tokens) / self._rate)


class Stream(Connection):
    """What streams of clients and of components have in common.

    A subclass implements `stream_opened`, `stanza_received` and `stream_ended`. Everything happens in the callbacks of
    the transport; the only task is the TLS handshake, which belongs to the server.
    """

    namespace: ClassVar[str]

    def __init__(self, front: Front, domain: str) -> None:
        self.front = front
        self.policy = front.policy
        self.domain = domain
        self.id = ""
        #: Replaced by the counters of an address once there is one.
        self.counters = Counters()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._header_sent = False
        self._closing = False
        self._securing = False
        self._deadline: asyncio.TimerHandle | None = None
        self._backlog = bytearray()
        self._early = bytearray()
        self._bucket: TokenBucket | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.restart()

    # What a subclass does.

    @abstractmethod
    def stream_opened(self, attributes: Mapping[str, str]) -> None:
        """The other side's header came; answer it."""

    @abstractmethod
    def stanza_received(self, stanza: Element) -> None:
        """:raises StreamError: to end the stream."""

    @abstractmethod
    def stream_ended(self) -> None:
        """The connection is gone. Called once."""

    # What a subclass and the server use.

    def restart(self) -> None:
        """Expect a new stream header on the same connection (RFC 6120 section 4.3.3)."""
        self._parser = StreamParser(self.policy.max_stanza, self.namespace)
        self._header_sent = False

    def send_header(self, **attributes: str) -> None:
        """Open our side of the stream."""
        self.id = new_id()
        more = "".join(f" {key}='{value}'" for key, value in attributes.items())
        self._header_sent = True
        self._write(
            f"<?xml version='1.0'?><stream:stream xmlns='{self.namespace}' xmlns:stream='{STREAMS}' "
            f"id='{self.id}' from='{self.domain}'{more}>".encode()
        )

    def send(self, element: Element) -> None:
        """Send a stanza; nothing happens if the stream is closing."""
        if not self._closing:
            self.counters.stanzas_out += 1
            self._write(serialise(element))

    def throttle(self) -> None:
        """From here on, read as fast as the policy allows and no faster."""
        if self.policy.rate is not None:
            burst = self.policy.rate if self.policy.burst is None else self.policy.burst
            self._bucket = TokenBucket(self.policy.rate, burst, self._loop.time())

    def close(self, error: StreamError | None = None) -> None:
        """End the stream, with an error or without. The connection is aborted if the other side takes its time."""
        if self._closing:
            return
        if self._transport is None or self._securing:
            self.abort()
            return
        if not self._header_sent:
            self.send_header(version="1.0")
        if error is not None:
            self._write(_stream_error(error))
        self._write(b"</stream:stream>")
        self._closing = True
        self._deadline = self._loop.call_later(PATIENCE, self.abort)
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection, or the one that is about to be made, without a word."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def start_tls(self, context: ssl.SSLContext, answer: Element) -> None:
        """Send `answer` and shake hands; the stream restarts inside TLS."""
        assert self._transport is not None
        # The other side's first bytes belong to TLS. Reading stops before it can know that it may send them.
        self._transport.pause_reading()
        self.send(answer)
        self.restart()
        self._securing = True
        task = self._loop.create_task(self._handshake(self._transport, context))
        self.front.tasks.add(task)
        task.add_done_callback(self.front.tasks.discard)

    async def _handshake(self, plain: asyncio.Transport, context: ssl.SSLContext) -> None:
        secured = None
        try:
            secured = await self._loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=PATIENCE, ssl_shutdown_timeout=PATIENCE
            )
        except OSError as error:
            log.debug("the TLS handshake failed: %s", error)
        finally:
            self._securing = False
            if secured is None:
                plain.abort()
                # asyncio tells a protocol only of the end of what was handed to it.
                self.connection_lost(None)
        if secured is not None and not self.closed.done():
            self._transport = secured
            early, self._early = bytes(self._early), bytearray()
            if early:
                self.data_received(early)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._closing:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._securing:
            # It may come together with the end of the handshake, before there is a transport to answer by.
            self._early += data
        elif self._bucket is None:
            self._consume(data)
        else:
            self._backlog += data
            if self._resume is None:
                self._drain()

    def connection_lost(self, error: Exception | None) -> None:
        if self.closed.done():
            return
        for timer in (self._deadline, self._resume):
            if timer is not None:
                timer.cancel()
        self._closing = True
        self._transport = None
        try:
            self.stream_ended()
        finally:
            self.closed.set_result(None)

    def _drain(self) -> None:
        """Take from the backlog what the rate allows; nothing more is read meanwhile, so TCP holds the sender back."""
        self._resume = None
        if self._bucket is None or self._transport is None or self._closing:
            return
        allowed = self._bucket.take(len(self._backlog), self._loop.time())
        data = bytes(self._backlog[:allowed])
        del self._backlog[:allowed]
        self._consume(data)
        if self._transport is None or self._closing:
            return
        if self._backlog:
            self._transport.pause_reading()
            self._resume = self._loop.call_later(self._bucket.wait(len(self._backlog)), self._drain)
        else:
            self._transport.resume_reading()

    def _consume(self, data: bytes) -> None:
        self.counters.bytes_in += len(data)
        parser = self._parser
        try:
            for event in parser.feed(data):
                if self._closing:
                    return
                if parser is not self._parser:
                    raise StreamError("policy-violation", "nothing may be sent until the stream is restarted")
                self._handle(event)
        except StreamError as error:
            self.close(error)

    def _handle(self, event: Event) -> None:
        if isinstance(event, StreamEnd):
            self.close()
        elif isinstance(event, StreamStart):
            if event.tag != f"{{{STREAMS}}}stream":
                raise StreamError("invalid-namespace")
            self.stream_opened(event.attributes)
        else:
            self.counters.stanzas_in += 1
            self.stanza_received(event)

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._closing:
            return
        self.counters.bytes_out += len(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            log.warning("%s does not read what it is sent: dropped", self.id)
            self.abort()


def _stream_error(error: StreamError) -> bytes:
    inner = [E(f"{{{STREAM_ERRORS}}}{error.condition}")]
    if error.text:
        inner.append(E(f"{{{STREAM_ERRORS}}}text", None, error.text))
    return b"<stream:error>" + b"".join(map(serialise, inner)) + b"</stream:error>"
