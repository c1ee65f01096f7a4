"""The exceptions that jobrunner raises, and the three that a task raises.

``Retry``, ``Snooze`` and ``Bury`` are raised by a task to decide what happens to its own job.

::

    JobRunnerError
    ├── ConfigurationError          refused when a task is declared or a runner is opened
    │   ├── InvalidTask             the function cannot be used as a task (also a TypeError)
    │   ├── DuplicateTask           the name is taken
    │   ├── UnknownQueue            a task names a queue that the runner does not have
    │   └── InvalidSchedule         the expression, zone, policy or task of a schedule is invalid (also a ValueError)
    ├── NotRunning                  no runner is open
    ├── AmbiguousRunner             several runners are open and the call names none
    ├── AlreadyRunning              the runner, or another one on the same file, is open in this process
    ├── WrongThread                 a blocking call on an event loop's thread, or an awaited one on another loop
    ├── UnknownTask                 the task is not registered with this runner
    ├── InvalidSession              jobs cannot be stored through the application's session
    ├── InvalidArguments            the arguments do not fit the task (also a ValueError)
    ├── InvalidOptions              an option has an invalid value (also a ValueError)
    ├── InvalidCursor               the cursor is not from a page of this list (also a ValueError)
    ├── InvalidWrite                a function of job.write() did something that its transaction does not allow
    ├── WouldDeadlock               the call would wait for the transaction in which it is made
    ├── LeaseLost                   the attempt is no longer this worker's: its transaction is rolled back
    ├── JobNotFound                 no job or dead letter has this id (also a LookupError)
    ├── ScheduleNotFound            no schedule has this id (also a LookupError)
    ├── Conflict
    │   ├── KeyTaken                another unfinished job holds the key
    │   ├── AlreadyReplayed         the dead letter has been replayed with edited arguments
    │   ├── JobNotWaiting           the job runs, is blocked or has ended, and cannot be rescheduled
    │   └── DeclaredInCode          the schedule is declared in code and can only be changed there
    ├── ResultError                 the job has no result
    │   ├── JobDead                 the job is a dead letter
    │   ├── JobCancelled            the job was cancelled
    │   ├── JobExpired              the job expired while it waited to run
    │   ├── NotCommitted            the transaction that stores the job has not been committed
    │   ├── Deadlock                the caller is an attempt, and its wait could never end
    │   ├── ResultTimeout           the job did not finish in time (also a TimeoutError)
    │   └── ResultNotStored         the job succeeded, but its result was not stored
    ├── NotAwaited                  an attempt forgot an ``await`` (stored as the attempt's error)
    ├── TimedOut                    an attempt took longer than its timeout (stored as the attempt's error)
    ├── ProcessLost                 an attempt's process died (stored as the attempt's error)
    └── StoreError
        ├── StoreBusy               another process held the write lock for too long; nothing was stored
        ├── StoreFull               no room on the disk; nothing was stored
        ├── StoreUnavailable        the file cannot be read or written at present; nothing was stored
        ├── StoreOutcomeUnknown     the commit failed: the write may or may not be stored
        └── StoreFailed             the worker stops: a person must check the file
            ├── NotADatabase        the file is not SQLite
            ├── StoreCorrupt        the file is damaged
            ├── StoreReplaced       the file was moved, deleted or replaced while open, or its tables dropped
            ├── SchemaTooNew        the file was written by a later jobrunner
            └── StoreUnsupported    the file system or the SQLite library is not supported

    Steering (not errors): Retry, Snooze, Bury
"""

from datetime import datetime, timedelta

from jobrunner.core.exports import exported
from jobrunner.core.hints import answer_to


@exported
class JobRunnerError(Exception):
    """The base class of all errors that jobrunner raises.

    ``Retry``, ``Snooze`` and ``Bury`` are not errors and do not inherit from it.
    """


@exported
class ConfigurationError(JobRunnerError):
    """A declaration or a setting cannot work.

    Raised before any job runs: when a task is declared, or when a runner is made or opened.
    """


@exported
class InvalidTask(ConfigurationError, TypeError):
    """The decorated function cannot be used as a task.

    The message says what to change.
    """


@exported
class DuplicateTask(ConfigurationError):
    """Two tasks have the same stored name."""


