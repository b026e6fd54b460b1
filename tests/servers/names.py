"""A name server that knows one other XMPP server, for an ejabberd that shall find it on loopback.

ejabberd takes addresses from the system, which only root could change, but asks for SRV records itself, and may be told
whom to ask.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingUDPServer
from threading import Thread

_SRV, _IN = 33, 1
#: RFC 1035 section 4.1.1: an authoritative answer, recursion asked for and there; and one that says "no such name".
_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583
#: RFC 1035 section 4.1.4: the name that was asked for.
_SAME_NAME = b"\xc0\x0c"


@contextmanager
def name_server(domain: str, port: int) -> Iterator[int]:
    """Answer on a port of 127.0.0.1, which it yields, that `domain`, and all below it, is at port `port` of localhost
    for other XMPP servers (RFC 6120 section 3.2.1)."""

    class Question(BaseRequestHandler):
        def handle(self) -> None:
            query, socket = self.request
            socket.sendto(_answer(query, domain, port), self.client_address)

    with ThreadingUDPServer(("127.0.0.1", 0), Question) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _answer(query: bytes, domain: str, port: int) -> bytes:
    labels, end = _name(query)
    question = query[12 : end + 4]
    (kind,) = struct.unpack_from(">H", query, end)
    service, name = labels[:2], ".".join(labels[2:])
    known = kind == _SRV and service == ["_xmpp-server", "_tcp"] and f".{name}".endswith(f".{domain}")
    header = query[:2] + struct.pack(">5H", _ANSWER if known else _NO_SUCH_NAME, 1, known, 0, 0)
    if not known:
        return header + question
    where = struct.pack(">3H", 0, 0, port) + b"\x09localhost\x00"
    return header + question + _SAME_NAME + struct.pack(">HHIH", _SRV, _IN, 0, len(where)) + where


def _name(query: bytes) -> tuple[list[str], int]:
    """The labels of the name that is asked for, in lower case, and where it ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return labels, at + 1
