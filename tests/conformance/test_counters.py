"""``StatisticsStore.measure``: counters that only grow, and the present state."""

from collections.abc import Mapping

import pytest

from jobrunner.core.errors import StoreUnavailable
from jobrunner.core.histogram import Histogram
from jobrunner.core.model import Filter, chained
from jobrunner.store.measurements import BatchCounts
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from jobrunner.store.statistics import StatisticsRow
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DUE,
    MINUTE,
    NOW,
    SECOND,
    WORKER,
    cancelled,
    claim,
    dead,
    enqueue,
    new,
    parked,
    quiet,
    released,
    retry,
    settle,
    snoozed,
    succeeded,
    worker_row,
)
from tests.support.workflows import a_batch, claim_all


def counted(store: Store) -> Mapping[str, int]:
    """Return the counters of the task ``work`` in the queue ``default``, by name."""
    found = store.statistics.measure().counters
    return {
        name: number
        for (name, queue, task), number in found.items()
        if (queue, task) == ("default", "work")
    }


async def test_outcomes_count_with_the_round_that_stores_them(store: Store) -> None:
    await enqueue(store, *(new() for _ in range(6)))
    one, two, three, four, five, six = await claim(store, now=DUE)
    await settle(
        store,
        *(retry(one), dead(two), snoozed(three), released(four), cancelled(five), succeeded(six)),
    )
    assert counted(store) == {
        "attempts:failed": 2,
        "retried": 1,
        "dead:exhausted": 1,
        "attempts:snoozed": 1,
        "attempts:released": 1,
        "attempts:cancelled": 1,
        "jobs:cancelled": 1,
    }


@pytest.mark.parametrize("more", [1, 1 << 62, (1 << 63) - 1, 1 << 70])
async def test_counter_of_64_bits_begins_again(store: Store, more: int) -> None:
    most, nothing = (1 << 63) - 1, Histogram()
    for number in (most, more):
        row = StatisticsRow(MINUTE, "default", "work", 0, 0, 0, nothing, nothing, {"wait": number})
        await store.write(Round(NOW, statistics=[row]))
    assert counted(store) == {"wait": min(more, most)}


async def test_outcome_that_the_fence_refuses_counts_nowhere(store: Store) -> None:
    await enqueue(store, new(), new())
    one, two = await claim(store, now=DUE)
    await settle(store, dead(one))
    await settle(store, dead(one), retry(two))
    assert counted(store) == {"attempts:failed": 2, "dead:exhausted": 1, "retried": 1}


async def test_retry_of_a_job_that_was_asked_to_stop_counts_as_cancelled(store: Store) -> None:
    await enqueue(store, new())
    (job,) = await claim(store, now=DUE)
    await store.jobs.cancel(job.id, now=DUE)
    await settle(store, retry(job))
    assert counted(store) == {"attempts:failed": 1, "jobs:cancelled": 1}


async def test_waiting_jobs_that_are_cancelled_count_with_those_behind_them(store: Store) -> None:
    first, *_ = await enqueue(store, *chained([new(), new(), new()]))
    await store.jobs.cancel(first.id, now=NOW)
    assert counted(store) == {"jobs:cancelled": 3}
    await enqueue(store, new(), new())
    await store.jobs.cancel_all(Filter(task="work"), now=NOW, before=None, limit=10)
    assert counted(store) == {"jobs:cancelled": 5}


async def test_expired_jobs_count(store: Store) -> None:
    await enqueue(store, new(expires_at=NOW + SECOND), new())
    await store.write(Round(NOW + MINUTE, promote_due=True))
    assert counted(store) == {"jobs:expired": 1}


async def test_jobs_that_no_worker_knows_count_as_dead(store: Store) -> None:
    await enqueue(store, new())
    await store.dead_letters.bury_waiting(
        *("default", "work"),
        due_before=DUE + MINUTE,
        reason="unknown_task",
        error="none",
        now=DUE + MINUTE,
        limit=9,
    )
    assert counted(store) == {"dead:unknown_task": 1}


async def test_statistics_are_added_to_counters_with_their_sums_and_buckets(store: Store) -> None:
    def row(start: int) -> StatisticsRow:
        waits, runs = Histogram([3, 900]), Histogram([1 << 20, (1 << 20) - 1])
        counts = {"wait": 903, "run": (1 << 21) - 1}
        return StatisticsRow(start, "default", "work", 2, 0, 0, waits, runs, counts)

    await store.write(Round(NOW, statistics=[row(0)]))
    await store.write(Round(NOW, statistics=[row(MINUTE)]))
    assert counted(store) == {
        "attempts:succeeded": 4,
        "wait": 1806,
        "wait:2": 2,  # below 4 µs
        "wait:10": 2,  # below 1,024 µs
        "run": 2 * ((1 << 21) - 1),
        "run:20": 2,  # below 2^20 µs
        "run:21": 2,
    }


