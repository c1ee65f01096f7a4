"""Commits that are written as SQL, and statements in autocommit mode, are crash points too."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from sqlite3 import connect
from typing import Any, Final

import aiosqlite
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from jobrunner import JobContext, JobRunner, TaskRouter
from jobrunner.testing import JobTester, UnseenCommit
from tests.testing.booking import BOOK, CLAIM, COMMIT, END, Shop, opened

tasks = TaskRouter()

REPLACE = "REPLACE INTO steps VALUES (:job, :step) RETURNING step"

AUTOCOMMIT: Final[dict[str, Any]] = {"isolation_level": None}
WAYS: Final[dict[str, tuple[dict[str, Any], list[str]]]] = {
    "commit": ({}, [BOOK, "COMMIT"]),
    "autocommit": (AUTOCOMMIT, [BOOK]),
    "savepoint": (AUTOCOMMIT, ["SAVEPOINT one", BOOK, "RELEASE one"]),
    "returning": (AUTOCOMMIT, [REPLACE]),
}
"""Options of a connection, and the statements that book a step."""


def book(conn: sqlite3.Connection, way: str, id: str, step: int) -> None:
    """Book a step on a connection."""
    for sql in WAYS[way][1]:
        conn.execute(sql, {"job": id, "step": step} if ":job" in sql else {})


@tasks.task
def in_a_thread(job: JobContext, way: str) -> None:
    """Commit twice on a connection of a function whose name this module has imported."""
    (shop,) = opened
    with contextlib.closing(connect(shop.path, **WAYS[way][0])) as conn:
        book(conn, way, job.id, 1)
        shop.between.append(job.id)
        book(conn, way, job.id, 2)


@tasks.task
async def by_aiosqlite(job: JobContext, way: str) -> None:
    """Commit twice on an aiosqlite connection."""
    (shop,) = opened
    options, statements = WAYS[way]
    async with aiosqlite.connect(shop.path, **options) as conn:
        for step in (1, 2):
            for sql in statements:
                await conn.execute(sql, {"job": job.id, "step": step} if ":job" in sql else {})
            if step == 1:
                shop.between.append(job.id)


@tasks.task
async def by_engine(job: JobContext) -> None:
    """Commit twice on connections of an engine in autocommit mode."""
    (shop,) = opened
    engine = shop.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as conn:
        await conn.execute(text(BOOK), {"job": job.id, "step": 1})
        shop.between.append(job.id)
        await conn.execute(text(BOOK), {"job": job.id, "step": 2})


@tasks.task
def by_blocking_engine(job: JobContext) -> None:
    """Commit twice in an engine's own SQL, in a thread."""
    (shop,) = opened
    with shop.blocking.connect() as conn:
        conn.execute(text(BOOK), {"job": job.id, "step": 1})
        conn.exec_driver_sql("COMMIT")
        shop.between.append(job.id)
        conn.execute(text(BOOK), {"job": job.id, "step": 2})
        conn.exec_driver_sql("COMMIT")


@tasks.task
def by_script(job: JobContext) -> None:
    """Commit before a script, and in it."""
    (shop,) = opened
    with contextlib.closing(connect(shop.path)) as conn:
        conn.execute(BOOK, {"job": job.id, "step": 1})
        conn.executescript("SELECT 1")
        shop.between.append(job.id)
        conn.executescript(f"INSERT OR IGNORE INTO steps VALUES ('{job.id}', 2)")  # noqa: S608


@tasks.task
def by_many(job: JobContext) -> None:
    """Commit a table, and many rows at once."""
    (shop,) = opened
    with contextlib.closing(connect(shop.path)) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS other (x)")
        shop.between.append(job.id)
        conn.isolation_level = None
        rows = [{"job": job.id, "step": step} for step in (1, 2)]
        conn.executemany(BOOK, iter(rows))


@tasks.task
def without_autocommit(job: JobContext) -> None:
    """Commit twice on a connection that is always in a transaction."""
    (shop,) = opened
    options: dict[str, Any] = {"autocommit": False}
    with contextlib.closing(connect(shop.path, **options)) as conn:
        for step in (1, 2):
            conn.execute(BOOK, {"job": job.id, "step": step})
            conn.commit()
            if step == 1:
                shop.between.append(job.id)


SINCE_312 = pytest.mark.skipif(
    not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"), reason="sqlite3 has it since Python 3.12"
)

