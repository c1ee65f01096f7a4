"""Completion on a queue shows its verbs and no internals."""

import sqlite3
from contextlib import closing
from pathlib import Path

from jobrunner import JobRunner
from jobrunner.queue.queue import joined

PUBLIC = {
    "audit",
    "batches",
    "cancel",
    "cancel_all",
    "dead_letters",
    "enqueue",
    "enqueue_batch",
    "enqueue_chain",
    "enqueue_many",
    "get",
    "health",
    "limits",
    "list",
    "payload",
    "queues",
    "reschedule",
    "reschedule_all",
    "schedules",
    "signal",
    "stats",
}


async def test_queue_shows_exactly_its_public_verbs(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running(work=False):
        queue = await jobs.queue()
        with closing(sqlite3.connect(tmp_db)) as conn:
            for one in (queue, joined(queue, conn)):
                assert {name for name in dir(one) if not name.startswith("_")} == PUBLIC


def test_runner_has_every_verb_of_a_queue() -> None:
    assert set(dir(JobRunner)) >= PUBLIC
