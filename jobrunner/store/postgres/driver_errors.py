"""Translates the errors of asyncpg into ``StoreError``."""

import asyncio
from typing import Final

import asyncpg

from jobrunner.core.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReplaced,
    StoreUnavailable,
    StoreUnsupported,
)

DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    asyncio.TimeoutError,
)
CONNECTION_ERRORS: Final = (*DRIVER_ERRORS, ValueError)
"""The errors of ``connect``; a ValueError is about the URL."""

# A broken constraint, or a value that no column can hold: too long, too large a number, a NUL, half of a surrogate.
ROW_ERRORS: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    OverflowError,
    UnicodeEncodeError,
)
HELD_ERRORS: Final = (asyncpg.LockNotAvailableError,)
"""Another open transaction holds a row for longer than this one waits."""
RETRIED_ERRORS: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Another transaction was in the way: the same one again will do."""
NO_SAVEPOINT: Final = (
    asyncpg.InvalidSavepointSpecificationError,
    asyncpg.NoActiveSQLTransactionError,
)
"""The transaction is another one than that in which the savepoint was set, or none."""
UNKNOWN_STATEMENT: Final = asyncpg.InvalidSQLStatementNameError
"""The session does not have a statement that was prepared."""


def is_lost(error: BaseException) -> bool:
    """Return whether the connection has ended, with a commit on its way or without."""
    return isinstance(
        error,
        (
            asyncpg.PostgresConnectionError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.IdleInTransactionSessionTimeoutError,
            asyncpg.InternalClientError,
            asyncpg.InterfaceError,
            OSError,
            asyncio.TimeoutError,
        ),
    ) and not isinstance(error, ROW_ERRORS)


def as_ours(error: BaseException) -> StoreError:  # noqa: C901, PLR0911 - a table
    """Return a driver's error as a ``StoreError``."""
    match error:
        case asyncpg.TargetServerAttributeNotMatched():
            return StoreUnavailable(
                "no server that the URL names takes writes: it is a standby or read-only; name its primary, or all"
                " hosts (postgresql://a,b/jobs)"
            )
        case asyncpg.ProtocolViolationError() if "startup parameter" in str(error):
            return StoreUnsupported(
                f"a pooler lies between this process and the server ({error}): name the server itself in the URL"
            )
        case asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            return StoreBusy(f"another transaction holds what this one needs for too long: {error}")
        case asyncpg.SerializationError():
            return StoreBusy(f"other transactions were in the way: {error}")
        case asyncpg.QueryCanceledError():
            return StoreBusy(f"the server has broken the statement off: {error}")
        case asyncpg.DiskFullError() | asyncpg.OutOfMemoryError():
            return StoreFull(f"the server has no room left: {error}; waiting jobs are safe")
        case asyncpg.DataCorruptedError() | asyncpg.IndexCorruptedError():
            return StoreCorrupt(f"the database is damaged: {error}; stop the service")
        case asyncpg.UndefinedTableError() | asyncpg.InvalidSchemaNameError():
            return StoreReplaced(
                f"the database has lost jobrunner's tables ({error}): restore a backup, or drop what is left of the"
                " schema `jobrunner` and restart to begin anew"
            )
        case asyncpg.InsufficientPrivilegeError():
            return StoreUnavailable(f"the role lacks a right: {error}")
        case asyncpg.TooManyConnectionsError():
            return StoreUnavailable(f"the server has no connection left: {error}")
        case asyncpg.FeatureNotSupportedError():
            return StoreUnsupported(f"the server cannot do this: {error}")
        case _:
            return StoreUnavailable(f"the database: {str(error) or type(error).__name__}")