CASES = [
    pytest.param(without_autocommit, [], id="without_autocommit", marks=SINCE_312),
    *(pytest.param(in_a_thread, [way], id=f"thread, {way}") for way in WAYS),
    *(pytest.param(by_aiosqlite, [way], id=f"aiosqlite, {way}") for way in ("commit", "returning")),
    *(
        pytest.param(task, [], id=task.name)
        for task in (by_engine, by_blocking_engine, by_script, by_many)
    ),
]


@pytest.mark.parametrize(("task", "args"), CASES)
async def test_commits_of_statements_are_points_and_an_effect_between_them_is_found(
    tester: JobTester, shop: Shop, task: Any, args: list[str]
) -> None:
    found, effects = [], []
    async for crash in tester.crash_points(task, *args, setup=shop.forget, timeout=10):
        found.append(crash.at)
        effects.append(len(shop.between))
        assert shop.booked() == [1, 2], crash
        assert [run.state for run in tester.runs(task)] == ["succeeded"]
    assert found == CLAIM + COMMIT + COMMIT + END
    assert effects == [1, 1, 1, 1, 2, 2, 2, 1]


# -- connections that are open before the attempt -----------------------------------------------------


def lasting(path: Path) -> sqlite3.Connection:
    """Open a connection that any thread may use."""
    return sqlite3.connect(path, check_same_thread=False)


def make_bank(path: Path) -> tuple[FastAPI, Any]:
    """Return an application whose lifespan opens the connection of its task, and the task."""
    jobs = JobRunner(path)
    held: list[sqlite3.Connection] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with contextlib.closing(lasting(path)) as conn:
            held[:] = [conn]
            async with jobs.running(app):
                conn.execute("CREATE TABLE IF NOT EXISTS charges (job UNIQUE)")
                yield

    @jobs.task
    def charge(job: JobContext) -> None:
        with held[0] as conn:
            conn.execute("INSERT OR IGNORE INTO charges VALUES (?)", (job.id,))

    return FastAPI(lifespan=lifespan), charge


async def test_connection_that_the_lifespan_opens_is_seen(tmp_path: Path) -> None:
    app, charge = make_bank(tmp_path / "shop.db")
    async with JobTester(app, store=tmp_path / "shop.db") as t:
        assert [crash.at async for crash in t.crash_points(charge)] == CLAIM + COMMIT + END


@pytest.fixture
def early(jobs: JobRunner, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection that is open before the crash points."""
    with contextlib.closing(lasting(tmp_path / "shop.db")) as conn:
        yield conn


async def test_commit_that_nobody_sees_is_a_warning(
    jobs: JobRunner, early: sqlite3.Connection, tmp_path: Path
) -> None:
    @jobs.task
    def charge(job: JobContext) -> None:
        with early:
            early.execute("INSERT OR IGNORE INTO charges VALUES (?)", (job.id,))

    async with JobTester(jobs, store=tmp_path / "shop.db") as t:
        early.execute("CREATE TABLE charges (job UNIQUE)")
        with pytest.warns(UnseenCommit, match="while charge ran, somebody committed"):
            assert [crash.at async for crash in t.crash_points(charge)] == CLAIM + END


async def test_name_in_a_closure_is_unseen_too(jobs: JobRunner, tmp_path: Path) -> None:
    open_it = partial(connect, tmp_path / "shop.db")

    @jobs.task
    def charge(job: JobContext) -> None:
        with contextlib.closing(open_it()) as conn, conn:
            conn.execute("INSERT OR IGNORE INTO charges VALUES (?)", (job.id,))

    async with JobTester(jobs, store=tmp_path / "shop.db") as t:
        with contextlib.closing(open_it()) as conn:
            conn.execute("CREATE TABLE charges (job UNIQUE)")
        with pytest.warns(UnseenCommit):
            assert [crash.at async for crash in t.crash_points(charge)] == CLAIM + END


async def test_names_are_given_back(jobs: JobRunner) -> None:
    before = (connect, sqlite3.connect, aiosqlite.Connection._execute)

    @jobs.task
    async def work() -> None: ...

    async with JobTester(jobs) as t:
        async for _ in t.crash_points(work):
            assert connect is before[0]
    assert (connect, sqlite3.connect, aiosqlite.Connection._execute) == before
