"""A parked job has left its place in a chain, does not wait for a retry, and is not rescheduled."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from jobrunner.core.errors import JobNotWaiting
from jobrunner.core.model import Claimed, Filter, MemoKind, Outcome, chained
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    bring,
    claim,
    claim_one,
    dead,
    enqueue,
    new,
    parked,
    retry,
    row_of,
    settle,
    succeeded,
)

# -- in a chain ------------------------------------------------------------------------------------------


async def parked_behind_dead(store: Store, until: int | None) -> tuple[Claimed, Claimed]:
    """Store a chain of three, let its first job die, and park its second one."""
    first, *behind = chained([new(), new(), new()])
    await enqueue(store, first, *behind)
    (head,) = await claim(store)
    await settle(store, dead(head))
    (second,) = await claim(store)
    assert second.id == behind[0].id
    await settle(store, parked(second, "approved", until=until))
    return head, second


@pytest.mark.parametrize("until", [None, NOW + DAY], ids=["blocked", "scheduled"])
@pytest.mark.parametrize("end", [succeeded, dead])
async def test_parked_job_is_not_released_when_the_job_before_it_is_replayed(
    store: Store, until: int | None, end: Callable[[Claimed], Outcome]
) -> None:
    head, second = await parked_behind_dead(store, until)
    before = await row_of(store, second.id)
    await store.dead_letters.replay(head.id, now=NOW)
    (again,) = await claim(store)
    assert again.id == head.id
    await settle(store, end(again))
    assert await row_of(store, second.id) == before
    assert list(await claim(store, now=NOW + HOUR)) == []
    # What it waits for lets it go, and then the rest of the chain follows.
    assert await store.workflows.signal(second.id, "approved", "1", now=NOW)
    (woken,) = await claim(store)
    assert woken.id == second.id
    await settle(store, succeeded(woken))
    assert [one.chain for one in await claim(store)] == [second.chain]


@pytest.mark.parametrize("until", [None, NOW + DAY], ids=["blocked", "scheduled"])
async def test_parked_job_is_not_cancelled_with_what_was_before_it(
    store: Store, until: int | None
) -> None:
    head, second = await parked_behind_dead(store, until)
    before = await row_of(store, second.id)
    await store.dead_letters.replay(head.id, now=NOW)
    await store.jobs.cancel(head.id, now=NOW)
    assert await row_of(store, second.id) == before
    rest = await store.jobs.chain(before)
    assert [row.state for row in rest] == ["cancelled", before.state, "blocked"]


async def test_death_after_a_park_cancels_the_rest_of_its_chain(store: Store) -> None:
    first, second = chained([new(), new()], on_dead="cancel")
    await enqueue(store, first, second)
    (head,) = await claim(store)
    await settle(store, parked(head, "approved"))
    assert (await row_of(store, second.id)).state == "blocked"
    await store.workflows.signal(head.id, "approved", "1", now=NOW)
    (woken,) = await claim(store)
    await settle(store, dead(woken))
    assert (await row_of(store, second.id)).state == "cancelled"


# -- and retries -----------------------------------------------------------------------------------------


async def sleeping_after_a_failure(store: Store, *, ordered: bool = False) -> Claimed:
    """Store a job that has failed once and then sleeps, or waits for a signal in an ordered lane."""
    lane = "sync[7]" if ordered else None
    job = await claim_one(store, new(lane=lane, ordered=ordered))
    await settle(store, retry(job, NOW))
    await store.write(Round(NOW, promote_due=True))
    (second,) = await claim(store)
    assert (second.id, second.attempt) == (job.id, 2)
    if ordered:
        await settle(store, parked(second, "approved"))
    else:
        memos: Sequence[tuple[MemoKind, str, str]] = [("sleep", "sleep", str(NOW + DAY))]
        await settle(store, parked(second, until=NOW + DAY, memos=memos))
    row = await row_of(store, job.id)
    assert (row.state, row.attempt, row.retrying) == ("scheduled", 1, False)
    return second


@pytest.mark.parametrize("ordered", [False, True], ids=["sleep", "signal, ordered"])
async def test_parked_job_that_has_failed_before_is_not_retrying(
    store: Store, *, ordered: bool
) -> None:
    await sleeping_after_a_failure(store, ordered=ordered)
    again = (await bring(store, "scheduled again")).row
    assert again.retrying
    counts = await store.jobs.counts(cap=100)
    assert (counts["retrying"], counts["scheduled"]) == (1, 2)
    where = Filter(retrying=True)
    page = await store.jobs.list(where, before=None, limit=10)
    assert [(row.id, row.retrying) for row in page.rows] == [(again.id, True)]
    assert (await store.jobs.count(where, cap=10, seconds=1.0)).number == 1


async def test_all_retrying_jobs_run_now_or_are_cancelled_and_sleeps_go_on(store: Store) -> None:
    asleep = await sleeping_after_a_failure(store)
    before = await row_of(store, asleep.id)
    again = (await bring(store, "scheduled again")).row
    where = Filter(retrying=True)
    moved = await store.jobs.reschedule_all(where, before=None, run_at=NOW, now=NOW, limit=10)
    assert (moved.rescheduled, moved.expiring) == (1, 0)
    assert await row_of(store, asleep.id) == before
    (claimed,) = await claim(store)
    assert claimed.id == again.id
    await settle(store, retry(claimed, NOW + MINUTE))
    await store.jobs.cancel_all(where, before=None, now=NOW, limit=10)
    assert (await row_of(store, again.id)).state == "cancelled"
    assert await row_of(store, asleep.id) == before


async def test_signal_wakes_no_job_that_waits_for_a_retry_after_its_wait_was_over(
    store: Store,
) -> None:
    """A time has ended the wait, and the attempt after it failed before it asked for the signal."""
    job = await claim_one(store)
    await settle(store, parked(job, "approved", until=NOW + MINUTE))
    (second,) = await claim(store, now=NOW + MINUTE)
    await settle(store, retry(second, NOW + DAY), now=NOW + MINUTE)
    row = await row_of(store, job.id)
    assert row.retrying
    assert await store.workflows.waits([row]) == {}
    assert await store.workflows.signal(job.id, "approved", "1", now=NOW + MINUTE)
    assert await row_of(store, job.id) == row
    assert [one.id for one in await claim(store, now=NOW + DAY)] == [job.id]


async def test_job_that_fails_after_a_sleep_is_retrying(store: Store) -> None:
    asleep = await sleeping_after_a_failure(store)
    (third,) = await claim(store, now=NOW + DAY)
    assert third.id == asleep.id
    await settle(store, retry(third, NOW + 2 * DAY))
    assert (await row_of(store, third.id)).retrying
    assert (await store.jobs.counts(cap=9))["retrying"] == 1


# -- and reschedules -------------------------------------------------------------------------------------

SLEEP: Sequence[tuple[MemoKind, str, str]] = [("sleep", "night", str(NOW + DAY))]


async def asleep(store: Store) -> Claimed:
    job = await claim_one(store)
    await settle(store, parked(job, until=NOW + DAY, memos=SLEEP))
    return job


async def waits_with_a_time_limit(store: Store) -> Claimed:
    job = await claim_one(store)
    await settle(store, parked(job, "approved", until=NOW + DAY))
    return job


async def waits_in_an_ordered_lane(store: Store) -> Claimed:
    job = await claim_one(store, new(lane="sync[7]", ordered=True))
    await settle(store, parked(job, "approved"))
    return job


PARKS = [asleep, waits_with_a_time_limit, waits_in_an_ordered_lane]


@pytest.mark.parametrize("park", PARKS)
@pytest.mark.parametrize("run_at", [NOW, NOW + HOUR, NOW + 2 * DAY])
async def test_reschedule_of_a_parked_job_is_refused_and_says_for_what_it_waits(
    store: Store, park: Callable[[Store], Awaitable[Claimed]], run_at: int
) -> None:
    job = await park(store)
    before = await row_of(store, job.id)
    (wait,) = (await store.workflows.waits([before])).values()
    with pytest.raises(JobNotWaiting) as refused:
        await store.jobs.reschedule(job.id, run_at=run_at, now=NOW)
    assert f"job {job.id} cannot be rescheduled: " in str(refused.value)
    assert wait.text in str(refused.value)
    assert await row_of(store, job.id) == before


@pytest.mark.parametrize("park", PARKS)
@pytest.mark.parametrize("run_at", [NOW, NOW + HOUR])
async def test_reschedule_of_all_scheduled_jobs_leaves_out_the_parked_ones(
    store: Store, park: Callable[[Store], Awaitable[Claimed]], run_at: int
) -> None:
    job = await park(store)
    before = await row_of(store, job.id)
    late = new(run_at=NOW + 2 * DAY)
    await enqueue(store, late)
    for where in (Filter(state="scheduled"), Filter()):
        for dry_run in (True, False):
            done = await store.jobs.reschedule_all(
                where, before=None, run_at=run_at, now=NOW, limit=10, dry_run=dry_run
            )
            assert (done.rescheduled, done.expiring) == (1, 0)
    assert await row_of(store, job.id) == before
    assert (await row_of(store, late.id)).run_at == run_at


async def test_job_that_a_signal_has_woken_is_rescheduled_like_another_one(store: Store) -> None:
    job = await waits_with_a_time_limit(store)
    assert await store.workflows.signal(job.id, "approved", "1", now=NOW)
    for run_at in (NOW + HOUR, NOW + MINUTE):
        moved = await store.jobs.reschedule(job.id, run_at=run_at, now=NOW)
        assert (moved.state, moved.run_at, moved.retrying) == ("scheduled", run_at, False)
    (again,) = await claim(store, now=NOW + MINUTE)
    assert again.id == job.id


async def test_reschedule_of_a_failed_job_returns_it_as_it_is_stored(store: Store) -> None:
    """One that is queued for its second attempt is retrying again when it is put off."""
    row = (await bring(store, "scheduled again")).row
    queued = await store.jobs.reschedule(row.id, run_at=NOW, now=NOW)
    assert (queued.state, queued.retrying) == ("queued", False)
    later = await store.jobs.reschedule(row.id, run_at=NOW + MINUTE, now=NOW)
    assert (later.state, later.retrying) == ("scheduled", True)
    assert later == await row_of(store, row.id)
    assert (await store.jobs.counts(cap=9))["retrying"] == 1
