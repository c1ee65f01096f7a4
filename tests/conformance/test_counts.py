"""Counts by state, the jobs that wait for another attempt, and the jobs of a chain."""

import pytest

from jobrunner.core.model import Filter, chained
from jobrunner.store.protocol import Store
from tests.support.factories import (
    HOUR,
    NOW,
    STARTS,
    STATE_OF,
    Start,
    bring,
    claim,
    dead,
    enqueue,
    new,
    retry,
    row_of,
    settle,
)


@pytest.mark.parametrize("start", STARTS)
async def test_counts_find_a_job_in_its_state_alone(store: Store, start: Start) -> None:
    specimen = await bring(store, start)
    expected = dict.fromkeys(
        (
            "scheduled",
            "retrying",
            "queued",
            "running",
            "blocked",
            "succeeded",
            "cancelled",
            "expired",
        ),
        0,
    )
    if start == "blocked":
        expected["scheduled"] = 1  # the job that it waits for
    if specimen.row.state != "dead":
        expected[STATE_OF[start]] += 1
    expected["retrying"] = int(start == "scheduled again")
    assert await store.jobs.counts(cap=100) == expected


async def test_counts_stop_at_the_cap(store: Store) -> None:
    await enqueue(store, *(new() for _ in range(5)))
    assert (await store.jobs.counts(cap=3))["queued"] == 3


async def test_list_of_retrying_jobs_leaves_out_those_that_have_never_run(store: Store) -> None:
    again = await bring(store, "scheduled again")
    await enqueue(store, new(run_at=NOW + HOUR), new())
    page = await store.jobs.list(Filter(retrying=True), before=None, limit=10)
    assert [row.id for row in page.rows] == [again.row.id]
    other_queue = await store.jobs.list(Filter(retrying=True, queue="x"), before=None, limit=10)
    assert other_queue.rows == []


async def test_chain_returns_its_jobs_in_order_dead_ones_too(store: Store) -> None:
    jobs = chained([new(args='{"n": 1}'), new(), new()])
    await enqueue(store, new(), *jobs, *chained([new(), new()]), new())
    claimed = await claim(store)
    (first,) = (one for one in claimed if one.id == jobs[0].id)
    await settle(store, dead(first))
    for job in jobs:
        found = await store.jobs.chain(await row_of(store, job.id))
        assert found[0].state == "dead"
        assert [(row.id, row.args) for row in found] == [(job.id, "") for job in jobs]


async def test_chain_of_a_job_without_one_is_empty(store: Store) -> None:
    job = new()
    await enqueue(store, job)
    (claimed,) = await claim(store)
    await settle(store, retry(claimed, NOW + HOUR))
    assert await store.jobs.chain(await row_of(store, job.id)) == []
