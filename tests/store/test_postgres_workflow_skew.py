"""Two transactions at once on the batches of PostgreSQL, one stopped before its commit.

Each statement sees only what is committed when it begins.  The first test is the prototype: without the lock of the
batch nobody ends it, with the lock the second one does.  Each of the others fails without the lock that it is about.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from jobrunner.core.errors import BatchEnded
from jobrunner.core.model import BatchEnqueue, Claimed, Edge, Ended, Filter, Memo, NewBatch, Parked
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.connection import WRITER, close, connect
from jobrunner.store.postgres.sql import batch_locks, control, dead_letters, edges, settle, steps
from jobrunner.store.postgres.sql.edges import Needed
from jobrunner.store.postgres.sql.statistics import flush
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.store.test_postgres_skew import stopped, waiting
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim_of,
    claim_one,
    dead,
    enqueue,
    new,
    parked,
    quiet,
    succeeded,
    worker_row,
)
from tests.support.factories import (
    settle as settle_in,
)
from tests.support.workflows import (
    TASKS,
    Made,
    a_batch,
    add,
    batch_row,
    claim_all,
    needs,
    request,
    states_of,
)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """A store whose transactions are those of the second process."""
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    assert list(await store.workflows.check(limit=5)) == []
    await store.close()


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[Transaction]:
    """A transaction of the first process, which the test commits."""
    connection = await connect(postgres_url, WRITER)
    tx = Transaction(connection)
    await tx.execute("BEGIN")
    yield tx
    await close(connection)


async def commit(tx: Transaction) -> None:
    await flush(tx)
    await tx.execute("COMMIT")


async def two_running(store: PostgresStore) -> tuple[Made, Claimed, Claimed]:
    """Store a batch of two members, which both run."""
    one, two = new(), new()
    made = await a_batch(store, one, two)
    running = await claim_all(store)
    return made, running[one.id], running[two.id]


# -- the end of a batch ----------------------------------------------------------------------------


async def no_lock(*_: object) -> None:
    """Stand in for a lock."""


@pytest.mark.parametrize("locked", [False, True], ids=["without the lock", "with the lock"])
async def test_prototype_of_two_sessions_stopped_between_the_end_of_a_member_and_the_look(
    store: PostgresStore,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    locked: bool,
) -> None:
    made, one, two = await two_running(store)
    (seq,) = {one.batch, two.batch}
    assert seq is not None
    if not locked:
        monkeypatch.setattr(batch_locks, "hold", no_lock)
    connections = [await connect(postgres_url, WRITER) for _ in range(2)]
    sessions = [Transaction(one) for one in connections]
    ends = [Needed(job.id, seq, "succeeded") for job in (one, two)]
    for tx, job in zip(sessions, (one, two), strict=True):
        await tx.execute("BEGIN")
        await settle._succeed(tx, [succeeded(job)])
    # Here both stand: each has ended its member, and sees the other one running.
    first, second = sessions
    effects = Effects(), Effects()
    await batch_locks.hold(first, [seq])
    await edges.reconcile(first, NOW, [ends[0]], effects[0])
    if locked:
        holding = await waiting(postgres_url, batch_locks.hold(second, [seq]))
        await first.execute("COMMIT")
        await holding
    await edges.reconcile(second, NOW, [ends[1]], effects[1])
    if not locked:
        await first.execute("COMMIT")
    await second.execute("COMMIT")
    for one_of_both in connections:
        await close(one_of_both)
    state = (await batch_row(store, made.id)).state
    assert effects[0].ended == ()
    assert (effects[1].ended, state) == (((made.id,), "succeeded") if locked else ((), "running"))
    if not locked:
        monkeypatch.undo()
        (broken,) = await store.workflows.check(limit=5)
        assert broken.rule == "a batch runs although none of its members is unfinished"
        async with store._access._others.connection() as connection:  # type: ignore[union-attr]
            tx = Transaction(connection)
            await tx.execute("BEGIN")
            await edges.finish(tx, NOW, [seq], Effects())
            await tx.execute("COMMIT")


async def test_last_members_that_end_in_two_rounds_at_once_end_the_batch_once(
    store: PostgresStore, postgres_url: str
) -> None:
    made, one, two = await two_running(store)
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(one)])) as (first, commit):
        assert first.ended == ()
        both = Round(NOW, outcomes=[succeeded(two)], claim=claim_of(tasks=TASKS))
        ending = await waiting(postgres_url, store.write(both))
        await commit()
        written = await ending
    assert list(written.ended) == [made.id]
    assert {job.id for job in written.claimed} == {made.then, made.at_end}


async def test_member_that_ends_while_the_last_other_one_is_cancelled_ends_the_batch(
    store: PostgresStore, postgres_url: str
) -> None:
    waits, runs = new(run_at=NOW + HOUR), new()
    made = await a_batch(store, waits, runs)
    running = await claim_all(store)
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(running[runs.id])])) as (
        first,
        commit,
    ):
        assert first.ended == ()
        cancelling = await waiting(postgres_url, store.jobs.cancel(waits.id, now=NOW))
        await commit()
        await cancelling
    assert (await batch_row(store, made.id)).state == "failed"


async def test_member_that_expires_while_the_last_other_one_ends_ends_the_batch(
    store: PostgresStore, postgres_url: str
) -> None:
    waits, runs = new(expires_at=NOW + SECOND), new(priority=9)
    made = await a_batch(store, waits, runs)
    (running,) = (await store.write(Round(NOW, claim=claim_of(tasks=TASKS, slots=1)))).claimed
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(running)])) as (_, commit):
        expiring = Round(NOW + HOUR, promote_due=True)
        ending = await waiting(postgres_url, store.write(expiring))
        await commit()
        assert list((await ending).ended) == [made.id]


async def test_member_of_a_dead_worker_ends_the_batch_beside_the_last_other_one(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.workers.join(worker_row(OTHER_WORKER), lambda: None)
    one, two = new(max_attempts=1), new()
    made = await a_batch(store, one, two)
    first = Round(NOW, claim=claim_of(tasks=TASKS, slots=1, worker=WORKER))
    (ours,) = (await store.write(first)).claimed
    running = Round(NOW, claim=claim_of(tasks=TASKS, slots=1, worker=OTHER_WORKER))
    (theirs,) = (await store.write(running)).claimed
    assert {ours.id, theirs.id} == {one.id, two.id}
    await store.jobs.cancel(theirs.id, now=NOW)
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(ours)])) as (_, commit):
        leaving = await waiting(postgres_url, store.workers.leave(OTHER_WORKER, now=NOW))
        await commit()
        await leaving
    assert (await batch_row(store, made.id)).state == "failed"


# -- members that come late --------------------------------------------------------------------------


async def test_member_added_while_the_batch_ends_is_refused(
    store: PostgresStore, postgres_url: str
) -> None:
    made = await a_batch(store, new())
    (running,) = (await claim_all(store)).values()
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(running)])) as (first, commit):
        assert list(first.ended) == [made.id]
        adding = await waiting(postgres_url, add(store, made.id, new()))
        await commit()
        with pytest.raises(BatchEnded):
            await adding
    assert (await batch_row(store, made.id)).total == 1


async def test_batch_does_not_end_while_a_member_is_being_added(
    store: PostgresStore, postgres_url: str
) -> None:
    made = await a_batch(store, new())
    (running,) = (await claim_all(store)).values()
    late = new()
    adding = Round(NOW, batches=[BatchEnqueue(made.id, [late], (), ())])
    async with stopped(postgres_url, adding) as (first, commit):
        assert isinstance(first.batches[0], BatchEnqueued)
        ending = await waiting(postgres_url, settle_in(store, succeeded(running)))
        await commit()
        assert list((await ending).ended) == []
    await settle_in(store, succeeded((await claim_all(store))[late.id]))
    assert (await batch_row(store, made.id)).state == "succeeded"


async def test_late_member_that_needs_one_that_ends_meanwhile_starts(
    store: PostgresStore, postgres_url: str
) -> None:
    first, keeps = new(), new(run_at=NOW + HOUR)
    made = await a_batch(store, first, keeps)
    (running,) = (await claim_all(store)).values()
    late = new()
    adding = Round(NOW, batches=[BatchEnqueue(made.id, [late], (), needs(late, first))])
    async with stopped(postgres_url, adding) as (_, commit):
        ending = await waiting(postgres_url, settle_in(store, succeeded(running)))
        await commit()
        await ending
    assert await states_of(store, [late]) == ["queued"]


async def test_members_that_a_success_adds_to_a_batch_that_is_being_cancelled_are_cancelled_too(
    store: PostgresStore, other: Transaction, postgres_url: str
) -> None:
    made = await a_batch(store, new())
    (running,) = (await claim_all(store)).values()
    await batch_locks.hold(other, (), [made.id])
    await other.execute(
        "UPDATE jobrunner.batches SET cancelled_at = $1 WHERE id = $2", NOW, made.id
    )
    late = new()._replace(batch=running.batch)
    success = succeeded(running)._replace(enqueues=[late])
    ending = await waiting(postgres_url, settle_in(store, success))
    await commit(other)
    assert (await ending).more_due
    await quiet(store)
    assert await states_of(store, [late]) == ["cancelled"]
    assert (await batch_row(store, made.id)).state == "cancelled"


# -- edges -----------------------------------------------------------------------------------------


async def test_job_behind_two_that_end_at_once_is_let_go_by_the_second(
    store: PostgresStore, postgres_url: str
) -> None:
    left, right, sink = new(), new(), new()
    await a_batch(store, left, right, sink, edges=needs(sink, left, right))
    running = await claim_all(store)
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(running[left.id])])) as (
        _,
        commit,
    ):
        ending = await waiting(postgres_url, settle_in(store, succeeded(running[right.id])))
        await commit()
        await ending
    assert await states_of(store, [sink]) == ["queued"]


async def test_job_that_waits_for_a_signal_and_a_batch_goes_on_when_both_come_at_once(
    store: PostgresStore, postgres_url: str
) -> None:
    """The waiting job's row is locked before its edges are changed, and asked afterwards whether any is unmet."""
    parent = await claim_one(store)
    child = new()
    children = request(child, callbacks=(), parent=parent.id)
    assert isinstance(children.batch, NewBatch)
    waits = [Edge(parent.id, children.batch.id, "end"), Edge(parent.id, "!approved", "end")]
    park = Parked(parent, Ended("released", NOW), None, waits, (), children)
    await settle_in(store, park)
    running = (await claim_all(store))[child.id]
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(running)])) as (_, commit):
        signalling = await waiting(
            postgres_url, store.workflows.signal(parent.id, "approved", "1", now=NOW)
        )
        await commit()
        assert await signalling
    assert await states_of(store, [parent.id]) == ["queued"]


