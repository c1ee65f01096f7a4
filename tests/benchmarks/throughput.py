"""Jobs per second: draining what waits, and enqueueing from many callers."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from jobrunner import JobContext, JobRunner
from tests.benchmarks import raw
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, percentile
from tests.benchmarks.workload import SLICE, Workload, fill

JOBS = 20_000
CALLERS = 100
LAG_EVERY_S = 0.002


class Options(TypedDict, total=False):
    """Options of a job."""

    delay: float
    key: str
    tag: str


class Drained(NamedTuple):
    """One drain: jobs per second, and how late the loop's timers were, in ms."""

    rate: float
    lags: Sequence[float]


def drain(bench: Bench) -> list[Row]:
    """Drain 20,000 no-op jobs with 100 slots, and with the default 20."""
    return [
        *_drain(bench, slots=100, target=0.2, aim=0.28, lag_target=5),
        *_drain(bench, slots=20, target=0.12, aim=None, lag_target=None),
    ]


def tasks(bench: Bench) -> list[Row]:
    """Drain jobs of many different tasks with the default 20 slots, in turns with jobs of one."""
    rows = []
    for number, target in ((50, 0.8), (500, 0.7)):
        ours, one = list[float](), list[float]()
        for _ in range(bench.runs):
            for samples, different in ((one, 1), (ours, number)):
                with bench.place() as place:
                    drained = asyncio.run(_drain_once(place / "jobs.sqlite", 20, different))
                samples.append(drained.rate)
        rows.append(
            Row(
                f"drain {JOBS:,} jobs of {number} tasks, 20 slots",
                "/s",
                ours,
                one,
                beside="one task",
                judged="ratio",
                target=target,
                more_is_better=True,
            )
        )
    return rows


def writes(bench: Bench) -> list[Row]:
    """Drain jobs that each hand a function that does nothing to ``job.write()``, beside jobs that do not."""
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(bench.runs):
        for samples, writing in ((plain, False), (ours, True)):
            with bench.place() as place:
                samples.append(asyncio.run(_drain_writes(place / "jobs.sqlite", writing=writing)))
    return [
        Row(
            f"drain {JOBS:,} jobs with job.write(), 100 slots",
            "/s",
            ours,
            plain,
            beside="jobs that write nothing",
            judged="ratio",
            target=0.5,
            more_is_better=True,
        )
    ]


def _nothing(_: object) -> None: ...


async def _drain_writes(file: Path, *, writing: bool) -> float:
    """Return jobs per second."""
    jobs = JobRunner(file, queues={"default": 100})
    began: list[float] = []
    calls = 0
    all_called = asyncio.Event()

    @jobs.task
    async def work(job: JobContext) -> None:
        nonlocal calls
        if not began:
            began.append(time.perf_counter())
        if writing:
            job.write(_nothing)
        calls += 1
        if calls == JOBS:
            all_called.set()

    async with jobs.running(work=False):
        for _ in range(0, JOBS, SLICE):
            await jobs.enqueue_many([work.call() for _ in range(SLICE)])
    async with jobs.running():
        await all_called.wait()
        while any(queue.queued or queue.running for queue in (await jobs.queues.list()).items):
            await asyncio.sleep(0.002)
        return JOBS / (time.perf_counter() - began[0])


def _drain(
    bench: Bench, *, slots: int, target: float, aim: float | None, lag_target: float | None
) -> list[Row]:
    ours, yardstick, lags = [], [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            yardstick.append(raw.batched(place, JOBS).life_cycles)
        with bench.place() as place:
            drained = asyncio.run(_drain_once(place / "jobs.sqlite", slots))
        ours.append(drained.rate)
        lags.append(percentile(drained.lags, 0.99))
    return [
        Row(
            f"drain {JOBS:,} no-op jobs, {slots} slots",
            "/s",
            ours,
            yardstick,
            judged="ratio",
            target=target,
            aim=aim,
            more_is_better=True,
        ),
        Row(f"  loop lag p99 meanwhile, {slots} slots", "ms", lags, target=lag_target),
    ]


async def _drain_once(file: Path, slots: int, tasks: int = 1) -> Drained:
    """Time from the first handler's first line to the commit of the last outcome."""
    await fill(file, JOBS, tasks=tasks)
    began: list[float] = []

    def note_first(_: int) -> None:
        if not began:
            began.append(time.perf_counter())

    workload = Workload(file, slots=slots, tasks=tasks, on_call=note_first)
    lags: list[float] = []
    async with workload.jobs.running():
        watch = asyncio.create_task(watch_lag(lags))
        await workload.called(JOBS)
        await workload.settled()
        ended = time.perf_counter()
        watch.cancel()
        await asyncio.wait([watch])
    assert workload.calls == JOBS, f"{workload.calls} of {JOBS} jobs ran"
    return Drained(JOBS / (ended - began[0]), lags)


async def watch_lag(lags: list[float]) -> None:
    """Note for ever how many ms later than asked for the loop wakes this task."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        lags.append((loop.time() - due) * 1000)


def enqueue(bench: Bench) -> list[Row]:
    """Let 100 callers enqueue 20,000 jobs, each awaiting its own before the next."""
    ours, yardstick = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            yardstick.append(raw.batched(place, JOBS).inserts)
        with bench.place() as place:
            ours.append(asyncio.run(_enqueue_once(place / "jobs.sqlite")))
    return [
        Row(
            f"{CALLERS} concurrent enqueuers",
            "/s",
            ours,
            yardstick,
            judged="ratio",
            target=0.1,
            aim=0.2,
            more_is_better=True,
        )
    ]


def options(bench: Bench) -> list[Row]:
    """Let 100 callers enqueue jobs with options, in turns with callers of plain ones."""
    kinds: list[tuple[str, Callable[[int], Options], float]] = [
        ("a delay", lambda _: {"delay": 3600}, 0.6),
        ("a key and a tag", lambda number: {"key": f"order-{number}", "tag": "order"}, 0.5),
    ]
    rows = []
    for words, of, target in kinds:
        ours, plain = [], []
        for _ in range(bench.runs):
            with bench.place() as place:
                plain.append(asyncio.run(_enqueue_once(place / "jobs.sqlite")))
            with bench.place() as place:
                ours.append(asyncio.run(_enqueue_once(place / "jobs.sqlite", of)))
        rows.append(
            Row(
                f"{CALLERS} concurrent enqueuers with {words}",
                "/s",
                ours,
                plain,
                beside="without options",
                judged="ratio",
                target=target,
                more_is_better=True,
            )
        )
    return rows


async def _enqueue_once(file: Path, of: Callable[[int], Options] | None = None) -> float:
    """Return jobs per second; ``of`` makes a job's options from its number."""
    workload = Workload(file, work=False)
    jobs, noop = workload.jobs, workload.noop

    async def caller(first: int) -> None:
        for number in range(first, first + JOBS // CALLERS):
            task = noop if of is None else noop.options(**of(number))
            await jobs.enqueue(task, number)

    async with jobs.running():
        await jobs.enqueue(noop, 0)  # what is made once is made before the clock runs
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in range(0, JOBS, JOBS // CALLERS):
                group.create_task(caller(first))
        return JOBS / (time.perf_counter() - started)
