"""Maps errors to the exit codes that ``jobrunner --help`` and docs/deploy.md list."""

import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

import click

from jobrunner.core.errors import (
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
from jobrunner.core.escape import escaped

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
  1  a fault of jobrunner or the application (the traceback is above) or of the system, or you have said no
  2  the command line is wrong
  3  the server could not start; its log says why
  4  there is no such job, dead letter, queue or task
  5  it cannot be done as things stand: the job has ended, its key is taken
  6  the store cannot be used: missing, full, busy, damaged, too new
  7  the application cannot be loaded, or is not set up for this
  8  doctor has found a problem; warnings alone end with 0
  130, 143  broken off by Ctrl-C (SIGINT), SIGTERM; for serve a good end
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


class Refused(click.ClickException):
    """Ends a command with an error of the library: its message and exit code."""

    def __init__(self, error: JobRunnerError) -> None:
        super().__init__(escaped(str(error)))
        # Click declares one code for each class; it looks at the instance.
        self.exit_code = code_of(error)  # type: ignore[misc]


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """End the process where the block ends, with the exit code for how it ended.

    For a block that has closed everything: the interpreter's own way out waits for every thread that the application
    has started, however long that takes.
    """
    code = 0
    try:
        yield
    except JobRunnerError as error:
        refused = Refused(error)
        refused.show()
        code = refused.exit_code
    except Exception:  # noqa: BLE001 - as the interpreter does at its end
        say_traceback()
        code = FAILED
    logging.shutdown()
    end_with(code)


def say_traceback() -> None:
    """Print the traceback of the present error, in which control characters are written out."""
    sys.stderr.write(escaped(traceback.format_exc(), lines=True))


def end_at_signals() -> None:
    """End at SIGTERM and SIGINT with their status, where nothing else handles them.

    While the application is loaded; and after a server has shut down and raises its signal again. Not by the signal
    itself, which process 1 of a container cannot die of; and at once, since everything is closed by then, and a thread
    of the application must not keep the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    end_with(128 + number)


def end_with(code: int) -> NoReturn:
    """End the process now; it is as safe as ``kill -9``, and waits for no thread."""
    for stream in (sys.stderr, sys.stdout):
        # The reader may be gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def code_of(error: JobRunnerError) -> int:
    """Return the exit code for an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
