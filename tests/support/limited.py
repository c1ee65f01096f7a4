"""Tasks with limits of every kind, and what their attempts must have kept, as the file says."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from jobrunner import Concurrency, JobRunner, QueueSettings, Rate, TaskRouter
from jobrunner.core.clock import SECOND_US
from jobrunner.store.limits import SLACK_US

PER_KEY: Final = 2
PER_TASK: Final = 7
PER_QUEUE: Final = 9
RATE: Final = Rate(50, per=1, burst=2)
KEYS: Final = 5
ROUNDS_OUT_OF_ORDER: Final = 2
"""Starts that lie in a window of a second by the time of a round that waited for the lock."""

tasks = TaskRouter(max_attempts=100, timeout=None)


@tasks.task(concurrency=[Concurrency(PER_TASK), Concurrency(PER_KEY, by="key")])
async def keyed(key: int) -> None:
    """Take a moment."""
    await asyncio.sleep(random.random() * 0.02)  # noqa: TID251 - work takes its time


@tasks.task(concurrency=Concurrency(1, by="key", ordered=True))
async def ordered(key: int, number: int) -> None:
    """Take a moment."""
    await asyncio.sleep(random.random() * 0.01)  # noqa: TID251 - work takes its time


@tasks.task(rate_limit=RATE)
async def rated() -> None:
    """Do nothing."""


def runner(file: str | Path) -> JobRunner:
    """Return a runner with these tasks."""
    queues = {"default": QueueSettings(20, concurrency=PER_QUEUE)}
    jobs = JobRunner(file, queues=queues)
    jobs.include(tasks)
    return jobs


async def fill(jobs: JobRunner, number: int) -> None:
    """Store so many jobs of each task."""
    await jobs.enqueue_many([keyed.call(n % KEYS) for n in range(number)])
    await jobs.enqueue_many([ordered.call(n % KEYS, n) for n in range(number)])
    await jobs.enqueue_many([rated.call() for _ in range(number)])


_WATCH: Final = f"""
CREATE TABLE breaches (what TEXT, running INTEGER);
CREATE TRIGGER watch AFTER UPDATE OF state ON jobrunner_jobs WHEN NEW.state = 'running' BEGIN
    INSERT INTO breaches SELECT NEW.lane, count(*) FROM jobrunner_jobs
        WHERE state = 'running' AND lane = NEW.lane HAVING count(*) > iif(NEW.ordered, 1, {PER_KEY});
    INSERT INTO breaches SELECT 'task', count(*) FROM jobrunner_jobs
        WHERE state = 'running' AND task = 'keyed' HAVING count(*) > {PER_TASK};
    INSERT INTO breaches SELECT 'queue', count(*) FROM jobrunner_jobs
        WHERE state = 'running' HAVING count(*) > {PER_QUEUE};
    INSERT INTO breaches SELECT 'order of ' || older.lane, older.seq FROM jobrunner_jobs older
        WHERE NEW.ordered = 1 AND older.lane = NEW.lane AND older.seq < NEW.seq
        AND (older.state = 'scheduled' OR older.state = 'queued' OR older.state = 'running');
END;
"""  # noqa: S608 - numbers of our own


def watch(file: Path) -> None:
    """Let the file itself write down each start that breaks a limit, in the transaction of the claim.

    The times of attempts would not do: a round that waits for the lock is older than one that is written before it.
    """
    with closing(sqlite3.connect(file)) as conn:
        conn.executescript(_WATCH)


class Attempts:
    """The attempts of a file, and the breaches that it has written down."""

    def __init__(self, file: Path) -> None:
        with closing(sqlite3.connect(file)) as conn:
            self.breaches = conn.execute("SELECT * FROM breaches").fetchall()
            self.rows = conn.execute(
                """
                SELECT job.task, past.started_at, past.outcome
                FROM jobrunner_attempts past JOIN jobrunner_jobs job ON job.seq = past.job
                """
            ).fetchall()

    def check(self) -> None:
        """Check the limits, the order and the rate over the whole life of the file."""
        assert self.breaches == []
        starts = sorted(started for task, started, _ in self.rows if task == "rated")
        interval = SECOND_US // RATE.limit
        most = RATE.limit + RATE.burst + SLACK_US // interval
        for first, at in enumerate(starts):
            window = [one for one in starts[first:] if one < at + SECOND_US]
            assert len(window) <= most + ROUNDS_OUT_OF_ORDER, f"{len(window)} starts in a second"
