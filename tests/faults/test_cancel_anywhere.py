"""A caller is cancelled at its n-th step, for every n: nothing hangs, nothing is half-written, nothing is lost."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Job, JobRunner
from tests.support.engine import Gate, history, on_writer, soon, store_of

MOST_STEPS = 400
"""More steps than anything here takes; the loops end as soon as one got through."""


class Steps:
    """Counts the times that a task is resumed, and cancels it in place of the n-th."""

    def __init__(self, run: Callable[[], Awaitable[object]], cancel_at: int) -> None:
        self._run = run
        self._cancel_at = cancel_at
        self.done = False
        """True if it came to its end before the n-th step."""

    async def take(self) -> None:
        """Run it up to that step, cancel it there, and wait for its end."""
        task = asyncio.ensure_future(self._stepping(self._run()))
        with contextlib.suppress(asyncio.CancelledError):
            await soon(task)

    async def _stepping(self, run: Awaitable[object]) -> None:
        await _Stepped(run, self._cancel_at)
        self.done = True


class _Stepped:
    """An awaitable that cancels the task that awaits it, each time counting one step of it."""

    def __init__(self, inner: Awaitable[object], cancel_at: int) -> None:
        self._inner = inner
        self._cancel_at = cancel_at

    def __await__(self) -> Any:
        steps = self._inner.__await__()
        taken = 0
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            taken += 1
            if taken == self._cancel_at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            error = None
            try:
                answer = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed on to the one inside
                error = thrown


async def in_transaction(jobs: JobRunner) -> bool:
    return await on_writer(jobs, lambda conn: conn.in_transaction)


async def test_C1_enqueue_cancelled_at_every_step_leaves_no_transaction_open(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        for at in range(1, MOST_STEPS):
            steps = Steps(lambda at=at: jobs.enqueue(work, at), at)  # type: ignore[misc]
            await steps.take()
            assert await in_transaction(jobs) is False
            if steps.done:
                break
        else:
            pytest.fail("enqueue never ends")
        assert at > 1
        # C2: it was committed or not, never half; what is there runs.
        for job in (await jobs.list()).items:
            await job.result(timeout=15)
        assert await (await jobs.enqueue(work, 7)).result(timeout=15) == 7


VERBS: dict[str, Callable[[JobRunner, Job[Any]], Awaitable[object]]] = {
    "enqueue_many": lambda jobs, _: jobs.enqueue_many([jobs.tasks["work"].call(1)] * 3),
    "cancel": lambda jobs, job: jobs.cancel(job.id),
    "cancel_all": lambda jobs, _: jobs.cancel_all(),
    "reschedule": lambda jobs, job: jobs.reschedule(job.id, 7200),
    "reschedule_all": lambda jobs, _: jobs.reschedule_all(7200),
    "get": lambda jobs, job: jobs.get(job.id),
    "list": lambda jobs, _: jobs.list(),
    "pause": lambda jobs, _: jobs.queues.pause("default"),
    "resume": lambda jobs, _: jobs.queues.resume("default"),
    "replay_all": lambda jobs, _: jobs.dead_letters.replay_all(),
    "health": lambda jobs, _: jobs.health(),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_C1_verb_cancelled_at_every_step_leaves_no_transaction_open(
    jobs: JobRunner, verb: str
) -> None:
    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        for at in range(1, MOST_STEPS):
            job = await jobs.enqueue(work.options(delay=3600), at)
            steps = Steps(lambda job=job: VERBS[verb](jobs, job), at)  # type: ignore[misc]
            await steps.take()
            assert await in_transaction(jobs) is False
            if steps.done:
                break
        else:
            pytest.fail(f"{verb} never ends")
        await jobs.queues.resume("default")
        assert await (await jobs.enqueue(work, 7)).result(timeout=15) == 7


async def test_C2_enqueue_cancelled_while_it_is_committed_is_stored(jobs: JobRunner) -> None:
    """The caller never owns the outcome: once handed to the store the job is there, and runs."""
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        store = store_of(jobs)
        write, begun = store.write, asyncio.Event()

        async def slowly(request: Any) -> Any:
            if request.enqueues:
                begun.set()
            return await write(request)

        store.write = slowly  # type: ignore[method-assign]
        enqueueing = asyncio.ensure_future(jobs.enqueue(work))
        await soon(begun.wait())
        enqueueing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await enqueueing
        await gate.arrival()
        (job,) = (await jobs.list()).items
        gate.open()
        assert await job.result(timeout=15) == "done"


async def test_C1_many_enqueues_cancelled_at_random_leave_whole_jobs(jobs: JobRunner) -> None:
    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        kept: list[str] = []
        for _ in range(20):
            batch = [asyncio.ensure_future(jobs.enqueue(work, number)) for number in range(30)]
            await asyncio.wait(batch, return_when=asyncio.FIRST_COMPLETED, timeout=0.001)
            for one in batch[::2]:
                one.cancel()
            answers = await asyncio.gather(*batch, return_exceptions=True)
            kept += [answer.id for answer in answers if isinstance(answer, Job)]
            assert await in_transaction(jobs) is False
        assert len(kept) >= 300
        for id in kept:
            await (await jobs.get(id)).result(timeout=15)
        for job in (await jobs.list(limit=1000)).items:
            await job.result(timeout=15)
            assert [a.outcome for a in await history(jobs, job.id)] == ["succeeded"]


async def test_D9_lifespan_cancelled_at_every_step_closes_to_the_end(tmp_db: Path) -> None:
    """Opening, working, closing: cut anywhere, the file is left whole and can be opened again at once."""
    jobs = JobRunner(tmp_db, grace=5)

    @jobs.task
    async def work() -> str:
        return "done"

    async def serve() -> None:
        async with jobs.running():
            job = await jobs.enqueue(work)
            await job.result(timeout=15)

    for at in range(1, MOST_STEPS):
        steps = Steps(serve, at)
        await steps.take()
        assert jobs._open is None
        if steps.done:
            break
    else:
        pytest.fail("it never ends")
    assert at > 10
    async with jobs.running():
        for job in (await jobs.list(limit=1000)).items:
            assert await job.result(timeout=15) == "done"
        assert len((await jobs.health()).workers) == 1
    with contextlib.closing(sqlite3.connect(tmp_db)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_C6_opening_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.write_text("this is no database" * 100)
    jobs = JobRunner(file)
    with pytest.raises(Exception, match="is not an SQLite database"):
        async with jobs.running():
            pass
    file.unlink()
    async with jobs.running():
        assert (await jobs.health()).status == "ok"
