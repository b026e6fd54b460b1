"""magic-wormhole, by the functions behind its commands ``send`` and ``receive``, imported before the clock starts."""

from __future__ import annotations

import asyncio
import io
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from . import End, flush


class Side(End):
    """Either side.

    :param mailbox: the mailbox server's address, a WebSocket URL.
    :param relay: the transit relay, ``tcp:HOST:PORT``.
    """

    def __init__(self, mailbox: str, relay: str) -> None:
        self._mailbox, self._relay = mailbox, relay

    async def open(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        import_module("twisted.internet.asyncioreactor").install(loop)
        self._reactor: Any = import_module("twisted.internet.reactor")
        self._reactor.startRunning(installSignalHandlers=False)
        self._cli: Any = import_module("wormhole.cli.cli")
        for name in ("send", "receive"):
            import_module(f"wormhole.cli.cmd_{name}")
        return {}

    async def send(self, code: str, path: str) -> None:
        """Send, and return when the receiver has acknowledged."""
        await self._run("send", "--no-qr", "--hide-progress", "--code", code, path)

    async def receive(self, code: str, path: str) -> dict[str, Any]:
        """Receive one file as `path`, and flush it."""
        await self._run("receive", "--accept-file", "--hide-progress", "--output-file", path, code)
        await flush(Path(path))
        return {"path": path, "times": {"ended": time.monotonic()}}

    async def aclose(self) -> None:
        self._reactor.fireSystemEvent("shutdown")  # ends its threads

    async def _run(self, *words: str) -> None:
        """What the command would do with `words` as its arguments, but on the loop that runs."""
        asked: list[tuple[Any, Any]] = []
        self._cli.go = lambda function, arguments: asked.append((function, arguments))
        where = ["--relay-url", self._mailbox, "--transit-helper", self._relay]
        self._cli.wormhole.main([*where, *words], standalone_mode=False)
        ((function, arguments),) = asked
        arguments.stdout = arguments.stderr = io.StringIO()
        await function(arguments, self._reactor).asFuture(asyncio.get_running_loop())
