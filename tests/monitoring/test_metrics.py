"""``jobs.metrics()`` and ``JobCollector``: what Prometheus reads."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.utils import floatToGoString
from tenacity import wait_none

from jobrunner import Bury, ConfigurationError, JobContext, JobDead, JobRunner
from jobrunner.fastapi import bearer
from jobrunner.fastapi.api.exposition import encode
from jobrunner.prometheus import JobCollector, families
from tests.monitoring.parsed import Series, nonzero, parsed, series
from tests.support.engine import Gate, next_round, producer_of, soon
from tests.support.processes import CHECKOUT

TOKEN = "correct-horse"  # noqa: S105 - of these tests alone
SENT = {"Authorization": f"Bearer {TOKEN}"}


async def scraped(jobs: JobRunner, **options: Any) -> Mapping[Series, float]:
    """See what was counted written, and return the samples of a registry with the runner's collector."""
    producer_of(jobs)._statistics._period.end()
    await next_round(jobs)
    registry = CollectorRegistry()
    registry.register(JobCollector(jobs, **options))
    # On the thread of the loop, as the ASGI application of prometheus-client does it.
    return parsed(generate_latest(registry).decode())


# -- the route ---------------------------------------------------------------------------------------


def site(jobs: JobRunner, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.metrics(**options), prefix="/metrics")
    return app


def test_route_answers_with_the_token_in_the_text_format(jobs: JobRunner) -> None:
    with TestClient(site(jobs, read=bearer(TOKEN))) as client:
        assert client.get("/metrics").status_code == 401
        answer = client.get("/metrics", headers=SENT)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.headers["cache-control"] == "no-store"
        assert parsed(answer.text)[series("jobrunner_workers")] == 1


