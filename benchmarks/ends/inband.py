"""slixmpp's own in-band bytestreams (XEP-0047)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import slixmpp

from . import flush, opened
from .xmpp import PATIENCE, XmppEnd


class Side(XmppEnd):
    """Either side. A receiver writes what comes to files.

    :param block: bytes in each stanza.
    """

    def __init__(self, account: dict[str, Any], block: int, folder: str) -> None:
        super().__init__(account)
        self._block = block
        self._folder = Path(folder)
        self._done: asyncio.Queue[str] = asyncio.Queue()
        self._open: dict[Any, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def register(self) -> None:
        self.xmpp.register_plugin("xep_0047", {"auto_accept": True, "max_block_size": self._block})
        self.xmpp.add_event_handler("ibb_stream_start", self._begin)
        self.xmpp.add_event_handler("ibb_stream_data", self._write)
        self.xmpp.add_event_handler("ibb_stream_end", self._end)

    async def send(self, to: str, path: str) -> None:
        """Send, and return when the other side has closed."""
        ibb = self.xmpp.plugin["xep_0047"]
        stream = await ibb.open_stream(slixmpp.JID(to), block_size=self._block, timeout=PATIENCE)
        with opened(path, "rb") as file:
            await stream.sendfile(file, timeout=PATIENCE)
        await stream.close(timeout=PATIENCE)

    async def receive(self) -> dict[str, Any]:
        """Wait for the end of the stream that comes next."""
        path = await self._done.get()
        return {"path": path, "times": {"ended": time.monotonic()}}

    async def send_many(self, to: str, paths: list[str], at_once: int) -> None:
        """Send all, so many at once."""
        free = asyncio.Semaphore(at_once)

        async def one(path: str) -> None:
            async with free:
                await self.send(to, path)

        await asyncio.gather(*map(one, paths))

    async def receive_many(self, count: int) -> None:
        """Wait for the end of `count` streams."""
        for _ in range(count):
            await self._done.get()

    def _begin(self, stream: Any) -> None:
        if str(stream.self_jid) == str(self.xmpp.boundjid) and stream.send_seq == -1:
            self._open[stream] = (self._folder / stream.sid).open("wb")

    def _write(self, stream: Any) -> None:
        self._open[stream].write(stream.read())

    def _end(self, stream: Any) -> None:
        file = self._open.pop(stream, None)
        if file is not None:
            file.close()
            task = asyncio.create_task(self._keep(Path(file.name)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _keep(self, path: Path) -> None:
        await flush(path)
        self._done.put_nowait(str(path))
