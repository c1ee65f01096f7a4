"""Runs the functions of ``job.write(fn)`` inside the round that settles the job."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

import asyncpg

from jobrunner.core.errors import InvalidWrite, TimedOut
from jobrunner.core.model import Write
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.reentrancy import in_write
from jobrunner.store.statements import compiled, is_statement

BUDGET_S: Final = 0.25
"""Time limit for the writes of one job: the process's other rounds wait meanwhile."""

IS_SAME: Final = "pg_current_xact_id_if_assigned()::text"
"""Compare it with ``Transaction.number``: another transaction has another number, and none has no number."""


class TransactionEnded(InvalidWrite):
    """A function has committed or rolled back the transaction that settles the job."""


async def run_writes(tx: Transaction, writes: Sequence[Write]) -> None:
    """Call the functions that a task passed to ``job.write()``, in order, within ``BUDGET_S``.

    The next statement must make sure that it is in the same transaction.

    Raises:
        InvalidWrite: A function is not an ``async def``.
        TransactionEnded: A function has ended the transaction and raised an error.
        TimedOut: The functions took longer than ``BUDGET_S``.
        Exception: A function raised this error.
    """
    await tx.number()
    name = ""
    try:
        async with asyncio.timeout(BUDGET_S):
            for function, args, context in writes:
                name = _name_of(function)
                answer = context.run(function, tx.connection, *args)
                if not inspect.iscoroutine(answer):
                    raise _not_async(name)
                context.run(in_write.set, True)
                running = cast("Coroutine[Any, Any, object]", answer)
                await asyncio.get_running_loop().create_task(running, context=context)
    except TimeoutError as error:
        raise TimedOut(
            f"job.write({name}) took longer than {BUDGET_S * 1000:g} ms, and the other jobs of this process wait"
            " meanwhile: compute in the task, and write what came out"
        ) from error
    except Exception:
        # If an error has aborted it, the savepoint will show whether it is still the same transaction.
        with contextlib.suppress(asyncpg.InFailedSQLTransactionError):
            await refuse_other(tx, writes)
        raise


async def refuse_other(tx: Transaction, writes: Sequence[Write]) -> None:
    """Raise if the connection has left the transaction of before the writes.

    Raises:
        TransactionEnded: A function has ended the transaction.
    """
    if await tx.fetchval(f"SELECT {IS_SAME}") != await tx.number():
        raise TransactionEnded(
            f"job.write({_names_of(writes)}) has ended the transaction that settles the job: leave the commit to"
            " jobrunner"
        )


def ended_savepoint(writes: Sequence[Write]) -> InvalidWrite:
    """Return the error for writes that have ended the savepoint of their job."""
    return InvalidWrite(
        f"job.write({_names_of(writes)}) has ended a savepoint that it did not set: leave jobrunner's savepoints alone"
    )


def _names_of(writes: Sequence[Write]) -> str:
    return ", ".join(_name_of(function) for function, *_ in writes)


def as_write(what: Any, args: Sequence[object]) -> tuple[Callable[..., object], Sequence[object]]:
    """See ``Store.as_write``."""
    if is_statement(what):
        from sqlalchemy.dialects.postgresql.asyncpg import dialect  # noqa: PLC0415 - its user has imported SQLAlchemy

        if args:
            raise InvalidWrite(
                "job.write(statement) takes the statement alone: its values are in it"
            )
        make: Any = dialect  # it has no types
        statement, values = compiled(what, make())
        return _execute, (statement, values)
    if not callable(what):
        raise InvalidWrite(
            f"job.write() takes an `async def` with its arguments, or a statement of SQLAlchemy, not {what!r}"
        )
    inner = getattr(what, "func", what)  # of a partial
    if inspect.isfunction(inner) and not inspect.iscoroutinefunction(inner):
        raise _not_async(_name_of(what))
    return what, args


async def _execute(connection: Statements, statement: str, values: Sequence[Any]) -> None:
    await connection.execute(statement, *values)


def _not_async(name: str) -> InvalidWrite:
    return InvalidWrite(
        f"job.write({name}): on PostgreSQL write an `async def` that takes the connection (of asyncpg), or pass a"
        " statement of SQLAlchemy, which both stores take"
    )


def _name_of(function: Any) -> str:
    inner = getattr(function, "func", function)  # of a partial
    return getattr(inner, "__qualname__", repr(inner))
