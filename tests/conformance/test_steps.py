"""Memos, parked jobs and signals: who may write them, which one counts, and what makes a parked job run again."""

from collections.abc import Sequence

import pytest

from jobrunner.core.errors import JobFinished, JobNotFound
from jobrunner.core.model import Claimed, Memo, MemoKind, chained
from jobrunner.core.workflows import ParkedWait, StepRow
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    OUTCOMES,
    SECOND,
    WORKER,
    claim,
    claim_one,
    dead,
    enqueue,
    make_dead,
    new,
    parked,
    released,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)

ID = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"


async def keep(
    store: Store, job: Claimed, name: str, value: str | None = "1", *, kind: MemoKind = "step"
) -> bool:
    """Write a round with one memo; return whether it was stored."""
    (kept,) = (await store.write(Round(NOW, memos=[Memo(job, kind, name, value)]))).memos
    return kept


async def values(store: Store, job: Claimed) -> list[tuple[str, str, str | None]]:
    return [(row.kind, row.name, row.value) for row in await store.workflows.steps(job.seq)]


async def signal(store: Store, job: Claimed, name: str = "approved", value: str = "1") -> bool:
    return await store.workflows.signal(job.id, name, value, now=NOW + SECOND)


async def park(store: Store, *signals: str, until: int | None = None) -> Claimed:
    """Store a job and park its first attempt."""
    job = await claim_one(store)
    written = await settle(store, parked(job, *signals, until=until))
    assert written.stale == []
    return job


# -- memos -----------------------------------------------------------------------------------------------


async def test_memo_of_a_running_attempt_is_stored_and_read_by_its_job_alone(store: Store) -> None:
    job, other = await claim_one(store), await claim_one(store)
    assert await keep(store, job, "charge", '"r-7"')
    assert await store.workflows.steps(job.seq) == [StepRow("step", "charge", '"r-7"', NOW)]
    assert await store.workflows.steps(other.seq) == []


async def test_memo_that_is_there_stays_except_a_cursor(store: Store) -> None:
    job = await claim_one(store)
    for kind in ("step", "signal", "sleep", "batch"):
        assert await keep(store, job, "x", "1", kind=kind)
        assert not await keep(store, job, "x", "2", kind=kind)
    assert await keep(store, job, "x", "1", kind="cursor")
    assert await keep(store, job, "x", "2", kind="cursor")
    expected = {("batch", "1"), ("cursor", "2"), ("signal", "1"), ("sleep", "1"), ("step", "1")}
    assert {(kind, value) for kind, _, value in await values(store, job)} == expected


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
async def test_fault_22_memo_without_the_lease_is_not_stored(store: Store, kind: str) -> None:
    """An attempt whose job was taken away remembers nothing."""
    job = await claim_one(store)
    await settle(store, OUTCOMES[kind](job))
    assert not await keep(store, job, "charge")
    assert await values(store, job) == []


async def test_memo_of_an_earlier_lease_is_not_stored_while_a_later_attempt_runs(
    store: Store,
) -> None:
    first = await claim_one(store)
    await settle(store, released(first))
    (second,) = await claim(store)
    assert not await keep(store, first, "charge", "1")
    assert not await keep(store, first._replace(lease=second.lease, worker=OTHER_WORKER), "charge")
    assert await keep(store, second, "charge", "2")
    assert await values(store, second) == [("step", "charge", "2")]


