"""Runs one side: commands come as lines of JSON on standard input, and each gets one line of JSON as its answer.

The first line printed is ``{"ready": ...}``. An answer has ``begun`` and ``ended`` (seconds of the machine's monotonic
clock, which all processes share), ``value``, the event loop's ``lag`` in between, ``cpu`` seconds used and the peak of
the process's memory; or ``error``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import resource
import sys
import time
from importlib import import_module
from typing import Any, cast

from . import End, memory
from .lag import Lag


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _answer(end: End, command: dict[str, Any]) -> dict[str, Any]:
    lag, cpu, begun = Lag(), _cpu(), time.monotonic()
    try:
        value = await getattr(end, command["call"])(**command["arguments"])
        ended = time.monotonic()
    except Exception as error:
        logging.exception("%s failed", command["call"])
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        lags = await lag.stop()
    # A method that knows better when the work began or ended says so.
    times = {"begun": begun, "ended": ended} | (value.pop("times", {}) if isinstance(value, dict) else {})
    return {**times, "value": value, "lag": lags, "cpu": _cpu() - cpu, "peak_mib": memory("VmHWM")}


async def _serve(end: End) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": await end.open()}), flush=True)
    try:
        async for line in reader:
            print(json.dumps(await _answer(end, json.loads(line))), flush=True)
    finally:
        await end.aclose()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("config", type=json.loads)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    side = import_module(f"{__package__}.{options.module}").Side
    gc.freeze()
    asyncio.run(_serve(cast(End, side(**options.config))))


if __name__ == "__main__":
    main()
