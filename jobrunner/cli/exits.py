"""What the exit codes of the command mean; the same list stands in ``jobrunner --help`` and in docs/deploy.md."""

import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

from jobrunner.errors import (
    AlreadyRunning,
    AmbiguousRunner,
    ConfigurationError,
    Conflict,
    InvalidArguments,
    InvalidCursor,
    InvalidOptions,
    JobNotFound,
    JobRunnerError,
    NotRunning,
    StoreError,
    UnknownQueue,
    UnknownTask,
)

FAILED: Final = 1
USAGE: Final = 2
"""Click's own."""
NOT_STARTED: Final = 3
"""Uvicorn's own."""
NOT_FOUND: Final = 4
CONFLICT: Final = 5
STORE: Final = 6
CONFIGURATION: Final = 7
PROBLEMS: Final = 8

IN_WORDS: Final = """\
\b
Exit codes:
  0  done
  1  a fault of jobrunner or of the application; the traceback is above
  2  the command line is wrong
  3  the server could not start; its log says why
  4  there is no such job, dead letter, queue or task
  5  it cannot be done as things stand: the job has ended, its key is taken
  6  the store cannot be used: missing, full, busy, damaged, too new
  7  the application cannot be loaded, or is not set up for this
  8  doctor has found a problem
"""

_BY_ERROR: Final[tuple[tuple[type[JobRunnerError], int], ...]] = (
    (JobNotFound, NOT_FOUND),
    (UnknownQueue, NOT_FOUND),
    (UnknownTask, NOT_FOUND),
    (Conflict, CONFLICT),
    (InvalidArguments, USAGE),
    (InvalidCursor, USAGE),
    (InvalidOptions, USAGE),
    (StoreError, STORE),
    (ConfigurationError, CONFIGURATION),
    (AmbiguousRunner, CONFIGURATION),
    (AlreadyRunning, CONFIGURATION),
    (NotRunning, CONFIGURATION),
)


def end_at_signals() -> None:
    """End at SIGTERM and SIGINT with their status, where nothing else hears them.

    While the application is loaded; and after a server has shut down and raises its signal again. Not by the signal
    itself, which process 1 of a container cannot die of; and at once, since everything is closed by then, and a thread
    of the application must not keep the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(128 + number)


def code_of(error: JobRunnerError) -> int:
    """Return the exit code that tells of an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
