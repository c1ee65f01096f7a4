"""Cancels by filter in a long queue: found along an index or in windows, to the end, without a lock."""

import pytest

from jobrunner.core.model import Filter
from jobrunner.store.job_protocol import CancelPlan
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore, readers
from jobrunner.store.sqlite import jobs as jobs_module
from jobrunner.store.sqlite.sql import queries, walks
from tests.support.factories import HOUR, NOW, new

ROWS = 3 * walks.FIRST_WINDOW + 7

FILTERS = (
    Filter(task="rare"),
    Filter(queue="mail"),
    Filter(tag="shop"),
    Filter(key="k"),
    Filter(tag="shop", key="k"),
    Filter(state="scheduled"),
    Filter(task="rare", tag="shop", state="scheduled"),
    Filter(since=NOW + 1),
)


@pytest.mark.parametrize("where", FILTERS, ids=str)
@pytest.mark.parametrize("few", [0, queries.FEW])
@pytest.mark.parametrize("has_time", [False, True])
async def test_cancel_by_filter_finds_the_one_job_that_matches(
    store: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
    where: Filter,
    few: int,
    has_time: bool,
) -> None:
    monkeypatch.setattr(queries, "FEW", few)
    monkeypatch.setattr(walks, "STEP_S", 60.0 if has_time else 0.0)
    monkeypatch.setattr(readers, "PAGE_S", 60.0 if has_time else 0.0)
    wanted = new("rare", queue="mail", tag="shop", key="k", created_at=NOW + 1, run_at=NOW + HOUR)
    rows = [new() for _ in range(ROWS)]
    rows[1] = wanted
    await store.write(Round(NOW + 1, enqueues=rows))

    assert await store.jobs.plan_cancel_all(where) == CancelPlan(1, 0)
    slices = []
    cursor = None
    while True:
        done = await store.jobs.cancel_all(where, before=cursor, now=NOW, limit=2)
        slices.append(list(done.cancelled))
        cursor = done.cursor
        if cursor is None:
            break
    assert [id for one in slices for id in one] == [wanted.id]
    walks_the_table = few == 0 and where.tag is None and where.key is None
    if walks_the_table and not has_time:
        # Four windows hold all, and only the last one holds the job.
        assert slices == [[], [], [], [wanted.id]]
    assert sum(queue.queued for queue in await store.jobs.queues()) == ROWS - 1


async def test_slice_without_a_match_writes_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search of a long queue must not make other writers wait."""
    await store.write(Round(NOW, enqueues=[new()]))

    async def write(*_: object) -> None:
        pytest.fail("it took the write lock")

    monkeypatch.setattr(store._access, "write", write)
    done = await store.jobs.cancel_all(Filter(tag="x"), before=None, now=NOW, limit=9)
    assert done == ((), (), None)


async def test_job_that_matches_no_longer_when_the_lock_is_taken_is_left_alone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new()
    await store.write(Round(NOW, enqueues=[job]))
    write = store._access.write

    async def late(function: object, *args: object) -> object:
        monkeypatch.undo()
        await store.jobs.reschedule(job.id, run_at=NOW + HOUR, now=NOW)
        return await write(function, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(store._access, "write", late)
    done = await store.jobs.cancel_all(Filter(state="queued"), before=None, now=NOW, limit=9)
    assert (list(done.cancelled), list(done.requested)) == ([], [])
    row = await store.jobs.get(job.id)
    assert row is not None
    assert row.state == "scheduled"


async def test_plan_of_a_cancel_ends_at_the_cap_and_when_its_time_is_up(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "PLANNED_ROWS", 2)
    await store.write(Round(NOW, enqueues=[new() for _ in range(7)]))
    plan = store.jobs.plan_cancel_all
    assert await plan(Filter(), cap=4) == CancelPlan(4, 0, complete=False)
    assert await plan(Filter(), cap=8) == await plan(Filter()) == CancelPlan(7, 0)
    assert await plan(Filter(), seconds=0) == CancelPlan(2, 0, complete=False)
    assert await plan(Filter(), cap=10, seconds=60) == CancelPlan(7, 0)
