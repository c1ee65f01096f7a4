"""The effect of each outcome on the job, and the record of the attempt."""

from typing import Any

import pytest

from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import AttemptRow, Filter, State, Succeeded
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OUTCOMES,
    SECOND,
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
    snoozed,
    succeeded,
)

LATER = NOW + SECOND

# What each outcome, written at LATER, makes of a job claimed at NOW: the state, and the fields that differ afterwards.
MADE_OF_IT: dict[str, tuple[State, dict[str, Any]]] = {
    "succeeded": ("succeeded", {"finished_at": LATER}),
    "retry": ("scheduled", {"run_at": LATER + HOUR, "retrying": True}),
    "snoozed": ("scheduled", {"run_at": LATER + HOUR, "attempt": 0}),
    "released": ("queued", {"attempt": 0}),
    "parked": ("blocked", {"run_at": LATER, "attempt": 0}),
    "cancelled": ("cancelled", {"finished_at": LATER}),
    "dead": (
        "dead",
        {
            "finished_at": LATER,
            "reason": "exhausted",
            "error_type": "ValueError",
            "error": "no luck",
            "traceback": "Traceback: no luck",
            "fingerprint": fingerprint("work", "ValueError", "no luck", "Traceback: no luck"),
        },
    ),
}


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
async def test_settle_changes_what_the_outcome_says_and_nothing_else(
    store: Store, kind: str
) -> None:
    job = await claim_one(store, new(key="key", tag="tag", priority=2, max_attempts=3))
    before = await row_of(store, job.id)
    outcome = OUTCOMES[kind](job)
    outcome = outcome._replace(ended=outcome.ended._replace(at=LATER))
    if kind in {"retry", "snoozed"}:
        outcome = outcome._replace(run_at=LATER + HOUR)  # type: ignore[call-arg]
    written = await settle(store, outcome, now=LATER)
    assert (written.stale, written.cancelled) == ([], frozenset())
    state, changes = MADE_OF_IT[kind]
    assert await row_of(store, job.id) == before._replace(state=state, **changes)


async def test_outcomes_in_any_order_keep_their_own_values(store: Store) -> None:
    await enqueue(store, *(new() for _ in range(9)))
    jobs = (await claim(store))[::-1]
    hot, *others = jobs[:3], jobs[3:6], jobs[6:]
    await settle(store, *(succeeded(job, f'"{job.id}"', at=NOW + job.seq) for job in hot))
    again, died = others
    await settle(
        store,
        *(retry(job, NOW + HOUR + job.seq, at=NOW + job.seq) for job in again),
        *(dead(job, at=NOW - job.seq) for job in died),
    )
    rows = {job.seq: await row_of(store, job.id) for job in jobs}
    for job in hot:
        assert (rows[job.seq].result, rows[job.seq].finished_at) == (f'"{job.id}"', NOW + job.seq)
    assert {job.seq: rows[job.seq].run_at for job in again} == {
        job.seq: NOW + HOUR + job.seq for job in again
    }
    assert {job.seq: rows[job.seq].finished_at for job in died} == {
        job.seq: NOW - job.seq for job in died
    }
    letters = (await store.dead_letters.list(Filter(), before=None, limit=9)).rows
    # The newest death first.
    assert [row.id for row in letters] == [job.id for job in died[::-1]]


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
async def test_settle_keeps_the_attempt(store: Store, kind: str) -> None:
    job = await claim_one(store)
    outcome = OUTCOMES[kind](job)
    outcome = outcome._replace(ended=outcome.ended._replace(at=LATER))
    await settle(store, outcome, now=LATER + HOUR)
    end = outcome.ended
    if kind == "parked":
        assert await store.jobs.attempts(job.seq) == []
        return
    assert await store.jobs.attempts(job.seq) == [
        AttemptRow(1, 1, WORKER, NOW, LATER, end.outcome, end.error_type, end.error, end.traceback)
    ]


async def test_settle_as_succeeded_keeps_the_result(store: Store) -> None:
    first, second = await claim_one(store), await claim_one(store)
    await settle(
        store,
        succeeded(first, '{"total":[1,2]}'),
        Succeeded(second, ended("succeeded"), None, "it was too large"),
    )
    row = await row_of(store, first.id)
    assert (row.result, row.result_omitted) == ('{"total":[1,2]}', None)
    row = await row_of(store, second.id)
    assert (row.result, row.result_omitted) == (None, "it was too large")


async def test_H1_settle_as_retry_numbers_the_next_attempt_and_keeps_the_first_start(
    store: Store,
) -> None:
    job = await claim_one(store)
    await settle(store, retry(job, NOW + MINUTE))
    assert await claim(store, now=NOW + MINUTE - 1) == []
    (again,) = await claim(store, now=NOW + MINUTE)
    assert (again.attempt, again.first_started_at) == (2, NOW)
    assert (again.started_at, again.run_at) == (NOW + MINUTE, NOW + MINUTE)


