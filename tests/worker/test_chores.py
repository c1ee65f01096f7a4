"""Chores: none waits for another, and none writes when there is nothing to write."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.core.clock import now_us
from jobrunner.store.protocol import Recovered
from jobrunner.store.sqlite import SqliteStore
from tests.support.engine import store_of, worker_of
from tests.support.factories import WORKER, enqueue, new, worker_row


async def test_deleted_log_is_noticed_while_recovery_stands_still(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        stands_still = asyncio.Event()

        async def recover(*, now: int, thorough: bool) -> Recovered:
            stands_still.set()
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(store_of(jobs), "recover", recover)
        async with asyncio.timeout(15):
            await stands_still.wait()
            Path(f"{tmp_db}-wal").unlink()
            await worker_of(jobs).has_failed.wait()
        assert "was moved or deleted while open" in str(worker_of(jobs).failed)


async def test_dead_worker_is_looked_for_while_a_prune_waits_behind_a_list(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with jobs.running():
        store = store_of(jobs)
        assert isinstance(store, SqliteStore)
        assert store._readers is not None
        looks: asyncio.Queue[bool] = asyncio.Queue()
        look = store.recover

        async def recover(*, now: int, thorough: bool) -> Recovered:
            found = await look(now=now, thorough=thorough)
            looks.put_nowait(thorough)
            return found

        monkeypatch.setattr(store, "recover", recover)
        go_on = threading.Event()
        slow = asyncio.create_task(store._readers.read_list(lambda _: go_on.wait(20)))
        worker = worker_of(jobs)
        await worker._end_of_chores()
        worker._last.clear()
        prune = asyncio.create_task(worker.do_chores())
        async with asyncio.timeout(15):
            while not await looks.get():
                pass
            await looks.get()
        assert "prune" in worker._busy
        assert (await jobs.health()).status == "ok"
        go_on.set()
        await slow
        await prune


async def test_chores_that_are_under_way_end_with_the_runner(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    async with jobs.running():
        begun = asyncio.Event()

        async def beat(_worker: int, *, now: int) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("beat")

        monkeypatch.setattr(store_of(jobs), "beat", beat)
        worker_of(jobs)._last.pop("beat", None)
        async with asyncio.timeout(15):
            await begun.wait()
    assert ended == ["beat"]


async def test_unknown_tasks_that_are_young_cost_no_write(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a transaction, with its sync, for each such task every ten seconds."""
    async with jobs.running():
        store, worker = store_of(jobs), worker_of(jobs)
        asked: list[str] = []

        async def bury_waiting(_queue: str, task: str, **_: object) -> Sequence[str]:
            asked.append(task)
            return []

        async def waiting_tasks() -> Sequence[tuple[str, str, int]]:
            return [("default", "young", 2**60), ("default", "old", 0)]

        monkeypatch.setattr(store, "bury_waiting", bury_waiting)
        monkeypatch.setattr(store, "waiting_tasks", waiting_tasks)
        await worker.look_for_unknown()
        assert asked == ["old"]


async def test_task_of_a_worker_that_has_just_joined_is_not_reported_as_unknown(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy: its jobs are seen before the next regular look at the workers."""
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        store, worker = store_of(jobs), worker_of(jobs)
        worker._last["peers"] = worker._last["unknown"] = float("inf")  # no chore of its own
        await worker.do_chores()
        now = now_us()
        await enqueue(store, *[new(task, run_at=now) for task in ("fresh", "gone")], now=now)
        await store.join(worker_row(tasks={"fresh": None}, now=now_us()), lambda: None)
        await worker.look_for_unknown()
        told = [line for line in caplog.messages if "no worker knows" in line]
        assert len(told) == 1
        assert "'gone'" in told[0]
        await store.leave(WORKER, now=now_us())


async def test_row_that_two_chores_miss_at_once_is_stored_once(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        store, id = store_of(jobs), worker_of(jobs).id
        with closing(sqlite3.connect(tmp_db)) as conn, conn:
            conn.execute("DELETE FROM jobrunner_workers")
        found = await asyncio.gather(store.beat(id, now=now_us()), store.beat(id, now=now_us()))
        assert found.count(True) <= 1  # the chores are at it too
        assert [row.worker for row in await store.workers()] == [id]
        assert sum("stored anew" in line for line in caplog.messages) == 1
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
