"""Attempts that are stopped while their dependencies are made or cleaned up: what is open is closed, nothing hangs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from tenacity import wait_fixed

from jobrunner import Injected, Job, JobCancelled, JobContext, JobDead, JobRunner
from jobrunner.worker import maintenance, supervisor
from tests.support.engine import (
    Gate,
    Heard,
    ThreadGate,
    history,
    soon,
    supervisor_of,
    worker_of,
)

pytestmark = pytest.mark.each_store


@pytest.fixture
def said() -> list[str]:
    return []


class Opened:
    """A dependency that says when it is closed, and by what."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    async def __call__(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            self._said.append(f"closed by {type(error).__name__}")
            raise
        self._said.append("closed")


async def test_cancel_while_a_dependency_is_made_ends_it_there(
    jobs: JobRunner, said: list[str]
) -> None:
    gate = Gate()

    async def slow(_: Annotated[None, Depends(Opened(said))]) -> AsyncIterator[None]:
        await gate.enter()
        said.append("made")
        yield

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> None:
        said.append("work")

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await jobs.cancel(job.id)
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
    assert said == ["closed by CancelledError"]


@pytest.mark.parametrize("yields", [True, False])
async def test_cancel_while_a_thread_makes_a_dependency_waits_for_it_and_ends(
    jobs: JobRunner, said: list[str], yields: bool
) -> None:
    gate = ThreadGate()

    def slow(_: Annotated[None, Depends(Opened(said))]) -> None:
        gate.enter()
        said.append("made")

    def slow_open(_: Annotated[None, Depends(Opened(said))]) -> Iterator[None]:
        gate.enter()
        said.append("made")
        try:
            yield
        finally:
            said.append("unmade")

    async def next_one() -> None:
        said.append("next made")

    @jobs.task
    async def work(
        _: Annotated[None, Depends(slow_open if yields else slow)] = Injected,
        __: Annotated[None, Depends(next_one)] = Injected,
    ) -> None:
        said.append("work")

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await jobs.cancel(job.id)
        assert supervisor_of(jobs).attempts
        gate.open()
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
    assert said == ["made", *(["unmade"] if yields else []), "closed by CancelledError"]


async def test_time_out_while_a_dependency_is_made_is_the_attempts(
    jobs: JobRunner, said: list[str]
) -> None:
    async def slow(_: Annotated[None, Depends(Opened(said))]) -> None:
        await asyncio.Event().wait()

    @jobs.task(timeout=0.02, max_attempts=1)
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> None:
        said.append("work")

    async with jobs.running():
        job = await jobs.enqueue(work)
        with pytest.raises(JobDead, match=r"no end after 0\.02 s"):
            await job.result(timeout=15)
        assert [a.outcome for a in await history(jobs, job.id)] == ["timed_out"]
    assert said == ["closed by CancelledError"]


async def test_C13_thread_that_opens_a_dependency_past_the_time_out_is_cleaned_up_after_it(
    jobs: JobRunner, said: list[str]
) -> None:
    gate = ThreadGate()
    heard = Heard(jobs)

    def slow(_: Annotated[None, Depends(Opened(said))]) -> Iterator[None]:
        gate.enter()
        said.append("made")
        try:
            yield
        finally:
            said.append("unmade")

    @jobs.task(timeout=0.02, max_attempts=1)
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> None:
        said.append("work")

    async with jobs.running():
        await jobs.enqueue(work)
        # It has failed at once; what it holds is held until its thread has ended.
        await soon(heard.dead.get())
        assert said == []
        assert len((await jobs.health()).stuck_threads) == 1
        gate.open()
    assert said == ["made", "unmade", "closed by CancelledError"]


