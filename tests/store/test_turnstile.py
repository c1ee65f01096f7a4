"""The order in which the threads and tasks of one process get the write lock, and that a store's writer takes it."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.core.errors import StoreBusy
from jobrunner.store.sqlite.host import fair_lock, turnstile
from jobrunner.store.sqlite.host.fair_lock import FairLock
from jobrunner.store.sqlite.host.turnstile import WriteLock
from jobrunner.store.sqlite.store import SqliteStore
from tests.support.engine import soon
from tests.support.factories import enqueue, new

# -- the lock of one process ---------------------------------------------------------------------------


async def waiting(lock: FairLock, number: int) -> None:
    """Wait until so many wait at the lock."""
    async with asyncio.timeout(15):
        while len(lock._waiting) < number:  # noqa: ASYNC110 - only the lock itself can tell
            await asyncio.sleep(0)  # noqa: TID251 - a thread comes by itself


async def test_lock_lets_threads_and_tasks_in_as_they_came() -> None:
    lock = FairLock()
    order: list[str] = []
    await lock.acquire()

    async def by_task(name: str) -> None:
        await lock.acquire()
        order.append(name)
        lock.release()

    def by_thread(name: str) -> None:
        assert lock.acquire_blocking(15)
        order.append(name)
        lock.release()

    async with asyncio.TaskGroup() as group:
        for n in range(6):
            if n % 2:
                group.create_task(by_task(f"task {n}"))
            else:
                group.create_task(asyncio.to_thread(by_thread, f"thread {n}"))
            await waiting(lock, n + 1)
        lock.release()
    assert order == ["thread 0", "task 1", "thread 2", "task 3", "thread 4", "task 5"]


async def test_lock_is_not_lost_with_a_task_that_is_cancelled() -> None:
    lock = FairLock()
    await lock.acquire()
    gone = asyncio.create_task(lock.acquire())
    await waiting(lock, 1)
    next_one = asyncio.create_task(lock.acquire())
    await waiting(lock, 2)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    lock.release()
    await soon(next_one)


async def test_lock_is_not_lost_with_a_task_that_is_cancelled_as_it_is_handed_over() -> None:
    lock = FairLock()
    await lock.acquire()
    gone = asyncio.create_task(lock.acquire())
    await waiting(lock, 1)
    lock.release()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert lock.acquire_blocking(0)


def test_lock_is_not_lost_with_a_thread_that_waits_no_longer() -> None:
    lock = FairLock()
    assert lock.acquire_blocking(0)
    assert not lock.acquire_blocking(0.01)
    lock.release()
    assert lock.acquire_blocking(0)


async def test_lock_tells_who_waits_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first check the holder may have held the lock only for a short time."""
    monkeypatch.setattr(fair_lock, "SLOW_S", 0.01)
    held = FairLock()
    await held.acquire()
    told = threading.Semaphore(0)
    waiter = asyncio.create_task(asyncio.to_thread(held.acquire_blocking, 15, told.release))
    for _ in range(2):
        assert await asyncio.to_thread(told.acquire, timeout=10)
    held.release()
    assert await soon(waiter)
    held.release()


async def test_lock_tells_a_slow_holder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    held = FairLock()
    assert held.acquire_blocking(0)
    held.name_holder("task slow")
    assert held.slow_holder() is None
    monkeypatch.setattr(fair_lock, "SLOW_S", 0.0)
    assert held.slow_holder() == "task slow"
    assert held.slow_holder() is None
    held.release()
    assert held.acquire_blocking(0)
    assert held.slow_holder() is None, "the writer's own turns are nobody's business"


# -- the write lock ------------------------------------------------------------------------------------


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[WriteLock]:
    ours = WriteLock(tmp_path)
    yield ours
    ours.close()


async def test_write_lock_of_a_task_keeps_the_writers_thread_out_until_it_ends(
    ours: WriteLock,
) -> None:
    order: list[str] = []

    def write() -> None:
        ours.acquire()
        order.append("writer")
        ours.release()

    async with ours.held_by_task("task"):
        writer = asyncio.create_task(asyncio.to_thread(write))
        await waiting(ours._lock, 1)
        order.append("task")
    await soon(writer)
    assert order == ["task", "writer"]


async def test_write_lock_of_a_thread_keeps_tasks_out_until_it_ends(ours: WriteLock) -> None:
    inside, leave = threading.Event(), threading.Event()

    def write() -> None:
        with ours.held_by_thread("thread"):
            inside.set()
            assert leave.wait(15)

    writing = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.to_thread(inside.wait, 15)

    async def write_too() -> None:
        async with ours.held_by_task("task"):
            assert leave.is_set()

    task = asyncio.create_task(write_too())
    await waiting(ours._lock, 1)
    leave.set()
    await soon(asyncio.gather(writing, task))


async def test_write_lock_ends_with_an_error_in_it(ours: WriteLock) -> None:
    with pytest.raises(ValueError, match="x"):
        async with ours.held_by_task("task"):
            raise ValueError("x")
    with pytest.raises(ValueError, match="y"), ours.held_by_thread("thread"):
        raise ValueError("y")
    ours.acquire()
    ours.release()


async def test_write_lock_behind_a_task_that_does_not_end_is_store_busy_and_names_it(
    ours: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "TIMEOUT_S", 0.01)
    async with ours.held_by_task("send_mail 42"):
        with pytest.raises(StoreBusy, match="send_mail 42"):
            await asyncio.to_thread(ours.acquire)
    ours.acquire()
    ours.release()


async def test_write_lock_behind_other_processes_is_waited_for_in_a_thread(
    ours: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on, and a cancel gives back what the thread has got meanwhile."""
    let = threading.Event()
    asked = threading.Event()
    acquire = ours._turnstile.acquire

    def wait_first(timeout_s: float) -> None:
        asked.set()
        assert let.wait(15)
        acquire(timeout_s)

    monkeypatch.setattr(type(ours._turnstile), "try_acquire", lambda self, timeout_s: False)
    monkeypatch.setattr(
        type(ours._turnstile), "acquire", lambda self, timeout_s: wait_first(timeout_s)
    )

    async def write() -> None:
        async with ours.held_by_task("task"):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(write())
    await asyncio.to_thread(asked.wait, 15)
    task.cancel()
    await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
    assert not task.done(), "it left a thread behind that is about to get the lock"
    monkeypatch.undo()
    let.set()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert not ours._turnstile._held
    ours.acquire()
    ours.release()


# -- the store's own writer ----------------------------------------------------------------------------


async def test_writer_of_a_store_waits_for_a_task_that_has_the_write_lock(
    store: SqliteStore,
) -> None:
    async with store.write_lock("task"):
        writing = asyncio.create_task(enqueue(store, new()))
        await waiting(store._access.writer.write_lock._lock, 1)
    await soon(writing)


async def test_writer_of_a_store_waits_for_a_thread_that_has_the_write_lock(
    store: SqliteStore,
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.blocking_write_lock("thread"):
            inside.set()
            assert leave.wait(15)

    holding = asyncio.create_task(asyncio.to_thread(hold))
    await asyncio.to_thread(inside.wait, 15)
    writing = asyncio.create_task(enqueue(store, new()))
    try:
        await waiting(store._access.writer.write_lock._lock, 1)
    finally:
        leave.set()
    await soon(asyncio.gather(holding, writing))
