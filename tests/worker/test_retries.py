"""Failed attempts: when the job runs again, what is kept of them, and what of it outlives the process."""

import asyncio
from datetime import timedelta

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import (
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_none,
)

from jobrunner import JobContext, JobDead, JobRunner, Retry, Snooze
from jobrunner.core.clock import utcnow
from jobrunner.testing import JobTester
from tests.support.clocks import MOMENT, freeze
from tests.support.engine import PATIENCE_S, Heard, history, next_round, soon, stored, worker_of

pytestmark = pytest.mark.each_store


async def test_fails_then_succeeds_keeps_every_attempt(jobs: JobRunner) -> None:
    @jobs.task(wait=wait_none())
    async def work(job: JobContext) -> int:
        if job.attempt < 3:
            raise LookupError(f"attempt {job.attempt}")
        return job.attempt

    async with jobs.running():
        job = await jobs.enqueue(work)
        assert await job.result(timeout=15) == 3
        attempts = await history(jobs, job.id)
        assert [(a.attempt, a.outcome, a.error_type, a.error) for a in attempts] == [
            (1, "failed", "LookupError", "attempt 1"),
            (2, "failed", "LookupError", "attempt 2"),
            (3, "succeeded", None, None),
        ]
        assert all(a.finished_at and a.finished_at >= a.started_at for a in attempts)
        assert {a.worker for a in attempts} == {worker_of(jobs).id}
        assert attempts[0].traceback is not None
        assert "LookupError: attempt 1" in attempts[0].traceback


async def test_fails_until_attempts_are_used_up_is_a_dead_letter(jobs: JobRunner) -> None:
    seen: list[tuple[int, int | None]] = []

    @jobs.task(wait=wait_none())
    async def fail(job: JobContext, name: str) -> None:
        seen.append((job.attempt, job.max_attempts))
        raise LookupError(name)

    async with jobs.running():
        job = await jobs.enqueue(fail, "ada")
        with pytest.raises(JobDead, match=r"dead letter \(exhausted\): LookupError: ada"):
            await job.result(timeout=15)
        assert seen == [(n, 5) for n in range(1, 6)]
        letter = await jobs.dead_letters.get(job.id)
        assert (letter.reason, letter.attempt, letter.args) == ("exhausted", 5, {"name": "ada"})
        assert len(letter.history) == 5
        found = await jobs.get(job.id)
        assert (found.state, found.attempt) == ("dead", 5)


