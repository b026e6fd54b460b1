"""benchmarks/: every row runs, what it says is well-formed, and nothing is asserted about speed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.__main__ import ROWS
from benchmarks.record import Cell, Record, load, save
from benchmarks.rows import QUICK, Scale, in_words
from benchmarks.ways import Trip

ROOT = Path(__file__).parent.parent
#: What the dependency group "bench" brings.
OPTIONAL = ("aiohttp", "wormhole", "matplotlib")


def cells(record: Record) -> dict[tuple[str, str], Cell]:
    return {(cell.case, cell.way): cell for cell in record.cells}


def record(**series: list[float]) -> Record:
    made = Record("large", 3, quick=False, when="2026-01-01 00:00 UTC", load=[0.0, 0.5])
    for way, seconds in series.items():
        cell = made.cell("1 GiB", way, f"the way {way}", "everything")
        for value in seconds:
            made.add(cell, Trip(value))
    return made


@pytest.mark.server
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ROWS)
def test_quick_setting_runs_the_row(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", name, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stdout + done.stderr
    results = load(tmp_path / "results.json")
    assert list(results["rows"]) == [name]
    cells = results["rows"][name].cells
    assert not {f"{cell.case}, {cell.title}: {cell.note}" for cell in cells if not cell.series and not excused(cell)}
    assert ROWS[name].title in (tmp_path / report.PAGE).read_text()
    assert (tmp_path / f"{name}.svg").exists() == (importlib.util.find_spec("matplotlib") is not None)


def excused(cell: Cell) -> bool:
    """What is not installed cannot run."""
    return any(f"'{name}'" in cell.note for name in OPTIONAL if importlib.util.find_spec(name) is None)


def test_results_when_read_again_are_the_same(tmp_path: Path) -> None:
    before = record(private=[1.0, 2.0], raw=[0.5])
    path = tmp_path / "results.json"
    save(path, {"machine": {"memory": "1 GiB"}, "rows": {"large": before}})
    after = load(path)
    assert after["rows"]["large"] == before
    assert after["machine"] == {"memory": "1 GiB"}
    assert json.loads(path.read_text())["rows"]["large"]["cells"][0]["series"] == {"seconds": [1.0, 2.0]}


def test_report_when_a_peer_is_faster_says_so(tmp_path: Path) -> None:
    made = record(private=[2.0, 4.0, 3.0], raw=[1.5, 1.5, 1.5], slow=[30.0, 30.0, 30.0])
    page = report.write(tmp_path, {"memory": "1 GiB"}, [("large", ROWS["large"], made)]).read_text()
    assert "**0.50, faster**" in page
    assert "- 10.00" in page
    assert page.count("faster") == 1
    assert "2, 4" in page  # the spread of the reference
    assert "the way raw: everything." in page


def test_report_when_a_way_failed_says_why(tmp_path: Path) -> None:
    made = record(private=[1.0])
    made.fail(made.cell("1 GiB", "broken", "the broken way"), RuntimeError("<a>not</a> today\nstack"))
    page = report.write(tmp_path, {}, [("large", ROWS["large"], made)]).read_text()
    assert "the broken way (failed: not today stack)" in page


def test_sample_that_stands_for_a_larger_file_is_multiplied() -> None:
    made = Record("large", 1, quick=False)
    cell = made.cell("1 GiB", "in-band")
    made.add(cell, Trip(2.0, {"sender cpu": 1.0}), 64.0)
    assert cell.series == {"seconds": [128.0], "sender cpu": [1.0]}


def test_cell_of_same_way_and_case_is_one() -> None:
    made = record(private=[1.0])
    assert made.cell("1 GiB", "private") is cells(made)["1 GiB", "private"]
    assert made.cell("1 KiB", "private") is not cells(made)["1 GiB", "private"]


@given(st.integers(0, 1 << 50))
def test_size_in_words_is_within_a_thousandth(size: int) -> None:
    number, unit = in_words(size).split()
    words = float(number) * {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[unit]
    assert words == pytest.approx(size, rel=1e-3)


def test_quick_setting_is_smaller_everywhere() -> None:
    full = Scale()
    assert QUICK.large < full.large
    assert set(QUICK.sizes) < set(full.sizes)
    assert QUICK.idle < full.idle
    assert QUICK.small < full.small
