"""Tasks write in the transaction of their job on PostgreSQL, where there are many writers."""

import asyncio
from typing import Annotated, Any

import psycopg
import pytest
from fastapi import Depends
from sqlalchemy import Column, MetaData, String, Table, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from jobrunner import Injected, InvalidWrite, JobContext, JobRunner
from tests.support.engine import Gate, soon
from tests.worker.site import PREFIX, Site, ended

words = Table("words", MetaData(), Column("word", String))


@pytest.fixture(params=["AsyncSession", "psycopg AsyncSession", "begun asyncpg", "psycopg"])
def site(postgres_url: str, request: pytest.FixtureRequest) -> Site:
    return Site(postgres_url, f"{PREFIX}{request.param}")


SERIAL = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


async def test_F18_serialization_failure_in_an_injected_session_runs_the_attempt_again(
    site: Site,
) -> None:
    gate = Gate()
    session_dep = Annotated[Any, Depends(site.get_session)]
    runs: list[int] = []

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext, session: session_dep = Injected) -> None:
        runs.append(job.attempt)
        await site.run(session, SERIAL)
        await site.run(session, "SELECT word FROM words")
        if len(runs) == 1:
            await gate.enter()
        await site.run(session, "UPDATE words SET word = word || 'b'")

    async with site.open():
        site.outside("INSERT INTO words VALUES ('')")
        job = await work.enqueue()
        await gate.arrival()
        site.outside("UPDATE words SET word = word || 'a'")
        gate.open()
        job = await soon(ended(job))
        assert [one.outcome for one in job.history] == ["snoozed", "succeeded"]
        assert runs == [1, 1]
        assert site.words() == ["ab"]


async def test_F18_attempt_that_meets_others_each_time_counts_at_last(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.worker.transactions.MOST_AGAIN", 2)
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task(max_attempts=1)
    async def work(session: session_dep = Injected) -> None:
        await site.run(session, SERIAL)
        await site.run(session, "SELECT word FROM words")
        site.outside("UPDATE words SET word = word || 'a'")
        await site.run(session, "UPDATE words SET word = word || 'b'")

    async with site.open():
        site.outside("INSERT INTO words VALUES ('')")
        job = await soon(ended(await work.enqueue()))
        assert (job.state, [one.outcome for one in job.history]) == (
            "dead",
            ["snoozed", "snoozed", "failed"],
        )
        assert site.words() == ["aaa"]


async def test_F17_deadlock_in_the_block_runs_the_attempt_again(site: Site) -> None:
    both = asyncio.Barrier(2)
    runs: list[str] = []

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext, first: str, second: str) -> None:
        runs.append(first)
        async with job.transaction() as tx:
            change = "UPDATE words SET word = word || '.' WHERE left(word, 1) = ?"
            await site.run(tx, change, first)
            if len(runs) < 3:
                await both.wait()
            await site.run(tx, change, second)

    async with site.open():
        site.outside("INSERT INTO words VALUES ('a'), ('b')")
        many = [await work.enqueue("a", "b"), await work.enqueue("b", "a")]
        states = [(await soon(ended(job))).state for job in many]
        assert states == ["succeeded", "succeeded"]
        assert len(runs) == 3
        assert site.words() == ["a..", "b.."]


async def test_F19_block_whose_transaction_was_aborted_fails_the_attempt(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "a")
            with pytest.raises(Exception, match="division by zero"):
                await site.run(tx, "SELECT 1 / 0")

    async with site.open() as jobs:
        job = await soon(ended(await work.enqueue()))
        letter = await jobs.dead_letters.get(job.id)
        assert letter.error_type == "InvalidSession"
        assert "aborted by an earlier error" in (letter.error or "")
        assert site.words() == []


# -- job.write ---------------------------------------------------------------------------------------


@pytest.fixture
def jobs(postgres_url: str) -> JobRunner:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS words")
        connection.execute("CREATE TABLE words (word text NOT NULL UNIQUE)")
    return JobRunner(postgres_url, queues={"default": 8})


def written(jobs: JobRunner) -> list[str]:
    with psycopg.connect(str(jobs.settings.store), autocommit=True) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY word")]


