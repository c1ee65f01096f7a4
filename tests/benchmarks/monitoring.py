"""Measures what monitoring costs: a scrape of a large file, and a drain that is scraped."""

import asyncio
import time
from pathlib import Path
from statistics import median

from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from jobrunner import JobRunner
from jobrunner.fastapi import bearer
from jobrunner.opentelemetry import instrument
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.prefill import Past
from tests.benchmarks.throughput import CALLERS, JOBS
from tests.benchmarks.workload import Workload, fill

SCRAPES = 20
TASKS = 50
QUEUES = 10
SCRAPE_EVERY_S = 1.0
"""Fifteen times as often as Prometheus does by default."""
DRAINED = 80_000
"""Jobs of a drain that is scraped: it takes several seconds, with a scrape in each."""
TOKEN = "t"  # noqa: S105 - of an application that lives for one run


def metrics(bench: Bench) -> list[Row]:
    """Scrape a file with a million jobs, and scrape while jobs are drained, in turns with a plain drain."""
    with bench.place() as place:
        file = place / "full.sqlite"
        past = Past(file)
        past.finished(500_000)
        past.dead(10_000)
        for queue in range(QUEUES):
            past.queued(30_000, task="alien", queue=f"queue-{queue}")
            past.future(20_000, task="alien", queue=f"queue-{queue}")
        past.close()
        scrapes = [asyncio.run(_scrape(file)) for _ in range(bench.runs)]
    ours, plain = list[float](), list[float]()
    for _ in range(bench.runs):
        for samples, scraped in ((plain, False), (ours, True)):
            with bench.place() as place:
                samples.append(asyncio.run(_drain(place / "jobs.sqlite", scraped=scraped)))
    return [
        Row(
            f"scrape of 1,000,000 jobs, {TASKS} tasks, {QUEUES} queues",
            "ms",
            scrapes,
            target=20,
        ),
        Row(
            f"CPU of a drain of {DRAINED:,} jobs, scraped each second",
            "s",
            ours,
            plain,
            beside="not scraped",
            judged="ratio",
            target=1.02,
        ),
    ]


def traces(bench: Bench) -> list[Row]:
    """Enqueue and drain with ``instrument()`` and no SDK, in turns with a runner that is not instrumented."""
    rows = []
    for words, measure in (("enqueue one by one", _enqueue_traced), ("drain", _drain_traced)):
        ours, plain = list[float](), list[float]()
        for _ in range(bench.runs):
            for samples, traced in ((plain, False), (ours, True)):
                with bench.place() as place:
                    samples.append(asyncio.run(measure(place / "jobs.sqlite", traced)))
        rows.append(
            Row(
                f"{words} {JOBS:,} jobs, instrumented without an SDK",
                "/s",
                ours,
                plain,
                beside="not instrumented",
                judged="ratio",
                target=0.95,
                more_is_better=True,
            )
        )
    return rows


async def _enqueue_traced(file: Path, traced: bool) -> float:
    """Return jobs per second of 100 callers."""
    workload = Workload(file, work=False)
    jobs, noop = workload.jobs, workload.noop
    if traced:
        instrument(jobs)

    async def caller() -> None:
        for number in range(JOBS // CALLERS):
            await jobs.enqueue(noop, number)

    async with jobs.running():
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(caller())
        return JOBS / (time.perf_counter() - began)


async def _drain_traced(file: Path, traced: bool) -> float:
    """Return jobs per second."""
    await fill(file, JOBS)
    workload = Workload(file, slots=20)
    if traced:
        instrument(workload.jobs)
    async with workload.jobs.running():
        began = time.perf_counter()
        await workload.called(JOBS)
        await workload.settled()
        return JOBS / (time.perf_counter() - began)


def _application(jobs: JobRunner) -> AsyncClient:
    app = FastAPI()
    app.dependency_overrides[jobs.queue] = lambda: jobs._open
    app.include_router(jobs.metrics(read=bearer(TOKEN)), prefix="/metrics")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return AsyncClient(transport=ASGITransport(app), base_url="http://bench", headers=headers)


async def _scrape(file: Path) -> float:
    """Return the median time of a scrape in ms, of a runner of 50 tasks that have all run."""
    jobs = JobRunner(file)
    tasks = [jobs.task(name=f"task-{number}")(_nothing) for number in range(TASKS)]
    took = []
    async with jobs.running():
        done = [await task.enqueue() for task in tasks]
        for job in done:
            await job.result(timeout=60)
        async with _application(jobs) as client:
            await client.get("/metrics")
            for _ in range(SCRAPES):
                began = time.perf_counter()
                answer = await client.get("/metrics")
                took.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, answer.text
    return median(took)


async def _nothing() -> None: ...


async def _drain(file: Path, *, scraped: bool) -> float:
    """Return the processor time of a drain, in seconds."""
    await fill(file, DRAINED)
    workload = Workload(file, slots=20)
    jobs = workload.jobs

    async def scrape(client: AsyncClient) -> None:
        while True:
            answer = await client.get("/metrics")
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(SCRAPE_EVERY_S)

    async with jobs.running(), _application(jobs) as client:
        began = time.process_time()
        scraping = asyncio.create_task(scrape(client)) if scraped else None
        await workload.called(DRAINED)
        await workload.settled()
        took_s = time.process_time() - began
        if scraping is not None:
            scraping.cancel()
            await asyncio.wait([scraping])
    return took_s
