"""Several processes whose slots all wait for each other's jobs: one attempt of one of them is refused, and no other."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import pytest

from jobrunner import Job, JobCancelled, JobDead, JobRunner, ResultTimeout, StoreOutcomeUnknown
from jobrunner.core.model import Claimed, JobRow
from jobrunner.core.wait_graph import Snapshot, WaitingAttempt, WaitReport
from jobrunner.store.protocol import Store
from jobrunner.worker.attempt import Wait
from jobrunner.worker.deadlock import Deadlocks
from tests.support.children import echo, hold, parent_of, runner, waits_for_batch
from tests.support.engine import (
    history,
    soon,
    stop_between_writes,
    store_of,
    stored,
    suspend,
    worker_of,
)
from tests.support.factories import NOW, OTHER_WORKER, claim_one, enqueue, new, row_of, worker_row
from tests.support.processes import Child, child

pytestmark = pytest.mark.each_store


WAIT_AS_WELL = (
    "wait for jobs of queue default; the other workers that could start them wait as well"
)

# -- processes ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def family(
    url: str, *slots: Mapping[str, int]
) -> AsyncIterator[tuple[JobRunner, Sequence[Child]]]:
    """Start a process that works for each, beside a client in this one."""
    async with AsyncExitStack() as stack:
        jobs = runner(url, queues={"default": 1, "left": 1, "right": 1})
        await stack.enter_async_context(jobs.running(work=False))
        started = [child("family", url, json.dumps(queues)) for queues in slots]
        others = [await stack.enter_async_context(one) for one in started]
        for one in others:
            await one.heard("open")
        yield jobs, others


async def problems_of(worker: Child) -> list[str]:
    """Return the problems of a worker's health."""
    worker.send("health")
    problems: list[str] = (await worker.heard("health"))["problems"]
    return problems


async def until_named(worker: Child, words: str) -> None:
    """Ask for a worker's health until it names a problem."""

    async def ask() -> None:
        while not any(words in one for one in await problems_of(worker)):
            pass

    await soon(ask())


async def until_well(worker: Child) -> None:
    """Ask for a worker's health until there is no problem."""

    async def ask() -> None:
        while await problems_of(worker):
            pass

    await soon(ask())


async def until_reported(jobs: JobRunner, *, nothing: bool = False) -> None:
    """Wait until some worker reports that it waits, or none does."""
    while any(row.wait_report.attempts for row in await store_of(jobs).workers.list()) is nothing:
        pass


async def ends_of(jobs: JobRunner, parents: Sequence[Job[Any]]) -> Counter[str | None]:
    """Return how the attempts of all parents have ended, once they all have got through."""
    for job in parents:
        assert await job.result(timeout=30) == "word"
    attempts = [one for job in parents for one in await history(jobs, job.id)]
    return Counter(one.error_type for one in attempts)


@pytest.mark.parametrize("number", [2, 3])
async def test_workers_full_of_parents_get_through_with_one_error(
    store_url: str, number: int
) -> None:
    """The common deployment: ``jobrunner serve --workers 2``."""
    async with family(store_url, *[{"default": 2}] * number) as (jobs, others):
        calls = [parent_of.call("word", "default") for _ in range(2 * number)]
        parents = await jobs.enqueue_many(calls)
        mail = await jobs.enqueue(echo, "mail")
        await until_named(others[0], f"all 2 slots of queue default {WAIT_AS_WELL}")
        assert await ends_of(jobs, parents) == {None: 2 * number, "Deadlock": 1}
        assert await mail.result(timeout=15) == "mail"
        for one in others:
            await until_well(one)
        await soon(until_reported(jobs, nothing=True))


