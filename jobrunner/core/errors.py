"""The errors that jobrunner raises; ``core/steering.py`` has the exceptions that a task raises.

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
    ├── InvalidBatch                a batch cannot run: a cycle, a call outside it, a limit (also a ValueError)
    ├── InvalidCursor               the cursor is not from a page of this list (also a ValueError)
    ├── InvalidWrite                a function of job.write() did something that its transaction does not allow
    ├── WouldDeadlock               the call would wait for the transaction in which it is made
    ├── LeaseLost                   the attempt is no longer this worker's: its transaction is rolled back
    ├── JobNotFound                 no job or dead letter has this id (also a LookupError)
    ├── BatchNotFound               no batch has this id (also a LookupError)
    ├── ScheduleNotFound            no schedule has this id (also a LookupError)
    ├── Conflict
    │   ├── KeyTaken                another unfinished job holds the key
    │   ├── AlreadyReplayed         the dead letter has been replayed with edited arguments
    │   ├── BatchEnded              the batch has ended or is cancelled, and takes no jobs
    │   ├── JobNotWaiting           the job runs, is blocked or has ended, and cannot be rescheduled
    │   ├── JobFinished             the job has ended, and takes no signal
    │   └── DeclaredInCode          the schedule is declared in code and can only be changed there
    ├── ResultError                 the job has no result
    │   ├── JobDead                 the job is a dead letter
    │   ├── JobCancelled            the job was cancelled
    │   ├── JobExpired              the job expired while it waited to run
    │   ├── NotCommitted            the transaction that stores the job has not been committed
    │   ├── Deadlock                the caller is an attempt, and its wait could never end
    │   ├── ResultTimeout           the job did not finish in time (also a TimeoutError)
    │   └── ResultNotStored         the job succeeded, but its result was not stored
    ├── StepError                   a step or a wait of a job cannot go on; the job becomes a dead letter
    │   ├── InvalidStep             a name is used twice in a run, or a value cannot be stored
    │   ├── StepMismatch            a stored value no longer fits the type that the code declares
    │   ├── WaitTimedOut            no signal came in time (also a TimeoutError)
    │   └── ChildrenFailed          a child of job.run() did not succeed
    ├── NotAwaited                  an attempt forgot an ``await`` (stored as the attempt's error)
    ├── TimedOut                    an attempt took longer than its timeout (stored as the attempt's error)
    ├── ProcessLost                 an attempt's process died (stored as the attempt's error)
    └── StoreError
        ├── QueueFull               as many jobs wait in the queue as may; nothing was stored
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
"""

from jobrunner.core.exports import exported


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
class InvalidBatch(JobRunnerError, ValueError):
    """The calls of a batch cannot run as they are given; nothing was stored.

    They wait for each other in a circle, need a call that is not in the batch, or are too many. The message says what
    to change.
    """


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
class BatchNotFound(JobRunnerError, LookupError):
    """No batch has this id."""


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
    """The job is running, blocked, asleep, finished or dead, so it cannot be rescheduled.

    The message says which, and what to do instead.
    """


@exported
class JobFinished(Conflict):
    """The job has ended, so it takes no signal; a dead letter takes none either."""


@exported
class BatchEnded(Conflict):
    """The batch has ended or was cancelled, so it takes no jobs.

    Nothing was stored. Enqueue another batch.
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
    """An attempt waits for a job or batch that can never end.

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
class StepError(JobRunnerError):
    """The base class of the errors of steps and waits.

    A job whose task lets one pass becomes a dead letter at once, since another attempt would end in the same way.
    """


@exported
class InvalidStep(StepError):
    """A step cannot be stored as the task writes it.

    Its name was used before in the same run, or its result has no form as JSON. The message says what to write.
    """


@exported
class StepMismatch(StepError):
    """A stored step or signal does not fit the type in the code.

    Replay the dead letter with ``forget=["charge"]`` to run the step again, or let the type accept the old value.
    """


@exported
class WaitTimedOut(StepError, TimeoutError):
    """No signal came within the ``timeout`` of ``job.wait_for()``.

    This is stored: the same wait raises it again in every later run.
    """


@exported
class ChildrenFailed(StepError):
    """A child of ``job.run()`` died, was cancelled or expired.

    Retry the children, and then replay the dead letter of the parent.

    Attributes:
        batch_id: The id of the children's batch.
    """

    def __init__(self, message: str, batch_id: str = "") -> None:
        super().__init__(message)
        self.batch_id = batch_id


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
class QueueFull(StoreError):
    """As many jobs wait in the queue as its ``max_waiting`` allows; nothing of the call was stored.

    Over HTTP the answer is 429 with ``Retry-After``.
    """


@exported
class StoreBusy(StoreError):
    """Another process or transaction held a lock for too long; nothing was stored."""


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
