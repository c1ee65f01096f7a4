"""Recovery of the jobs of workers whose process has died."""

import os
from collections.abc import Mapping

import pytest

from jobrunner.core.model import LOST_LIMIT, AttemptRow
from jobrunner.store.protocol import Recovered, Store
from jobrunner.store.round import Round
from tests.conformance.conftest import StartPeer
from tests.conformance.rigs import Rig, die_under
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim,
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

# -- the death of a worker ---------------------------------------------------------------------------


async def test_recover_queues_the_jobs_of_the_dead_and_records_the_lost_attempts(
    rig: Rig,
) -> None:
    store = rig.store
    job = new(key="key", run_at=NOW - HOUR)
    await enqueue(store, job)
    await store.workers.join(worker_row(tasks={"work": 5}), ignore)
    (claimed,) = await claim(store)
    rig.kill_worker(WORKER)
    found = await store.workers.recover(now=NOW + SECOND, thorough=False)
    assert found == Recovered([WORKER], 1, [])
    row = await row_of(store, job.id)
    assert (row.state, row.attempt, row.crashes, row.run_at) == ("queued", 1, 1, NOW - HOUR)
    (attempt,) = await store.jobs.attempts(row.seq)
    assert attempt == AttemptRow(
        1, 1, WORKER, NOW, NOW + SECOND, "lost", "ProcessLost", attempt.error, None
    )
    assert attempt.error
    # The attempt was counted before it began, so the death has cost it.
    (again,) = await claim(store)
    assert (again.attempt, again.lease, again.suspect) == (2, 2, False)
    assert claimed.lease == 1


async def test_recover_takes_the_jobs_of_the_dead_though_another_process_has_their_pid(
    rig: Rig,
) -> None:
    """In a container, the process after a restart nearly always has the pid of the one that died."""
    store = rig.store
    await store.workers.join(worker_row()._replace(pid=os.getpid()), ignore)
    job = await claim_one(store)
    rig.kill_worker(WORKER)
    assert await store.workers.recover(now=NOW, thorough=False) == Recovered([WORKER], 1, [])
    assert (await row_of(store, job.id)).state == "queued"


