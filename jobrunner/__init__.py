"""jobrunner: a durable job queue that lives inside a FastAPI process.

Each public name is imported when it is first used. So ``jobrunner --help`` runs without the engine, whose import
(pydantic, asyncio, SQLite) takes longer than everything else that a command does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.core.attempt import Attempt
    from jobrunner.core.audit import AuditEntry
    from jobrunner.core.batch import Batch
    from jobrunner.core.counts import CancelCounts, ReplayCounts, RescheduleCounts
    from jobrunner.core.dead_letter import DeadLetter
    from jobrunner.core.errors import (
        AlreadyReplayed,
        AlreadyRunning,
        AmbiguousRunner,
        BatchEnded,
        BatchNotFound,
        ChildrenFailed,
        ConfigurationError,
        Conflict,
        Deadlock,
        DeclaredInCode,
        DuplicateTask,
        InvalidArguments,
        InvalidBatch,
        InvalidCursor,
        InvalidOptions,
        InvalidSchedule,
        InvalidSession,
        InvalidStep,
        InvalidTask,
        InvalidWrite,
        JobCancelled,
        JobDead,
        JobExpired,
        JobFinished,
        JobNotFound,
        JobNotWaiting,
        JobRunnerError,
        KeyTaken,
        LeaseLost,
        NotADatabase,
        NotAwaited,
        NotCommitted,
        NotRunning,
        ProcessLost,
        QueueFull,
        ResultError,
        ResultNotStored,
        ResultTimeout,
        ScheduleNotFound,
        SchemaTooNew,
        StepError,
        StepMismatch,
        StoreBusy,
        StoreCorrupt,
        StoreError,
        StoreFailed,
        StoreFull,
        StoreOutcomeUnknown,
        StoreReplaced,
        StoreUnavailable,
        StoreUnsupported,
        TimedOut,
        UnknownQueue,
        UnknownTask,
        WaitTimedOut,
        WouldDeadlock,
        WrongThread,
    )
    from jobrunner.core.groups import DeadLetterGroup, DeadLetterGroups
    from jobrunner.core.health import Health, QueueInfo, WorkerInfo
    from jobrunner.core.job import Job, Step
    from jobrunner.core.progress import Progress
    from jobrunner.core.steering import Bury, Retry, Snooze
    from jobrunner.core.version import __version__
    from jobrunner.queue.audit import AuditLog
    from jobrunner.queue.batches import Batches
    from jobrunner.queue.dead_letters import DeadLetters
    from jobrunner.queue.limits import LimitInfo, Limits
    from jobrunner.queue.page import Page
    from jobrunner.queue.queue import JobQueue
    from jobrunner.queue.queues import Queues
    from jobrunner.queue.schedules import Schedule, Schedules, ScheduleTick
    from jobrunner.queue.stats import Stats, StatsBucket
    from jobrunner.queue.sync import SyncQueue
    from jobrunner.runner.runner import JobRunner
    from jobrunner.tasks.call import Call
    from jobrunner.tasks.context import JobContext
    from jobrunner.tasks.dependencies import Injected
    from jobrunner.tasks.limits import Concurrency, Rate
    from jobrunner.tasks.recurrence import Cron, Every
    from jobrunner.tasks.router import TaskRouter
    from jobrunner.tasks.steps import SyncSteps
    from jobrunner.tasks.task import Task
    from jobrunner.worker.log_filter import JobLogFilter
    from jobrunner.worker.settings import QueueSettings

__all__ = [
    "AlreadyReplayed",
    "AlreadyRunning",
    "AmbiguousRunner",
    "Attempt",
    "AuditEntry",
    "AuditLog",
    "Batch",
    "BatchEnded",
    "BatchNotFound",
    "Batches",
    "Bury",
    "Call",
    "CancelCounts",
    "ChildrenFailed",
    "Concurrency",
    "ConfigurationError",
    "Conflict",
    "Cron",
    "DeadLetter",
    "DeadLetterGroup",
    "DeadLetterGroups",
    "DeadLetters",
    "Deadlock",
    "DeclaredInCode",
    "DuplicateTask",
    "Every",
    "Health",
    "Injected",
    "InvalidArguments",
    "InvalidBatch",
    "InvalidCursor",
    "InvalidOptions",
    "InvalidSchedule",
    "InvalidSession",
    "InvalidStep",
    "InvalidTask",
    "InvalidWrite",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobDead",
    "JobExpired",
    "JobFinished",
    "JobLogFilter",
    "JobNotFound",
    "JobNotWaiting",
    "JobQueue",
    "JobRunner",
    "JobRunnerError",
    "KeyTaken",
    "LeaseLost",
    "LimitInfo",
    "Limits",
    "NotADatabase",
    "NotAwaited",
    "NotCommitted",
    "NotRunning",
    "Page",
    "ProcessLost",
    "Progress",
    "QueueFull",
    "QueueInfo",
    "QueueSettings",
    "Queues",
    "Rate",
    "ReplayCounts",
    "RescheduleCounts",
    "ResultError",
    "ResultNotStored",
    "ResultTimeout",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "ScheduleTick",
    "Schedules",
    "SchemaTooNew",
    "Snooze",
    "Stats",
    "StatsBucket",
    "Step",
    "StepError",
    "StepMismatch",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreOutcomeUnknown",
    "StoreReplaced",
    "StoreUnavailable",
    "StoreUnsupported",
    "SyncQueue",
    "SyncSteps",
    "Task",
    "TaskRouter",
    "TimedOut",
    "UnknownQueue",
    "UnknownTask",
    "WaitTimedOut",
    "WorkerInfo",
    "WouldDeadlock",
    "WrongThread",
    "__version__",
]

_NAMES = {
    "jobrunner.core.attempt": "Attempt",
    "jobrunner.core.audit": "AuditEntry",
    "jobrunner.core.batch": "Batch",
    "jobrunner.core.counts": "CancelCounts ReplayCounts RescheduleCounts",
    "jobrunner.core.dead_letter": "DeadLetter",
    "jobrunner.core.errors": """
        AlreadyReplayed AlreadyRunning AmbiguousRunner BatchEnded BatchNotFound ChildrenFailed
        ConfigurationError Conflict Deadlock DeclaredInCode DuplicateTask InvalidArguments InvalidBatch
        InvalidCursor InvalidOptions InvalidSchedule InvalidSession InvalidStep InvalidTask InvalidWrite
        JobCancelled JobDead JobExpired JobFinished JobNotFound JobNotWaiting JobRunnerError KeyTaken
        LeaseLost NotADatabase NotAwaited NotCommitted NotRunning ProcessLost QueueFull ResultError
        ResultNotStored ResultTimeout ScheduleNotFound SchemaTooNew StepError StepMismatch StoreBusy
        StoreCorrupt StoreError StoreFailed StoreFull StoreOutcomeUnknown StoreReplaced StoreUnavailable
        StoreUnsupported TimedOut UnknownQueue UnknownTask WaitTimedOut WouldDeadlock WrongThread
    """,
    "jobrunner.core.groups": "DeadLetterGroup DeadLetterGroups",
    "jobrunner.core.health": "Health QueueInfo WorkerInfo",
    "jobrunner.core.job": "Job Step",
    "jobrunner.core.progress": "Progress",
    "jobrunner.core.steering": "Bury Retry Snooze",
    "jobrunner.core.version": "__version__",
    "jobrunner.queue.audit": "AuditLog",
    "jobrunner.queue.batches": "Batches",
    "jobrunner.queue.dead_letters": "DeadLetters",
    "jobrunner.queue.limits": "LimitInfo Limits",
    "jobrunner.queue.page": "Page",
    "jobrunner.queue.queue": "JobQueue",
    "jobrunner.queue.queues": "Queues",
    "jobrunner.queue.schedules": "Schedule ScheduleTick Schedules",
    "jobrunner.queue.stats": "Stats StatsBucket",
    "jobrunner.queue.sync": "SyncQueue",
    "jobrunner.runner.runner": "JobRunner",
    "jobrunner.tasks.call": "Call",
    "jobrunner.tasks.context": "JobContext",
    "jobrunner.tasks.dependencies": "Injected",
    "jobrunner.tasks.limits": "Concurrency Rate",
    "jobrunner.tasks.recurrence": "Cron Every",
    "jobrunner.tasks.router": "TaskRouter",
    "jobrunner.tasks.steps": "SyncSteps",
    "jobrunner.tasks.task": "Task",
    "jobrunner.worker.log_filter": "JobLogFilter",
    "jobrunner.worker.settings": "QueueSettings",
}
"""The public names by module. A test compares them with the imports above, which are for type checkers."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