async def test_callback_that_is_cancelled_while_its_batch_ends_stays_cancelled(
    store: PostgresStore, other: Transaction, postgres_url: str
) -> None:
    made = await a_batch(store, new())
    (running,) = (await claim_all(store)).values()
    await control.cancel(other, made.then, NOW)
    ending = await waiting(postgres_url, settle_in(store, succeeded(running)))
    await commit(other)
    await ending
    assert await states_of(store, made.callbacks) == ["cancelled", "cancelled", "queued"]
    graph = await store.workflows.graph(made.id, limit=9)
    assert graph is not None
    assert {edge.state for edge in graph.edges if edge.job == made.then} == {"void"}


async def test_replay_waits_for_the_end_that_it_undoes(
    store: PostgresStore, other: Transaction, postgres_url: str
) -> None:
    root, child = new(), new()
    made = await a_batch(store, root, child, new(run_at=NOW + HOUR), edges=needs(child, root))
    await settle_in(store, dead((await claim_all(store))[root.id]))
    assert await states_of(store, [child]) == ["cancelled"]
    await dead_letters.replay(other, root.id, NOW)
    # It revives the child; a cancel of the batch meanwhile must see it.
    cancelling = await waiting(postgres_url, store.workflows.cancel(made.id, now=NOW))
    await commit(other)
    await cancelling
    await quiet(store)
    assert await states_of(store, [root, child]) == ["cancelled", "cancelled"]
    assert (await batch_row(store, made.id)).state == "cancelled"


