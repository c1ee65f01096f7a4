"""Every exception that jobrunner raises, and the three that a task raises to steer its own job.

::

    JobRunnerError
    ├── ConfigurationError          refused when a task is declared or a runner is opened
    │   ├── InvalidTask             the function cannot be a task as it stands
    │   ├── DuplicateTask           the name is taken
    │   ├── UnknownQueue            a task names a queue that the runner does not have
    │   └── InvalidSchedule         the expression, zone, policy or task of a schedule cannot be (also a ValueError)
    ├── NotRunning                  no open runner to talk to
    ├── AmbiguousRunner             several open runners, and nothing says which
    ├── AlreadyRunning              the runner, or another one on the same file, is open in this process
    ├── WrongThread                 a blocking call on an event loop's thread, or an awaited one on another loop
    ├── UnknownTask                 the task is not registered with this runner
    ├── InvalidSession              the application's session cannot carry jobs as it stands
    ├── InvalidArguments            the arguments do not fit the task (also a ValueError)
    ├── InvalidOptions              an option has a value that cannot be (also a ValueError)
    ├── InvalidCursor               a page cursor that no page gave out (also a ValueError)
    ├── InvalidWrite                a function of job.write() would harm the transaction that it runs in
    ├── WouldDeadlock               a call that would wait for the transaction that it is made in
    ├── LeaseLost                   the attempt is no longer this worker's: its transaction is rolled back
    ├── JobNotFound                 no job or dead letter has this id (also a LookupError)
    ├── ScheduleNotFound            no schedule has this id (also a LookupError)
    ├── Conflict
    │   ├── KeyTaken                another unfinished job holds the key
    │   ├── AlreadyReplayed         the dead letter has been replayed with edited arguments
    │   └── DeclaredInCode          the schedule stands in the code, and is changed there
    ├── ResultError                 there is no result to give
    │   ├── JobDead                 the job is a dead letter
    │   ├── JobCancelled            the job was cancelled
    │   ├── JobExpired              the job's time ran out before it started
    │   ├── NotCommitted            the transaction that it was stored in has not been committed
    │   ├── Deadlock                the caller is an attempt, and all that could end the wait waits as well
    │   ├── ResultTimeout           not finished in time (also a TimeoutError)
    │   └── ResultNotStored         the job succeeded, its result could not be kept
    ├── NotAwaited                  an attempt left something un-awaited, so that it did not run (stored likewise)
    ├── TimedOut                    an attempt took longer than its timeout (stored as the attempt's error)
    ├── ProcessLost                 an attempt's process died (stored as the attempt's error)
    └── StoreError
        ├── StoreBusy               another process held the write lock for too long; nothing was stored
        ├── StoreFull               no room on the disk; nothing was stored
        ├── StoreUnavailable        the file cannot be read or written just now; nothing was stored
        ├── StoreOutcomeUnknown     the commit failed half-way: the write may or may not be there
        └── StoreFailed             the worker stops: the file must be looked at
            ├── NotADatabase        the file is not SQLite
            ├── StoreCorrupt        the file is damaged
            ├── StoreReplaced       the file was moved, deleted or replaced while open, or its tables dropped
            ├── SchemaTooNew        the file was written by a later jobrunner
            └── StoreUnsupported    the file system or the SQLite library cannot keep the promises

    Steering (not errors): Retry, Snooze, Bury
"""

from datetime import datetime, timedelta

from jobrunner.core.exports import exported
from jobrunner.core.hints import answer_to


@exported
class JobRunnerError(Exception):
    """The root of everything that jobrunner raises."""


@exported
class ConfigurationError(JobRunnerError):
    """A declaration or setting that cannot work; raised before any job runs."""


@exported
class InvalidTask(ConfigurationError, TypeError):
    """The decorated function cannot be a task as it stands; the message says what to change."""


@exported
class DuplicateTask(ConfigurationError):
    """Two tasks have the same stored name."""


@exported
class UnknownQueue(ConfigurationError):
    """A task or an option names a queue that the runner does not have."""


@exported
class InvalidSchedule(ConfigurationError, ValueError):
    """The expression, zone, policy or task of a schedule cannot be; the message says what to change."""


@exported
class NotRunning(JobRunnerError):
    """There is no open runner to talk to; the message says which line opens one."""


@exported
class AmbiguousRunner(JobRunnerError):
    """Several runners are open and nothing in the context says which one is meant."""


@exported
class AlreadyRunning(JobRunnerError):
    """The runner is open already, or another one on the same file is, in this process."""


@exported
class WrongThread(JobRunnerError):
    """A blocking call was made on an event loop's own thread, or an awaited one on another loop than the runner's.

    Either would wait for ever.
    """


@exported
class UnknownTask(JobRunnerError):
    """The task is not registered with this runner."""


@exported
class InvalidSession(JobRunnerError):
    """The application's session cannot carry jobs as it stands; nothing was stored, the message says what to write."""


