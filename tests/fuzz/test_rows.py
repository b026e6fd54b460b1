"""Rows of a database that somebody has written, with checksums that hold."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.state._tables import BY_RECORD, TABLES
from slixmpp_bt.state.records import Record

from ..records import RECORDS
from . import cursory, patient

words = st.sampled_from([
    "", "[]", "{}", "null", "[[1]]", '{"swarm": -1}', '{"swarm": 1e400}', '{"x": 1}', '[["a@b", 1]]', '[["@", "x"]]',
    "NaN", "[" * 50_000, "a@b/c", "@", "/", "a" * 3_072 + "@b", "sealed", "complete", "running", "\0", "\ud800", "0",
])  # fmt: skip
cells: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.integers(), st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, -(2**63)]), st.floats(), words, st.text(),
    st.binary(max_size=64), st.sampled_from([b"/x", b"x", b"/\0", b"/" * 40_000, bytes(32), b"\xff" * 16]),
)  # fmt: skip


def read(table: Any, row: list[Any]) -> None:
    """It is a record, which can be written again, or refused."""
    try:
        record = table.record_of([*row, table._checksum(row)])
    except ValueError:
        return
    assert table.record_of(table.row(record)) == record or record != record  # a float that is no number


@patient
@given(st.data())
@cursory
def test_row_of_any_cells_is_a_record_or_refused(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES))
    read(table, [data.draw(cells) for _ in table.columns])


@patient
@given(RECORDS, st.data())
@cursory
def test_row_with_some_cells_changed_is_a_record_or_refused(record: Record, data: st.DataObject) -> None:
    table = BY_RECORD[type(record)]
    *row, _ = table.row(record)
    for _ in range(data.draw(st.integers(1, 3))):
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(cells)
    read(table, row)
