"""One side of a transfer as a process of its own, for every way that is measured.

Each module here holds a class ``Side``; ``python -m benchmarks.ends MODULE CONFIG`` runs it (see
:mod:`benchmarks.ends.__main__`), and :class:`benchmarks.process.Remote` talks to it. What a side does before it is
ready is not measured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_STEP = 0.01


class End:
    """A side. Its other public coroutines are what it can be told to do; their arguments and results are JSON."""

    async def open(self) -> dict[str, Any]:
        """Get ready; what the other side has to know."""
        return {}

    async def aclose(self) -> None:
        """Let go of everything."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, for which there is no event."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(_STEP)


def opened(path: str | Path, mode: str) -> BinaryIO:
    """A file in binary `mode`; reading and writing block, as in the applications that these sides stand for."""
    return Path(path).open(mode)  # type: ignore[return-value]


def memory(kind: str) -> float:
    """What this process has in memory, in MiB: now (``VmRSS``), or at most so far (``VmHWM``, which unlike
    ``getrusage`` does not count who started it)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) / 1024


async def flush(path: Path) -> None:
    """Return when the content of `path` is on the disk, as slixmpp_bt does before it says that a file is there."""
    await asyncio.to_thread(_flush, path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