async def test_memos_of_one_round_are_answered_each_by_itself(store: Store) -> None:
    jobs = [await claim_one(store) for _ in range(70)]
    await settle(store, released(jobs[3]))
    await store.workflows.signal(jobs[9].id, "approved", "7", now=NOW)
    memos = [Memo(job, "step", "charge", str(n)) for n, job in enumerate(jobs)]
    late = Memo(jobs[9], "signal", "approved", None)
    written = await store.write(
        Round(NOW, memos=[*memos, late], enqueues=[new(queue="other")], calls=[1])
    )
    assert list(written.memos) == [n != 3 for n in range(70)] + [False]
    assert len(written.enqueued) == 1
    for n, job in enumerate(jobs):
        kept = [] if n == 3 else [("step", "charge", str(n))]
        assert [one for one in await values(store, job) if one[0] == "step"] == kept


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
async def test_fault_30_memo_in_the_round_of_its_attempts_outcome_is_stored(
    store: Store, kind: str
) -> None:
    """An end of the attempt, whichever, stores the cursor with it."""
    job = await claim_one(store)
    memo = Memo(job, "cursor", "users", "41")
    written = await store.write(Round(NOW, memos=[memo], outcomes=[OUTCOMES[kind](job)]))
    assert (written.stale, list(written.memos)) == ([], [True])
    assert await values(store, job) == [("cursor", "users", "41")]


async def test_memos_stay_over_death_and_replay(store: Store) -> None:
    job = await claim_one(store)
    assert await keep(store, job, "charge")
    await settle(store, dead(job))
    assert await values(store, job) == [("step", "charge", "1")]
    await store.dead_letters.replay(job.id, now=NOW)
    (again,) = await claim(store)
    assert (again.seq, again.id) == (job.seq, job.id)
    assert await values(store, again) == [("step", "charge", "1")]


# -- parking ---------------------------------------------------------------------------------------------


async def test_parked_job_waits_without_a_slot_an_attempt_or_a_row_of_history(store: Store) -> None:
    job = await claim_one(store, new(expires_at=NOW + HOUR))
    before = await row_of(store, job.id)
    written = await settle(store, parked(job, "approved"), now=NOW + SECOND)
    assert (written.left_queued, written.next_due) == (False, None)
    # A job that has begun does not expire while it waits.
    assert await row_of(store, job.id) == before._replace(
        state="blocked", attempt=0, run_at=NOW + SECOND, expires_at=None
    )
    assert await store.jobs.attempts(job.seq) == []
    assert await store.workers.busy() == {}
    assert list(await claim(store, now=NOW + DAY)) == []


async def test_job_parked_until_a_time_runs_again_then(store: Store) -> None:
    job = await claim_one(store)
    sleep: Sequence[tuple[MemoKind, str, str]] = [("sleep", "sleep", str(NOW + HOUR))]
    written = await settle(store, parked(job, until=NOW + HOUR, memos=sleep))
    assert (written.next_due, (await row_of(store, job.id)).state) == (NOW + HOUR, "scheduled")
    assert list(await claim(store, now=NOW + HOUR - 1)) == []
    (again,) = await claim(store, now=NOW + HOUR)
    assert (again.id, again.attempt, again.lease) == (job.id, 1, 2)
    assert await values(store, again) == [("sleep", "sleep", str(NOW + HOUR))]


async def test_job_parked_until_a_time_that_has_passed_is_queued(store: Store) -> None:
    job = await claim_one(store)
    written = await settle(store, parked(job, until=NOW - 1))
    assert written.left_queued
    assert (await row_of(store, job.id)).state == "queued"


async def test_fault_22_park_without_the_lease_changes_nothing(store: Store) -> None:
    """No memo, no edge."""
    first = await claim_one(store)
    await settle(store, released(first))
    (second,) = await claim(store)
    late = parked(first, "approved", memos=[("step", "charge", "1")])
    assert (await settle(store, late)).stale == [late]
    assert (await row_of(store, first.id)).state == "running"
    assert await values(store, first) == []
    assert await signal(store, second)
    await settle(store, succeeded(second))


async def test_parks_of_one_round_are_refused_each_by_itself(store: Store) -> None:
    jobs = [await claim_one(store) for _ in range(4)]
    await settle(store, released(jobs[2]))
    outcomes = [parked(job, "approved") for job in jobs]
    written = await settle(store, *outcomes)
    assert written.stale == [outcomes[2]]
    states = [(await row_of(store, job.id)).state for job in jobs]
    assert states == ["blocked", "blocked", "queued", "blocked"]