async def test_key_that_is_taken_while_a_replay_revives_its_job_keeps_it_cancelled(
    store: PostgresStore, other: Transaction, postgres_url: str
) -> None:
    root, keyed, plain = new(), new(key="k"), new()
    await a_batch(store, root, keyed, plain, edges=[*needs(keyed, root), *needs(plain, root)])
    await settle_in(store, dead((await claim_all(store))[root.id]))
    await other.execute(
        "INSERT INTO jobrunner.jobs (state, id, task, queue, args, created_at, run_at, priority, key)"
        " VALUES ('scheduled', 'holder', 'work', 'default', '{}', $1, $1, 0, 'k')",
        NOW + HOUR,
    )
    replaying = await waiting(postgres_url, store.dead_letters.replay(root.id, now=NOW))
    await commit(other)
    await replaying
    assert await states_of(store, [keyed, plain]) == ["cancelled", "blocked"]


# -- signals and parks -------------------------------------------------------------------------------


async def test_signal_that_comes_while_the_park_is_not_committed_wakes_the_job(
    store: PostgresStore, postgres_url: str
) -> None:
    job = await claim_one(store)
    async with stopped(postgres_url, Round(NOW, outcomes=[parked(job, "approved")])) as (_, commit):
        signalling = await waiting(
            postgres_url, store.workflows.signal(job.id, "approved", "1", now=NOW)
        )
        await commit()
        assert await signalling
    assert await states_of(store, [job.id]) == ["queued"]


