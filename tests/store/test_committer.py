"""Group commit: the items of each round, and the errors of their callers if one fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

from jobrunner.core.errors import (
    InvalidOptions,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreOutcomeUnknown,
    StoreUnavailable,
)
from jobrunner.core.histogram import Histogram
from jobrunner.core.model import Claim, Claimed, Enqueue, Enqueued, Filter, Progressed
from jobrunner.store.committer import BYTES_PER_ROUND, ROWS_PER_CALL, ROWS_PER_ROUND, Committer
from jobrunner.store.round import Round, Written
from jobrunner.store.statistics import StatisticsRow
from tests.support.factories import (
    MINUTE,
    NOW,
    WORKER,
    claim_of,
    claim_one,
    dead,
    new,
    row_of,
    succeeded,
    worker_row,
)
from tests.support.faulty import Fault, FaultyStore


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[FaultyStore]:
    store = FaultyStore(tmp_db)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def committer(store: FaultyStore) -> AsyncIterator[Committer]:
    committer = Committer(store)
    committer.start()
    yield committer
    store.gate.set()
    await committer.close()


async def hold(store: FaultyStore, committer: Committer) -> "asyncio.Task[list[Enqueued]]":
    """Shut the gate behind a first round, so that what comes now gathers for the next."""
    store.gate.clear()
    store.entered.clear()
    first = asyncio.create_task(committer.submit([new()]))
    await store.entered.wait()
    return first


async def line_up(
    committer: Committer, units: Sequence[Sequence[Enqueue]]
) -> "list[asyncio.Task[list[Enqueued]]]":
    """Start one caller for each unit, and see all of them in the line."""
    tasks = [asyncio.create_task(committer.submit(jobs)) for jobs in units]
    while len(committer._units) < len(units):
        await turn()
    return tasks


async def turn() -> None:
    """Let the loop go round once."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def stored(store: FaultyStore) -> int:
    number, before = 0, None
    while True:
        page = await store.jobs.list(Filter(), before=before, limit=100_000)
        number, before = number + len(page.rows), page.next
        if before is None:
            return number


# -- rounds -----------------------------------------------------------------------------------------


async def test_enqueue_returns_what_was_stored_in_the_order_given(
    store: FaultyStore, committer: Committer
) -> None:
    jobs = [new(), new(key="key"), new(key="key"), new()]
    made = await committer.submit(jobs)
    assert [one.id for one in made] == [jobs[0].id, jobs[1].id, jobs[1].id, jobs[3].id]
    assert [one.created for one in made] == [True, True, False, True]
    for job in (jobs[0], jobs[1], jobs[3]):
        assert (await row_of(store, job.id)).state == "queued"


async def test_enqueue_of_nothing_writes_nothing(store: FaultyStore, committer: Committer) -> None:
    assert await committer.submit([]) == []
    assert store.rounds == []


async def test_enqueue_by_many_callers_while_a_round_is_written_shares_the_next(
    store: FaultyStore, committer: Committer
) -> None:
    first = await hold(store, committer)
    tasks = await line_up(committer, [[new()] for _ in range(500)])
    store.gate.set()
    await asyncio.gather(first, *tasks)
    assert [len(request.enqueues) for request in store.rounds] == [1, 500]


async def test_a_round_carries_no_more_rows_than_its_share(
    store: FaultyStore, committer: Committer
) -> None:
    first = await hold(store, committer)
    tasks = await line_up(committer, [[new(), new(), new()] for _ in range(1_500)])
    store.gate.set()
    await asyncio.gather(first, *tasks)
    sizes = [len(request.enqueues) for request in store.rounds]
    assert sum(sizes) == 1 + 4_500
    assert max(sizes) == ROWS_PER_ROUND - ROWS_PER_ROUND % 3
    assert await stored(store) == 4_501


