"""Workers join, beat, leave, and wake each other."""

import asyncio

from jobrunner.core.model import AttemptRow
from jobrunner.store.protocol import Recovered, Store, WorkerStart
from jobrunner.store.round import Round
from tests.conformance.conftest import StartPeer
from tests.conformance.rigs import Rig
from tests.support.factories import (
    MINUTE,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim,
    claim_of,
    claim_one,
    enqueue,
    ignore,
    new,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)

# -- joining and leaving --------------------------------------------------------------------------


async def test_join_makes_the_worker_known(store: Store) -> None:
    row = worker_row(tasks={"b": 5, "a": None}, queues={"mail": 3, "default": 7})
    await store.workers.join(row, ignore)
    (found,) = await store.workers.list()
    assert found._replace(doorbell=None) == row


async def test_workers_are_those_that_have_neither_left_nor_died(rig: Rig) -> None:
    store = rig.store
    for n in range(3):
        await store.workers.join(worker_row(WORKER + n), ignore)
    await store.workers.leave(WORKER, now=NOW)
    rig.kill_worker(WORKER + 1)
    await store.workers.recover(now=NOW, thorough=False)
    assert [row.worker for row in await store.workers.list()] == [WORKER + 2]


async def test_beat_is_seen_by_all(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    assert await store.workers.beat(WORKER, now=NOW + SECOND) is False
    (row,) = await store.workers.list()
    assert (row.started_at, row.beat_at) == (NOW, NOW + SECOND)


async def test_lag_is_that_of_the_last_beat_that_had_one(store: Store) -> None:
    for worker in (WORKER, OTHER_WORKER):
        await store.workers.join(worker_row(worker), ignore)
    assert await store.workers.lags() == {}
    await store.workers.beat(WORKER, now=NOW, lag=2_000)
    await store.workers.beat(WORKER, now=NOW + SECOND, lag=700)
    await store.workers.beat(WORKER, now=NOW + SECOND)
    await store.workers.beat(OTHER_WORKER, now=NOW + SECOND, lag=0)
    assert await store.workers.lags() == {WORKER: 700, OTHER_WORKER: 0}


async def test_lag_of_a_worker_goes_with_it(rig: Rig) -> None:
    store = rig.store
    for worker in (WORKER, OTHER_WORKER):
        await store.workers.join(worker_row(worker), ignore)
        await store.workers.beat(worker, now=NOW, lag=2_000)
    await store.workers.leave(WORKER, now=NOW)
    assert await store.workers.lags() == {OTHER_WORKER: 2_000}
    rig.kill_worker(OTHER_WORKER)
    await store.workers.recover(now=NOW, thorough=False)
    assert await store.workers.lags() == {}
    # Nor does a beat that comes too late.
    await store.workers.beat(WORKER, now=NOW, lag=2_000)
    assert await store.workers.lags() == {}


async def test_beat_of_a_worker_that_has_left_or_was_found_dead_stores_nothing(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), ignore)
    await store.workers.join(worker_row(OTHER_WORKER), ignore)
    await store.workers.leave(WORKER, now=NOW)
    rig.kill_worker(OTHER_WORKER)
    await store.workers.recover(now=NOW, thorough=False)
    for worker in (WORKER, OTHER_WORKER):
        assert await store.workers.beat(worker, now=NOW + SECOND) is False
    assert await store.workers.list() == []


