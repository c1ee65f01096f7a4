"""Measures members of batches beside plain jobs, and the longest round of large workflows.

In processor time of all threads, since other programs would make the longest of many rounds longer.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from jobrunner import JobRunner
from jobrunner.core.model import (
    BatchEnqueue,
    Claim,
    Claimed,
    Dead,
    Edge,
    Ended,
    Enqueue,
    NewBatch,
    Outcome,
    Succeeded,
    WorkerRow,
)
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite import SqliteStore
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row

MEMBERS = 10_000
NEEDS = 1_000
WORKER = 7
TASKS = frozenset({"member", "then"})
ROUND_MS = 50.0
_IDS = count()


def workflows(bench: Bench) -> list[Row]:
    """Run 10,000 members beside 10,000 plain jobs, in turns, and time each round of five large workflows."""
    rows = [
        _beside_plain(bench, f"life of a member, {slots} slots", slots, 1.3) for slots in (100, 20)
    ]
    rows.append(_enqueue(bench))
    rows += [_rounds(bench, f"longest round: {name}", make, step) for name, make, step in _LARGE]
    return rows


# -- beside plain jobs -----------------------------------------------------------------------------


def _beside_plain(bench: Bench, figure: str, slots: int, target: float) -> Row:
    ours, theirs = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            theirs.append(asyncio.run(_life(place / "plain.sqlite", slots, in_batch=False)))
            ours.append(asyncio.run(_life(place / "batch.sqlite", slots, in_batch=True)))
    return Row(figure, "µs", ours, theirs, beside="plain jobs", judged="ratio", target=target)


async def _life(file: Path, slots: int, *, in_batch: bool) -> float:
    """Return the processor time per job from its claim to its end, in µs."""
    async with _opened(file) as store:
        jobs = [_job() for _ in range(MEMBERS)]
        await store.write(_stored(jobs, in_batch=in_batch))
        started = time.process_time()
        await _drain(store, slots, _succeed)
        return (time.process_time() - started) / MEMBERS * 1e6


def _enqueue(bench: Bench) -> Row:
    ours, theirs = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            theirs.append(asyncio.run(_enqueue_ms(place / "plain.sqlite", in_batch=False)))
            ours.append(asyncio.run(_enqueue_ms(place / "batch.sqlite", in_batch=True)))
    return Row(
        *(f"enqueue {MEMBERS:,} members and a callback", "ms", ours, theirs),
        beside="enqueue_many",
        judged="ratio",
        target=1.2,
    )


async def _enqueue_ms(file: Path, *, in_batch: bool) -> float:
    """Return the processor time of the calls as a user writes them, from arguments to jobs on disk."""
    jobs = JobRunner(file)
    member = jobs.task(name="member")(_take)
    async with jobs.running(work=False):
        await jobs.enqueue(member, 0)  # what is made once is made before the clock runs
        started = time.process_time()
        calls = [member.call(number) for number in range(MEMBERS)]
        if in_batch:
            await jobs.enqueue_batch(calls, then=member.call(0))
        else:
            await jobs.enqueue_many(calls)
        return (time.process_time() - started) * 1e3


async def _take(number: int) -> None: ...


# -- the longest round -----------------------------------------------------------------------------

Make = Callable[[], BatchEnqueue]
End = Callable[[Claimed], Outcome]


def _rounds(bench: Bench, figure: str, make: Make, end: End) -> Row:
    ours = []
    for _ in range(bench.runs):
        with bench.place() as place:
            ours.append(asyncio.run(_longest_ms(place / "large.sqlite", make, end)))
    return Row(figure, "ms", ours, target=ROUND_MS)


async def _longest_ms(file: Path, make: Make, end: End) -> float:
    """Return the longest round after the enqueue, until nothing is left to run."""
    async with _opened(file) as store:
        await store.write(Round(_now(), batches=[make()]))
        if end is _cancelled:
            (batch,) = (
                await store.workflows.list(state=None, name=None, before=None, limit=1)
            ).rows
            await store.workflows.cancel(batch.id, now=_now())
            return await _drain(store, 100, _succeed)
        return await _drain(store, 100, end)


def _flat() -> BatchEnqueue:
    return _batch([_job() for _ in range(MEMBERS)])


def _fan_out() -> BatchEnqueue:
    root, *leaves = [_job() for _ in range(MEMBERS)]
    return _batch([root, *leaves], [Edge(leaf.id, root.id, "success") for leaf in leaves])


def _fan_in() -> BatchEnqueue:
    """Ten jobs that need a thousand others each."""
    jobs = [_job() for _ in range(MEMBERS)]
    sinks = [_job() for _ in range(10)]
    edges = [
        Edge(sink.id, job.id, "success")
        for place, sink in enumerate(sinks)
        for job in jobs[place * NEEDS : (place + 1) * NEEDS]
    ]
    return _batch([*jobs, *sinks], edges)


def _line() -> BatchEnqueue:
    jobs = [_job() for _ in range(MEMBERS)]
    pairs = zip(jobs[1:], jobs, strict=False)
    return _batch(jobs, [Edge(job.id, before.id, "success") for job, before in pairs])


# -- the store -------------------------------------------------------------------------------------


def _now() -> int:
    return time.time_ns() // 1_000


def _job(task: str = "member") -> Enqueue:
    return Enqueue(f"{next(_IDS):032x}", task, "default", "{}", 0, 0)


def _batch(members: Sequence[Enqueue], edges: Sequence[Edge] = ()) -> BatchEnqueue:
    id, then = f"{next(_IDS):032x}", _job("then")
    return BatchEnqueue(
        NewBatch(id, None, 0), members, [then], [*edges, Edge(then.id, id, "success")]
    )


def _stored(jobs: Sequence[Enqueue], *, in_batch: bool) -> Round:
    if in_batch:
        return Round(_now(), batches=[_batch(jobs)])
    return Round(_now(), enqueues=[*jobs, _job("then")], calls=[len(jobs) + 1])


def _succeed(job: Claimed) -> Outcome:
    return Succeeded(job, Ended("succeeded", _now()), None)


def _die(job: Claimed) -> Outcome:
    return Dead(job, Ended("failed", _now(), "E", "e", "t"), "exhausted")


def _cancelled(job: Claimed) -> Outcome:
    raise AssertionError(f"{job.id} has not been cancelled")


_LARGE: Sequence[tuple[str, Make, End]] = (
    (f"{MEMBERS:,} members", _flat, _succeed),
    (f"{MEMBERS:,} cancelled", _flat, _cancelled),
    (f"{MEMBERS:,} need one job", _fan_out, _succeed),
    (f"{MEMBERS:,} need one dead job", _fan_out, _die),
    (f"ten jobs need {NEEDS:,} each", _fan_in, _succeed),
    (f"a line of {MEMBERS:,} behind a dead job", _line, _die),
)


async def _drain(store: SqliteStore, slots: int, end: End) -> float:
    """Claim and end all jobs; return the duration of the longest round in ms."""
    claim = Claim(WORKER, {"default": slots}, TASKS, suspects=False)
    longest = 0.0
    outcomes: list[Outcome] = []
    while True:
        request = Round(_now(), outcomes=outcomes, promote_due=True, claim=claim)
        started = time.process_time()
        written: Written = await store.write(request)
        longest = max(longest, (time.process_time() - started) * 1e3)
        outcomes = [end(job) for job in written.claimed]
        if not outcomes and not written.more_due:
            return longest


@asynccontextmanager
async def _opened(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(file, durability="normal")
    await store.open()
    now = _now()
    known = dict.fromkeys(TASKS, 5)
    row = WorkerRow(WORKER, os.getpid(), "bench", now, now, None, {"default": 100}, known)
    try:
        await store.workers.join(row, on_notify=lambda: None)
        yield store
        await store.workers.leave(WORKER, now=_now())
    finally:
        await store.close()
