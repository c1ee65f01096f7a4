"""Measures claims of jobs with limits per key, and of plain jobs beside keys that are full."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import Claim, Ended, Enqueue, Succeeded, WorkerRow
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row

WAITING = 100_000
KEYS = 1_000
FULL_KEYS = 10_000
CLAIMS = 40
SLOTS = 100
WORKER, HOLDER = 7, 8
PER_ROUND = 10_000


def limits(bench: Bench) -> list[Row]:
    """Claim 100 jobs at a time, in turns with files that have no keys."""
    plain = [_job(number, None) for number in range(WAITING)]
    keyed = [_job(number, number % KEYS) for number in range(WAITING)]
    one_key = [_job(number, 0) for number in range(WAITING)]
    many_keys = [_job(number, number % FULL_KEYS) for number in range(2 * FULL_KEYS)]
    return [
        _row(
            *(bench, f"claim of {SLOTS} over {KEYS:,} keys, {WAITING:,} waiting", keyed, plain),
            task="keyed",
            beside="no keys",
            target=2.2,
        ),
        _row(
            *(bench, f"claim of {SLOTS} beside {WAITING:,} jobs of a full key", one_key, []),
            task="plain",
            beside="empty file",
            target=1.2,
        ),
        _row(
            *(bench, f"claim of {SLOTS} beside {FULL_KEYS:,} full keys", many_keys, []),
            task="plain",
            beside="empty file",
            target=1.2,
        ),
    ]


def _row(
    bench: Bench,
    figure: str,
    jobs: list[Enqueue],
    others: list[Enqueue],
    *,
    task: str,
    beside: str,
    target: float,
) -> Row:
    with bench.place() as place:
        ours_in, theirs_in = place / "ours.sqlite", place / "theirs.sqlite"
        asyncio.run(_fill(ours_in, jobs, blocked=task == "plain"))
        asyncio.run(_fill(theirs_in, others, blocked=False))
        ours, theirs = [], []
        for run in range(bench.runs):
            theirs.append(asyncio.run(_claim_cost(theirs_in, run, "plain")))
            ours.append(asyncio.run(_claim_cost(ours_in, run, task)))
    return Row(figure, "µs", ours, theirs, beside=beside, judged="ratio", target=target)


@asynccontextmanager
async def _opened(file: Path, worker: int) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(file, durability="normal")
    await store.open()
    now = _now()
    known = {"plain": 5, "keyed": 5}
    row = WorkerRow(worker, os.getpid(), "bench", now, now, None, {"default": SLOTS}, known)
    try:
        await store.workers.join(row, on_notify=lambda: None)
        yield store
        await store.workers.leave(worker, now=_now())
    finally:
        await store.close()


async def _fill(file: Path, jobs: list[Enqueue], *, blocked: bool) -> None:
    """Store jobs, two of a key may run; start them until all keys are full, if they are to block."""
    async with _opened(file, HOLDER) as store:
        await store.limits.set(LimitName("lanes", "keyed"), Limit(1 if blocked else 2), now=_now())
        for start in range(0, len(jobs), PER_ROUND):
            await store.write(Round(_now(), enqueues=jobs[start : start + PER_ROUND]))
        claim = Claim(HOLDER, {"default": PER_ROUND}, frozenset({"keyed"}), suspects=False)
        while blocked:
            written = await store.write(Round(_now(), claim=claim))
            blocked = bool(written.claimed)


async def _claim_cost(file: Path, run: int, task: str) -> float:
    """Return the median time of one claim, in µs; the jobs are settled after it."""
    claim = Claim(WORKER, {"default": SLOTS}, frozenset({task}), suspects=False)
    took = []
    async with _opened(file, WORKER) as store:
        if task == "plain":
            first = (run + 1) * 10 * WAITING
            fresh = [_job(first + number, None) for number in range(CLAIMS * SLOTS)]
            await store.write(Round(_now(), enqueues=fresh))
        for _ in range(CLAIMS):
            now = _now()
            started = time.perf_counter()
            written = await store.write(Round(now, claim=claim))
            took.append((time.perf_counter() - started) * 1e6)
            assert len(written.claimed) == SLOTS, f"{len(written.claimed)} jobs claimed"
            done = Ended("succeeded", now)
            await store.write(
                Round(now, outcomes=[Succeeded(job, done, None) for job in written.claimed])
            )
    return median(took)


def _now() -> int:
    return time.time_ns() // 1000


def _job(number: int, key: int | None) -> Enqueue:
    task = "plain" if key is None else "keyed"
    lane = None if key is None else f"keyed[{key}]"
    id = f"01936d2c-7a40-7000-8000-{number:012x}"
    return Enqueue(id, task, "default", '{"number":1}', 1, 1, lane=lane)
