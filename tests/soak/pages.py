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
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import httpx2
from fastapi import FastAPI

from jobrunner import JobRunner, Task
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.store.sqlite import readers
from tests.benchmarks.bench import Bench
from tests.benchmarks.prefill import Past

GROUPS = 40
ROUNDS = 20
PAIRS = 7
DRAINED = 8_000
POLL_S = 2.0
BASE = "http://localhost/jobs/ui"
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "jobs, queued": "/jobs?state=queued",
    "cancel all": "/jobs/cancel-all",
    "cancel all of a tag": "/jobs/cancel-all?tag=nothing",
    "run all": "/jobs/run-all?state=retrying",
    "run all of a task": "/jobs/run-all?task=noop",
    "jobs, retrying": "/jobs?state=retrying",
    "jobs, succeeded": "/jobs?state=succeeded",
    "jobs, cancelled": "/jobs?state=cancelled",
    "jobs, dead": "/jobs?state=dead",
    "jobs of a queue": "/jobs?queue=default",
    "jobs since an hour ago": "/jobs?queue=default&since=1h",
    "jobs, a task without any": "/jobs?task=nothing",
    "jobs, a tag without any": "/jobs?tag=nothing",
    "jobs of a batch's task": "/jobs?task=member",
    "search": "/jobs?q=nothing",
    "job": "/jobs/{job}",
    "job, arguments": "/jobs/{job}/arguments",
    "cancel a job": "/jobs/{job}/cancel",
    "dead letter": "/jobs/{letter}",
    "edit a dead letter": "/jobs/{letter}/edit",
    "delete a dead letter": "/jobs/{letter}/delete",
    "dead letters in groups": "/dead",
    "groups, filtered": "/dead?task=nothing",
    "groups by words of the error": "/dead?words=nothing",
    "a group": "/dead?group={group}",
    "delete a group": "/dead/{group}/delete",
    "dead letters": "/dead?view=letters",
    "dead letters, filtered": "/dead?view=letters&task=nothing",
    "dead letters of a group": "/dead?view=letters&group={group}",
    "batches": "/batches",
    "batches, a name without any": "/batches?name=nothing",
    "a batch": "/batches/{batch}",
    "schedules": "/schedules",
    "a schedule": "/schedules/{schedule}",
    "queues": "/queues",
    "limits": "/limits",
    "audit": "/audit",
    "audit, an actor without any": "/audit?actor=nothing",
    "zone": "/zone",
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
            tenth of that number, in 40 groups; schedules: a thousandth; members of one batch: a hundredth.

    Returns:
        Median and 95th percentile of each page and its longest read transaction, in milliseconds; and for pairs of
        drains, with an open overview and without, the median ratio of their rates with the smallest and the largest.
    """
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-", dir=Bench(1).root) as folder:
        file = Path(folder, "pages.sqlite")
        fill(file, rows)
        return {"rows": rows, "dead letters": rows // 10} | await _measure(file, rows)


def fill(file: Path, rows: int) -> None:
    """Make the file."""
    past = Past(file)
    past.finished(rows * 7 // 10)
    past.future(rows // 5)
    past.queued(rows // 10)
    past.dead(rows // 10)
    past.schedules(max(rows // 1_000, 1))
    past.paused("default")
    past.close()
    with closing(sqlite3.connect(file)) as conn:
        conn.execute(_RETRYING)
        values = {"groups": GROUPS, "now": now_us(), "span": 3 * 24 * 3600 * SECOND_US}
        conn.execute(_SPREAD, values)
        conn.commit()
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _measure(file: Path, rows: int) -> dict[str, object]:
    jobs = JobRunner(file, queues={"default": 20, "drained": 20})

    # One group of the dead letters is of a task that fits.
    @jobs.task(queue="drained", aliases=["task-1"])
    async def noop(number: int) -> None: ...

    @jobs.task
    async def member(number: int) -> None: ...

    app = FastAPI()
    app.include_router(jobs.dashboard(insecure=True), prefix="/jobs/ui")
    figures: dict[str, object] = {}
    transport = httpx2.ASGITransport(app)
    async with (
        jobs.running(app) as queue,
        httpx2.AsyncClient(transport=transport) as client,
    ):
        (job,) = (await queue.list(limit=1)).items
        (schedule,) = (await queue.schedules.list(limit=1)).items
        (letter,) = (await queue.dead_letters.list(limit=1, task="task-1")).items
        members = max(rows // 100, 1)
        batch = await queue.enqueue_batch([member.call(n) for n in range(members)], name="pages")
        ids = {
            "job": job.id,
            "schedule": schedule.id,
            "letter": letter.id,
            "batch": batch.id,
            "group": f"{1:016x}",
        }
        reads = Reads()
        for name, path in PAGES.items():
            address = BASE + path.format_map(ids)
            with reads.timed() as longest:
                took = [await _time_of(client, address) for _ in range(ROUNDS)]
            figures[f"{name}, median ms"] = round(median(took), 1)
            figures[f"{name}, p95 ms"] = round(_percentile(took, 0.95), 1)
            figures[f"{name}, longest read ms"] = round(max(longest) * 1000, 1)
        await _drain(queue, noop, number=500)
        ratios = sorted([await _ratio(queue, noop, client, pair) for pair in range(PAIRS)])
        figures["drain with a page / without"] = round(median(ratios), 3)
        figures["smallest and largest ratio"] = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    return figures


class Reads:
    """Times the read transactions of this process."""

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """Yield a list that gets the seconds of each read transaction inside the block."""
        took = [0.0]
        read_snapshot: Any = vars(readers)["read_snapshot"]

        def timed(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return read_snapshot(*args)
            finally:
                took.append(time.perf_counter() - started)

        # Each reader looks it up in its module.
        with patch.object(readers, "read_snapshot", timed):
            yield took


async def _ratio(
    queue: JobRunner, task: Task[[int], None], client: httpx2.AsyncClient, pair: int
) -> float:
    """Return the rate of a drain with an open overview, divided by the rate of one without."""
    took = {}
    for polled in (True, False) if pair % 2 else (False, True):
        tab = asyncio.create_task(_poll(client)) if polled else None
        took[polled] = await _drain(queue, task, DRAINED)
        if tab is not None:
            tab.cancel()
            await asyncio.wait([tab])
    return took[False] / took[True]


async def _poll(client: httpx2.AsyncClient) -> None:
    """Ask for the overview as its script does."""
    etag = ""
    while True:
        answer = await client.get(f"{BASE}/", headers={"If-None-Match": etag})
        etag = answer.headers["etag"]
        await asyncio.sleep(POLL_S)


async def _drain(queue: JobRunner, task: Task[[int], None], number: int) -> float:
    """Return the seconds until a number of jobs have succeeded."""
    await queue.queues.pause("drained")
    stored = []
    for first in range(0, number, 1_000):
        calls = [task.call(n) for n in range(first, min(first + 1_000, number))]
        stored += await queue.enqueue_many(calls)
    started = time.perf_counter()
    await queue.queues.resume("drained")
    await asyncio.gather(*(job.result() for job in stored))
    return time.perf_counter() - started


async def _time_of(client: httpx2.AsyncClient, address: str) -> float:
    started = time.perf_counter()
    answer = await client.get(address)
    assert answer.status_code in {HTTPStatus.OK, HTTPStatus.SEE_OTHER}, answer.text
    return (time.perf_counter() - started) * 1000


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(len(values) * share) - 1]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1]))), indent=1))
