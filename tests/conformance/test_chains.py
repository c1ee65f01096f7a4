"""Chains: each job starts after the one before it has ended, whichever way and wherever that happens."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from jobrunner.core.errors import StoreError
from jobrunner.core.model import (
    Claimed,
    Enqueue,
    Enqueued,
    Filter,
    JobRow,
    Outcome,
    Succeeded,
    chained,
)
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
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
    enqueue,
    new,
    parked,
    quiet,
    released,
    retry,
    row_of,
    settle,
    snoozed,
    succeeded,
    worker_row,
)


async def a_chain(store: Store, *jobs: Enqueue) -> list[Enqueued]:
    """Store jobs as a chain."""
    return await enqueue(store, *chained(jobs or [new(), new(), new()]))


async def states(store: Store, jobs: Sequence[Enqueued]) -> list[str]:
    """Return the states of jobs, in the order of the chain."""
    return [(await row_of(store, job.id)).state for job in jobs]


async def started(store: Store) -> tuple[list[Enqueued], Claimed]:
    """Store a chain of three whose first job runs."""
    jobs = await a_chain(store)
    (first,) = await claim(store)
    assert first.id == jobs[0].id
    return jobs, first


# -- storing -------------------------------------------------------------------------------------


async def test_chain_is_stored_with_each_job_blocked_behind_the_one_before(store: Store) -> None:
    one, two, three = await a_chain(store)
    assert [one.state, two.state, three.state] == ["queued", "blocked", "blocked"]
    assert [job.created for job in (one, two, three)] == [True] * 3
    for job, after in ((one, None), (two, one.id), (three, two.id)):
        row = await row_of(store, job.id)
        assert (row.chain, row.after, row.state) == (one.id, after, job.state)
        assert (job.chain, job.after) == (one.id, after)


async def test_chain_whose_first_job_is_for_later_waits_for_it(store: Store) -> None:
    jobs = await a_chain(store, new(run_at=NOW + HOUR), new())
    assert await claim(store, now=NOW + MINUTE) == []
    assert await states(store, jobs) == ["scheduled", "blocked"]
    assert [job.id for job in await claim(store, now=NOW + HOUR)] == [jobs[0].id]


async def test_blocked_job_is_nobodys_next_due_time(store: Store) -> None:
    later = new(run_at=NOW + HOUR, expires_at=NOW + DAY)
    chain = chained([new(run_at=NOW + DAY), later])
    assert (await store.write(Round(NOW, enqueues=chain))).next_due == NOW + DAY
    assert (await store.write(Round(NOW, promote_due=True))).next_due == NOW + DAY


async def test_one_job_alone_is_no_chain(store: Store) -> None:
    (job,) = await a_chain(store, new())
    assert (job.chain, job.after, job.state) == (None, None, "queued")


async def test_chains_and_other_jobs_in_one_round_do_not_mix(store: Store) -> None:
    first, second = chained([new(), new()]), chained([new(), new()])
    alone = [new(), new(key="k")]
    made = await enqueue(store, alone[0], *first, *second, alone[1])
    assert [job.state for job in made] == [
        "queued",
        *("queued", "blocked") * 2,
        "queued",
    ]
    assert [job.chain for job in made] == [
        None,
        *(first[0].id, first[0].id, second[0].id, second[0].id),
        None,
    ]
    # In the order given, which is their age.
    ready = [alone[0].id, first[0].id, second[0].id, alone[1].id]
    assert [job.id for job in await claim(store)] == ready


@pytest.mark.parametrize(
    ("keys", "after"),
    [
        (["taken", None, None], [None, None, 1]),
        ([None, "taken", None], [None, None, 0]),
        ([None, None, "taken"], [None, 0, None]),
        (["taken", "taken", None], [None, None, None]),
        (["mine", "mine", None], [None, None, 0]),
        ([None, "mine", "mine"], [None, 0, None]),
        (["mine", "taken", "mine"], [None, None, None]),
    ],
)
async def test_chain_with_a_key_that_is_taken_goes_on_without_that_call(
    store: Store, keys: list[str | None], after: list[int | None]
) -> None:
    """``after`` gives the place in the chain of the one that is waited for; None stands for nobody."""
    (holder,) = await enqueue(store, new(key="taken", run_at=NOW + DAY))
    calls = [new(key=key) for key in keys]
    made = await a_chain(store, *calls)
    own = [place for place, job in enumerate(made) if job.created]
    held = {place: made[place].id for place in range(3) if place not in own}
    assert held == {
        place: holder.id if keys[place] == "taken" else calls[keys.index(keys[place])].id
        for place in held
    }
    for place in own:
        row, before = await row_of(store, calls[place].id), after[place]
        assert row.after == (None if before is None else calls[before].id)
        assert row.chain == calls[own[0]].id
        assert row.state == ("queued" if place == own[0] else "blocked")
    # What was stored runs one after another to the end.
    for place in own:
        (job,) = await claim(store)
        assert job.id == calls[place].id
        await settle(store, succeeded(job))
    assert await claim(store) == []


async def test_chain_with_a_row_that_the_store_refuses_is_not_stored_at_all(store: Store) -> None:
    good = new()
    bad = new(args='"\ud800"')
    chain = chained([new(), bad, new()])
    written = await store.write(Round(NOW, enqueues=[good, *chain, new()]))
    kinds = [isinstance(one, StoreError) for one in written.enqueued]
    assert kinds == [False, True, True, True, False]
    rows = (await store.jobs.list(Filter(), before=None, limit=10)).rows
    assert len(rows) == 2
    assert good.id in {row.id for row in rows}
    # Nor counted: what was refused rings for nobody.
    assert written.left_queued
    refused = await store.write(Round(NOW, enqueues=chain))
    assert not refused.left_queued
    assert refused.next_due is None


async def test_chain_beside_a_stale_outcome_is_stored_as_it_is_without(store: Store) -> None:
    """The pass item by item stores chains as the one in bulk does."""
    first = await claim_one(store)
    await settle(store, succeeded(first))
    (keyed,) = await enqueue(store, new(key="k", run_at=NOW + DAY))
    chain = chained([new(), new(key="k"), new()])
    written = await store.write(Round(NOW, outcomes=[succeeded(first)], enqueues=[*chain, new()]))
    assert len(written.stale) == 1
    one, held, three, alone = written.enqueued
    assert isinstance(one, Enqueued)
    assert isinstance(held, Enqueued)
    assert isinstance(three, Enqueued)
    assert isinstance(alone, Enqueued)
    assert (one.state, held.id, three.state, three.after) == (
        "queued",
        keyed.id,
        "blocked",
        one.id,
    )
    assert alone.chain is None


# -- the next one --------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [succeeded, dead])
async def test_next_job_is_claimed_in_the_round_that_ends_the_one_before(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    jobs, first = await started(store)
    written = await store.write(Round(NOW, outcomes=[outcome(first)], claim=claim_of()))
    assert [job.id for job in written.claimed] == [jobs[1].id]
    assert not written.left_queued
    assert await states(store, jobs[1:]) == ["running", "blocked"]
    written = await store.write(Round(NOW, outcomes=[outcome(written.claimed[0])]))
    assert written.left_queued, "nobody was rung for"
    assert await states(store, jobs[1:]) == [
        "succeeded" if outcome is succeeded else "dead",
        "queued",
    ]


@pytest.mark.parametrize("outcome", [retry, snoozed, released])
async def test_next_job_waits_while_the_one_before_runs_again(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    jobs, first = await started(store)
    await settle(store, outcome(first))
    assert await states(store, jobs[1:]) == ["blocked", "blocked"]
    (again,) = await claim(store, now=NOW + MINUTE)
    assert again.id == first.id
    await settle(store, succeeded(again))
    assert await states(store, jobs[1:]) == ["queued", "blocked"]


async def test_next_job_with_a_time_of_its_own_is_scheduled_until_then(store: Store) -> None:
    jobs = await a_chain(store, new(), new(run_at=NOW + HOUR, expires_at=NOW + DAY))
    (first,) = await claim(store)
    written = await settle(store, succeeded(first), now=NOW + MINUTE)
    assert (written.next_due, written.left_queued) == (NOW + HOUR, False)
    assert await states(store, jobs) == ["succeeded", "scheduled"]
    assert [job.id for job in await claim(store, now=NOW + HOUR)] == [jobs[1].id]


async def test_next_job_is_due_from_the_end_of_the_one_before(store: Store) -> None:
    """It must not overtake the ones that have waited."""
    jobs, first = await started(store)
    waiting = new(created_at=NOW + SECOND)
    await enqueue(store, waiting, now=NOW + SECOND)
    written = await store.write(
        Round(NOW + MINUTE, outcomes=[succeeded(first)], claim=claim_of(slots=9))
    )
    assert [job.id for job in written.claimed] == [waiting.id, jobs[1].id]
    assert written.claimed[1].run_at == NOW + MINUTE


async def test_E2_next_job_after_the_clock_stepped_back_is_queued_and_due_as_it_was(
    store: Store,
) -> None:
    jobs, first = await started(store)
    await settle(store, succeeded(first), now=NOW - HOUR)
    row = await row_of(store, jobs[1].id)
    assert (row.state, row.run_at) == ("queued", NOW)


async def stop_chain(store: Store, *jobs: Enqueue) -> Sequence[Enqueued]:
    """Store a chain that a dead letter stops."""
    return await enqueue(store, *chained(jobs, on_dead="cancel"))


async def test_death_cancels_the_rest_of_a_chain_that_asks_for_it(store: Store) -> None:
    jobs = await stop_chain(store, new(), new(), new())
    others = await a_chain(store, new(queue="side"), new(queue="side"))
    (first,) = await claim(store)
    await settle(store, dead(first), now=NOW + SECOND)
    assert await states(store, jobs) == ["dead", "cancelled", "cancelled"]
    assert (await row_of(store, jobs[2].id)).finished_at == NOW + SECOND
    assert await states(store, others) == ["queued", "blocked"]


async def test_success_lets_the_next_job_of_such_a_chain_go_and_a_replay_revives_none(
    store: Store,
) -> None:
    jobs = await stop_chain(store, new(), new(), new())
    (first,) = await claim(store)
    await settle(store, succeeded(first))
    (second,) = await claim(store)
    await settle(store, dead(second))
    await store.dead_letters.replay(second.id, now=NOW)
    assert await states(store, jobs) == ["succeeded", "queued", "cancelled"]


async def test_lost_and_buried_jobs_cancel_the_rest_of_such_a_chain(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    lost = await stop_chain(store, new(max_attempts=1), new())
    await claim(store)
    rig.kill_worker(WORKER)
    await store.workers.recover(now=NOW + SECOND, thorough=False)
    assert await states(store, lost) == ["dead", "cancelled"]


async def test_rest_of_a_long_chain_is_cancelled_in_slices(rig: Rig) -> None:
    store = rig.store
    jobs = await a_chain(store, *(new() for _ in range(10)))
    with rig.slice(4):
        await store.jobs.cancel(jobs[0].id, now=NOW)
        assert await states(store, jobs) == ["cancelled"] * 5 + ["blocked"] * 5
        written = await store.write(Round(NOW, promote_due=True))
        assert (written.more_due, written.next_due) == (True, 0)
        await quiet(store)
    assert await states(store, jobs) == ["cancelled"] * 10


async def test_cancel_by_filter_reaches_the_end_of_a_long_chain(rig: Rig) -> None:
    store = rig.store
    jobs = await a_chain(store, new(tag="t"), *(new() for _ in range(9)))
    with rig.slice(4):
        done = await store.jobs.cancel_all(Filter(tag="t"), before=None, now=NOW, limit=9)
    assert set(done.cancelled) == {job.id for job in jobs}
    assert not (await store.write(Round(NOW, promote_due=True))).more_due


async def test_stale_outcome_lets_nothing_go(store: Store) -> None:
    jobs, first = await started(store)
    await settle(store, released(first))
    (again,) = await claim(store)
    assert (await settle(store, succeeded(first), dead(first), cancelled(first))).stale
    assert await states(store, jobs) == ["running", "blocked", "blocked"]
    await settle(store, succeeded(first), succeeded(again))
    assert await states(store, jobs) == ["succeeded", "queued", "blocked"]


async def test_ends_of_many_chains_in_one_round_unblock_the_next_of_each(store: Store) -> None:
    chains = [await a_chain(store) for _ in range(12)]
    ends = [(succeeded, dead, cancelled)[n % 3] for n in range(12)]
    running = {job.id: job for job in await claim(store)}
    written = await settle(
        store, *(end(running[jobs[0].id]) for end, jobs in zip(ends, chains, strict=True))
    )
    for end, jobs in zip(ends, chains, strict=True):
        expected = ["cancelled"] * 2 if end is cancelled else ["queued", "blocked"]
        assert await states(store, jobs[1:]) == expected
    assert written.left_queued


# -- cancel and expiry -----------------------------------------------------------------------------


async def test_cancel_of_the_first_cancels_the_rest(store: Store) -> None:
    jobs = await a_chain(store)
    await store.jobs.cancel(jobs[0].id, now=NOW + SECOND)
    for job in jobs:
        row = await row_of(store, job.id)
        assert (row.state, row.finished_at, row.attempt) == ("cancelled", NOW + SECOND, 0)


async def test_cancel_of_a_blocked_job_cancels_those_behind_it_and_no_others(store: Store) -> None:
    jobs = await a_chain(store, *(new() for _ in range(4)))
    others = await a_chain(store)
    before = await store.jobs.cancel(jobs[2].id, now=NOW)
    assert before is not None
    assert before.state == "blocked"
    assert await states(store, jobs) == ["queued", "blocked", "cancelled", "cancelled"]
    assert await states(store, others) == ["queued", "blocked", "blocked"]
    for place in (0, 1):
        (job, *_) = [one for one in await claim(store) if one.id == jobs[place].id]
        await settle(store, succeeded(job))
    assert await states(store, jobs) == ["succeeded", "succeeded", "cancelled", "cancelled"]


@pytest.mark.parametrize("outcome", [cancelled, retry, snoozed, parked, released])
async def test_cancel_of_a_running_job_cancels_the_rest_when_it_obeys(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    jobs, first = await started(store)
    await store.jobs.cancel(first.id, now=NOW)
    assert await states(store, jobs) == ["running", "blocked", "blocked"]
    await settle(store, outcome(first), now=NOW + SECOND)
    assert await states(store, jobs) == ["cancelled"] * 3
    assert (await row_of(store, jobs[2].id)).finished_at == NOW + SECOND


@pytest.mark.parametrize("outcome", [succeeded, dead])
async def test_cancel_of_a_running_job_that_ends_all_the_same_lets_the_next_one_go(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    jobs, first = await started(store)
    await store.jobs.cancel(first.id, now=NOW)
    await settle(store, outcome(first))
    assert await states(store, jobs[1:]) == ["queued", "blocked"]


async def test_cancel_of_a_finished_job_leaves_the_next_one_alone(store: Store) -> None:
    jobs, first = await started(store)
    await settle(store, succeeded(first))
    await store.jobs.cancel(first.id, now=NOW)
    assert await states(store, jobs) == ["succeeded", "queued", "blocked"]


async def test_cancel_of_the_rest_frees_its_keys(store: Store) -> None:
    jobs = await a_chain(store, new(), new(key="k"), new())
    await store.jobs.cancel(jobs[0].id, now=NOW)
    (again,) = await enqueue(store, new(key="k"))
    assert again.created


async def test_cancel_reaches_the_end_of_a_long_chain(store: Store) -> None:
    jobs = await a_chain(store, *(new() for _ in range(2_000)))
    await store.jobs.cancel(jobs[0].id, now=NOW)
    assert await states(store, jobs[:2]) == ["cancelled"] * 2
    await quiet(store)
    for job in (jobs[0], jobs[1], jobs[-1]):
        assert (await row_of(store, job.id)).state == "cancelled"
    assert (await store.jobs.list(Filter(state="blocked"), before=None, limit=1)).rows == []


async def test_expiry_cancels_the_rest(store: Store) -> None:
    jobs = await a_chain(store, new(expires_at=NOW + MINUTE), new(), new())
    other = new(expires_at=NOW + MINUTE)
    await enqueue(store, other)
    await store.write(Round(NOW + HOUR, promote_due=True))
    assert await states(store, jobs) == ["expired", "cancelled", "cancelled"]
    assert (await row_of(store, jobs[2].id)).finished_at == NOW + HOUR


async def test_blocked_job_past_its_time_expires_once_it_is_unblocked_and_never_runs(
    store: Store,
) -> None:
    jobs = await a_chain(store, new(), new(expires_at=NOW + MINUTE), new())
    (first,) = await claim(store)
    written = await store.write(Round(NOW + HOUR, promote_due=True))
    assert (written.next_due, await states(store, jobs[1:])) == (None, ["blocked", "blocked"])
    written = await store.write(Round(NOW + HOUR, outcomes=[succeeded(first)], claim=claim_of()))
    assert (written.claimed, written.next_due) == ([], NOW + MINUTE)
    await store.write(Round(NOW + HOUR, promote_due=True))
    assert await states(store, jobs[1:]) == ["expired", "cancelled"]


# -- ends outside a round ------------------------------------------------------------------------------


async def test_lost_job_without_attempts_left_lets_the_next_one_go(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    jobs = await a_chain(store, new(max_attempts=1), new(), new())
    await claim(store)
    rig.kill_worker(WORKER)
    found = await store.workers.recover(now=NOW + SECOND, thorough=False)
    assert (found.requeued, found.buried) == (0, [jobs[0].id])
    assert await states(store, jobs) == ["dead", "queued", "blocked"]


async def test_lost_job_that_runs_again_keeps_the_next_one_waiting(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    jobs, _ = await started(store)
    rig.kill_worker(WORKER)
    await store.workers.recover(now=NOW + SECOND, thorough=False)
    assert await states(store, jobs) == ["queued", "blocked", "blocked"]


async def asked_then_lost(rig: Rig) -> None:
    rig.kill_worker(WORKER)
    await rig.store.workers.recover(now=NOW + SECOND, thorough=False)


async def asked_then_left(rig: Rig) -> None:
    await rig.store.workers.leave(WORKER, now=NOW + SECOND)


@pytest.mark.parametrize("end", [asked_then_lost, asked_then_left])
async def test_cancel_of_a_running_job_whose_worker_goes_cancels_the_rest(
    rig: Rig, end: Callable[[Rig], Awaitable[None]]
) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    jobs, first = await started(store)
    others = await a_chain(store)
    await claim(store)
    await store.jobs.cancel(first.id, now=NOW)
    await end(rig)
    assert await states(store, jobs) == ["cancelled"] * 3
    assert await states(store, others) == ["queued", "blocked", "blocked"]


async def test_job_that_nobody_knows_and_is_buried_lets_the_next_one_go(store: Store) -> None:
    jobs = await a_chain(store, new("unknown"), new("work"), new("work"))
    buried = await store.dead_letters.bury_waiting(
        "default",
        "unknown",
        due_before=NOW + DAY,
        reason="unknown_task",
        error="nobody knows it",
        now=NOW + DAY,
        limit=10,
    )
    assert buried == [jobs[0].id]
    assert await states(store, jobs) == ["dead", "queued", "blocked"]


# -- dead letters, retention ---------------------------------------------------------------------------


async def test_dead_letter_keeps_its_place_in_the_chain(store: Store) -> None:
    jobs, first = await started(store)
    await settle(store, dead(first))
    (second,) = await claim(store)
    await settle(store, dead(second))
    row = await row_of(store, second.id)
    assert (row.chain, row.after) == (jobs[0].id, jobs[0].id)


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
async def test_replay_of_a_dead_letter_does_not_touch_its_followers(
    store: Store, kind: str
) -> None:
    jobs = await a_chain(store, *(new() for _ in range(4)))
    (first,) = await claim(store)
    await settle(store, dead(first))
    (second,) = await claim(store)
    made = await store.dead_letters.replay(first.id, now=NOW)
    assert (made.chain, made.after) == (jobs[0].id, None)
    (again,) = await claim(store)
    assert again.id == first.id
    await settle(store, OUTCOMES[kind](again))
    assert await states(store, jobs[1:]) == ["running", "blocked", "blocked"]
    row = await row_of(store, first.id)
    assert (row.chain, row.after) == (jobs[0].id, None)
    await store.jobs.cancel(first.id, now=NOW)
    assert await states(store, jobs[1:]) == ["running", "blocked", "blocked"]
    await settle(store, succeeded(second))
    assert await states(store, jobs[1:]) == ["succeeded", "queued", "blocked"]


async def test_replay_with_other_arguments_keeps_the_place_that_it_is_given(store: Store) -> None:
    jobs, first = await started(store)
    await settle(store, succeeded(first))
    (second,) = await claim(store)
    await settle(store, dead(second))
    edited = new(replay_of=second.id)._replace(chain=jobs[0].id, after=first.id)
    made = await store.dead_letters.replay_edited(second.id, edited)
    assert (made.state, made.chain, made.after) == ("queued", jobs[0].id, first.id)
    row = await row_of(store, edited.id)
    assert (row.state, row.chain, row.after) == ("queued", jobs[0].id, first.id)


async def prune(store: Store) -> int:
    return await store.jobs.prune(
        finished_before=NOW + DAY,
        by_task={"work": NOW + DAY},
        died_before=NOW + DAY,
        keep_finished=0,
        limit=100,
    )


async def test_prune_never_deletes_what_is_blocked_and_takes_the_ends_before_it(
    store: Store,
) -> None:
    jobs, first = await started(store)
    assert await prune(store) == 0
    await settle(store, succeeded(first))
    assert await prune(store) == 1
    assert await states(store, jobs[1:]) == ["queued", "blocked"]
    (second,) = await claim(store)
    await settle(store, Succeeded(second, succeeded(second).ended, None))
    assert await states(store, jobs[2:]) == ["queued"]


async def test_blocked_jobs_are_listed_by_their_state(store: Store) -> None:
    one, two, three = await a_chain(store)
    page = await store.jobs.list(Filter(state="blocked"), before=None, limit=10)
    assert [row.id for row in page.rows] == [three.id, two.id]
    assert await store.jobs.waiting_tasks() == [("default", "work", NOW)]
    assert one.state == "queued"


async def test_chain_that_was_stored_is_found_after_opening_again(rig: Rig) -> None:
    jobs = await a_chain(rig.store)
    before: list[JobRow] = [await row_of(rig.store, job.id) for job in jobs]
    await rig.close()
    await rig.open()
    assert [await row_of(rig.store, job.id) for job in jobs] == before
    (first,) = await claim(rig.store)
    await settle(rig.store, succeeded(first))
    assert await states(rig.store, jobs) == ["succeeded", "queued", "blocked"]


async def test_end_of_a_job_lets_go_no_other_chain(store: Store) -> None:
    _, first = await started(store)
    others = await a_chain(store, new(queue="side"), new(queue="side"))
    await settle(store, succeeded(first))
    assert await states(store, others) == ["queued", "blocked"]


async def test_next_job_of_a_chain_goes_on_though_the_success_after_its_head_is_refused(
    store: Store,
) -> None:
    jobs = await a_chain(store)
    (stored, *_) = await enqueue(store, new(queue="other"), new(queue="other"))
    head, (first, second) = await claim(store), await claim(store, "other")
    (head_one,) = head
    successes = [
        succeeded(first)._replace(enqueues=[new("later")]),
        succeeded(head_one)._replace(enqueues=[new("later")]),
        succeeded(second)._replace(enqueues=[new("later", id=stored.id)]),
    ]
    written = await settle(store, *successes)
    assert [success.job.id for success, _ in written.refused] == [second.id]
    assert await states(store, jobs) == ["succeeded", "queued", "blocked"]
    assert (await row_of(store, second.id)).state == "running"
    assert len(await claim(store, tasks=["later"])) == 2