async def test_fault_35_parked_job_that_was_asked_to_stop_is_cancelled(store: Store) -> None:
    """The outcome of a running job that a cancel has reached."""
    job = await claim_one(store)
    await store.jobs.cancel(job.id, now=NOW)
    written = await settle(store, parked(job, "approved", memos=[("step", "charge", "1")]))
    assert written.cancelled == {job.seq}
    assert (await row_of(store, job.id)).state == "cancelled"


async def test_parked_job_is_no_suspect(rig: Rig) -> None:
    """Its process has survived the attempt."""
    store = rig.store
    (made,) = await enqueue(store, new())
    for _ in range(2):
        await store.workers.join(worker_row(), lambda: None)
        await claim(store)
        rig.kill_worker(WORKER)
        await store.workers.recover(now=NOW, thorough=False)
    (suspect,) = await claim(store)
    assert suspect.suspect
    await settle(store, parked(suspect, "approved"))
    assert await signal(store, suspect)
    (again,) = await claim(store)
    assert (again.id, again.suspect) == (made.id, False)


async def test_parked_job_of_an_ordered_lane_stays_ahead_of_the_later_ones(store: Store) -> None:
    first, second = (new(lane="sync[7]", ordered=True) for _ in range(2))
    await enqueue(store, first, second)
    (job,) = await claim(store)
    await settle(store, parked(job, "approved"))
    assert list(await claim(store, now=NOW + DAY)) == []
    assert await signal(store, job)
    (again,) = await claim(store)
    assert again.id == first.id
    await settle(store, succeeded(again))
    (other,) = await claim(store)
    assert other.id == second.id


# -- signals ---------------------------------------------------------------------------------------------


async def test_signal_lets_a_parked_job_run_again_at_once(store: Store) -> None:
    job = await park(store, "approved")
    assert await signal(store, job, value='{"by":"ann"}')
    row = await row_of(store, job.id)
    assert (row.state, row.run_at) == ("queued", NOW + SECOND)
    (again,) = await claim(store, now=NOW + SECOND)
    assert (again.id, again.attempt) == (job.id, 1)
    assert await values(store, again) == [("signal", "approved", '{"by":"ann"}')]


async def test_signal_ends_a_wait_with_a_time_limit_early(store: Store) -> None:
    job = await park(store, "approved", until=NOW + DAY)
    assert (await row_of(store, job.id)).state == "scheduled"
    assert await signal(store, job)
    assert [one.id for one in await claim(store, now=NOW + SECOND)] == [job.id]


async def test_fault_19_signal_between_look_and_park_is_not_lost(store: Store) -> None:
    """The park's own transaction sees it, since nobody would wake the job otherwise."""
    job = await claim_one(store)
    assert await signal(store, job)
    written = await settle(store, parked(job, "approved"))
    assert written.left_queued
    assert (await row_of(store, job.id)).state == "queued"


async def test_signal_for_a_job_that_does_not_wait_is_kept_and_wakes_nobody(store: Store) -> None:
    (waiting,) = await enqueue(store, new(run_at=NOW + DAY))
    assert await store.workflows.signal(waiting.id, "approved", "1", now=NOW)
    assert (await row_of(store, waiting.id)).state == "scheduled"
    job = await park(store, "approved")
    assert await signal(store, job, "other")
    assert (await row_of(store, job.id)).state == "blocked"
    sleeper = await park(store, until=NOW + DAY)
    assert await signal(store, sleeper)
    assert (await row_of(store, sleeper.id)).state == "scheduled"


async def test_first_signal_of_a_name_counts(store: Store) -> None:
    job = await park(store, "approved")
    assert await signal(store, job, value="1")
    assert not await signal(store, job, value="2")
    assert await signal(store, job, "paid", "3")
    assert await values(store, job) == [("signal", "approved", "1"), ("signal", "paid", "3")]


async def test_fault_20_signal_against_time_out_the_first_memo_counts(store: Store) -> None:
    """Both are the same row, so that one of the two is refused."""
    late, early = await claim_one(store), await claim_one(store)
    assert await keep(store, late, "approved", None, kind="signal")
    assert not await signal(store, late)
    assert await values(store, late) == [("signal", "approved", None)]
    assert await signal(store, early)
    assert not await keep(store, early, "approved", None, kind="signal")
    assert await values(store, early) == [("signal", "approved", "1")]


