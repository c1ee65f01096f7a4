"""Lists whose pages end early: what callers of Python and of the command line see of it."""

from pathlib import Path

import pytest

from jobrunner import Bury, JobDead, JobRunner
from jobrunner.cli.filters import listed
from jobrunner.cli.output import say_queues
from jobrunner.store.sqlite import readers
from jobrunner.store.sqlite.sql import queries, walks

ROWS = walks.FIRST_WINDOW + 100


@pytest.fixture
def jobs(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> JobRunner:
    """A runner whose pages end after the first window of jobs, or after one dead letter."""
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    monkeypatch.setattr(readers, "PAGE_S", 0.0)
    monkeypatch.setattr(queries, "PAGE_ROOM", 1)
    monkeypatch.setattr(queries, "COUNT_S", -1.0)
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


async def test_list_of_dead_letters_goes_on_until_it_is_full(jobs: JobRunner) -> None:
    async with jobs.running():
        rare = jobs.tasks["rare"]
        stored = [await jobs.enqueue(rare, number) for number in range(4)]
        for job in stored:
            with pytest.raises(JobDead):
                await job.result(timeout=15)
        page = await jobs.dead_letters.page()
        assert (len(page.items), page.complete) == (1, False)
        letters = await jobs.dead_letters.list()
        assert {one.id: one.args for one in letters} == {
            job.id: {"number": number} for number, job in enumerate(stored)
        }
        assert await jobs.dead_letters.list(limit=3) == letters[:3]
        assert await jobs.dead_letters.count() == 4


async def test_queue_that_is_not_counted_to_the_end_says_so(
    jobs: JobRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    async with jobs.running(work=False):
        await jobs.enqueue_many([jobs.tasks["work"].call() for _ in range(ROWS)])
        (default,) = await jobs.queues()
        assert (default.queued, default.complete) == (100, False)
        say_queues([default])
    assert capsys.readouterr().out.splitlines()[1].split("\t")[3:6] == ["100+", "0+", "0+"]
