"""Peers (tests/peer.py) as processes on the hosts of a small internet."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from .internet import DOMAIN, ROOT, SERVICES, Host
from .server import XMPP_PORT, CoreProsody

#: The default of the plugin: all that the host has, not only loopback.
LISTEN = ["0.0.0.0", "::"]
#: Seconds until a cell gives up on a peer.
PATIENCE = 60.0
#: A client that notices within so many seconds that its connection is dead.
KEEPALIVE = 2


class Peer:
    """A client of `account` on `host`; as a receiver it accepts everything.

    :ivar jid: its full JID.
    :ivar seen: what it has printed so far, the latest last.
    """

    def __init__(self, host: Host, server: CoreProsody, account: str, home: Path, *options: str, **config: Any) -> None:
        self.jid = f"{account}@{DOMAIN}/device"
        self.seen: list[dict[str, Any]] = []
        address = SERVICES[0 if 4 in host.line.versions else 1]
        self._command = host.command(
            sys.executable, "-m", "tests.peer", "--jid", self.jid, "--home", str(home),
            "--host", address, "--port", str(XMPP_PORT), "--ca-certs", str(server.ca_certs),
            "--config", json.dumps({"listen": LISTEN, **config}), "--keepalive", str(KEEPALIVE), "--follow", *options,
        )  # fmt: skip
        self._log = home.with_suffix(".log")
        self._news = asyncio.Event()
        self._ready = self._over = False
        self._words: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it; it is online inside the ``with`` and gone afterwards."""
        with self._log.open("wb") as log:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT, stdout=pipe, stderr=log)
        reader = asyncio.create_task(self._read())
        try:
            await self._until(lambda: self._ready)
            yield
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            await reader

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until it has printed something of which `condition` holds; the first such.

        :raises AssertionError: it ended without it, or takes longer than :data:`PATIENCE`.
        """
        await self._until(lambda: any(map(condition, self.seen)))
        return next(filter(condition, self.seen))

    async def outcome(self) -> dict[str, Any]:
        """Wait for its end in good order; what it says of the transfer."""
        said = await self.until(lambda said: "path" in said)
        assert await self._process.wait() == 0
        return said

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    assert not self._over, f"{self.jid} ended early"
                    self._news.clear()
                    await self._news.wait()
        except (AssertionError, TimeoutError) as error:
            said = "".join(self._words) + str(self.seen[-1:])
            log = self._log.read_text(errors="replace")[-4000:]
            raise AssertionError(f"{self.jid}: {str(error) or 'too slow'}; said:\n{said}\nlog:\n{log}") from error

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                self.seen.append(json.loads(line))
            else:
                self._ready |= line == b"ready\n"
                self._words.append(line.decode(errors="replace"))
            self._news.set()
        self._over = True
        self._news.set()
