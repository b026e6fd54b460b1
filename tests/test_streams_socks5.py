"""The SOCKS5 client and its stream, against proxies of every sort: good, silent, rude, lying."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

import pytest
from slixmpp import JID

from slixmpp_bt.streams.socks5 import CHUNK, SocketStream, Times, destination, dial
from slixmpp_bt.wire import StreamBroken

NAME = "0123456789abcdef0123456789abcdef01234567"
REQUEST = b"\x05\x01\x00\x03\x28" + NAME.encode() + b"\x00\x00"
OK = b"\x05\x00" + REQUEST[2:]
HERE = ip_address("127.0.0.1")
QUICK = Times(dial=0.3, idle=0.3, close=0.3)

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


@asynccontextmanager
async def proxy(behaviour: Behaviour) -> AsyncIterator[int]:
    """A port where every connection gets `behaviour` and, when that ends, is closed. Its errors are the test's."""
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            await asyncio.gather(*served)
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Shake hands as a proxy does."""
    assert await reader.readexactly(3) == b"\x05\x01\x00"
    writer.write(b"\x05\x00")
    assert await reader.readexactly(len(REQUEST)) == REQUEST
    writer.write(OK)


def after(greeting: bytes, reply: bytes) -> Behaviour:
    """A proxy that says this, whatever it hears, and waits for the client to go."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(greeting)
        if reply:
            await reader.readexactly(len(REQUEST))
            writer.write(reply)
        await gone(reader)

    return behave


async def gone(reader: asyncio.StreamReader) -> None:
    """Wait until the client has gone, in whichever manner."""
    with suppress(ConnectionError):
        await reader.read()


async def connect(port: int, times: Times = QUICK) -> SocketStream:
    return await dial([HERE], port, NAME, times)


def test_destination_is_the_hash_of_sid_and_both_full_jids() -> None:
    found = destination("s1", JID("Alice@Example.org/Desk"), JID("room@rooms.example.org/Bob"))
    # printf 's1alice@example.org/Deskroom@rooms.example.org/Bob' | sha1sum
    assert found == "03dc66ed4975b5a5a446430022059ec1313a5372"


@pytest.mark.parametrize("address", [b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x28" + NAME.encode(), b"\x03\x00"])
async def test_dial_every_kind_of_reply_leaves_the_stream_at_its_first_byte(address: bytes) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"\x05\x00")
        assert await reader.readexactly(len(REQUEST)) == REQUEST
        writer.write(b"\x05\x00\x00" + address + b"\x00\x00" + b"first")

    async with proxy(behave) as port:
        stream = await connect(port)
        assert await stream.receive() == b"first"
        assert await stream.receive() == b""
        await stream.aclose()


@pytest.mark.parametrize(
    ("greeting", "reply", "words"),
    [
        (b"\x05\xff", b"", "wants a password"),
        (b"\x04\x00", b"", "not a SOCKS5 proxy"),
        (b"HTTP/1.1 400", b"", "not a SOCKS5 proxy"),
        (b"\x05\x00", b"\x05\x02\x00\x01" + bytes(6), "refused: this is not allowed"),
        (b"\x05\x00", b"\x05\x01\x00\x03\x00\x00\x00", "refused: a general failure"),
        (b"\x05\x00", b"\x05\x63\x00\x01" + bytes(6), "refused: error 99"),
        (b"\x05\x00", b"\x04\x00\x00\x01" + bytes(6), "not a SOCKS5 proxy"),
        (b"\x05\x00", b"\x05\x00\x00\x02" + bytes(6), "not a SOCKS5 proxy"),
        (b"", b"", "nothing answers"),
        (b"\x05", b"", "nothing answers"),
        (b"\x05\x00", b"\x05\x00\x00\x03\x28half", "nothing answers"),
    ],
)
async def test_dial_wrong_answer_is_broken_in_words(greeting: bytes, reply: bytes, words: str) -> None:
    async with proxy(after(greeting, reply)) as port:
        with pytest.raises(StreamBroken, match=words):
            await connect(port)
        # The proxy's side ends too: nothing was left open.


async def test_dial_closed_at_once_is_broken() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)

    async with proxy(behave) as port:
        with pytest.raises(StreamBroken, match="closed the connection"):
            await connect(port)


async def test_dial_nobody_listens_is_broken_with_every_address() -> None:
    async with proxy(accept) as port:
        pass
    with pytest.raises(StreamBroken, match=r"127\.0\.0\.1.* cannot be reached.*127\.0\.0\.2"):
        await dial([HERE, ip_address("127.0.0.2")], port, NAME, QUICK)
    with pytest.raises(StreamBroken, match="no address"):
        await dial([], port, NAME, QUICK)


