"""A round: the order of its parts, what it reports, and that one bad row spoils nothing but itself."""

from typing import Any

import pytest

from jobrunner.core.errors import StoreError
from jobrunner.core.model import Enqueue, Enqueued, Filter
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round, Written
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim_of,
    claim_one,
    dead,
    enqueue,
    new,
    released,
    retry,
    row_of,
    settle,
    snoozed,
    succeeded,
)


async def test_write_of_an_empty_round_does_nothing(store: Store) -> None:
    written = await store.write(Round(NOW))
    assert written == Written([], frozenset(), [], [], None, False, False, fired=[])


async def test_an_enqueue_that_finds_a_free_slot_is_claimed_in_its_own_round(
    store: Store,
) -> None:
    job = new()
    written = await store.write(Round(NOW, enqueues=[job], claim=claim_of()))
    assert [one.id for one in written.claimed] == [job.id]
    (made,) = written.enqueued
    assert isinstance(made, Enqueued)
    assert (made.state, made.attempt) == ("queued", 0)
    assert (await row_of(store, job.id)).state == "running"
    assert written.left_queued is False


async def test_a_round_settles_then_promotes_then_enqueues_then_claims(store: Store) -> None:
    again = await claim_one(store, new(key="key"))
    due = new(run_at=NOW + SECOND)
    await enqueue(store, due)
    fresh = new(run_at=NOW + SECOND, created_at=NOW + SECOND, key="key")
    written = await store.write(
        Round(
            NOW + SECOND,
            outcomes=[retry(again, NOW + SECOND)],
            promote_due=True,
            enqueues=[fresh],
            claim=claim_of(),
        )
    )
    # The retry is due at once, so it is promoted; it still holds the key, so the enqueue finds it.
    assert [one.id for one in written.claimed] == [again.id, due.id]
    (made,) = written.enqueued
    assert isinstance(made, Enqueued)
    assert (made.id, made.created, made.state) == (again.id, False, "queued")
    assert written.next_due is None


async def test_a_round_that_does_not_look_promotes_nothing(store: Store) -> None:
    await enqueue(store, new(run_at=NOW + SECOND))
    assert (await store.write(Round(NOW + HOUR, claim=claim_of()))).claimed == []


# -- next_due ------------------------------------------------------------------------------------------


async def test_next_due_is_the_earliest_of_what_waits(store: Store) -> None:
    assert (await store.write(Round(NOW, promote_due=True))).next_due is None
    await enqueue(store, new(run_at=NOW + HOUR), new(run_at=NOW + MINUTE), new())
    assert (await store.write(Round(NOW, promote_due=True))).next_due == NOW + MINUTE
    assert (await store.write(Round(NOW + MINUTE, promote_due=True))).next_due == NOW + HOUR
    assert (await store.write(Round(NOW + HOUR, promote_due=True))).next_due is None


@pytest.mark.parametrize("outcome", [retry, snoozed])
async def test_next_due_of_a_round_that_does_not_look_tells_of_its_own_rows(
    store: Store, outcome: Any
) -> None:
    """A worker that knows the next due time needs no second query to know when to wake."""
    await enqueue(store, new(run_at=NOW + MINUTE))
    assert (await store.write(Round(NOW, enqueues=[new(run_at=NOW + HOUR)]))).next_due == NOW + HOUR
    job = await claim_one(store)
    assert (await settle(store, outcome(job, NOW + HOUR))).next_due == NOW + HOUR


async def test_next_due_ignores_what_is_over(store: Store) -> None:
    job = new(run_at=NOW + MINUTE, expires_at=NOW + HOUR)
    await enqueue(store, job)
    await store.jobs.cancel(job.id, now=NOW)
    done = await claim_one(store, new(expires_at=NOW + MINUTE))
    await settle(store, succeeded(done))
    assert (await store.write(Round(NOW, promote_due=True))).next_due is None


async def test_next_due_ignores_the_expiry_of_what_the_round_has_claimed(store: Store) -> None:
    job = new(expires_at=NOW + MINUTE)
    written = await store.write(Round(NOW, promote_due=True, enqueues=[job], claim=claim_of()))
    assert len(written.claimed) == 1
    assert written.next_due is None


# -- more_due ------------------------------------------------------------------------------------------


async def test_more_due_says_that_one_round_did_not_promote_all(store: Store) -> None:
    many = 1_234
    await enqueue(store, *[new(run_at=NOW + SECOND + n) for n in range(many)])
    looks, promoted = 0, 0
    while True:
        looks += 1
        written = await store.write(
            Round(NOW + HOUR, promote_due=True, claim=claim_of(slots=5_000))
        )
        promoted += len(written.claimed)
        runs = [job.run_at for job in written.claimed]
        assert runs == sorted(runs)
        if not written.more_due:
            break
        assert len(written.claimed) < many  # a round is bounded
    assert promoted == many
    assert looks > 1


