"""Expiry: a job that still waits at its expiry does not start, and becomes ``expired``."""

from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim,
    claim_of,
    claim_one,
    enqueue,
    new,
    retry,
    row_of,
    settle,
    succeeded,
)


async def test_promote_due_at_the_instant_of_expiry_expires_the_job(store: Store) -> None:
    job = new(expires_at=NOW + SECOND)
    await enqueue(store, job)
    await store.write(Round(NOW + SECOND - 1, promote_due=True))
    assert (await row_of(store, job.id)).state == "queued"
    await store.write(Round(NOW + SECOND, promote_due=True))
    row = await row_of(store, job.id)
    assert (row.state, row.finished_at, row.attempt) == ("expired", NOW + SECOND, 0)
    assert await store.jobs.attempts(row.seq) == []


async def test_promote_due_expires_before_it_promotes(store: Store) -> None:
    """A job that became due and expired while no worker ran must not run."""
    job = new(run_at=NOW + SECOND, expires_at=NOW + MINUTE)
    await enqueue(store, job)
    assert await claim(store, now=NOW + MINUTE) == []
    assert (await row_of(store, job.id)).state == "expired"


async def test_a_running_job_does_not_expire(store: Store) -> None:
    job = await claim_one(store, new(expires_at=NOW + SECOND))
    await store.write(Round(NOW + HOUR, promote_due=True))
    assert (await settle(store, succeeded(job))).stale == []


async def test_a_retry_that_comes_too_late_expires(store: Store) -> None:
    job = await claim_one(store, new(expires_at=NOW + SECOND))
    await settle(store, retry(job, NOW + MINUTE))
    assert await claim(store, now=NOW + MINUTE) == []
    assert (await row_of(store, job.id)).state == "expired"
    assert len(await store.jobs.attempts(job.seq)) == 1


async def test_next_due_names_the_next_expiry(store: Store) -> None:
    written = await store.write(
        Round(
            NOW, promote_due=True, enqueues=[new(expires_at=NOW + MINUTE), new(run_at=NOW + HOUR)]
        )
    )
    assert written.next_due == NOW + MINUTE
    written = await store.write(Round(NOW + 1, promote_due=True))
    assert written.next_due == NOW + MINUTE
    written = await store.write(Round(NOW + MINUTE, promote_due=True))
    assert written.next_due == NOW + HOUR


async def test_an_expired_job_is_never_claimed_again(store: Store) -> None:
    await enqueue(store, new(expires_at=NOW + SECOND))
    await store.write(Round(NOW + SECOND, promote_due=True))
    # Not even when the clock steps back.
    assert (await store.write(Round(NOW, promote_due=True, claim=claim_of()))).claimed == []


async def test_E1_expiry_after_the_clock_jumped_spares_jobs_without_one(store: Store) -> None:
    job = new()
    await enqueue(store, job, new(expires_at=NOW + SECOND))
    assert [one.id for one in await claim(store, now=NOW + 1000 * HOUR)] == [job.id]