def test_route_answers_in_open_metrics_if_asked(jobs: JobRunner) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with TestClient(site(jobs, read=bearer(TOKEN))) as client:
        answer = client.get("/metrics", headers={**SENT, **accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family.type for family in open_metrics_families(answer.text)}  # type: ignore[no-untyped-call]
    assert families["jobrunner_jobs"] == "counter"
    assert families["jobrunner_loop_lag_seconds"] == "histogram"


def test_route_without_a_guard_is_refused_with_the_line_to_write(jobs: JobRunner) -> None:
    with pytest.raises(ConfigurationError, match=r"jobs\.metrics\(read=bearer\(TOKEN\)\)"):
        jobs.metrics()
    wrong: Any = "secret"
    with pytest.raises(ConfigurationError, match=r"jobs\.metrics\(read=\.\.\.\) takes"):
        jobs.metrics(read=wrong)


def test_insecure_route_answers_local_names_alone(jobs: JobRunner) -> None:
    with TestClient(site(jobs, insecure=True)) as client:
        assert client.get("/metrics").status_code == 200
        answer = client.get("/metrics", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "jobs.metrics(read=bearer(TOKEN))" in answer.json()["detail"]


def test_route_of_a_closed_runner_is_unavailable(jobs: JobRunner) -> None:
    client = TestClient(site(jobs, read=bearer(TOKEN)))
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=SENT).status_code == 503


@pytest.mark.parametrize("shown", [False, True])
def test_route_is_in_the_openapi_document_only_if_asked(jobs: JobRunner, shown: bool) -> None:
    app = site(jobs, read=bearer(TOKEN), include_in_schema=shown)
    assert ("/metrics" in app.openapi()["paths"]) is shown


def test_route_of_a_runner_with_a_session_reads_without_one(tmp_db: Path) -> None:
    opened = []

    def session() -> Any:
        opened.append(1)
        yield None

    jobs = JobRunner(tmp_db, session=session)
    with TestClient(site(jobs, read=bearer(TOKEN))) as client:
        assert client.get("/metrics", headers=SENT).status_code == 200
    assert opened == []


# -- the collector -----------------------------------------------------------------------------------


async def test_closed_runner_has_no_metrics_and_its_names_are_taken(jobs: JobRunner) -> None:
    registry = CollectorRegistry()
    registry.register(JobCollector(jobs))
    assert generate_latest(registry) == b""
    with pytest.raises(ValueError, match="jobrunner_jobs"):
        registry.register(JobCollector(jobs))
    async with jobs.running():
        inside = await asyncio.to_thread(generate_latest, registry)
        assert b"jobrunner_workers 1.0" in inside
    assert generate_latest(registry) == b""


async def test_jobs_and_attempts_count_by_task_and_outcome(jobs: JobRunner) -> None:
    @jobs.task
    async def good() -> None: ...

    @jobs.task(max_attempts=3, wait=wait_none())
    async def bad() -> None:
        raise ValueError

    @jobs.task
    async def hopeless() -> None:
        raise Bury("no")

    @jobs.task
    async def never() -> None: ...

    async with jobs.running():
        await (await good.enqueue()).result(timeout=30)
        for task in (bad, hopeless):
            with pytest.raises(JobDead):
                await (await task.enqueue()).result(timeout=30)
        job = await never.options(delay=60).enqueue()
        await jobs.cancel(job.id)
        found = await scraped(jobs)
    # Labels by name: outcome or reason, queue, task.
    assert nonzero(found, "jobrunner_jobs_total") == {
        ("succeeded", "default", "good"): 1,
        ("dead", "default", "bad"): 1,
        ("dead", "default", "hopeless"): 1,
        ("cancelled", "default", "never"): 1,
    }
    assert nonzero(found, "jobrunner_attempts_total") == {
        ("succeeded", "default", "good"): 1,
        ("failed", "default", "bad"): 3,
        ("failed", "default", "hopeless"): 1,
    }
    assert nonzero(found, "jobrunner_retries_total") == {("default", "bad"): 2}
    assert nonzero(found, "jobrunner_dead_letters_total") == {
        ("default", "exhausted", "bad"): 1,
        ("default", "buried", "hopeless"): 1,
    }
    assert nonzero(found, "jobrunner_run_seconds_count") == {
        ("default", "good"): 1,
        ("default", "bad"): 3,
        ("default", "hopeless"): 1,
    }
    assert nonzero(found, "jobrunner_wait_seconds_count") == {("default",): 5}
    # The first death of a task must be an increase.
    assert found[series("jobrunner_jobs_total", queue="default", task="never", outcome="dead")] == 0


async def test_histograms_have_the_sum_and_the_buckets_of_their_values(jobs: JobRunner) -> None:
    async with jobs.running():
        statistics = producer_of(jobs)._statistics
        for lag_us in (300, 70_000, 70_000, 60_000_000):
            statistics.count_lag(lag_us)
        statistics._idle.end()
        await next_round(jobs)
        found = await scraped(jobs)
    name = "jobrunner_loop_lag_seconds"
    buckets = {
        float(labels[0][1]): number
        for (own, labels), number in found.items()
        if own == f"{name}_bucket"
    }
    assert buckets[float("inf")] - buckets[16.777216] == 1
    assert buckets[0.131072] - buckets[0.065536] >= 2
    assert list(buckets.values()) == sorted(buckets.values())
    assert found[series(f"{name}_sum")] >= 60.1403
    assert found[series(f"{name}_count")] == buckets[float("inf")]


async def test_commits_count_their_rows(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=True):
        done = await jobs.enqueue_many([work.call() for _ in range(100)])
        for job in done:
            await job.result(timeout=30)
        found = await scraped(jobs)
    # Each is enqueued, claimed and settled.
    assert found[series("jobrunner_commit_rows_sum")] == 300
    commits = found[series("jobrunner_commit_rows_count")]
    assert commits == found[series("jobrunner_commit_seconds_count")]
    assert found[series("jobrunner_commit_rows_bucket", le="+Inf")] == commits
    assert found[series("jobrunner_commit_seconds_sum")] > 0


async def test_queues_show_what_waits_what_runs_and_since_when(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 2, "mail": 3, "idle": 1})
    gate = Gate()

    @jobs.task
    async def hold() -> None:
        await gate.enter()

    @jobs.task(queue="mail")
    async def send() -> None: ...

    async with jobs.running():
        await jobs.queues.pause("mail")
        await send.enqueue()
        await send.options(delay=timedelta(hours=1)).enqueue()
        await hold.enqueue()
        await gate.arrival()
        found = await scraped(jobs)
        gate.open()
    assert nonzero(found, "jobrunner_waiting_jobs") == {
        ("mail", "queued"): 1,
        ("mail", "scheduled"): 1,
    }
    assert nonzero(found, "jobrunner_running_jobs") == {("default",): 1}
    assert nonzero(found, "jobrunner_slots") == {("default",): 2, ("mail",): 3, ("idle",): 1}
    assert nonzero(found, "jobrunner_queue_paused") == {("mail",): 1}
    ages = {
        queue: age for (queue,), age in nonzero(found, "jobrunner_oldest_due_age_seconds").items()
    }
    assert set(ages) == {"mail"}
    assert 0 < ages["mail"] < 60
    assert found[series("jobrunner_oldest_due_age_seconds", queue="idle")] == 0
    assert found[series("jobrunner_store_bytes", file="database")] > 0
    assert series("jobrunner_store_bytes", file="log") in found


