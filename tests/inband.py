"""In-band streams between two sides, for the tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from slixmpp import JID, Iq

from slixmpp_bt.streams.inband import InBandStreams
from slixmpp_bt.testing.faults import carries
from slixmpp_bt.wire import Stream

from .servers import Server

PATIENCE = 15.0
IBB = "http://jabber.org/protocol/ibb"
IS_OPEN, IS_DATA, IS_CLOSE = (carries(f"{{{IBB}}}{name}") for name in ("open", "data", "close"))


class Side:
    """A client or component with ``xep_0047`` and in-band streams. `jid` is what it speaks as."""

    def __init__(self, xmpp: Any, jid: JID | None = None) -> None:
        xmpp.register_plugin("xep_0047")
        self.xmpp = xmpp
        self.own = jid
        self.streams = InBandStreams(xmpp)
        self.before = self.footprint()

    @property
    def jid(self) -> JID:
        return self.own or self.xmpp.boundjid

    @property
    def ibb(self) -> Any:
        return self.xmpp.plugin["xep_0047"]

    def expect(self, peer: Side | JID, sid: str = "sid") -> Any:
        return self.streams.expect(sid, peer.jid if isinstance(peer, Side) else peer, sender=self.jid)

    async def open(self, peer: Side | JID, sid: str = "sid") -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self.streams.open(sid, peer.jid if isinstance(peer, Side) else peer, sender=self.jid)

    def footprint(self) -> dict[str, object]:
        """What slixmpp holds: handlers, timers, hooks and streams."""
        events = self.xmpp._XMLStream__event_handlers
        return {
            "handlers": sorted(handler.name for handler in self.xmpp._XMLStream__handlers),
            "events": {name: len(handlers) for name, handlers in events.items()},
            "timers": sorted(name for name in self.xmpp.scheduled_events if name.startswith("Iq")),
            "hooks": {op: list(kinds["node"]) for op, kinds in self.xmpp.api._handlers["xep_0047"].items()},
            "streams": list(self.ibb._streams),
            "permissions": list(self.ibb._preauthed_sids),
            "tasks": len(self.streams._live) + len(self.streams._expected),
        }

    async def ask(self, peer: Side, payload: str, sid: str = "sid", **values: object) -> Iq:
        """What any client could send: an iq with an element of the protocol."""
        iq = self.xmpp.make_iq_set(ito=peer.jid)
        for name, value in {"sid": sid, **values}.items():
            iq[payload][name] = value
        answer: Iq = await iq.send(timeout=PATIENCE)
        return answer

    async def ask_data(self, peer: Side, seq: str, text: str) -> Iq:
        iq = self.xmpp.make_iq_set(ito=peer.jid)
        iq["ibb_data"]["sid"] = "sid"
        iq["ibb_data"].xml.set("seq", seq)
        iq["ibb_data"].xml.text = text
        answer: Iq = await iq.send(timeout=PATIENCE)
        return answer


async def connected(server: Server, name: str) -> Side:
    jid = await server.add_user(name)
    xmpp = server.client(f"{jid}/here")
    xmpp.register_plugin("xep_0047")
    await server.connect(xmpp)
    return Side(xmpp)


async def two_sides(server: Server) -> tuple[Side, Side]:
    return await connected(server, "alice"), await connected(server, "bob")


@asynccontextmanager
async def streaming(sender: Side, receiver: Side) -> AsyncIterator[tuple[Any, Any]]:
    """Both ends of a stream."""
    async with receiver.expect(sender) as expected:
        outgoing = await sender.open(receiver)
        async with asyncio.timeout(PATIENCE):
            incoming = await expected.opened()
        try:
            yield outgoing, incoming
        finally:
            await outgoing.aclose()


async def read_all(stream: Stream) -> bytes:
    """All until the other side closes."""
    received = b""
    async with asyncio.timeout(PATIENCE):
        while data := await stream.receive():
            received += data
    return received


async def write_all(stream: Stream, data: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await stream.send(data)
        await stream.aclose()


async def carry(sender: Side, receiver: Side, data: bytes) -> bytes:
    async with streaming(sender, receiver) as (outgoing, incoming):
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, data))
    return received


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def check_clean(*sides: Side) -> None:
    """Wait until slixmpp holds what it held before."""
    try:
        await until(lambda: all(side.footprint() == side.before for side in sides))
    except TimeoutError:
        for side in sides:
            assert side.footprint() == side.before


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)
