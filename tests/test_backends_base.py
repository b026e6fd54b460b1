"""The values of the backend contract: its event stream, and admissions."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from slixmpp_bt.backends import Admission, EventStream, PeerConnected, PieceStored
from slixmpp_bt.backends.base import MAX_UNREAD
from slixmpp_bt.constants import Mode
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


def test_admission_shows_no_key() -> None:
    assert "secret" not in repr(Admission(Mode.SEALED, b"certificate", b"secret"))


@pytest.mark.parametrize(
    ("mode", "certificate", "key"),
    [(Mode.SEALED, b"certificate", None), (Mode.SEALED, None, b"key"), (Mode.PRIVATE, b"certificate", b"key")],
)
def test_admission_of_parts_that_do_not_go_together_raises(
    mode: Mode, certificate: bytes | None, key: bytes | None
) -> None:
    with pytest.raises(ValueError, match="certificate"):
        Admission(mode, certificate, key)
