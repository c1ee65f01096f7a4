"""Jobs run inside requests: before the answer, and each failure in the request whose job has failed."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Response
from fastapi.testclient import TestClient

from jobrunner import JobContext, JobQueue, JobRunner
from jobrunner.fastapi import Queue
from jobrunner.testing import JobTester, SyncJobTester
from jobrunner.testing.reading import runners_of
from tests.testing.site import Outbox, client_of, remind, send_welcome


async def test_inline_runs_due_jobs_before_the_answer_and_delayed_ones_later(
    app: FastAPI, client: httpx2.AsyncClient, outbox: Outbox
) -> None:
    async with JobTester(app) as t:
        with t.inline():
            await client.post("/subscribers?email=ada")
            assert outbox.sent == [("ada", "Welcome!")]
        await client.post("/subscribers?email=bob")
        assert len(outbox.sent) == 1
        t.assert_enqueued(remind, times=2, state="scheduled")


async def test_inline_raises_the_error_of_a_failed_attempt_in_the_test(
    app: FastAPI, client: httpx2.AsyncClient, outbox: Outbox
) -> None:
    outbox.failures = 1
    async with JobTester(app) as t:
        with t.inline(), pytest.raises(ConnectionError, match="no mail server for ada"):
            await client.post("/subscribers?email=ada")
        assert t.list(send_welcome)[0].state == "scheduled"  # the retry waits


def test_inline_works_with_a_test_client(app: FastAPI, outbox: Outbox) -> None:
    with SyncJobTester(app) as t, TestClient(app) as client, t.inline():
        client.post("/subscribers?email=ada")
        assert outbox.sent == [("ada", "Welcome!")]


def reports(*, fails: bool = False) -> FastAPI:
    """Return an application whose route answers by ``respond``; its task waits for another one."""
    jobs = JobRunner("sqlite:///never.db", queues={"default": 5, "pages": 5})
    app = FastAPI(lifespan=jobs.lifespan)

    @jobs.task(queue="pages")
    async def count_pages(month: str) -> int:
        return len(month)

    @jobs.task
    async def make_report(month: str) -> dict[str, int]:
        if fails:
            raise LookupError(f"no pages of {month}")
        return {month: await (await jobs.enqueue(count_pages, month)).result()}

    @app.post("/reports")
    async def start(month: str, delay: float = 0) -> Response:
        within = 0.2 if delay else 60
        await jobs.respond(await jobs.enqueue(make_report, month), within=60)
        job = await jobs.enqueue(make_report.options(delay=delay), month)
        return await jobs.respond(job, within=within)

    app.include_router(jobs.status_router(lambda: None, public=[make_report]), prefix="/status")
    return app


def test_inline_runs_the_job_that_respond_waits_for() -> None:
    app = reports()
    with SyncJobTester(app) as t, TestClient(app) as client:
        with t.inline():
            answer = client.post("/reports?month=may")
        assert answer.status_code == 200
        assert answer.json() == {"may": 3}
        with t.inline():
            later = client.post("/reports?month=may&delay=3600")
        assert later.status_code == 202
        t.travel(hours=1)
        assert client.get(later.headers["location"]).json()["result"] == {"may": 3}


def test_inline_raises_the_error_of_the_job_that_respond_waits_for() -> None:
    app = reports(fails=True)
    with SyncJobTester(app) as t, TestClient(app) as client:
        with t.inline(), pytest.raises(LookupError, match="no pages of may"):
            client.post("/reports?month=may")
        assert [job.state for job in t.list()] == ["scheduled"]  # the retry waits


async def test_inline_without_an_application_is_refused(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        with pytest.raises(Exception, match=r"write JobTester\(app\)"), t.inline():
            pass


class Ledger:
    """An application whose routes and tasks write through one sqlite3 session on the jobs' file."""

    def __init__(self) -> None:
        self.path: Path | None = None

        def get_session() -> Iterator[sqlite3.Connection]:
            assert self.path is not None
            with contextlib.closing(sqlite3.connect(self.path, check_same_thread=False)) as conn:
                yield conn
                conn.commit()

        def real_session() -> sqlite3.Connection:
            raise AssertionError("the override must be used")

        session = Depends(real_session, scope="function")
        self.jobs = jobs = JobRunner("sqlite:///never.db", session=session)
        self.app = app = FastAPI(lifespan=jobs.lifespan)
        app.dependency_overrides[real_session] = get_session
        queue = Annotated[JobQueue, Depends(jobs.queue)]

        @jobs.task
        async def book(job: JobContext, amount: int) -> None:
            def add(conn: sqlite3.Connection, value: int) -> None:
                conn.execute("INSERT INTO bookings VALUES (?)", (value,))

            job.write(add, amount)

        self.book = book

        @app.post("/book")
        async def route(
            amount: int, queue: queue, conn: Annotated[sqlite3.Connection, session]
        ) -> None:
            conn.execute("INSERT INTO orders VALUES (?)", (amount,))
            await queue.enqueue(book, amount)
            if amount < 0:
                raise ValueError("negative")

    def rows(self, table: str) -> list[int]:
        """Return the amounts in a table."""
        assert self.path is not None
        with contextlib.closing(sqlite3.connect(self.path)) as conn:
            return [value for (value,) in conn.execute(f"SELECT * FROM {table}")]  # noqa: S608

    def create(self, path: Path) -> None:
        """Make the tables."""
        self.path = path
        with contextlib.closing(sqlite3.connect(path)) as conn:
            conn.execute("CREATE TABLE orders (amount)")
            conn.execute("CREATE TABLE bookings (amount)")


