"""``python -m benchmarks``: measures, and writes ``results.json``, the report page ``report.inc`` and its charts."""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from collections.abc import Sequence
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


async def measure(names: Sequence[str], scale: Scale, runs: int | None, out: Path) -> None:
    """Measure the rows `names`, and write after each what there is."""
    kept = out / "results.json"
    results = load(kept)
    with tempfile.TemporaryDirectory(prefix="slixmpp_bt-benchmarks-", ignore_cleanup_errors=True) as folder:
        async with Places(Path(folder)) as places:
            for name in names:
                row = ROWS[name]
                print(f"{name}: {row.title}", flush=True)
                bench = Bench(scale, runs or (1 if scale is QUICK else row.runs), places)
                record = Record(name, bench.runs, quick=scale is QUICK)
                record.begin()
                try:
                    await row.run(bench, record)
                finally:  # what was measured until something broke is kept
                    record.end()
                    results["rows"][name], results["machine"] = record, machine()
                    save(kept, results)
                print(f"  {record.seconds:.0f} s", flush=True)
                done = [(key, row, results["rows"][key]) for key, row in ROWS.items() if key in results["rows"]]
                report.write(out, results["machine"], done)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and one run: only to see that every row runs")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--runs", type=int, help="how often each figure is measured")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-report"), help="a directory; what it has of other rows is kept"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    options.out.mkdir(parents=True, exist_ok=True)
    scale = QUICK if options.quick else Scale()
    asyncio.run(measure(options.only or list(ROWS), scale, options.runs, options.out))
    print(options.out / report.PAGE)


if __name__ == "__main__":
    main()