async def test_dial_first_address_dead_takes_the_next() -> None:
    async with proxy(accept) as port:
        stream = await dial([ip_address("127.0.0.2"), HERE], port, NAME, QUICK)
        await stream.aclose()


async def test_dial_cancelled_leaves_nothing_open() -> None:
    began = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        began.set()
        await gone(reader)

    async with proxy(behave) as port:
        dialling = asyncio.create_task(connect(port, Times()))
        await began.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_send_much_arrives_in_order_and_close_delivers_the_rest() -> None:
    data = bytes(range(256)) * 20_000
    got = bytearray()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        while piece := await reader.read(100_000):
            got.extend(piece)

    async with proxy(behave) as port:
        stream = await connect(port, Times())
        await stream.send(data)
        await stream.send(b"end")
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StreamBroken, match="closed"):
            await stream.send(b"more")
    assert bytes(got) == data + b"end"


async def test_send_to_somebody_who_takes_nothing_waits_and_then_is_broken() -> None:
    over = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await over.wait()

    async with proxy(behave) as port:
        stream = await connect(port)
        with pytest.raises(StreamBroken, match="took nothing"):
            # More than the buffers of both sides hold.
            await stream.send(bytes(64 * 1024 * 1024))
        with pytest.raises(StreamBroken, match="took nothing"):
            await stream.send(b"more")
        over.set()
        await stream.aclose()


async def test_aclose_somebody_takes_nothing_is_bounded() -> None:
    over = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await over.wait()

    async with proxy(behave) as port:
        for how in ("time-out", "cancelled"):
            stream = await connect(port, QUICK if how == "time-out" else Times())
            sending = asyncio.create_task(stream.send(bytes(64 * 1024 * 1024)))
            while not stream._writer.transport.get_write_buffer_size():
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
            closing = asyncio.create_task(stream.aclose())
            if how == "cancelled":
                await asyncio.sleep(0)
                closing.cancel()
            await asyncio.wait({closing})
            assert closing.cancelled() == (how == "cancelled")
            assert not stream.is_open
            assert stream._writer.transport.get_write_buffer_size() == 0
        over.set()


async def test_send_other_side_closed_is_broken() -> None:
    async with proxy(accept) as port:
        stream = await connect(port)
        assert await stream.receive() == b""
        with pytest.raises(StreamBroken, match="closed the stream"):
            await stream.send(b"more")
        await stream.aclose()


async def test_receive_takes_pieces_of_bounded_size_and_then_the_end() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        writer.write(bytes(3_000_000))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with proxy(behave) as port:
        stream = await connect(port)
        total = 0
        while piece := await stream.receive():
            assert len(piece) <= CHUNK
            total += len(piece)
        assert total == 3_000_000
        assert await stream.receive() == b""
        await stream.aclose()


async def test_receive_nothing_comes_is_broken_and_stays_so() -> None:
    async with proxy(after(b"\x05\x00", OK)) as port:
        stream = await connect(port)
        for _ in range(2):
            with pytest.raises(StreamBroken, match=r"nothing came for 0\.3 s"):
                await stream.receive()
        await stream.aclose()


async def test_receive_connection_reset_is_broken() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await reader.readexactly(1)
        # Closed with this, a connection ends in a reset (RST).
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with proxy(behave) as port:
        stream = await connect(port, Times())
        await stream.send(b"x")
        with pytest.raises(StreamBroken, match="broke: Connection reset"):
            await stream.receive()
        await stream.aclose()


async def test_receive_cancelled_loses_nothing() -> None:
    go = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await go.wait()
        writer.write(b"late")

    async with proxy(behave) as port:
        stream = await connect(port, Times())
        for waits in (stream.receive(), stream.started()):
            waiting: asyncio.Future[object] = asyncio.ensure_future(waits)
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        go.set()
        assert await stream.started()
        assert await stream.started()
        assert await stream.receive() == b"late"
        assert not await stream.started()
        await stream.aclose()


@pytest.mark.parametrize("what", ["receive", "send"])
async def test_abort_while_waiting_is_broken_with_its_reason(what: str) -> None:
    over = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await over.wait()

    async with proxy(behave) as port:
        stream = await connect(port, Times())
        doing: Awaitable[object] = stream.receive() if what == "receive" else stream.send(bytes(64 * 1024 * 1024))
        waiting = asyncio.ensure_future(doing)
        await asyncio.sleep(0)
        assert not waiting.done()
        stream.abort("the session has ended")
        with pytest.raises(StreamBroken, match="the session has ended"):
            await waiting
        with pytest.raises(StreamBroken, match="the session has ended"):
            await stream.receive()
        over.set()
        await stream.aclose()