async def test_leave_gives_back_what_it_held_without_costing_an_attempt(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    await store.workers.join(worker_row(OTHER_WORKER), ignore)
    theirs = await claim_one(store, worker=OTHER_WORKER)
    job = await claim_one(store, new(key="key"))
    await settle(store, retry(job))
    (job,) = await claim(store)
    assert job.attempt == 2
    await store.workers.leave(WORKER, now=NOW + SECOND)

    row = await row_of(store, job.id)
    assert (row.state, row.attempt, row.run_at, row.crashes) == ("queued", 1, NOW, 0)
    assert (await store.jobs.attempts(job.seq))[-1] == AttemptRow(
        2, 2, WORKER, NOW, NOW + SECOND, "released", None, None, None
    )
    assert (await row_of(store, theirs.id)).state == "running"
    assert [one.worker for one in await store.workers.list()] == [OTHER_WORKER]
    (again,) = await claim(store, worker=OTHER_WORKER)
    assert (again.attempt, again.lease, bool(again.suspect)) == (2, 3, False)


async def test_starts_are_kept_after_a_worker_has_left_the_last_of_each_minute(
    store: Store,
) -> None:
    assert await store.workers.starts() == []
    begin = NOW // MINUTE * MINUTE
    ages = [0, 1, MINUTE, *range(2 * MINUTE, 125 * MINUTE, MINUTE)]
    for number, age in enumerate(ages):
        row = worker_row(WORKER + number)._replace(started_at=begin + age, revision=number)
        await store.workers.join(row, ignore)
        await store.workers.leave(WORKER + number, now=begin + age)
    assert await store.workers.list() == []
    found = await store.workers.starts()
    assert [one.at for one in found] == [begin + age for age in ages[-120:]]
    assert found[-1].revision == len(ages) - 1


async def test_starts_of_one_minute_are_the_last(store: Store) -> None:
    begin = NOW // MINUTE * MINUTE
    for number in range(3):
        row = worker_row(WORKER + number)._replace(started_at=begin + number, revision=number)
        await store.workers.join(row, ignore)
    assert await store.workers.starts() == [WorkerStart(begin + 2, 2)]


async def test_busy_counts_the_running_jobs_of_each_worker_that_has_any(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    await store.workers.join(worker_row(OTHER_WORKER), ignore)
    assert await store.workers.busy() == {}
    first = await claim_one(store)
    await claim_one(store)
    await claim_one(store, worker=OTHER_WORKER)
    await enqueue(store)
    assert await store.workers.busy() == {WORKER: 2, OTHER_WORKER: 1}
    await settle(store, succeeded(first))
    await store.workers.leave(OTHER_WORKER, now=NOW)
    assert await store.workers.busy() == {WORKER: 1}


async def test_leave_obeys_a_cancel_that_was_asked_for(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    job = await claim_one(store)
    await store.jobs.cancel(job.id, now=NOW)
    await store.workers.leave(WORKER, now=NOW + SECOND)
    row = await row_of(store, job.id)
    assert (row.state, row.finished_at) == ("cancelled", NOW + SECOND)
    assert [one.outcome for one in await store.jobs.attempts(job.seq)] == ["released"]


async def test_leave_of_a_worker_that_holds_nothing_or_never_joined_does_nothing(
    store: Store,
) -> None:
    await store.workers.leave(WORKER, now=NOW)
    await store.workers.join(worker_row(), ignore)
    await store.workers.leave(WORKER, now=NOW)
    await store.workers.leave(WORKER, now=NOW)
    assert await store.workers.list() == []


async def test_close_twice_gives_up_what_join_took(rig: Rig, peer: StartPeer) -> None:
    await rig.store.workers.join(worker_row(), ignore)
    job = await claim_one(rig.store)
    await rig.close()
    await rig.store.close()
    found = peer().opened().call("workers.recover", now=NOW, thorough=False)
    assert found == Recovered([WORKER], 1, [])
    await rig.open()
    assert (await row_of(rig.store, job.id)).state == "queued"


# -- between processes -------------------------------------------------------------------------------


async def test_claim_by_two_processes_at_once_gives_each_job_to_one(
    store: Store, peer: StartPeer
) -> None:
    jobs = [new() for _ in range(200)]
    await enqueue(store, *jobs)
    other = peer().opened()
    other.call("join", worker_row(OTHER_WORKER))
    taken: list[str] = []
    while True:
        wanted = claim_of(worker=OTHER_WORKER, slots=7)
        other.begin("write", Round(NOW, claim=wanted))
        mine = await claim(store, slots=7)
        theirs = other.answer().claimed
        taken += [job.id for job in (*mine, *theirs)]
        if not mine and not theirs:
            break
    assert sorted(taken) == sorted(job.id for job in jobs)


async def test_ring_wakes_the_workers_that_the_last_look_showed(
    store: Store, peer: StartPeer
) -> None:
    other = peer().opened()
    other.call("join", worker_row(OTHER_WORKER))
    other.begin("hear")
    await store.workers.list()
    store.workers.notify()
    # In a thread: a store may send from the loop.
    assert await asyncio.to_thread(other.answer) is True


async def test_B12_ring_where_nobody_lives_any_more_does_nothing(
    store: Store, peer: StartPeer
) -> None:
    store.workers.notify()
    other = peer().opened()
    other.call("join", worker_row(OTHER_WORKER))
    await store.workers.list()
    other.kill()
    for _ in range(20):
        store.workers.notify()