async def test_recover_with_nothing_dead_finds_nothing(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    job = await claim_one(store)
    for thorough in (False, True):
        found = await store.workers.recover(now=NOW + HOUR, thorough=thorough)
        assert found == Recovered([], 0, [])
    assert (await row_of(store, job.id)).state == "running"


@pytest.mark.parametrize("own", [1, 3])
async def test_recover_of_a_job_out_of_its_own_attempts_makes_it_a_dead_letter(
    rig: Rig, own: int
) -> None:
    job = new(max_attempts=own)
    await enqueue(rig.store, job)
    for _ in range(own - 1):
        assert (await die_under(rig, {"work": 99})).buried == []
    assert await die_under(rig, {"work": 99}) == Recovered([WORKER], 0, [job.id])
    letter = await row_of(rig.store, job.id)
    assert (letter.state, letter.reason, letter.finished_at) == ("dead", "lost", NOW)
    assert (letter.error_type, letter.crashes, letter.attempt) == ("ProcessLost", own, own)
    assert letter.error
    attempts = await rig.store.jobs.attempts(letter.seq)
    assert [one.outcome for one in attempts] == ["lost"] * own


async def test_recover_of_a_job_out_of_its_tasks_attempts_makes_it_a_dead_letter(
    rig: Rig,
) -> None:
    job = new()
    await enqueue(rig.store, job)
    for _ in range(2):
        assert (await die_under(rig, {"work": 3})).buried == []
    assert (await die_under(rig, {"work": 3})).buried == [job.id]


@pytest.mark.parametrize("max_attempts", [{"work": None}, {}], ids=["unlimited", "unknown"])
async def test_recover_of_a_job_without_a_limit_counts_the_deaths_alone(
    rig: Rig, max_attempts: Mapping[str, int | None]
) -> None:
    """A process that does not know the task (a rolling deploy) must not bury what has only failed often."""
    job = new()
    await enqueue(rig.store, job)
    for _ in range(LOST_LIMIT * 2):
        (claimed,) = await claim(rig.store)
        await settle(rig.store, retry(claimed))
    for _ in range(LOST_LIMIT - 1):
        assert (await die_under(rig, max_attempts)).buried == []
    assert (await die_under(rig, max_attempts)).buried == [job.id]
    assert (await row_of(rig.store, job.id)).crashes == LOST_LIMIT


async def test_recover_buries_the_exhausted_and_queues_the_others_of_one_worker(rig: Rig) -> None:
    last, again = new(max_attempts=1), new()
    await enqueue(rig.store, last, again)
    assert await die_under(rig, {"work": 5}) == Recovered([WORKER], 1, [last.id])
    assert (await row_of(rig.store, again.id)).state == "queued"


async def test_recover_takes_the_jobs_of_a_worker_that_nobody_knows(store: Store) -> None:
    """It was found dead while it lived, and went on claiming."""
    twice, once = new(), new(max_attempts=1)
    await enqueue(store, twice, once)
    assert len(await claim(store)) == 2
    # Nobody is there yet who knows how often they may run.
    assert await store.workers.recover(now=NOW, thorough=True) == Recovered([], 0, [])
    await store.workers.join(worker_row(OTHER_WORKER, tasks={"work": 2}), ignore)
    assert await store.workers.recover(now=NOW, thorough=False) == Recovered([], 0, [])
    assert await store.workers.recover(now=NOW, thorough=True) == Recovered([WORKER], 1, [once.id])
    row = await row_of(store, twice.id)
    assert (row.state, row.attempt) == ("queued", 1)
    assert [one.outcome for one in await store.jobs.attempts(row.seq)] == ["lost"]


async def test_recover_buries_the_jobs_of_a_worker_that_nobody_knows_by_the_limit_of_the_others(
    store: Store,
) -> None:
    job = new()
    await enqueue(store, job)
    await claim(store)
    await store.workers.join(worker_row(OTHER_WORKER, tasks={"work": 1}), ignore)
    assert await store.workers.recover(now=NOW, thorough=True) == Recovered([WORKER], 0, [job.id])


async def test_close_abandons_the_workers_of_the_process_which_then_are_dead(store: Store) -> None:
    job = new()
    await enqueue(store, job)
    await store.workers.join(worker_row(tasks={"work": 5}), ignore)
    await claim(store)
    store.workers.close()
    found = await store.workers.recover(now=NOW + SECOND, thorough=True)
    assert found == Recovered([WORKER], 1, [])
    assert (await row_of(store, job.id)).state == "queued"


# -- between processes -------------------------------------------------------------------------------


async def test_D3_recover_after_a_kill_9_takes_the_jobs_over(rig: Rig, peer: StartPeer) -> None:
    store = rig.store
    await enqueue(store, new(), new())
    other = peer().opened()
    jobs = other.works()
    assert len(jobs) == 2
    assert await store.workers.recover(now=NOW, thorough=True) == Recovered([], 0, [])
    other.kill()
    await rig.until_seen_dead(OTHER_WORKER)
    found = await store.workers.recover(now=NOW, thorough=False)
    assert found == Recovered([OTHER_WORKER], 2, [])
    assert await store.workers.list() == []
    assert {job.id for job in await claim(store)} == {job.id for job in jobs}


async def test_C9_recover_never_takes_the_jobs_of_a_live_process_however_long_it_stands_still(
    store: Store, peer: StartPeer
) -> None:
    await enqueue(store, new())
    other = peer().opened()
    (job,) = other.works()
    other.pause()
    for thorough in (False, True, True):
        found = await store.workers.recover(now=NOW + 1000 * HOUR, thorough=thorough)
        assert found == Recovered([], 0, [])
    other.go_on()
    assert other.call("write", Round(NOW, outcomes=[succeeded(job)])).stale == []
    assert (await row_of(store, job.id)).state == "succeeded"


async def test_B15_recover_by_two_processes_at_once_queues_each_job_once(
    rig: Rig, peer: StartPeer
) -> None:
    store = rig.store
    jobs = [new() for _ in range(50)]
    await enqueue(store, *jobs)
    victim, *rescuers = peer(), peer(), peer()
    victim.opened().works()
    for rescuer in rescuers:
        rescuer.opened()
    victim.kill()
    await rig.until_seen_dead(OTHER_WORKER)
    for rescuer in rescuers:
        rescuer.begin("workers.recover", now=NOW, thorough=True)
    mine = await store.workers.recover(now=NOW, thorough=True)
    found = [mine, *(rescuer.answer() for rescuer in rescuers)]
    assert sorted(len(one.workers) for one in found) == [0, 0, 1]
    assert sum(one.requeued for one in found) == len(jobs)
    for job in jobs:
        row = await row_of(store, job.id)
        assert (row.state, row.crashes) == ("queued", 1)
        assert len(await store.jobs.attempts(row.seq)) == 1
