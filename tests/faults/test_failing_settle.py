"""An outcome that cannot be written is retried while the process lives.

If the process dies, its job is recovered.
"""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.core.errors import StoreError, StoreFailed, StoreFull, StoreOutcomeUnknown
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite.store import SqliteStore
from tests.support.engine import Gate, Heard, history, next_round, soon, store_of, worker_of


class Failures:
    """Makes rounds with outcomes fail, before they are written or after."""

    def __init__(self, jobs: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.error: StoreError = StoreFull("no room left")
        self.after = False
        """True if the round is written, and only its answer is lost."""
        self.failed = asyncio.Event()
        self._write = store_of(jobs).write
        monkeypatch.setattr(store_of(jobs), "write", self._fail)

    async def _fail(self, request: Round) -> Written:
        if not request.outcomes or not self.left:
            return await self._write(request)
        self.left -= 1
        if self.after:
            await self._write(request)
        self.failed.set()
        raise self.error


@pytest.mark.parametrize("end", ["succeeds", "fails", "dies"])
@pytest.mark.parametrize("after", [False, True], ids=["not written", "written, answer lost"])
async def test_H11_settle_that_fails_is_tried_again_until_it_is_written(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, end: str, *, after: bool
) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1})
    heard = Heard(jobs)

    @jobs.task(max_attempts=1 if end == "dies" else 2)
    async def work() -> str:
        if end != "succeeds":
            raise LookupError("no such order")
        return "done"

    async with jobs.running():
        failures = Failures(jobs, monkeypatch)
        failures.left, failures.after = 3, after
        job = await jobs.enqueue(work)
        await soon(failures.failed.wait())
        if not after:
            assert (await jobs.health()).status == "degraded"
            assert "no room left" in (await jobs.health()).problems
        match end:
            case "succeeds":
                assert await job.result(timeout=15) == "done"
            case "fails" if not after:
                assert (await soon(heard.retries.get())).history[-1].error == "no such order"
            case "dies" if not after:
                assert (await soon(heard.dead.get())).error == "no such order"
        while failures.left:
            await next_round(jobs)
        await next_round(jobs)
        # Once, whatever was lost on the way: the fence makes the second write one of nothing.
        outcome = "succeeded" if end == "succeeds" else "failed"
        assert [a.outcome for a in await history(jobs, job.id)] == [outcome]
        state = {"succeeds": "succeeded", "fails": "scheduled", "dies": "dead"}[end]
        assert (await job.refresh()).state == state
        assert (await jobs.health()).status == "ok"


async def test_H11_settle_that_fails_holds_up_no_later_one(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        failures = Failures(jobs, monkeypatch)
        failures.left = 2
        many = await jobs.enqueue_many(work.call(number) for number in range(10))
        assert [await job.result(timeout=15) for job in many] == list(range(10))


async def test_H11_settle_whose_outcome_is_unknown_is_written_once(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        failures = Failures(jobs, monkeypatch)
        failures.left, failures.after = 1, True
        failures.error = StoreOutcomeUnknown("the commit failed")
        job = await jobs.enqueue(work)
        assert await job.result(timeout=15) == "done"
        await next_round(jobs)
        assert [a.outcome for a in await history(jobs, job.id)] == ["succeeded"]


async def test_H11_settle_that_never_works_is_rescued_as_if_its_process_had_died(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner is closed while nothing can be written; the next one finds the job and runs it again."""
    jobs = JobRunner(tmp_db, grace=0.1)
    ran: list[int] = []
    gate = Gate()

    @jobs.task
    async def work() -> str:
        ran.append(1)
        if len(ran) == 1:
            await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        store = store_of(jobs)
        assert isinstance(store, SqliteStore)
        assert store._access._writer is not None
        with monkeypatch.context() as broken:

            async def refuse(*_: object) -> None:
                raise StoreFull("no room left")

            broken.setattr(store._access._writer, "write", refuse)
            gate.open()
            while not (await jobs.health()).problems:
                await next_round_fails(jobs)
            # The runner closes inside: neither the outcome nor the good-bye is written.
            await worker_of(jobs).stop()
    async with jobs.running():
        assert await (await jobs.get(job.id, work)).result(timeout=15) == "done"
    assert len(ran) == 2


async def next_round_fails(jobs: JobRunner) -> None:
    worker = worker_of(jobs)
    worker.wake()
    await asyncio.wait([asyncio.ensure_future(store_of(jobs).workers.list())])


async def test_H11_store_that_must_be_looked_at_stops_the_worker_and_says_so(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(tmp_db, grace=0.1)
    gate = Gate()

    @jobs.task
    async def work() -> None:
        await gate.enter()

    async with jobs.running():
        failures = Failures(jobs, monkeypatch)
        failures.left, failures.error = 1, StoreFailed("the file is damaged")
        job = await jobs.enqueue(work)
        await gate.arrival()
        gate.open()
        await soon(failures.failed.wait())
        with pytest.raises(StoreFailed, match="the file is damaged"):
            await jobs.enqueue(work)
        assert (await jobs.health()).status == "failed"
        assert "this worker has stopped: the file is damaged" in caplog.text
    async with jobs.running():
        await (await jobs.get(job.id)).result(timeout=15)


async def test_H11_row_that_breaks_a_constraint_harms_only_its_caller(tmp_db: Path) -> None:
    """The same id twice in one round: the one row is refused, the outcomes beside it are written."""
    jobs = JobRunner(tmp_db, queues={"default": 1})
    gate = Gate()

    @jobs.task
    async def work(name: str) -> str:
        await gate.enter(name)
        return name

    async with jobs.running():
        first = await jobs.enqueue(work, "first")
        await gate.arrival()
        committer = worker_of(jobs)._committer
        again = work.call("again").to_enqueue(id=first.id, now=1)
        refused = committer.submit([again])
        good = asyncio.ensure_future(jobs.enqueue(work, "good"))
        gate.open()
        with pytest.raises(StoreError, match=first.id):
            await soon(refused)
        assert await (await soon(good)).result(timeout=15) == "good"
        assert await first.result(timeout=15) == "first"
    with sqlite3.connect(tmp_db) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.close()