async def test_C13_thread_of_the_function_past_the_time_out_keeps_its_dependencies(
    store_url: str, said: list[str]
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    gates = [ThreadGate(), ThreadGate()]
    gates[1].open()
    attempts = iter(gates)

    @jobs.task(timeout=0.05, max_attempts=2, wait=wait_fixed(0))
    def work(_: Annotated[None, Depends(Opened(said))] = Injected) -> str:
        next(attempts).enter()
        said.append("work")
        return "done"

    heard = Heard(jobs)
    async with jobs.running():
        job = await jobs.enqueue(work)
        await gates[0].arrival()
        while not (await jobs.health()).stuck_threads:
            pass
        assert said == []
        gates[0].open()
        await soon(heard.succeeded.get())
        assert [a.outcome for a in await history(jobs, job.id)] == ["timed_out", "succeeded"]
    assert said == ["work", "closed by CancelledError", "work", "closed"]


async def test_def_task_that_sees_its_cancel_and_returns_is_no_success_for_its_dependencies(
    jobs: JobRunner, said: list[str]
) -> None:
    gate = ThreadGate()

    @jobs.task
    def work(job: JobContext, _: Annotated[None, Depends(Opened(said))] = Injected) -> bool:
        gate.enter()
        return job.cancelled

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await jobs.cancel(job.id)
        gate.open()
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
    assert said == ["closed by CancelledError"]


async def test_cancel_in_the_clean_up_comes_too_late(jobs: JobRunner, said: list[str]) -> None:
    gate = Gate()

    async def slow() -> AsyncIterator[None]:
        yield
        await gate.enter()
        said.append("closed")

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await jobs.cancel(job.id)
        gate.open()
        assert await job.result(timeout=15) == "done"
    assert said == ["closed"]


async def test_cancel_of_itself_with_no_await_behind_it_spares_the_clean_up(
    jobs: JobRunner, said: list[str]
) -> None:
    async def row_by_row() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, at which a cancel would come
        said.append("closing")
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            said.append("timed out")

    @jobs.task
    async def work(job: JobContext, _: Annotated[None, Depends(row_by_row)] = Injected) -> str:
        # As `await jobs.cancel(job.id)` does in its last step.
        for attempt in supervisor_of(jobs).attempts.values():
            attempt.stop("cancel")
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        assert await job.result(timeout=15) == "done"
    assert said == ["closing", "timed out"]


async def test_clean_up_that_swallows_its_cancel_is_left_behind(
    store_url: str,
    said: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "CLEAN_UP_S", 0.01)
    monkeypatch.setattr(supervisor, "OBEY_S", 0.01)
    jobs = JobRunner(store_url, queues={"default": 1})
    gate, ended = Gate(), asyncio.Event()

    async def deaf() -> AsyncIterator[None]:
        yield
        while not gate._opened.is_set():
            try:
                await gate.enter()
            except asyncio.CancelledError:
                said.append("cancelled")
        ended.set()

    @jobs.task
    async def work(_: Annotated[None, Depends(deaf)] = Injected) -> str:
        return "done"

    @jobs.task
    async def other() -> str:
        return "other"

    async with jobs.running():
        job = await jobs.enqueue(work)
        # Its outcome is what it was, and its slot is given to another.
        assert await job.result(timeout=15) == "done"
        assert await (await jobs.enqueue(other)).result(timeout=15) == "other"
        gate.open()
        await soon(ended.wait())
        assert [a.outcome for a in await history(jobs, job.id)] == ["succeeded"]
    assert said[0] == "cancelled"
    assert "the clean-up of its dependencies goes on after 0.01 s: it is cancelled" in caplog.text
    assert "Let CancelledError pass through the clean-up of its dependencies" in caplog.text


async def test_clean_up_that_lasts_in_a_thread_is_reported_and_settled(
    store_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CLEAN_UP_S", 0.01)
    monkeypatch.setattr(maintenance, "POLL_S", 3600.0)
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = ThreadGate()

    def slow() -> Iterator[None]:
        yield
        gate.enter()

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> str:
        return "done"

    @jobs.task
    async def other() -> str:
        return "other"

    async with jobs.running():
        job = await jobs.enqueue(work)
        assert await job.result(timeout=15) == "done"
        assert "its slot is taken until the thread ends" in caplog.text
        waiting = await jobs.enqueue(other)
        assert supervisor_of(jobs)._busy == {"default": 1}
        gate.open()
        assert await waiting.result(timeout=15) == "other"
        assert not supervisor_of(jobs).stuck


# -- shutdown ---------------------------------------------------------------------------------------------


async def state_of(url: str, job: Job[Any]) -> tuple[str, list[str | None]]:
    jobs = JobRunner(url)
    async with jobs.running(work=False):
        found = await jobs.get(job.id)
    return found.state, [a.outcome for a in found.history]


async def test_shutdown_waits_for_a_clean_up_within_the_grace(
    store_url: str, said: list[str]
) -> None:
    jobs = JobRunner(store_url)
    gate = Gate()

    async def slow() -> AsyncIterator[None]:
        yield
        await gate.enter()
        said.append("closed")

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        worker_of(jobs).begin_stop()
        gate.open()
    assert said == ["closed"]
    assert await state_of(store_url, job) == ("succeeded", ["succeeded"])


async def test_shutdown_that_ends_an_attempt_has_it_cleaned_up(
    store_url: str, said: list[str]
) -> None:
    jobs = JobRunner(store_url, grace=0.02)
    gate = Gate()

    @jobs.task
    async def work(_: Annotated[None, Depends(Opened(said))] = Injected) -> None:
        await gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
    assert said == ["closed by CancelledError"]
    assert await state_of(store_url, job) == ("queued", ["released"])


@pytest.mark.parametrize("is_async", [True, False])
async def test_shutdown_cancels_a_clean_up_that_outlasts_the_grace(
    store_url: str, said: list[str], caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    jobs = JobRunner(store_url, grace=0.02)
    gate = Gate()

    async def slow(_: Annotated[None, Depends(Opened(said))]) -> AsyncIterator[None]:
        yield
        await gate.enter()

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> str:
        return "done"

    @jobs.task
    def work_in_thread(_: Annotated[None, Depends(slow)] = Injected) -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work if is_async else work_in_thread)
        await gate.arrival()
    assert said == ["closed by CancelledError"]
    assert "left behind" not in caplog.text
    assert await state_of(store_url, job) == ("succeeded", ["succeeded"])


@pytest.mark.parametrize("ends", ["succeeded", "dead"])
async def test_shutdown_leaves_a_hanging_thread_of_a_clean_up_behind(
    store_url: str, caplog: pytest.LogCaptureFixture, said: list[str], ends: str
) -> None:
    jobs = JobRunner(store_url, grace=0.02)
    gate = ThreadGate()

    def slow(_: Annotated[None, Depends(Opened(said))]) -> Iterator[None]:
        try:
            yield
        finally:
            gate.enter()

    @jobs.task(max_attempts=1)
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> None:
        if ends == "dead":
            raise ValueError("no")

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        (attempt,) = supervisor_of(jobs).attempts.values()
        task = attempt.task
        assert task is not None
    # Nor does anything wait for the thread: `asyncio.run` would wait for the task.
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    # What is left open is closed by the loop at its end, and is not told that all went well.
    assert "closed" not in said
    assert "it is settled, and its clean-up is left behind" in caplog.text
    gate.open()
    state, outcomes = await state_of(store_url, job)
    assert (state, outcomes) == (ends, ["failed" if ends == "dead" else "succeeded"])


async def test_shutdown_leaves_a_hanging_thread_of_a_dependency_behind(
    store_url: str, said: list[str]
) -> None:
    jobs = JobRunner(store_url, grace=0.02)
    gate = ThreadGate()

    def slow(_: Annotated[None, Depends(Opened(said))]) -> Iterator[None]:
        gate.enter()
        yield

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
    # The thread may yet use what is open.
    assert "closed by CancelledError" not in said
    gate.open()
    assert await state_of(store_url, job) == ("queued", ["released"])


# -- stops that meet ------------------------------------------------------------------------------------------


async def test_cancel_that_a_dependency_swallows_still_ends_the_attempt(
    jobs: JobRunner, said: list[str]
) -> None:
    gate = Gate()

    async def deaf() -> None:
        try:
            await gate.enter()
        except asyncio.CancelledError:
            said.append("swallowed")

    @jobs.task
    async def work(_: Annotated[None, Depends(deaf)] = Injected) -> None:
        said.append("work")

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await jobs.cancel(job.id)
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
    assert said == ["swallowed"]


async def test_clean_up_of_a_cancelled_attempt_has_a_time_of_its_own(
    jobs: JobRunner, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = [Gate(), Gate()]

    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await gates[1].enter()
            said.append("closed")

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> None:
        await gates[0].enter()

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gates[0].arrival()
        await jobs.cancel(job.id)
        await gates[1].arrival()
        # Whoever has been told to end is past its time now.
        monkeypatch.setattr(supervisor, "OBEY_S", -1.0)
        supervisor_of(jobs).abandon_unresponsive()
        assert len(supervisor_of(jobs).attempts) == 1
        gates[1].open()
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
    assert said == ["closed"]


class HangsAfterItsThread:
    """A job that is dead of its time-out, whose thread has ended since, and whose clean-up hangs."""

    def __init__(self, jobs: JobRunner) -> None:
        self.heard = Heard(jobs)
        self.thread, self.clean_up = ThreadGate(), Gate()
        self.cancelled = 0

        async def deaf() -> AsyncIterator[None]:
            try:
                yield
            finally:
                while not self.clean_up._opened.is_set():
                    try:
                        await self.clean_up.enter()
                    except asyncio.CancelledError:
                        self.cancelled += 1

        @jobs.task(timeout=0.02, max_attempts=1)
        def work(_: Annotated[None, Depends(deaf)] = Injected) -> None:
            self.thread.enter()

        self.task = work

    async def begin(self) -> None:
        await self.task.enqueue()
        await soon(self.heard.dead.get())
        self.thread.open()
        await self.clean_up.arrival()


async def test_shutdown_leaves_the_clean_up_of_a_settled_attempt_behind(store_url: str) -> None:
    jobs = JobRunner(store_url, grace=0.02)
    hangs = HangsAfterItsThread(jobs)
    async with jobs.running():
        await hangs.begin()
        (attempt,) = supervisor_of(jobs).stuck
        task = attempt.task
        assert task is not None
    assert attempt.abandoned
    hangs.clean_up.open()
    await soon(asyncio.wait([task]))


async def test_clean_up_of_a_settled_attempt_that_swallows_its_cancel_frees_its_slot(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CLEAN_UP_S", 0.01)
    monkeypatch.setattr(supervisor, "OBEY_S", 0.01)
    jobs = JobRunner(store_url, queues={"default": 1})
    hangs = HangsAfterItsThread(jobs)

    @jobs.task
    async def other() -> str:
        return "other"

    async with jobs.running():
        await hangs.begin()
        (attempt,) = supervisor_of(jobs).stuck
        task = attempt.task
        assert task is not None
        assert await (await jobs.enqueue(other)).result(timeout=15) == "other"
        assert hangs.cancelled >= 1
        hangs.clean_up.open()
        await soon(asyncio.wait([task]))
