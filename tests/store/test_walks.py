"""Lists and counts in steps: the cost of a step, its end, and the way to the last one."""

import re
import sqlite3
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest

from jobrunner.core.model import Enqueue, Filter, JobRow
from jobrunner.store.job_protocol import Count, RowPage
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore, readers
from jobrunner.store.sqlite.sql import queries, walks
from tests.support.factories import DAY, HOUR, NOW, claim, dead, enqueue, new, settle, succeeded

ROWS = 3 * walks.FIRST_WINDOW + 7
LETTERS = walks.FIRST_WINDOW + 50
LONG = 1_000_000


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each step, and so each page, end after one window."""
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    monkeypatch.setattr(readers, "PAGE_S", 0.0)


@pytest.fixture
def all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no page end early, however busy the machine is."""
    monkeypatch.setattr(readers, "PAGE_S", 60.0)


async def fill(store: SqliteStore, rows: int = ROWS) -> list[Enqueue]:
    """Store jobs of which the second one alone is of the task ``rare``."""
    jobs = [new("rare" if number == 1 else "work") for number in range(rows)]
    await store.write(Round(NOW, enqueues=jobs))
    return jobs


async def pages_of(
    pages: Callable[..., Awaitable[RowPage]], where: Filter, *, limit: int = 50
) -> list[RowPage]:
    """Return every page."""
    found = [await pages(where, before=None, limit=limit)]
    while found[-1].next is not None:
        found.append(await pages(where, before=found[-1].next, limit=limit))
    return found


def ids(pages: list[RowPage]) -> list[str]:
    return [row.id for page in pages for row in page.rows]


# -- where a page ends -------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_time")
async def test_list_that_has_no_time_ends_with_what_it_found_and_says_where(
    store: SqliteStore,
) -> None:
    jobs = await fill(store)
    found = await pages_of(store.jobs.list, Filter(task="rare"))
    # Four windows hold all, and the first three hold nothing.
    assert [(len(page.rows), page.complete) for page in found] == [
        (0, False),
        (0, False),
        (0, False),
        (1, True),
    ]
    assert ids(found) == [jobs[1].id]
    # Where few fit it is not told that there are none.
    rare = Filter(task="rare")
    assert await store.jobs.count(rare, cap=9, seconds=0) == Count(0, complete=False)
    assert await store.jobs.count(rare, cap=9) == Count(1)
    assert found[0].next == ROWS + 1 - walks.FIRST_WINDOW


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("limit", [1, 249, 250, 251, ROWS])
async def test_pages_of_a_list_that_has_no_time_hold_everything_once(
    store: SqliteStore, limit: int
) -> None:
    jobs = await fill(store, 600)
    await store.jobs.cancel(jobs[300].id, now=NOW)
    await store.jobs.prune(
        finished_before=NOW + 1, by_task={}, died_before=0, keep_finished=9, limit=9
    )
    del jobs[300]
    found = await pages_of(store.jobs.list, Filter(), limit=limit)
    assert ids(found) == [job.id for job in reversed(jobs)]
    assert all(page.complete == (len(page.rows) == limit) for page in found[:-1])
    assert found[-1].complete


@pytest.mark.usefixtures("all_the_time")
async def test_list_that_has_time_goes_through_all_windows(store: SqliteStore) -> None:
    jobs = await fill(store)
    (page,) = await pages_of(store.jobs.list, Filter(task="rare"))
    assert (ids([page]), page.complete) == ([jobs[1].id], True)


async def test_windows_over_whole_rows_stay_small_since_long_ones_may_lie_behind_short_ones(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "STEP_S", 60.0)
    monkeypatch.setattr(queries, "LARGEST_WINDOW", 2 * walks.FIRST_WINDOW)
    await fill(store, 8 * walks.FIRST_WINDOW)
    said: list[str] = []
    assert store._access._readers is not None
    await store._access._readers._lists.run(lambda conn: conn.set_trace_callback(said.append))
    (page,) = await pages_of(store.jobs.list, Filter(task="nobody"))
    assert page.complete
    bounds = [re.search(r"seq < (\d+) AND seq >= (-?\d+)", text) for text in said]
    sizes = [int(found[1]) - int(found[2]) for found in bounds if found]
    assert sizes == [walks.FIRST_WINDOW, *[2 * walks.FIRST_WINDOW] * 4]


async def test_list_steps_over_numbers_that_no_job_has_any_more(store: SqliteStore) -> None:
    jobs = await fill(store, 3)
    with closing(sqlite3.connect(store.path)) as conn, conn:
        conn.execute("UPDATE jobrunner_jobs SET seq = 1 << 50 WHERE id = ?", (jobs[2].id,))
    (page,) = await pages_of(store.jobs.list, Filter(task="rare"))
    assert (ids([page]), page.complete) == ([jobs[1].id], True)


