"""Measures the store on PostgreSQL, beside pgqueuer in the same run if there is an interpreter that has it.

The server is the run's own, with the settings that keep what it has committed.  ``JOBRUNNER_BENCH_PGQUEUER`` names the
interpreter: ``python3 -m venv V; V/bin/pip install pgqueuer asyncpg``, then ``JOBRUNNER_BENCH_PGQUEUER=V/bin/python``.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg

from jobrunner.core.model import Claim, Ended, Succeeded, WorkerRow
from jobrunner.store.open import open_store
from jobrunner.store.round import Round
from tests.benchmarks.bench import Bench
from tests.benchmarks.claims import CLAIMS, QUEUES, SLOTS, WORKER, a_job
from tests.benchmarks.figures import Row
from tests.benchmarks.processes import Child, program
from tests.support.postgres import NoServer, binaries, start, stop

PGQUEUER: Final = "JOBRUNNER_BENCH_PGQUEUER"
JOBS: Final = 20_000
BACKLOG: Final = 100_000
"""Jobs of the longer drains: what a claim costs behind the jobs that have just ended shows only after some seconds."""
THEIR_CALLS: Final = 2_000
"""Jobs that pgqueuer's callers enqueue, a transaction each."""
STARTS: Final = 200
ROWS: Final = 1_000_000
UNKNOWN: Final = 100_000
MANY: Final = 200
MOST_MS: Final = 3.0
"""A claim of 200 known tasks."""
_PEER: Final = Path(__file__).with_name("peer.py")
_JOBRUNNER: Final = "jobrunner"
_PGQUEUER: Final = "pgqueuer"
_UNLIMITED: Final = "unlimited-pgqueuer"
_DRAINS: Final[dict[str, tuple[str, int, int, float]]] = {
    "drain": (f"drain {JOBS:,} no-op jobs, 100 slots, 1 process", 1, JOBS, 1.4),
    "drain-4": (f"drain {JOBS:,} no-op jobs, 100 slots each, 4 processes", 4, JOBS, 2),
    "backlog": (f"drain {BACKLOG:,} no-op jobs, 100 slots, 1 process", 1, BACKLOG, 1.4),
    "backlog-4": (f"drain {BACKLOG:,} no-op jobs, 100 slots each, 4 processes", 4, BACKLOG, 2),
}
"""Words, processes, jobs and the target, beside pgqueuer with as many slots."""
_THEIRS_OVER: Final = "SELECT NOT EXISTS (SELECT FROM pgqueuer)"
_OVER: Final[dict[str, str]] = {
    _JOBRUNNER: "SELECT NOT EXISTS (SELECT FROM jobrunner.jobs WHERE state IN ('queued', 'running'))",
    _PGQUEUER: _THEIRS_OVER,
    _UNLIMITED: _THEIRS_OVER,
}


def postgres(bench: Bench) -> list[Row]:
    """Measure drains, enqueues, starts and claims."""
    try:
        programs = binaries()
    except NoServer as error:
        print(f" {error}", end="", file=sys.stderr)
        return []
    with bench.place() as place:
        place.chmod(0o755)
        directory = place / "server"
        directory.mkdir(mode=0o755)
        port = start(programs, directory, ("shared_buffers=256MB",))
        try:
            server = _Server(f"postgresql://jobrunner@127.0.0.1:{port}")
            return [*_beside(bench, server), *_claims(bench, server)]
        finally:
            stop(directory)


