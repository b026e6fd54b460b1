"""What was measured, as it is kept: for each row its cells, and in each cell every run's figures."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from .ways import Trip

_PACKAGES = ("slixmpp-bt", "slixmpp", "libtorrent", "magic-wormhole", "aiohttp")


@dataclass(slots=True)
class Cell:
    """One way in one case.

    :ivar way: a short name; the same in every case.
    :ivar title: how the report calls the way.
    :ivar inside: what is inside the time.
    :ivar note: what a reader has to know about this cell.
    :ivar series: of each figure, the value of each run.
    """

    case: str
    way: str
    title: str
    inside: str = ""
    note: str = ""
    series: dict[str, list[float]] = field(default_factory=dict)

    def median(self, figure: str) -> float | None:
        """None if it was not measured."""
        values = self.series.get(figure)
        return median(values) if values else None


@dataclass(slots=True)
class Record:
    """One row.

    :ivar load: of the machine (1 minute) before and after.
    :ivar seconds: that it took to measure.
    """

    row: str
    runs: int
    quick: bool
    when: str = ""
    load: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cells: list[Cell] = field(default_factory=list)

    def begin(self) -> None:
        """Note when, and how busy the machine is."""
        self.when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self.load.append(os.getloadavg()[0])
        self.seconds = -time.monotonic()

    def end(self) -> None:
        """Note how busy it is now."""
        self.seconds += time.monotonic()
        self.load.append(os.getloadavg()[0])

    def cell(self, case: str, way: str, title: str = "", inside: str = "") -> Cell:
        """The cell of `way` in `case`, made if there is none."""
        for cell in self.cells:
            if (cell.case, cell.way) == (case, way):
                return cell
        self.cells.append(Cell(case, way, title or way, inside))
        return self.cells[-1]

    def by_case(self) -> list[Cell]:
        """All cells, those of one case together."""
        cases = list(dict.fromkeys(cell.case for cell in self.cells))
        return sorted(self.cells, key=lambda cell: cases.index(cell.case))

    def add(self, cell: Cell, trip: Trip, factor: float = 1.0) -> None:
        """One more run. Its seconds are multiplied by `factor`, where a smaller file stood for a larger."""
        figures: Mapping[str, float] = {"seconds": trip.seconds * factor, **trip.figures}
        for name, value in figures.items():
            cell.series.setdefault(name, []).append(value)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if " " not in name)
        print(f"  {cell.case}: {cell.title}: {shown}", flush=True)

    def fail(self, cell: Cell, error: Exception) -> None:
        """A run that came to nothing."""
        words = re.sub("<[^>]*>", " ", str(error)) or type(error).__name__
        cell.note = f"failed: {' '.join(words.split())[:200]}"
        print(f"  {cell.case}: {cell.title}: {cell.note}", flush=True)


def load(path: Path) -> dict[str, Any]:
    """What an earlier run wrote, with each row as a :class:`Record`; nothing if there is none."""
    if not path.exists():
        return {"machine": {}, "rows": {}}
    stored = json.loads(path.read_text())
    rows = {}
    for name, row in stored["rows"].items():
        cells = [Cell(**cell) for cell in row.pop("cells")]
        rows[name] = Record(**row, cells=cells)
    return {"machine": stored["machine"], "rows": rows}


def save(path: Path, results: dict[str, Any]) -> None:
    """Write it, to be read by :func:`load` and by whoever draws other pictures."""
    rows = {name: asdict(row) for name, row in results["rows"].items()}
    path.write_text(json.dumps({"machine": results["machine"], "rows": rows}, indent=1) + "\n")


def machine() -> dict[str, str]:
    """The machine, in words."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") / 1024**3
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **found,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