@pytest.mark.usefixtures("no_time")
async def test_dead_letters_that_have_no_time_are_listed_counted_replayed_and_deleted_to_the_end(
    store: SqliteStore,
) -> None:
    letters = await bury(
        store, *[new("rare" if number < 2 else "work") for number in range(LETTERS)]
    )
    rare = Filter(task="rare")
    found = await pages_of(store.dead_letters.list, rare)
    assert [page.complete for page in found] == [False, True]
    assert ids(found) == [letters[1].id, letters[0].id]
    assert (await store.dead_letters.count(Filter(), cap=2_000)).number == LETTERS
    assert (await store.dead_letters.count(rare, cap=2_000)).number == 2
    assert await store.dead_letters.count(rare, cap=9, seconds=0) == Count(0, complete=False)
    first = await store.dead_letters.replay_all(rare, before=None, now=NOW, limit=1)
    assert (first.replayed, first.cursor) == (0, LETTERS + 1 - walks.FIRST_WINDOW)
    second = await store.dead_letters.replay_all(rare, before=first.cursor, now=NOW, limit=1)
    assert (second.replayed, second.cursor) == (1, 2)
    gone, cursor = await store.dead_letters.delete_all(rare, before=None, limit=9)
    assert (gone, cursor) == (0, LETTERS + 1 - walks.FIRST_WINDOW)
    assert await store.dead_letters.delete_all(rare, before=cursor, limit=9) == (1, None)


async def bury(store: SqliteStore, *jobs: Enqueue) -> list[Enqueue]:
    """Store jobs and let them die, in their order."""
    await store.write(Round(NOW, enqueues=jobs))
    tasks = sorted({job.task for job in jobs})
    claimed = sorted(await claim(store, slots=len(jobs), tasks=tasks), key=lambda job: job.seq)
    await settle(store, *[dead(job) for job in claimed])
    return list(jobs)


async def test_page_of_dead_letters_ends_when_it_is_heavy(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE_ROOM", 2_500)
    letters = await bury(store, *[new(args=f'"{"x" * 1_000}"') for _ in range(7)])
    found = await pages_of(store.dead_letters.list, Filter(), limit=5)
    assert [(len(page.rows), page.complete) for page in found] == [
        (3, False),
        (3, False),
        (1, True),
    ]
    assert ids(found) == [letter.id for letter in reversed(letters)]
    assert [row.args for row in found[0].rows] == [letters[0].args] * 3


# -- what a list costs ---------------------------------------------------------------------------------


async def test_lists_of_long_rows_take_little_memory(store: SqliteStore) -> None:
    """200 rows of a megabyte were 250 MB."""
    long = f'"{"x" * LONG}"'
    await bury(store, *[new(args=long) for _ in range(12)])
    await enqueue(store, *[new(args=long) for _ in range(24)])
    (job, *_) = await claim(store, slots=1)
    await settle(store, succeeded(job, long))

    page, peak = await peak_of(lambda: store.jobs.list(Filter(), before=None, limit=200))
    assert len(page.rows) == 24
    assert {(row.args, row.result) for row in page.rows} == {("", None)}
    assert peak < LONG / 2
    page, peak = await peak_of(lambda: store.dead_letters.list(Filter(), before=None, limit=200))
    assert (len(page.rows), page.complete) == (4, False)
    assert peak < 2 * queries.PAGE_ROOM


async def peak_of(read: Callable[[], Awaitable[RowPage]]) -> tuple[RowPage, int]:
    tracemalloc.start()
    try:
        page = await read()
        return page, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


OLD = {
    "tag": Filter(tag="t"),
    "key": Filter(key="k"),
    "scheduled": Filter(state="scheduled"),
    "queued": Filter(state="queued"),
    "running": Filter(state="running"),
    "blocked": Filter(state="blocked"),
}


@pytest.mark.usefixtures("all_the_time")
@pytest.mark.parametrize("name", OLD)
async def test_list_by_what_has_an_index_does_not_read_all_rows(
    store: SqliteStore, name: str
) -> None:
    old = {
        "tag": new(tag="t"),
        "key": new(key="k"),
        "scheduled": new("later", run_at=NOW + DAY),
        "queued": new("unknown"),
        "running": new("run", run_at=NOW - HOUR),
    }
    await enqueue(store, *old.values())
    await claim(store, tasks=["run"])
    first, second = new("unknown"), new("unknown")
    await enqueue(
        store, first._replace(chain=first.id), second._replace(chain=first.id, after=first.id)
    )
    await fill(store, 5_000)
    claimed = await claim(store, slots=10_000, tasks=["rare", "work"])
    await settle(store, *map(succeeded, claimed))
    rows, cost = await cost_of(store, OLD[name])
    assert rows
    _, cost_of_all = await cost_of(store, Filter(task="nobody"))
    assert cost * 10 < cost_of_all


async def cost_of(store: SqliteStore, where: Filter) -> tuple[list[JobRow], int]:
    """Return what a list finds and how many instructions of SQLite's machine it takes, in tens."""
    tens = 0

    def count() -> int:
        nonlocal tens
        tens += 1
        return 0

    assert store._access._readers is not None
    lists = store._access._readers._lists
    await lists.run(lambda conn: conn.set_progress_handler(count, 10))
    page = await store.jobs.list(where, before=None, limit=9)
    await lists.run(lambda conn: conn.set_progress_handler(None, 0))
    return list(page.rows), tens
