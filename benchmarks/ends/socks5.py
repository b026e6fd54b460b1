"""slixmpp's own SOCKS5 bytestreams (XEP-0065), through the server's proxy."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import slixmpp

from . import flush, opened
from .xmpp import PATIENCE, XmppEnd

_CHUNK = 256 * 1024


class Side(XmppEnd):
    """Either side; the proxy is known before."""

    def register(self) -> None:
        self.xmpp.register_plugin("xep_0065", {"auto_accept": True})
        self.xmpp.add_event_handler("socks5_data", self._write)
        self._file: Any = None
        self._left = 0
        self._complete = asyncio.Event()

    async def find_proxy(self) -> None:
        """Ask the server."""
        found = await self.xmpp.plugin["xep_0065"].discover_proxies(timeout=PATIENCE)
        if not found:
            raise RuntimeError("the server has no proxy")

    async def send(self, to: str, path: str) -> None:
        """Send, and return when everything has left."""
        stream = await self.xmpp.plugin["xep_0065"].handshake(slixmpp.JID(to), timeout=PATIENCE)
        with opened(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                await stream.write(chunk)
        stream.transport.close()

    async def receive(self, path: str, size: int) -> dict[str, Any]:
        """Wait for `size` bytes, which have no other end, and flush them."""
        self._left = size
        self._complete.clear()
        with opened(path, "wb") as self._file:
            await self._complete.wait()
        await flush(Path(path))
        return {"path": path, "times": {"ended": time.monotonic()}}

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._left -= len(data)
        if self._left <= 0:
            self._complete.set()
