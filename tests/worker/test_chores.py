"""Chores: none waits for another, and none writes when there is nothing to write."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.core.clock import now_us
from jobrunner.core.errors import StoreBusy, StoreError, StoreFailed
from jobrunner.store.protocol import Recovered
from jobrunner.store.sqlite import SqliteStore
from jobrunner.worker.chores import Chore, ChoreRunner, Period
from tests.store.test_migrations import written_by
from tests.support.engine import make_all_due, make_due, soon, store_of, suspend, worker_of
from tests.support.factories import WORKER, enqueue, new, worker_row


async def test_chore_that_is_long_delays_no_other_and_begins_anew_when_it_has_ended() -> None:
    go_on = asyncio.Event()
    long_ones, short_ones = asyncio.Queue[None](), asyncio.Queue[None]()

    async def long() -> None:
        long_ones.put_nowait(None)
        await go_on.wait()

    async def short() -> None:
        short_ones.put_nowait(None)

    chores = ChoreRunner([Chore("long", Period(0), long), Chore("short", Period(0), short)], fail)
    chores.start()
    await soon(long_ones.get())
    for _ in range(3):
        await soon(short_ones.get())
        chores.ring()
    assert long_ones.empty()
    go_on.set()
    await soon(long_ones.get())
    await chores.stop()


async def test_chore_is_due_once_in_its_period_or_when_the_bell_rings() -> None:
    runs = asyncio.Queue[str]()

    def chore(name: str, *, on_ring: bool = False) -> Chore:
        async def run() -> None:
            runs.put_nowait(name)

        return Chore(name, Period(3600), run, on_ring=on_ring)

    chores = ChoreRunner([chore("rare"), chore("rung", on_ring=True)], fail)
    for _ in range(2):
        await chores.run_due()
    assert [runs.get_nowait() for _ in range(runs.qsize())] == ["rare", "rung"]
    chores.ring()
    chores.start()
    assert await soon(runs.get()) == "rung"
    await chores.stop()
    assert runs.empty()


async def test_chore_that_fails_is_named_until_it_works_and_a_fatal_error_is_passed_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "jobrunner")
    errors: list[Exception | None] = [StoreBusy("1"), StoreBusy("2"), None, StoreFailed("3")]
    fatal: list[StoreError] = []

    async def run() -> None:
        if (error := errors.pop(0)) is not None:
            raise error

    chores = ChoreRunner([Chore("prune", Period(0), run)], fatal.append)
    await chores.run_due()
    await chores.run_due()
    assert chores.failing == {"prune"}
    await chores.run_due()
    assert chores.failing == set()
    await chores.run_due()
    assert [str(error) for error in fatal] == ["3"]
    assert caplog.messages == ["prune failed and is tried again: 1", "prune works again"]


def fail(error: StoreError) -> None:
    """Take a fatal error, which none of these chores has."""
    raise AssertionError(error)


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

        monkeypatch.setattr(store_of(jobs).workers, "recover", recover)
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
        assert store._access._readers is not None
        looks: asyncio.Queue[bool] = asyncio.Queue()
        look = store.workers.recover

        async def recover(*, now: int, thorough: bool) -> Recovered:
            found = await look(now=now, thorough=thorough)
            looks.put_nowait(thorough)
            return found

        monkeypatch.setattr(store.workers, "recover", recover)
        go_on = threading.Event()
        slow = asyncio.create_task(store._access._readers.read_list(lambda _: go_on.wait(20)))
        worker = worker_of(jobs)
        await worker.maintenance.chores.all_ended()
        make_all_due(jobs)
        prune = asyncio.create_task(worker.do_chores())
        async with asyncio.timeout(15):
            while not await looks.get():
                pass
            await looks.get()
        assert "prune" in worker.maintenance.chores.under_way
        async with asyncio.timeout(15):
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

        async def beat(_worker: int, *, now: int, lag: int | None = None) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("beat")

        monkeypatch.setattr(store_of(jobs).workers, "beat", beat)
        make_due(jobs, "beat")
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

        monkeypatch.setattr(store.dead_letters, "bury_waiting", bury_waiting)
        monkeypatch.setattr(store.jobs, "waiting_tasks", waiting_tasks)
        await worker.maintenance.unknown_tasks.check()
        assert asked == ["old"]


async def test_task_of_a_worker_that_has_just_joined_is_not_reported_as_unknown(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy: its jobs are seen before the next regular refresh of the workers."""
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        store, worker = store_of(jobs), worker_of(jobs)
        suspend(jobs, "peers", "unknown")
        await worker.do_chores()
        now = now_us()
        await enqueue(store, *[new(task, run_at=now) for task in ("fresh", "gone")], now=now)
        await store.workers.join(worker_row(tasks={"fresh": None}, now=now_us()), lambda: None)
        await worker.maintenance.unknown_tasks.check()
        told = [line for line in caplog.messages if "no worker knows" in line]
        assert len(told) == 1
        assert "'gone'" in told[0]
        await store.workers.leave(WORKER, now=now_us())


async def test_row_that_two_chores_miss_at_once_is_stored_once(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        store, id = store_of(jobs), worker_of(jobs).id
        with closing(sqlite3.connect(tmp_db)) as conn, conn:
            conn.execute("DELETE FROM jobrunner_workers")
        found = await asyncio.gather(
            store.workers.beat(id, now=now_us()), store.workers.beat(id, now=now_us())
        )
        assert found.count(True) <= 1  # the chores are at it too
        assert [row.worker for row in await store.workers.list()] == [id]
        assert sum("stored anew" in line for line in caplog.messages) == 1
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_dead_letters_of_an_older_version_are_grouped_after_the_start(new_db: Path) -> None:
    written_by(4, new_db)
    jobs = JobRunner(new_db, dead_letter_retention=timedelta(days=36_500))
    async with jobs.running():
        chores = worker_of(jobs).maintenance.chores
        make_due(jobs, "groups")
        await chores.run_due()
        found = await jobs.dead_letters.groups()
        assert found.ungrouped == 0
        assert sum(group.count for group in found.items) >= 6
