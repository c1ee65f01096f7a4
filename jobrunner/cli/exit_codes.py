"""Maps errors to exit codes; ``jobrunner --help`` and docs/guides/command-line.md list them."""

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
    BatchNotFound,
    ConfigurationError,
    Conflict,
    InvalidArguments,
    InvalidCursor,
    InvalidOptions,
    JobNotFound,
    JobRunnerError,
    NotRunning,
    ScheduleNotFound,
    StoreError,
    UnknownQueue,
    UnknownTask,
)
from jobrunner.core.escape import escaped

FAILED: Final = 1
USAGE: Final = 2
"""The code that Click uses."""
NOT_STARTED: Final = 3
"""The code that uvicorn uses."""
NOT_FOUND: Final = 4
CONFLICT: Final = 5
STORE: Final = 6
CONFIGURATION: Final = 7
PROBLEMS: Final = 8

IN_WORDS: Final = """\
\b
Exit codes:
  0  success
  1  an error in jobrunner or the application (with a traceback), an error of the system, or you answered no
  2  the command line is invalid
  3  the server could not start; the log has the reason
  4  there is no such job, dead letter, batch, queue, schedule or task
  5  the current state does not allow it: the job has ended, or its key is taken
  6  the store cannot be used: it is missing, full, busy, damaged or too new
  7  the application cannot be loaded, or is not set up for this command
  8  doctor found a problem; warnings alone exit with 0
  130, 143  interrupted by Ctrl-C (SIGINT) or by SIGTERM; for serve this is a normal end
"""

_BY_ERROR: Final[tuple[tuple[type[JobRunnerError], int], ...]] = (
    (JobNotFound, NOT_FOUND),
    (UnknownQueue, NOT_FOUND),
    (UnknownTask, NOT_FOUND),
    (ScheduleNotFound, NOT_FOUND),
    (BatchNotFound, NOT_FOUND),
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
    """Ends a command with the message and the exit code of a library error."""

    def __init__(self, error: JobRunnerError) -> None:
        super().__init__(escaped(str(error)))
        # Click declares the code on the class, but reads it from the instance.
        self.exit_code = code_of(error)  # type: ignore[misc]


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """End the process after the block, with the exit code of its result.

    Use it for a block that closes everything: a normal exit of the interpreter would wait for every thread that the
    application has started.
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
    """Print the traceback of the current exception, with control characters escaped."""
    sys.stderr.write(escaped(traceback.format_exc(), lines=True))


def end_at_signals() -> None:
    """End the process at SIGTERM and SIGINT with status 143 and 130.

    These handlers run while the application is loaded, and when a server has shut down and raises its signal again.
    The default action of a signal does not work for process 1 of a container, which ignores it. The process ends at
    once: everything is closed by then, and a thread of the application must not keep the process alive.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    end_with(128 + number)


def end_with(code: int) -> NoReturn:
    """End the process now, without waiting for threads; this is as safe as ``kill -9``."""
    for stream in (sys.stderr, sys.stdout):
        # The reader may have closed the pipe.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def code_of(error: JobRunnerError) -> int:
    """Return the exit code for an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
