"""Rounds of a group commit that fail, and the errors of their callers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobrunner.core.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreOutcomeUnknown,
    StoreUnavailable,
)
from jobrunner.store.committer import Committer
from tests.support.committers import hold, line_up
from tests.support.factories import claim_one, dead, new, row_of, succeeded
from tests.support.faulty import Fault, FaultyStore


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[FaultyStore]:
    store = FaultyStore(tmp_db)
    await store.open()
    yield store
    await store.close()


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
    waiting = line_up(committer, [[new() for _ in range(1_500)] for _ in range(3)])
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
    (waiting,) = line_up(committer, [[new()]])
    committer.fail(StoreCorrupt("somebody else has seen it"))
    with pytest.raises(StoreCorrupt):
        await waiting
    with pytest.raises(StoreCorrupt):
        await committer.submit([new()])
    store.gate.set()
    assert len(await first) == 1  # it was on its way, and is told the truth
