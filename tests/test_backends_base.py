"""The event stream of the backend contract."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from slixmpp_bt.backends import EventStream, PeerConnected, PieceStored
from slixmpp_bt.backends.base import MAX_UNREAD
from slixmpp_bt.messages import Candidate

PEER = PeerConnected(Candidate(ip_address("192.0.2.1"), 6881))


async def test_event_stream_after_close_ends_with_what_was_put_before() -> None:
    stream = EventStream()
    stream.put(PieceStored(1))
    stream.close()
    stream.close()
    stream.put(PieceStored(2))
    assert [event async for event in stream] == [PieceStored(1)]
    assert [event async for event in stream] == []


async def test_event_stream_wakes_its_reader() -> None:
    stream = EventStream()
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not reader.done()
    stream.put(PieceStored(3))
    assert await reader == PieceStored(3)


async def test_event_stream_that_nobody_reads_drops_peers_only() -> None:
    stream = EventStream()
    for _ in range(2 * MAX_UNREAD):
        stream.put(PEER)
    stream.put(PieceStored(4))
    stream.close()
    events = [event async for event in stream]
    assert events == [PEER] * MAX_UNREAD + [PieceStored(4)]
