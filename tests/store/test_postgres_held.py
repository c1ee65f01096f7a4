"""F16: a session of the application is idle and holds what a round needs: the others of the round go on."""

from collections.abc import AsyncIterator, Sequence

import pytest

from jobrunner.core.errors import StoreBusy
from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import BatchEnqueue, Claimed, Enqueue, Enqueued, Filter
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.postgres import workers as postgres_workers
from jobrunner.store.postgres.sql.savepoints import MOST_WAITS
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round, Written
from tests.conformance.test_schedules import a_row, put, seen, step
from tests.support.engine import soon
from tests.support.factories import (
    NOW,
    OTHER_WORKER,
    SECOND,
    claim,
    claim_of,
    dead,
    enqueue,
    new,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)
from tests.support.postgres_sessions import async_session
from tests.support.sessions import Held
from tests.support.workflows import a_batch

LANE = "work[1]"
OTHER_LANE = "work[2]"
FREE = "free"
"""The queue of the jobs that need nothing that the session holds."""


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def idle(postgres_url: str) -> AsyncIterator[Held]:
    """A session whose transaction stays open until a test commits it."""
    async with async_session("asyncpg")(postgres_url) as held:
        yield held


async def write(store: PostgresStore, request: Round) -> Written:
    return await soon(store.write(request))


async def states(store: PostgresStore, jobs: Sequence[Enqueue]) -> list[str]:
    return [(await row_of(store, job.id)).state for job in jobs]


async def test_F16_enqueue_into_a_lane_that_is_held_is_busy(
    store: PostgresStore, idle: Held
) -> None:
    await store.session(idle.source).insert([new(lane=LANE)], now=NOW)
    jobs = [new(lane=LANE), new(), new(lane=OTHER_LANE), new(lane=LANE)]
    written = await write(store, Round(NOW, enqueues=jobs))
    assert [type(one) for one in written.enqueued] == [StoreBusy, Enqueued, Enqueued, StoreBusy]
    await idle.commit()
    (again,) = (await write(store, Round(NOW, enqueues=[jobs[0]]))).enqueued
    assert isinstance(again, Enqueued)
    assert len(await claim(store)) == 4


async def test_F16_call_of_which_one_job_is_busy_stores_none(
    store: PostgresStore, idle: Held
) -> None:
    await store.session(idle.source).insert([new(lane=LANE)], now=NOW)
    jobs = [new(), new(lane=LANE), new(), new()]
    written = await write(store, Round(NOW, enqueues=jobs, calls=[2, 2]))
    assert [type(one) for one in written.enqueued] == [StoreBusy, StoreBusy, Enqueued, Enqueued]
    assert {job.id for job in await claim(store)} == {job.id for job in jobs[2:]}


