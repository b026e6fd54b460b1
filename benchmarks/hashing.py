"""Making a manifest against the hardware's SHA-256 rate, both over all cores and from the page cache.

usage: python -m benchmarks.hashing [--mib 1024] [--runs 5]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slixmpp_bt.manifest import make

MIB = 1024**2


def raw(path: Path) -> float:
    """Seconds to run SHA-256 over the file, each core over its part, a MiB at a time."""
    cores = os.cpu_count() or 1
    size = path.stat().st_size

    def part(index: int) -> None:
        digest, buffer = hashlib.sha256(), bytearray(MIB)
        with path.open("rb", buffering=0) as file:
            file.seek(size * index // cores)
            for _ in range(size // cores // MIB):
                file.readinto(buffer)
                digest.update(buffer)

    begun = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(part, range(cores)))
    return time.perf_counter() - begun


async def manifest(path: Path) -> tuple[float, list[float]]:
    """Seconds to make the manifest, and how late the event loop woke up meanwhile."""
    lags: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - before - 0.001)

    watcher = asyncio.create_task(watch())
    begun = time.perf_counter()
    await make(path, salt=os.urandom(16))
    took = time.perf_counter() - begun
    watcher.cancel()
    await asyncio.wait([watcher])
    return took, lags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        with path.open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(MIB))
        raw(path)
        ratios, lags = [], []
        for _ in range(options.runs):
            hardware = raw(path)
            took, late = asyncio.run(manifest(path))
            ratios.append(took / hardware)
            lags += late
            print(f"SHA-256 {hardware:.3f} s, manifest {took:.3f} s, ratio {ratios[-1]:.2f}")
    lags.sort()
    p50, p99 = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
    print(f"median ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"event loop lag: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, max {lags[-1] * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
