"""The public face: exactly these names, each from where it says."""

import pickle
import subprocess
import sys

import pytest

import jobrunner
import jobrunner.fastapi
from jobrunner.core import errors

PUBLIC = """
    AlreadyReplayed AlreadyRunning AmbiguousRunner Attempt AuditEntry AuditLog Batch BatchEnded BatchNotFound
    Batches Bury Call CancelCounts ConfigurationError
    Concurrency Conflict Cron DeadLetter DeadLetterGroup DeadLetterGroups DeadLetters Deadlock DeclaredInCode
    DuplicateTask Every Health Injected InvalidArguments InvalidBatch
    InvalidCursor InvalidOptions InvalidSchedule InvalidSession InvalidTask InvalidWrite Job JobCancelled
    JobContext JobDead JobExpired JobLogFilter JobNotFound JobNotWaiting JobQueue JobRunner JobRunnerError KeyTaken
    LeaseLost LimitInfo Limits NotADatabase NotAwaited NotCommitted NotRunning Page ProcessLost Progress
    QueueFull QueueInfo QueueSettings Queues Rate ReplayCounts RescheduleCounts
    ResultError ResultNotStored ResultTimeout Retry Schedule ScheduleNotFound ScheduleTick Schedules SchemaTooNew Snooze
    Stats StatsBucket
    StoreBusy StoreCorrupt StoreError StoreFailed StoreFull StoreOutcomeUnknown StoreReplaced StoreUnavailable
    StoreUnsupported SyncQueue Task TaskRouter TimedOut UnknownQueue UnknownTask WorkerInfo WouldDeadlock
    WrongThread __version__
    ChildrenFailed InvalidStep JobFinished Step StepError StepMismatch SyncSteps WaitTimedOut
""".split()  # noqa: SIM905 - one to a line, they would fill a page


def test_exported_names_are_exactly_these() -> None:
    assert sorted(jobrunner.__all__) == sorted(PUBLIC)
    assert len(set(jobrunner.__all__)) == len(jobrunner.__all__)


def test_exported_names_of_the_fastapi_part_are_exactly_these() -> None:
    assert sorted(jobrunner.fastapi.__all__) == [
        "Background",
        "DurableBackgroundTasks",
        "JobQueue",
        "Queue",
        "SyncQueue",
        "bearer",
        "get_queue",
        "job_background",
        "job_queue",
        "probes",
        "sync_job_queue",
    ]


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"__version__"}))
def test_exported_name_is_there_and_documented(name: str) -> None:
    assert getattr(jobrunner, name).__doc__


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"__version__", "Injected"}))
def test_exported_class_is_shown_and_pickled_as_one_of_the_package(name: str) -> None:
    cls = getattr(jobrunner, name)

    assert cls.__module__ == "jobrunner"
    assert pickle.loads(pickle.dumps(cls)) is cls  # noqa: S301 - of our own making


def test_every_error_that_can_be_raised_is_exported() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, jobrunner.JobRunnerError)
    }
    assert raised <= set(PUBLIC)


def test_errors_have_one_root_except_what_steers() -> None:
    public = [
        value
        for name in PUBLIC
        if isinstance(value := getattr(jobrunner, name), type) and issubclass(value, Exception)
    ]
    steering = {jobrunner.Retry, jobrunner.Snooze, jobrunner.Bury}
    assert {e for e in public if not issubclass(e, jobrunner.JobRunnerError)} == steering


@pytest.mark.parametrize("module", ["fastapi", "starlette", "uvicorn", "sqlalchemy"])
def test_import_of_the_core_loads_no_web_framework(module: str) -> None:
    program = f"import sys, jobrunner; jobrunner.JobRunner(); sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
