"""Shutdown: attempts get their grace, what does not end is given back for nothing, and nothing new starts."""

import asyncio
import logging
from pathlib import Path

import pytest

from jobrunner import DeadLetter, JobContext, JobRunner, NotRunning, StoreUnavailable
from jobrunner.core.model import Claim
from tests.support.engine import (
    Gate,
    Heard,
    ThreadGate,
    history,
    next_round,
    producer_of,
    soon,
    stored,
    worker_of,
)

pytestmark = pytest.mark.each_store


async def states(url: str, *ids: str) -> list[tuple[str, int, list[str | None]]]:
    """Return the state, attempts and outcomes of jobs, read by a runner with ``work=False``."""
    jobs = JobRunner(url)
    async with jobs.running(work=False):
        found = [await jobs.get(id) for id in ids]
    return [(job.state, job.attempt, [a.outcome for a in job.history]) for job in found]


async def test_leaves_with_running_jobs_waits_until_they_have_ended(store_url: str) -> None:
    jobs = JobRunner(store_url)
    gate = Gate()
    warned = asyncio.Event()

    @jobs.task
    async def work(job: JobContext) -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        worker_of(jobs).begin_stop()
        attempt = next(iter(worker_of(jobs)._supervisor.attempts.values()))  # type: ignore[union-attr]
        assert attempt.context._cancelled is True
        warned.set()
        gate.open()
    assert await states(store_url, job.id) == [("succeeded", 1, ["succeeded"])]


async def test_leaves_with_a_job_that_outlasts_the_grace_gives_it_back_for_nothing(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url, grace=0.05)
    gate = Gate()
    seen: list[bool] = []

    @jobs.task
    async def wait(job: JobContext) -> str:
        try:
            await gate.enter()
        except asyncio.CancelledError:
            seen.append(job.cancelled)
            raise
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(wait)
        await gate.arrival()
    assert seen == [True]
    assert await states(store_url, job.id) == [("queued", 0, ["released"])]

    gate.open()
    async with jobs.running():
        assert await (await jobs.get(job.id, wait)).result(timeout=15) == "done"
    assert await states(store_url, job.id) == [("succeeded", 1, ["released", "succeeded"])]


async def test_leaves_with_a_thread_that_looks_lets_it_end_and_gives_it_back(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url)
    gate = ThreadGate()

    @jobs.task
    def count(job: JobContext) -> str:
        gate.enter()
        return "cut short" if job.cancelled else "whole"

    async with jobs.running():
        job = await jobs.enqueue(count)
        await gate.arrival()
        worker_of(jobs).begin_stop()
        gate.open()
    assert await states(store_url, job.id) == [("queued", 0, ["released"])]


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_C11_leaves_with_code_that_never_ends_leaves_it_behind(
    store_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(store_url, grace=0.05)
    gate, threads = Gate(), ThreadGate()

    @jobs.task
    async def disobey() -> None:
        while gate.inside == 0:
            try:
                await gate.enter()
            except asyncio.CancelledError:
                continue
            return

    @jobs.task
    def block() -> None:
        threads.enter()

    with caplog.at_level(logging.ERROR, "jobrunner"):
        async with jobs.running():
            if kind == "async def":
                job = await jobs.enqueue(disobey)
                await gate.arrival()
            else:
                job = await jobs.enqueue(block)
                await threads.arrival()
            attempt = next(iter(worker_of(jobs)._supervisor.attempts.values()))  # type: ignore[union-attr]
            task = attempt.task
    assert "does not end; it is given back and left behind" in caplog.text
    assert await states(store_url, job.id) == [("queued", 0, ["released"])]
    gate.open()
    threads.open()
    assert task is not None
    await soon(asyncio.wait([task]))
    assert await states(store_url, job.id) == [("queued", 0, ["released"])]


async def test_stops_at_the_signal_claims_nothing_more_and_still_takes_jobs(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 5})
    gate = Gate()

    @jobs.task
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        first = await jobs.enqueue(work, 1)
        await gate.arrival()
        assert (await jobs.health()).status == "ok"

        worker_of(jobs).begin_stop()
        later = await jobs.enqueue(work, 2)
        many = await jobs.enqueue_many(work.call(number) for number in range(3, 6))
        await next_round(jobs)
        assert gate.arrivals == [1]
        health = await jobs.health()
        assert (health.status, health.working, health.running) == ("stopping", False, 1)
        assert [job.state for job in (await jobs.list()).items] == ["queued"] * 4 + ["running"]
        gate.open()
    assert await states(store_url, first.id, later.id, many[-1].id) == [
        ("succeeded", 1, ["succeeded"]),
        ("queued", 0, []),
        ("queued", 0, []),
    ]


async def test_stops_at_the_signal_due_jobs_stay_where_they_are(store_url: str) -> None:
    jobs = JobRunner(store_url)
    gate = Gate()

    @jobs.task
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        await jobs.enqueue(work, 1)
        await gate.arrival()
        worker_of(jobs).begin_stop()
        soon_due = await jobs.enqueue(work.options(delay=0.01), 2)
        gate.open()
    ((state, attempt, _),) = await states(store_url, soon_due.id)
    assert state in ("scheduled", "queued")
    assert attempt == 0


