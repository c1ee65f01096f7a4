"""jobrunner: a durable job queue that lives inside a FastAPI process.

Each public name is imported when it is first asked for: ``jobrunner --help`` answers without the engine, whose import
(pydantic, asyncio, SQLite) takes longer than all else that a command does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.call import Call
    from jobrunner.context import JobContext
    from jobrunner.dead_letters import DeadLetterPage, DeadLetters
    from jobrunner.errors import (
        AlreadyReplayed,
        AlreadyRunning,
        AmbiguousRunner,
        Bury,
        ConfigurationError,
        Conflict,
        Deadlock,
        DeclaredInCode,
        DuplicateTask,
        InsideTransaction,
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
        JobRunnerError,
        KeyTaken,
        LeaseLost,
        NotAwaited,
        NotCommitted,
        NotRunning,
        ResultError,
        ResultNotStored,
        ResultTimeout,
        Retry,
        ScheduleNotFound,
        Snooze,
        StoreBusy,
        StoreError,
        StoreFull,
        StoreOutcomeUnknown,
        StoreUnavailable,
        StoreUnusable,
        TimedOut,
        UnknownQueue,
        UnknownTask,
        WrongThread,
    )
    from jobrunner.injection import Injected
    from jobrunner.job import Attempt, DeadLetter, Health, Job, QueueInfo, WorkerInfo
    from jobrunner.queue import JobPage, JobQueue
    from jobrunner.routing import TaskRouter
    from jobrunner.runner import JobRunner
    from jobrunner.schedule import Cron, Every
    from jobrunner.schedules import Schedule, Schedules, ScheduleTick
    from jobrunner.sync import SyncQueue
    from jobrunner.task import Task
    from jobrunner.version import __version__

__all__ = [
    "AlreadyReplayed",
    "AlreadyRunning",
    "AmbiguousRunner",
    "Attempt",
    "Bury",
    "Call",
    "ConfigurationError",
    "Conflict",
    "Cron",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetters",
    "Deadlock",
    "DeclaredInCode",
    "DuplicateTask",
    "Every",
    "Health",
    "Injected",
    "InsideTransaction",
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
    "JobPage",
    "JobQueue",
    "JobRunner",
    "JobRunnerError",
    "KeyTaken",
    "LeaseLost",
    "NotAwaited",
    "NotCommitted",
    "NotRunning",
    "QueueInfo",
    "ResultError",
    "ResultNotStored",
    "ResultTimeout",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "ScheduleTick",
    "Schedules",
    "Snooze",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreOutcomeUnknown",
    "StoreUnavailable",
    "StoreUnusable",
    "SyncQueue",
    "Task",
    "TaskRouter",
    "TimedOut",
    "UnknownQueue",
    "UnknownTask",
    "WorkerInfo",
    "WrongThread",
    "__version__",
]

_HOMES = {
    "Call": "jobrunner.call",
    "JobContext": "jobrunner.context",
    "DeadLetterPage": "jobrunner.dead_letters",
    "DeadLetters": "jobrunner.dead_letters",
    "AlreadyReplayed": "jobrunner.errors",
    "AlreadyRunning": "jobrunner.errors",
    "AmbiguousRunner": "jobrunner.errors",
    "Bury": "jobrunner.errors",
    "ConfigurationError": "jobrunner.errors",
    "Conflict": "jobrunner.errors",
    "Deadlock": "jobrunner.errors",
    "DeclaredInCode": "jobrunner.errors",
    "DuplicateTask": "jobrunner.errors",
    "InsideTransaction": "jobrunner.errors",
    "InvalidArguments": "jobrunner.errors",
    "InvalidCursor": "jobrunner.errors",
    "InvalidOptions": "jobrunner.errors",
    "InvalidSchedule": "jobrunner.errors",
    "InvalidSession": "jobrunner.errors",
    "InvalidTask": "jobrunner.errors",
    "InvalidWrite": "jobrunner.errors",
    "JobCancelled": "jobrunner.errors",
    "JobDead": "jobrunner.errors",
    "JobExpired": "jobrunner.errors",
    "JobNotFound": "jobrunner.errors",
    "JobRunnerError": "jobrunner.errors",
    "KeyTaken": "jobrunner.errors",
    "LeaseLost": "jobrunner.errors",
    "NotAwaited": "jobrunner.errors",
    "NotCommitted": "jobrunner.errors",
    "NotRunning": "jobrunner.errors",
    "ResultError": "jobrunner.errors",
    "ResultNotStored": "jobrunner.errors",
    "ResultTimeout": "jobrunner.errors",
    "Retry": "jobrunner.errors",
    "ScheduleNotFound": "jobrunner.errors",
    "Snooze": "jobrunner.errors",
    "StoreBusy": "jobrunner.errors",
    "StoreError": "jobrunner.errors",
    "StoreFull": "jobrunner.errors",
    "StoreOutcomeUnknown": "jobrunner.errors",
    "StoreUnavailable": "jobrunner.errors",
    "StoreUnusable": "jobrunner.errors",
    "TimedOut": "jobrunner.errors",
    "UnknownQueue": "jobrunner.errors",
    "UnknownTask": "jobrunner.errors",
    "WrongThread": "jobrunner.errors",
    "Injected": "jobrunner.injection",
    "Attempt": "jobrunner.job",
    "DeadLetter": "jobrunner.job",
    "Health": "jobrunner.job",
    "Job": "jobrunner.job",
    "QueueInfo": "jobrunner.job",
    "WorkerInfo": "jobrunner.job",
    "JobPage": "jobrunner.queue",
    "JobQueue": "jobrunner.queue",
    "TaskRouter": "jobrunner.routing",
    "JobRunner": "jobrunner.runner",
    "Cron": "jobrunner.schedule",
    "Every": "jobrunner.schedule",
    "Schedule": "jobrunner.schedules",
    "ScheduleTick": "jobrunner.schedules",
    "Schedules": "jobrunner.schedules",
    "SyncQueue": "jobrunner.sync",
    "Task": "jobrunner.task",
    "__version__": "jobrunner.version",
}
"""Where each name lives; a test holds it against the imports above, which are for type checkers."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