async def test_a_round_carries_no_more_bytes_than_its_share(
    store: FaultyStore, committer: Committer
) -> None:
    first = await hold(store, committer)
    text = "x" * (1 << 20)
    tasks = await line_up(committer, [[new(args=f'"{text}"')] for _ in range(7)])
    store.gate.set()
    await asyncio.gather(first, *tasks)
    for request in store.rounds:
        assert sum(len(job.args) for job in request.enqueues) <= BYTES_PER_ROUND
    assert [len(request.enqueues) for request in store.rounds] == [1, 3, 3, 1]


async def test_a_round_serves_callers_in_order_of_arrival(
    store: FaultyStore, committer: Committer
) -> None:
    """A caller with ten thousand jobs waits like everybody else, and keeps nobody from their turn."""
    first = await hold(store, committer)
    units = [
        [new()],
        [new() for _ in range(5_000)],
        [new()],
        [new() for _ in range(3_000)],
        [new()],
    ]
    tasks = await line_up(committer, units)
    store.gate.set()
    await asyncio.gather(first, *tasks)
    assert [len(request.enqueues) for request in store.rounds] == [1, 1, 5_000, 1, 3_000, 1]


async def test_enqueue_of_10_000_at_once_is_one_transaction(
    store: FaultyStore, committer: Committer
) -> None:
    made = await committer.submit([new() for _ in range(ROWS_PER_CALL)])
    assert len(made) == 10_000
    assert [len(request.enqueues) for request in store.rounds] == [10_000]


async def test_enqueue_of_more_than_10_000_at_once_is_refused_with_the_way_to_slice(
    store: FaultyStore, committer: Committer
) -> None:
    with pytest.raises(InvalidOptions, match=r"10,000 jobs at most, not 10,001.*once per slice"):
        await committer.submit([new() for _ in range(ROWS_PER_CALL + 1)])
    assert store.rounds == []


async def test_enqueue_of_many_that_fails_stores_none_of_them(
    store: FaultyStore, committer: Committer
) -> None:
    store.faults[1] = Fault("before", StoreFull("no room"))
    with pytest.raises(StoreFull):
        await committer.submit([new() for _ in range(100)])
    assert await stored(store) == 0


async def test_outcomes_ride_with_enqueues_in_one_round(
    store: FaultyStore, committer: Committer
) -> None:
    job = await claim_one(store)
    store.rounds.clear()
    committer.settle(succeeded(job))
    await committer.submit([new()])
    (request,) = store.rounds
    assert (len(request.outcomes), len(request.enqueues)) == (1, 1)
    assert (await row_of(store, job.id)).state == "succeeded"


async def test_flushed_returns_when_everything_handed_in_is_written(
    store: FaultyStore, committer: Committer
) -> None:
    await committer.flushed()
    job = await claim_one(store)
    committer.settle(succeeded(job))
    await committer.flushed()
    assert (await row_of(store, job.id)).state == "succeeded"


