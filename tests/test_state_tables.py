"""Records and rows: whatever is kept comes back equal, and a row that was changed is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.state import (
    Record,
)
from slixmpp_bt.state._database import Database, saving
from slixmpp_bt.state._tables import BY_RECORD, MIGRATIONS, TABLES, Mismatch

from .records import RECORDS, blobs, characters, numbers


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with TemporaryDirectory() as directory:
        database = Database(Path(directory) / "x.db")
        database.open()
        yield database
        database.close()


@given(record=RECORDS)
def test_a_record_with_any_values_comes_back_equal(database: Database, record: Record) -> None:
    database.execute([saving(record)])
    found = database.find(BY_RECORD[type(record)], record.key)
    assert found == record
    assert type(found) is type(record)


@given(record=RECORDS, data=st.data())
def test_a_row_with_any_cell_changed_is_refused(record: Record, data: st.DataObject) -> None:
    table = BY_RECORD[type(record)]
    row = list(table.row(record))
    column = data.draw(st.integers(0, len(row) - 1))
    other = data.draw(
        st.one_of(st.none(), numbers, st.floats(), blobs, characters(9)).filter(lambda v: v != row[column])
    )
    row[column] = other
    with pytest.raises(Mismatch):
        table.record_of(row)


@given(record=RECORDS, data=st.data())
def test_a_row_that_is_checked_but_hostile_gives_a_record_or_value_error(record: Record, data: st.DataObject) -> None:
    table = BY_RECORD[type(record)]
    *row, _ = table.row(record)
    column = data.draw(st.integers(0, len(row) - 1))
    row[column] = data.draw(
        st.one_of(st.none(), st.integers(), st.floats(), blobs, st.text(), st.just("[" * 100_000), st.just("[[1]]"))
    )
    try:
        again = table.record_of([*row, table._checksum(row)])
    except ValueError:
        return
    assert table.row(again)[:-1] == tuple(row) or again == table.record_of(table.row(again))


def test_tables_have_the_columns_of_the_schema(database: Database) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for steps in MIGRATIONS:
            for step in steps:
                connection.execute(step)
        for table in TABLES:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
            assert sorted(columns) == sorted([*table.columns, "crc"])
