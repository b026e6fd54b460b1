"""``python -m benchmarks``: measures, and writes ``results.json``, the report page ``report.inc`` and its charts."""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from pathlib import Path

from . import report
from .places import Places
from .record import Record, load, machine, save
from .rows import QUICK, Bench, Row, Scale, distance, hashing, idle, large, many, rate, settings, sizes

ROWS: dict[str, Row] = {
    "large": large.ROW,
    "sizes": sizes.ROW,
    "many": many.ROW,
    "rate": rate.ROW,
    "hashing": hashing.ROW,
    "idle": idle.ROW,
    "distance": distance.ROW,
    "settings": settings.ROW,
}


async def measure(name: str, scale: Scale, runs: int) -> Record:
    """Measure one row."""
    record = Record(name, runs, quick=scale is QUICK)
    with tempfile.TemporaryDirectory(prefix="slixmpp_bt-benchmarks-", ignore_cleanup_errors=True) as folder:
        async with Places(Path(folder)) as places:
            record.begin()
            await ROWS[name].run(Bench(scale, runs, places), record)
            record.end()
    return record


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and one run: only to see that every row runs")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--runs", type=int, help="how often each figure is measured (3)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-report"), help="a directory; what it has of other rows is kept"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "results.json"
    results = load(kept)
    for name in options.only or ROWS:
        print(f"{name}: {ROWS[name].title}", flush=True)
        scale, runs = (QUICK, 1) if options.quick else (Scale(), 3)
        results["rows"][name] = asyncio.run(measure(name, scale, options.runs or runs))
        results["machine"] = machine()
        save(kept, results)
        rows = [(key, row, results["rows"][key]) for key, row in ROWS.items() if key in results["rows"]]
        print(report.write(options.out, results["machine"], rows))


if __name__ == "__main__":
    main()
