"""Clients in processes of their own, which the tests kill and start again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import slixmpp

from ..servers import Server

ROOT = Path(__file__).parent.parent.parent
#: Seconds until a test gives up on what a process is to do.
PATIENCE = 60.0


class Worker:
    """A client with the plugin and a state that outlives it: ``python -m tests.crashes.worker``, again and again.

    :ivar told: what it has said in its present life, one mapping a line.
    :ivar fetched: bytes of the pieces that have arrived in all its lives.
    """

    def __init__(self, server: Server, jid: str, home: Path, *options: str, before: tuple[str, ...] = ()) -> None:
        self.jid = slixmpp.JID(jid)
        self.home = home
        self.inbox = home / "inbox"
        self.told: list[dict[str, Any]] = []
        self.fetched = 0
        self._arguments = [
            *before, sys.executable, "-m", "tests.crashes.worker", "--jid", jid, "--host", server.host,
            "--port", str(server.port), "--ca-certs", str(server.ca_certs), "--home", str(home), *options,
        ]  # fmt: skip
        self.inbox.mkdir(parents=True)
        self._process: asyncio.subprocess.Process | None = None
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def start(self, *more: str) -> None:
        """Begin a life, and return once it is online and has taken up what the last one left."""
        self.told = []
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments, *more, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._process))
        await self.heard(lambda line: line["event"] == "ready")

    async def kill(self) -> None:
        """SIGKILL, to the process and its children; what it had said by then is in :attr:`told`."""
        if self._process is not None and self._reader is not None:
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            await self._reader

    async def died(self) -> None:
        """Wait until it is dead by its own hand."""
        assert self._process is not None
        assert self._reader is not None
        async with asyncio.timeout(PATIENCE):
            assert await self._process.wait() == -signal.SIGKILL
            await self._reader

    async def stop(self) -> None:
        """Let it close everything and end."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reader is not None
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await self._reader
            assert await self._process.wait() == 0

    def say(self, command: str) -> None:
        """Have it do something; see the worker for what it knows."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())

    async def heard(self, condition: Callable[[dict[str, Any]], Any], *, after: int = 0) -> dict[str, Any]:
        """The first line of its present life, the first `after` ones left out, for which `condition` is true."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = next(filter(condition, self.told[after:]), None)
                if found is not None:
                    return found
                assert self._reader is not None
                assert not self._reader.done(), f"it has ended; it said {self.told[-3:]}"
                self._news.clear()
                waiting = asyncio.create_task(self._news.wait())
                await asyncio.wait({waiting, self._reader}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()

    async def moved(self, count: int) -> None:
        """Wait until bytes move, and `count` are there in all its lives, or all is over."""
        if not any(line["event"] == "end" for line in self.told):
            after = len(self.told)
            await self.heard(lambda line: line.get("had", 0) >= count, after=after)

    async def asked(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Ask for its counts until `condition` is true of them."""
        async with asyncio.timeout(PATIENCE):
            while True:
                after = len(self.told)
                self.say("counts")
                counts = await self.heard(lambda line: line["event"] == "counts", after=after)
                if condition(counts):
                    return counts
                await asyncio.sleep(0.05)

    async def ended(self) -> dict[str, Any]:
        """Wait for the end of a transfer."""
        return await self.heard(lambda line: line["event"] == "end")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.endswith(b"}\n"):  # else it was killed in mid-sentence
                said = json.loads(line)
                self.fetched += said.get("size", 0)
                self.told.append(said)
                self._news.set()


@asynccontextmanager
async def alive(*workers: Worker) -> AsyncIterator[None]:
    """Whatever lives of `workers` is killed at the end."""
    try:
        yield
    finally:
        for worker in workers:
            await worker.kill()
