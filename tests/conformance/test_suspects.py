"""Suspects: jobs under which several processes have died."""

from jobrunner.store.round import Round
from tests.conformance.rigs import Rig, die_under
from tests.support.factories import (
    NOW,
    WORKER,
    claim,
    claim_of,
    enqueue,
    ignore,
    new,
    retry,
    row_of,
    settle,
    worker_row,
)


async def test_D4_recover_makes_a_suspect_of_a_job_under_which_two_processes_died(
    rig: Rig,
) -> None:
    await enqueue(rig.store, new())
    await die_under(rig, {"work": 9})
    (job,) = await claim(rig.store, suspects=False)
    assert not job.suspect
    await settle(rig.store, retry(job))
    await die_under(rig, {"work": 9})
    assert await claim(rig.store, suspects=False) == []
    (job,) = await claim(rig.store, suspects=True)
    assert job.suspect


async def test_D4_recover_makes_a_suspect_of_a_job_with_one_attempt_left(rig: Rig) -> None:
    await enqueue(rig.store, new(max_attempts=3))
    (job,) = await claim(rig.store)
    await settle(rig.store, retry(job))
    await die_under(rig, {})
    (job,) = await claim(rig.store)
    assert (job.attempt, job.suspect) == (3, True)


async def test_D4_suspects_are_claimed_one_at_a_time_among_innocent_jobs(rig: Rig) -> None:
    """Beside each other the innocent would be buried with the one that kills its process."""
    store = rig.store
    suspects = [new(), new(queue="mail"), new()]
    await enqueue(store, *suspects)
    for _ in range(2):
        await store.workers.join(worker_row(), ignore)
        await claim(store, "default", "mail")
        for job in await claim(store, "default", "mail"):
            assert not job.suspect
        rig.kill_worker(WORKER)
        await store.workers.recover(now=NOW, thorough=False)
    innocent = [new(), new(queue="mail")]
    await enqueue(store, *innocent)
    first = await claim(store, "default", "mail")
    assert sorted(job.suspect for job in first) == [False, False, True]
    assert {job.id for job in first if not job.suspect} == {job.id for job in innocent}
    assert len(await claim(store, "default", "mail", suspects=False)) == 0
    assert [job.suspect for job in await claim(store, "default", "mail")] == [True]


async def test_D4_claim_that_returns_a_suspect_whose_answer_was_lost_takes_no_other(
    rig: Rig,
) -> None:
    await enqueue(rig.store, new(), new())
    for _ in range(2):
        await die_under(rig, {"work": 9})
    (lost,) = await claim(rig.store)
    assert lost.suspect
    again = claim_of()._replace(held=frozenset())
    assert (await rig.store.write(Round(now=NOW, claim=again))).claimed == [lost]


async def test_D4_a_suspect_takes_one_of_the_free_slots(rig: Rig) -> None:
    await enqueue(rig.store, new())
    await die_under(rig, {"work": 9})
    await die_under(rig, {"work": 9})
    await enqueue(rig.store, new(), new())
    first = await claim(rig.store, slots=1)
    assert [job.suspect for job in first] == [True]
    assert len(await claim(rig.store, slots=1)) == 1


async def test_D4_a_suspect_of_an_unknown_task_or_in_a_paused_queue_waits(rig: Rig) -> None:
    job = new()
    await enqueue(rig.store, job)
    await die_under(rig, {"work": 9})
    await die_under(rig, {"work": 9})
    assert await claim(rig.store, tasks=["play"]) == []
    await rig.store.jobs.pause("default", now=NOW)
    assert await claim(rig.store) == []
    await rig.store.jobs.resume("default")
    assert [one.id for one in await claim(rig.store)] == [job.id]


async def test_D4_an_attempt_that_ends_clears_the_suspicion(rig: Rig) -> None:
    await enqueue(rig.store, new())
    await die_under(rig, {"work": 9})
    await die_under(rig, {"work": 9})
    (job,) = await claim(rig.store)
    await settle(rig.store, retry(job))
    (job,) = await claim(rig.store, suspects=False)
    assert not job.suspect
    # But it has not forgotten: the next death makes it one again at once.
    await rig.store.workers.join(worker_row(), ignore)
    rig.kill_worker(WORKER)
    await rig.store.workers.recover(now=NOW, thorough=False)
    (again,) = await claim(rig.store, suspects=True)
    assert again.suspect


async def test_D4_a_replay_starts_without_the_past(rig: Rig) -> None:
    job = new(max_attempts=1)
    await enqueue(rig.store, job)
    await die_under(rig, {})
    await rig.store.dead_letters.replay(job.id, now=NOW)
    (again,) = await claim(rig.store, suspects=False)
    assert (again.attempt, again.suspect) == (1, False)
    assert (await row_of(rig.store, job.id)).crashes == 0