@exported
class InvalidArguments(JobRunnerError, ValueError):
    """The arguments do not fit the task; nothing was stored."""


@exported
class InvalidOptions(JobRunnerError, ValueError):
    """An option has a value that cannot be; nothing was stored."""


@exported
class InvalidCursor(JobRunnerError, ValueError):
    """A page cursor that no page gave out."""


@exported
class InvalidWrite(JobRunnerError):
    """A function of ``job.write()`` did what would harm the transaction that it runs in; nothing of it was written."""


@exported
class WouldDeadlock(JobRunnerError):
    """A call that would wait for the transaction that it is made in; make it before or after, or through it."""


@exported
class LeaseLost(JobRunnerError):
    """The job was taken away from this worker, and another attempt may run: this one's transaction is rolled back."""


@exported
class JobNotFound(JobRunnerError, LookupError):
    """No job, or no dead letter, has this id."""


@exported
class ScheduleNotFound(JobRunnerError, LookupError):
    """No schedule has this id."""


@exported
class Conflict(JobRunnerError):
    """The store's present state does not allow the change; nothing was changed."""


@exported
class KeyTaken(Conflict):
    """Another unfinished job of the task holds the key."""


@exported
class AlreadyReplayed(Conflict):
    """The dead letter has been replayed with edited arguments; the message names the new job."""


@exported
class DeclaredInCode(Conflict):
    """The schedule stands in the code, and is changed there."""


@exported
class ResultError(JobRunnerError):
    """There is no result to give."""


@exported
class JobDead(ResultError):
    """The job is a dead letter; the message holds its reason and last error."""


@exported
class JobCancelled(ResultError):
    """The job was cancelled."""


@exported
class JobExpired(ResultError):
    """The job's time ran out before it could start."""


@exported
class NotCommitted(ResultError):
    """The transaction that the job was stored in has not been committed, or was rolled back."""


@exported
class Deadlock(ResultError):
    """An attempt waits for a job that cannot start, since all slots are held by attempts that wait like it."""


@exported
class ResultTimeout(ResultError, TimeoutError):
    """The job did not finish in the time that the caller was ready to wait; it goes on."""


@exported
class ResultNotStored(ResultError):
    """The job succeeded, but what it returned was too large or not JSON, and was not kept."""


@exported
class TimedOut(JobRunnerError, TimeoutError):
    """An attempt took longer than its timeout; stored as the attempt's error."""


@exported
class NotAwaited(JobRunnerError):
    """An attempt returned an awaitable or a generator, or called an async verb without ``await``: no success."""


@exported
class ProcessLost(JobRunnerError):
    """The process that ran an attempt died; stored as the attempt's error."""


@exported
class StoreError(JobRunnerError):
    """The store could not do what was asked."""


@exported
class StoreBusy(StoreError):
    """Another process held the write lock for too long; nothing was stored."""


@exported
class StoreFull(StoreError):
    """There is no room left on the disk; nothing was stored."""


@exported
class StoreUnavailable(StoreError):
    """The file cannot be read or written just now; nothing was stored."""


@exported
class StoreOutcomeUnknown(StoreError):
    """The commit failed half-way: the write may or may not be there. Look the job up by its id."""


@exported
class StoreFailed(StoreError):
    """The file must be looked at by a person; the worker stops."""


@exported
class NotADatabase(StoreFailed):
    """The file is not an SQLite database."""


@exported
class StoreCorrupt(StoreFailed):
    """The file is damaged."""


@exported
class StoreReplaced(StoreFailed):
    """The file was moved, deleted or replaced while it was open, or jobrunner's tables in it were dropped."""


@exported
class SchemaTooNew(StoreFailed):
    """The file was written by a later version of jobrunner."""


@exported
class StoreUnsupported(StoreFailed):
    """The file system or the SQLite library cannot keep the promises."""


_MOST_SHOWN = 200


def shown(value: object) -> str:
    """Return a value as an error shows it: its ``repr``, and of a long one the beginning and the length."""
    text = repr(value)
    return (
        text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"
    )


def _refuse_foreign_words(call: str, words: dict[str, object]) -> None:
    """Answer the words of other job queues with ours."""
    for word in words:
        line = answer_to("steering option", word, call)
        hint = f"; write {line}" if line else ""
        raise TypeError(f"{call}() has no option {word!r}{hint}")


class Steering(Exception):
    """What a task raises to say what its job does next."""


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
    """End the attempt as failed and run the job again at a time of the task's choosing.

    The time overrides the task's ``wait``; ``max_attempts`` still holds.

    Args:
        delay: seconds, or a timedelta, from now.
        run_at: an aware datetime, in place of ``delay``.
    """


@exported
class Snooze(_Postponed):
    """End the attempt and run the job again later, without costing it an attempt.

    Args:
        delay: seconds, or a timedelta, from now.
        run_at: an aware datetime, in place of ``delay``.
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
    """End the attempt and make the job a dead letter now, whatever attempts are left.

    Args:
        why: kept as the dead letter's error.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why