async def test_workers_full_of_parents_of_batches_get_through_with_one_error(
    store_url: str,
) -> None:
    async with family(store_url, {"default": 2}, {"default": 2}) as (jobs, others):
        parents = await jobs.enqueue_many([waits_for_batch.call("word", "default")] * 4)
        await until_named(others[0], f"all 2 slots of queue default {WAIT_AS_WELL}")
        assert await ends_of(jobs, parents) == {None: 4, "Deadlock": 1}
        for one in others:
            await until_well(one)


async def test_queues_of_two_workers_that_wait_for_each_other_lose_one_attempt(
    store_url: str,
) -> None:
    async with family(store_url, {"left": 1}, {"right": 1}) as (
        jobs,
        (left, right),
    ):
        # In one commit: else the child of the first could run before the second holds the slot.
        parents = await jobs.enqueue_many(
            [
                parent_of.options(queue="left").call("word", "right"),
                parent_of.options(queue="right").call("word", "left"),
            ]
        )
        await until_named(
            left, "the one slot of queue left waits for jobs of queue right; the other"
        )
        assert await ends_of(jobs, parents) == {None: 2, "Deadlock": 1}
        await until_well(right)


async def test_worker_that_works_keeps_the_waits_of_the_other_from_being_refused(
    store_url: str,
) -> None:
    async with family(store_url, {"left": 1}, {"left": 1, "default": 1}) as (jobs, _):
        # Both slots of the queue wait for jobs of another one, which run one after another.
        parents = await jobs.enqueue_many(
            [parent_of.options(queue="left").call(str(n), "default") for n in range(40)]
        )
        assert [await job.result(timeout=30) for job in parents] == [str(n) for n in range(40)]
        ends = [one.error_type for job in parents for one in await history(jobs, job.id)]
        assert ends == [None] * 40


@pytest.mark.parametrize("end", ["goes on", "dies"])
async def test_stopped_worker_is_waited_for_until_it_goes_on_or_is_dead(
    store_url: str, end: str
) -> None:
    async with family(store_url, {"left": 1}, {"right": 1}) as (
        jobs,
        (left, right),
    ):
        held = await jobs.enqueue(hold.options(queue="right"), "the slot")
        await right.heard("held")
        # The first one waits for the slot, before the child of the other.
        parents = [
            await jobs.enqueue(parent_of.options(queue="right"), "word", "left"),
            await jobs.enqueue(parent_of.options(queue="left"), "word", "right"),
        ]
        await soon(until_reported(jobs))
        # From now on it reports nothing.
        await stop_between_writes(jobs, left.pid)
        await jobs.cancel(held.id)
        await until_named(right, "queue right waits for jobs of queue left; the other workers")
        with pytest.raises(ResultTimeout):
            await parents[1].result(timeout=4)
        assert [len(await history(jobs, job.id)) for job in parents] == [1, 1]
        async with AsyncExitStack() as stack:
            if end == "goes on":
                os.kill(left.pid, signal.SIGCONT)
            else:
                await left.kill()
                another = child("family", store_url, json.dumps({"left": 1}))
                await stack.enter_async_context(another)
            ends = await ends_of(jobs, parents)
        assert ends.pop("ProcessLost", 0) == (end == "dies")
        assert ends == {None: 2, "Deadlock": 1}


# -- step by step: this process, and another worker as it is seen ------------------------------------------


