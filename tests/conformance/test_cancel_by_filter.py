"""Unfinished jobs cancelled by a filter, slice by slice."""

from collections.abc import Sequence

import pytest

from jobrunner.core.ids import new_id
from jobrunner.core.model import UNFINISHED, Enqueue, Filter, chained
from jobrunner.store.job_protocol import CancelledSlice, CancelPlan
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    SECOND,
    STARTS,
    Start,
    bring,
    claim,
    claim_of,
    enqueue,
    make_dead,
    new,
    retry,
    row_of,
    settle,
    succeeded,
)

ALL = Filter()


async def cancel_all(store: Store, where: Filter = ALL, *, limit: int = 100) -> CancelledSlice:
    """Cancel in one slice after another; return what they did together."""
    cancelled: list[str] = []
    requested: list[int] = []
    cursor = None
    while True:
        done = await store.jobs.cancel_all(where, before=cursor, now=NOW + SECOND, limit=limit)
        cancelled += done.cancelled
        requested += done.requested
        cursor = done.cursor
        if cursor is None:
            return CancelledSlice(cancelled, requested, None)


@pytest.mark.parametrize("start", STARTS)
async def test_cancel_all_does_to_a_job_in_any_state_what_cancel_does(
    store: Store, start: Start
) -> None:
    row = (await bring(store, start)).row
    unfinished = row.state in UNFINISHED
    running = row.state == "running"
    plan = CancelPlan(int(unfinished and not running), int(running))
    where = Filter(tag="tag")
    assert await store.jobs.plan_cancel_all(where) == plan
    assert await row_of(store, row.id) == row
    done = await cancel_all(store, where)
    assert CancelPlan(len(done.cancelled), len(done.requested)) == plan
    by_filter = await row_of(store, row.id)
    if running:
        assert by_filter == row._replace(cancel_requested=True)
        assert list(done.requested) == [row.seq]
    elif unfinished:
        ended = row._replace(state="cancelled", finished_at=NOW + SECOND, retrying=False)
        assert by_filter == ended
        assert list(done.cancelled) == [row.id]
    else:
        assert by_filter == row


async def test_cancel_all_goes_slice_by_slice_from_the_newest(store: Store) -> None:
    jobs = await enqueue(store, *[new() for _ in range(5)])
    slices, cursor = [], None
    while True:
        done = await store.jobs.cancel_all(ALL, before=cursor, now=NOW, limit=2)
        slices.append(list(done.cancelled))
        cursor = done.cursor
        if cursor is None:
            break
    ids = [job.id for job in jobs]
    assert [sorted(ids) for ids in slices] == [sorted(ids[3:]), sorted(ids[1:3]), ids[:1]]


async def test_cancel_all_leaves_what_is_stored_after_its_first_slice(store: Store) -> None:
    old = await enqueue(store, new(), new(), new())
    first = await store.jobs.cancel_all(ALL, before=None, now=NOW, limit=1)
    (late,) = await enqueue(store, new())
    second = await store.jobs.cancel_all(ALL, before=first.cursor, now=NOW, limit=10)
    assert (len(second.cancelled), second.cursor) == (2, None)
    assert (await row_of(store, late.id)).state == "queued"
    assert {(await row_of(store, job.id)).state for job in old} == {"cancelled"}


async def test_cancel_all_finds_a_job_that_changes_its_state_between_two_slices(
    store: Store,
) -> None:
    """A walk along one index per state would miss a job that goes from one to another."""
    (retried,) = await enqueue(store, new())
    (attempt,) = await claim(store)
    await enqueue(store, new(run_at=NOW + HOUR), new())
    first = await store.jobs.cancel_all(ALL, before=None, now=NOW, limit=1)
    await settle(store, retry(attempt, NOW + HOUR))
    second = await store.jobs.cancel_all(ALL, before=first.cursor, now=NOW, limit=10)
    assert retried.id in second.cancelled
    assert (await row_of(store, retried.id)).state == "cancelled"


@pytest.mark.parametrize(
    ("where", "other"),
    [
        (Filter(task="work"), new("play")),
        (Filter(queue="default"), new(queue="mail")),
        (Filter(state="queued"), new(run_at=NOW + HOUR)),
        (Filter(tag="shop"), new(tag="shops")),
        (Filter(tag="shop"), new()),
        (Filter(key="k"), new(key="other")),
        (Filter(key="k"), new()),
        (Filter(since=NOW), new(created_at=NOW - 1)),
        (Filter(until=NOW + 1), new(created_at=NOW + 1)),
    ],
)
async def test_cancel_all_cancels_what_the_filter_means_and_no_more(
    store: Store, where: Filter, other: Enqueue
) -> None:
    wanted = new(tag="shop", key="k")
    other = other._replace(id=new_id(NOW))
    await enqueue(store, wanted, other)
    before = await row_of(store, other.id)
    assert await store.jobs.plan_cancel_all(where) == CancelPlan(1, 0)
    assert list((await cancel_all(store, where)).cancelled) == [wanted.id]
    assert await row_of(store, other.id) == before


