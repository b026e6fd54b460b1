"""How late an event loop wakes up."""

from __future__ import annotations

import asyncio

#: Seconds between two looks.
_STEP = 0.002


class Lag:
    """Samples from its making to :meth:`stop`."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_STEP)
            self._samples.append(loop.time() - before - _STEP)

    async def stop(self) -> dict[str, float]:
        """The median, the 99th percentile and the longest, in seconds."""
        self._task.cancel()
        await asyncio.wait([self._task])
        ordered = sorted(self._samples) or [0.0]
        return {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100], "max": ordered[-1]}
