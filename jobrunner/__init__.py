"""jobrunner: a durable job queue that lives inside a FastAPI process.

Each public name is imported when it is first used. So ``jobrunner --help`` runs without the engine, whose import
(pydantic, asyncio, SQLite) takes longer than everything else that a command does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.core.audit import AuditEntry
    from jobrunner.core.counts import CancelCounts, ReplayCounts
    from jobrunner.core.errors import (
        AlreadyReplayed,
        AlreadyRunning,
        AmbiguousRunner,
        Bury,
        ConfigurationError,
        Conflict,
        Deadlock,
        DeclaredInCode,
        DuplicateTask,
        InvalidArguments,
        InvalidCursor,
        InvalidOptions,
        InvalidSchedule,
        InvalidSession,
        InvalidTask,
        InvalidWrite,
        JobCancelled,
        JobDead,
        JobExpired,
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
        ResultError,
        ResultNotStored,
        ResultTimeout,
        Retry,
        ScheduleNotFound,
        SchemaTooNew,
        Snooze,
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
        WouldDeadlock,
        WrongThread,
    )
    from jobrunner.core.groups import DeadLetterGroup, DeadLetterGroups
    from jobrunner.core.job import Attempt, DeadLetter, Health, Job, QueueInfo, WorkerInfo
    from jobrunner.core.version import __version__
    from jobrunner.queue.audit import AuditLog
    from jobrunner.queue.dead_letters import DeadLetters
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
    from jobrunner.tasks.recurrence import Cron, Every
    from jobrunner.tasks.router import TaskRouter
    from jobrunner.tasks.task import Task

__all__ = [
    "AlreadyReplayed",
    "AlreadyRunning",
    "AmbiguousRunner",
    "Attempt",
    "AuditEntry",
    "AuditLog",
    "Bury",
    "Call",
    "CancelCounts",
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
    "InvalidCursor",
    "InvalidOptions",
    "InvalidSchedule",
    "InvalidSession",
    "InvalidTask",
    "InvalidWrite",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobDead",
    "JobExpired",
    "JobNotFound",
    "JobNotWaiting",
    "JobQueue",
    "JobRunner",
    "JobRunnerError",
    "KeyTaken",
    "LeaseLost",
    "NotADatabase",
    "NotAwaited",
    "NotCommitted",
    "NotRunning",
    "Page",
    "ProcessLost",
    "QueueInfo",
    "Queues",
    "ReplayCounts",
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
    "Task",
    "TaskRouter",
    "TimedOut",
    "UnknownQueue",
    "UnknownTask",
    "WorkerInfo",
    "WouldDeadlock",
    "WrongThread",
    "__version__",
]

_NAMES = {
    "jobrunner.core.audit": "AuditEntry",
    "jobrunner.core.counts": "CancelCounts ReplayCounts",
    "jobrunner.core.errors": """
        AlreadyReplayed AlreadyRunning AmbiguousRunner Bury ConfigurationError Conflict Deadlock
        DeclaredInCode DuplicateTask InvalidArguments InvalidCursor InvalidOptions InvalidSchedule
        InvalidSession InvalidTask InvalidWrite JobCancelled JobDead JobExpired JobNotFound JobNotWaiting JobRunnerError
        KeyTaken LeaseLost NotADatabase NotAwaited NotCommitted NotRunning ProcessLost ResultError
        ResultNotStored ResultTimeout Retry ScheduleNotFound SchemaTooNew Snooze StoreBusy StoreCorrupt
        StoreError StoreFailed StoreFull StoreOutcomeUnknown StoreReplaced StoreUnavailable StoreUnsupported
        TimedOut UnknownQueue UnknownTask WouldDeadlock WrongThread
    """,
    "jobrunner.core.groups": "DeadLetterGroup DeadLetterGroups",
    "jobrunner.core.job": "Attempt DeadLetter Health Job QueueInfo WorkerInfo",
    "jobrunner.core.version": "__version__",
    "jobrunner.queue.audit": "AuditLog",
    "jobrunner.queue.dead_letters": "DeadLetters",
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
    "jobrunner.tasks.recurrence": "Cron Every",
    "jobrunner.tasks.router": "TaskRouter",
    "jobrunner.tasks.task": "Task",
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