async def test_batches_show_how_many_run_and_how_they_ended(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def hold() -> None:
        await gate.enter()

    @jobs.task
    async def bad() -> None:
        raise Bury("no")

    @jobs.task
    async def waits(job: JobContext) -> None:
        await job.wait_for("go")

    async with jobs.running():
        failed = await jobs.enqueue_batch([bad.call()])
        await failed.wait(timeout=30)
        parked = await waits.enqueue()
        while (await jobs.get(parked.id)).state != "blocked":
            await soon(next_round(jobs))
        held = await jobs.enqueue_batch([hold.call()])
        await gate.arrival()
        found = await scraped(jobs)
        assert nonzero(found, "jobrunner_unfinished_batches") == {("running",): 1}
        assert nonzero(found, "jobrunner_batches_total") == {("failed",): 1}
        # The first success must be an increase.
        assert found[series("jobrunner_batches_total", outcome="succeeded")] == 0
        assert nonzero(found, "jobrunner_parks_total") == {("default", "waits"): 1}
        gate.open()
        await held.wait(timeout=30)
        found = await scraped(jobs)
    assert nonzero(found, "jobrunner_unfinished_batches") == {}
    assert nonzero(found, "jobrunner_batches_total") == {("failed",): 1, ("succeeded",): 1}


async def test_schedules_show_their_last_tick(jobs: JobRunner) -> None:
    @jobs.every(1)
    @jobs.task
    async def tick() -> None:
        reached.set()

    reached = asyncio.Event()
    async with jobs.running():
        await asyncio.wait_for(reached.wait(), 30)
        found = await scraped(jobs)
        (schedule,) = (await jobs.schedules.list()).items
    ticks = nonzero(found, "jobrunner_schedule_last_tick_timestamp_seconds")
    assert schedule.last_at is not None
    assert 0 < ticks[schedule.id,] <= schedule.last_at.timestamp()


async def test_tasks_above_the_limit_are_other_and_the_first_ones_stay(jobs: JobRunner) -> None:
    def declare(name: str) -> Any:
        @jobs.task(name=name)
        async def work() -> None: ...

        return work

    tasks = [declare(f"t{number}") for number in range(5)]
    async with jobs.running():
        for task in reversed(tasks):
            await (await task.enqueue()).result(timeout=30)
            producer_of(jobs)._statistics._period.end()
            await next_round(jobs)
        found = await scraped(jobs, max_tasks=2)
    # In the order in which they were first counted.
    assert nonzero(found, "jobrunner_jobs_total") == {
        ("succeeded", "default", "t4"): 1,
        ("succeeded", "default", "t3"): 1,
        ("succeeded", "default", "other"): 3,
    }
    assert nonzero(found, "jobrunner_run_seconds_count")["default", "other"] == 3


@pytest.mark.parametrize("limit", [0, -1, "50", True, None])
def test_limit_that_is_no_number_of_tasks_is_refused(jobs: JobRunner, limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_tasks=200"):
        jobs.metrics(insecure=True, max_tasks=limit)
    with pytest.raises(ConfigurationError, match="max_tasks=200"):
        JobCollector(jobs, max_tasks=limit)


async def test_queues_above_the_limit_are_other(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={f"q{number}": 2 for number in range(4)})
    async with jobs.running():
        found = await scraped(jobs, max_tasks=1)
    assert nonzero(found, "jobrunner_slots") == {("q0",): 2, ("other",): 6}


async def test_idle_worker_writes_its_own_counters_rarely(jobs: JobRunner) -> None:
    """A commit a second would keep a disk awake."""
    async with jobs.running():
        statistics = producer_of(jobs)._statistics
        statistics._idle.end()
        statistics.count_lag(5)
        assert len(statistics.take()) == 1
        statistics.count_lag(5)
        assert statistics.take() == ()
        assert len(statistics.take(all_of_them=True)) == 1


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
sys.modules["prometheus_client.core"] = None
from jobrunner import JobRunner
try:
    JobRunner("x.db").metrics(insecure=True)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_metrics_without_the_extra_name_the_line_to_write(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == (
        "ConfigurationError metrics need prometheus-client: write pip install"
        " 'fastapi-jobrunner[metrics]'\n"
    )


# -- the text ----------------------------------------------------------------------------------------


class Families:
    """A collector of families that exist already."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def assert_written_as_by_prometheus_client(given: Iterable[Metric]) -> None:
    collector: Any = Families(*given)
    for accept in ("", "text/plain;version=1.0.0", "application/openmetrics-text;version=1.0.0"):
        theirs, media_type = choose_encoder(accept)
        open_metrics = "openmetrics" in media_type
        ours = encode(collector.collect(), open_metrics=open_metrics, number=floatToGoString)
        assert ours == theirs(collector)


async def test_text_is_that_of_prometheus_client(jobs: JobRunner) -> None:
    @jobs.task(max_attempts=1)
    async def work(number: int) -> None:
        if number:
            raise ValueError(number)

    async with jobs.running():
        await (await work.enqueue(0)).result(timeout=20)
        with pytest.raises(JobDead):
            await (await work.enqueue(1)).result(timeout=20)
        await scraped(jobs)
        assert_written_as_by_prometheus_client(JobCollector(jobs).collect())


@pytest.mark.parametrize(
    "number", [0, 1, 0.1, -2.5, 999_999, 1_000_000, 1e7, 123_456_789.5, 2**63, 1e-9, inf, -inf, nan]
)
def test_every_number_and_label_is_written_as_by_prometheus_client(number: float) -> None:
    gauge = GaugeMetricFamily("jobrunner_g", "A gauge.", labels=["queue", "a"])
    for value in (
        "",
        "plain",
        'a "quoted" one',
        "back\\slash",
        "two\nlines",
        "\\n",
        "ü{},= ",
        "%s",
    ):
        gauge.add_metric([value, "second"], number)
    counter = CounterMetricFamily("jobrunner_c", "A counter.", number)
    assert_written_as_by_prometheus_client([gauge, counter])


@pytest.mark.parametrize("labels", [{}, {"queue": "a"}, {"queue": "a", "task": "b"}])
def test_samples_of_a_histogram_are_those_of_prometheus_client(labels: dict[str, str]) -> None:
    buckets = [("0.5", 1.0), ("2.0", 3.0), ("+Inf", 4.0)]
    ours, theirs = (
        HistogramMetricFamily("jobrunner_h", "A histogram.", labels=[*labels]) for _ in range(2)
    )
    families._add_histogram(ours, labels, buckets, 2.5)
    theirs.add_metric([*labels.values()], buckets, 2.5)
    assert ours == theirs
    assert_written_as_by_prometheus_client([ours])
