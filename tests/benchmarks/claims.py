"""Measures the cost of a claim, which must not depend on rows that are not claimed.

It calls the store through its protocol and not through a runner, whose other costs would hide a slower claim.
It uses ``durability="normal"`` for the same reason: the wait for the disk does not depend on the rows in the file.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from jobrunner.core.model import Claim, Ended, Enqueue, Succeeded, WorkerRow
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.prefill import Past

CLAIMS = 200
SLOTS = 20
MANY = 500
WORKER = 7
QUEUES = {"default": SLOTS, "side": SLOTS}
"""The second queue is empty, or the one that is paused."""


def claims(bench: Bench) -> list[Row]:
    """Claim 20 jobs at a time in files with different pasts, in turns with an empty one."""
    pasts: list[tuple[str, Callable[[Past], None], float]] = [
        ("beside 1,000,000 future, 1,000,000 finished, 100,000 dead", _history, 1.3),
        (
            "behind 100,000 jobs of an unknown task",
            lambda past: past.queued(100_000, task="alien"),
            2,
        ),
        ("behind 100,000 jobs of a paused queue", _paused, 2),
    ]
    rows = []
    for words, fill, target in pasts:
        with bench.place() as place:
            empty, full = place / "empty.sqlite", place / "full.sqlite"
            past = Past(full)
            fill(past)
            past.close()
            ours, yardstick = [], []
            for _ in range(bench.runs):
                yardstick.append(asyncio.run(claim_cost(empty)))
                ours.append(asyncio.run(claim_cost(full)))
        rows.append(
            Row(
                f"claim of {SLOTS} {words}",
                "µs",
                ours,
                yardstick,
                beside="empty file",
                judged="ratio",
                target=target,
            )
        )
    return rows


def of_many(bench: Bench) -> list[Row]:
    """Claim 20 jobs at a time of 500 tasks, alone and behind others' jobs, in turns with an empty file."""
    pasts: list[tuple[str, int, Callable[[Past], None], float]] = [
        ("", 1, lambda _: None, 1 / 0.7),
        (" behind 100,000 jobs of an unknown task", MANY, lambda past: _unknown(past, 1), 2),
        (" behind 100,000 jobs of 100 unknown tasks", MANY, lambda past: _unknown(past, 100), 2),
    ]
    rows = []
    for words, yardstick_tasks, fill, target in pasts:
        with bench.place() as place:
            empty, full = place / "empty.sqlite", place / "full.sqlite"
            past = Past(full)
            fill(past)
            past.close()
            ours, yardstick = [], []
            for _ in range(bench.runs):
                # As between two looks for what is due: at each the claim finds anew where its jobs begin.
                yardstick.append(asyncio.run(claim_cost(empty, yardstick_tasks, promote_due=False)))
                ours.append(asyncio.run(claim_cost(full, MANY, promote_due=False)))
        rows.append(
            Row(
                f"claim of {SLOTS} of {MANY} tasks{words}",
                "µs",
                ours,
                yardstick,
                beside="one task" if yardstick_tasks == 1 else "empty file",
                judged="ratio",
                target=target,
            )
        )
    return rows


def _unknown(past: Past, tasks: int) -> None:
    for number in range(tasks):
        past.queued(100_000 // tasks, task=f"alien-{number}")


def _history(past: Past) -> None:
    past.finished(1_000_000)
    past.dead(100_000)
    past.future(1_000_000)


def _paused(past: Past) -> None:
    past.queued(100_000, queue="side")
    past.paused("side")


async def claim_cost(file: Path, tasks: int = 1, *, promote_due: bool = True) -> float:
    """Return the median time of one claim, in µs; what is put in for it is gone afterwards."""
    names = [f"noop-{number}" if number else "noop" for number in range(tasks)]
    store = SqliteStore(file, durability="normal")
    await store.open()
    now = time.time_ns() // 1000
    claim = Claim(WORKER, QUEUES, frozenset(names), suspects=False)
    took = []
    try:
        await store.workers.join(
            WorkerRow(
                WORKER, os.getpid(), "bench", now, now, None, QUEUES, dict.fromkeys(names, 5)
            ),
            on_notify=lambda: None,
        )
        await store.write(
            Round(
                now,
                enqueues=[
                    a_job(now, number, names[number % tasks]) for number in range(CLAIMS * SLOTS)
                ],
            )
        )
        for _ in range(CLAIMS):
            started = time.perf_counter()
            written = await store.write(
                Round(now, promote_due=promote_due, claim=claim, ticks_of=claim.tasks)
            )
            took.append((time.perf_counter() - started) * 1e6)
            assert len(written.claimed) == SLOTS, f"{len(written.claimed)} of {SLOTS} jobs claimed"
            done = Ended("succeeded", now)
            await store.write(
                Round(now, outcomes=[Succeeded(job, done, None) for job in written.claimed])
            )
        await store.workers.leave(WORKER, now=now)
    finally:
        await store.close()
    return median(took)


def a_job(now: int, number: int, task: str) -> Enqueue:
    """Return a job with its number in its id."""
    id = f"{now // 1000:012x}"
    return Enqueue(
        f"{id[:8]}-{id[8:]}-7000-8000-{number:012x}", task, "default", '{"number":1}', now, now
    )
