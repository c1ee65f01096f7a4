"""The pages of the dashboard on a large file, with the time until each is answered.

``python -m tests.soak.pages ROWS`` prints the figures alone.
"""

import asyncio
import json
import math
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from statistics import median

import httpx2
from fastapi import FastAPI

from jobrunner import JobRunner
from jobrunner.core.clock import SECOND_US, now_us
from tests.benchmarks.bench import Bench
from tests.benchmarks.prefill import Past

GROUPS = 40
ROUNDS = 20
BASE = "http://localhost/jobs/ui"
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "jobs, queued": "/jobs?state=queued",
    "jobs, retrying": "/jobs?state=retrying",
    "jobs, succeeded": "/jobs?state=succeeded",
    "jobs, cancelled": "/jobs?state=cancelled",
    "jobs, dead": "/jobs?state=dead",
    "jobs, a task without any": "/jobs?task=nothing",
    "jobs, a tag without any": "/jobs?tag=nothing",
    "job": "/jobs/{job}",
    "dead letters in groups": "/dead",
    "a group": "/dead?group={group}",
    "dead letters": "/dead?view=letters",
    "dead letters, filtered": "/dead?view=letters&task=nothing",
    "dead letters of a group": "/dead?view=letters&group={group}",
    "schedules": "/schedules",
    "queues": "/queues",
    "audit": "/audit",
}

_RETRYING = """
UPDATE jobrunner_jobs SET attempt = 1, lease = 1 WHERE state = 'scheduled' AND seq % 10 = 0"""
_SPREAD = """
UPDATE jobrunner_dead_letters
SET task = 'task-' || (letter % :groups), fingerprint = printf('%016x', letter % :groups),
    died_at = :now - (letter * 7919) % :span"""


async def run(rows: int) -> dict[str, object]:
    """Measure each page and filter.

    Args:
        rows: jobs in the file: most have finished, some are queued, scheduled or wait for a retry; dead letters: a
            tenth of that number, in 40 groups.

    Returns:
        Median and 95th percentile of each page, in milliseconds.
    """
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-", dir=Bench(1).root) as folder:
        file = Path(folder, "pages.sqlite")
        fill(file, rows)
        return {"rows": rows, "dead letters": rows // 10} | await _measure(file)


def fill(file: Path, rows: int) -> None:
    """Make the file."""
    past = Past(file)
    past.finished(rows * 7 // 10)
    past.future(rows // 5)
    past.queued(rows // 10)
    past.dead(rows // 10)
    past.paused("default")
    past.close()
    with closing(sqlite3.connect(file)) as conn:
        conn.execute(_RETRYING)
        values = {"groups": GROUPS, "now": now_us(), "span": 3 * 24 * 3600 * SECOND_US}
        conn.execute(_SPREAD, values)
        conn.commit()
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _measure(file: Path) -> dict[str, object]:
    jobs = JobRunner(file)

    @jobs.task
    async def noop(number: int) -> None: ...

    app = FastAPI()
    app.include_router(jobs.dashboard(insecure=True), prefix="/jobs/ui")
    figures: dict[str, object] = {}
    transport = httpx2.ASGITransport(app)
    async with (
        jobs.running(app) as queue,
        httpx2.AsyncClient(transport=transport) as client,
    ):
        (job,) = (await queue.list(limit=1)).items
        for name, path in PAGES.items():
            address = BASE + path.format(job=job.id, group=f"{1:016x}")
            took = [await _time_of(client, address) for _ in range(ROUNDS)]
            figures[f"{name}, median ms"] = round(median(took), 1)
            figures[f"{name}, p95 ms"] = round(_percentile(took, 0.95), 1)
    return figures


async def _time_of(client: httpx2.AsyncClient, address: str) -> float:
    started = time.perf_counter()
    answer = await client.get(address)
    assert answer.status_code == HTTPStatus.OK, answer.text
    return (time.perf_counter() - started) * 1000


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(len(values) * share) - 1]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1]))), indent=1))