async def test_more_due_says_that_one_round_did_not_expire_all(store: Store) -> None:
    many = 1_234
    await enqueue(store, *[new(expires_at=NOW + SECOND) for _ in range(many)])
    while (await store.write(Round(NOW + HOUR, promote_due=True))).more_due:
        pass
    expired = await store.jobs.list(Filter(state="expired"), before=None, limit=many)
    assert len(expired.rows) == many


# -- left_queued -----------------------------------------------------------------------------------------


async def test_left_queued_says_that_others_may_find_work(store: Store) -> None:
    async def left(**fields: Any) -> bool:
        return (await store.write(Round(**{"now": NOW, **fields}))).left_queued

    assert await left(enqueues=[new()]) is True
    assert await left(enqueues=[new(run_at=NOW + HOUR)]) is False
    assert await left(enqueues=[new(), new(), new()], claim=claim_of(slots=2)) is True
    assert await left(claim=claim_of()) is False
    assert await left(enqueues=[new("unknown")], claim=claim_of()) is True
    assert await left(now=NOW + HOUR, promote_due=True) is True


async def test_left_queued_after_a_release_says_that_others_may_find_work(store: Store) -> None:
    job = await claim_one(store)
    assert (await settle(store, released(job))).left_queued is True


async def test_left_queued_after_a_key_was_taken_is_false(store: Store) -> None:
    await claim_one(store, new(key="key"))
    assert (await store.write(Round(NOW, enqueues=[new(key="key")]))).left_queued is False


# -- one bad row -------------------------------------------------------------------------------------------


async def the_same_id(store: Store) -> Enqueue:
    job = new()
    await enqueue(store, job)
    return job._replace(args='{"again":1}')


async def a_lone_surrogate(store: Store) -> Enqueue:
    return new(tag="\ud800")


async def a_number_too_large(store: Store) -> Enqueue:
    return new(priority=2**63)


async def an_empty_obligation(store: Store) -> Enqueue:
    return new()._replace(args=None)  # type: ignore[arg-type] # what a bug of ours would hand in


async def another_type(store: Store) -> Enqueue:
    return new()._replace(priority="high")  # type: ignore[arg-type] # as above


BAD = [the_same_id, a_lone_surrogate, a_number_too_large, an_empty_obligation, another_type]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("keyed", [False, True])
async def test_write_with_one_bad_row_refuses_that_row_alone(
    store: Store, bad: Any, keyed: bool
) -> None:
    ending, failing, lost = await claim_one(store), await claim_one(store), await claim_one(store)
    await settle(store, succeeded(lost))
    waiting = new(run_at=NOW + SECOND)
    await enqueue(store, waiting)
    culprit = await bad(store)
    if keyed:
        culprit = culprit._replace(key="culprit")
    before, between, after = new(), new(key="key"), new()
    written = await store.write(
        Round(
            NOW + SECOND,
            outcomes=[succeeded(ending, "1"), succeeded(lost), dead(failing)],
            promote_due=True,
            enqueues=[before, culprit, between, new(key="key"), after],
            claim=claim_of(),
        )
    )
    first, refused, second, again, third = written.enqueued
    assert isinstance(refused, StoreError)
    made = [one for one in (first, second, again, third) if isinstance(one, Enqueued)]
    assert [one.id for one in made] == [before.id, between.id, between.id, after.id]
    assert [one.created for one in made] == [True, True, False, True]
    assert written.stale == [succeeded(lost)]
    assert (await row_of(store, ending.id)).result == "1"
    assert (await row_of(store, failing.id)).state == "dead"
    claimed = [job.id for job in written.claimed]
    for job in (before, between, after, waiting):
        assert claimed.count(job.id) == 1
    for attempt in (ending, failing, lost):
        assert len(await store.jobs.attempts(attempt.seq)) == 1


async def test_write_with_one_bad_row_stores_nothing_of_its_call(store: Store) -> None:
    jobs = [new(), await the_same_id(store), new(), new()]
    written = await store.write(Round(NOW, enqueues=jobs, calls=[2, 2]))
    assert [isinstance(one, StoreError) for one in written.enqueued] == [True, True, False, False]
    assert await store.jobs.get(jobs[0].id) is None
    assert [(await row_of(store, job.id)).state for job in jobs[2:]] == ["queued", "queued"]


async def test_write_with_bad_rows_alone_is_no_error_of_the_round(store: Store) -> None:
    written = await store.write(Round(NOW, enqueues=[await a_lone_surrogate(store)] * 3))
    assert [isinstance(one, StoreError) for one in written.enqueued] == [True, True, True]
    await enqueue(store, new())
