"""One statement for many rows: whatever their number, all of them, in their order."""

import sqlite3
from contextlib import closing

import pytest

from jobrunner.store.sqlite.sql.bulk import Many

ADD = Many("INSERT INTO words (number, word)", "(?, ?)")
CHANGE = Many("UPDATE words SET word = column2 FROM (", "(?, ?)", ") WHERE number = column1")

# Around the sizes in which rows are taken, and what is put together of all of them.
NUMBERS = [0, 1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 85, 200]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_row_is_written_once_and_in_order(number: int) -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE words (seq INTEGER PRIMARY KEY, number INTEGER, word TEXT)")
        rows = [(n, f"word {n}") for n in reversed(range(number))]
        assert ADD.run(conn, rows) == number
        assert conn.execute("SELECT number, word FROM words ORDER BY seq").fetchall() == rows


@pytest.mark.parametrize("number", NUMBERS)
def test_changed_rows_are_counted_without_those_that_are_not_there(number: int) -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE words (seq INTEGER PRIMARY KEY, number INTEGER, word TEXT)")
        ADD.run(conn, [(n, "old") for n in range(0, number, 2)])
        assert CHANGE.run(conn, [(n, "new") for n in range(number)]) == (number + 1) // 2
        assert {word for (word,) in conn.execute("SELECT word FROM words")} <= {"new"}