class Other:
    """Another worker with one slot, whose attempt waits for a job of its queue."""

    attempt: Claimed
    child: int
    """The job that it waits for, by ``seq``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.number = 0

    async def join(self) -> None:
        """Let it join."""
        await self._store.workers.join(
            worker_row(OTHER_WORKER, queues={"default": 1}), lambda: None
        )

    async def begin(self) -> None:
        """Let its attempt begin, and store what it waits for."""
        self.attempt = await claim_one(self._store, worker=OTHER_WORKER)
        (made,) = await enqueue(self._store, new())
        self.child = (await row_of(self._store, made.id)).seq

    async def reports(self, *, since: int = 1, waits: bool = True) -> None:
        """Let it report its attempt once more."""
        self.number += 1
        waiting = WaitingAttempt(
            *(OTHER_WORKER, self.attempt.seq, self.attempt.lease, "default"),
            *((self.child,), ("default",), (), since),
        )
        assert await self._store.workers.report_waits(
            OTHER_WORKER, WaitReport(self.number, [waiting] if waits else [])
        )


class Site:
    """A worker of this process whose only slot waits; the test calls its deadlock check."""

    def __init__(self, jobs: JobRunner, outer: Job[Any], inner: Job[Any]) -> None:
        self.jobs, self.outer, self.inner = jobs, outer, inner
        deadlocks = worker_of(jobs).deadlocks
        assert deadlocks is not None
        self.deadlocks: Deadlocks = deadlocks

    async def until_it_waits(self, *, but_not: Wait | None = None) -> None:
        """Wait until its attempt waits, and has read what it waits for."""
        while not any(
            wait.front is not None and wait is not but_not
            for one in self.deadlocks._holders()
            for wait in one.waits
        ):
            await self.row()

    def wait(self) -> Wait:
        """Return the wait of its attempt."""
        (attempt,) = self.deadlocks._holders()
        (wait,) = attempt.waits
        return wait

    async def row(self) -> JobRow:
        """Return the job of its attempt."""
        return await stored(self.jobs, self.outer.id)

    async def detect(self) -> bool:
        """Run its deadlock check; return whether it has refused its wait."""
        await self.deadlocks.detect()
        return self.wait().refused is not None

    async def report(self) -> WaitReport:
        """Return what it reports to the others."""
        rows = await store_of(self.jobs).workers.list()
        (report,) = (row.wait_report for row in rows if row.worker == worker_of(self.jobs).id)
        return report


@asynccontextmanager
async def site(
    url: str,
    *,
    slots: Mapping[str, int] = MappingProxyType({"default": 1}),
    queue: str = "default",
    timeout: float | None = None,
    other_first: bool = True,
) -> AsyncIterator[tuple[Site, Other]]:
    """Let both slots wait, without any deadlock check.

    Args:
        slots: the slots of this worker, of which one waits.
        queue: the queue of the job that it waits for.
        timeout: the timeout of the wait.
        other_first: True if the attempt of the other worker is the older one.
    """
    jobs = JobRunner(url, queues={"default": 1, "far": 1}, grace=0.1)
    ready: asyncio.Queue[Job[None]] = asyncio.Queue()

    @jobs.task
    async def inner() -> None: ...

    @jobs.task(max_attempts=1)
    async def outer() -> None:
        for _ in range(2):
            job = await inner.options(queue=queue).enqueue()
            ready.put_nowait(job)
            with suppress(JobCancelled):
                await job.result(timeout)

    async with jobs.running(queues=slots):
        store = store_of(jobs)
        await store.jobs.pause("far", now=NOW)
        other = Other(store)
        await other.join()
        if other_first:
            await other.begin()
        await worker_of(jobs).maintenance.peers.refresh()
        suspend(jobs, "deadlocks")
        await worker_of(jobs).maintenance.chores.all_ended()
        job = await outer.enqueue()
        if not other_first:
            await other.begin()
        one = Site(jobs, job, await soon(ready.get()))
        await soon(one.until_it_waits())
        yield one, other
        await store.workers.leave(OTHER_WORKER, now=NOW)


async def test_wait_is_refused_once_the_other_has_reported_twice_more_that_it_waits(
    store_url: str,
) -> None:
    async with site(store_url) as (one, other):
        await other.reports()
        assert not await one.detect()  # reports
        assert not await one.detect()  # sees that both wait
        assert [one.seq for one in (await one.report()).attempts] == [(await one.row()).seq]
        await other.reports()
        assert not await one.detect()
        await other.reports()
        assert await one.detect()
        # Nobody else refuses anything meanwhile, before the wait has been refused.
        await one.deadlocks.detect()
        assert (await one.report()).attempts == []
        with pytest.raises(JobDead):
            await one.outer.result(timeout=15)
        letter = await one.jobs.dead_letters.get(one.outer.id)
        assert letter.error_type == "Deadlock"
        assert "cannot start: all 2 slots of queue 'default' are held" in (letter.error or "")


async def test_what_the_other_has_reported_and_reports_no_longer_refuses_nothing(
    store_url: str,
) -> None:
    """It may stand (SIGSTOP, a blocked loop), or have written last what it had seen before."""
    async with site(store_url) as (one, other):
        await other.reports()
        assert not await one.detect()
        assert not await one.detect()
        await other.reports()
        assert not any([await one.detect() for _ in range(5)])
        assert any("wait as well" in problem for problem in one.deadlocks.problems())


async def test_wait_of_the_other_that_began_meanwhile_is_seen_anew(store_url: str) -> None:
    async with site(store_url) as (one, other):
        await other.reports()
        assert not await one.detect()
        for number in (2, 3, 4):
            # Another wait each time: in between it has worked.
            await other.reports(since=number)
            assert not await one.detect()
        await other.reports(since=4)
        assert not await one.detect()
        await other.reports(since=4)
        assert await one.detect()


async def test_other_wait_of_the_same_attempt_is_reported_as_a_new_one(store_url: str) -> None:
    async with site(store_url) as (one, other):
        await other.reports()
        for _ in range(3):
            assert not await one.detect()
        (first,) = (await one.report()).attempts
        assert first.since == 1
        wait = one.wait()
        await one.jobs.cancel(one.inner.id)
        await soon(one.until_it_waits(but_not=wait))
        assert not await one.detect()
        (anew,) = (await one.report()).attempts
        assert (anew.seq, anew.since) == (first.seq, 4)


async def test_youngest_attempt_is_refused_and_no_other(store_url: str) -> None:
    async with site(store_url, other_first=False) as (one, other):
        for _ in range(6):
            await other.reports()
            assert not await one.detect()


async def test_slot_of_a_third_worker_keeps_the_wait_until_it_has_left(store_url: str) -> None:
    async with site(store_url) as (one, other):
        store = store_of(one.jobs)
        await store.workers.join(worker_row(OTHER_WORKER + 1, queues={"default": 1}), lambda: None)
        for _ in range(4):
            await other.reports()
            assert not await one.detect()
        await store.workers.leave(OTHER_WORKER + 1, now=NOW)
        for refused in (False, False, True):
            await other.reports()
            assert await one.detect() is refused


async def test_worker_that_joins_after_the_last_report_keeps_the_wait(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(store_url) as (one, other):
        store = store_of(one.jobs)
        for _ in range(3):
            await other.reports()
            assert not await one.detect()
        report_waits = store.workers.report_waits

        async def joined_before(
            worker: int, report: WaitReport, *, snapshot: Snapshot | None = None
        ) -> bool:
            if snapshot is not None:
                await store.workers.join(
                    worker_row(OTHER_WORKER + 1, queues={"default": 1}), lambda: None
                )
            return await report_waits(worker, report, snapshot=snapshot)

        monkeypatch.setattr(store.workers, "report_waits", joined_before)
        await other.reports()
        assert not await one.detect()
        assert len((await one.report()).attempts) == 1
        await store.workers.leave(OTHER_WORKER + 1, now=NOW)


async def test_cancel_of_the_others_attempt_keeps_the_wait(store_url: str) -> None:
    async with site(store_url) as (one, other):
        await store_of(one.jobs).jobs.cancel(other.attempt.id, now=NOW)
        for _ in range(5):
            await other.reports()
            assert not await one.detect()


async def test_write_that_failed_is_made_up_for(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker counts on from the stored report, even if its last report is missing."""
    async with site(store_url) as (one, other):
        store = store_of(one.jobs)
        report_waits = store.workers.report_waits
        there = iter([False, True])

        async def fails(
            worker: int, report: WaitReport, *, snapshot: Snapshot | None = None
        ) -> bool:
            if next(there):
                await report_waits(worker, report, snapshot=snapshot)
            raise StoreOutcomeUnknown("no answer")

        monkeypatch.setattr(store.workers, "report_waits", fails)
        for _ in range(2):
            with pytest.raises(StoreOutcomeUnknown):
                await one.detect()
        monkeypatch.undo()
        assert (await one.report()).number == 1
        refusals = []
        for _ in range(4):
            await other.reports()
            refusals.append(await one.detect())
        assert refusals == [False, False, False, True]
        assert (await one.report()).number == 5


