"""Queues: paused and resumed, and what they hold."""

from jobrunner.core.model import QueueStats, chained
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    WORKER,
    claim,
    claim_one,
    enqueue,
    make_dead,
    new,
    row_of,
    settle,
    succeeded,
    worker_row,
)


async def test_pause_keeps_every_worker_from_claiming_until_resume(store: Store) -> None:
    await enqueue(store, new(), new(queue="mail"))
    await store.jobs.pause("default", now=NOW)
    assert [job.queue for job in await claim(store, "default", "mail")] == ["mail"]
    assert await claim(store, "default", worker=WORKER + 1) == []
    await store.jobs.resume("default")
    assert [job.queue for job in await claim(store, "default", "mail")] == ["default"]


async def test_pause_lets_running_jobs_go_on_and_new_ones_in(store: Store) -> None:
    job = await claim_one(store)
    await store.jobs.pause("default", now=NOW)
    (made,) = await enqueue(store, new())
    assert made.state == "queued"
    assert (await settle(store, succeeded(job))).stale == []


async def test_pause_and_resume_twice_are_the_same_as_once(store: Store) -> None:
    await enqueue(store, new())
    await store.jobs.resume("default")
    await store.jobs.pause("default", now=NOW)
    await store.jobs.pause("default", now=NOW + 1)
    await store.jobs.resume("default")
    assert len(await claim(store)) == 1


async def test_pause_outlives_the_process(rig: Rig) -> None:
    await enqueue(rig.store, new())
    await rig.store.jobs.pause("default", now=NOW)
    await rig.close()
    await rig.open()
    assert await claim(rig.store) == []
    assert [one.paused for one in await rig.store.jobs.queues()] == [True]


async def test_promotion_goes_on_in_a_paused_queue(store: Store) -> None:
    job = new(run_at=NOW + MINUTE)
    await enqueue(store, job)
    await store.jobs.pause("default", now=NOW)
    assert await claim(store, now=NOW + MINUTE) == []
    assert (await row_of(store, job.id)).state == "queued"


async def test_queues_counts_what_is_unfinished_in_each(store: Store) -> None:
    await store.jobs.pause("empty", now=NOW)
    await make_dead(store, new(queue="dead"))
    done = await claim_one(store, new(queue="done"))
    await settle(store, succeeded(done))
    await claim_one(store, new(queue="mail"))
    await enqueue(
        store,
        new(queue="mail", run_at=NOW - MINUTE),
        new("play", queue="mail", run_at=NOW - HOUR),
        new(queue="mail", run_at=NOW + HOUR),
        new(queue="later", run_at=NOW + HOUR),
    )
    await enqueue(store, *chained([new(queue="later", run_at=NOW + HOUR), new(queue="mail")]))
    await store.jobs.pause("mail", now=NOW)
    assert await store.jobs.queues() == [
        QueueStats("empty", True, 0, 0, 0, 0, None, paused_at=NOW),
        QueueStats("later", False, 0, 2, 0, 0, None),
        QueueStats("mail", True, 2, 1, 1, 1, NOW - HOUR, paused_at=NOW),
    ]


async def test_queues_names_the_longest_wait_whatever_the_priority(store: Store) -> None:
    """The one that starves is the one to be seen."""
    await enqueue(
        store,
        new(priority=0, run_at=NOW - HOUR),
        new(priority=9, run_at=NOW - MINUTE),
        new(priority=5, run_at=NOW),
    )
    assert [one.oldest_due_at for one in await store.jobs.queues()] == [NOW - HOUR]
    assert await store.jobs.waiting_tasks() == [("default", "work", NOW - HOUR)]


async def test_queues_counts_suspects_as_queued(rig: Rig) -> None:
    await make_suspect(rig)
    assert await rig.store.jobs.queues() == [QueueStats("default", False, 1, 0, 0, 0, NOW)]


async def test_queues_stops_counting_and_says_so(store: Store) -> None:
    """The count within the time limit depends on the machine, but is never too high."""
    many = 10_001
    later = [new(queue="later", run_at=NOW + HOUR) for _ in range(many)]
    await store.write(Round(NOW, enqueues=[new() for _ in range(many)]))
    await store.write(Round(NOW, enqueues=later))
    default, waiting = await store.jobs.queues()
    assert (default.complete, waiting.complete) == (False, False)
    assert 100 <= default.queued <= 10_000
    assert 100 <= waiting.scheduled <= 10_000


async def test_waiting_tasks_names_each_pair_with_queued_jobs(store: Store) -> None:
    await enqueue(
        store,
        new("work", run_at=NOW - MINUTE),
        new("work", run_at=NOW - HOUR),
        new("play", run_at=NOW),
        new("work", queue="mail", run_at=NOW - 1),
        new("rest", run_at=NOW + HOUR),
    )
    await claim_one(store, new("run", queue="other"))
    assert sorted(await store.jobs.waiting_tasks()) == [
        ("default", "play", NOW),
        ("default", "work", NOW - HOUR),
        ("mail", "work", NOW - 1),
    ]


async def test_D17_waiting_tasks_names_a_task_of_which_only_suspects_wait(rig: Rig) -> None:
    """A task that kills its process is just the one that somebody takes out of the code."""
    job = await make_suspect(rig)
    assert await rig.store.jobs.waiting_tasks() == [("default", "work", NOW)]
    buried = await rig.store.dead_letters.bury_waiting(
        "default",
        "work",
        due_before=NOW + 1,
        reason="unknown_task",
        error="nobody knows it",
        now=NOW,
        limit=10,
    )
    assert buried == [job]
    assert (await row_of(rig.store, job)).reason == "unknown_task"
    assert await rig.store.jobs.waiting_tasks() == []


async def make_suspect(rig: Rig) -> str:
    """Let two processes die under a job; return its id."""
    job = new()
    await enqueue(rig.store, job)
    for worker in (WORKER, WORKER + 1):
        await rig.store.workers.join(worker_row(worker), lambda: None)
        await claim(rig.store, worker=worker)
        rig.kill_worker(worker)
        await rig.store.workers.recover(now=NOW, thorough=False)
    return job.id
