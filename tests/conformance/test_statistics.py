"""Statistics: what rounds add is there by minute and by hour, by queue and by task, once each."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from jobrunner.core.histogram import Histogram
from jobrunner.core.model import Enqueue
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from jobrunner.store.statistics import By, Per, StatisticsRow
from tests.conformance.conftest import StartPeer
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    WORKER,
    claim_one,
    enqueue,
    new,
    row_of,
    succeeded,
    worker_row,
)

AT = NOW - NOW % HOUR
"""The beginning of an hour."""
DAY = 24 * HOUR


def row(
    start: int = AT,
    task: str = "work",
    *,
    queue: str = "default",
    succeeded: int = 1,
    failed: int = 0,
    dead: int = 0,
    wait: Sequence[int] = (1_000,),
    run: Sequence[int] = (50_000,),
) -> StatisticsRow:
    """Return the row of a minute: by default one success of task ``work``."""
    return StatisticsRow(
        start, queue, task, succeeded, failed, dead, Histogram(wait), Histogram(run)
    )


async def add(store: Store, *rows: StatisticsRow) -> None:
    await store.write(Round(NOW, statistics=rows))


async def read(
    store: Store,
    *,
    per: Per = "minute",
    since: int = AT - DAY,
    until: int = AT + DAY,
    by: By = "time",
    **of: Any,
) -> Sequence[StatisticsRow]:
    return await store.statistics.read(per=per, since=since, until=until, by=by, **of)


async def roll_up(store: Store, *, before: int = AT + DAY) -> int:
    """Roll up what there is; return the number of minutes."""
    number = 0
    while await store.statistics.roll_up(before=before):
        number += 1
    return number


def numbers(rows: Sequence[StatisticsRow]) -> list[tuple[int, int, int]]:
    return [(one.succeeded, one.failed, one.dead) for one in rows]


# -- adding ----------------------------------------------------------------------------------------


async def test_what_a_round_adds_is_read_again(store: Store) -> None:
    added = row(succeeded=3, failed=2, dead=1, wait=[0, 7, 3_000, 3_000, 9 * HOUR], run=[5] * 5)
    await add(store, added)
    assert await read(store) == [added._replace(queue="", task="")]
    assert await read(store, queue="default", task="work") == [added]


async def test_rounds_add_to_what_is_there(store: Store) -> None:
    await add(store, row(wait=[10]))
    await add(store, row(wait=[1_000_000]), row(task="other", failed=2, wait=[10, 10, 10]))
    assert await read(store) == [
        row(
            queue="",
            task="",
            succeeded=3,
            failed=2,
            wait=[10, 10, 10, 10, 1_000_000],
            run=[50_000] * 3,
        )
    ]


async def test_rows_of_one_round_with_the_same_key_add_up(store: Store) -> None:
    await add(store, row(), row())
    assert numbers(await read(store, task="work")) == [(2, 0, 0)]


async def test_refused_round_adds_nothing(store: Store) -> None:
    """An outcome that the fence refuses makes the round run again row by row: once is added all the same."""
    job = await claim_one(store)
    stale = succeeded(job._replace(lease=job.lease + 1))
    written = await store.write(Round(NOW, outcomes=[stale], statistics=[row()]))
    assert written.stale == [stale]
    assert numbers(await read(store)) == [(1, 0, 0)]


async def test_two_processes_add_to_the_same_minute(store: Store, peer: StartPeer) -> None:
    other = peer().opened()
    for _ in range(20):
        other.begin("write", Round(NOW, statistics=[row(wait=[5]), row(task="other")]))
    for _ in range(20):
        await add(store, row(wait=[80]))
        # Both at once: the answer is awaited only afterwards.
    for _ in range(20):
        await asyncio.to_thread(other.answer)
    (both,) = await read(store, task="work")
    assert both == row(queue="", succeeded=40, wait=[5] * 20 + [80] * 20, run=[50_000] * 40)
    assert numbers(await read(store)) == [(60, 0, 0)]


# -- dead letters that no attempt made ---------------------------------------------------------------


async def test_jobs_that_die_with_their_process_count_as_dead(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(tasks={"work": 1}), lambda: None)
    await claim_one(store, new(queue="mail"))
    rig.kill_worker(WORKER)
    assert len((await store.workers.recover(now=NOW, thorough=False)).buried) == 1
    found = await read(store, queue="mail", task="work")
    assert found == [row(NOW - NOW % MINUTE, queue="mail", succeeded=0, dead=1, wait=[], run=[])]


async def test_jobs_that_run_again_after_their_process_died_do_not_count(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(tasks={"work": 5}), lambda: None)
    job = await claim_one(store)
    rig.kill_worker(WORKER)
    await store.workers.recover(now=NOW, thorough=False)
    assert (await row_of(store, job.id)).state == "queued"
    assert await read(store) == []


async def test_buried_jobs_of_unknown_tasks_count_as_dead(store: Store) -> None:
    jobs: list[Enqueue] = [new("unknown") for _ in range(3)]
    await enqueue(store, *jobs)
    buried = await store.dead_letters.bury_waiting(
        "default",
        "unknown",
        due_before=NOW + 1,
        reason="unknown_task",
        error="?",
        now=NOW,
        limit=10,
    )
    assert len(buried) == 3
    assert numbers(await read(store, task="unknown")) == [(0, 0, 3)]


# -- reading ---------------------------------------------------------------------------------------


async def some(store: Store) -> None:
    """Add rows of two queues and two tasks in two minutes."""
    await add(
        store,
        row(AT, "a", queue="x", succeeded=1),
        row(AT, "b", queue="x", succeeded=10),
        row(AT, "a", queue="y", succeeded=100),
        row(AT + MINUTE, "a", queue="x", succeeded=1_000),
        row(AT + 2 * HOUR, "b", queue="y", succeeded=10_000),
    )


@pytest.mark.parametrize(
    ("by", "of", "expected"),
    [
        ("time", {}, [(AT, "", "", 111), (AT + MINUTE, "", "", 1_000)]),
        ("time", {"queue": "x"}, [(AT, "x", "", 11), (AT + MINUTE, "x", "", 1_000)]),
        ("time", {"task": "a"}, [(AT, "", "a", 101), (AT + MINUTE, "", "a", 1_000)]),
        ("time", {"queue": "y", "task": "a"}, [(AT, "y", "a", 100)]),
        ("queue", {}, [(AT, "x", "", 1_011), (AT, "y", "", 100)]),
        ("queue", {"task": "b"}, [(AT, "x", "b", 10)]),
        ("queue", {"queue": "y"}, [(AT, "y", "", 100)]),
        ("queue", {"queue": "x", "task": "a"}, [(AT, "x", "a", 1_001)]),
        ("task", {}, [(AT, "", "a", 1_101), (AT, "", "b", 10)]),
        ("task", {"queue": "x"}, [(AT, "x", "a", 1_001), (AT, "x", "b", 10)]),
        ("task", {"task": "a"}, [(AT, "", "a", 1_101)]),
        ("time", {"task": "z"}, []),
    ],
)
@pytest.mark.parametrize("rolled_up", [False, True])
async def test_read_sums_by_time_queue_or_task(
    store: Store, by: By, of: dict[str, Any], expected: list[Any], rolled_up: bool
) -> None:
    await some(store)
    if rolled_up:
        assert await roll_up(store) == 3
    found = await read(store, since=AT, until=AT + HOUR, by=by, **of)
    assert [(*one.key, one.succeeded) for one in found] == expected
    for one in found:
        assert one.wait.total == one.run.total > 0


@pytest.mark.parametrize("before", [AT, AT + MINUTE, AT + 2 * MINUTE, AT + DAY])
async def test_hours_are_the_sums_of_their_minutes_rolled_up_or_not(
    store: Store, before: int
) -> None:
    await some(store)
    await roll_up(store, before=before)
    found = await read(store, per="hour")
    assert [(one.start, one.succeeded) for one in found] == [(AT, 1_111), (AT + 2 * HOUR, 10_000)]
    assert found[0].run == Histogram([50_000] * 4)
    by_task = await read(store, per="hour", by="task", queue="x")
    assert [(one.task, one.succeeded) for one in by_task] == [("a", 1_001), ("b", 10)]


async def test_window_begins_at_since_and_ends_before_until(store: Store) -> None:
    for minute in range(4):
        await add(store, row(AT + minute * MINUTE))
    found = await read(store, since=AT + MINUTE, until=AT + 3 * MINUTE)
    assert [one.start for one in found] == [AT + MINUTE, AT + 2 * MINUTE]
    for hour in (1, 2):
        await add(store, row(AT + hour * HOUR))
    found = await read(store, per="hour", since=AT + HOUR, until=AT + 2 * HOUR)
    assert [one.start for one in found] == [AT + HOUR]


# -- hours -----------------------------------------------------------------------------------------


async def test_each_minute_is_rolled_up_once_whoever_does_it(store: Store, peer: StartPeer) -> None:
    for minute in range(30):
        await add(store, row(AT + minute * MINUTE))
    other = peer().opened()
    for _ in range(30):
        other.begin("statistics.roll_up", before=AT + 30 * MINUTE)
    mine = await roll_up(store, before=AT + 30 * MINUTE)
    theirs = sum([await asyncio.to_thread(other.answer) for _ in range(30)])
    assert mine + theirs == 30
    assert not await store.statistics.roll_up(before=AT + 30 * MINUTE)
    await store.statistics.prune(minutes_before=AT + DAY, hours_before=0, limit=1_000)
    assert numbers(await read(store)) == []
    assert numbers(await read(store, per="hour")) == [(30, 0, 0)]


async def test_minute_that_is_not_over_is_not_rolled_up(store: Store) -> None:
    await add(store, row(AT), row(AT + MINUTE))
    assert await roll_up(store, before=AT + MINUTE) == 1
    assert await roll_up(store, before=AT + MINUTE) == 0


async def test_what_is_added_to_a_rolled_up_minute_is_in_its_hour_too(store: Store) -> None:
    """A process whose rounds failed adds late, and so does one whose clock was set back."""
    await add(store, row(AT + 5 * MINUTE))
    await roll_up(store)
    await add(store, row(AT + 5 * MINUTE), row(AT + MINUTE), row(AT + 2 * HOUR))
    assert await roll_up(store) == 1
    assert numbers(await read(store, per="hour")) == [(3, 0, 0), (1, 0, 0)]
    assert numbers(await read(store)) == [(1, 0, 0), (2, 0, 0), (1, 0, 0)]


# -- retention -------------------------------------------------------------------------------------


async def test_prune_deletes_minutes_and_hours_of_their_own_ages(store: Store) -> None:
    await some(store)
    await roll_up(store)
    prune = store.statistics.prune
    assert await prune(minutes_before=AT + MINUTE, hours_before=AT, limit=100) > 0
    assert [one.start for one in await read(store)] == [AT + MINUTE, AT + 2 * HOUR]
    assert [one.start for one in await read(store, per="hour")] == [AT, AT + 2 * HOUR]
    assert await prune(minutes_before=AT + MINUTE, hours_before=AT + HOUR, limit=100) > 0
    assert [one.start for one in await read(store, per="hour")] == [AT + 2 * HOUR]
    assert await prune(minutes_before=AT + MINUTE, hours_before=AT + HOUR, limit=100) == 0


async def test_prune_goes_slice_by_slice(store: Store) -> None:
    for minute in range(10):
        await add(store, row(AT + minute * MINUTE))
    await roll_up(store)
    slices: list[int] = []
    while not slices or slices[-1]:
        slices.append(
            await store.statistics.prune(minutes_before=AT + DAY, hours_before=AT + DAY, limit=7)
        )
    assert max(slices) == 7
    assert await read(store) == await read(store, per="hour") == []


async def test_minute_that_was_not_rolled_up_is_not_pruned(store: Store) -> None:
    await add(store, row(AT), row(AT + MINUTE))
    await roll_up(store, before=AT + MINUTE)
    await store.statistics.prune(minutes_before=AT + DAY, hours_before=0, limit=100)
    assert [one.start for one in await read(store)] == [AT + MINUTE]
    assert numbers(await read(store, per="hour")) == [(2, 0, 0)]


# -- workers ---------------------------------------------------------------------------------------


async def test_revision_of_a_worker_is_known(store: Store) -> None:
    await store.workers.join(worker_row()._replace(revision=7), lambda: None)
    await store.workers.join(worker_row(OTHER_WORKER), lambda: None)
    assert {one.worker: one.revision for one in await store.workers.list()} == {
        WORKER: 7,
        OTHER_WORKER: None,
    }
    for worker in (WORKER, OTHER_WORKER):
        await store.workers.leave(worker, now=NOW)
