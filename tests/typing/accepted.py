"""Code of users that every type checker must accept; ``test_typing`` runs them on it."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_type

from alembic import context
from fastapi import Depends
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from tenacity import (
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
    wait_fixed,
    wait_random,
)

from jobrunner import (
    AuditEntry,
    Call,
    CancelCounts,
    Cron,
    DeadLetter,
    DeadLetterGroup,
    DeadLetterGroups,
    Every,
    Injected,
    Job,
    JobContext,
    JobQueue,
    JobRunner,
    Page,
    QueueInfo,
    ReplayCounts,
    Schedule,
    Schedules,
    Stats,
    SyncQueue,
    Task,
    TaskRouter,
)
from jobrunner.fastapi import (
    Background,
    DurableBackgroundTasks,
    job_background,
    job_queue,
    sync_job_queue,
)
from jobrunner.sqlalchemy import attach, include_name
from jobrunner.tasks.task import AsyncTask, CtxAsyncTask, CtxSyncTask, SyncTask

tasks = TaskRouter(prefix="mail.", queue="mail", max_attempts=8, timeout=30, wait=wait_fixed(1))


@tasks.task
async def send(email: str, username: str = "you") -> int:
    return len(email + username)


@tasks.task
def write_log(user_id: int, *, detail: dict[str, Any] | None = None) -> None: ...


@tasks.task
async def send_with_job(job: JobContext, email: str) -> str:
    job.logger.info("sending", extra={"email": email})
    return f"{job.id} {job.attempt} {job.cancelled}"


@tasks.task
def train(job: JobContext, /, dataset: str) -> float:
    return 0.9 if not job.cancelled else 0.0


@tasks.task(
    name="digest",
    queue="slow",
    priority=3,
    max_attempts=5,
    wait=wait_exponential_jitter(max=300) + wait_random(0, 1),
    stop=stop_after_delay(timedelta(hours=1)) | stop_after_attempt(3),
    retry=retry_if_exception_type(OSError) & retry_if_not_exception_type(FileNotFoundError),
    timeout=None,
    expires=timedelta(days=1),
    retention=60,
    aliases=["digest_old"],
)
async def digest() -> list[str]:
    return []


@tasks.task(wait=lambda state: state.attempt_number * 2.0, stop=lambda state: False)
async def digest_with_job(job: JobContext) -> list[str]:
    return [job.id]


@tasks.task(timeout=60)
def count(n: int) -> int:
    return n


@tasks.task(timeout=60)
def count_with_job(job: JobContext, n: int) -> int:
    return n + job.attempt


async def enqueue() -> None:
    assert_type(await send.enqueue("a@b.c"), Job[int])
    assert_type(await send.enqueue("a@b.c", username="ada"), Job[int])
    assert_type(await write_log.enqueue(1, detail={"a": 1}), Job[None])
    assert_type(await send_with_job.enqueue("a@b.c"), Job[str])
    assert_type(await train.enqueue("d"), Job[float])
    assert_type(await digest.enqueue(), Job[list[str]])
    assert_type(await digest_with_job.enqueue(), Job[list[str]])
    assert_type(await count.enqueue(1), Job[int])
    assert_type(await count_with_job.enqueue(n=1), Job[int])
    assert_type(await (await send.enqueue("a@b.c")).result(timeout=5), int)


async def options() -> None:
    later = send.options(delay=timedelta(hours=1), key="k", tag="t", priority=1, queue="slow")
    assert_type(await later.enqueue("a"), Job[int])
    assert_type(await send.options(run_at=datetime.now(UTC), expires=3.5).enqueue("a"), Job[int])  # noqa: TID251
    assert_type(
        await send.options(expires=None, timeout=None, max_attempts=1).enqueue("a"), Job[int]
    )
    assert_type(await later("a"), int)


async def call_directly(job: JobContext) -> None:
    assert_type(await send("a"), int)
    assert_type(await send_with_job(job, "a"), str)
    assert_type(train(job, "d"), float)
    assert_type(count(1), int)
    assert_type(count_with_job(job, n=1), int)


def calls() -> None:
    assert_type(send.call("a"), Call[int])
    assert_type([send.call(email) for email in ("a", "b")], list[Call[int]])
    anything: list[Call[object]] = [send.call("a"), digest.call()]
    assert anything


def kinds() -> None:
    assert_type(send.name, str)
    one: AsyncTask[..., int] = send
    two: SyncTask[..., None] = write_log
    three: CtxAsyncTask[[str], str] = send_with_job
    four: CtxSyncTask[..., float] = train
    every: list[Task[..., Any]] = [one, two, three, four]
    assert every


def many_files() -> None:
    jobs = TaskRouter()
    jobs.include(tasks, TaskRouter())
    assert_type(dict(jobs.tasks), dict[str, Task[..., Any]])


# -- schedules --------------------------------------------------------------------------------------------


@tasks.cron("0 8 * * *", timezone="Europe/Berlin", misfire="all", cap=3)
@tasks.task
async def nightly(job: JobContext, day: int = 0) -> str:
    return str(job.scheduled_for)


@tasks.every(minutes=5, jitter=timedelta(seconds=10), overlap="skip")
async def sweep() -> int:
    return 1


@tasks.every(60, args=["ada"])
def greet(name: str) -> None: ...


assert_type(nightly.call(day=3), Call[str])
assert_type(sweep, AsyncTask[[], int])
assert_type(tasks.cron("@daily", id="sweep.daily")(sweep), AsyncTask[[], int])
assert_type(
    Cron("0 8 * * *", "Europe/Berlin").next_after(datetime(2026, 1, 1, tzinfo=UTC)), datetime
)
assert_type(Every(timedelta(minutes=5)).describe(), str)


async def steer(schedules: Schedules) -> None:
    made = await schedules.upsert("a", sweep.options(priority=3), cron="@daily", args=[])
    assert_type(made, Schedule)
    assert_type(await schedules.run_now("a"), Job[Any])


async def look_up(runner: JobRunner) -> None:
    page = await runner.audit.list(actor="ada", action="dead_letters.replay_all", limit=10)
    assert_type(page, Page[AuditEntry])
    assert_type(runner.sync.audit.list(), Page[AuditEntry])
    JobRunner(redact={"password"}).router(read=lambda: None, actor=lambda: "ada")


# -- dependencies -----------------------------------------------------------------------------------------


class Ledger: ...


async def get_ledger() -> AsyncIterator[Ledger]:
    yield Ledger()


LedgerDep = Annotated[Ledger, Depends(get_ledger)]


@tasks.task
async def record(user_id: int, action: str = "none", ledger: LedgerDep = Injected) -> int:
    return user_id


@tasks.task
def record_by_default(user_id: int, ledger: Ledger = Depends(get_ledger)) -> None: ...


@tasks.task
async def record_with_job(job: JobContext, user_id: int, *, ledger: LedgerDep = Injected) -> str:
    return job.id


@tasks.cron("@daily")
async def report(ledger: LedgerDep = Injected, untyped: Any = Depends(get_ledger)) -> None: ...


async def enqueue_without_what_is_injected(job: JobContext) -> None:
    assert_type(await record.enqueue(1), Job[int])
    assert_type(await record.enqueue(1, action="delete"), Job[int])
    assert_type(await record_by_default.enqueue(1), Job[None])
    assert_type(await record_with_job.enqueue(user_id=1), Job[str])
    assert_type(report.call(), Call[None])
    assert_type(await record(1, ledger=Ledger()), int)
    assert_type(record_by_default(1, Ledger()), None)
    assert_type(await record_with_job(job, 1, ledger=Ledger()), str)


# -- in a transaction of the application's own -----------------------------------------------------------


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession() as session:
        yield session


SessionWriter = Annotated[JobQueue, Depends(job_queue(get_session))]
JoinedSync = Annotated[SyncQueue, Depends(sync_job_queue(Depends(get_session, scope="function")))]


def sessions(one: AsyncEngine, two: Engine) -> tuple[object, object]:
    attach(one)
    attach(two, durability="normal")
    context.configure(include_name=include_name)
    jobs = JobRunner(session=get_session)
    JobRunner(session=Depends(get_session, scope="function"))
    JobRunner("shop.db", queues={"mail": 5}, grace=timedelta(seconds=5), durability="normal")

    async def route(queue: Annotated[JobQueue, Depends(jobs.queue)]) -> None:
        assert_type(await queue.enqueue(send, "a"), Job[int])

    def def_route(queue: Annotated[SyncQueue, Depends(jobs.sync_queue)]) -> None:
        assert_type(queue.enqueue(send, "a"), Job[int])

    return route, def_route


async def join(queue: SessionWriter, session: AsyncSession, conn: sqlite3.Connection) -> None:
    assert_type(await queue.enqueue(send, "a"), Job[int])
    assert_type(await send.options(session=session).enqueue("a"), Job[int])
    assert_type(await queue.enqueue(send.options(session=conn, delay=5), "a"), Job[int])


def join_in_a_thread(queue: JoinedSync) -> None:
    assert_type(queue.enqueue(send, "a"), Job[int])


class Desk:
    def __init__(self, background: Background) -> None:
        self.background = background


def add(
    desk: Desk,
    background: Background,
    joined: Annotated[DurableBackgroundTasks, Depends(job_background(get_session))],
    jobs: JobRunner,
) -> object:
    assert_type(background, DurableBackgroundTasks)
    background.add_task(send, "a")
    background.add_task(send, email="a", username="b")
    background.add_task(send.options(delay=5, tag="late"), "a")
    desk.background.add_task(write_log, 3, detail={"a": 1})
    joined.add_task(send_with_job, "a")

    async def route(own: Annotated[DurableBackgroundTasks, Depends(jobs.background)]) -> None:
        own.add_task(send, "a")

    return route


def job_context() -> JobContext:
    raise NotImplementedError


async def look(jobs: JobRunner, job: Job[int]) -> None:
    assert_type(job.created, bool | None)
    assert_type((await jobs.get("id", send)).args, dict[str, Any])
    jobs.router(read=lambda: None, arguments=lambda: None)

    @jobs.around_attempt
    async def as_generator(job: JobContext) -> AsyncIterator[None]:
        yield

    @jobs.around_attempt
    @asynccontextmanager
    async def as_manager(job: JobContext) -> AsyncIterator[int]:
        yield 1

    assert_type(as_generator(job_context()), AsyncIterator[None])


def block(jobs: JobRunner, queue: SyncQueue, job: Job[int]) -> None:
    for sync in (jobs.sync, queue):
        assert_type(sync.enqueue(send, "a@b.c"), Job[int])
        assert_type(sync.result(job, timeout=5), int)
        assert_type(sync.cancel(job.id), Literal["cancelled", "requested"] | None)
        assert_type(sync.list(task=send, state="dead", limit=5), Page[Job[Any]])
        assert_type(sync.queues.list(), Page[QueueInfo])
        assert_type(sync.dead_letters.list(reason="lost", cursor=None), Page[DeadLetter])
        assert_type(sync.dead_letters.replay_all(tag="x"), ReplayCounts)
        assert_type(sync.dead_letters.groups(), DeadLetterGroups)
        assert_type(sync.cancel_all(tag="x", state="queued"), CancelCounts)
        assert_type(sync.reschedule("id", 60), Job[Any])
        assert_type(sync.schedules.upsert("a", send, every=60, overlap="skip"), Schedule)
        assert_type(sync.schedules.list(), Page[Schedule])


async def pages(jobs: JobRunner, queue: JobQueue) -> None:
    assert_type(await jobs.list(task="send", limit=5), Page[Job[Any]])
    assert_type(await queue.dead_letters.list(queue="mail", group="0f"), Page[DeadLetter])
    assert_type((await queue.dead_letters.groups()).items, list[DeadLetterGroup])
    assert_type((await queue.queues.list()).items, list[QueueInfo])
    stats = await queue.stats(per="hour", by="queue", since=datetime(2026, 1, 1, tzinfo=UTC))
    assert_type(stats, Stats)
    assert_type(stats.total.wait_p95, timedelta | None)
    assert_type(await queue.cancel("x"), Literal["cancelled", "requested"] | None)