async def test_F16_session_that_holds_many_lanes_is_waited_for_a_few_times_only(
    store: PostgresStore, idle: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = list[str]()
    wait = Transaction.wait_shortly

    async def note(self: Transaction) -> None:
        timeouts.append(self.lock_timeout)
        await wait(self)

    monkeypatch.setattr(Transaction, "wait_shortly", note)
    lanes = [f"work[{number}]" for number in range(3 * MOST_WAITS)]
    await store.session(idle.source).insert([new(lane=lane) for lane in lanes], now=NOW)
    jobs = [*(new(lane=lane) for lane in lanes), new()]
    written = await write(store, Round(NOW, enqueues=jobs))
    assert [type(one) for one in written.enqueued] == [StoreBusy] * len(lanes) + [Enqueued]
    assert timeouts[-1] == "1ms"


async def test_F16_enqueue_into_an_ordered_lane_that_is_held_is_busy(
    store: PostgresStore, idle: Held
) -> None:
    older = new(lane=LANE, ordered=True)
    await store.session(idle.source).insert([older], now=NOW)
    jobs = [new(lane=LANE, ordered=True), new()]
    written = await write(store, Round(NOW, enqueues=jobs))
    assert [type(one) for one in written.enqueued] == [StoreBusy, Enqueued]
    await idle.commit()
    await write(store, Round(NOW, enqueues=jobs[:1]))
    claimed = await claim(store)
    assert {job.id for job in claimed} == {older.id, jobs[1].id}


async def test_F16_enqueue_into_a_limited_queue_that_is_held_is_busy(
    store: PostgresStore, idle: Held
) -> None:
    await store.limits.declare({LimitName("queue", "default"): Limit(max_waiting=3)}, revision=1)
    await store.session(idle.source).insert([new()], now=NOW)
    jobs = [new(), new(queue=FREE), new(), new()]
    written = await write(store, Round(NOW, enqueues=jobs, calls=[1, 1, 2]))
    assert [type(one) for one in written.enqueued] == [StoreBusy, Enqueued, StoreBusy, StoreBusy]
    await idle.commit()
    written = await write(store, Round(NOW, enqueues=jobs[2:], calls=[2]))
    assert [type(one) for one in written.enqueued] == [Enqueued, Enqueued]


async def test_jobs_beside_a_limited_queue_are_stored_in_bulk(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.limits.declare({LimitName("queue", "default"): Limit(max_waiting=3)}, revision=1)

    async def refuse(self: Transaction) -> None:
        raise AssertionError("a savepoint for each call")

    monkeypatch.setattr(Transaction, "begin_item", refuse)
    await write(store, Round(NOW, enqueues=[new(queue=FREE) for _ in range(9)], calls=[1] * 9))
    await write(store, Round(NOW, enqueues=[new() for _ in range(3)], calls=[1] * 3))


async def test_F16_end_in_a_full_lane_that_is_held_waits_and_opens_the_lane_later(
    store: PostgresStore, idle: Held
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    await enqueue(store, new(lane=LANE), new(lane=LANE), new(queue=FREE))
    laned, free = [*await claim(store), *await claim(store, FREE)]
    await store.session(idle.source).insert([new(lane=LANE)], now=NOW)
    written = await write(store, Round(NOW, outcomes=[succeeded(laned), succeeded(free)]))
    assert (written.busy, written.stale) == ([succeeded(laned)], [])
    assert await states(store, [laned, free]) == ["running", "succeeded"]  # type: ignore[list-item]
    await idle.commit()
    assert not (await settle(store, *written.busy)).busy
    assert len(await claim(store)) == 1, "the lane is open again"


@pytest.mark.parametrize("outcome", [succeeded, dead, retry])
async def test_F16_end_of_a_member_of_a_batch_that_is_held_waits(
    store: PostgresStore, idle: Held, outcome: object
) -> None:
    assert callable(outcome)
    batch = await a_batch(store, new(), new())
    await enqueue(store, new(queue=FREE))
    members, (free,) = await claim(store), await claim(store, FREE)
    added = new()
    await store.session(idle.source).insert_batch(BatchEnqueue(batch.id, [added], (), ()), now=NOW)
    ends = [outcome(job) for job in members]
    written = await write(store, Round(NOW, outcomes=[*ends, succeeded(free)]))
    assert written.busy == ends
    assert (await row_of(store, free.id)).state == "succeeded"
    assert not written.ended
    await idle.commit()
    await settle(store, *written.busy)
    rest = await claim(store)
    assert added.id in {job.id for job in rest}
    assert [*(await settle(store, *map(succeeded, rest))).ended] == [batch.id]


async def test_F16_members_are_not_added_to_a_batch_that_is_held(
    store: PostgresStore, postgres_url: str, idle: Held
) -> None:
    batch = await a_batch(store, new())
    more = [BatchEnqueue(batch.id, [new()], (), ()) for _ in range(3)]
    await store.session(idle.source).insert_batch(more[0], now=NOW)
    written = await write(store, Round(NOW, enqueues=[new()], batches=more[1:]))
    assert [type(one) for one in written.enqueued] == [Enqueued]
    assert [type(one) for one in written.batches] == [StoreBusy, StoreBusy]
    async with async_session("asyncpg")(postgres_url) as other:
        with pytest.raises(StoreBusy):
            await soon(store.session(other.source).insert_batch(more[1], now=NOW))
    await idle.commit()
    assert [type(one) for one in (await write(store, Round(NOW, batches=more[1:]))).batches] == [
        BatchEnqueued,
        BatchEnqueued,
    ]


async def test_F16_success_whose_new_jobs_go_into_a_lane_that_is_held_waits_whole(
    store: PostgresStore, idle: Held
) -> None:
    await enqueue(store, new(queue=FREE), new(queue=FREE))
    one, two = await claim(store, FREE)
    await store.session(idle.source).insert([new(lane=LANE)], now=NOW)
    follower = new(lane=LANE)
    success = succeeded(one)._replace(enqueues=[follower])
    written = await write(store, Round(NOW, outcomes=[success, succeeded(two)]))
    assert written.busy == [success]
    assert not (
        await store.jobs.list(Filter(task="work", state="queued"), before=None, limit=9)
    ).rows
    await idle.commit()
    assert not (await settle(store, success)).busy
    assert await states(store, [follower]) == ["queued"]


async def test_F16_due_jobs_of_a_lane_that_is_held_wait_and_others_start(
    store: PostgresStore, idle: Held
) -> None:
    later = NOW + SECOND
    jobs = [new(lane=LANE, run_at=later), new(run_at=later), new(lane=OTHER_LANE, run_at=later)]
    await enqueue(store, *jobs)
    await store.session(idle.source).insert([new(lane=LANE)], now=NOW)
    written = await write(store, Round(later, promote_due=True, claim=claim_of()))
    assert {job.id for job in written.claimed} == {jobs[1].id, jobs[2].id}
    assert written.next_due is not None
    assert written.next_due > later, "the job that was left must not be looked for without a pause"
    await idle.commit()
    written = await write(store, Round(later, promote_due=True, claim=claim_of()))
    assert jobs[0].id in {job.id for job in written.claimed}
    assert len(written.claimed) == 2


async def test_F16_nothing_expires_while_the_batch_of_one_is_held_and_others_start(
    store: PostgresStore, idle: Held
) -> None:
    later = NOW + SECOND
    expiring, plain, due = new(expires_at=later), new(expires_at=later), new(run_at=later)
    batch = await a_batch(store, expiring)
    await enqueue(store, plain, due)
    await store.session(idle.source).insert_batch(BatchEnqueue(batch.id, [new()], (), ()), now=NOW)
    written = await write(store, Round(later, promote_due=True, claim=claim_of()))
    assert [job.id for job in written.claimed] == [due.id]
    assert written.next_due is not None
    assert written.next_due > later
    await idle.commit()
    await write(store, Round(later, promote_due=True))
    assert await states(store, [expiring, plain]) == ["expired", "expired"]


async def test_F16_tick_whose_job_goes_into_a_lane_that_is_held_is_busy(
    store: PostgresStore, idle: Held
) -> None:
    await put(store, a_row("held"), a_row("good"))
    held, good = step(await seen(store, "held")), step(await seen(store, "good"))
    (tick,) = held.ticks
    assert tick.job is not None
    fires = [held._replace(ticks=[tick._replace(job=tick.job._replace(lane=LANE))]), good]
    await store.session(idle.source).insert([new(lane=LANE)], now=NOW)
    written = await write(store, Round(NOW, fires=fires))
    assert [isinstance(one, StoreBusy) for one in written.fired] == [True, False]
    await idle.commit()
    written = await write(store, Round(NOW, fires=fires[:1]))
    assert not isinstance(written.fired[0], StoreBusy)


async def hold_two_of_three(store: PostgresStore, idle: Held) -> Sequence[Claimed]:
    """Claim three jobs, and let the session hold the lane of one and the batch of another."""
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    laned, free, waiting = new(lane=LANE), new(), new(lane=LANE)
    await enqueue(store, laned, free, waiting)
    batch = await a_batch(store, new())
    await store.workers.join(worker_row(OTHER_WORKER), lambda: None)
    jobs = await claim(store, worker=OTHER_WORKER)
    assert len(jobs) == 3
    session = store.session(idle.source)
    await session.insert([new(lane=LANE)], now=NOW)
    await session.insert_batch(BatchEnqueue(batch.id, [new()], (), ()), now=NOW)
    return sorted(jobs, key=lambda job: job.id != free.id)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is dead as soon as its lock is free."""
    for name in ("LOOKS_APART_S", "RESTART_GRACE_S"):
        monkeypatch.setattr(postgres_workers, name, 0)


@pytest.mark.usefixtures("at_once")
async def test_F16_jobs_of_a_dead_worker_run_again_but_for_those_whose_lane_or_batch_is_held(
    store: PostgresStore, postgres_url: str, idle: Held
) -> None:
    free, *held = await hold_two_of_three(store, idle)
    await store.workers._lines.pop(OTHER_WORKER).close()
    await store.workers.join(worker_row(), lambda: None)
    found = await soon(store.workers.recover(now=NOW, thorough=True))
    assert (found.workers, found.requeued) == ([OTHER_WORKER], 1)
    assert (await row_of(store, free.id)).state == "queued"
    assert {(await row_of(store, job.id)).state for job in held} == {"running"}
    assert (await soon(store.workers.recover(now=NOW, thorough=True))).requeued == 0
    await idle.commit()
    assert (await store.workers.recover(now=NOW, thorough=True)).requeued == 2
    assert {(await row_of(store, job.id)).state for job in held} == {"queued"}
    counted = store.statistics.measure().counters
    assert counted["workers:dead", "", ""] == 1


@pytest.mark.usefixtures("at_once")
async def test_F16_worker_that_leaves_gives_back_what_is_not_held_and_the_rest_is_found(
    store: PostgresStore, idle: Held
) -> None:
    free, *held = await hold_two_of_three(store, idle)
    await soon(store.workers.leave(OTHER_WORKER, now=NOW))
    row = await row_of(store, free.id)
    assert (row.state, row.attempt) == ("queued", 0)
    assert {(await row_of(store, job.id)).state for job in held} == {"running"}
    assert OTHER_WORKER not in {row.worker for row in await store.workers.list()}
    await idle.commit()
    await store.workers.join(worker_row(), lambda: None)
    assert (await store.workers.recover(now=NOW, thorough=True)).requeued == 2
