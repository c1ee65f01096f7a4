"""Several processes at one file, and many failures at once: each gets its share, and the store is not flooded."""

import asyncio
import sqlite3
import time
from collections import Counter
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from jobrunner import JobDead, JobRunner, QueueSettings
from jobrunner.core.model import RetryAt
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite import SqliteStore
from tests.support.children import echo, hold, tasks
from tests.support.engine import soon
from tests.support.processes import child, process

PROCESSES = 4
SLOTS = 10
POLL_S = 0.5


async def test_B17_B18_four_processes_start_on_10_000_due_jobs_and_share_them(
    tmp_db: Path, tmp_path: Path
) -> None:
    """A claim takes as many jobs as the process has free slots: none starves the others, none waits behind a crowd."""
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        await jobs.enqueue_many(hold.call(str(n)) for n in range(10_000))
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                process(
                    *("-m", "tests.support.children", "crowd", str(tmp_db), str(SLOTS)),
                    errors=tmp_path / f"errors {n}",
                )
            )
            for n in range(PROCESSES)
        ]
        for worker in workers:
            await worker.heard("open")
            for _ in range(SLOTS):
                await worker.heard("held")
        with closing(sqlite3.connect(tmp_db)) as conn:
            running = Counter(
                worker
                for (worker,) in conn.execute(
                    "SELECT worker FROM jobrunner_jobs WHERE state = 'running'"
                )
            )
        assert sorted(running.values()) == [SLOTS] * PROCESSES
        for worker in workers:
            assert "locked" not in worker.errors()


async def test_B14_an_enqueue_wakes_each_idle_process_once_at_most(tmp_db: Path) -> None:
    """Nobody goes on claiming what another process has started."""
    number = 20
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(jobs.running(work=False))
        workers = [
            await stack.enter_async_context(child("crowd", tmp_db, SLOTS)) for _ in range(PROCESSES)
        ]
        for worker in workers:
            await worker.heard("open")
        for worker in workers:
            worker.send("count")
        before = [(await worker.heard("claims"))["empty"] for worker in workers]
        began = time.perf_counter()
        for n in range(number):
            assert await (await jobs.enqueue(echo, str(n))).result(timeout=30) == str(n)
        for worker in workers:
            worker.send("count")
        empty = [(await worker.heard("claims"))["empty"] for worker in workers]
        polls = (time.perf_counter() - began) / POLL_S + 1
        # Once for the ring, and once for the end of the job, which frees a slot.
        for after, earlier in zip(empty, before, strict=True):
            assert after - earlier <= 2 * number + polls, (before, empty)


async def test_H2_many_failures_at_once_stay_within_the_concurrency_and_share_writes(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, most = 1_000, 20
    running, highest, settling = 0, 0, 0
    due: list[int] = []
    all_failed = asyncio.Event()
    write = SqliteStore.write

    async def counted(self: SqliteStore, request: Round) -> Written:
        nonlocal running, highest, settling
        written = await write(self, request)
        running += len(written.claimed) - len(request.outcomes)
        highest = max(highest, running)
        settling += bool(request.outcomes)
        due.extend(one.run_at for one in request.outcomes if isinstance(one, RetryAt))
        if len(due) >= number:
            all_failed.set()
        return written

    monkeypatch.setattr(SqliteStore, "write", counted)
    jobs = JobRunner(tmp_db, queues={"default": QueueSettings(100, concurrency=most)})

    @jobs.task(max_attempts=5)
    async def call_what_is_down(number: int) -> None:
        raise ConnectionError("the service is down")

    async with jobs.running():
        await jobs.enqueue_many(call_what_is_down.call(n) for n in range(number))
        await soon(all_failed.wait())
    assert highest == most
    # Those that end together are one write; one by one they would be as many as jobs.
    assert settling <= number // 2
    assert len(set(due)) > number // 2, "the retries come in a crowd again"


async def test_D5_out_of_memory_is_a_failure_and_the_worker_goes_on(tmp_db: Path) -> None:
    """A process that the kernel kills for its memory is a death as any other: see the rows D4 and D6."""
    jobs = JobRunner(tmp_db)

    @jobs.task(max_attempts=1)
    async def take_too_much() -> None:
        bytearray(1 << 60)

    @jobs.task
    async def take_little() -> str:
        return "fine"

    async with jobs.running():
        with pytest.raises(JobDead, match="MemoryError"):
            await (await jobs.enqueue(take_too_much)).result(timeout=30)
        assert await (await jobs.enqueue(take_little)).result(timeout=30) == "fine"
