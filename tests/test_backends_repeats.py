"""A seed that tells the piece layers again and again (BEP 52): older engines counted pieces twice by that, and died."""

from __future__ import annotations

import asyncio
import struct
from ipaddress import ip_address
from pathlib import Path

import libtorrent as lt
import pytest

from slixmpp_bt.backends import RateLimits
from slixmpp_bt.backends._libtorrent import settings
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.messages import Candidate
from slixmpp_bt.testing._material import LOOPBACK, PRIVATE, Material, material
from slixmpp_bt.testing._swarming import fetched

pytestmark = pytest.mark.matrix

MIB = 1024**2
UNCHOKE, REQUEST, PIECE, HAVE_ALL, HASH_REQUEST, HASHES = 1, 6, 7, 14, 21, 22


class Repeater:
    """A seed in the clear that sends its answer to the one hash request again after every fourth block."""

    def __init__(self, given: Material) -> None:
        self._content = given.paths[0].read_bytes()
        self._hash, self._piece = given.manifest.info_hash[:20], given.manifest.piece_length
        (self._layer,) = given.manifest.layers.values()
        self.repeated = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(68)
            reserved = bytes([0, 0, 0, 0, 0, 0, 0, 0x14])  # the fast extension, and version 2
            writer.write(b"\x13BitTorrent protocol" + reserved + self._hash + b"-XX0000-0123456789ab")
            self._send(writer, HAVE_ALL)
            self._send(writer, UNCHOKE)
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hashes, blocks = b"", 0
        while True:
            message = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
            if message[:1] == bytes([HASH_REQUEST]):
                hashes = message[1:] + self._layer
                self._send(writer, HASHES, hashes)
            elif message[:1] == bytes([REQUEST]):
                piece, begin, length = struct.unpack(">III", message[1:])
                start = piece * self._piece + begin
                self._send(writer, PIECE, message[1:9] + self._content[start : start + length])
                blocks += 1
                if hashes and blocks % 4 == 0:
                    self._send(writer, HASHES, hashes)
                    self.repeated += 1
            await writer.drain()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, kind: int, payload: bytes = b"") -> None:
        writer.write(struct.pack(">IB", 1 + len(payload), kind) + payload)


async def test_layers_told_again_and_again_leave_a_complete_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings._FIXED, "out_enc_policy", lt.enc_policy.pe_disabled)
    given = await material(tmp_path, 32 * MIB)  # 512 pieces: one hash request
    seed = Repeater(given)
    server = await asyncio.start_server(seed.serve, "127.0.0.1", 0)
    backend = LibtorrentBackend(LOOPBACK, RateLimits())
    try:
        download = await backend.open_download(given.bare, given.parts, PRIVATE)
        download.add_candidates([Candidate(ip_address("127.0.0.1"), server.sockets[0].getsockname()[1])])
        await download.resume()
        await fetched(download)
    finally:
        await backend.aclose()
        server.close()
        await server.wait_closed()
    assert given.arrived()
    assert seed.repeated > 100
