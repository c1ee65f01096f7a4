"""A worker's part in the rounds of a group commit: claims, statistics, progress."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

from jobrunner.core.errors import (
    StoreBusy,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreOutcomeUnknown,
    StoreUnavailable,
)
from jobrunner.core.histogram import Histogram
from jobrunner.core.model import Claim, Claimed, Progressed
from jobrunner.store.committer import ROWS_PER_ROUND, Committer
from jobrunner.store.round import Round, Written
from jobrunner.store.statistics import StatisticsRow
from tests.support.factories import (
    MINUTE,
    NOW,
    WORKER,
    claim_of,
    claim_one,
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


# -- claims -----------------------------------------------------------------------------------------------


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
