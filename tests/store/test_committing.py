"""The text of a statement says whether it commits, as the file itself shows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobrunner.store.sqlite.sessions.committing import Statement, Transactions

INSERT = "INSERT INTO t VALUES (1)"
AUTOCOMMIT: dict[str, Any] = {"isolation_level": None}
DRIVER: dict[str, Any] = {}

CASES: list[tuple[dict[str, Any], list[str]]] = [
    (DRIVER, [INSERT, "SELECT * FROM t", "COMMIT"]),
    (DRIVER, [INSERT, "-- a comment; COMMIT\n /* and\n another */ ; eNd TRANSACTION;"]),
    (DRIVER, [INSERT, "/* COMMIT */ SELECT 1", "ROLLBACK", "SELECT 'COMMIT'"]),
    (DRIVER, [INSERT, "SAVEPOINT one", INSERT, "RELEASE one", "COMMIT"]),
    (DRIVER, ["CREATE TABLE u (x)", "ALTER TABLE u ADD COLUMN y", "DROP TABLE u"]),
    (DRIVER, ["WITH one AS (SELECT 1) INSERT INTO t SELECT * FROM one"]),
    (DRIVER, ["WITH one AS (SELECT 1) SELECT * FROM one", "PRAGMA user_version"]),
    (DRIVER, ["PRAGMA user_version = 7", "PRAGMA application_id(7)", "ANALYZE", "VACUUM"]),
    (DRIVER, ["BEGIN", "DELETE FROM t", "COMMIT", "BEGIN EXCLUSIVE", INSERT, "END"]),
    (AUTOCOMMIT, [INSERT, "UPDATE t SET x = 2", "REPLACE INTO t VALUES (3)", "DELETE FROM t"]),
    (AUTOCOMMIT, ["SAVEPOINT one", INSERT, "RELEASE one", INSERT]),
    (AUTOCOMMIT, ["SAVEPOINT one", INSERT, "ROLLBACK", "BEGIN", INSERT, "COMMIT"]),
    (AUTOCOMMIT, ["BEGIN", INSERT, "SAVEPOINT one", "RELEASE one", "COMMIT"]),
    (AUTOCOMMIT, ["", "-- nothing", "SELECT 1"]),
]


@contextmanager
def opened(path: Path, options: dict[str, Any]) -> Iterator[sqlite3.Connection]:
    """Open a file with a table."""
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
    with closing(sqlite3.connect(path, **options)) as conn:
        yield conn


@pytest.mark.parametrize(("options", "statements"), CASES)
def test_statement_that_commits_is_found_before_it_runs(
    tmp_path: Path, options: dict[str, Any], statements: list[str]
) -> None:
    transactions = Transactions()
    path = tmp_path / "a.db"
    with opened(path, options) as conn, closing(sqlite3.connect(path)) as other:

        def version() -> Any:
            return other.execute("PRAGMA data_version").fetchone()

        for sql in statements:
            statement, before = Statement(sql), version()
            expected = transactions.may_commit(conn, statement)
            assert statement.is_suspect or not expected
            conn.execute(sql).close()
            assert expected == (version() != before), sql


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM t WHERE x = 9"],
        ["REINDEX t"],
        ["SAVEPOINT one", "SAVEPOINT two", "RELEASE two"],
    ],
)
def test_statement_that_may_commit_nothing_is_found_too(
    tmp_path: Path, statements: list[str]
) -> None:
    """A guard is called once more than needed, which does no harm."""
    transactions = Transactions()
    with opened(tmp_path / "a.db", AUTOCOMMIT) as conn:
        found = []
        for sql in statements:
            found.append(transactions.may_commit(conn, Statement(sql)))
            conn.execute(sql)
        assert found[-1]


@pytest.mark.parametrize("sql", ["SELECT 1", "INSERT INTO t VALUES (1)"])
def test_script_commits_what_is_open_before_it(tmp_path: Path, sql: str) -> None:
    with opened(tmp_path / "a.db", DRIVER) as conn:
        script = Statement(sql, is_script=True)
        assert Transactions().may_commit(conn, script) == ("INSERT" in sql)
        conn.execute(INSERT)
        assert Transactions().may_commit(conn, script)


def test_what_is_no_text_is_left_to_the_driver(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db", AUTOCOMMIT) as conn:
        assert not Transactions().may_commit(conn, Statement(7))


@pytest.mark.skipif(
    not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"), reason="sqlite3 has it since Python 3.12"
)
@pytest.mark.parametrize(("autocommit", "expected"), [(True, True), (False, False)])
def test_autocommit_of_newer_drivers_decides(
    tmp_path: Path, autocommit: bool, expected: bool
) -> None:
    with opened(tmp_path / "a.db", {"autocommit": autocommit}) as conn:
        assert Transactions().may_commit(conn, Statement(INSERT)) is expected
