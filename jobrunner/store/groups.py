"""Defines the groups of dead letters as a store returns them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

HOURS: Final = 24
"""Hours before ``now`` whose deaths are counted one by one."""
RETRYING_CAP: Final = 1_000
"""The most jobs that wait for a retry which are read, those due first."""


class GroupRow(NamedTuple):
    """Dead letters and retrying jobs that failed in the same way."""

    fingerprint: str
    task: str
    error_type: str | None
    error: str | None
    """The message of the newest dead letter; without one, of a job that waits for a retry."""
    letters: int = 0
    """The number of its dead letters."""
    first_died_at: int | None = None
    last_died_at: int | None = None
    newest: str | None = None
    """The id of the dead letter that died last."""
    hours: tuple[int, ...] = (0,) * HOURS
    """Deaths in each of the last ``HOURS`` hours before ``now``, oldest hour first."""
    retrying: int = 0


class Groups(NamedTuple):
    """The groups of a store, most recent death first; groups without a dead letter follow."""

    rows: Sequence[GroupRow]
    ungrouped: int
    """Dead letters of older versions that have no fingerprint yet."""
    complete: bool
    """False if there are more groups, or more dead letters or jobs in these groups."""
