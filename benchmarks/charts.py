"""Charts of the rows, as SVG."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .record import Cell, Record
from .rows import KIB, Row, in_words

_OURS, _THEIRS = "#1f77b4", "#b0b0b0"
_WIDTH = 8.0


def draw(name: str, row: Row, record: Record, folder: Path) -> Path | None:
    """Draw one row into `folder`; None if nothing can be drawn: nothing was measured, or matplotlib is missing."""
    try:
        import_module("matplotlib").use("svg")
        plot: Any = import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        return None
    measured = [cell for cell in record.by_case() if cell.median("seconds") is not None]
    if not measured:
        return None
    path = folder / f"{name}.svg"
    # The same figures make the same file.
    with plot.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = _BY_NAME.get(name, _bars)(plot, row, measured)
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", transparent=False)
        plot.close(figure)
    return path


def _bars(plot: Any, row: Row, cells: list[Cell]) -> Any:
    """One bar for each cell, with the spread of its runs; on a logarithmic scale where they differ much."""
    figure, axes = plot.subplots(figsize=(_WIDTH, 0.6 + 0.32 * len(cells)))
    several = len({cell.case for cell in cells}) > 1
    labels = [f"{cell.title} ({cell.case})" if several else cell.title for cell in cells]
    medians = [cell.median("seconds") or 0.0 for cell in cells]
    ends = [(min(cell.series["seconds"]), max(cell.series["seconds"])) for cell in cells]
    errors = [
        [middle - low for middle, (low, _) in zip(medians, ends, strict=True)],
        [high - middle for middle, (_, high) in zip(medians, ends, strict=True)],
    ]
    colours = [_OURS if "slixmpp_bt" in cell.title else _THEIRS for cell in cells]
    axes.barh(range(len(cells)), medians, xerr=errors, color=colours, ecolor="#444444")
    axes.set_yticks(range(len(cells)), labels)
    axes.invert_yaxis()
    if min(medians) > 0 and max(medians) > 20 * min(medians):
        axes.set_xscale("log")
    axes.set_xlabel(f"{row.unit}, shorter is better")
    return figure


def _sizes(plot: Any, row: Row, cells: list[Cell]) -> Any:
    """Time against size, one line for each way."""
    figure, axes = plot.subplots(figsize=(_WIDTH, 4.5))
    for way in dict.fromkeys(cell.way for cell in cells):
        points = [
            (size, cell.median("seconds"))
            for cell in cells
            if cell.way == way and (size := _bytes(cell.case)) is not None
        ]
        title = next(cell.title for cell in cells if cell.way == way)
        ours = "slixmpp_bt" in title
        axes.plot(*zip(*points, strict=True), marker="o", label=title, linewidth=2.5 if ours else 1.2)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    sizes = sorted({size for cell in cells if (size := _bytes(cell.case)) is not None})
    axes.set_xticks(sizes, [in_words(size) for size in sizes], minor=False)
    axes.set_ylabel("s")
    axes.legend()
    return figure


def _bytes(case: str) -> int | None:
    units = {"B": 1, "KiB": KIB, "MiB": KIB**2, "GiB": KIB**3}
    number, _, unit = case.partition(" ")
    return int(float(number) * units[unit]) if unit in units else None


_BY_NAME: dict[str, Callable[[Any, Row, list[Cell]], Any]] = {"sizes": _sizes}