async def test_counters_of_the_workers_are_no_statistics(store: Store) -> None:
    nothing = Histogram()
    row = StatisticsRow(0, "", "", 0, 0, 0, nothing, nothing, {"lag": 7, "lag:3": 1})
    await store.write(Round(NOW, statistics=[row]))
    found = store.statistics.measure().counters
    assert found == {("lag", "", ""): 7, ("lag:3", "", ""): 1}
    assert await store.statistics.read(per="minute", since=0, until=MINUTE, by="time") == []


async def test_counters_stay_when_statistics_are_pruned(store: Store) -> None:
    row = StatisticsRow(0, "default", "work", 1, 0, 0, Histogram(), Histogram())
    await store.write(Round(NOW, statistics=[row]))
    while await store.statistics.roll_up(before=NOW):
        pass
    while await store.statistics.prune(minutes_before=NOW, hours_before=NOW, limit=100):
        pass
    assert counted(store) == {"attempts:succeeded": 1}


async def test_the_counter_that_came_first_is_first(store: Store) -> None:
    for task in ("b", "a", "b"):
        row = StatisticsRow(0, "default", task, 1, 0, 0, Histogram(), Histogram())
        await store.write(Round(NOW, statistics=[row]))
    assert [task for _, _, task in store.statistics.measure().counters] == ["b", "a"]


async def test_measurements_have_the_queues_and_the_sizes(store: Store) -> None:
    await enqueue(store, new(), new(run_at=DUE + MINUTE))
    found = store.statistics.measure()
    assert found.queues == await store.jobs.queues()
    assert found.workers == await store.workers.list()
    assert found.file_bytes > 0
    assert found.last_ticks == {}


async def test_measurements_of_a_closed_store_raise(store: Store) -> None:
    store.statistics.measure()
    await store.close()
    with pytest.raises(StoreUnavailable):
        store.statistics.measure()


async def test_recovery_counts_the_worker_its_attempts_and_the_jobs_it_buries(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    await enqueue(store, new(max_attempts=1), new())
    await claim(store, now=DUE)
    rig.kill_worker(WORKER)
    await store.workers.recover(now=DUE, thorough=True)
    assert counted(store) == {"attempts:lost": 2, "dead:lost": 1}
    assert store.statistics.measure().counters["workers:dead", "", ""] == 1


# -- batches and waits ------------------------------------------------------------------------------------------


def batches_counted(store: Store) -> tuple[Mapping[str, int], BatchCounts]:
    """Return the ended batches by counter, and the unfinished ones."""
    found = store.statistics.measure()
    counters = {name: number for (name, *_), number in found.counters.items()}
    ended = {name: number for name, number in counters.items() if name.startswith("batches:")}
    return ended, found.batches


async def test_batches_count_with_the_commit_that_ends_them_and_again_after_a_replay(
    store: Store,
) -> None:
    good, bad = new(), new()
    await a_batch(store, good)
    await a_batch(store, bad)
    assert batches_counted(store) == ({}, BatchCounts(running=2, cancelling=0))
    claimed = await claim_all(store)
    await settle(store, succeeded(claimed[good.id]), dead(claimed[bad.id]))
    ended = {"batches:succeeded": 1, "batches:failed": 1}
    assert batches_counted(store) == (ended, BatchCounts(0, 0))
    await store.dead_letters.replay(bad.id, now=NOW)
    assert batches_counted(store) == (ended, BatchCounts(1, 0))
    await settle(store, succeeded((await claim_all(store))[bad.id]))
    assert batches_counted(store) == (
        {"batches:succeeded": 2, "batches:failed": 1},
        BatchCounts(0, 0),
    )


async def test_cancelled_batch_is_cancelling_until_its_last_member_has_stopped(
    store: Store,
) -> None:
    runs = new()
    made = await a_batch(store, runs, new())
    running = await claim(store, now=DUE, slots=1)
    await store.workflows.cancel(made.id, now=NOW)
    await quiet(store)
    assert batches_counted(store) == ({}, BatchCounts(running=0, cancelling=1))
    await settle(store, *(cancelled(job) for job in running))
    assert batches_counted(store) == ({"batches:cancelled": 1}, BatchCounts(0, 0))


async def test_parks_count_and_those_that_the_fence_refuses_do_not(store: Store) -> None:
    await enqueue(store, new(), new())
    one, two = await claim(store, now=DUE)
    await settle(store, parked(one, "approved"))
    # The group falls back to rows: nothing counts twice.
    await settle(store, parked(two, "approved"), parked(one, "approved"))
    assert counted(store) == {"parked": 2}
