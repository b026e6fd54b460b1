"""A member of a swarm that is written by hand, and takes what it is given: BitTorrent (BEP 3), over TLS or without."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from contextlib import suppress
from pathlib import Path

from slixmpp_bt.backends import Admission
from slixmpp_bt.messages import BLOCK, Candidate
from slixmpp_bt.testing._material import PATIENCE

UNCHOKE, INTERESTED, REQUEST, PIECE = 1, 2, 6, 7


def handshake(info_hash: bytes) -> bytes:
    """The first 68 bytes of a connection, each time of another peer."""
    return b"\x13BitTorrent protocol" + bytes(8) + info_hash[:20] + secrets.token_bytes(20)


def context(directory: Path, admission: Admission | None = None) -> ssl.SSLContext:
    """A client that takes whoever answers, and shows the certificate of `admission`, if it has one."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    if admission is not None and admission.certificate and admission.key:
        directory.mkdir(exist_ok=True)
        (directory / "pem").write_bytes(admission.certificate + admission.key)
        found.load_cert_chain(directory / "pem")
    return found


async def connect(
    candidate: Candidate, info_hash: bytes, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = info_hash[:20].hex() if tls is not None else None
    return await asyncio.open_connection(str(candidate.address), candidate.port, ssl=tls, server_hostname=name)


async def leech(candidate: Candidate, info_hash: bytes, tls: ssl.SSLContext | None = None) -> tuple[bytes, bytes]:
    """Ask there for the first block of an offer.

    :returns: all that was heard until it came or the other side hung up, and the block.
    """
    heard = bytearray()
    block = b""
    try:
        reader, writer = await connect(candidate, info_hash, tls)
    except (ssl.SSLError, ConnectionError):
        return b"", b""
    with suppress(ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        async with asyncio.timeout(PATIENCE):
            writer.write(handshake(info_hash) + (1).to_bytes(4, "big") + bytes([INTERESTED]))
            heard += await reader.readexactly(68)
            while not block:
                kind, body = await message(reader)
                heard += bytes([kind]) + body
                if kind == UNCHOKE:
                    writer.write(request(0, 0))
                elif kind == PIECE:
                    block = body[8:]
    writer.close()
    with suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return bytes(heard), block


async def message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next message: its number, and what follows."""
    while not (length := int.from_bytes(await reader.readexactly(4), "big")):
        pass  # a sign of life
    body = await reader.readexactly(length)
    return body[0], body[1:]


def request(piece: int, begin: int, length: int = BLOCK) -> bytes:
    """Asks for a block."""
    parts = (13).to_bytes(4, "big"), bytes([REQUEST]), *(n.to_bytes(4, "big") for n in (piece, begin, length))
    return b"".join(parts)
