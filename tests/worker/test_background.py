"""Background tasks of an attempt: stored with its success, in the transaction that settles it, or not at all."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends

from jobrunner import (
    Bury,
    Injected,
    Job,
    JobContext,
    JobRunner,
    JobRunnerError,
    ResultNotStored,
    Retry,
    Snooze,
    TaskRouter,
)
from jobrunner.fastapi import Background, DurableBackgroundTasks, job_background
from jobrunner.testing import JobTester
from tests.support.engine import Gate, Heard, committer_of, soon

tasks = TaskRouter()
done: list[str] = []


@tasks.task
async def note(what: str) -> None:
    done.append(what)


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    done.clear()
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    return jobs


async def notes_of(jobs: JobRunner) -> list[Job[Any]]:
    """Return the jobs that tasks have added, oldest first."""
    return (await jobs.list(task=note)).items[::-1]


class Orders:
    """A service as routes and tasks share it."""

    def __init__(self, background: Background) -> None:
        self.background = background


Service = Annotated[Orders, Depends(Orders)]


async def test_task_added_in_the_clean_up_of_a_failed_attempt_is_refused(jobs: JobRunner) -> None:
    said: list[str] = []

    async def late(background: Background) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with pytest.raises(JobRunnerError) as refusal:
                background.add_task(note, "late")
            said.append(str(refusal.value))

    @jobs.task(max_attempts=1)
    async def fails(
        _: Annotated[None, Depends(late)] = Injected, background: Background = Injected
    ) -> None:
        background.add_task(note, "in vain")
        raise ValueError("no")

    async with JobTester(jobs) as t:
        await t.perform(fails, until="dead")
    assert len(said) == 1
    assert "this attempt has ended without success, and stores nothing that it added" in said[0]


async def test_tasks_of_an_attempt_are_one_chain_stored_with_its_success(jobs: JobRunner) -> None:
    @jobs.task
    async def order(
        background: Background = Injected,
        service: Service = Injected,
        own: DurableBackgroundTasks = Depends(jobs.background),
    ) -> None:
        background.add_task(note, "one")
        service.background.add_task(note, "two")
        own.add_task(note.options(tag="last"), "three")
        assert own is service.background is background
        assert await notes_of(jobs) == []

    async with JobTester(jobs) as t:
        await t.perform(order)
        assert [run.task for run in t.runs()] == [order.name, note.name, note.name, note.name]
        rows = t.list(note)
    assert done == ["one", "two", "three"]
    assert [row.chain for row in rows] == [rows[0].id] * 3
    assert [row.after for row in rows] == [None, rows[0].id, rows[1].id]
    assert rows[2].tag == "last"


async def test_they_are_in_the_transaction_that_settles_the_job(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @jobs.task
    def order(background: Background = Injected) -> str:
        background.add_task(note, "one")
        return "ordered"

    async with jobs.running():
        committer = committer_of(jobs)

        async def never(*_: object) -> None:
            raise AssertionError("stored in a transaction of its own")

        job = await order.enqueue()
        monkeypatch.setattr(committer, "submit", never)
        assert await job.result(timeout=15) == "ordered"
        # Whoever sees the success sees what follows from it.
        (row,) = await notes_of(jobs)
        assert row.chain is None
        assert await row.result(timeout=15) is None


@pytest.mark.parametrize("how", ["raise", "bury", "retry", "snooze"])
async def test_attempt_that_does_not_succeed_stores_nothing(jobs: JobRunner, how: str) -> None:
    held: list[DurableBackgroundTasks] = []

    @jobs.task(max_attempts=3)
    async def order(job: JobContext, background: Background = Injected) -> None:
        background.add_task(note, f"attempt {len(held)}")
        held.append(background)
        if len(held) > 2:
            return
        if how == "bury":
            raise Bury("no")
        if how == "retry":
            raise Retry(delay=60)
        if how == "snooze":
            raise Snooze(60)
        raise ValueError(how)

    async with JobTester(jobs) as t:
        run = await t.perform(order)
        expected = ("dead", []) if how == "bury" else ("succeeded", ["attempt 2"])
        assert (run.state, [job.args["what"] for job in t.list(note)]) == expected
    assert len({id(one) for one in held}) == len(run.outcomes)


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_attempt_that_is_stopped_stores_nothing(jobs: JobRunner, how: str) -> None:
    gate = Gate()

    @jobs.task(max_attempts=1, timeout=0.2 if how == "timeout" else None)
    async def order(background: Background = Injected) -> None:
        background.add_task(note, "one")
        await gate.enter()

    heard = Heard(jobs)
    async with jobs.running():
        job = await order.enqueue()
        await gate.arrival()
        if how == "cancel":
            await jobs.cancel(job.id)
            with pytest.raises(Exception, match="cancelled"):
                await job.result(timeout=15)
        else:
            await soon(heard.dead.get())
        assert await notes_of(jobs) == []


async def test_result_that_is_too_large_keeps_the_tasks(jobs: JobRunner) -> None:
    @jobs.task
    async def order(background: Background = Injected) -> str:
        background.add_task(note, "one")
        return "x" * 5_000_000

    async with JobTester(jobs) as t:
        run = await t.perform(order, until="succeeded")
        assert run.result is None
        with pytest.raises(ResultNotStored):
            await run.job.result()
        assert [one.state for one in t.list(note)] == ["succeeded"]


async def test_write_that_fails_stores_none_of_them(jobs: JobRunner) -> None:
    def write(connection: Any) -> None:
        connection.execute("INSERT INTO no_such_table VALUES (1)")

    @jobs.task(max_attempts=1)
    async def order(job: JobContext, background: Background = Injected) -> None:
        background.add_task(note, "one")
        job.write(write)

    async with JobTester(jobs) as t:
        dead = await t.perform(order, until="dead")
        assert "no_such_table" in str(dead.error)
        t.assert_nothing_enqueued(note)


async def test_task_added_by_a_clean_up_is_refused_and_changes_nothing(jobs: JobRunner) -> None:
    said: list[str] = []

    async def late(background: Background) -> AsyncIterator[None]:
        yield
        with pytest.raises(JobRunnerError) as refusal:
            background.add_task(note, "two")
        said.append(str(refusal.value))

    @jobs.task
    async def order(
        background: Background = Injected, closing: Annotated[None, Depends(late)] = Injected
    ) -> None:
        background.add_task(note, "one")

    async with JobTester(jobs) as t:
        await t.perform(order, until="succeeded")
        t.assert_enqueued(note, times=1)
    assert "the task has returned" in said[0]


async def test_two_attempts_at_once_have_one_each(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def order(what: str, background: Background = Injected) -> None:
        background.add_task(note, what)
        await gate.enter(what)
        background.add_task(note, what)

    async with jobs.running():
        made = await jobs.enqueue_many([order.call("a"), order.call("b")])
        await gate.arrival()
        await gate.arrival()
        gate.let(2)
        for job in made:
            await job.result(timeout=15)
        rows = await notes_of(jobs)
        for row in rows:
            await row.result(timeout=15)
    assert sorted(done) == ["a", "a", "b", "b"]
    assert len({row.chain for row in rows}) == 2


async def test_those_of_a_session_are_given_to_attempts_too(tmp_db: Path) -> None:
    opened: list[str] = []

    async def get_session() -> AsyncIterator[None]:
        opened.append("a session")
        yield

    jobs = JobRunner(tmp_db, session=get_session)
    jobs.include(tasks)

    @jobs.task
    async def order(
        background: Annotated[
            DurableBackgroundTasks, Depends(job_background(get_session))
        ] = Injected,
        own: Annotated[DurableBackgroundTasks, Depends(jobs.background)] = Injected,
    ) -> None:
        assert own is background
        background.add_task(note, "one")

    async with JobTester(jobs) as t:
        await t.perform(order, until="succeeded")
        t.assert_enqueued(note, times=1)
    # They go with the success of the attempt, and not with a session.
    assert opened == []


@pytest.mark.parametrize("has_session", [False, True])
async def test_another_runners_is_refused_by_name(
    jobs: JobRunner, tmp_path: Path, has_session: bool
) -> None:
    def get_session() -> None: ...

    other = JobRunner(tmp_path / "other.db", session=get_session if has_session else None)

    @jobs.task(max_attempts=1)
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(other.background)] = Injected,
    ) -> None: ...

    async with JobTester(jobs) as t, other.running():
        dead = await t.perform(order, until="dead")
    assert "HTTPConnection, but a task runs outside any request" in str(dead.error)