async def test_cancel_all_cancels_only_what_matches_every_filter(store: Store) -> None:
    wanted, *others = new(tag="a"), new(tag="a", queue="mail"), new(tag="b")
    await enqueue(store, wanted, *others)
    where = Filter(task="work", queue="default", tag="a")
    assert list((await cancel_all(store, where)).cancelled) == [wanted.id]


async def test_cancel_all_asks_running_jobs_of_every_worker_to_stop(store: Store) -> None:
    await enqueue(store, new(), new())
    (mine,) = await claim(store, slots=1)
    (theirs,) = await claim(store, slots=1, worker=OTHER_WORKER)
    await enqueue(store, new())
    done = await cancel_all(store)
    assert set(done.requested) == {mine.seq, theirs.seq}
    assert len(done.cancelled) == 1
    requests = await store.jobs.cancel_requests(mine.worker)
    assert list(requests) == [(mine.seq, mine.lease)]
    # Asked again, it says so again: a call that was broken off can be made again.
    assert set((await cancel_all(store)).requested) == {mine.seq, theirs.seq}


# -- chains -------------------------------------------------------------------------------------------


async def a_chain(store: Store, *tags: str) -> Sequence[str]:
    """Store a chain whose jobs have these tags; return the ids."""
    jobs = chained([new(tag=tag) for tag in tags])
    await enqueue(store, *jobs)
    return [job.id for job in jobs]


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    ("tags", "gone"),
    [
        ("xoo", 3),
        ("oxo", 2),
        ("oox", 1),
        ("xox", 3),
        ("xxx", 3),
        ("oxoxoo", 5),
        ("xooxox", 6),
        ("ooo", 0),
    ],
)
async def test_cancel_all_cancels_the_jobs_behind_and_counts_each_once(
    store: Store, tags: str, gone: int, limit: int
) -> None:
    ids = await a_chain(store, *tags)
    other = await a_chain(store, "o", "o")
    where = Filter(tag="x")
    assert await store.jobs.plan_cancel_all(where) == CancelPlan(gone, 0)
    done = await cancel_all(store, where, limit=limit)
    assert sorted(done.cancelled) == sorted(ids[len(ids) - gone :])
    states = [(await row_of(store, id)).state for id in ids]
    kept = len(ids) - gone
    assert states == ["queued", "blocked", "blocked", "blocked"][:kept] + ["cancelled"] * gone
    assert [(await row_of(store, id)).state for id in other] == ["queued", "blocked"]


async def test_cancel_all_of_a_running_job_leaves_its_chain_until_it_has_stopped(
    store: Store,
) -> None:
    ids = await a_chain(store, "x", "o")
    (attempt,) = await claim(store)
    where = Filter(tag="x")
    assert await store.jobs.plan_cancel_all(where) == CancelPlan(0, 1)
    done = await cancel_all(store, where)
    assert (list(done.cancelled), list(done.requested)) == ([], [attempt.seq])
    assert (await row_of(store, ids[1])).state == "blocked"
    await settle(store, succeeded(attempt))
    assert (await row_of(store, ids[1])).state == "queued"


# -- what is left alone ---------------------------------------------------------------------------------


async def test_cancel_all_leaves_dead_letters_and_finished_jobs(store: Store) -> None:
    letter = await make_dead(store)
    (attempt,) = [await claim_done(store)]
    assert await store.jobs.plan_cancel_all(ALL) == CancelPlan(0, 0)
    assert await cancel_all(store) == ([], [], None)
    assert (await row_of(store, letter.id)).state == "dead"
    assert (await row_of(store, attempt)).state == "succeeded"


async def claim_done(store: Store) -> str:
    await enqueue(store, new())
    (attempt,) = (await store.write(Round(NOW, claim=claim_of()))).claimed
    await settle(store, succeeded(attempt))
    return attempt.id


async def test_cancel_all_of_a_cancelled_set_finds_nothing_the_second_time(store: Store) -> None:
    await enqueue(store, *[new() for _ in range(3)])
    assert len((await cancel_all(store)).cancelled) == 3
    assert await cancel_all(store) == ([], [], None)


async def test_cancel_all_frees_the_keys(store: Store) -> None:
    await enqueue(store, new(key="k"))
    await cancel_all(store)
    (made,) = await enqueue(store, new(key="k"))
    assert made.created
