"""What a peer may send by an in-band stream, and what breaks it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
from slixmpp.exceptions import IqError

from slixmpp_bt.streams import _incoming
from slixmpp_bt.streams.window import BLOCK
from slixmpp_bt.wire import StreamBroken

from .inband import PATIENCE, check_clean, connected, read_all, streaming, two_sides, write_all
from .servers import Loopback


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


GOOD = base64.b64encode(b"good").decode()
BAD_BLOCKS = {
    "out of order": ("1", GOOD, "unexpected-request"),
    "before the first": ("65535", GOOD, "unexpected-request"),
    "no number": ("", GOOD, "bad-request"),
    "not a number": ("zero", GOOD, "bad-request"),
    "negative": ("-1", GOOD, "bad-request"),
    "huge number": ("9" * 5_000, GOOD, "bad-request"),
    "too large": ("0", base64.b64encode(bytes(BLOCK + 1)).decode(), "bad-request"),
    "empty": ("0", "", "bad-request"),
    "not base64": ("0", "g*od", "bad-request"),
    "misplaced padding": ("0", "Z29=vZA==", "bad-request"),
    "padding missing": ("0", "Z29vZA", "bad-request"),
    "space within": ("0", "Z29v ZA==", "bad-request"),
    "not ASCII": ("0", "Z29vZÄ==", "bad-request"),
}


@pytest.mark.parametrize("seq, text, condition", BAD_BLOCKS.values(), ids=BAD_BLOCKS)  # noqa: PT006
async def test_receive_bad_block_breaks_the_stream(loopback: Loopback, seq: str, text: str, condition: str) -> None:
    mallory, bob = await two_sides(loopback)
    async with bob.expect(mallory) as expected:
        await mallory.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        stream = await expected.opened()
        with pytest.raises(IqError, match=condition):
            await mallory.ask_data(bob, seq, text)
        with pytest.raises(StreamBroken, match=condition):
            await stream.receive()
        with pytest.raises(IqError, match="item-not-found"):
            await mallory.ask_data(bob, "0", GOOD)
    await check_clean(bob)


async def test_receive_somebody_elses_block_is_refused_and_harmless(loopback: Loopback) -> None:
    alice, bob = await two_sides(loopback)
    mallory = await connected(loopback, "mallory")
    async with streaming(alice, bob) as (outgoing, incoming):
        with pytest.raises(IqError, match="item-not-found"):
            await mallory.ask(bob, "ibb_data", seq=0, data=b"evil")
        with pytest.raises(IqError, match="item-not-found"):
            await mallory.ask(bob, "ibb_close")
        received, _ = await asyncio.gather(read_all(incoming), write_all(outgoing, b"good"))
    assert received == b"good"


async def test_receive_block_as_message_breaks_the_stream(loopback: Loopback) -> None:
    mallory, bob = await two_sides(loopback)
    async with bob.expect(mallory) as expected:
        await mallory.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        stream = await expected.opened()
        message = mallory.xmpp.make_message(bob.jid)
        message["ibb_data"]["sid"], message["ibb_data"]["seq"], message["ibb_data"]["data"] = "sid", 0, b"x"
        message.send()
        with pytest.raises(StreamBroken, match="not-acceptable"):
            await stream.receive()


async def test_receive_flood_is_cut_off(loopback: Loopback) -> None:
    mallory, bob = await two_sides(loopback)
    text = base64.b64encode(bytes(BLOCK)).decode()
    async with bob.expect(mallory) as expected:
        await mallory.ask(bob, "ibb_open", block_size=BLOCK, stanza="iq")
        stream = await expected.opened()
        flood = [asyncio.ensure_future(mallory.ask_data(bob, str(seq), text)) for seq in range(200)]
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(answer) for answer in answers} == {IqError}
        with pytest.raises(StreamBroken, match="resource-constraint"):
            await stream.receive()
        assert stream._next == _incoming.MAX_HELD // BLOCK
    await check_clean(bob)


async def test_receive_nothing_for_too_long_breaks_the_stream(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_incoming, "_IDLE", (0.05, 0.05))
    alice, bob = await two_sides(loopback)
    async with streaming(alice, bob) as (outgoing, incoming):
        with pytest.raises(StreamBroken, match="nothing came"):
            await incoming.receive()
        with pytest.raises(StreamBroken, match="closed"):
            await outgoing.receive()


async def test_send_peer_sends_back_breaks_the_stream(loopback: Loopback) -> None:
    alice, mallory = await two_sides(loopback)
    async with mallory.expect(alice):
        stream = await alice.open(mallory)
        with pytest.raises(IqError, match="not-acceptable"):
            await mallory.ask_data(alice, "0", GOOD)
        with pytest.raises(StreamBroken):
            await stream.send(b"x")
    await check_clean(alice, mallory)
