"""Workers: joining, leaving, and what becomes of the jobs of one whose process died."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import pytest

from jobrunner.core.model import LOST_LIMIT, AttemptRow, Claimed, Filter
from jobrunner.core.wait_graph import Snapshot, WaitingAttempt, WaitReport
from jobrunner.store.protocol import Recovered, Store, WorkerStart
from jobrunner.store.round import Round
from tests.conformance.conftest import StartPeer
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim,
    claim_of,
    claim_one,
    enqueue,
    new,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)


def ignore() -> None:
    """Ignore a ring of the doorbell."""


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


# -- attempts that wait for other jobs ---------------------------------------------------------------


def waiting_attempt(job: Claimed, *jobs: int, since: int = 1) -> WaitingAttempt:
    """Return an attempt, as reported, that waits for jobs of its queue."""
    return WaitingAttempt(
        job.worker, job.seq, job.lease, job.queue, jobs, (job.queue,), (7, 8), since
    )


async def test_wait_report_is_seen_by_all_until_the_next_one(
    store: Store,
) -> None:
    await store.workers.join(worker_row(), ignore)
    await store.workers.join(worker_row(OTHER_WORKER), ignore)
    report = WaitReport(
        3, [waiting_attempt(await claim_one(store), 4, 5), waiting_attempt(await claim_one(store))]
    )
    assert await store.workers.report_waits(WORKER, report)
    assert {row.worker: row.wait_report for row in await store.workers.list()} == {
        WORKER: report,
        OTHER_WORKER: WaitReport(),
    }
    assert await store.workers.report_waits(WORKER, WaitReport(4, []))
    assert {row.wait_report.number for row in await store.workers.list()} == {0, 4}
    assert not any(row.wait_report.attempts for row in await store.workers.list())


async def test_wait_report_is_not_stored_once_the_worker_has_left(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    await store.workers.leave(WORKER, now=NOW)
    assert not await store.workers.report_waits(WORKER, WaitReport(1, []))
    assert await store.workers.list() == []


Change = Callable[[Store, Claimed, WaitingAttempt], Awaitable[object]]


async def _join(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.join(worker_row(OTHER_WORKER + 1), ignore)


async def _leave(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.leave(OTHER_WORKER, now=NOW)


async def _report_nothing(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.report_waits(OTHER_WORKER, WaitReport(2, []))


async def _wait_anew(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.report_waits(OTHER_WORKER, WaitReport(2, [waiting._replace(since=2)]))


async def _cancel_attempt(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.jobs.cancel(job.id, now=NOW)


async def _end_attempt(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await settle(store, succeeded(job))


async def _cancel_child(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    page = await store.jobs.list(Filter(state="queued"), before=None, limit=9)
    (id,) = (row.id for row in page.rows if row.seq == waiting.jobs[0])
    await store.jobs.cancel(id, now=NOW)


async def _start_child(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    assert await claim(store, slots=1)


async def _report_again(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.report_waits(OTHER_WORKER, WaitReport(2, [waiting]))


async def _beat(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.beat(OTHER_WORKER, now=NOW + SECOND)


@pytest.mark.parametrize(
    ("change", "stored"),
    [
        (_report_again, True),
        (_beat, True),
        (_join, False),
        (_leave, False),
        (_report_nothing, False),
        (_wait_anew, False),
        (_cancel_attempt, False),
        (_end_attempt, False),
        (_cancel_child, False),
        (_start_child, False),
    ],
)
async def test_wait_report_with_a_snapshot_is_stored_only_while_it_holds(
    store: Store, change: Change, stored: bool
) -> None:
    waits: dict[int, WaitingAttempt] = {}
    jobs: dict[int, Claimed] = {}
    for worker in (WORKER, OTHER_WORKER):
        await store.workers.join(worker_row(worker), ignore)
        jobs[worker] = await claim_one(store, worker=worker)
    for worker, job in jobs.items():
        made = await enqueue(store, new(), new(run_at=NOW + HOUR))
        children = [(await row_of(store, one.id)).seq for one in made]
        waits[worker] = waiting_attempt(job, *children)
        assert await store.workers.report_waits(worker, WaitReport(1, [waits[worker]]))
    snapshot = Snapshot(frozenset(waits), list(waits.values()))
    await change(store, jobs[OTHER_WORKER], waits[OTHER_WORKER])
    assert await store.workers.report_waits(WORKER, WaitReport(2, []), snapshot=snapshot) is stored
    (report,) = [row.wait_report for row in await store.workers.list() if row.worker == WORKER]
    assert report == (WaitReport(2, []) if stored else WaitReport(1, [waits[WORKER]]))


# -- the death of a worker ---------------------------------------------------------------------------


async def die_under(
    rig: Rig, tasks: Mapping[str, int | None], *, worker: int = WORKER
) -> Recovered:
    """Let a worker claim all there is and die, and recover its jobs."""
    await rig.store.workers.join(worker_row(worker, tasks=tasks), ignore)
    await claim(rig.store, worker=worker)
    rig.kill_worker(worker)
    return await rig.store.workers.recover(now=NOW, thorough=False)


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


# -- suspects --------------------------------------------------------------------------------------


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


async def test_D3_recover_after_a_kill_9_takes_the_jobs_over(store: Store, peer: StartPeer) -> None:
    await enqueue(store, new(), new())
    other = peer().opened()
    jobs = other.works()
    assert len(jobs) == 2
    assert await store.workers.recover(now=NOW, thorough=True) == Recovered([], 0, [])
    other.kill()
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
    store: Store, peer: StartPeer
) -> None:
    jobs = [new() for _ in range(50)]
    await enqueue(store, *jobs)
    victim, *rescuers = peer(), peer(), peer()
    victim.opened().works()
    for rescuer in rescuers:
        rescuer.opened()
    victim.kill()
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