async def test_park_that_comes_while_the_signal_is_not_committed_queues_the_job(
    store: PostgresStore, other: Transaction, postgres_url: str
) -> None:
    job = await claim_one(store)
    assert await steps.signal(other, job.id, "approved", "1", NOW)
    parking = await waiting(postgres_url, settle_in(store, parked(job, "approved")))
    await commit(other)
    assert (await parking).left_queued
    assert await states_of(store, [job.id]) == ["queued"]


async def test_park_for_a_batch_that_ends_meanwhile_queues_the_job(
    store: PostgresStore, postgres_url: str
) -> None:
    parent = await claim_one(store)
    made = await a_batch(store, new(), parent=parent.id)
    (running,) = (await claim_all(store)).values()
    wait = Edge(parent.id, made.id, "end")
    async with stopped(postgres_url, Round(NOW, outcomes=[succeeded(running)])) as (_, commit):
        park = Parked(parent, Ended("released", NOW), None, [wait])
        parking = await waiting(postgres_url, settle_in(store, park))
        await commit()
        await parking
    assert await states_of(store, [parent.id]) == ["queued"]


async def test_time_out_and_signal_at_once_leave_one_memo(
    store: PostgresStore, postgres_url: str
) -> None:
    job = await claim_one(store)
    late = Memo(job, "signal", "approved", None)
    async with stopped(postgres_url, Round(NOW, memos=[late])) as (first, commit):
        assert list(first.memos) == [True]
        signalling = await waiting(
            postgres_url, store.workflows.signal(job.id, "approved", "1", now=NOW)
        )
        await commit()
        assert not await signalling
    (memo,) = await store.workflows.steps(job.seq)
    assert memo.value is None


async def test_memo_that_is_not_committed_makes_whoever_takes_the_job_away_wait(
    store: PostgresStore, postgres_url: str
) -> None:
    """Else the next attempt would read the memos before it is there, and do the step again."""
    await store.workers.join(worker_row(WORKER), lambda: None)
    job = await claim_one(store)
    memo = Memo(job, "step", "charge", "7")
    async with stopped(postgres_url, Round(NOW, memos=[memo])) as (first, commit):
        assert list(first.memos) == [True]
        leaving = await waiting(postgres_url, store.workers.leave(WORKER, now=NOW))
        await commit()
        await leaving
    assert [step.value for step in await store.workflows.steps(job.seq)] == ["7"]


# -- cancel in slices ------------------------------------------------------------------------------


async def test_member_that_a_claim_holds_is_asked_to_stop_by_the_cancel_of_its_batch(
    store: PostgresStore, postgres_url: str
) -> None:
    held, free = new(priority=9), new()
    made = await a_batch(store, held, free)
    async with stopped(postgres_url, Round(NOW, claim=claim_of(tasks=TASKS, slots=1))) as (
        first,
        commit,
    ):
        (claimed,) = first.claimed
        await store.workflows.cancel(made.id, now=NOW)
        sweeping = await waiting(postgres_url, store.write(Round(NOW, promote_due=True)))
        await commit()
        await sweeping
    await quiet(store)
    assert await states_of(store, [held, free]) == ["running", "cancelled"]
    assert await store.jobs.cancel_requests(WORKER) == [(claimed.seq, claimed.lease)]
    assert (await batch_row(store, made.id)).state == "running"


