"""Group commit: callers share rounds, go away, and are answered when it closes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobrunner.core.errors import (
    InvalidOptions,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreOutcomeUnknown,
    StoreUnavailable,
)
from jobrunner.core.model import Filter
from jobrunner.store.committer import BYTES_PER_ROUND, ROWS_PER_CALL, ROWS_PER_ROUND, Committer
from tests.support.committers import hold, line_up, turn
from tests.support.factories import claim_one, new, row_of, succeeded
from tests.support.faulty import Fault, FaultyStore


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[FaultyStore]:
    store = FaultyStore(tmp_db)
    await store.open()
    yield store
    await store.close()


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
    tasks = line_up(committer, [[new()] for _ in range(500)])
    store.gate.set()
    await asyncio.gather(first, *tasks)
    assert [len(request.enqueues) for request in store.rounds] == [1, 500]


async def test_a_round_carries_no_more_rows_than_its_share(
    store: FaultyStore, committer: Committer
) -> None:
    first = await hold(store, committer)
    tasks = line_up(committer, [[new(), new(), new()] for _ in range(1_500)])
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
    tasks = line_up(committer, [[new(args=f'"{text}"')] for _ in range(7)])
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
    tasks = line_up(committer, units)
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
    gone, stays = line_up(committer, [[mine], [other]])
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
    tasks = [committer.submit([job]) for job in jobs]
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
    tasks = [committer.submit(unit) for unit in units]
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


# -- close ---------------------------------------------------------------------------------------------------


async def test_close_writes_what_was_handed_in(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.start()
    job = await claim_one(store)
    first = await hold(store, committer)
    committer.settle(succeeded(job))
    tasks = line_up(committer, [[new()] for _ in range(10)])
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
    (waiting,) = line_up(committer, [[new()]])
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
    tasks += line_up(committer, [[new() for _ in range(1_500)] for _ in range(3)])
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
        tasks.append(committer.submit([job]))
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
