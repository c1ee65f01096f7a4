"""Waiting jobs made due at another time by a filter, slice by slice."""

from typing import Any

import pytest

from jobrunner.core.model import Enqueue, Filter, chained
from jobrunner.store.job_protocol import RescheduledSlice
from jobrunner.store.protocol import Store
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    STARTS,
    Start,
    bring,
    claim,
    enqueue,
    new,
    row_of,
)

ALL = Filter()


async def reschedule_all(
    store: Store,
    where: Filter = ALL,
    *,
    run_at: int = NOW,
    now: int = NOW,
    limit: int = 100,
    **words: Any,
) -> tuple[int, int]:
    """Reschedule one slice after another; return how many are due then and how many would expire."""
    rescheduled, expiring, cursor = 0, 0, None
    while True:
        done = await store.jobs.reschedule_all(
            where, before=cursor, run_at=run_at, now=now, limit=limit, **words
        )
        rescheduled += done.rescheduled
        expiring += done.expiring
        cursor = done.cursor
        if cursor is None:
            return rescheduled, expiring


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("run_at", [NOW, NOW + SECOND])
async def test_reschedule_all_does_to_a_job_in_any_state_what_reschedule_does(
    store: Store, start: Start, run_at: int
) -> None:
    row = (await bring(store, start)).row
    waits = row.state in ("scheduled", "queued")
    where = Filter(tag="tag")
    planned = await reschedule_all(store, where, run_at=run_at, dry_run=True)
    assert await row_of(store, row.id) == row
    assert await reschedule_all(store, where, run_at=run_at) == planned == (int(waits), 0)
    by_filter = await row_of(store, row.id)
    if not waits:
        assert by_filter == row
        return
    assert by_filter.state == ("queued" if run_at == NOW else "scheduled")
    assert by_filter == await store.jobs.reschedule(row.id, run_at=run_at, now=NOW)


async def test_slices_go_from_the_newest_and_leave_what_is_stored_meanwhile(store: Store) -> None:
    jobs = [new(run_at=NOW + HOUR) for _ in range(5)]
    await enqueue(store, *jobs)
    first = await store.jobs.reschedule_all(ALL, before=None, run_at=NOW, now=NOW, limit=2)
    assert (first.rescheduled, first.expiring) == (2, 0)
    later = new(run_at=NOW + HOUR)
    await enqueue(store, later)
    cursor, sizes = first.cursor, []
    while cursor is not None:
        done = await store.jobs.reschedule_all(ALL, before=cursor, run_at=NOW, now=NOW, limit=2)
        sizes.append(done.rescheduled)
        cursor = done.cursor
    assert sum(sizes) == 3
    assert [(await row_of(store, job.id)).state for job in jobs] == ["queued"] * 5
    assert (await row_of(store, later.id)).state == "scheduled"


WANTED: dict[str, Any] = {"queue": "mail", "tag": "t", "key": "k"}
FILTERS = [
    Filter(task="other"),
    Filter(queue="default"),
    Filter(tag="u"),
    Filter(key="l"),
    Filter(state="queued"),
    Filter(retrying=True),
    Filter(since=NOW + 1),
    Filter(until=NOW),
]


@pytest.mark.parametrize("where", FILTERS, ids=repr)
async def test_jobs_that_do_not_match_stay(store: Store, where: Filter) -> None:
    job = new(run_at=NOW + HOUR, **WANTED)
    await enqueue(store, job)
    assert await reschedule_all(store, where) == (0, 0)
    assert (await row_of(store, job.id)).run_at == NOW + HOUR
    every = Filter(task="work", state="scheduled", since=NOW, until=NOW + 1, **WANTED)
    assert await reschedule_all(store, every) == (1, 0)


async def test_retrying_jobs_alone_are_due_and_keep_their_attempts(store: Store) -> None:
    retrying = (await bring(store, "scheduled again")).row
    fresh = new(run_at=NOW + HOUR)
    await enqueue(store, fresh)
    assert await reschedule_all(store, Filter(retrying=True)) == (1, 0)
    assert (await row_of(store, fresh.id)).state == "scheduled"
    (attempt,) = await claim(store)
    assert (attempt.id, attempt.attempt) == (retrying.id, retrying.attempt + 1)


async def test_jobs_that_would_expire_before_are_counted_and_stay(store: Store) -> None:
    short = new(run_at=NOW + SECOND, expires_at=NOW + MINUTE)
    long = new(run_at=NOW + SECOND)
    await enqueue(store, short, long)
    before = await row_of(store, short.id)
    planned = await reschedule_all(store, run_at=NOW + HOUR, dry_run=True)
    assert await reschedule_all(store, run_at=NOW + HOUR) == planned == (1, 1)
    assert await row_of(store, short.id) == before
    # Due now, both start before they expire.
    assert await reschedule_all(store, run_at=NOW) == (2, 0)


async def test_due_jobs_keep_their_place_and_others_do_not_overtake_them(store: Store) -> None:
    due = [new(run_at=NOW - HOUR), new(run_at=NOW - MINUTE)]
    late = new(run_at=NOW + HOUR)
    await enqueue(store, late, *due)
    assert await reschedule_all(store) == (3, 0)
    assert [one.id for one in await claim(store)] == [*(one.id for one in due), late.id]


async def test_blocked_jobs_of_a_chain_wait_for_the_one_before(store: Store) -> None:
    first, second = chained([new(run_at=NOW + HOUR), new(run_at=NOW + HOUR)])
    await enqueue(store, first, second)
    assert await reschedule_all(store) == (1, 0)
    assert (await row_of(store, second.id)).state == "blocked"
    assert (await row_of(store, second.id)).run_at == NOW + HOUR


async def test_job_that_started_since_it_was_found_is_left_alone(store: Store) -> None:
    """Between two slices anything may happen to the rest."""
    jobs: list[Enqueue] = [new() for _ in range(3)]
    await enqueue(store, *jobs)
    done = await store.jobs.reschedule_all(ALL, before=None, run_at=NOW + HOUR, now=NOW, limit=1)
    await claim(store, slots=1)
    running = [one.id for one in jobs if (await row_of(store, one.id)).state == "running"]
    cursor, rest = done.cursor, RescheduledSlice(0, 0, None)
    while cursor is not None:
        rest = await store.jobs.reschedule_all(
            ALL, before=cursor, run_at=NOW + HOUR, now=NOW, limit=9
        )
        cursor = rest.cursor
    assert rest.rescheduled == 1
    assert [(await row_of(store, id)).state for id in running] == ["running"]
