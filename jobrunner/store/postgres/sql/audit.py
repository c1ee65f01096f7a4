"""Writes and reads the audit log inside an open transaction."""

from typing import Final

from jobrunner.core.audit import Action, AuditRow
from jobrunner.core.clock import SECOND_US
from jobrunner.store.postgres.sql import walks
from jobrunner.store.postgres.sql.lanes import changed
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.sql.walks import Condition, Rows
from jobrunner.store.protocol import AuditPage

FORMS_KEPT_US: Final = 3_600 * SECOND_US
"""A form that is sent again within this time has acted already."""
_COLUMNS: Final = "at, actor, action, target, filter, count, reason"


async def record(tx: Transaction, form: str | None, at: int, *values: object) -> int | None:
    """Store an entry (actor, action, target, filter, reason) without a count; return its number.

    Return None if an act of the form was recorded in the last hour.
    """
    if form is not None:
        # Those of the future were stored before the clock was set back.
        await tx.execute(
            "DELETE FROM jobrunner.meta WHERE name LIKE 'form:%'"
            " AND (value::bigint < $1 OR value::bigint > $2)",
            *(at - FORMS_KEPT_US, at + FORMS_KEPT_US),
        )
        status = await tx.execute(
            "INSERT INTO jobrunner.meta VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            *(f"form:{form}", str(at)),
        )
        if not changed(status):
            return None
    number = await tx.fetchval(
        "INSERT INTO jobrunner.audit (at, actor, action, target, filter, reason)"
        " VALUES ($1, $2, $3, $4, $5, $6) RETURNING entry",
        *(at, *values),
    )
    return int(number)


async def forget_form(tx: Transaction, form: str) -> None:
    """Let a form act again."""
    await tx.execute("DELETE FROM jobrunner.meta WHERE name = $1", f"form:{form}")


async def finish(tx: Transaction, entry: int, count: int) -> None:
    """Store the count of an entry."""
    await tx.execute("UPDATE jobrunner.audit SET count = $1 WHERE entry = $2", count, entry)


async def entries(
    tx: Transaction, actor: str | None, action: Action | None, before: int | None, limit: int
) -> AuditPage:
    """Return a page of the entries, newest first."""
    where = Condition()
    for test, value in (("actor = {}", actor), ("action = {}", action)):
        if value is not None:
            where.add(test, value)
    rows = Rows("jobrunner.audit", "entry", where)
    found = await walks.page(tx, rows, _COLUMNS, before, limit)
    return AuditPage([AuditRow(*row) for row in found.rows], found.next, found.complete)


async def prune(tx: Transaction, before: int, limit: int) -> int:
    """Delete one slice of the entries from before ``before``; return their number.

    The table has no index on the time: only the oldest ``limit`` entries are read.
    """
    status = await tx.execute(
        "DELETE FROM jobrunner.audit WHERE at < $1"
        " AND entry IN (SELECT entry FROM jobrunner.audit ORDER BY entry LIMIT $2)",
        *(before, limit),
    )
    return changed(status)