@exported
class UnknownQueue(ConfigurationError):
    """A task or an option names a queue that the runner does not have.

    The message contains the line that adds the queue.
    """


@exported
class InvalidSchedule(ConfigurationError, ValueError):
    """The expression, time zone, policy or task of a schedule is invalid.

    The message says what to change.
    """


@exported
class NotRunning(JobRunnerError):
    """The call needs an open runner, and there is none.

    The message contains the line that opens one.
    """


@exported
class AmbiguousRunner(JobRunnerError):
    """Several runners are open, and the call does not name one of them.

    Name it, as in ``await jobs.enqueue(task, ...)``.
    """


@exported
class AlreadyRunning(JobRunnerError):
    """This process already has an open runner on the file."""


@exported
class WrongThread(JobRunnerError):
    """The call was made on a thread where it would wait for ever.

    Either a blocking call was made on the thread of an event loop, or an ``await`` on a loop other than the runner's.
    """


@exported
class UnknownTask(JobRunnerError):
    """The task is not registered with this runner."""


@exported
class InvalidSession(JobRunnerError):
    """Jobs cannot be stored through the application's session.

    Nothing was stored. The message says what to write.
    """


@exported
class InvalidArguments(JobRunnerError, ValueError):
    """The arguments do not fit the task; nothing was stored."""


@exported
class InvalidOptions(JobRunnerError, ValueError):
    """An option has an invalid value; nothing was stored."""


@exported
class InvalidCursor(JobRunnerError, ValueError):
    """The cursor does not come from a page of this list."""


@exported
class InvalidWrite(JobRunnerError):
    """A function passed to ``job.write()`` did something that is not allowed.

    Such a function may not commit, roll back, run PRAGMAs, change jobrunner's own tables or enqueue. Nothing of what it
    wrote was kept.
    """


@exported
class WouldDeadlock(JobRunnerError):
    """The call would wait for the transaction in which it is made.

    Make it before or after the transaction, or through its session.
    """


@exported
class LeaseLost(JobRunnerError):
    """The job was taken away from this worker, and another attempt may run.

    The transaction of this attempt is rolled back.
    """


@exported
class JobNotFound(JobRunnerError, LookupError):
    """No job or dead letter has this id."""


@exported
class ScheduleNotFound(JobRunnerError, LookupError):
    """No schedule has this id."""


@exported
class Conflict(JobRunnerError):
    """The current state of the store does not allow the change.

    Nothing was changed. Over HTTP this is a 409.
    """


@exported
class KeyTaken(Conflict):
    """Another unfinished job of the task has the same key."""


@exported
class AlreadyReplayed(Conflict):
    """The dead letter has already been replayed with edited arguments.

    The message names the new job.
    """


@exported
class JobNotWaiting(Conflict):
    """The job is running, blocked, finished or dead, so it cannot be rescheduled.

    The message says which, and what to do instead.
    """


@exported
class DeclaredInCode(Conflict):
    """The schedule is declared in code and can only be changed there."""


@exported
class ResultError(JobRunnerError):
    """The job has no result; the base class of what ``job.result()`` raises."""


@exported
class JobDead(ResultError):
    """The job is a dead letter; the message holds the reason and the last error."""


@exported
class JobCancelled(ResultError):
    """The job was cancelled."""


@exported
class JobExpired(ResultError):
    """The job expired while it waited for its first attempt or a retry."""


@exported
class NotCommitted(ResultError):
    """The transaction that stores the job is not committed, or was rolled back."""


@exported
class Deadlock(ResultError):
    """An attempt waits for a job that can never start.

    All slots that the job could use are held by attempts that wait in the same way.
    """


@exported
class ResultTimeout(ResultError, TimeoutError):
    """The job did not finish within the ``timeout`` of the wait.

    The job itself goes on.
    """


@exported
class ResultNotStored(ResultError):
    """The job succeeded, but its result was not stored.

    The returned value was too large or cannot be written as JSON, or the process died between the commit of
    ``job.transaction()`` and the return of the task.
    """


@exported
class TimedOut(JobRunnerError, TimeoutError):
    """An attempt ran longer than its timeout; stored as the attempt's error."""


