"""After a crash: what ran in the dead process runs again, and the innocent are not buried with the culprit."""

import sqlite3
from pathlib import Path

from jobrunner import JobRunner
from jobrunner.core.model import WorkerRow
from jobrunner.store.sqlite.sql import workers
from jobrunner.store.sqlite.store import SqliteStore
from tests.support.engine import Gate, history, next_round, store_of, supervisor_of, worker_of

DEAD = 4711
"""A worker that exists only as a row."""


async def die_with(jobs: JobRunner, *ids: str) -> None:
    """Have the jobs been running in a process that died, and let the open runner find out."""
    store = store_of(jobs)
    assert isinstance(store, SqliteStore)
    assert store._access._writer is not None
    limits = {name: task.spec.options.policy.max_attempts for name, task in jobs.tasks.items()}
    nobody = WorkerRow(DEAD, 1, "host", 1, 1, None, {"default": 1}, limits)

    def take(conn: sqlite3.Connection) -> None:
        workers.join(conn, nobody)
        conn.executemany(
            "UPDATE jobrunner_jobs SET state = 'running', worker = ?, attempt = attempt + 1, lease = lease + 1,"
            " started_at = 1, first_started_at = coalesce(first_started_at, 1) WHERE id = ?",
            [(DEAD, id) for id in ids],
        )

    await store._access._writer.write(take)
    assert await store._access._writer.write(workers.take_jobs, DEAD, 2) is not None
    worker_of(jobs).wake()


async def test_job_whose_process_died_once_runs_again_beside_others(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 5})
    gate = Gate()

    @jobs.task
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        await jobs.queues.pause("default")
        many = await jobs.enqueue_many(work.call(number) for number in range(3))
        await die_with(jobs, *(job.id for job in many))
        await jobs.queues.resume("default")
        for _ in range(3):
            await gate.arrival()
        assert gate.inside == 3
        gate.open()
        for job in many:
            await job.result(timeout=15)
            assert [a.outcome for a in await history(jobs, job.id)] == ["lost", "succeeded"]


async def test_jobs_whose_process_died_twice_run_one_at_a_time_and_the_others_beside(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 5})
    suspects, others = Gate(), Gate()

    @jobs.task
    async def work(number: int) -> str:
        await suspects.enter(number)
        return "innocent"

    @jobs.task
    async def other(number: int) -> None:
        await others.enter(number)

    async with jobs.running():
        await jobs.queues.pause("default")
        many = await jobs.enqueue_many(work.call(number) for number in range(3))
        ids = [job.id for job in many]
        await die_with(jobs, *ids)
        await die_with(jobs, *ids)
        await jobs.queues.resume("default")
        await suspects.arrival()
        await jobs.enqueue_many(other.call(number) for number in range(3))
        for _ in range(3):
            await others.arrival()
        await next_round(jobs)
        assert (suspects.inside, others.inside) == (1, 3)
        # The next suspect comes as soon as the one before has ended, and none sooner.
        suspects.let()
        await suspects.arrival()
        assert suspects.inside == 1
        suspects.let()
        await suspects.arrival()
        suspects.open()
        others.open()
        for job in many:
            assert await job.result(timeout=15) == "innocent"
    assert suspects.most == 1
    assert suspects.arrivals == [0, 1, 2]


async def test_job_with_one_attempt_left_is_a_suspect_after_its_first_death(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 5})
    gate = Gate()

    @jobs.task(max_attempts=2)
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        await jobs.queues.pause("default")
        many = await jobs.enqueue_many(work.call(number) for number in range(2))
        await die_with(jobs, *(job.id for job in many))
        await jobs.queues.resume("default")
        await gate.arrival()
        await next_round(jobs)
        assert gate.inside == 1
        assert supervisor_of(jobs).suspect is not None
        gate.open()
        for job in many:
            await job.result(timeout=15)
    assert gate.most == 1


async def test_D4_job_out_of_attempts_whose_process_died_is_a_dead_letter_lost(
    jobs: JobRunner,
) -> None:
    @jobs.task(max_attempts=2)
    async def work() -> None: ...

    async with jobs.running():
        await jobs.queues.pause("default")
        job = await jobs.enqueue(work)
        await die_with(jobs, job.id)
        assert (await job.refresh()).state == "queued"
        await die_with(jobs, job.id)
        letter = await jobs.dead_letters.get(job.id)
        assert (letter.reason, letter.attempt, letter.error_type) == ("lost", 2, "ProcessLost")
        assert [a.outcome for a in letter.history] == ["lost", "lost"]


async def test_D4_job_without_limit_is_a_dead_letter_after_five_deaths(jobs: JobRunner) -> None:
    @jobs.task(stop=lambda _: False)
    async def work() -> None: ...

    async with jobs.running():
        await jobs.queues.pause("default")
        job = await jobs.enqueue(work)
        for _ in range(4):
            await die_with(jobs, job.id)
            assert (await job.refresh()).state == "queued"
        await die_with(jobs, job.id)
        assert (await jobs.dead_letters.get(job.id)).reason == "lost"


async def test_suspect_that_was_released_at_shutdown_stays_one(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db, grace=0.01, queues={"default": 5})
    gate = Gate()

    @jobs.task(max_attempts=3)
    async def work() -> None:
        await gate.enter()
        raise LookupError

    async with jobs.running():
        await jobs.queues.pause("default")
        job = await jobs.enqueue(work)
        await die_with(jobs, job.id)
        await die_with(jobs, job.id)
        await jobs.queues.resume("default")
        await gate.arrival()
    async with jobs.running():
        await gate.arrival()
        (attempt,) = supervisor_of(jobs).attempts.values()
        assert (attempt.job.suspect, attempt.job.attempt) == (True, 3)
        gate.open()