async def test_fails_runs_again_when_wait_says(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    heard = Heard(jobs)

    @jobs.task(wait=wait_fixed(90))
    async def fail_once(job: JobContext) -> str:
        if job.attempt == 1:
            raise LookupError
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(fail_once)
        retry = await soon(heard.retries.get())
        assert (retry.state, retry.attempt) == ("scheduled", 1)
        assert retry.run_at == utcnow() + timedelta(seconds=90)
        frozen.tick(89)
        await next_round(jobs)
        assert (await job.refresh()).state == "scheduled"
        frozen.tick(1)
        assert await job.result(timeout=15) == "done"


async def test_H1_restart_between_attempts_goes_on_from_the_row(store_url: str) -> None:
    """Attempt number, first start and the next time all come from the file."""
    waits: list[int] = []

    def make() -> tuple[JobRunner, Heard]:
        jobs = JobRunner(store_url)

        def wait(state: RetryCallState) -> float:
            waits.append(state.attempt_number)
            return 60

        @jobs.task(wait=wait, stop=stop_after_delay(150))
        async def fail() -> None:
            raise LookupError

        return jobs, Heard(jobs)

    with freeze() as clock:
        jobs, heard = make()
        async with jobs.running():
            job = await jobs.enqueue(jobs.tasks["fail"])
            assert (await soon(heard.retries.get())).attempt == 1
        clock.tick(60)
        for attempt in (2, 3):
            jobs, heard = make()
            async with jobs.running():
                assert (await soon(heard.retries.get())).attempt == attempt
            clock.tick(60)
        jobs, heard = make()
        async with jobs.running():
            letter = await soon(heard.dead.get())
    assert waits == [1, 2, 3, 4]
    assert (letter.id, letter.attempt, letter.reason) == (job.id, 4, "exhausted")
    started = [a.started_at for a in letter.history]
    assert started == [MOMENT + timedelta(seconds=60 * n) for n in range(4)]


async def test_raises_retry_overrides_wait_but_never_max_attempts(jobs: JobRunner) -> None:
    @jobs.task(wait=wait_fixed(3600), max_attempts=3)
    async def insist() -> None:
        raise Retry(0)

    async with JobTester(jobs) as t:
        dead = await t.perform(insist)
    assert (dead.reason, dead.waits) == ("exhausted", [0, 0])


async def test_raises_snooze_costs_no_attempt(jobs: JobRunner) -> None:
    seen: list[int] = []

    @jobs.task(max_attempts=1)
    async def nap(job: JobContext) -> str:
        seen.append(job.attempt)
        if len(seen) < 4:
            raise Snooze(0)
        return "awake"

    async with JobTester(jobs) as t:
        run = await t.perform(nap)
    assert (run.result, run.job.attempt) == ("awake", 1)
    assert seen == [1, 1, 1, 1]
    assert run.outcomes == ["snoozed"] * 3 + ["succeeded"]


async def test_policy_changed_in_code_holds_from_the_next_failure(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    before = JobRunner(store_url)
    heard = Heard(before)

    @before.task(name="work", wait=wait_fixed(60), max_attempts=9)
    async def patient() -> None:
        raise LookupError

    async with before.running():
        job = await before.enqueue(patient)
        await soon(heard.retries.get())

    after = JobRunner(store_url)
    heard = Heard(after)

    @after.task(name="work", max_attempts=2)
    async def impatient() -> None:
        raise LookupError

    frozen.tick(60)
    async with after.running():
        letter = await soon(heard.dead.get())
        assert (letter.id, letter.reason, letter.attempt) == (job.id, "exhausted", 2)


async def test_jobs_own_max_attempts_outlives_a_change_of_the_task(jobs: JobRunner) -> None:
    @jobs.task(max_attempts=9)
    async def fail() -> None:
        raise LookupError

    async with JobTester(jobs) as t:
        dead = await t.perform(fail.options(max_attempts=2), until="dead")
    assert dead.outcomes == ["failed", "failed"]


async def test_stop_alone_lifts_max_attempts(jobs: JobRunner) -> None:
    limits: list[int | None] = []

    @jobs.task(stop=stop_after_attempt(7))
    async def fail(job: JobContext) -> None:
        limits.append(job.max_attempts)
        raise LookupError

    async with JobTester(jobs) as t:
        await t.perform(fail, until="dead")
    assert limits == [None] * 7


async def test_error_that_retry_refuses_is_a_dead_letter_at_once(jobs: JobRunner) -> None:
    @jobs.task(retry=retry_if_exception_type(ConnectionError))
    async def fail() -> None:
        raise LookupError("for good")

    async with JobTester(jobs) as t:
        dead = await t.perform(fail)
    assert (dead.reason, dead.outcomes) == ("not_retryable", ["failed"])


async def test_retry_gives_its_slot_to_others_meanwhile(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    heard = Heard(jobs)

    @jobs.task(wait=wait_fixed(3600))
    async def fail() -> None:
        raise LookupError

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(fail)
        await soon(heard.retries.get())
        assert await (await jobs.enqueue(work)).result(timeout=15) == "done"
        assert (await stored(jobs, job.id)).state == "scheduled"


async def test_C16_error_that_is_hard_to_keep_is_kept_and_the_job_goes_on(jobs: JobRunner) -> None:
    hard = [
        ValueError("caf\ud800é \0"),
        ExceptionGroup("two", [LookupError("x" * 100_000)] * 3),
        ValueError(object()),
    ]

    @jobs.task(wait=wait_none())
    async def fail(job: JobContext) -> str:
        if job.attempt <= len(hard):
            raise hard[job.attempt - 1]
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(fail)
        assert await job.result(timeout=15) == "done"
        first, second, *_ = await history(jobs, job.id)
        assert first.error == "caf\\ud800é \\x00"
        assert second.traceback is not None
        assert "ExceptionGroup" in second.traceback or "characters cut" in second.traceback


async def test_C15_base_exception_leaves_the_worker_at_work(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})

    @jobs.task
    async def end(kind: str) -> None:
        if kind == "future":
            # A coroutine that waits for such a future is closed in place of being told.
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(GeneratorExit())
            await failed
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[kind]

    @jobs.task
    def end_in_thread(kind: str) -> None:
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[kind]

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        for kind in ("exit", "interrupt", "generator", "future"):
            await jobs.enqueue(end, kind)
        for kind in ("exit", "interrupt", "generator"):
            await jobs.enqueue(end_in_thread, kind)
        assert await (await jobs.enqueue(work)).result(timeout=15) == "done"


async def test_H6_job_that_dies_after_each_replay_gets_fresh_attempts_and_keeps_its_lineage(
    jobs: JobRunner,
) -> None:
    @jobs.task(max_attempts=2, wait=wait_none())
    async def hopeless() -> None:
        raise ValueError("still no")

    lives = 3
    async with jobs.running():
        job = await jobs.enqueue(hopeless)
        for life in range(lives):
            with pytest.raises(JobDead):
                await job.result(timeout=PATIENCE_S)
            letter = await jobs.dead_letters.get(job.id)
            assert (letter.replays, letter.attempt) == (life, 2)
            assert [a.attempt for a in letter.history] == [1, 2] * (life + 1)
            if life < lives - 1:
                replayed = await jobs.dead_letters.replay(job.id)
                assert (replayed.id, replayed.attempt) == (job.id, 0)
        # It comes back only when somebody asks for it.
        assert await jobs.dead_letters.count() == 1
