"""Jobs run on demand: with their retries, dead letters and replays, and inside requests."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from tenacity import wait_fixed

from jobrunner import InvalidArguments, Job, JobContext, JobNotFound, JobRunner, Retry, Snooze
from jobrunner.testing import JobTester, runners
from tests.testing.site import Outbox, count_letters, remind, send_welcome


async def test_run_until_idle_runs_what_is_due_and_what_that_enqueues(jobs: JobRunner) -> None:
    done: list[int] = []

    @jobs.task
    async def count_down(number: int) -> None:
        done.append(number)
        if number:
            await count_down.enqueue(number - 1)

    async with JobTester(jobs) as t:
        await jobs.enqueue(count_down, 5)
        await jobs.enqueue(count_down.options(delay=1), 9)
        await t.run_until_idle()
        assert done == [5, 4, 3, 2, 1, 0]
        await t.run_until_idle()  # with nothing to do
        assert len(done) == 6


async def test_run_until_idle_runs_what_a_hook_enqueues(jobs: JobRunner) -> None:
    done: list[str] = []

    @jobs.task
    async def work(name: str) -> None:
        done.append(name)

    @jobs.on_succeeded
    async def follow(job: Job[None]) -> None:
        if len(done) < 3:
            await jobs.enqueue(work, f"after {done[-1]}")

    async with JobTester(jobs) as t:
        await jobs.enqueue(work, "first")
        await t.run_until_idle()
    assert done == ["first", "after first", "after after first"]


async def test_jobs_of_a_chain_run_one_after_another(jobs: JobRunner) -> None:
    done: list[int] = []

    @jobs.task
    async def work(number: int) -> None:
        done.append(number)

    async with JobTester(jobs) as t:
        await jobs.enqueue_chain([work.call(number) for number in range(4)])
        await t.run_until_idle()
    assert done == [0, 1, 2, 3]


async def test_task_that_waits_for_another_job_gets_its_result(jobs: JobRunner) -> None:
    @jobs.task
    async def double(number: int) -> int:
        return 2 * number

    @jobs.task
    async def ask(number: int) -> int:
        return await (await double.enqueue(number)).result(timeout=20)

    async with JobTester(jobs) as t:
        assert (await t.perform(ask, 4)).result == 8


async def test_perform_runs_all_retries_without_waiting(app: FastAPI, outbox: Outbox) -> None:
    outbox.failures = 2
    async with JobTester(app) as t:
        began = t.now
        run = await t.perform(send_welcome, "ada")

        assert run.outcomes == ["failed", "failed", "succeeded"]
        assert run.state == "succeeded"
        assert run.result == "sent to ada"
        assert (run.error_type, run.reason) == (None, None)
        assert len(run.waits) == 2
        assert run.waits[0] >= 1
        assert (t.now - began).total_seconds() == pytest.approx(sum(run.waits))
        assert run.args == {"email": "ada"}
        assert repr(run) == "<Run send_welcome succeeded, attempts: failed, failed, succeeded>"


async def test_waits_are_those_of_the_retry_strategy(jobs: JobRunner) -> None:
    snoozed: list[int] = []

    @jobs.task(max_attempts=4, wait=wait_fixed(90))
    async def fails(job: JobContext) -> None:
        if job.attempt == 2:
            raise Retry(7)
        if job.attempt == 3 and not snoozed:
            snoozed.append(job.attempt)
            raise Snooze(timedelta(hours=1))
        raise ValueError("no")

    async with JobTester(jobs) as t:
        run = await t.perform(fails)
    # A snooze uses no attempt, so the third number comes again.
    assert run.outcomes == ["failed", "failed", "snoozed", "failed", "failed"]
    assert run.waits == [90.0, 7.0, 3600.0, 90.0]


async def test_task_that_snoozes_for_ever_is_named(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "MOST_STEPS", 5)

    @jobs.task
    async def waits() -> None:
        raise Snooze(60)

    async with JobTester(jobs) as t:
        with pytest.raises(AssertionError, match=r"waits .* is scheduled at .* after 5 steps"):
            await t.perform(waits)


async def test_perform_until_dead_and_replay(app: FastAPI, outbox: Outbox) -> None:
    outbox.failures = 3
    async with JobTester(app) as t:
        dead = await t.perform(send_welcome, "ada", until="dead")
        assert (dead.reason, dead.error_type) == ("exhausted", "ConnectionError")
        assert dead.outcomes == ["failed"] * 3
        assert [letter.id for letter in t.dead_letters] == [dead.id]

        run = await t.replay(dead)
        assert (run.id, run.state, run.outcomes) == (dead.id, "succeeded", ["succeeded"])
        assert t.dead_letters == []
        with pytest.raises(JobNotFound):
            await t.replay(dead)


async def test_replay_with_other_arguments_is_a_new_job(app: FastAPI, outbox: Outbox) -> None:
    async with JobTester(app) as t:
        dead = await t.perform(send_welcome, "nobody", until="dead")
        run = await t.replay(dead, args={"email": "ada"}, until="succeeded")
        assert (run.id != dead.id, run.outcomes) == (True, ["succeeded"])
        with pytest.raises(InvalidArguments):
            await t.replay(dead, args={"address": "ada"})
    assert outbox.sent == [("ada", "Welcome!")]


@pytest.mark.parametrize("given", ["id", "job", "letter"])
async def test_replay_takes_a_job_a_letter_and_an_id(
    app: FastAPI, outbox: Outbox, given: str
) -> None:
    outbox.failures = 3
    async with JobTester(app) as t:
        dead = await t.perform(send_welcome, "ada")
        ways: dict[str, Any] = {"id": dead.id, "job": dead.job, "letter": t.dead_letters[0]}
        what = ways[given]
        assert (await t.replay(what, until="succeeded")).state == "succeeded"


async def test_perform_that_ends_otherwise_shows_the_traceback(app: FastAPI) -> None:
    async with JobTester(app) as t:
        with pytest.raises(AssertionError) as failure:
            await t.perform(send_welcome, "nobody", until="succeeded")
        with pytest.raises(AssertionError, match="expected the job to be dead: <Run count_letters"):
            await t.perform(count_letters, "ada", until="dead")
    assert "dead (buried)" in str(failure.value)
    assert 'raise Bury("no such address")' in str(failure.value)


async def test_perform_waits_for_the_delay_and_runs_what_is_due_before(jobs: JobRunner) -> None:
    done: list[str] = []

    @jobs.task
    async def work(name: str) -> None:
        done.append(name)

    async with JobTester(jobs) as t:
        await jobs.enqueue(work.options(delay=30), "half a minute")
        await jobs.enqueue(work.options(delay=90), "later")
        await t.perform(work.options(delay=60), "a minute")
    assert done == ["half a minute", "a minute"]


async def test_perform_of_a_job_in_a_paused_queue_says_why_it_stops(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with JobTester(jobs) as t:
        await jobs.queues.pause("default")
        with pytest.raises(AssertionError, match="is queued, and nothing lets it go on"):
            await t.perform(work)


async def test_def_task_runs_in_a_thread(app: FastAPI) -> None:
    async with JobTester(app) as t:
        assert (await t.perform(count_letters, "ada", times=3)).result == 9
        assert [run.result for run in t.runs(count_letters)] == [9]


async def test_job_that_does_not_end_is_named_after_the_timeout(jobs: JobRunner) -> None:
    @jobs.task
    async def hangs() -> None:
        await asyncio.Event().wait()

    jobs.settings = JobRunner("sqlite:///x.db", grace=0).settings
    async with JobTester(jobs) as t:
        await jobs.enqueue(hangs)
        with pytest.raises(TimeoutError, match=r"after 0\.05 s these jobs still run: .*hangs"):
            await t.run_until_idle(timeout=0.05)
        (job,) = t.list()
        assert job.state == "queued"  # given back at the end of its worker


async def test_a_timeout_of_the_test_itself_is_not_the_testers(jobs: JobRunner) -> None:
    @jobs.task
    async def hangs() -> None:
        await asyncio.Event().wait()

    jobs.settings = JobRunner("sqlite:///x.db", grace=0).settings
    async with JobTester(jobs) as t:
        await jobs.enqueue(hangs)
        with pytest.raises(TimeoutError, match=r"^$"):
            async with asyncio.timeout(0.05):
                await t.run_until_idle()


async def test_tester_cannot_be_used_by_a_task_of_its_runner(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:

        @jobs.task(max_attempts=1)
        async def meddles() -> None:
            await t.run_until_idle()

    async with JobTester(jobs) as t:
        run = await t.perform(meddles)
        assert run.error is not None
        assert "at work already" in run.error


async def test_runs_are_in_the_order_in_which_they_began(jobs: JobRunner) -> None:
    @jobs.task
    async def work(name: str) -> str:
        return name

    async with JobTester(jobs) as t:
        await jobs.enqueue(work.options(delay=60), "later")
        await jobs.enqueue(work, "now")
        await jobs.enqueue(work.options(delay=600), "never")
        await t.travel(minutes=2)
        assert [run.result for run in t.runs(work)] == ["now", "later"]
        assert [run.result for run in t.runs()] == ["now", "later"]


async def test_finish_runs_what_a_request_has_enqueued_to_its_end(
    app: FastAPI, client: httpx2.AsyncClient, outbox: Outbox
) -> None:
    outbox.failures = 2
    async with JobTester(app) as t:
        id = (await client.post("/subscribers?email=ada")).json()["id"]
        run = await t.finish(id, until="succeeded")
        assert run.outcomes == ["failed", "failed", "succeeded"]
        (reminder,) = t.list(remind)
        assert (await t.finish(reminder)).result == 1
        assert (await t.finish(run)).outcomes == run.outcomes  # it has ended already
        with pytest.raises(LookupError, match="have no job"):
            await t.finish("00000000-0000-7000-8000-000000000000")
