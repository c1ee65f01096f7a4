"""Rows of the application and the end of the job in one commit: ``job.transaction()``."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends
from sqlalchemy import text

import jobrunner.queue.results
from jobrunner import (
    Injected,
    JobContext,
    JobRunner,
    LeaseLost,
    ResultNotStored,
)
from jobrunner.core.model import Outcome
from jobrunner.store.session import Session
from tests.support.engine import Gate, producer_of, soon, store_of, supervisor_of
from tests.worker.site import Site, ended, until_idle, until_logged


async def test_rows_of_a_transaction_are_there_with_the_success(site: Site) -> None:
    @site.tasks.task
    async def work(job: JobContext, word: str) -> str:
        async with job.transaction() as tx:
            await site.add(tx, word)
        return word.upper()

    async with site.open():
        job = await work.enqueue("a")
        assert await job.result(timeout=15) == "A"
        found = await job.refresh()
        assert (found.state, [one.outcome for one in found.history]) == ("succeeded", ["succeeded"])
        assert site.words() == ["a"]


async def test_rows_of_a_transaction_of_a_def_task_are_there_with_the_success(
    blocking: Site,
) -> None:
    @blocking.tasks.task
    def work(job: JobContext, word: str) -> str:
        with job.transaction() as tx:
            blocking.add_now(tx, word)
        return word.upper()

    async with blocking.open():
        job = await work.enqueue("a")
        assert await job.result(timeout=15) == "A"
        assert (await job.refresh()).state == "succeeded"
        assert blocking.words() == ["a"]


async def test_error_in_the_block_rolls_back_and_fails_the_attempt(site: Site) -> None:
    @site.tasks.task
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, f"{job.attempt}")
            if job.attempt == 1:
                raise ValueError("in the block")

    async with site.open():
        job = await ended(await work.enqueue())
        assert [one.outcome for one in job.history] == ["failed", "succeeded"]
        assert site.words() == ["2"]


async def test_error_in_the_block_of_a_def_task_rolls_back(blocking: Site) -> None:
    @blocking.tasks.task
    def work(job: JobContext) -> None:
        with job.transaction() as tx:
            blocking.add_now(tx, f"{job.attempt}")
            if job.attempt == 1:
                raise ValueError("in the block")

    async with blocking.open():
        job = await ended(await work.enqueue())
        assert [one.outcome for one in job.history] == ["failed", "succeeded"]
        assert blocking.words() == ["2"]


async def test_commit_that_fails_fails_the_attempt(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "a")
            await site.add(tx, "a")

    async with site.open() as jobs:
        job = await ended(await work.enqueue())
        assert job.state == "dead"
        error = (await jobs.dead_letters.get(job.id)).error_type or ""
        assert "IntegrityError" in error or "UniqueViolation" in error
        assert site.words() == []


async def test_error_behind_the_block_leaves_the_job_succeeded(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @site.tasks.task
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, f"{job.attempt}")
        raise ValueError("too late")

    async with site.open():
        job = await work.enqueue()
        async with asyncio.timeout(15):
            while (await job.refresh()).state != "succeeded":  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # noqa: TID251 - no success is told
        await soon(asyncio.create_task(until_logged(caplog, "after its transaction")))
        assert site.words() == ["1"]
        assert len((await job.refresh()).history) == 1


async def test_transaction_of_an_attempt_whose_lease_was_taken_writes_nothing(site: Site) -> None:
    """B16: it goes on after its job was given to another one."""
    gate = Gate()

    @site.tasks.task
    async def work(job: JobContext) -> None:
        if job.attempt == 1:
            await gate.enter()
        async with job.transaction() as tx:
            await site.add(tx, f"{job.attempt}")

    async with site.open() as jobs:
        job = await work.enqueue()
        await gate.arrival()
        site.outside(
            "UPDATE jobrunner_jobs SET state = 'queued', worker = NULL WHERE state = 'running'"
        )
        producer_of(jobs).wake()
        assert (await ended(job)).state == "succeeded"
        gate.open()
        await soon(asyncio.create_task(until_idle(jobs)))
        assert site.words() == ["2"]


async def test_result_of_a_task_that_lingers_behind_its_transaction_is_given_up_and_still_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is the same if the process died there."""
    gate = Gate()

    @site.tasks.task
    async def work(job: JobContext) -> str:
        async with job.transaction() as tx:
            await site.add(tx, "a")
        await gate.enter()
        return "late"

    async with site.open():
        job = await work.enqueue()
        await gate.arrival()
        assert (await job.refresh()).state == "succeeded"
        with monkeypatch.context() as patch:
            patch.setattr(jobrunner.queue.results, "RETURN_US", 0)
            with pytest.raises(ResultNotStored, match="has not returned since"):
                await job.result(timeout=15)
        gate.open()
        assert await job.result(timeout=15) == "late"


