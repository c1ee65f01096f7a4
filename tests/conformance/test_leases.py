"""The fence: a worker that has lost an attempt cannot settle it.

Take ``lease``, ``worker`` or ``seq`` out of any statement's WHERE, and a test here fails.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from jobrunner.core.model import RESULT_PENDING, Claimed, Outcome, Returned
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    OUTCOMES,
    WORKER,
    cancelled,
    claim,
    claim_of,
    claim_one,
    dead,
    ended,
    enqueue,
    new,
    released,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)

STALE: Final[Mapping[str, Callable[[Claimed], Outcome]]] = {
    **OUTCOMES,
    # A success with a result is written by a statement that carries the result.
    "succeeded with a result": lambda job: succeeded(job, '"done"'),
}
KINDS = sorted(STALE)


async def assert_refused(store: Store, stale: Outcome, running: Claimed) -> None:
    """Settle a stale outcome, alone and amid others, and see that it changes nothing."""
    row, attempts = await row_of(store, running.id), await store.jobs.attempts(running.seq)
    assert row.state == "running"
    written = await settle(store, stale)
    assert written.stale == [stale]
    assert await row_of(store, running.id) == row
    assert await store.jobs.attempts(running.seq) == attempts

    beside = await claim_one(store, new())
    also = await claim_one(store, new())
    written = await settle(store, succeeded(beside), stale, dead(also))
    assert written.stale == [stale]
    assert await row_of(store, running.id) == row
    assert await store.jobs.attempts(running.seq) == attempts
    assert (await row_of(store, beside.id)).state == "succeeded"
    assert (await row_of(store, also.id)).state == "dead"

    assert (await settle(store, succeeded(running))).stale == []


@pytest.mark.parametrize("kind", KINDS)
async def test_settle_with_the_lease_of_an_earlier_attempt_is_refused(
    store: Store, kind: str
) -> None:
    """The attempt number is the same again after a release; the lease is not."""
    first = await claim_one(store)
    await settle(store, released(first))
    (second,) = await claim(store)
    assert (first.attempt, first.worker, first.seq) == (
        second.attempt,
        second.worker,
        second.seq,
    )
    await assert_refused(store, STALE[kind](first), second)


@pytest.mark.parametrize("kind", KINDS)
async def test_B16_settle_by_a_worker_that_lost_the_job_is_refused(rig: Rig, kind: str) -> None:
    store = rig.store
    await store.workers.join(worker_row(WORKER), lambda: None)
    await store.workers.join(worker_row(OTHER_WORKER), lambda: None)
    zombie = await claim_one(store, worker=WORKER)
    rig.kill_worker(WORKER)
    await store.workers.recover(now=NOW, thorough=False)
    (holder,) = await claim(store, worker=OTHER_WORKER)
    await assert_refused(store, STALE[kind](zombie), holder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["seq", "lease", "worker"])
async def test_settle_that_is_wrong_in_one_part_of_the_fence_is_refused(
    store: Store, kind: str, part: str
) -> None:
    running = await claim_one(store)
    neighbour = await claim_one(store)
    await settle(store, retry(neighbour))
    (neighbour,) = await claim(store)
    # The neighbour's lease is another one, so that both parts have to be looked at.
    assert neighbour.lease != running.lease
    wrong = {
        "seq": running._replace(seq=neighbour.seq),
        "lease": running._replace(lease=running.lease + 1),
        "worker": running._replace(worker=OTHER_WORKER),
    }[part]
    await assert_refused(store, STALE[kind](wrong), running)
    assert (await row_of(store, neighbour.id)).state == "running"


@pytest.mark.parametrize("kind", KINDS)
async def test_settle_of_a_job_that_was_settled_before_is_refused(store: Store, kind: str) -> None:
    job = await claim_one(store)
    await settle(store, succeeded(job, "1"))
    row, attempts = await row_of(store, job.id), await store.jobs.attempts(job.seq)
    stale = STALE[kind](job)
    assert (await settle(store, stale)).stale == [stale]
    assert await row_of(store, job.id) == row
    assert await store.jobs.attempts(job.seq) == attempts


async def test_settle_twice_in_one_round_is_written_once(store: Store) -> None:
    job = await claim_one(store)
    first, second = succeeded(job, '"first"'), dead(job)
    written = await settle(store, first, second)
    assert written.stale == [second]
    assert (await row_of(store, job.id)).result == '"first"'
    assert len(await store.jobs.attempts(job.seq)) == 1


async def test_settle_after_the_job_is_gone_is_refused(store: Store) -> None:
    job = await claim_one(store)
    await settle(store, cancelled(job))
    await store.jobs.prune(
        finished_before=NOW + HOUR, by_task={}, died_before=0, keep_finished=100, limit=100
    )
    assert await store.jobs.get(job.id) is None
    fresh = await claim_one(store)
    assert fresh.seq > job.seq  # a number that came twice would let the stale outcome in
    stale = succeeded(job)
    assert (await settle(store, stale)).stale == [stale]
    assert (await row_of(store, fresh.id)).state == "running"
    assert await store.jobs.get(job.id) is None


async def test_settle_from_the_life_before_a_replay_is_refused(store: Store) -> None:
    """The lease goes into the dead letters and out again, and never back."""
    first = await claim_one(store)
    await settle(store, dead(first))
    await store.dead_letters.replay(first.id, now=NOW)
    (second,) = await claim(store)
    assert (second.seq, second.attempt, second.lease) == (first.seq, 1, 2)
    await assert_refused(store, succeeded(first), second)


@pytest.mark.parametrize("part", ["seq", "lease"])
async def test_result_that_is_wrong_in_one_part_of_the_fence_is_refused(
    store: Store, part: str
) -> None:
    """A transaction of the task has settled the job; its result follows in a round, and no worker holds it then."""
    job = await claim_one(store)
    neighbour = await claim_one(store)
    for one in (job, neighbour):
        await settle(store, succeeded(one)._replace(result_omitted=RESULT_PENDING))
    row = await row_of(store, job.id)

    def result(of: Claimed) -> Returned:
        return Returned(of, ended("succeeded"), '"done"', None)

    wrong = {
        "seq": job._replace(seq=neighbour.seq + 1),
        "lease": job._replace(lease=job.lease + 1),
    }[part]
    assert (await settle(store, result(wrong))).stale == [result(wrong)]
    assert await row_of(store, job.id) == row

    assert (await settle(store, result(job))).stale == []
    assert (await row_of(store, job.id)).result == '"done"'
    assert (await row_of(store, neighbour.id)).result is None


async def test_settle_that_is_stale_keeps_nothing_else_from_the_round(store: Store) -> None:
    job = await claim_one(store)
    await settle(store, succeeded(job))
    due = new(run_at=NOW + 1)
    await enqueue(store, due)
    fresh = new()
    written = await store.write(
        Round(
            NOW + 1,
            outcomes=[retry(job)],
            promote_due=True,
            enqueues=[fresh],
            claim=claim_of(),
        )
    )
    assert written.stale == [retry(job)]
    assert [one.id for one in written.claimed] == [fresh.id, due.id]
