"""``kill -9`` of two workers under load: about a second of their statistics is lost, and nothing counts twice."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from jobrunner.core.clock import SECOND_US
from jobrunner.core.histogram import Histogram
from tests.support.processes import child

LIVES: Final = 2
LIFE_S: Final = 4.0
LOST_US: Final = 2 * SECOND_US
"""A second, and what a busy machine makes of it."""


class Counted(NamedTuple):
    """The statistics of a file, and what they should be."""

    attempts: int
    """The attempts that succeeded, by the table of attempts."""
    safe: int
    """The ones among them that had ended ``LOST_US`` before the last one, or earlier."""
    succeeded: int
    """The attempts that succeeded, by the statistics."""
    waits: int
    sums: int
    """The same, by the rows that sum up all queues and tasks."""


def counted(file: Path, since: int) -> Counted:
    """Count the attempts that ended from ``since`` on, and all statistics."""
    with contextlib.closing(sqlite3.connect(file)) as conn:
        attempts = conn.execute(
            "SELECT finished_at FROM jobrunner_attempts WHERE outcome = 'succeeded' AND finished_at >= ?",
            (since,),
        ).fetchall()
        last = max(at for (at,) in attempts)
        rows = conn.execute(
            "SELECT succeeded, wait FROM jobrunner_minutes WHERE task = 'note'"
        ).fetchall()
        (sums,) = conn.execute(
            "SELECT sum(succeeded) FROM jobrunner_minutes WHERE task = '' AND queue = ''"
        ).fetchone()
    return Counted(
        attempts=len(attempts),
        safe=sum(at < last - LOST_US for (at,) in attempts),
        succeeded=sum(succeeded for succeeded, _ in rows),
        waits=sum(Histogram.decode(wait).total for _, wait in rows),
        sums=sums,
    )


@pytest.mark.slow
async def test_killed_workers_lose_a_second_of_statistics_and_count_nothing_twice(
    tmp_path: Path,
) -> None:
    file, ledger = tmp_path / "jobs.db", tmp_path / "ledger"
    before, since = 0, 0
    for _ in range(LIVES):
        async with child("load", file, ledger) as one, child("load", file, ledger) as other:
            await one.heard("open")
            await other.heard("open")
            assert await one.lives(LIFE_S)
            one.send_signal(9)
            other.send_signal(9)
            await one.kill()
            await other.kill()
        found = counted(file, since)
        assert found.succeeded == found.waits == found.sums
        new = found.succeeded - before
        assert found.safe <= new <= found.attempts
        assert found.safe > found.attempts / 4
        before = found.succeeded
        with contextlib.closing(sqlite3.connect(file)) as conn:
            (since,) = conn.execute(
                "SELECT max(finished_at) + 1 FROM jobrunner_attempts"
            ).fetchone()