async def test_nothing_is_reported_until_all_slots_of_a_queue_wait(store_url: str) -> None:
    async with site(store_url, slots={"default": 2}, queue="far") as (one, other):
        store = store_of(one.jobs)
        await store.workers.join(worker_row(OTHER_WORKER + 1, queues={"far": 1}), lambda: None)
        await worker_of(one.jobs).maintenance.peers.refresh()
        assert not await one.detect()
        assert await one.report() == WaitReport()
        # What waits here may be what all slots of another worker wait for.
        await other.reports()
        await worker_of(one.jobs).maintenance.peers.refresh()
        assert not await one.detect()
        assert len((await one.report()).attempts) == 1
        await other.reports(waits=False)
        assert not await one.detect()
        assert (await one.report()).attempts == []
        await store.workers.leave(OTHER_WORKER + 1, now=NOW)


async def test_nothing_is_reported_once_there_is_no_other_worker(store_url: str) -> None:
    """Then the attempt itself sees that it stands still."""
    async with site(store_url) as (one, other):
        await other.reports()
        assert not await one.detect()
        assert len((await one.report()).attempts) == 1
        await store_of(one.jobs).workers.leave(OTHER_WORKER, now=NOW)
        await one.deadlocks.detect()
        assert (await one.report()).attempts == []