async def test_settle_as_released_keeps_its_place_in_the_queue(store: Store) -> None:
    job = await claim_one(store)
    await enqueue(store, new(run_at=NOW + 1), now=NOW + 1)
    await settle(store, released(job, at=NOW + HOUR), now=NOW + HOUR)
    assert [one.id for one in await claim(store, slots=1, now=NOW + HOUR)] == [job.id]


async def test_settle_of_every_kind_in_one_round_settles_each(store: Store) -> None:
    await enqueue(store, *[new() for _ in range(len(OUTCOMES) * 3)])
    claimed = await claim(store)
    kinds = sorted(OUTCOMES) * 3
    outcomes = [OUTCOMES[kind](job) for kind, job in zip(kinds, claimed, strict=True)]
    written = await settle(store, *outcomes)
    assert written.stale == []
    states = [(await row_of(store, job.id)).state for job in claimed]
    assert states == [MADE_OF_IT[kind][0] for kind in kinds]
    for job, kind in zip(claimed, kinds, strict=True):
        assert len(await store.jobs.attempts(job.seq)) == (0 if kind == "parked" else 1)


async def test_attempts_of_a_long_life_are_listed_oldest_first_and_the_running_one_last(
    store: Store,
) -> None:
    job = await claim_one(store)
    for outcome in (retry, snoozed, released, retry):
        await settle(store, outcome(job))
        (job,) = await claim(store)
    attempts = await store.jobs.attempts(job.seq)
    assert [one.outcome for one in attempts] == ["failed", "snoozed", "released", "failed", None]
    assert [one.lease for one in attempts] == [1, 2, 3, 4, 5]
    assert [one.attempt for one in attempts] == [1, 2, 2, 2, 3]
    assert attempts[-1].finished_at is None


async def test_settle_with_text_of_every_kind_keeps_it(store: Store) -> None:
    job = await claim_one(store)
    text = "line\nzero\0tab\tquote'\"; DROP TABLE jobrunner_jobs; -- ✓ \U0001f600"
    await settle(store, dead(job)._replace(ended=ended("failed", NOW, text, text * 1000)))
    row = await row_of(store, job.id)
    # A text of PostgreSQL can have no NUL: an error that has one is kept with its escape.
    assert row.error in {text, text.replace("\0", "\\x00")}
    assert row.traceback == (row.error or "") * 1000
    (attempt,) = await store.jobs.attempts(job.seq)
    assert (attempt.error, attempt.traceback) == (row.error, row.traceback)


async def test_E2_settle_after_the_clock_stepped_back_is_written(store: Store) -> None:
    """Nothing in the store may hold one time against another."""
    jobs = [await claim_one(store) for _ in range(4)]
    past = NOW - HOUR
    written = await settle(
        store,
        succeeded(jobs[0], at=past),
        retry(jobs[1], past, at=past),
        dead(jobs[2], at=past),
        cancelled(jobs[3], at=past),
        now=past,
    )
    assert written.stale == []
    states = [(await row_of(store, job.id)).state for job in jobs]
    assert states == ["succeeded", "scheduled", "dead", "cancelled"]


async def test_settle_frees_a_job_that_the_same_round_claims_again(store: Store) -> None:
    job = await claim_one(store)
    written = await store.write(Round(NOW, outcomes=[released(job)], claim=claim_of(slots=1)))
    (again,) = written.claimed
    assert (again.id, again.attempt, again.lease) == (job.id, 1, 2)
    assert [one.outcome for one in await store.jobs.attempts(job.seq)] == ["released", None]


@pytest.mark.parametrize("with_stale", [False, True])
async def test_settle_of_many_at_once_keeps_each_ones_own(store: Store, with_stale: bool) -> None:
    """Results, times and attempts of many successes, some with options, among other outcomes, do not mix."""
    jobs = [new(args=f'{{"n": {n}}}', tag="tag" if n % 7 == 0 else None) for n in range(150)]
    await enqueue(store, *jobs)
    claimed = await claim(store, slots=len(jobs))
    assert [job.id for job in claimed] == [job.id for job in jobs]
    outcomes = [
        retry(job, LATER + n)
        if n % 10 == 0
        else succeeded(job, str(n) if n % 3 else None, at=NOW + n)
        for n, job in enumerate(claimed)
    ]
    stale = [succeeded(claimed[75]._replace(lease=claimed[75].lease + 1))] if with_stale else []
    written = await settle(store, *outcomes[:80], *stale, *outcomes[80:])
    assert written.stale == stale
    for n, job in enumerate(jobs):
        row = await row_of(store, job.id)
        (attempt,) = await store.jobs.attempts(row.seq)
        if n % 10 == 0:
            assert (row.state, row.run_at, attempt.outcome) == ("scheduled", LATER + n, "failed")
        else:
            assert (row.state, row.finished_at) == ("succeeded", NOW + n)
            assert row.result == (str(n) if n % 3 else None)
            assert (attempt.outcome, attempt.finished_at) == ("succeeded", NOW + n)