async def test_enqueues_in_its_last_breath_is_stored(store_url: str) -> None:
    jobs = JobRunner(store_url, grace=0.05)
    gate = Gate()
    child: list[str] = []

    @jobs.task
    async def parent() -> None:
        try:
            await gate.enter()
        finally:
            child.append((await jobs.enqueue(work)).id)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        await jobs.enqueue(parent)
        await gate.arrival()
    assert await states(store_url, *child) == [("queued", 0, [])]


async def test_leaves_tells_the_hooks_what_the_last_attempts_did(jobs: JobRunner) -> None:
    gate = Gate()
    told: list[str] = []

    @jobs.on_dead
    async def alert(letter: DeadLetter) -> None:
        told.append(letter.id)

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        await gate.enter()
        raise LookupError

    async with jobs.running():
        job = await jobs.enqueue(fail)
        await gate.arrival()
        worker_of(jobs).begin_stop()
        gate.open()
    assert told == [job.id]


async def test_leaves_while_a_hook_hangs_leaves_the_hook_behind(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(store_url, grace=0.05)
    called = asyncio.Event()

    @jobs.on_succeeded
    async def hang(_: object) -> None:
        called.set()
        await asyncio.Event().wait()

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        await jobs.enqueue(work)
        await soon(called.wait())
    assert "hooks did not finish in 0.05 s and were left" in caplog.text


async def test_waits_for_a_result_across_the_end_is_told(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work.options(delay=3600))
        waiting = asyncio.create_task(job.result())
        await next_round(jobs)
    with pytest.raises(StoreUnavailable, match="is not open"):
        await soon(waiting)


async def test_uses_after_the_end_is_told(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        queue = await jobs.queue()
    with pytest.raises(NotRunning, match="the runner is not open"):
        await jobs.enqueue(work)
    with pytest.raises(StoreUnavailable, match="the runner is closed"):
        await queue.enqueue(work)
    with pytest.raises(StoreUnavailable, match="is not open"):
        await queue.list()


async def test_D9_is_cancelled_while_it_stops_stops_to_the_end(store_url: str) -> None:
    jobs = JobRunner(store_url, grace=10)
    gate = Gate()
    entered = asyncio.Event()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return "done"

    async def serve() -> None:
        async with jobs.running():
            await jobs.enqueue(work)
            entered.set()

    serving = asyncio.create_task(serve())
    await soon(entered.wait())
    await gate.arrival()
    serving.cancel()
    await asyncio.wait([serving], timeout=0)
    serving.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
    async with JobRunner(store_url).running(work=False) as again:
        (job,) = (await again.list()).items
        assert job.state == "succeeded"
        assert (await again.health()).workers == ()


async def test_worker_row_and_lock_are_gone_after_the_end(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    folder = tmp_db.with_name(f"{tmp_db.name}-jobrunner")
    async with jobs.running():
        assert len(list(folder.glob("worker-*.lock"))) == 1
        assert len((await jobs.health()).workers) == 1
    assert list(folder.glob("worker-*.lock")) == []
    async with jobs.running(work=False):
        assert (await jobs.health()).workers == ()


async def test_grace_of_zero_gives_everything_back_at_once(store_url: str) -> None:
    jobs = JobRunner(store_url, grace=0, queues={"default": 10})
    gate = Gate()

    @jobs.task
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        many = await jobs.enqueue_many(work.call(number) for number in range(10))
        # Some have begun, some have not had their first step.
    found = await states(store_url, *(job.id for job in many))
    assert {(state, attempt) for state, attempt, _ in found} == {("queued", 0)}


async def test_told_of_released_in_the_log(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(store_url, grace=0.01)
    heard = Heard(jobs)
    gate = Gate()

    @jobs.task
    async def work() -> None:
        await gate.enter()

    with caplog.at_level(logging.INFO, "jobrunner"):
        async with jobs.running():
            job = await jobs.enqueue(work)
            await gate.arrival()
            assert (await stored(jobs, job.id)).state == "running"
            assert (await history(jobs, job.id))[0].outcome is None
    assert f"work {job.id} is given back" in caplog.text
    assert heard.dead.empty()


async def test_signal_while_a_claim_is_being_committed_gives_the_job_back_unstarted(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobRunner(store_url)
    started: list[str] = []

    @jobs.task
    async def work() -> None:
        started.append("started")

    async with jobs.running():
        producer = producer_of(jobs)
        ask = producer.next_claim

        def ask_then_signal() -> Claim | None:
            claim = ask()
            worker_of(jobs).begin_stop()
            return claim

        monkeypatch.setattr(producer, "next_claim", ask_then_signal)
        job = await jobs.enqueue(work)
    assert started == []
    assert await states(store_url, job.id) == [("queued", 0, ["released"])]