class _Server:
    """Makes a database for each measurement."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._number = 0

    @contextmanager
    def database(self) -> Iterator[str]:
        self._number += 1
        name = f"bench_{self._number}"
        asyncio.run(run(f"{self._url}/postgres", f"CREATE DATABASE {name}"))
        try:
            yield f"{self._url}/{name}"
        finally:
            asyncio.run(run(f"{self._url}/postgres", f"DROP DATABASE {name} WITH (FORCE)"))


async def run(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


# -- beside pgqueuer -----------------------------------------------------------------------------------


def _beside(bench: Bench, server: _Server) -> list[Row]:
    theirs = [_PGQUEUER] if PGQUEUER in os.environ else []
    unlimited = [_UNLIMITED] if theirs else []
    found: dict[tuple[str, str], list[float]] = {}

    def sample(name: str, queue: str, measure: Callable[[str], Coroutine[Any, Any, float]]) -> None:
        with server.database() as url:
            found.setdefault((name, queue), []).append(asyncio.run(measure(url)))

    for _ in range(bench.runs):
        for name, (_, processes, jobs, _) in _DRAINS.items():
            for queue in (_JOBRUNNER, *theirs, *unlimited):
                sample(name, queue, partial(_drain, queue, processes, jobs))
        for queue in (_JOBRUNNER, *theirs):
            sample("callers", queue, partial(_callers, queue))
            sample("start", queue, partial(_start, queue))

    def row(
        name: str, figure: str, target: float | None, beside: str = _PGQUEUER, *, more: bool = True
    ) -> Row:
        raw = found.get((name, beside), ())
        return Row(
            f"PostgreSQL: {figure}",
            "/s" if more else "ms",
            found[name, _JOBRUNNER],
            raw,
            beside=beside.replace("-", " "),
            judged="ratio",
            target=target if raw else None,
            more_is_better=more,
        )

    return [
        *(row(name, words, target) for name, (words, _, _, target) in _DRAINS.items()),
        *(
            row(name, f"{words}, theirs unlimited", None, beside)
            for beside in unlimited
            for name, (words, *_) in _DRAINS.items()
        ),
        row("callers", "100 callers enqueue", 10),
        row("start", "enqueue → first line, idle worker, p50", 1, more=False),
    ]


def _peer(queue: str, role: str, url: str, number: int = 0) -> Any:
    python = sys.executable if queue == _JOBRUNNER else os.environ[PGQUEUER]
    return program(python, str(_PEER), queue, role, url, str(number))


async def _drain(queue: str, processes: int, jobs: int, url: str) -> float:
    """Return jobs per second from the time when all processes call tasks until the last job has ended.

    How long a process takes to open its queue is not the rate at which it works.
    """
    async with _peer(queue, "fill", url, jobs) as filler:
        await filler.heard("filled")
    async with AsyncExitStack() as stack:
        watcher = await asyncpg.connect(url)
        stack.push_async_callback(watcher.close)
        workers: Sequence[Child] = [
            await stack.enter_async_context(_peer(queue, "drain", url)) for _ in range(processes)
        ]
        for worker in workers:
            await worker.heard("ready")
        for worker in workers:
            worker.tell("go")
        reports = await _all_called(workers, jobs)
        while not await watcher.fetchval(_OVER[queue]):
            await asyncio.sleep(0.002)
        ended = time.time()
        for worker in workers:
            worker.tell("stop")
        firsts = [(await _last(worker))["first"] for worker in workers]
    began = float(max(first for first in firsts if first is not None))
    before = sum(
        max((report["jobs"] for report in of_one if report["at"] <= began), default=0)
        for of_one in reports
    )
    return (jobs - before) / (ended - began)


async def _all_called(workers: Sequence[Child], jobs: int) -> Sequence[Sequence[dict[str, Any]]]:
    """Wait until the workers have called all jobs: to ask the server meanwhile would load it.

    Returns:
        For each worker, the number of jobs that it had called, and when.
    """
    reports: dict[Child, list[dict[str, Any]]] = {worker: [] for worker in workers}
    over = asyncio.Event()

    async def listen(worker: Child) -> None:
        while True:
            reports[worker].append(await worker.heard("called"))
            if sum(of_one[-1]["jobs"] for of_one in reports.values() if of_one) >= jobs:
                over.set()

    listening = [asyncio.create_task(listen(worker)) for worker in workers]
    waiting = asyncio.create_task(over.wait())
    await asyncio.wait([waiting, *listening], return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, *listening):
        task.cancel()
    for result in await asyncio.gather(waiting, *listening, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return list(reports.values())


async def _last(worker: Child) -> dict[str, Any]:
    """Return what a worker says at its end; it may still say how many jobs it called."""
    while (said := await worker.hears("drained"))["word"] != "drained":
        pass
    return said


async def _callers(queue: str, url: str) -> float:
    jobs = JOBS if queue == _JOBRUNNER else THEIR_CALLS
    async with _peer(queue, "callers", url, jobs) as peer:
        return float((await peer.heard("enqueued"))["rate"])


async def _start(queue: str, url: str) -> float:
    async with _peer(queue, "start", url, STARTS) as peer:
        return float(median((await peer.heard("started"))["took"]))


# -- claims --------------------------------------------------------------------------------------------

_WAITING: Final = """
INSERT INTO jobrunner.jobs (id, task, queue, state, args, priority, created_at, run_at)
SELECT '{state}-' || i, '{task}', 'default', '{state}', '{{"number":1}}', 0, {now}, {run_at} + i
FROM generate_series(1, {rows}) AS number (i)"""
_FINISHED: Final = """
INSERT INTO jobrunner.jobs (
    id, task, queue, state, args, priority, created_at, run_at, attempt, lease, started_at, first_started_at,
    finished_at
)
SELECT 'finished-' || i, 'noop', 'default', 'succeeded', '{{"number":1}}', 0, {now}, {now}, 1, 1, {now}, {now},
    {now} + i