async def test_a_round_without_a_worker_rings_the_others(
    store: FaultyStore, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings: list[None] = []
    monkeypatch.setattr(store.workers, "notify", lambda: rings.append(None))
    await committer.submit([new()])
    assert len(rings) == 1


# -- callers that go away ------------------------------------------------------------------------------


async def test_enqueue_cancelled_in_the_line_stores_nothing(
    store: FaultyStore, committer: Committer
) -> None:
    first = await hold(store, committer)
    mine, other = new(), new()
    gone, stays = await line_up(committer, [[mine], [other]])
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    store.gate.set()
    await asyncio.gather(first, stays)
    assert await store.jobs.get(mine.id) is None
    assert (await row_of(store, other.id)).state == "queued"


async def test_C3_enqueue_cancelled_while_its_round_is_written_is_stored_all_the_same(
    store: FaultyStore, committer: Committer
) -> None:
    store.gate.clear()
    jobs = [new(), new()]
    tasks = [asyncio.create_task(committer.submit([job])) for job in jobs]
    await store.entered.wait()
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    store.gate.set()
    await tasks[1]
    await committer.flushed()
    assert [(await row_of(store, job.id)).state for job in jobs] == ["queued", "queued"]


async def test_C1_cancel_storm_on_enqueue_stores_each_unit_whole_or_not_at_all(
    store: FaultyStore, committer: Committer
) -> None:
    units = [[new(tag=f"unit {n}") for _ in range(5)] for n in range(100)]
    tasks = [asyncio.create_task(committer.submit(unit)) for unit in units]
    for n, task in enumerate(tasks):
        if n % 3 == 0:
            await turn()
        if n % 2 == 0:
            task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await committer.flushed()
    for n, answer in enumerate(answers):
        rows = (await store.jobs.list(Filter(tag=f"unit {n}"), before=None, limit=10)).rows
        assert len(rows) in ({0, 5} if isinstance(answer, asyncio.CancelledError) else {5})


# -- rounds that fail ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreBusy("busy"), StoreFull("full"), StoreUnavailable("gone")])
async def test_enqueue_in_a_round_that_fails_is_told_and_can_be_tried_again(
    store: FaultyStore, committer: Committer, error: StoreError
) -> None:
    store.faults[1] = Fault("before", error)
    job = new()
    with pytest.raises(type(error)):
        await committer.submit([job])
    assert committer.error is error
    assert await store.jobs.get(job.id) is None
    (made,) = await committer.submit([job])
    assert made.created
    assert committer.error is None


async def test_C2_enqueue_whose_reply_is_lost_is_resolved_by_its_id(
    store: FaultyStore, committer: Committer
) -> None:
    store.faults[1] = Fault("after", StoreOutcomeUnknown("who knows"))
    job = new(key="key")
    with pytest.raises(StoreOutcomeUnknown):
        await committer.submit([job])
    (again,) = await committer.submit([job])
    assert (again.id, again.created) == (job.id, False)


@pytest.mark.parametrize("times", [1, 3])
async def test_H11_outcomes_of_a_round_that_fails_are_kept_and_written_later(
    store: FaultyStore, committer: Committer, times: int
) -> None:
    first, second = await claim_one(store), await claim_one(store)
    done = len(store.rounds)
    for n in range(times):
        store.faults[done + n + 1] = Fault("before", StoreFull("no room"))
    committer.settle(succeeded(first, '"one"'))
    committer.settle(dead(second))
    await committer.flushed()
    assert len(store.rounds) == done + times + 1
    assert (await row_of(store, first.id)).result == '"one"'
    assert (await row_of(store, second.id)).state == "dead"


async def test_H11_outcomes_whose_reply_is_lost_are_written_once(
    store: FaultyStore, committer: Committer
) -> None:
    job = await claim_one(store)
    store.faults[len(store.rounds) + 1] = Fault("after", StoreOutcomeUnknown("who knows"))
    committer.settle(succeeded(job, '"one"'))
    await committer.flushed()
    assert (await row_of(store, job.id)).result == '"one"'
    assert len(await store.jobs.attempts(job.seq)) == 1


async def test_outcomes_that_came_meanwhile_are_written_after_those_that_failed(
    store: FaultyStore, committer: Committer
) -> None:
    jobs = [await claim_one(store) for _ in range(4)]
    store.rounds.clear()
    store.faults[1] = Fault("before", StoreBusy("busy"))
    store.gate.clear()
    store.entered.clear()
    committer.settle(succeeded(jobs[0]))
    committer.settle(succeeded(jobs[1]))
    await store.entered.wait()
    committer.settle(succeeded(jobs[2]))
    committer.settle(succeeded(jobs[3]))
    store.gate.set()
    await committer.flushed()
    assert [one.job.id for one in store.rounds[1].outcomes] == [job.id for job in jobs]


async def test_enqueue_goes_on_to_be_tried_while_outcomes_wait_for_a_full_disk(
    store: FaultyStore, committer: Committer
) -> None:
    job = await claim_one(store)
    store.always = Fault("before", StoreFull("no room"))
    committer.settle(succeeded(job))
    for _ in range(3):
        with pytest.raises(StoreFull):
            await committer.submit([new()])
    store.always = None
    await committer.submit([new()])
    await committer.flushed()
    assert (await row_of(store, job.id)).state == "succeeded"


# -- errors that end it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreCorrupt("damaged"), RuntimeError("a bug of ours")])
async def test_a_fatal_error_refuses_everything_from_then_on(
    store: FaultyStore, committer: Committer, error: Exception
) -> None:
    fatal: list[StoreError] = []
    committer.on_fatal = fatal.append
    store.faults[2] = Fault("before", error)
    store.always = Fault("before", AssertionError("no round may be tried any more"))
    store.faults[1] = Fault("before", StoreBusy("the first only gathers the others"))
    first = await hold(store, committer)
    waiting = await line_up(committer, [[new() for _ in range(1_500)] for _ in range(3)])
    store.gate.set()
    with pytest.raises(StoreBusy):
        await first
    for task in waiting:
        with pytest.raises(StoreFailed):
            await task
    assert len(fatal) == 1
    assert isinstance(fatal[0], StoreFailed)
    with pytest.raises(StoreFailed):
        await committer.submit([new()])
    await committer.flushed()
    assert len(store.rounds) == 2


async def test_fail_from_outside_refuses_those_who_wait_and_those_who_come(
    store: FaultyStore, committer: Committer
) -> None:
    first = await hold(store, committer)
    (waiting,) = await line_up(committer, [[new()]])
    committer.fail(StoreCorrupt("somebody else has seen it"))
    with pytest.raises(StoreCorrupt):
        await waiting
    with pytest.raises(StoreCorrupt):
        await committer.submit([new()])
    store.gate.set()
    assert len(await first) == 1  # it was on its way, and is told the truth


class Hand:
    """A worker that the test plays itself."""

    def __init__(self) -> None:
        self.claim: Claim | None = None
        self.look = False
        self.tasks = frozenset[str]()
        self.broken = False
        self.claimed: list[Claimed] = []
        self.failed: list[StoreError] = []
        self.progress: list[Progressed] = []
        self.statistics: list[StatisticsRow] = []
        self.last_statistics: list[StatisticsRow] = []
        """They are not due before the committer closes."""

    def next_claim(self) -> Claim | None:
        return self.claim

    def take_promote_due(self) -> bool:
        look, self.look = self.look, False
        return look

    def after_commit(self, request: Round, written: Written, took_s: float) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.claimed += written.claimed

    def take_statistics(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        rows, self.statistics = self.statistics, []
        if all_of_them:
            rows += self.last_statistics
        return rows

    def put_back_statistics(self, rows: Sequence[StatisticsRow]) -> None:
        self.statistics += rows

    def take_progress(self) -> Sequence[Progressed]:
        rows, self.progress = self.progress, []
        return rows

    def put_back_progress(self, rows: Sequence[Progressed]) -> None:
        self.progress += rows

    def warn_slow(self) -> None: ...

    def after_failure(self, request: Round, error: StoreError) -> None:
        self.failed.append(error)


async def test_a_worker_takes_part_in_each_round_and_hears_of_it(
    store: FaultyStore, committer: Committer
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    committer.participant = hand = Hand()
    hand.claim, hand.look = claim_of(slots=1), True
    job = new()
    await committer.submit([job])
    assert [one.id for one in hand.claimed] == [job.id]
    assert [request.promote_due for request in store.rounds] == [True]
    await committer.submit([new()])
    assert [request.promote_due for request in store.rounds] == [True, False]
    store.faults[3] = Fault("before", StoreBusy("busy"))
    with pytest.raises(StoreBusy):
        await committer.submit([new()])
    assert [type(error) for error in hand.failed] == [StoreBusy]
    await store.workers.leave(WORKER, now=0)


async def test_attempts_whose_outcomes_wait_for_a_later_round_are_held(
    store: FaultyStore, committer: Committer
) -> None:
    """The store has them as running, and a claim of jobs that the worker does not know must not return them."""
    await store.workers.join(worker_row(), lambda: None)
    many = ROWS_PER_ROUND + 1
    await store.write(Round(now=NOW, enqueues=[new() for _ in range(many)]))
    claimed = (await store.write(Round(now=NOW, claim=claim_of(slots=many)))).claimed
    committer.participant = hand = Hand()
    hand.claim = claim_of(slots=1)._replace(held=frozenset())
    for job in claimed:
        committer.settle(succeeded(job))
    await committer.flushed()
    assert hand.claimed == []
    await store.workers.leave(WORKER, now=NOW)


async def test_a_worker_that_breaks_stops_the_committer_and_leaves_nobody_waiting(
    store: FaultyStore, committer: Committer
) -> None:
    fatal: list[StoreError] = []
    committer.on_fatal = fatal.append
    committer.participant = hand = Hand()
    hand.broken = True
    await committer.submit([new()])
    await committer.flushed()
    assert len(fatal) == 1
    with pytest.raises(StoreFailed, match="ZeroDivisionError"):
        await committer.submit([new()])


# -- statistics -----------------------------------------------------------------------------------------


def of_task(task: str = "work") -> StatisticsRow:
    return StatisticsRow(
        NOW - NOW % MINUTE, "default", task, 1, 0, 0, Histogram([1]), Histogram([1])
    )


async def counted(store: FaultyStore) -> int:
    """Return how many attempts the statistics of the store have."""
    rows = await store.statistics.read(
        per="minute", since=NOW - NOW % MINUTE, until=NOW + MINUTE, by="time"
    )
    return sum(row.succeeded for row in rows)


async def test_statistics_are_written_with_the_next_round(
    store: FaultyStore, committer: Committer
) -> None:
    committer.participant = hand = Hand()
    hand.statistics = [of_task(), of_task("other")]
    await committer.submit([new()])
    assert [len(one.statistics) for one in store.rounds] == [2]
    assert await counted(store) == 2


@pytest.mark.parametrize("error", [StoreFull("no room"), StoreUnavailable("no table")])
async def test_round_that_fails_with_statistics_is_written_without_them(
    store: FaultyStore, committer: Committer, error: StoreError
) -> None:
    """As on a disk with room for the jobs alone: their callers see no error, and the outcome is settled."""
    job = await claim_one(store)
    committer.participant = hand = Hand()
    hand.statistics = [of_task()]
    store.faults[len(store.rounds) + 1] = Fault("before", error)
    committer.settle(succeeded(job))
    (made,) = await committer.submit([new()])
    assert (await row_of(store, made.id)).state == "queued"
    assert (await row_of(store, job.id)).state == "succeeded"
    assert (hand.failed, committer.error) == ([], None)
    assert (hand.statistics, await counted(store)) == ([of_task()], 0)
    await committer.submit([new()])
    assert (hand.statistics, await counted(store)) == ([], 1)


@pytest.mark.parametrize(
    "error", [StoreFull("no room"), StoreUnavailable("no table"), StoreOutcomeUnknown("no reply")]
)
async def test_progress_of_a_round_that_fails_is_written_with_a_later_one(
    store: FaultyStore, committer: Committer, error: StoreError
) -> None:
    job = await claim_one(store)
    committer.participant = hand = Hand()
    hand.progress = [Progressed(job, "[1,2,null]")]
    store.faults[len(store.rounds) + 1] = Fault("before", error)
    if isinstance(error, StoreOutcomeUnknown):
        with pytest.raises(StoreOutcomeUnknown):
            await committer.submit([new()])
    else:
        await committer.submit([new()])
    assert (await row_of(store, job.id)).progress is None
    await committer.submit([new()])
    await committer.flushed()
    assert (await row_of(store, job.id)).progress == "[1,2,null]"
    assert hand.progress == []


async def test_statistics_of_a_full_disk_are_tried_once_a_round(
    store: FaultyStore, committer: Committer
) -> None:
    committer.participant = hand = Hand()
    hand.statistics = [of_task()]
    store.always = Fault("before", StoreFull("no room"))
    with pytest.raises(StoreFull):
        await committer.submit([new()])
    assert [len(one.statistics) for one in store.rounds] == [1, 0]
    assert hand.statistics == [of_task()]
    store.always = None
    await committer.submit([new()])
    assert await counted(store) == 1


async def test_statistics_of_a_round_that_waited_too_long_are_written_later(
    store: FaultyStore, committer: Committer
) -> None:
    committer.participant = hand = Hand()
    hand.statistics = [of_task()]
    store.faults[1] = Fault("before", StoreBusy("busy"))
    with pytest.raises(StoreBusy):
        await committer.submit([new()])
    await committer.submit([new()])
    assert await counted(store) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_statistics_that_may_be_written_are_not_written_again(
    store: FaultyStore, committer: Committer, when: Literal["before", "after"]
) -> None:
    committer.participant = hand = Hand()
    hand.statistics = [of_task()]
    store.faults[1] = Fault(when, StoreOutcomeUnknown("who knows"))
    with pytest.raises(StoreOutcomeUnknown):
        await committer.submit([new()])
    await committer.submit([new()])
    assert hand.statistics == []
    assert await counted(store) == (1 if when == "after" else 0)


async def test_close_writes_the_last_statistics(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.participant = hand = Hand()
    committer.start()
    await committer.submit([new()])
    hand.last_statistics = [of_task()]
    await committer.close()
    assert await counted(store) == 1


async def test_close_ends_if_the_last_statistics_cannot_be_written(
    store: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    committer = Committer(store)
    committer.participant = hand = Hand()
    committer.start()
    await committer.submit([new()])
    hand.last_statistics = [of_task()]
    store.faults[len(store.rounds) + 2] = Fault("before", StoreFull("no room"))
    await committer.close()
    assert "the last statistics could not be written: no room" in caplog.text


# -- close ---------------------------------------------------------------------------------------------------


async def test_close_writes_what_was_handed_in(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.start()
    job = await claim_one(store)
    first = await hold(store, committer)
    committer.settle(succeeded(job))
    tasks = await line_up(committer, [[new()] for _ in range(10)])
    store.gate.set()
    await committer.close()
    assert len(await first) == 1
    assert all(one.created for (one,) in await asyncio.gather(*tasks))
    assert (await row_of(store, job.id)).state == "succeeded"


async def test_close_refuses_whoever_comes_later(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.start()
    await committer.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await committer.submit([new()])
    await committer.close()


async def test_close_of_one_that_was_never_started_refuses_those_who_wait(
    store: FaultyStore,
) -> None:
    committer = Committer(store)
    (waiting,) = await line_up(committer, [[new()]])
    await committer.close()
    with pytest.raises(StoreUnavailable):
        await waiting


async def test_close_on_a_store_that_stays_broken_ends_and_answers_everybody(
    store: FaultyStore,
) -> None:
    committer = Committer(store)
    committer.start()
    job = await claim_one(store)
    store.always = Fault("before", StoreFull("no room"))
    tasks = [await hold(store, committer)]
    committer.settle(succeeded(job))
    tasks += await line_up(committer, [[new() for _ in range(1_500)] for _ in range(3)])
    store.gate.set()
    await committer.close()
    for task in tasks:
        with pytest.raises(StoreFull):
            await task
    store.always = None
    # The process ends, and others find the job by the lock, as after a kill.
    assert (await row_of(store, job.id)).state == "running"


async def test_every_caller_is_answered_whatever_happens(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.start()
    for n in range(1, 40, 3):
        store.faults[n] = Fault("before", StoreBusy("busy"))
        store.faults[n + 1] = Fault("after", StoreOutcomeUnknown("who knows"))
    jobs = [new() for _ in range(300)]
    tasks = []
    for n, job in enumerate(jobs):
        tasks.append(asyncio.create_task(committer.submit([job])))
        if n % 7 == 0:
            await turn()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await committer.close()
    for job, answer in zip(jobs, answers, strict=True):
        row = await store.jobs.get(job.id)
        if isinstance(answer, list):
            assert row is not None
        elif isinstance(answer, StoreBusy):
            assert row is None
        else:
            assert isinstance(answer, StoreOutcomeUnknown)
    with contextlib.suppress(StoreError):
        await committer.submit([new()])
