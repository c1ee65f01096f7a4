"""Cancelling: a waiting job at once, a running one when it obeys or ends, a finished one not at all."""

import asyncio
from collections.abc import Callable

import pytest

from jobrunner.core.ids import new_id
from jobrunner.core.model import Claimed, Outcome
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    SECOND,
    STARTS,
    STATE_OF,
    WORKER,
    Start,
    bring,
    cancelled,
    claim,
    claim_of,
    claim_one,
    dead,
    new,
    parked,
    released,
    retry,
    row_of,
    settle,
    snoozed,
    succeeded,
    worker_row,
)


@pytest.mark.parametrize("start", STARTS)
async def test_cancel_returns_the_row_as_it_was_before(store: Store, start: Start) -> None:
    specimen = await bring(store, start)
    assert await store.jobs.cancel(specimen.row.id, now=NOW + SECOND) == specimen.row
    row = await row_of(store, specimen.row.id)
    if STATE_OF[start] in {"scheduled", "queued", "blocked"}:
        assert row == specimen.row._replace(
            state="cancelled", finished_at=NOW + SECOND, retrying=False
        )
    elif STATE_OF[start] == "running":
        assert row == specimen.row._replace(cancel_requested=True)
    else:
        assert row == specimen.row


async def test_cancel_of_an_unknown_id_returns_none(store: Store) -> None:
    assert await store.jobs.cancel(new_id(NOW), now=NOW) is None


async def test_a_cancelled_job_is_never_claimed(store: Store) -> None:
    await bring(store, "cancelled")
    assert await claim(store, now=NOW + HOUR) == []


async def test_cancel_requests_names_the_workers_own_running_jobs(store: Store) -> None:
    mine, untouched = await claim_one(store), await claim_one(store)
    theirs = await claim_one(store, worker=OTHER_WORKER)
    await store.jobs.cancel(mine.id, now=NOW)
    await store.jobs.cancel(theirs.id, now=NOW)
    assert list(await store.jobs.cancel_requests(WORKER)) == [(mine.seq, mine.lease)]
    assert list(await store.jobs.cancel_requests(OTHER_WORKER)) == [(theirs.seq, theirs.lease)]
    await settle(store, cancelled(mine), succeeded(untouched))
    assert list(await store.jobs.cancel_requests(WORKER)) == []


@pytest.mark.parametrize("outcome", [retry, snoozed, parked, released])
async def test_H10_cancel_of_a_job_whose_outcome_would_run_it_again_makes_it_cancelled(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    job, other = await claim_one(store), await claim_one(store)
    await store.jobs.cancel(job.id, now=NOW)
    written = await settle(store, outcome(job), outcome(other))
    assert (written.stale, written.cancelled) == ([], frozenset({job.seq}))
    row = await row_of(store, job.id)
    assert (row.state, row.finished_at) == ("cancelled", NOW)
    # What the attempt did is told as it was.
    (attempt,) = await store.jobs.attempts(job.seq)
    assert attempt.outcome == outcome(job).ended.outcome
    assert (await row_of(store, other.id)).state != "cancelled"


@pytest.mark.parametrize(
    ("outcome", "state"), [(succeeded, "succeeded"), (dead, "dead"), (cancelled, "cancelled")]
)
async def test_H10_cancel_of_a_job_that_ends_all_the_same_leaves_its_end(
    store: Store, outcome: Callable[[Claimed], Outcome], state: str
) -> None:
    job = await claim_one(store)
    await store.jobs.cancel(job.id, now=NOW)
    written = await settle(store, outcome(job))
    assert (written.stale, written.cancelled) == ([], frozenset())
    assert (await row_of(store, job.id)).state == state


@pytest.mark.parametrize("cancel_first", [True, False])
@pytest.mark.parametrize("outcome", [succeeded, dead, retry])
async def test_H10_cancel_against_finish_ends_in_one_state(
    store: Store, outcome: Callable[[Claimed], Outcome], cancel_first: bool
) -> None:
    job = await claim_one(store)
    cancelling = store.jobs.cancel(job.id, now=NOW)
    settling = settle(store, outcome(job))
    both = [cancelling, settling] if cancel_first else [settling, cancelling]
    await asyncio.gather(*both)
    row = await row_of(store, job.id)
    expected = {succeeded: "succeeded", dead: "dead", retry: "cancelled"}[outcome]
    assert row.state == expected
    assert len(await store.jobs.attempts(job.seq)) == 1
    assert await claim(store, now=NOW + HOUR) == []


async def test_cancel_request_is_forgotten_with_the_attempt_it_was_for(store: Store) -> None:
    """A job that died with a cancel asked for runs when somebody replays it."""
    job = await claim_one(store)
    await store.jobs.cancel(job.id, now=NOW)
    await settle(store, dead(job))
    await store.dead_letters.replay(job.id, now=NOW)
    (again,) = await claim(store)
    assert list(await store.jobs.cancel_requests(WORKER)) == []
    await settle(store, retry(again))
    assert (await row_of(store, job.id)).state == "scheduled"


async def test_cancel_of_a_job_whose_worker_died_is_obeyed_by_the_recovery(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    await store.jobs.cancel(job.id, now=NOW)
    rig.kill_worker(WORKER)
    found = await store.workers.recover(now=NOW + SECOND, thorough=False)
    assert (found.requeued, found.buried) == (0, [])
    row = await row_of(store, job.id)
    assert (row.state, row.finished_at) == ("cancelled", NOW + SECOND)
    assert [one.outcome for one in await store.jobs.attempts(job.seq)] == ["lost"]


async def test_cancel_and_settle_in_the_same_round_as_a_claim_do_not_run_it_again(
    store: Store,
) -> None:
    job = await claim_one(store)
    await store.jobs.cancel(job.id, now=NOW)
    written = await store.write(Round(NOW, outcomes=[released(job)], claim=claim_of()))
    assert written.claimed == []
