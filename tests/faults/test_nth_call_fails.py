"""The N-th write fails, for every N: before it is written, or after its commit; once, or for ever after.

A story has a client, a worker and a committer on a store whose N-th round fails.  Then the process ends, and another
one on the same file, without faults, finishes the jobs that are left.  For every N, acknowledged jobs are stored and
finish, and finished jobs do not run again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final, Literal

import pytest

from jobrunner.core.clock import now_us
from jobrunner.core.errors import StoreBusy, StoreError, StoreOutcomeUnknown
from jobrunner.core.model import Claim, Claimed, Enqueue, Filter, Outcome, Progressed
from jobrunner.store.committer import Committer
from jobrunner.store.round import Round, Written
from jobrunner.store.statistics import StatisticsRow
from tests.support.factories import (
    OTHER_WORKER,
    OUTCOMES,
    WORKER,
    claim_of,
    new,
    worker_row,
)
from tests.support.faulty import Fault, FaultyStore

When = Literal["before", "after"]

# How the worker ends the attempts of each task, in turn; and the state that the job must come to.
SCRIPT: Final = {
    "good": (["succeeded"], "succeeded"),
    "again": (["retry", "retry", "succeeded"], "succeeded"),
    "later": (["snoozed", "released", "succeeded"], "succeeded"),
    "bad": (["retry", "dead"], "dead"),
    "stopped": (["cancelled"], "cancelled"),
}


class ScriptedWorker:
    """Claims whatever there is, and ends each attempt as its task's script says."""

    def __init__(self, worker: int, committer: Committer) -> None:
        self.worker = worker
        self.tasks = frozenset[str]()
        self.ran: list[Claimed] = []
        self.failed = asyncio.Event()
        self._committer = committer
        committer.participant = self

    def next_claim(self) -> Claim | None:
        return claim_of(worker=self.worker, tasks=SCRIPT)

    def take_promote_due(self) -> bool:
        return True

    def after_commit(self, request: Round, written: Written, took_s: float) -> None:
        for job in written.claimed:
            self.ran.append(job)
            self._committer.settle(self.outcome_of(job))

    def outcome_of(self, job: Claimed) -> Outcome:
        script, _ = SCRIPT[job.task]
        return OUTCOMES[script[min(job.lease, len(script)) - 1]](job)

    def take_statistics(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        return ()

    def put_back_statistics(self, rows: Sequence[StatisticsRow]) -> None:
        raise AssertionError(rows)

    def take_progress(self) -> Sequence[Progressed]:
        return ()

    def put_back_progress(self, rows: Sequence[Progressed]) -> None:
        raise AssertionError(rows)

    def warn_slow(self) -> None: ...

    def after_failure(self, request: Round, error: StoreError) -> None:
        self.failed.set()


async def ask(
    store: FaultyStore, committer: Committer, jobs: Sequence[Enqueue], *, patient: bool
) -> Sequence[str]:
    """Enqueue as a client does that wants its jobs stored: return the ids that it may rely on."""
    while True:
        try:
            made = await committer.submit(jobs)
        except StoreOutcomeUnknown:
            # By its ids it learns what became of it. All or none: it was one transaction.
            there = [job.id for job in jobs if await store.jobs.get(job.id) is not None]
            if there:
                assert len(there) == len(jobs)
                return there
        except StoreBusy:
            for job in jobs:
                assert await store.jobs.get(job.id) is None
        else:
            return [one.id for one in made]
        if not patient:
            return []


async def tell(store: FaultyStore, *, for_ever: bool) -> tuple[list[str], list[Claimed]]:
    """Play the story to its end, or until the store fails for ever; return the acknowledged jobs and the calls."""
    committer = Committer(store)
    worker = ScriptedWorker(WORKER, committer)
    await store.workers.join(worker_row(tasks=dict.fromkeys(SCRIPT)), lambda: None)
    committer.start()
    acked: list[str] = []
    stories = [
        [new("good")],
        [new("again"), new("later"), new("bad", key="bad")],
        [new("stopped")],
        [new("good", key="good")],
        [new("good", key="good")],
    ]
    for jobs in stories:
        acked += await ask(store, committer, jobs, patient=not for_ever)
    for _ in range(8):
        committer.wake()
        flushed = asyncio.ensure_future(committer.flushed())
        failed = asyncio.ensure_future(worker.failed.wait())
        ends = [flushed, failed] if for_ever else [flushed]
        await asyncio.wait(ends, return_when="FIRST_COMPLETED")
        for waiting in (flushed, failed):
            waiting.cancel()
        await asyncio.wait([flushed, failed])
        if for_ever and worker.failed.is_set():
            break
    await committer.close()
    return acked, worker.ran


async def finish(store: FaultyStore) -> list[Claimed]:
    """Be the next process: take over what is left, and run it to its end; return what ran."""
    await store.workers.recover(now=now_us(), thorough=True)
    committer = Committer(store)
    worker = ScriptedWorker(OTHER_WORKER, committer)
    await store.workers.join(worker_row(OTHER_WORKER, tasks=dict.fromkeys(SCRIPT)), lambda: None)
    committer.start()
    for _ in range(8):
        committer.wake()
        await committer.flushed()
    await committer.close()
    await store.workers.leave(OTHER_WORKER, now=now_us())
    return worker.ran


@asynccontextmanager
async def opened(store: FaultyStore) -> AsyncIterator[FaultyStore]:
    """Open a store, and close it without a word, as a killed process leaves it."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def assert_all_came_to_their_end(
    store: FaultyStore, acked: Sequence[str], ran: Sequence[Claimed]
) -> None:
    rows = list((await store.jobs.list(Filter(), before=None, limit=100)).rows)
    rows += (await store.dead_letters.list(Filter(), before=None, limit=100)).rows
    assert set(acked) <= {row.id for row in rows}
    for row in rows:
        assert row.state == SCRIPT[row.task][1], row
        attempts = await store.jobs.attempts(row.seq)
        ends = [one.outcome for one in attempts]
        assert None not in ends
        # An ending is written once, and nothing runs after it.
        last = "failed" if row.state == "dead" else row.state
        assert ends[-1] == last
        assert ends.count(last) == 1 or row.state == "dead"
        assert [one.lease for one in attempts] == list(range(1, len(attempts) + 1))
    # No attempt was granted twice.
    leases = [(job.seq, job.lease) for job in ran]
    assert len(leases) == len(set(leases))


@pytest.mark.slow
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_H11_the_nth_write_fails_and_nothing_acknowledged_is_lost_or_stuck(
    tmp_path: Path, when: When, for_ever: bool
) -> None:
    error = StoreBusy("busy") if when == "before" else StoreOutcomeUnknown("who knows")
    for n in count(1):
        path = tmp_path / f"{n}.db"
        store = FaultyStore(path)
        store.faults = dict.fromkeys(range(n, n + (1_000 if for_ever else 1)), Fault(when, error))
        async with opened(store):
            acked, ran = await tell(store, for_ever=for_ever)
        async with opened(FaultyStore(path)) as after:
            ran += await finish(after)
            await assert_all_came_to_their_end(after, acked, ran)
        assert for_ever or len(acked) == 7
        if len(store.rounds) < n:
            assert n > 5, "the story is too short to tell anything"
            break