async def test_wait_for_a_queue_with_a_free_slot_here_is_not_reported(store_url: str) -> None:
    """The queue is paused: what waits in it can start here all the same, once it is not."""
    async with site(store_url, slots={"default": 1, "far": 1}, queue="far") as (one, _):
        store = store_of(one.jobs)
        await store.workers.join(worker_row(OTHER_WORKER + 1, queues={"far": 1}), lambda: None)
        await worker_of(one.jobs).maintenance.peers.refresh()
        assert not await one.detect()
        assert await one.report() == WaitReport()
        await store.workers.leave(OTHER_WORKER + 1, now=NOW)


async def test_wait_that_is_over_is_not_reported_again(store_url: str) -> None:
    async with site(store_url) as (one, other):
        await other.reports()
        assert not await one.detect()
        assert len((await one.report()).attempts) == 1
        await one.jobs.cancel(one.outer.id)
        with pytest.raises(JobCancelled):
            await one.outer.result(timeout=15)
        await one.deadlocks.detect()
        assert (await one.report()).attempts == []


@pytest.mark.parametrize("why", ["stops", "has ended"])
async def test_attempt_that_will_let_go_of_its_slot_is_not_reported(
    store_url: str, why: str
) -> None:
    """One of a worker that stops is given back; one whose function has returned may be cleaned up."""
    async with site(store_url) as (one, other):
        await other.reports()
        assert not await one.detect()
        (attempt,) = one.deadlocks._holders()
        if why == "stops":
            attempt.warn("shutdown")
        else:
            attempt.end()
        assert not await one.detect()
        assert (await one.report()).attempts == []


async def test_wait_with_a_timeout_is_not_reported(store_url: str) -> None:
    async with site(store_url, timeout=3600) as (one, other):
        for _ in range(4):
            await other.reports()
            assert not await one.detect()
        assert (await one.report()) == WaitReport()
