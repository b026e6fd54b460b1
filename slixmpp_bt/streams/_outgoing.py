"""The sending end of an in-band stream: blocks in iqs (XEP-0047 section 2.2), as many at once as the path carries."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from slixmpp import JID, BaseXMPP, Iq
from slixmpp.exceptions import IqError, IqTimeout, XMPPError
from slixmpp.xmlstream.stanzabase import StanzaBase

from ..wire import StreamBroken
from ._ends import SEQUENCE, StreamEnd
from .window import BLOCK, Window

#: The smallest block that is offered to a peer that finds others too large, in bytes.
_SMALLEST_BLOCK = 512
#: Seconds before each repetition of what the other side, or a server between, refuses "for now".
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Seconds for the opening, with all its repetitions, and for what was sent before closing to arrive.
_OPEN_TIMEOUT, _FLUSH_TIMEOUT = 90.0, 20.0
#: Refusals that trying again will not change. Not service-unavailable: servers say that of whoever is just not there.
_FINAL = frozenset({"feature-not-implemented", "forbidden", "not-acceptable", "not-allowed", "not-authorized"})


@dataclass(slots=True, eq=False)
class _Block:
    data: bytes
    sent: float
    flight: int
    taken: bool = False
    refused: bool = False


class Outgoing(StreamEnd):
    """The end that opens a stream, and sends.

    :param window: how much to send at once.
    :param ended: called once, when nothing of the stream is left.
    """

    def __init__(
        self, xmpp: BaseXMPP, sid: str, own: JID, peer: JID, window: Window, ended: Callable[[Outgoing], None]
    ) -> None:
        super().__init__(xmpp, sid, own, peer)
        self.window = window
        self._ended = ended
        self.block_size = BLOCK
        self._buffer = bytearray()
        # What is not answered yet, or stands behind something that is not; in the order in which it was sent.
        self._flight: deque[_Block] = deque()
        self._next = 0
        self._refusals = 0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Ask the other side to open it, with smaller blocks if it wants them. Cancelling it closes the stream.

        :raises StreamBroken: see :meth:`slixmpp_bt.wire.Wire.open_stream`.
        """
        self.attach()
        try:
            await self._negotiate_in_time()
        except (StreamBroken, asyncio.CancelledError) as error:
            self._parted = isinstance(error.__cause__, IqError)
            self.break_(error if isinstance(error, StreamBroken) else self._error)
            raise

    async def send(self, data: bytes) -> None:
        """See :meth:`slixmpp_bt.wire.Stream.send`."""
        self._check()
        self._buffer += data
        self._pump()
        try:
            while len(self._buffer) >= self.block_size:
                await self._change()
                self._check()
        except asyncio.CancelledError:
            self.break_(StreamBroken("sending was cancelled half way"))
            raise

    async def receive(self) -> bytes:
        """Nothing comes on a stream that this side opened; wait for its end.

        :raises StreamBroken: always, when it has ended.
        """
        while not self.over:
            await self._change()
        raise self._error

    async def _negotiate_in_time(self) -> None:
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self._negotiate()
        except (TimeoutError, IqTimeout) as error:
            raise StreamBroken(f"{self.peer_jid} did not answer the opening of a stream") from error

    async def _negotiate(self) -> None:
        pauses = iter(PAUSES)
        while True:
            try:
                await self._ask("ibb_open", _OPEN_TIMEOUT, block_size=self.block_size, stanza="iq")
                return
            except IqError as error:
                if error.condition == "resource-constraint" and self.block_size > _SMALLEST_BLOCK:
                    self.block_size //= 2
                elif error.etype == "wait" and (pause := next(pauses, None)) is not None:
                    await self._pause(pause)
                else:
                    final = error.condition in _FINAL
                    raise StreamBroken(f"{self.peer_jid} refused a stream: {error.condition}", final=final) from error

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.over:
                    await self._change()
        self._check()

    async def _flush(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                while self._buffer or self._flight:
                    await self._change()

    def _check(self) -> None:
        if self.over or self._parted:
            raise self._error

    def _pump(self) -> None:
        """Send what the window allows. The last bytes go as a short block once nothing else is on its way."""
        while self._timer is None and len(self._flight) < self.window.size:
            size = min(self.block_size, self.window.block)
            if not self._buffer or (len(self._buffer) < size and self._flight):
                return
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            block = _Block(data, time.monotonic(), len(self._flight) + 1)
            self._flight.append(block)
            answer = self._ask("ibb_data", self.window.patience, seq=self._next, data=data)
            answer.add_done_callback(partial(self._answered, block))
            self._next = (self._next + 1) % SEQUENCE

    def _answered(self, block: _Block, answer: asyncio.Future[Iq]) -> None:
        if self.over or answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            block.taken = True
            self._refusals = 0
            self.window.answered(time.monotonic() - block.sent, block.flight)
        elif isinstance(error, IqError) and error.etype == "wait" and self._refusals < len(PAUSES):
            block.refused = True
            self.window.failed()
        else:
            what = error.condition if isinstance(error, IqError) else "no answer in time"
            self.break_(StreamBroken(f"{self.peer_jid} did not take a block: {what}"))
            return
        self._settle()

    def _settle(self) -> None:
        while self._flight and self._flight[0].taken:
            self._flight.popleft()
        if not any(block.refused for block in self._flight):
            self._pump()
        elif all(block.taken or block.refused for block in self._flight):
            self._go_back()
        self._changed.set()

    def _go_back(self) -> None:
        """Blocks were refused for now, and what was sent behind them has met its fate: send them again, later."""
        if any(block.taken for block in self._flight):
            self.break_(StreamBroken(f"{self.peer_jid} takes blocks out of order"))
            return
        self._next = (self._next - len(self._flight)) % SEQUENCE
        self._buffer[:0] = b"".join(block.data for block in self._flight)
        self._flight.clear()
        self._timer = asyncio.get_running_loop().call_later(PAUSES[self._refusals], self._go_on)
        self._refusals += 1

    def _go_on(self) -> None:
        self._timer = None
        self._pump()
        self._changed.set()

    def _end(self, online: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._buffer.clear()
        self._flight.clear()
        super()._end(online)
        self._ended(self)

    def _peer_closed(self) -> None:
        self.break_(StreamBroken("the other side closed the stream"))

    def _recv_data(self, stanza: StanzaBase) -> None:
        self.break_(StreamBroken("the other side sent on a stream that only this one sends on"))
        raise XMPPError("not-acceptable")
