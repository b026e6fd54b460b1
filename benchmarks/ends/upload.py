"""HTTP upload by slixmpp (XEP-0363), a message with the address, and a download by aiohttp."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import slixmpp

from . import flush, opened
from .xmpp import PATIENCE, XmppEnd

_CHUNK = 1024 * 1024


class Side(XmppEnd):
    """Either side; the upload service is known before."""

    def __init__(self, account: dict[str, Any], folder: str) -> None:
        super().__init__(account)
        self._folder = Path(folder)
        self._urls: asyncio.Queue[str] = asyncio.Queue()
        self._count = 0

    def register(self) -> None:
        self.xmpp.register_plugin("xep_0363", {"upload_service": slixmpp.JID(f"upload.{self.xmpp.boundjid.domain}")})
        self.xmpp.add_event_handler("message", lambda message: self._urls.put_nowait(message["body"]))

    async def open(self) -> dict[str, Any]:
        self._http: Any = import_module("aiohttp").ClientSession()
        return await super().open()

    async def aclose(self) -> None:
        await self._http.close()
        await super().aclose()

    async def send(self, to: str, path: str) -> None:
        """Upload, and say where it is."""
        with opened(path, "rb") as file:
            url = await self.xmpp.plugin["xep_0363"].upload_file(Path(path).name, input_file=file, timeout=PATIENCE)
        self.xmpp.send_message(slixmpp.JID(to), url)

    async def receive(self) -> dict[str, Any]:
        """Download what the next message names, and flush it."""
        path = await self._download(await self._urls.get())
        return {"path": str(path), "times": {"ended": time.monotonic()}}

    async def send_many(self, to: str, paths: list[str], at_once: int) -> None:
        """Send all, so many at once."""
        free = asyncio.Semaphore(at_once)

        async def one(path: str) -> None:
            async with free:
                await self.send(to, path)

        await asyncio.gather(*map(one, paths))

    async def receive_many(self, count: int) -> None:
        """Download what the next `count` messages name."""
        downloads = []
        for _ in range(count):
            downloads.append(asyncio.create_task(self._download(await self._urls.get())))
        await asyncio.gather(*downloads)

    async def _download(self, url: str) -> Path:
        self._count += 1
        path = self._folder / f"download {self._count}"
        async with self._http.get(url, raise_for_status=True) as response:
            with opened(path, "wb") as file:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    file.write(chunk)
        await flush(path)
        return path
