"""Runs the functions of ``job.write(fn)`` inside the round that settles the job.

A function gets the store's own connection and may run any statement on the application's tables.  SQLite calls the
authorizer whenever it compiles a statement; the authorizer denies statements that would end or split the round's
transaction, and access to the queue's own tables.
"""

import inspect
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from jobrunner.core.clock import now_s
from jobrunner.core.errors import InvalidWrite, TimedOut
from jobrunner.core.model import Write
from jobrunner.store.reentrancy import in_write
from jobrunner.store.sqlite.driver_errors import primary_code
from jobrunner.store.statements import compiled, is_statement

BUDGET_S: Final = 0.25
"""Time limit for the writes of one job; other writers wait meanwhile."""
OPCODES_PER_CHECK: Final = 10_000
"""SQLite virtual-machine instructions between two checks of the time limit."""

_PREFIX: Final = "jobrunner_"
_REFUSED: Final = {
    sqlite3.SQLITE_TRANSACTION: "BEGIN, COMMIT or ROLLBACK",
    sqlite3.SQLITE_SAVEPOINT: "a SAVEPOINT",
    sqlite3.SQLITE_PRAGMA: "a PRAGMA",
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
}
_OPENERS: Final = ("cursor", "execute", "executemany", "executescript", "blobopen")
_NAME_A_COLUMN: Final = frozenset({sqlite3.SQLITE_READ, sqlite3.SQLITE_UPDATE})
"""Actions whose second argument is a column name; in other actions it may be a table name."""


class WriterConnection(sqlite3.Connection):
    """The write connection; refuses harmful statements while lent to a task's function."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lent = False
        self._refused: str | None = None
        self.set_authorizer(self._authorize)
        self._kept: list[sqlite3.Cursor | sqlite3.Blob] = []
        # They replace the class's methods only while the connection is lent, so that our own calls do not pay for it.
        self._keeping = {name: self._keep(getattr(self, name)) for name in _OPENERS}

    def _keep(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def keeping(*args: Any, **kwargs: Any) -> Any:
            opened = method(*args, **kwargs)
            self._kept.append(opened)
            return opened

        return keeping

    def _authorize(
        self, action: int, first: str | None, second: str | None, _db: str | None, _by: str | None
    ) -> int:
        if not self._lent:
            return sqlite3.SQLITE_OK
        refused = _REFUSED.get(action)
        if refused is None:
            names = (first,) if action in _NAME_A_COLUMN else (first, second)
            if any(name is not None and name.lower().startswith(_PREFIX) for name in names):
                refused = "a table of jobrunner's"
        if refused is None:
            return sqlite3.SQLITE_OK
        self._refused = refused
        return sqlite3.SQLITE_DENY

    def close(self) -> None:
        """Close the connection; raises ``InvalidWrite`` while it is lent."""
        if self._lent:
            raise InvalidWrite("the connection that job.write() lends must not be closed")
        super().close()

    def lend(self, writes: Sequence[Write]) -> None:
        """Call the functions in order, within ``BUDGET_S``.

        Raises:
            InvalidWrite: A function ran a refused statement or is not a plain function.
            TimedOut: The functions took longer than ``BUDGET_S``.
            Exception: A function raised this error.
        """
        deadline_s = now_s() + BUDGET_S
        self._lent, self._refused = True, None
        self.__dict__.update(self._keeping)
        self.set_progress_handler(lambda: now_s() > deadline_s, OPCODES_PER_CHECK)
        name = ""
        try:
            for function, args, context in writes:
                name = _name_of(function)
                answer = context.run(_call, function, self, args)
                if inspect.iscoroutine(answer) or inspect.isgenerator(answer):
                    answer.close()
                    raise InvalidWrite(
                        f"job.write({name}): write a plain `def`; a coroutine or a generator would not run here"
                    )
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise _too_long(name) from error
            if self._refused is None:
                raise
        finally:
            self._lent = False
            for method in self._keeping:
                del self.__dict__[method]
            while self._kept:
                # An unfinished statement (such as an unread RETURNING) would make every later commit fail.
                self._kept.pop().close()
            self.set_progress_handler(None, 0)
            self.row_factory, self.text_factory = None, str
        if self._refused is not None:
            raise InvalidWrite(
                f"job.write({name}) used {self._refused}: it runs inside the transaction that settles the job; write to"
                " your own tables alone, and leave the commit to jobrunner"
            )
        if now_s() > deadline_s:
            raise _too_long(name)


def as_write(what: Any, args: Sequence[object]) -> tuple[Callable[..., object], Sequence[object]]:
    """See ``Store.as_write``."""
    if is_statement(what):
        from sqlalchemy.dialects.sqlite import dialect  # noqa: PLC0415 - its user has imported SQLAlchemy

        if args:
            raise InvalidWrite(
                "job.write(statement) takes the statement alone: its values are in it"
            )
        statement, values = compiled(what, dialect())
        return _execute, (statement, values)
    if not callable(what) or inspect.iscoroutinefunction(what):
        raise InvalidWrite(
            f"job.write() takes a `def` with its arguments, or a statement of SQLAlchemy, not {what!r}"
        )
    return what, args


def _execute(conn: sqlite3.Connection, statement: str, values: Sequence[Any]) -> None:
    conn.execute(statement, values)


def _call(
    function: Callable[..., object], conn: sqlite3.Connection, args: Sequence[object]
) -> object:
    in_write.set(True)  # only in the context of this write
    return function(conn, *args)


def _too_long(name: str) -> TimedOut:
    return TimedOut(
        f"job.write({name}) took longer than {BUDGET_S * 1000:g} ms, and nobody else can write meanwhile: compute in"
        " the task, and write what came out"
    )


def _name_of(function: Any) -> str:
    inner = getattr(function, "func", function)  # of a partial
    return getattr(inner, "__qualname__", repr(inner))


def run(conn: sqlite3.Connection, writes: Sequence[Write]) -> None:
    """Call the functions that a task passed to ``job.write()``; see ``WriterConnection.lend``."""
    assert isinstance(conn, WriterConnection)  # noqa: S101 - rounds are written by the writer alone
    conn.lend(writes)
