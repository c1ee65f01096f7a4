"""Refuses calls to a runner that was opened before a fork.

An open runner cannot work in the child: its threads and its event loop do not run there, the kernel's locks stay with
the parent, and an SQLite connection must not be used on both sides of a fork.
"""

import os

from jobrunner.core.errors import NotRunning

_generation = 0
"""The number of forks between the first process and this one.

Not ``os.getpid()``: that is a system call (0.4 µs, 1 % of an enqueue), and each enqueue checks this.
"""


def _count() -> None:
    global _generation  # noqa: PLW0603 - one per process
    _generation += 1


os.register_at_fork(after_in_child=_count)


def generation() -> int:
    """Return a number that differs between a process and its forked children."""
    return _generation


def is_forked(opened_in: int) -> bool:
    """Return whether this process was forked after the runner was opened.

    Args:
        opened_in: The ``generation()`` of the process that opened the runner.
    """
    return _generation != opened_in


def refuse_forked(opened_in: int) -> None:
    """Raise if this process was forked after the runner was opened.

    Args:
        opened_in: The ``generation()`` of the process that opened the runner.

    Raises:
        NotRunning: The process was forked since.
    """
    if _generation != opened_in:
        raise NotRunning(
            "this process was forked while the runner was open, and an open runner does not go through a fork: enqueue"
            " in the parent, or start this process with multiprocessing.get_context('spawn') and write"
            " `with jobs.sync.running(work=False):` in it"
        )
