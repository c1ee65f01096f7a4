"""Translates the errors of the application's drivers by their SQLSTATE."""

from collections.abc import Sequence
from typing import Final

from jobrunner.core.errors import (
    InvalidSession,
    JobRunnerError,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
)
from jobrunner.core.sqlstate import states_of

CLOSED: Final = "the connection is closed: enqueue before the block ends that opened it"
IN_TRANSACTION: Final = (
    "the session is in a transaction already and has written in it, and the transaction of the job cannot begin in the"
    " middle of it: commit or roll back first, or use another session"
)
NO_TRANSACTION: Final = (
    "the connection is in autocommit mode and in no transaction, so the job would be there before your rows: write"
    " `async with connection.transaction():` around both (with psycopg also `autocommit=False`, with SQLAlchemy no"
    ' isolation_level="AUTOCOMMIT")'
)
_ABORTED: Final = (
    "the session's transaction was aborted by an earlier error, and everything in it will be rolled back: let that"
    " error out of the block, roll back, or run what may fail inside a savepoint, as by"
    " `async with session.begin_nested():`"
)


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost: a commit may have happened or not."""
    state = next(states_of(error), None)
    if state is None:
        # Errors of a server have a state; those of a connection have none.
        return True
    return state.startswith(("08", "57P"))


_DRIVERS: Final = ("asyncpg", "psycopg", "psycopg2")

_ERRORS: Final[Sequence[tuple[Sequence[str], type[JobRunnerError], str]]] = (
    (("25P01",), InvalidSession, NO_TRANSACTION),
    (("25P02",), InvalidSession, _ABORTED),
    (("25006",), InvalidSession, "the session's transaction is read-only, and a job is a row"),
    (
        ("3F000", "42P01"),
        InvalidSession,
        (
            "the session's database has no tables of jobrunner, and the jobs are in {store}: one transaction cannot"
            " span both ({text})"
        ),
    ),
    (
        ("42501",),
        InvalidSession,
        (
            "the role of the session lacks a right ({text}): GRANT USAGE ON SCHEMA jobrunner and SELECT, INSERT,"
            " UPDATE, DELETE ON ALL TABLES IN SCHEMA jobrunner to it"
        ),
    ),
    (
        ("55P03",),
        StoreBusy,
        (
            "another open transaction holds the key or the lane of a job for too long ({text}); the session's"
            " transaction goes on without it"
        ),
    ),
    (("40001", "40P01", "57014"), StoreBusy, "other transactions were in the way: {text}"),
    (("22", "23", "54"), StoreUnavailable, "the store refuses the row of a job: {text}"),
    (("53",), StoreFull, "the server has no room left: {text}"),
    (("",), StoreUnavailable, "the database: {text}"),
)
"""The beginnings of SQLSTATEs, the first that fits counts; with the error and its message."""


def as_session_error(error: Exception, store: str) -> JobRunnerError | None:
    """Return a driver's error as the session's user sees it; None for another error."""
    state = next(states_of(error), None)
    if state is None:
        cause = getattr(error, "orig", None) or error
        if type(cause).__module__.partition(".")[0] not in _DRIVERS:
            return None
        state = "08"
    text = str(error).partition("\n")[0]
    for beginnings, kind, message in _ERRORS:
        if state.startswith(tuple(beginnings)):
            return kind(message.format(text=text, store=store))
    raise AssertionError("not reached")
