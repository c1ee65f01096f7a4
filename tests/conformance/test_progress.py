"""The progress that attempts report: which attempt may write it, and how long it is shown."""

import pytest

from jobrunner.core.model import Claimed, Filter, Progressed
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    DAY,
    HOUR,
    NOW,
    OTHER_WORKER,
    OUTCOMES,
    claim,
    claim_of,
    claim_one,
    dead,
    make_dead,
    new,
    released,
    retry,
    row_of,
    settle,
    succeeded,
)

HALF = "[1,2,null]"
DONE = '[2,2,"rendered"]'


async def report(store: Store, job: Claimed, value: str) -> None:
    """Write a round with the progress of one attempt."""
    await store.write(Round(NOW, progress=[Progressed(job, value)]))


async def progress_of(store: Store, id: str) -> str | None:
    return (await row_of(store, id)).progress


async def test_progress_of_an_attempt_replaces_its_earlier_one(store: Store) -> None:
    job = await claim_one(store)
    assert await progress_of(store, job.id) is None
    await report(store, job, HALF)
    assert await progress_of(store, job.id) == HALF
    await report(store, job, DONE)
    assert await progress_of(store, job.id) == DONE
    (listed,) = (await store.jobs.list(Filter(), before=None, limit=9)).rows
    assert listed.progress == DONE


async def test_progress_changes_no_other_field_and_no_other_job(store: Store) -> None:
    other = await claim_one(store)
    job = await claim_one(store)
    before, of_other = await row_of(store, job.id), await row_of(store, other.id)
    await report(store, job, HALF)
    assert await row_of(store, job.id) == before._replace(progress=HALF)
    assert await row_of(store, other.id) == of_other


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
async def test_progress_in_the_round_of_the_outcome_is_kept(store: Store, kind: str) -> None:
    job = await claim_one(store)
    written = await store.write(
        Round(NOW, progress=[Progressed(job, HALF)], outcomes=[OUTCOMES[kind](job)])
    )
    assert written.stale == []
    assert await progress_of(store, job.id) == HALF


@pytest.mark.parametrize("again", [retry, released])
async def test_progress_is_gone_once_the_next_attempt_has_started(
    store: Store, again: object
) -> None:
    job = await claim_one(store)
    await report(store, job, HALF)
    await settle(store, retry(job) if again is retry else released(job))
    assert await progress_of(store, job.id) == HALF
    (second,) = await claim(store)
    assert await progress_of(store, job.id) is None
    await report(store, second, DONE)
    assert await progress_of(store, job.id) == DONE


@pytest.mark.parametrize("kind", sorted(set(OUTCOMES) - {"succeeded"}))
async def test_progress_of_an_attempt_that_has_ended_is_not_written(
    store: Store, kind: str
) -> None:
    job = await claim_one(store)
    await settle(store, OUTCOMES[kind](job))
    await report(store, job, HALF)
    assert await progress_of(store, job.id) is None


async def test_progress_after_the_success_of_its_own_attempt_is_written(store: Store) -> None:
    """An application's session may settle the job before the next round comes."""
    job = await claim_one(store)
    await settle(store, succeeded(job))
    await report(store, job, DONE)
    assert await progress_of(store, job.id) == DONE


async def test_progress_of_a_former_attempt_does_not_reach_the_present_one(store: Store) -> None:
    former = await claim_one(store)
    await settle(store, released(former))
    (present,) = await claim(store, worker=OTHER_WORKER)
    await report(store, former, HALF)
    assert await progress_of(store, former.id) is None
    await report(store, present, DONE)
    await report(store, former, HALF)
    assert await progress_of(store, former.id) == DONE
    await settle(store, succeeded(present))
    await report(store, former, HALF)
    assert await progress_of(store, former.id) == DONE


async def test_progress_of_another_worker_is_not_written(store: Store) -> None:
    job = await claim_one(store)
    await report(store, job._replace(worker=OTHER_WORKER), HALF)
    assert await progress_of(store, job.id) is None


async def test_progress_stays_with_the_dead_letter_until_its_replay(store: Store) -> None:
    job = await claim_one(store)
    await report(store, job, HALF)
    await settle(store, dead(job))
    (listed,) = (await store.dead_letters.list(Filter(), before=None, limit=9)).rows
    assert listed.progress == HALF
    await store.dead_letters.replay(job.id, now=NOW)
    assert await progress_of(store, job.id) is None


async def test_progress_goes_with_its_job_and_leaves_that_of_others(store: Store) -> None:
    kept = await claim_one(store)
    done, died, deleted = [await claim_one(store) for _ in range(3)]
    for job in (kept, done, died, deleted):
        await report(store, job, HALF)
    await settle(store, succeeded(done), dead(died), dead(deleted))
    assert await store.dead_letters.delete(deleted.id)
    gone = await store.jobs.prune(
        finished_before=NOW + DAY, by_task={}, died_before=NOW + DAY, keep_finished=9, limit=9
    )
    assert gone == 2
    assert await progress_of(store, kept.id) == HALF
    for job in (done, died, deleted):
        assert await store.jobs.get(job.id) is None


# -- the trace context ---------------------------------------------------------------------------

TRACE = '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'


async def test_trace_reaches_every_attempt(store: Store) -> None:
    job = await claim_one(store, new(trace=TRACE))
    assert job.trace == (await row_of(store, job.id)).trace == TRACE
    await settle(store, retry(job))
    (second,) = await claim(store)
    assert (second.id, second.trace) == (job.id, TRACE)


async def test_trace_of_a_dead_letter_comes_back_with_its_replay(store: Store) -> None:
    letter = await make_dead(store, new(trace=TRACE))
    assert letter.trace == TRACE
    await store.dead_letters.replay(letter.id, now=NOW)
    (again,) = await claim(store)
    assert again.trace == TRACE


async def test_trace_of_a_job_that_is_buried_while_it_waits_is_kept(store: Store) -> None:
    job = new(trace=TRACE)
    await store.write(Round(NOW, enqueues=[job]))
    buried = await store.dead_letters.bury_waiting(
        *("default", "work"),
        due_before=NOW + HOUR,
        reason="unknown_task",
        error="nobody knows it",
        now=NOW,
        limit=9,
    )
    assert buried == [job.id]
    assert (await row_of(store, job.id)).trace == TRACE


async def test_trace_of_one_job_of_a_round_is_not_that_of_its_neighbours(store: Store) -> None:
    traced, plain = new(trace=TRACE), new()
    written = await store.write(Round(NOW, enqueues=[plain, traced], claim=claim_of()))
    assert {job.id: job.trace for job in written.claimed} == {plain.id: None, traced.id: TRACE}