@exported
class NotAwaited(JobRunnerError):
    """An attempt forgot an ``await``, so it does not count as a success.

    It returned an awaitable or a generator, or called an async method of jobrunner without ``await``. Stored as the
    attempt's error.
    """


@exported
class ProcessLost(JobRunnerError):
    """The process that ran an attempt died; stored as the attempt's error."""


@exported
class StoreError(JobRunnerError):
    """The store could not complete the call.

    The subclass says whether something was stored.
    """


@exported
class StoreBusy(StoreError):
    """Another process held the write lock for too long; nothing was stored."""


@exported
class StoreFull(StoreError):
    """The disk is full; nothing was stored."""


@exported
class StoreUnavailable(StoreError):
    """The file cannot be read or written at present; nothing was stored."""


@exported
class StoreOutcomeUnknown(StoreError):
    """The commit failed: the write may or may not be stored.

    Read the job by its id to find out.
    """


@exported
class StoreFailed(StoreError):
    """The worker stops, because a person must check the file."""


@exported
class NotADatabase(StoreFailed):
    """The file is not an SQLite database."""


@exported
class StoreCorrupt(StoreFailed):
    """The file is damaged."""


@exported
class StoreReplaced(StoreFailed):
    """The file was moved, deleted or replaced while it was open.

    Also raised if jobrunner's tables in it were dropped.
    """


@exported
class SchemaTooNew(StoreFailed):
    """The file was written by a later version of jobrunner."""


@exported
class StoreUnsupported(StoreFailed):
    """jobrunner cannot keep its promises on this file system or SQLite library."""


_MOST_SHOWN = 200


def shown(value: object) -> str:
    """Return the ``repr`` of a value for an error message, shortened if long.

    Of more than 200 characters it keeps the first 200 and adds the length.
    """
    text = repr(value)
    return (
        text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"
    )


def _refuse_foreign_words(call: str, words: dict[str, object]) -> None:
    """Raise TypeError for an unknown keyword, with our word if one is known."""
    for word in words:
        line = answer_to("steering option", word, call)
        hint = f"; write {line}" if line else ""
        raise TypeError(f"{call}() has no option {word!r}{hint}")


class Steering(Exception):
    """The base class of ``Retry``, ``Snooze`` and ``Bury``, which a task raises."""


class _Postponed(Steering):
    def __init__(
        self,
        delay: float | timedelta | None = None,
        *,
        run_at: datetime | None = None,
        **foreign: object,
    ) -> None:
        _refuse_foreign_words(type(self).__name__, foreign)
        if delay is not None and run_at is not None:
            raise TypeError(f"{type(self).__name__}() takes a delay or a run_at, not both")
        super().__init__(delay if run_at is None else run_at)
        self.delay = delay
        self.run_at = run_at


@exported
class Retry(_Postponed):
    """Raised by a task: end the attempt as failed and run the job again.

    The given time overrides the task's ``wait``. ``max_attempts`` still applies: after the last attempt the job becomes
    a dead letter. Without a time the task's ``wait`` decides.

    ::

        response = await client.post(url)
        if response.status_code == 429:
            raise Retry(float(response.headers["Retry-After"]))

    Args:
        delay: Seconds, or a timedelta, from now.
        run_at: An aware datetime, instead of ``delay``.

    Raises:
        TypeError: Both a delay and a ``run_at`` are given, or an unknown option.
    """


@exported
class Snooze(_Postponed):
    """Raised by a task: run the job again later, without using an attempt.

    ::

        if not await report_is_ready(report_id):
            raise Snooze(60)

    Args:
        delay: Seconds, or a timedelta, from now.
        run_at: An aware datetime, instead of ``delay``.

    Raises:
        TypeError: Neither or both of the two are given, or an unknown option.
    """

    def __init__(
        self,
        delay: float | timedelta | None = None,
        *,
        run_at: datetime | None = None,
        **foreign: object,
    ) -> None:
        super().__init__(delay, run_at=run_at, **foreign)
        if delay is None and run_at is None:
            raise TypeError("Snooze() needs to know for how long: Snooze(60) or Snooze(run_at=...)")


@exported
class Bury(Steering):
    """Raised by a task: make the job a dead letter now.

    Attempts that are left are not used.

    ::

        if payment.is_refused:
            raise Bury("the card was refused")

    Args:
        why: Stored as the error of the dead letter.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why