async def test_transaction_takes_the_session_that_the_attempt_holds_in_another_scope(
    site: Site,
) -> None:
    """A second one would wait for the first."""
    session_dep = Annotated[Any, Depends(site.get_session, scope="function")]

    @site.tasks.task
    async def work(job: JobContext, session: session_dep = Injected) -> bool:
        async with job.transaction() as tx:
            await site.add(tx, "a")
        return tx is session

    async with site.open():
        assert await (await work.enqueue()).result(timeout=15)
        assert site.words() == ["a"]


async def test_coroutine_returned_behind_the_block_leaves_the_job_succeeded_and_is_an_error_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def send() -> None: ...

    @site.tasks.task
    async def work(job: JobContext) -> Any:
        async with job.transaction() as tx:
            await site.add(tx, "a")
        return send()

    async with site.open():
        job = await work.enqueue()
        await soon(asyncio.create_task(until_logged(caplog, "after its transaction")))
        with pytest.raises(ResultNotStored, match=r"NotAwaited.*after its transaction"):
            await job.result(timeout=15)
        assert (await job.refresh()).state == "succeeded"
    assert site.words() == ["a"]


@pytest.mark.parametrize("kind", ["AsyncSession", "aiosqlite"])
async def test_row_that_is_written_behind_the_block_is_an_error_in_the_log(
    tmp_db: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A session inside another ``begin()`` block refuses that itself."""
    site = Site(tmp_db, kind)

    @site.tasks.task
    async def work(job: JobContext) -> str:
        async with job.transaction() as tx:
            await site.add(tx, "a")
        await site.add(tx, "b")
        return "done"

    async with site.open():
        assert await (await work.enqueue()).result(timeout=15) == "done"
    assert site.words() == ["a"]
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "after its transaction had settled it" in said


async def test_row_that_a_def_task_writes_behind_the_block_is_an_error_in_the_log(
    blocking: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @blocking.tasks.task
    def work(job: JobContext) -> str:
        with job.transaction() as tx:
            blocking.add_now(tx, "a")
        blocking.add_now(tx, "b")
        return "done"

    async with blocking.open():
        assert await (await work.enqueue()).result(timeout=15) == "done"
    assert blocking.words() == ["a"]
    assert "after its transaction had settled it" in caplog.text


@pytest.mark.parametrize("kind", ["AsyncSession", "aiosqlite"])
async def test_rollback_in_the_block_undoes_the_end_of_the_job_and_fails_the_attempt(
    tmp_db: Path, kind: str
) -> None:
    """Else the rows behind it would be committed, and the job be running for ever."""
    site = Site(tmp_db, kind)

    @site.tasks.task
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "a")
            if job.attempt == 1:
                await tx.rollback()
                await site.add(tx, "b")

    async with site.open():
        job = await ended(await work.enqueue())
        assert [one.outcome for one in job.history] == ["failed", "succeeded"]
        assert "begin_nested" in (job.history[0].error or "")
        assert site.words() == ["a"]


async def test_rollback_in_the_block_of_a_def_task_fails_the_attempt(blocking: Site) -> None:
    @blocking.tasks.task
    def work(job: JobContext) -> None:
        with job.transaction() as tx:
            blocking.add_now(tx, "a")
            if job.attempt == 1:
                tx.rollback()

    async with blocking.open():
        job = await ended(await work.enqueue())
        assert [one.outcome for one in job.history] == ["failed", "succeeded"]
        assert blocking.words() == ["a"]


@pytest.mark.parametrize("kind", ["AsyncSession", "aiosqlite"])
async def test_error_behind_a_commit_in_the_block_leaves_the_job_succeeded(
    tmp_db: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_db, kind)

    @site.tasks.task
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "a")
            await site.commit(tx)
            await site.add(tx, "b")
            raise ValueError("too late")

    async with site.open():
        job = await work.enqueue()
        await soon(asyncio.create_task(until_logged(caplog, "after its transaction")))
        job = await job.refresh()
        assert (job.state, len(job.history)) == ("succeeded", 1)
        assert site.words() == ["a"]


async def test_commit_in_the_block_is_warned_of_once_if_more_is_written_behind_it(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_db, "AsyncSession")

    @site.tasks.task
    async def early(job: JobContext, number: int) -> None:
        async with job.transaction() as tx:
            await site.add(tx, f"a{number}")
            await site.commit(tx)
            await site.add(tx, f"b{number}")

    @site.tasks.task
    async def last(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "c")
            await site.commit(tx)

    async with site.open():
        for number in range(2):
            await (await early.enqueue(number)).result(timeout=15)
        await (await last.enqueue()).result(timeout=15)
        assert site.words() == ["a0", "a1", "b0", "b1", "c"]
    warned = [one.getMessage() for one in caplog.records if "commits inside" in one.getMessage()]
    assert [message.split()[0] for message in warned] == ["early"]


async def test_commit_in_the_block_of_a_def_task_is_warned_of(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_db, "Session")

    @site.tasks.task
    def early(job: JobContext) -> None:
        with job.transaction() as tx:
            site.add_now(tx, "a")
            tx.commit()
            site.add_now(tx, "b")

    async with site.open():
        await (await early.enqueue()).result(timeout=15)
        assert site.words() == ["a", "b"]
    assert any("commits inside" in one.getMessage() for one in caplog.records)


async def test_session_of_the_block_is_cleaned_up_after_the_attempt(site: Site) -> None:
    seen: list[int] = []

    @site.tasks.task
    async def work(job: JobContext) -> None:
        async with job.transaction():
            pass
        seen.append(site.closed)

    async with site.open():
        await (await work.enqueue()).result(timeout=15)
        assert seen == [0]
    assert site.closed == 1


async def test_read_and_write_back_in_the_block_loses_no_update(site: Site) -> None:
    """Default sessions lose most of them: each reads before any other has written."""

    @site.tasks.task
    async def increment(job: JobContext) -> None:
        async with job.transaction() as tx:
            # One writer at a time is given on SQLite alone.
            query = (
                "SELECT word FROM words FOR UPDATE"
                if site.is_postgres
                else "SELECT word FROM words"
            )
            if site.kind.endswith("AsyncSession"):
                row = (await tx.execute(text(query))).fetchone()
            elif site.kind.endswith("asyncpg"):
                row = await tx.fetchrow(query)
            else:
                row = await (await tx.execute(query)).fetchone()
            await asyncio.sleep(0)  # noqa: TID251 - others have every chance to come between
            statement = f"UPDATE words SET word = '{int(row[0]) + 1}'"  # noqa: S608 - a number
            await tx.execute(text(statement) if site.kind.endswith("AsyncSession") else statement)

    async with site.open() as jobs:
        site.outside("INSERT INTO words VALUES ('0')")
        many = await jobs.enqueue_many(increment.call() for _ in range(30))
        for job in many:
            await job.result(timeout=30)
        assert site.words() == ["30"]


# -- cut short ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_attempt_that_is_stopped_inside_writes_nothing_and_lets_others_write(
    site: Site, how: str
) -> None:
    gate = Gate()

    @site.tasks.task(max_attempts=1, timeout=1 if how == "timeout" else None)
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "a")
            await gate.enter()

    @site.tasks.task
    async def nothing() -> None: ...

    async with site.open() as jobs:
        job = await work.enqueue()
        await gate.arrival()
        if how == "cancel":
            stopping = supervisor_of(jobs)
            for attempt in list(stopping.attempts.values()):
                attempt.stop("cancel")
        await (await nothing.enqueue()).result(timeout=15)
        async with asyncio.timeout(15):
            while (await jobs.get(job.id)).state == "running":  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # noqa: TID251 - a cancel is not told
        assert (await jobs.get(job.id)).state == ("cancelled" if how == "cancel" else "dead")
        assert site.words() == []


async def test_transaction_that_is_cancelled_while_it_begins_lets_others_write(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    @site.tasks.task
    async def nothing() -> None: ...

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        async def enter() -> None:
            async with job.transaction() as tx:
                await site.add(tx, "never")

        entering = asyncio.create_task(enter())
        await gate.arrival()
        entering.cancel()
        gate.open()
        await asyncio.wait([entering])
        assert entering.cancelled()
        # Still inside the attempt: its session is closed only afterwards.
        await (await nothing.enqueue()).result(timeout=15)

    async with site.open() as jobs:
        store = store_of(jobs)
        session_of = store.session

        def slow_session(source: object) -> Session:
            session = session_of(source)
            settle = session.settle

            async def settle_slowly(outcome: Outcome, *, now: int) -> bool:
                written = await settle(outcome, now=now)
                await gate.enter()
                return written

            monkeypatch.setattr(session, "settle", settle_slowly)
            return session

        monkeypatch.setattr(store, "session", slow_session)
        job = await ended(await work.enqueue())
        assert (job.state, [one.outcome for one in job.history]) == ("succeeded", ["succeeded"])
        assert site.words() == []


async def test_lease_that_is_lost_leaves_no_transaction_behind(site: Site) -> None:
    @site.tasks.task
    async def nothing() -> None: ...

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        site.outside("UPDATE jobrunner_jobs SET lease = lease + 1 WHERE state = 'running'")
        with pytest.raises(LeaseLost):
            async with job.transaction() as tx:
                await site.add(tx, "never")
        await (await nothing.enqueue()).result(timeout=15)
        ran.set()

    ran = asyncio.Event()
    async with site.open():
        await work.enqueue()
        async with asyncio.timeout(15):
            await ran.wait()
        assert site.words() == []


async def test_B5_transaction_that_lasts_is_named_in_the_log(
    sqlite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    @sqlite_site.tasks.task
    async def slow_work(job: JobContext) -> None:
        async with job.transaction():
            await gate.enter()

    async with sqlite_site.open():
        job = await slow_work.enqueue()
        await gate.arrival()
        behind = asyncio.create_task(slow_work.options(delay=3600).enqueue())
        await soon(asyncio.create_task(until_logged(caplog, f"slow_work {job.id} has held")))
        gate.open()
        await behind
        await job.result(timeout=15)


async def test_B5_injected_session_that_keeps_others_waiting_is_named_in_the_log(
    sqlite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    session_dep = Annotated[Any, Depends(sqlite_site.get_session)]

    @sqlite_site.tasks.task
    async def slow_work(session: session_dep = Injected) -> None:
        await sqlite_site.add(session, "a")
        await gate.enter()

    @sqlite_site.tasks.task
    async def nothing() -> None: ...

    async with sqlite_site.open():
        job = await slow_work.enqueue()
        await gate.arrival()
        behind = asyncio.create_task(nothing.enqueue())
        await soon(asyncio.create_task(until_logged(caplog, f"slow_work {job.id}")))
        gate.open()
        await soon(behind)
        await job.result(timeout=15)
        assert sqlite_site.words() == ["a"]


# -- refused ----------------------------------------------------------------------------------------------------


async def test_transaction_of_a_runner_without_a_session_says_what_to_write(
    jobs: JobRunner,
) -> None:
    @jobs.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        async with job.transaction():
            pass

    async with jobs.running():
        job = await ended(await work.enqueue())
        letter = await jobs.dead_letters.get(job.id)
        assert letter.error_type == "ConfigurationError"
        assert "session=get_session" in (letter.error or "")


async def test_second_transaction_of_an_attempt_is_refused(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> str:
        async with job.transaction() as tx:
            await site.add(tx, "a")
        try:
            async with job.transaction():
                pass
        except LeaseLost as error:
            return type(error).__name__
        return "nothing"

    async with site.open():
        assert await (await work.enqueue()).result(timeout=15) == "LeaseLost"


async def test_with_in_an_async_task_is_refused(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        with job.transaction():
            pass

    async with site.open() as jobs:
        job = await ended(await work.enqueue())
        assert "async with" in ((await jobs.dead_letters.get(job.id)).error or "")


async def test_async_session_in_a_def_task_is_refused(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    def work(job: JobContext) -> None:
        with job.transaction():
            pass

    async with site.open() as jobs:
        job = await ended(await work.enqueue())
        assert "async def" in ((await jobs.dead_letters.get(job.id)).error or "")