FROM generate_series(1, {rows}) AS number (i)"""
_HOUR_US: Final = 3_600_000_000


def _claims(bench: Bench, server: _Server) -> list[Row]:
    now = time.time_ns() // 1000
    pasts: list[tuple[str, list[str]]] = [
        (
            f"beside {ROWS:,} future and {ROWS:,} finished",
            [
                _WAITING.format(
                    state="scheduled", task="noop", now=now, run_at=now + 100 * _HOUR_US, rows=ROWS
                ),
                _FINISHED.format(now=now, rows=ROWS),
            ],
        ),
        (
            f"behind {UNKNOWN:,} of an unknown task",
            [
                _WAITING.format(
                    state="queued", task="alien", now=now, run_at=now - _HOUR_US, rows=UNKNOWN
                )
            ],
        ),
    ]
    rows = []
    for words, statements in pasts:
        with server.database() as empty, server.database() as full:
            asyncio.run(_prepare(empty, []))
            asyncio.run(_prepare(full, statements))
            ours, yardstick = list[float](), list[float]()
            for _ in range(bench.runs):
                yardstick.append(asyncio.run(claim_cost(empty)))
                ours.append(asyncio.run(claim_cost(full)))
        rows.append(
            Row(
                f"PostgreSQL: claim of {SLOTS} {words}",
                "µs",
                ours,
                yardstick,
                beside="empty table",
                judged="ratio",
                target=1.3,
            )
        )
    with server.database() as url:
        asyncio.run(_prepare(url, []))
        many = [asyncio.run(claim_cost(url, MANY)) / 1000 for _ in range(bench.runs)]
    return [
        *rows,
        Row(f"PostgreSQL: claim of {SLOTS} of {MANY} known tasks", "ms", many, target=MOST_MS),
    ]


async def _prepare(url: str, statements: Sequence[str]) -> None:
    store = await open_store(url)
    await store.close()
    # The wait for the disk does not depend on the rows in the table.
    name = url.rpartition("/")[2]
    await run(
        url,
        f"ALTER DATABASE {name} SET synchronous_commit = off",
        *statements,
        "VACUUM ANALYZE jobrunner.jobs",
    )


async def claim_cost(url: str, tasks: int = 1) -> float:
    """Return the median time of one claim, in µs; what is put in for it is gone afterwards."""
    names = [f"noop-{number}" if number else "noop" for number in range(tasks)]
    store = await open_store(url)
    now = time.time_ns() // 1000
    claim = Claim(WORKER, QUEUES, frozenset(names), suspects=False)
    took = []
    try:
        await store.workers.join(
            WorkerRow(
                WORKER, os.getpid(), "bench", now, now, None, QUEUES, dict.fromkeys(names, 5)
            ),
            lambda: None,
        )
        jobs = [a_job(now, number, names[number % tasks]) for number in range(CLAIMS * SLOTS)]
        await store.write(Round(now, enqueues=jobs))
        for _ in range(CLAIMS):
            started = time.perf_counter()
            written = await store.write(
                Round(now, promote_due=True, claim=claim, ticks_of=claim.tasks)
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