async def test_inline_runs_after_the_commit_of_the_request_and_nothing_after_a_rollback() -> None:
    ledger = Ledger()
    async with JobTester(ledger.app) as t:
        ledger.create(t.store)
        async for client in client_of(ledger.app):
            with t.inline():
                await client.post("/book?amount=7")
                assert (ledger.rows("orders"), ledger.rows("bookings")) == ([7], [7])
                with pytest.raises(ValueError, match="negative"):
                    await client.post("/book?amount=-1")
        assert (ledger.rows("orders"), ledger.rows("bookings")) == ([7], [7])
        t.assert_enqueued(ledger.book, times=1)


async def test_override_of_the_session_holds_in_routes_and_tasks_on_the_testers_store() -> None:
    ledger = Ledger()
    async with JobTester(ledger.app) as t:
        ledger.create(t.store)
        async for client in client_of(ledger.app):
            await client.post("/book?amount=7")
        t.assert_enqueued(ledger.book, 7)
        assert ledger.rows("bookings") == []
        await t.run_until_idle()
        assert ledger.rows("bookings") == [7]


# -- requests at the same time -------------------------------------------------------------------------


class Pair:
    """An application of which two requests come at once; their jobs run only together."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.jobs = jobs = JobRunner("sqlite:///never.db")
        self.app = app = FastAPI(lifespan=jobs.lifespan)
        self.stored = asyncio.Event()
        both = asyncio.Barrier(2)

        @jobs.task
        async def work(name: str) -> str:
            async with both:
                pass
            if name == "bad":
                raise ValueError(name)
            self.done.append(name)
            return name

        @jobs.task
        async def after(name: str) -> None:
            await work.enqueue(name)

        @app.post("/job/{name}")
        async def by_job(name: str, queue: Queue) -> str:
            await queue.enqueue(work, name)
            return name

        @app.post("/after/{name}")
        async def by_its_parent(name: str, queue: Queue) -> str:
            await queue.enqueue(after, name)
            return name

        @app.post("/thread/{name}")
        def in_a_thread(name: str) -> str:
            jobs.sync.enqueue(work, name)
            return name

        @app.post("/respond/{name}")
        async def by_respond(name: str, queue: Queue) -> Response:
            return await jobs.respond(await queue.enqueue(work, name), within=60)

        @jobs.task
        async def alone(name: str) -> None:
            self.done.append(name)

        @app.post("/alone/{name}")
        async def of_one(name: str, queue: Queue) -> None:
            await queue.enqueue(alone, name)
            self.stored.set()

        app.include_router(jobs.status_router(lambda: None, public=[work]), prefix="/status")


@pytest.mark.parametrize("route", ["job", "after", "thread", "respond"])
@pytest.mark.parametrize("names", [("good", "bad"), ("bad", "good")])
async def test_inline_raises_an_error_in_the_request_whose_job_has_failed(
    route: str, names: tuple[str, str]
) -> None:
    pair = Pair()
    answers: list[Any] = []
    async with JobTester(pair.app) as t:
        async for client in client_of(pair.app):
            posts = [client.post(f"/{route}/{name}") for name in names]
            with t.inline():
                answers = await asyncio.gather(*posts, return_exceptions=True)
    found = dict(zip(names, answers, strict=True))
    assert found["good"].json() == "good"
    assert repr(found["bad"]) == "ValueError('bad')"
    assert pair.done == ["good"]


async def test_inline_runs_a_job_that_comes_when_the_run_of_another_request_ends() -> None:
    pair = Pair()
    second: list[asyncio.Task[httpx2.Response]] = []
    async with JobTester(pair.app) as t:
        runners = runners_of(t)
        inside = runners.run_due

        async def run_due(*args: Any, **kwargs: Any) -> None:
            await inside(*args, **kwargs)
            if not second:
                pair.stored.clear()
                second.append(asyncio.create_task(client.post("/alone/second")))
                await pair.stored.wait()

        vars(runners)["run_due"] = run_due
        async for client in client_of(pair.app):
            with t.inline():
                await client.post("/alone/first")
                await second[0]
                assert pair.done == ["first", "second"]


async def test_inline_runs_the_job_of_a_request_that_a_task_makes_after_it(jobs: JobRunner) -> None:
    done: list[str] = []
    app = FastAPI(lifespan=jobs.lifespan)

    @jobs.task
    async def inner() -> None:
        done.append("inner")
        raise ValueError("of inner")

    @jobs.task
    async def outer() -> None:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://test"
        ) as client:
            await client.post("/inner")
        done.append("outer")

    @app.post("/inner")
    async def route_of_inner(queue: Queue) -> None:
        await queue.enqueue(inner)

    @app.post("/outer")
    async def route_of_outer(queue: Queue) -> None:
        await queue.enqueue(outer)

    async with JobTester(app) as t:
        async for client in client_of(app):
            with t.inline(), pytest.raises(ValueError, match="of inner"):
                await client.post("/outer")
    assert sorted(done) == ["inner", "outer"]