async def add(connection: Any, word: str, *, times: int = 1) -> None:
    await connection.execute("INSERT INTO words VALUES (repeat($1, $2))", word, times)


async def test_write_of_an_async_def_and_of_statements_is_there_with_the_success(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def work(job: JobContext) -> None:
        job.write(add, "a")
        job.write(add, "b", times=2)
        job.write(insert(words).values(word="c"))
        job.write(update(words).where(words.c.word.in_(["a", "c"])).values(word=words.c.word + "!"))

    async with jobs.running():
        assert (await soon(ended(await work.enqueue()))).state == "succeeded"
        assert written(jobs) == ["a!", "bb", "c!"]


async def test_write_of_a_plain_def_is_refused_with_the_line(jobs: JobRunner) -> None:
    def plain(connection: Any) -> None: ...

    @jobs.task
    async def work(job: JobContext) -> None:
        with pytest.raises(InvalidWrite, match="on PostgreSQL write an `async def`"):
            job.write(plain)
        with pytest.raises(InvalidWrite, match="the statement alone"):
            job.write(text("SELECT 1"), 7)  # type: ignore[call-overload]

    async with jobs.running():
        assert (await soon(ended(await work.enqueue()))).state == "succeeded"


@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK", "RELEASE SAVEPOINT jobrunner_1"])
async def test_F36_commit_in_job_write_fails_its_own_attempt_and_nobody_elses(
    jobs: JobRunner, verb: str
) -> None:
    async def end(connection: Any) -> None:
        await connection.execute(verb)

    @jobs.task(max_attempts=1)
    async def bad(job: JobContext) -> None:
        job.write(end)

    @jobs.task(max_attempts=1)
    async def good(job: JobContext, word: str) -> None:
        job.write(add, word)

    async with jobs.running():
        many = await jobs.enqueue_many(
            [bad.call() if n == 3 else good.call(f"{n}") for n in range(7)]
        )
        states = [(await soon(ended(job))).state for job in many]
        assert states == ["succeeded"] * 3 + ["dead"] + ["succeeded"] * 3
        letter = await jobs.dead_letters.get(many[3].id)
        assert letter.error_type == "InvalidWrite"
        assert written(jobs) == [f"{n}" for n in range(7) if n != 3]


async def test_error_of_a_write_is_the_error_of_the_attempt(jobs: JobRunner) -> None:
    async def sleep(connection: Any) -> None:
        await connection.execute("SELECT pg_sleep(20)")

    async def end_and_fail(connection: Any) -> None:
        await connection.execute("ROLLBACK")
        await connection.execute("BEGIN")
        await connection.execute("SELECT 1 / 0")

    async def fail(connection: Any) -> None:
        raise ConnectionError("of another server")

    writes: dict[str, Any] = {
        "twice": (add, "a"),
        "sleep": (sleep,),
        "end": (end_and_fail,),
        "fail": (fail,),
    }

    @jobs.task(max_attempts=1)
    async def work(job: JobContext, write: str) -> None:
        job.write(*writes[write])

    async with jobs.running():
        await soon(ended(await work.enqueue("twice")))
        found = {}
        for write in writes:
            job = await soon(ended(await work.enqueue(write)))
            found[write] = (await jobs.dead_letters.get(job.id)).error_type
        assert found == {
            "twice": "asyncpg.exceptions.UniqueViolationError",
            "sleep": "TimedOut",
            "end": "asyncpg.exceptions.DivisionByZeroError",
            "fail": "ConnectionError",
        }
        assert written(jobs) == ["a"]


# -- outside of tasks --------------------------------------------------------------


async def test_job_of_a_session_runs_after_its_commit(jobs: JobRunner) -> None:
    engine = create_async_engine(
        str(jobs.settings.store).replace("postgresql:", "postgresql+asyncpg:")
    )

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(), AsyncSession(engine) as session:
        await session.execute(insert(words).values(word="a"))
        job = await jobs.enqueue(work.options(session=session))
        await session.commit()
        assert (await soon(ended(job))).state == "succeeded"
        assert written(jobs) == ["a"]
    await engine.dispose()
