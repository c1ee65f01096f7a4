"""Writes and reads the audit log inside an open transaction."""

import sqlite3
from typing import Any, Final

from jobrunner.core.audit import Action
from jobrunner.core.clock import SECOND_US
from jobrunner.store.sqlite.sql import walks
from jobrunner.store.sqlite.sql.walks import Position, Rows, Step

FORMS_KEPT_US: Final = 3_600 * SECOND_US
"""A form that is sent again within this time has acted already."""
_FORM: Final = "form:"
_KEEP_FORM: Final = (
    "INSERT INTO jobrunner_meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
)
# Those of the future were stored before the clock was set back.
_FORGET_OLD_FORMS: Final = """
DELETE FROM jobrunner_meta WHERE name >= 'form:' AND name < 'form;' AND (value < ? OR value > ?)"""


def record(
    conn: sqlite3.Connection,
    at: int,
    actor: str,
    action: Action,
    target: str | None,
    filter: str | None,
    reason: str | None,
) -> int:
    """Store an entry without a count, and return its number."""
    (entry,) = conn.execute(
        """
        INSERT INTO jobrunner_audit (at, actor, action, target, filter, reason) VALUES (?, ?, ?, ?, ?, ?)
        RETURNING entry
        """,
        (at, actor, action, target, filter, reason),
    ).fetchone()
    return int(entry)


def record_form(conn: sqlite3.Connection, form: str, at: int, *entry: Any) -> int | None:
    """Store the entry of an act of a form, and that it has acted; return None if it had before."""
    conn.execute(_FORGET_OLD_FORMS, (at - FORMS_KEPT_US, at + FORMS_KEPT_US))
    if not conn.execute(_KEEP_FORM, (_FORM + form, at)).rowcount:
        return None
    return record(conn, at, *entry)


def forget_form(conn: sqlite3.Connection, form: str) -> None:
    """Let a form act again."""
    conn.execute("DELETE FROM jobrunner_meta WHERE name = ?", (_FORM + form,))


def finish(conn: sqlite3.Connection, entry: int, count: int) -> None:
    """Store the count of an entry."""
    conn.execute("UPDATE jobrunner_audit SET count = ? WHERE entry = ?", (count, entry))


def entries(
    conn: sqlite3.Connection,
    actor: str | None,
    action: Action | None,
    position: Position | None,
    limit: int,
    room: int,
) -> Step:
    """Run one step of a walk through the entries, newest first."""
    tests = [("actor = ?", actor), ("action = ?", action)]
    asked = [(test, value) for test, value in tests if value is not None]
    rows = Rows(
        "jobrunner_audit",
        "NOT INDEXED",
        "entry",
        " AND ".join(test for test, _ in asked) or "TRUE",
        tuple(value for _, value in asked),
    )
    columns = "at, actor, action, target, filter, count, reason"
    return walks.step(conn, rows, columns, position, limit=limit, room=room)


def prune(conn: sqlite3.Connection, before: int, limit: int) -> int:
    """Delete one slice of the entries from before ``before``; return their number.

    The table has no index on the time: only the oldest ``limit`` entries are read.
    """
    return conn.execute(
        """
        DELETE FROM jobrunner_audit
        WHERE entry IN (SELECT entry FROM jobrunner_audit ORDER BY entry LIMIT ?) AND at < ?
        """,
        (limit, before),
    ).rowcount