async def test_fault_26_wait_that_a_time_ended_does_not_hold_the_next_one(
    store: Store,
) -> None:
    """The edge of the first wait is gone when the job parks again."""
    job = await park(store, "approved", until=NOW + MINUTE)
    (second,) = await claim(store, now=NOW + MINUTE)
    await settle(store, parked(second, "paid"), now=NOW + MINUTE)
    assert await store.workflows.waits([await row_of(store, job.id)]) == {
        job.seq: ParkedWait(("!paid",), None)
    }
    assert await signal(store, second, "paid")
    assert (await row_of(store, job.id)).state == "queued"


async def test_time_out_of_an_attempt_without_the_lease_does_not_end_the_wait_of_the_next_one(
    store: Store,
) -> None:
    first = await claim_one(store)
    await settle(store, released(first))
    (second,) = await claim(store)
    await settle(store, parked(second, "approved"))
    assert not await keep(store, first, "approved", None, kind="signal")
    row = await row_of(store, first.id)
    assert await store.workflows.waits([row]) == {row.seq: ParkedWait(("!approved",), None)}
    assert await signal(store, second)
    assert (await row_of(store, first.id)).state == "queued"


async def test_late_signal_of_an_earlier_wait_does_not_wake_a_later_one(store: Store) -> None:
    await park(store, "approved", until=NOW + MINUTE)
    (second,) = await claim(store, now=NOW + MINUTE)
    await settle(store, parked(second, "paid"))
    assert await signal(store, second, "approved")
    assert (await row_of(store, second.id)).state == "blocked"


async def test_signal_to_a_job_that_has_ended_is_refused(store: Store) -> None:
    job = await claim_one(store)
    await settle(store, succeeded(job))
    with pytest.raises(JobFinished, match="succeeded"):
        await signal(store, job)
    letter = await make_dead(store)
    with pytest.raises(JobFinished, match="dead letter"):
        await store.workflows.signal(letter.id, "approved", "1", now=NOW)
    with pytest.raises(JobNotFound):
        await store.workflows.signal(ID, "approved", "1", now=NOW)


async def test_signal_for_a_job_behind_another_one_in_its_chain_does_not_start_it(
    store: Store,
) -> None:
    first, second = await enqueue(store, *chained([new(), new()]))
    assert await store.workflows.signal(second.id, "approved", "1", now=NOW)
    assert (await row_of(store, second.id)).state == "blocked"
    assert [one.id for one in await claim(store)] == [first.id]


# -- what it waits for -----------------------------------------------------------------------------------


async def test_waits_says_what_parked_jobs_wait_for_and_leaves_out_the_others(store: Store) -> None:
    signalled = await park(store, "approved", until=NOW + DAY)
    for_ever = await park(store, "paid")
    sleeper = await claim_one(store)
    memo: Sequence[tuple[MemoKind, str, str]] = [("sleep", "night", str(NOW + HOUR))]
    await settle(store, parked(sleeper, until=NOW + HOUR, memos=memo))
    failed = await claim_one(store)
    await settle(store, retry(failed, NOW + HOUR))
    (later,) = await enqueue(store, new(run_at=NOW + HOUR))
    running = await claim_one(store)
    ids = [signalled.id, for_ever.id, sleeper.id, failed.id, later.id, running.id]
    rows = [await row_of(store, id) for id in ids]
    waits = await store.workflows.waits(rows)
    assert waits == {
        signalled.seq: ParkedWait(("!approved",), NOW + DAY),
        for_ever.seq: ParkedWait(("!paid",), None),
        sleeper.seq: ParkedWait((), NOW + HOUR),
    }
    assert [waits[one.seq].text for one in (signalled, for_ever, sleeper)] == [
        "signal approved until 2026-03-05 05:06:07Z",
        "signal paid",
        "sleeps until 2026-03-04 06:06:07Z",
    ]
