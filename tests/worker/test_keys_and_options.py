"""Options of a job: what ``task.options(...)`` sets, and what becomes of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import (
    InvalidOptions,
    JobContext,
    JobDead,
    JobExpired,
    JobRunner,
    KeyTaken,
    UnknownQueue,
)
from jobrunner.core.clock import utcnow
from jobrunner.testing import JobTester
from tests.support.engine import Gate, Heard, next_round, soon, stored

pytestmark = pytest.mark.each_store


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - what is to be refused


# -- key ---------------------------------------------------------------------------------------------------


async def test_key_of_an_unfinished_job_returns_that_job(jobs: JobRunner) -> None:
    @jobs.task
    async def remind(email: str) -> str:
        return email

    @jobs.task
    async def other(email: str) -> None: ...

    async with jobs.running(work=False):
        keyed = remind.options(key="a", delay=3600)
        first = await jobs.enqueue(keyed, "first@example.com")
        second = await jobs.enqueue(keyed, "second@example.com")
        assert (first.created, second.created) == (True, False)
        assert second.id == first.id
        assert second.state == "scheduled"
        assert second.run_at == first.run_at
        # Another key, another task, no key at all: jobs of their own.
        assert (await jobs.enqueue(remind.options(key="b"), "c")).created
        assert (await jobs.enqueue(other.options(key="a"), "c")).created
        assert (await jobs.enqueue(remind, "c")).created
        assert (await stored(jobs, first.id)).args == '{"email":"first@example.com"}'


async def test_key_twice_in_one_call_of_many_stores_one_job(jobs: JobRunner) -> None:
    @jobs.task
    async def remind(email: str) -> None: ...

    async with jobs.running(work=False):
        keyed = remind.options(key="a")
        many = await jobs.enqueue_many([keyed.call("1"), remind.call("2"), keyed.call("3")])
        assert [job.created for job in many] == [True, True, False]
        assert many[2].id == many[0].id


@pytest.mark.parametrize("end", ["success", "cancel", "death", "expiry"])
async def test_key_is_free_again_after_the_end(
    store_url: str, end: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    heard = Heard(jobs)
    gate = Gate()

    @jobs.task(max_attempts=1)
    async def work() -> None:
        await gate.enter()
        if end == "death":
            raise LookupError

    async with jobs.running():
        keyed = work.options(key="a")
        if end == "expiry":
            await jobs.enqueue(work)
            await gate.arrival()
            job = await jobs.enqueue(keyed.options(expires=60))
            frozen.tick(60)
            await next_round(jobs)
        else:
            job = await jobs.enqueue(keyed)
            await gate.arrival()
            assert not (await jobs.enqueue(keyed)).created
            if end == "cancel":
                await jobs.cancel(job.id)
            gate.let()
            if end == "success":
                await job.result(timeout=15)
            elif end == "death":
                await soon(heard.dead.get())
            else:
                while (await job.refresh()).state == "running":
                    await next_round(jobs)
        gate.open()
        again = await jobs.enqueue(keyed)
        assert again.created
        assert again.id != job.id


async def test_key_is_held_while_the_job_waits_for_its_retry(jobs: JobRunner) -> None:
    @jobs.task
    async def fail() -> None:
        raise LookupError

    async with JobTester(jobs) as t:
        job = await jobs.enqueue(fail.options(key="a"))
        await t.run_until_idle()
        same = await jobs.enqueue(fail.options(key="a"))
    assert (same.id, same.created) == (job.id, False)
    assert (same.state, same.attempt) == ("scheduled", 1)


async def test_key_of_a_dead_letter_that_is_taken_meanwhile_is_a_conflict(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError

    async with jobs.running():
        dead = await jobs.enqueue(fail.options(key="a"))
        await soon(heard.dead.get())
        holder = await jobs.enqueue(fail.options(key="a", delay=3600))
        assert holder.created
        with pytest.raises(KeyTaken, match=holder.id):
            await jobs.dead_letters.replay(dead.id)
        await jobs.cancel(holder.id)
        assert (await jobs.dead_letters.replay(dead.id)).id == dead.id


# -- the others -----------------------------------------------------------------------------------------------


async def test_delay_and_run_at_set_when_it_is_due(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        now = utcnow()
        later = now + timedelta(days=2)
        assert (await jobs.enqueue(work.options(delay=90))).run_at == now + timedelta(seconds=90)
        assert (await jobs.enqueue(work.options(delay=timedelta(hours=1)))).run_at == (
            now + timedelta(hours=1)
        )
        job = await jobs.enqueue(work.options(run_at=later))
        assert (job.run_at, job.state) == (later, "scheduled")
        zone = (later + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00"
        same = await jobs.enqueue(work.options(run_at=datetime.fromisoformat(zone)))
        assert same.run_at == later
        assert (await jobs.enqueue(work)).state == "queued"


async def test_options_of_options_add_up_and_leave_the_task_alone(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1, "mail": 1})

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        tagged = work.options(tag="t", delay=60)
        job = await jobs.enqueue(tagged.options(queue="mail", priority=3, max_attempts=2))
        row = await stored(jobs, job.id)
        assert (row.tag, row.queue, row.priority, row.max_attempts) == ("t", "mail", 3, 2)
        plain = await stored(jobs, (await jobs.enqueue(work)).id)
        assert (plain.tag, plain.queue, plain.priority, plain.max_attempts) == (
            None,
            "default",
            0,
            None,
        )


async def test_expires_keeps_a_late_job_from_running(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    ran: list[str] = []

    @jobs.task(expires=60)
    async def work(name: str) -> None:
        ran.append(name)

    async with jobs.running(work=False):
        late = await jobs.enqueue(work, "late")
        later = await jobs.enqueue(work.options(delay=30), "due later")
        never = await jobs.enqueue(work.options(expires=None), "never too late")
        own = await jobs.enqueue(work.options(expires=utcnow() + timedelta(hours=1)), "own")
    frozen.tick(60)
    async with jobs.running():
        for job in (later, never, own):
            await job_of(jobs, job.id)
        with pytest.raises(JobExpired):
            await job_of(jobs, late.id)
    assert sorted(ran) == ["due later", "never too late", "own"]


async def job_of(jobs: JobRunner, id: str) -> Any:
    return await (await jobs.get(id)).result(timeout=15)


async def test_expires_does_not_concern_a_job_that_has_begun(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    gate = Gate()

    @jobs.task(expires=60)
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        frozen.tick(3600)
        await next_round(jobs)
        gate.open()
        assert await job.result(timeout=15) == "done"


async def test_timeout_of_the_job_replaces_the_task_s(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task(max_attempts=1)
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work.options(timeout=0.01))
        with pytest.raises(JobDead, match="the job's own timeout"):
            await job.result(timeout=15)
        gate.open()
        assert await (await jobs.enqueue(work.options(timeout=None))).result(timeout=15) == "done"


async def test_max_attempts_of_the_job_replaces_the_task_s(jobs: JobRunner) -> None:
    seen: list[int | None] = []

    @jobs.task(max_attempts=9)
    async def fail(job: JobContext) -> None:
        seen.append(job.max_attempts)
        raise LookupError

    async with JobTester(jobs) as t:
        await t.perform(fail.options(max_attempts=2), until="dead")
    assert seen == [2, 2]


BAD: list[dict[str, Any]] = [
    {"delay": -1},
    {"delay": float("nan")},
    {"delay": float("inf")},
    {"delay": "60"},
    {"delay": True},
    {"delay": timedelta(seconds=-1)},
    {"delay": 1e300},
    {"delay": 60, "run_at": datetime(2030, 1, 1, tzinfo=UTC)},
    {"run_at": NAIVE},
    {"run_at": 1_900_000_000},
    {"run_at": "2030-01-01T00:00:00Z"},
    {"run_at": datetime(9999, 12, 31, 23, 59, tzinfo=UTC)},
    {"priority": 1.5},
    {"priority": 40_000},
    {"priority": True},
    {"key": ""},
    {"key": "x" * 501},
    {"key": "a\0b"},
    {"key": "\ud800"},
    {"key": 5},
    {"tag": "a\nb"},
    {"tag": ""},
    {"queue": "no such name!"},
    {"queue": 7},
    {"expires": 0},
    {"expires": -1},
    {"expires": NAIVE},
    {"max_attempts": 0},
    {"max_attempts": 2.0},
    {"max_attempts": True},
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": float("nan")},
]


@pytest.mark.parametrize("options", BAD, ids=str)
async def test_E7_bad_option_is_refused_at_the_call_and_nothing_is_stored(
    jobs: JobRunner, options: dict[str, Any]
) -> None:
    @jobs.task
    async def work() -> None: ...

    with pytest.raises(InvalidOptions) as refused:
        work.options(**options)
    assert any(word in str(refused.value) for word in options)


async def test_E7_run_at_as_far_as_the_calendar_goes_is_stored_and_read(jobs: JobRunner) -> None:
    far = datetime(9999, 12, 30, tzinfo=UTC)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work.options(run_at=far))
        assert (await job.refresh()).run_at == far
        century = await jobs.enqueue(work.options(delay=timedelta(days=36_500)))
        assert century.state == "scheduled"
        assert (await jobs.health()).status == "ok"


async def test_queue_that_the_runner_lacks_is_refused_with_the_line_to_paste(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        with pytest.raises(UnknownQueue) as refused:
            await jobs.enqueue(work.options(queue="mail"))
        assert 'write JobRunner(..., queues={"default": ..., "mail": 10})' in str(refused.value)
        assert (await jobs.list()).items == []


async def test_expires_before_it_is_due_is_refused(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        at = utcnow() + timedelta(hours=1)
        with pytest.raises(InvalidOptions, match="expire before it is due"):
            await jobs.enqueue(work.options(delay=7200, expires=at))
        with pytest.raises(InvalidOptions, match="expires is not after run_at"):
            work.options(run_at=at, expires=at)
        assert (await jobs.list()).items == []
