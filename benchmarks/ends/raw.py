"""TCP by ``sendfile``: what the kernel can do, without hashing, agreement or secrecy."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

from . import End

_BUFFER = 1024 * 1024


class Side(End):
    """Either side; a receiver listens."""

    async def open(self) -> dict[str, Any]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        return {"address": self._listener.getsockname()}

    async def send(self, path: str, address: list[Any]) -> None:
        """Send, and return when the receiver has hung up, which it does when it has flushed."""
        await asyncio.to_thread(_send, Path(path), (str(address[0]), int(address[1])))

    async def receive(self, path: str) -> None:
        """Receive and flush."""
        await asyncio.to_thread(self._receive, Path(path))

    async def aclose(self) -> None:
        self._listener.close()

    def _receive(self, path: Path) -> None:
        peer, _ = self._listener.accept()
        buffer = memoryview(bytearray(_BUFFER))
        with peer, path.open("wb", buffering=0) as file:
            while count := peer.recv_into(buffer):
                file.write(buffer[:count])
            os.fsync(file.fileno())


def _send(path: Path, address: tuple[str, int]) -> None:
    with socket.create_connection(address) as peer, path.open("rb") as file:
        peer.sendfile(file)
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1)
