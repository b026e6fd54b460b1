"""The report page: a fragment of reStructuredText that the documentation includes, and its charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from . import charts
from .record import Cell, Record
from .rows import Row

#: The name of the page.
PAGE = "report.inc"


def write(folder: Path, machine: dict[str, str], rows: Sequence[tuple[str, Row, Record]]) -> Path:
    """Write the page and its charts into `folder`; the page's path. It is included from the directory above."""
    lines = _table(["machine", ""], [[key, value] for key, value in machine.items()])
    for name, row, record in rows:
        lines += _section(name, row, record, charts.draw(name, row, record, folder))
    page = folder / PAGE
    page.write_text("\n".join(lines) + "\n")
    return page


def _section(name: str, row: Row, record: Record, chart: Path | None) -> list[str]:
    lines = ["", row.title, "~" * len(row.title), "", row.about, ""]
    busy = " and ".join(f"{load:.1f}" for load in record.load)
    runs = f"{record.runs} interleaved run{'s' if record.runs > 1 else ''}"
    small = " Small sizes, to see that it runs: the figures mean nothing." if record.quick else ""
    lines += [
        f"``python -m benchmarks --only {name}``, {record.when}; {runs}; load before and after: {busy}.{small}",
        "",
    ]
    if chart is not None:
        alt = f"    :alt: {row.title}: the medians of the table below."
        lines += [f".. image:: {chart.parent.name}/{chart.name}", alt, ""]
    lines += _matrix(row, record) if name == "sizes" else _cells(row, record)
    return lines + _insides(record)


def _cells(row: Row, record: Record) -> list[str]:
    """One line a cell: the ratio first."""
    columns = [key for key in row.columns if any(key in cell.series for cell in record.cells)]
    several = len({cell.case for cell in record.cells}) > 1
    head = [*(["case"] if several else []), "way", "ratio", f"median, {row.unit}", "from, to"]
    head += [row.columns[key][0] for key in columns]
    lines = []
    for cell in record.by_case():
        middle = cell.median("seconds")
        values = cell.series.get("seconds", [])
        spread = f"{_figure(min(values))}, {_figure(max(values))}" if len(values) > 1 else ""
        title = cell.title + (f" ({cell.note})" if cell.note else "")
        line = [*([cell.case] if several else []), title, _ratio(row, record, cell), _figure(middle), spread]
        for key in columns:
            value = cell.median(key)
            line.append("" if value is None else _figure(value * row.columns[key][1]))
        lines.append(line)
    return _table(head, lines)


def _ratio(row: Row, record: Record, cell: Cell) -> str:
    """How many times the time of the reference in the same case; in bold what was faster than it."""
    reference = next((c for c in record.cells if c.case == cell.case and c.way == row.reference), None)
    ours, theirs = reference and reference.median("seconds"), cell.median("seconds")
    if not ours or theirs is None:
        return ""
    ratio = theirs / ours
    text = f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"
    return f"**{text}, faster**" if ratio < 0.995 and cell is not reference else text


def _matrix(row: Row, record: Record) -> list[str]:
    """Cases down, ways across."""
    ways = {cell.way: cell.title for cell in record.cells}
    lines = []
    for case in dict.fromkeys(cell.case for cell in record.cells):
        line = [case]
        for way in ways:
            found = next((cell for cell in record.cells if (cell.case, cell.way) == (case, way)), None)
            line.append("" if found is None else _entry(row, record, found))
        lines.append(line)
    return _table(["size", *ways.values()], lines)


def _entry(row: Row, record: Record, cell: Cell) -> str:
    if cell.note:
        return cell.note
    server = cell.way.rpartition(" ")[2]
    ours = next((c for c in record.cells if c.case == cell.case and c.way == f"{row.reference}, {server}"), None)
    base, middle = ours and ours.median("seconds"), cell.median("seconds")
    if not base or middle is None or cell is ours:
        return _figure(middle)
    ratio = f"{middle / base:.2f}"
    return f"{_figure(middle)} ({f'**{ratio}, faster**' if middle < 0.995 * base else ratio})"


def _insides(record: Record) -> list[str]:
    """What is inside the time, by way."""
    told = dict.fromkeys((cell.title, cell.inside) for cell in record.cells if cell.inside)
    if not told:
        return []
    return ["", "Inside the time:", "", *(f"* {title}: {inside}." for title, inside in told)]


def _figure(value: float | None) -> str:
    if value is None:
        return "—"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    text = [".. list-table::", "    :header-rows: 1", ""]
    for line in [head, *lines]:
        for index, field in enumerate(line):
            text.append(f"    {'* -' if index == 0 else '  -'} {field}".rstrip())
    return [*text, ""]