async def test_claims_pass_over_members_that_a_slice_is_about_to_cancel(
    store: PostgresStore, postgres_url: str
) -> None:
    made = await a_batch(store, *(new() for _ in range(5)))
    alone = new(priority=-1)
    await enqueue(store, alone)
    await store.workflows.cancel(made.id, now=NOW)
    async with stopped(postgres_url, Round(NOW, promote_due=True)) as (_, commit):
        assert set(await claim_all(store)) == {alone.id}
        await commit()
    assert (await batch_row(store, made.id)).state == "cancelled"


async def test_slice_that_another_process_does_is_done_once(
    store: PostgresStore, postgres_url: str
) -> None:
    made = await a_batch(store, *(new() for _ in range(5)))
    await store.workflows.cancel(made.id, now=NOW)
    async with stopped(postgres_url, Round(NOW, promote_due=True)) as (_, commit):
        # It does not wait: its claims would wait too.
        assert (await store.write(Round(NOW, promote_due=True))).more_due
        await commit()
    assert not (await store.write(Round(NOW, promote_due=True))).more_due
    row = await batch_row(store, made.id)
    assert (row.state, row.cancelled) == ("cancelled", 5)


# -- opposite orders -------------------------------------------------------------------------------


async def test_deadlock_of_two_batches_is_run_again(
    store: PostgresStore, other: Transaction, postgres_url: str
) -> None:
    """A parent is cancelled while the last child ends: one holds the parent's row, the other one the batch."""
    parent = await claim_one(store)
    child = new()
    children = request(child, callbacks=(), parent=parent.id)
    assert isinstance(children.batch, NewBatch)
    wait = Edge(parent.id, children.batch.id, "end")
    park = Parked(parent, Ended("released", NOW), None, [wait], (), children)
    await settle_in(store, park)
    running = (await claim_all(store))[child.id]
    await other.execute("SELECT FROM jobrunner.jobs WHERE id = $1 FOR NO KEY UPDATE", parent.id)
    ending = await waiting(postgres_url, settle_in(store, succeeded(running)))
    # It holds the batch and waits for the parent; now this one waits for the batch.
    await other.execute("SET deadlock_timeout = '10s'")
    await batch_locks.hold(other, (), [children.batch.id])
    assert not ending.done()
    await commit(other)
    written = await ending
    assert list(written.ended) == [children.batch.id]
    assert await states_of(store, [parent.id]) == ["queued"]


Verb = Callable[[PostgresStore, Claimed, str], Awaitable[object]]
"""Changes a batch, of which a job runs and another one is dead."""

VERBS: Final[dict[str, Verb]] = {
    "settle": lambda store, running, _: settle_in(store, succeeded(running)),
    "cancel": lambda store, running, _: store.jobs.cancel(running.id, now=NOW),
    "cancel_all": lambda store, _running, _: store.jobs.cancel_all(
        Filter(), before=None, now=NOW, limit=9
    ),
    "leave": lambda store, running, _: store.workers.leave(running.worker, now=NOW),
    "replay": lambda store, _, letter: store.dead_letters.replay(letter, now=NOW),
    "replay_all": lambda store, _running, _: store.dead_letters.replay_all(
        Filter(), before=None, now=NOW, limit=9
    ),
    "delete": lambda store, _, letter: store.dead_letters.delete(letter),
    "delete_all": lambda store, _running, _: store.dead_letters.delete_all(
        Filter(), before=None, limit=9
    ),
}


@pytest.mark.parametrize("verb", sorted(VERBS))
async def test_transaction_that_waits_for_a_batch_holds_none_of_its_jobs(
    store: PostgresStore, other: Transaction, postgres_url: str, verb: str
) -> None:
    """Else it and a round that holds the batch, and wants to let one of them go, would wait for each other."""
    one, two = new(), new()
    made = await a_batch(store, one, two)
    running = await claim_all(store)
    await settle_in(store, dead(running[two.id]))
    await batch_locks.hold(other, (), [made.id])
    acting = await waiting(postgres_url, VERBS[verb](store, running[one.id], two.id))
    for table in ("jobs", "dead_letters"):
        await other.fetch(f"SELECT FROM jobrunner.{table} FOR NO KEY UPDATE NOWAIT")
    await commit(other)
    await acting
