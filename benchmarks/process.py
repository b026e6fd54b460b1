"""The benchmark's own end of a side that runs in another process (see :mod:`benchmarks.ends`)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Seconds for one command, and for the start and end of a process.
PATIENCE = 900.0
_LIFE = 60.0
#: An answer may carry a list of paths.
_LONGEST_LINE = 1 << 24


class Failed(Exception):
    """A side could not do what it was told; the message is its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command came to.

    :ivar begun: by the machine's monotonic clock, in seconds, as is `ended`.
    :ivar lag: of the event loop, in seconds: ``p50``, ``p99``, ``max``.
    :ivar cpu: seconds of processor time.
    :ivar peak_mib: the most memory that the process has had so far.
    """

    begun: float
    ended: float
    value: Any
    lag: dict[str, float]
    cpu: float
    peak_mib: float


class Remote:
    """A process of ``benchmarks.ends``. Made by :func:`remote`.

    :ivar ready: what it said when it was.
    :ivar busy: whether an answer is due; nobody waits for it when this ends.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log
        self.ready: dict[str, Any] = {}
        self.busy = False

    async def call(self, name: str, **arguments: Any) -> Answer:
        """Have it run the method `name`.

        :raises Failed: it did not come to a good end.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": name, "arguments": arguments}).encode() + b"\n")
        self.busy = True
        said = await self._said(PATIENCE)
        self.busy = False
        if "error" in said:
            raise Failed(said["error"])
        return Answer(**said)

    async def wait_until_ready(self) -> None:
        """Take its first line."""
        self.ready = (await self._said(_LIFE))["ready"]

    async def _said(self, patience: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), patience)
        except TimeoutError:
            raise Failed(f"no answer within {patience:.0f} s") from None
        if not line:
            raise Failed(f"it ended: {self._log.read_text(errors='replace').strip().splitlines()[-1:]}")
        said: dict[str, Any] = json.loads(line)
        return said


@asynccontextmanager
async def remote(
    module: str, folder: Path, config: dict[str, Any], prefix: Sequence[str] = ()
) -> AsyncIterator[Remote]:
    """A side that is ready, and gone afterwards.

    :param folder: where its standard error goes.
    :param prefix: a command that runs it somewhere else, such as in a network namespace.
    """
    command = [*prefix, sys.executable, "-m", "benchmarks.ends", module, json.dumps(config)]
    log = folder / f"{module}-{id(config)}.log"
    pipe = asyncio.subprocess.PIPE
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=errors, limit=_LONGEST_LINE
        )
    side = Remote(process, log)
    try:
        await side.wait_until_ready()
        yield side
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if not side.busy:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LIFE)
        if process.returncode is None:
            process.kill()
            await process.wait()
