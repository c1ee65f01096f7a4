"""Commits an application's rows together with the end of their job.

Serves ``job.transaction()`` and injected sessions.  The job is settled through the application's session, guarded by
its lease: the rows exist if and only if the job has succeeded, and an attempt that has lost its lease writes nothing.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Final

from jobrunner.core.clock import now_us
from jobrunner.core.errors import (
    ConfigurationError,
    InvalidSession,
    InvalidTask,
    InvalidWrite,
    LeaseLost,
    WrongThread,
)
from jobrunner.core.logs import log_of
from jobrunner.core.model import RESULT_PENDING, Ended, Enqueue, Memo, Returned, Succeeded
from jobrunner.core.shield import at_once, to_the_end
from jobrunner.core.sqlstate import is_in_the_way
from jobrunner.store.protocol import Store
from jobrunner.store.reentrancy import TransactionScope
from jobrunner.store.session import Session
from jobrunner.tasks.dependencies import Dependency
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.dependencies import AttemptScope, InThread, Resolved
from jobrunner.worker.outcomes import extra
from jobrunner.worker.parking import attempt_steps_of
from jobrunner.worker.steps import AttemptSteps
from jobrunner.worker.thread_pool import Threads

logger = log_of("jobrunner")

MOST_AGAIN: Final = 20
"""The number of times that an attempt may be given back; each one has a lease and no number."""


class Transactions:
    """Settles attempts through sessions of the application.

    Args:
        store: The store.
        session: The dependency that yields the application's session, or the error why a task cannot use it; None if
            the runner has no ``session=``.
        notify: Called after a commit that may have stored or unblocked jobs.
    """

    def __init__(
        self,
        store: Store,
        session: Dependency | InvalidTask | None,
        notify: Callable[[], None],
    ) -> None:
        self.store = store
        self.session = session
        self.notify = notify
        self._warned: set[str] = set()

    def session_of(self, attempt: Attempt) -> Session | None:
        """Return the session that was injected into the attempt; None without one."""
        if not isinstance(self.session, Dependency) or attempt.resolved is None:
            return None
        source = attempt.resolved.value_of(self.session.call)
        return None if source is None else self.store.session(source)

    def were_in_the_way(self, attempt: Attempt, error: BaseException) -> bool:
        """Return whether other transactions have broken off that of the attempt's session.

        The attempt is then made again without counting. One that meets others each time counts at last.
        """
        job = attempt.job
        return (
            not attempt.stopped
            and attempt.transaction_ended is None
            and job.lease - job.attempt < MOST_AGAIN
            and is_in_the_way(error)
            and isinstance(self.session, Dependency)
            and attempt.resolved is not None
            and attempt.resolved.value_of(self.session.call) is not None
        )

    async def settle(self, attempt: Attempt, success: Succeeded, threads: Threads) -> None:
        """Commit the rows of the attempt's injected session with the end of the job.

        Sets ``attempt.has_committed`` if the session had changes. Without changes the job is settled like any other.

        Raises:
            LeaseLost: Another worker has taken over the job; everything was rolled back.
            InvalidWrite: The task also used ``job.write()``; everything was rolled back.
            Exception: The commit failed; everything was rolled back.
        """
        session = self.session_of(attempt)
        if session is None:
            return
        if session.blocking:
            blocking: Session = session
            await to_the_end(threads.run(lambda: at_once(self._settle(attempt, success, blocking))))
        else:
            await to_the_end(self._settle(attempt, success, session))

    async def _settle(self, attempt: Attempt, success: Succeeded, session: Session) -> None:
        job = attempt.job
        has_changes = await session.has_changes()
        if await session.has_committed():
            self._warn_of_commit(attempt)
        if not has_changes:
            return
        if success.writes:
            await session.rollback()
            raise InvalidWrite(
                "job.write() and rows in an injected session are two transactions: write all of it through the session,"
                " or all of it by job.write()"
            )
        try:
            if not await session.settle(success, now=now_us()):
                raise LeaseLost(f"{job.task} {job.id} was taken away from this worker")
            await session.commit()
        except BaseException:
            await session.rollback()
            raise
        attempt.has_committed = True
        self.notify()

    async def check_behind(self, attempt: Attempt, threads: Threads) -> None:
        """Roll back and log what an attempt has written behind its transaction."""
        with contextlib.suppress(Exception):  # for example because the task has closed the session
            session = self.session_of(attempt)
            if session is None:
                return
            if session.blocking:
                blocking: Session = session
                has_changes = await to_the_end(
                    threads.run(lambda: at_once(_roll_back_changes(blocking)))
                )
            else:
                has_changes = await _roll_back_changes(session)
            if has_changes:
                job = attempt.job
                logger.error(
                    "%s %s has written through its session after its transaction had settled it, and that is not"
                    " committed: let the block be its last part",
                    job.task,
                    job.id,
                    extra=extra(job),
                    like=job.task,
                )

    def _warn_of_commit(self, attempt: Attempt) -> None:
        self.warn_once(
            attempt,
            "%s commits its session itself: those rows are there before the job is settled, and once more if it runs"
            " again. Leave the commit to jobrunner, or use `async with job.transaction()`",
        )

    def warn_once(self, attempt: Attempt, message: str) -> None:
        """Warn once per task about the use of its session; the message has a ``%s`` for its name."""
        job = attempt.job
        if job.task not in self._warned:
            self._warned.add(job.task)
            # `like`: each task logs this line once, and the eleventh task must not count as a flood.
            logger.warning(message, job.task, extra=extra(job), like=job.task)


class Transaction:
    """The context manager that ``JobContext.transaction`` returns."""

    def __init__(
        self,
        attempt: Attempt,
        transactions: Transactions,
        threads: Threads,
        around: AttemptScope,
        step: str | None = None,
    ) -> None:
        self._attempt = attempt
        self._transactions = transactions
        self._threads = threads
        self._around = around
        self._session: Session | None = None
        self._scope: TransactionScope | None = None
        self._ended: Ended | None = None
        self._step = step
        self._memo: Memo | None = None
        """The memo of the step that the block ends; None if the block settles the job."""
        self._had_committed = False
        """True if the session was committed before: then a commit inside the block cannot be detected."""
        self._write_lock: AbstractAsyncContextManager[None] | None = None
        self._blocking_write_lock: AbstractContextManager[None] | None = None

    # -- in async tasks ---------------------------------------------------------------

    async def __aenter__(self) -> Any:
        """Begin the transaction, and return the application's session; None if its step is done.

        Raises:
            LeaseLost: Another worker has taken over the job.
            StoreBusy: Other writers held the write lock for too long.
        """
        store = self._transactions.store
        dependency = self._dependency()
        if self._step is not None:
            self._memo = await self._steps.begin_transaction(self._step)
            if self._memo is None:
                return None
        source = await self._source(dependency, self._in_thread)
        session = store.session(source)
        lock = store.write_lock(self._holder)
        await lock.__aenter__()
        try:
            try:
                await to_the_end(self._begin(session))
            except asyncio.CancelledError:
                # The transaction has begun all the same.
                await to_the_end(session.rollback())
                raise
        except BaseException:
            await lock.__aexit__(None, None, None)
            raise
        self._write_lock = lock
        self._enter(session, source)
        return source

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, or roll back after an error."""
        lock = self._write_lock
        if lock is None:
            return  # the step is done
        try:
            self._leave()
            await to_the_end(self._end(error))
        finally:
            await lock.__aexit__(None, None, None)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await to_the_end(self._threads.run(function))

    # -- in `def` tasks ---------------------------------------------------------------

    def __enter__(self) -> Any:
        """Begin the transaction, and return the application's session; raises like ``__aenter__``."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - as get_running_loop(), without an error to catch
            raise WrongThread("in an `async` task write `async with job.transaction() as tx:`")
        store = self._transactions.store
        dependency = self._dependency()
        if self._step is not None:
            steps, step = self._steps, self._step
            self._memo = steps.wait(lambda: steps.begin_transaction(step))
            if self._memo is None:
                return None
        session, source = self._blocking_session(dependency)
        lock = store.blocking_write_lock(self._holder)
        lock.__enter__()
        try:
            at_once(self._begin(session))
        except BaseException:
            lock.__exit__(None, None, None)
            raise
        self._blocking_write_lock = lock
        self._enter(session, source)
        return source

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, or roll back after an error."""
        lock = self._blocking_write_lock
        if lock is None:
            return  # the step is done
        try:
            self._leave()
            at_once(self._end(error))
        finally:
            lock.__exit__(None, None, None)

    def _blocking_session(self, dependency: Dependency) -> tuple[Session, Any]:
        async def here(function: Callable[[], Any]) -> Any:
            return function()

        advice = (
            "a `def` task needs a session that does not wait for the event loop: a dependency that is a `def` and"
            " yields a Session of SQLAlchemy or a sqlite3.Connection. Or write the task as `async def`"
        )
        if _waits(dependency):
            raise InvalidSession(f"job.transaction(): {advice}")
        source = at_once(self._source(dependency, here))
        session = self._transactions.store.session(source)
        if not session.blocking:
            raise InvalidSession(f"job.transaction(): {advice}")
        return session, source

    # -- both -------------------------------------------------------------------------

    @property
    def _steps(self) -> AttemptSteps:
        return attempt_steps_of(self._attempt)

    @property
    def _holder(self) -> str:
        return f"{self._attempt.job.task} {self._attempt.job.id}"

    def _dependency(self) -> Dependency:
        session = self._transactions.session
        if session is None:
            raise ConfigurationError(
                "job.transaction() opens the application's session, and this runner knows none: write"
                " JobRunner(..., session=get_session)"
            )
        if isinstance(session, InvalidTask):
            raise ConfigurationError(f"job.transaction(): {session}") from session
        if self._attempt.transaction_ended is not None:
            raise LeaseLost(
                "a transaction of this attempt has settled the job already: put what belongs together into one block"
            )
        return session

    async def _source(self, dependency: Dependency, in_thread: InThread) -> Any:
        resolved = self._resolved()
        # Use a session that was injected in another scope too: a second session would wait for the first one.
        held = resolved.value_of(dependency.call)
        return await resolved.add(dependency, in_thread) if held is None else held

    def _resolved(self) -> Resolved:
        attempt = self._attempt
        if attempt.resolved is None:
            attempt.resolved = Resolved(
                f"{attempt.spec.name} ({attempt.spec.where})", (), self._around
            )
        return attempt.resolved

    async def _begin(self, session: Session) -> None:
        """Begin the write transaction, whose first write checks the lease."""
        job = self._attempt.job
        self._had_committed = await session.has_committed()
        await session.begin()
        try:
            if not await self._write_first(session):
                raise LeaseLost(f"{job.task} {job.id} was taken away from this worker")
        except BaseException:
            await session.rollback()
            raise

    async def _write_first(self, session: Session) -> bool:
        now = now_us()
        if self._memo is not None:
            return await session.keep(self._memo, now=now)
        self._ended = Ended("succeeded", now)
        success = Succeeded(self._attempt.job, self._ended, None, RESULT_PENDING)
        return await session.settle(success, now=now)

    def _enter(self, session: Session, source: Any) -> None:
        self._session = session
        self._scope = TransactionScope(self._transactions.store, source)
        self._scope.enter()

    def _leave(self) -> None:
        if self._scope is not None:
            self._scope.leave()

    async def _end(self, error: BaseException | None) -> None:
        session = self._session
        assert session is not None  # noqa: S101 - entered
        if error is None:
            added: Sequence[Enqueue] = ()
            if self._memo is None:
                added = self._attempt.take_added(
                    "the transaction of this attempt has settled the job"
                )
            try:
                await self._warn_of_commit_inside(session)
                if not await self._is_settled(session):
                    raise InvalidSession(
                        f"{self._holder}: the block has rolled its transaction back, and the end of the job with it:"
                        " leave the block by an exception, or let only a part be undone, as by"
                        " `async with session.begin_nested():`"
                    )
                if added:
                    await session.insert(added, now=now_us())
                await session.commit()
            except BaseException:
                await session.rollback()
                raise
            self._attempt.transaction_ended = self._ended
            self._transactions.notify()
        else:
            await session.rollback()
            with contextlib.suppress(
                Exception
            ):  # the error of the block is raised, not one of the session
                if await self._is_settled(session):
                    # The block has committed before the error.
                    self._attempt.transaction_ended = self._ended
                await session.rollback()

    async def _warn_of_commit_inside(self, session: Session) -> None:
        if self._had_committed or not await session.has_committed():
            return
        if await session.has_changes():
            self._transactions.warn_once(
                self._attempt,
                "%s commits inside `job.transaction()`: that has settled the job or ended the step, and what is written"
                " behind it is lost"
                " if the process dies before the block ends. Leave the commit to the block",
            )

    async def _is_settled(self, session: Session) -> bool:
        """Return whether the end of the job, or the memo, is still written."""
        if self._memo is not None:
            # It is stored once: what can be stored now was not there. The caller rolls back then.
            return not await session.keep(self._memo, now=now_us())
        ended = self._ended
        assert ended is not None  # noqa: S101 - begun
        same = Returned(self._attempt.job, ended, None, RESULT_PENDING)
        return await session.settle(same, now=now_us())


def _waits(dependency: Dependency) -> bool:
    """Return whether resolving a dependency needs the event loop."""
    needs_loop = dependency.kind in ("coroutine", "async generator")
    return needs_loop or any(map(_waits, dependency.needs))


async def _roll_back_changes(session: Session) -> bool:
    """Roll back what is changed in a session, which its dependency may commit; return whether anything was."""
    has_changes = await session.has_changes()
    if has_changes:
        await session.rollback()
    return has_changes
