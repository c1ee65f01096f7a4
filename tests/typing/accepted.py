"""Code of users that every type checker must accept; ``test_typing`` runs them on it."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_type

from alembic import context
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel
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
    Batch,
    Batches,
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
    Progress,
    QueueInfo,
    ReplayCounts,
    RescheduleCounts,
    Schedule,
    Schedules,
    Stats,
    SyncQueue,
    Task,
    TaskRouter,
    WaitTimedOut,
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
from jobrunner.testing import (
    CrashPoint,
    FakeContext,
    JobTester,
    Run,
    SyncJobTester,
    fake_context,
)

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
    assert_type(jobs.status_router(lambda: None, public=[send, send_with_job]), APIRouter)
    assert_type(await jobs.respond(job, within=timedelta(seconds=1)), Response)
    assert_type(job.progress, Progress | None)
    assert_type(job_context().progress(0.4, "rendering"), None)
    job_context().progress(1240, 5000)
    job_context().progress(1, 3, "rows")
    job_context().progress(1, total=3, message="rows")

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
        assert_type(sync.reschedule_all(0, task=send, state="retrying"), RescheduleCounts)
        assert_type(sync.schedules.upsert("a", send, every=60, overlap="skip"), Schedule)
        assert_type(sync.schedules.list(), Page[Schedule])


async def pages(jobs: JobRunner, queue: JobQueue) -> None:
    assert_type(await jobs.list(task="send", limit=5), Page[Job[Any]])
    assert_type(await jobs.list(state="retrying"), Page[Job[Any]])
    assert_type(await queue.dead_letters.list(queue="mail", group="0f"), Page[DeadLetter])
    assert_type((await queue.dead_letters.groups()).items, list[DeadLetterGroup])
    assert_type((await queue.queues.list()).items, list[QueueInfo])
    stats = await queue.stats(per="hour", by="queue", since=datetime(2026, 1, 1, tzinfo=UTC))
    assert_type(stats, Stats)
    assert_type(stats.total.wait_p95, timedelta | None)
    assert_type(await queue.cancel("x"), Literal["cancelled", "requested"] | None)


async def in_tests(t: JobTester, sync: SyncJobTester) -> None:
    t.assert_enqueued(send, "a", queue="mail", times=1)
    t.assert_enqueued(send, times=1)
    t.assert_enqueued(send.options(delay=5), "a", state="scheduled")
    t.assert_nothing_enqueued()
    t.assert_nothing_enqueued(send)
    t.assert_nothing_enqueued(send, "a")
    assert_type(await t.perform(send, "a"), Run[int])
    assert_type(await t.perform(send, "a", until="dead", timeout=5), Run[int])
    assert_type((await t.perform(send, email="a")).result, int | None)
    assert_type(await t.replay(await t.perform(send, "a")), Run[int])
    assert_type(await t.replay(await t.perform(send, "a"), args={"email": "b"}), Run[int])
    assert_type(await t.signal(await t.perform(send, "a"), "go", 7), Run[int])
    assert_type(await t.signal("id", "go"), Run[Any])
    assert_type(sync.signal(sync.perform(send, "a"), "go"), Run[int])
    assert_type(await t.replay(t.dead_letters[0]), Run[Any])
    assert_type(t.runs(send)[0].result, int | None)
    assert_type(t.list()[0], Job[Any])
    assert_type(t.list(send, state="dead")[0], Job[int])
    assert_type(t.schedules.next(), Schedule | None)
    assert_type(sync.perform(send, "a"), Run[int])
    async for crash in t.crash_points(send, "a", setup=sync.run_until_idle):
        assert_type(crash, CrashPoint)
    for crash in sync.crash_points(send, "a", timeout=5):
        assert_type(crash, CrashPoint)
    job = fake_context(attempt=3)
    assert_type(job, FakeContext)
    job.run_writes(sqlite3.connect(":memory:"))


# -- steps, waits and children ---------------------------------------------------------------------------


class Receipt(BaseModel):
    id: str


class Approval(BaseModel):
    by: str
    ok: bool = True


async def charge_card(order: int, *, key: str = "") -> Receipt:
    return Receipt(id=key)


def book(order: int, *, days: int) -> str:
    return "booked"


async def users_after(cursor: int | None) -> AsyncIterator[tuple[int, str]]:
    yield 1, "ada"


def rows_after(cursor: str | None) -> Iterator[tuple[str, bytes]]:
    yield "a", b""


@tasks.task
async def order(job: JobContext, order_id: int) -> str:
    receipt = await job.step("charge", charge_card, order_id, key=f"{job.id}/charge")
    assert_type(receipt, Receipt)
    assert_type(await job.step("book", book, order_id, days=3), str)
    assert_type(await job.step("number", lambda: 1), int)
    await job.sleep(timedelta(days=3))
    await job.sleep(60, name="again")
    try:
        approval = await job.wait_for("approved", Approval, timeout=timedelta(days=2))
    except WaitTimedOut:
        return "not approved in time"
    assert_type(approval, Approval)
    assert_type(await job.wait_for("number", int), int)
    await job.wait_for("paid")
    async for user in job.iterate("users", users_after, every=500, seconds=2):
        assert_type(user, str)
    async with job.transaction(step="reserve") as tx:
        if tx is not None:
            tx.add(1)
    return receipt.id


@tasks.task(timeout=5)
def order_in_thread(job: JobContext, order_id: int) -> str:
    assert_type(job.sync.step("book", book, order_id, days=3), str)
    job.sync.sleep(timedelta(days=3))
    assert_type(job.sync.wait_for("approved", Approval, timeout=5), Approval)
    for row in job.sync.iterate("rows", rows_after):
        assert_type(row, bytes)
    return job.id


# -- batches ----------------------------------------------------------------------------------------------


class Leaf(BaseModel):
    n: int


class Paid(BaseModel):
    id: str


@tasks.task
async def resize(n: int) -> Leaf:
    return Leaf(n=n)


@tasks.task
async def bind(leaves: list[Leaf]) -> str:
    return str(len(leaves))


@tasks.task
async def print_book(job: JobContext, doc: int) -> None:
    async for leaf in job.batch.results(resize):
        assert_type(leaf, Leaf)
    async for member in job.batch.members(state="dead"):
        assert_type(member, Job[Any])
    assert_type(await job.batch.get(), Batch[Any])
    job.batch.add(resize.call(1), bind.call([]))


@tasks.task
def count_leaves(job: JobContext) -> int:
    return sum(leaf.n for leaf in job.batch.results(resize))


@tasks.task
async def pay(order: int) -> Paid:
    return Paid(id=str(order))


@tasks.task
async def deliver(receipt: Paid, express: bool = False) -> None: ...


async def batches(queue: JobQueue, jobs: JobRunner, session: AsyncSession) -> None:
    book = await queue.enqueue_batch([resize.call(n) for n in range(3)], then=print_book.call(7))
    assert_type(book, Batch[Leaf])
    assert_type(await book.results(timeout=5), list[Leaf])
    assert_type(book.jobs, tuple[Job[Leaf], ...])
    assert_type(await (await book.wait(timedelta(seconds=5))).retry(), ReplayCounts)
    assert_type(await book.cancel(), bool)
    assert_type(await book.add([bind.call([])]), list[Job[str]])
    paid = pay.call(7)
    assert_type(paid.result, Paid)
    shipped = deliver.call(paid.result, express=True)
    assert_type(shipped.after(paid, end="any"), Call[None])
    await jobs.enqueue_batch([paid, shipped], at_end=count_leaves.call(), name="order")
    leaves = [resize.call(n) for n in range(3)]
    bound = bind.call([leaf.result for leaf in leaves])
    await jobs.enqueue_batch([*leaves, bound, send.call("a").after(bound)])
    await queue.enqueue_batch([resize.options(session=session).call(1)])
    assert_type(jobs.batches, Batches)
    assert_type(await jobs.batches.list(state="failed", name="x"), Page[Batch[Any]])
    assert_type(await jobs.batches.get(book.id), Batch[Any])


def batches_in_a_thread(jobs: JobRunner) -> None:
    batch = jobs.sync.enqueue_batch([resize.call(1)], otherwise=print_book.call(1))
    assert_type(batch, Batch[Leaf])
    assert_type(jobs.sync.run(batch.results()), list[Leaf])
    assert_type(jobs.sync.batches.get(batch.id), Batch[Any])
