"""Lists whose pages end early: what callers of Python and of the command line see of it."""

import asyncio
from pathlib import Path

import pytest

from jobrunner import Bury, InvalidOptions, JobDead, JobRunner, Retry
from jobrunner.cli.filters import listed
from jobrunner.cli.output import say_queues
from jobrunner.store.sqlite import readers
from jobrunner.store.sqlite.sql import queries, queues, walks
from tests.support.engine import Heard, soon

ROWS = walks.FIRST_WINDOW + 100


@pytest.fixture
def jobs(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> JobRunner:
    """A runner whose pages end after the first window of jobs, or after one dead letter."""
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    monkeypatch.setattr(readers, "PAGE_S", 0.0)
    monkeypatch.setattr(queries, "PAGE_ROOM", 1)
    monkeypatch.setattr(queues, "COUNT_S", -1.0)
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def rare(number: int) -> None:
        raise Bury("no")

    @jobs.task
    async def work() -> None: ...

    return jobs


async def test_page_that_ends_early_is_not_complete_and_its_cursor_goes_on(
    jobs: JobRunner,
) -> None:
    later = jobs.tasks["work"].options(delay=3600)
    async with jobs.running(work=False):
        rare = await jobs.enqueue(jobs.tasks["rare"].options(delay=3600), 1)
        await jobs.enqueue_many([later.call() for _ in range(ROWS)])
        page = await jobs.list(task="rare")
        assert (page.items, page.complete) == ([], False)
        page = await jobs.list(task="rare", cursor=page.next_cursor)
        assert (page.items, page.complete, page.next_cursor) == ([rare], True, None)
        # The command line goes on by itself.
        assert await listed(jobs.list, limit=5, cursor=None, task="rare") == ([rare], None)
        found, cursor = await listed(jobs.list, limit=ROWS - 100, cursor=None, task="work")
        assert len(found) == ROWS - 100
        rest, _ = await listed(jobs.list, limit=1_000, cursor=cursor, task="work")
        assert len({job.id for job in found + rest}) == ROWS


async def test_page_of_dead_letters_that_ends_early_goes_on_by_its_cursor(jobs: JobRunner) -> None:
    async with jobs.running():
        rare = jobs.tasks["rare"]
        stored = [await jobs.enqueue(rare, number) for number in range(4)]
        for job in stored:
            with pytest.raises(JobDead):
                await job.result(timeout=15)
        page = await jobs.dead_letters.list()
        assert (len(page.items), page.complete) == (1, False)
        letters, cursor = await listed(jobs.dead_letters.list, limit=50, cursor=None)
        assert {one.id: one.args for one in letters} == {
            job.id: {"number": number} for number, job in enumerate(stored)
        }
        assert cursor is None
        assert (await listed(jobs.dead_letters.list, limit=3, cursor=None))[0] == letters[:3]
        assert await jobs.dead_letters.count() == 4


async def test_queue_that_is_not_counted_to_the_end_says_so(
    jobs: JobRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    async with jobs.running(work=False):
        await jobs.enqueue_many([jobs.tasks["work"].call() for _ in range(ROWS)])
        (default,) = (await jobs.queues.list()).items
        assert (default.queued, default.complete) == (100, False)
        say_queues([default])
    assert capsys.readouterr().out.splitlines()[1].split("\t")[3:6] == ["100+", "0+", "0+"]


async def test_list_of_the_state_dead_holds_dead_letters_as_jobs(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(max_attempts=1)
    async def fail(number: int) -> None:
        raise Bury("no")

    async with jobs.running():
        stored = [
            await jobs.enqueue(fail.options(key=f"k{number}", tag="x"), number)
            for number in range(3)
        ]
        for job in stored:
            with pytest.raises(JobDead):
                await job.result(timeout=15)
        alive = await jobs.enqueue(fail.options(delay=3600, tag="x"), 3)

        first = await jobs.list(state="dead", tag="x", limit=2)
        rest = await jobs.list(state="dead", tag="x", limit=2, cursor=first.next_cursor)
        dead = [*first.items, *rest.items]
        assert [job.id for job in dead] == [job.id for job in reversed(stored)]
        assert {job.state for job in dead} == {"dead"}
        assert {job.attempt for job in dead} == {1}
        with pytest.raises(JobDead):
            await dead[0].result()
        assert (await dead[0].refresh()).args == {"number": 2}

        died_at = (await jobs.dead_letters.get(stored[1].id)).died_at
        for where, fits in (
            ({"key": "k1"}, stored[1:2]),
            ({"since": died_at}, stored[1:][::-1]),
            ({"until": died_at}, stored[:1]),
            ({"task": "other"}, []),
        ):
            page = await jobs.list(state="dead", **where)
            assert page.items == fits
        assert (await jobs.list(tag="x")).items == [alive]


async def test_list_of_retrying_jobs_holds_those_that_wait_for_another_attempt(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(max_attempts=3)
    async def fail(number: int) -> None:
        raise Retry(delay=3600)

    @jobs.task
    async def never() -> None: ...

    async with jobs.running():
        heard = Heard(jobs)
        failed = [await jobs.enqueue(fail.options(tag="x"), number) for number in range(3)]
        for _ in failed:
            await soon(heard.retries.get())
        later = await jobs.enqueue(never.options(delay=3600, tag="x"))
        assert {job.state for job in (await jobs.list()).items} == {"scheduled"}

        first = await jobs.list(state="retrying", limit=2)
        rest = await asyncio.to_thread(
            jobs.sync.list, state="retrying", limit=2, cursor=first.next_cursor
        )
        found = [*first.items, *rest.items]
        assert [job.id for job in found] == [job.id for job in reversed(failed)]
        assert {(job.state, job.attempt) for job in found} == {("scheduled", 1)}
        assert (rest.complete, rest.next_cursor) == (True, None)
        assert (await jobs.list(state="retrying", task=never)).items == []
        assert (await jobs.list(state="scheduled", tag="x")).items == [later, *found]
        await jobs.cancel(failed[0].id)
        assert (await jobs.list(state="retrying", tag="x")).items == found[:2]
        with pytest.raises(InvalidOptions, match=r"is none of .*, dead, retrying"):
            await jobs.list(state="failed")  # type: ignore[arg-type]


async def test_lists_refuse_a_filter_that_they_do_not_have(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running(work=False):
        with pytest.raises(TypeError, match=r"list\(\) has no filter 'tasks'; it has task, queue"):
            await jobs.list(tasks="x")  # type: ignore[call-arg]
        for call in (
            jobs.dead_letters.list,
            jobs.dead_letters.count,
            jobs.dead_letters.replay_all,
            jobs.dead_letters.delete_all,
        ):
            with pytest.raises(TypeError, match=r"dead_letters\.\w+\(\) has no filter 'state'"):
                await call(state="queued")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"cancel_all\(\) has no filter 'reason'; it has task"):
            await jobs.cancel_all(reason="lost")  # type: ignore[call-arg]
