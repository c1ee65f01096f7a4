"""Checks what a replay of dead letters needs: arguments that fit their task, and a pace."""

from typing import Final

from jobrunner.core.clock import SECOND_US
from jobrunner.core.errors import InvalidArguments, InvalidOptions
from jobrunner.core.model import JobRow
from jobrunner.tasks.placeholder import handed_names
from jobrunner.tasks.spec import TaskSpec

MINUTE_US: Final = 60 * SECOND_US


def fits(spec: TaskSpec, args: str, handed: str | None = None) -> bool:
    """Return whether stored arguments fit the present signature of their task.

    Args:
        spec: The task.
        args: The stored arguments.
        handed: The parameters that take results of other jobs; see ``Enqueue.handed``.
    """
    try:
        spec.args.decode(args, handed_names(handed))
    except InvalidArguments:
        return False
    return True


def check_fits(spec: TaskSpec, row: JobRow) -> None:
    """Raise ``InvalidArguments`` if a dead letter's arguments do not fit its task."""
    try:
        spec.args.decode(row.args, handed_names(row.handed))
    except InvalidArguments as error:
        raise InvalidArguments(
            f"{error}; the dead letter stays: change its arguments with replay({row.id!r}, args=...)"
        ) from error


def spacing_of(per_minute: int | None) -> int:
    """Return the time between two replayed jobs, in microseconds; 0 for none.

    Raises:
        InvalidOptions: The number is not a whole number from 1 to 60,000,000.
    """
    if per_minute is None:
        return 0
    whole = isinstance(per_minute, int) and not isinstance(per_minute, bool)
    if not whole or not 1 <= per_minute <= MINUTE_US:
        raise InvalidOptions(
            f"per_minute={per_minute!r} is not a whole number from 1 to {MINUTE_US:,}; None sets no pace"
        )
    return MINUTE_US // per_minute
