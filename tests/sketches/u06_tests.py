"""6. A user's tests: an application with a session, and what its author writes to test it."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import httpx2
from fastapi import Depends, FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobrunner import Job, JobContext, JobQueue, JobRunner
from jobrunner.sqlalchemy import attach
from jobrunner.testing import JobTester, fake_context


class Base(DeclarativeBase): ...


class Charge(Base):
    __tablename__ = "charges"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Shop:
    """The application, as a factory makes it for one database."""

    def __init__(self, database: Path) -> None:
        self.outbox: list[str] = []
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
        attach(self.engine)
        self.session = async_sessionmaker(self.engine)

        async def get_session() -> AsyncIterator[AsyncSession]:
            async with self.session() as session, session.begin():
                yield session

        self.jobs = jobs = JobRunner(
            database,
            queues={"default": 20, "mail": 5},
            session=Depends(get_session, scope="function"),
        )
        self.app = app = FastAPI(lifespan=self.lifespan)
        queue = Annotated[JobQueue, Depends(jobs.queue)]

        @jobs.task(queue="mail", max_attempts=3)
        async def send_welcome(job: JobContext, email: str) -> None:
            if email == "bad" or job.attempt < 3:
                raise ConnectionError("the mail server is down")
            self.outbox.append(email)

        @jobs.task
        async def remind(email: str) -> None:
            self.outbox.append(f"reminder to {email}")

        @jobs.cron("0 8 * * mon", timezone="Europe/Berlin")
        async def weekly_digest() -> None: ...

        @jobs.task
        async def charge(job: JobContext, amount: int) -> None:
            async with job.transaction() as session:
                session.add(Charge(amount=amount))

        @jobs.task
        async def charge_twice(amount: int) -> None:
            async with self.session() as session, session.begin():
                session.add(Charge(amount=amount))  # committed before the job is

        @app.post("/subscribers")
        async def subscribe(email: str, queue: queue) -> Job[None]:
            return await queue.enqueue(send_welcome, email)

        self.send_welcome, self.remind, self.weekly_digest = send_welcome, remind, weekly_digest
        self.charge, self.charge_twice = charge, charge_twice

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with self.jobs.running(app):
            yield
        await self.engine.dispose()

    async def count(self) -> int:
        async with self.session() as session:
            return await session.scalar(select(func.count()).select_from(Charge)) or 0


async def test_the_shop(database: Path) -> None:
    shop = Shop(database)
    outbox, send_welcome, remind = shop.outbox, shop.send_welcome, shop.remind
    transport = httpx2.ASGITransport(shop.app)
    async with (
        JobTester(shop.app, store=database, strict=True) as t,
        httpx2.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        await client.post("/subscribers", params={"email": "a@x.de"})
        t.assert_enqueued(send_welcome, "a@x.de", queue="mail", times=1)
        t.assert_nothing_enqueued(remind)

        await remind.options(delay=timedelta(hours=24)).enqueue("a@x.de")
        await t.run_until_idle()
        assert outbox == []
        await t.travel(hours=24)
        assert outbox == ["a@x.de", "reminder to a@x.de"]  # the retries came first
        following = t.schedules.next(shop.weekly_digest)
        assert following is not None
        assert following.next_at is not None
        await t.travel_to(following.next_at)
        assert t.runs(shop.weekly_digest)[-1].scheduled_for == following.next_at

        run = await t.perform(send_welcome, "b@x.de")
        assert run.outcomes == ["failed", "failed", "succeeded"]
        assert run.waits[0] >= 1
        dead = await t.perform(send_welcome, "bad", until="dead")
        assert dead.reason == "exhausted"
        await t.replay(dead)

        async for crash in t.crash_points(shop.charge, 7):
            assert await shop.count() == 1, crash
        twice = [
            crash.at
            async for crash in t.crash_points(shop.charge_twice, 7)
            if await shop.count() != 2
        ]
        assert twice == [
            "after the commit of a transaction",
            "before the commit of the end of the attempt",
        ]


async def test_a_route_inline(database: Path) -> None:
    shop = Shop(database)
    transport = httpx2.ASGITransport(shop.app)
    async with JobTester(shop.app, store=database) as t:
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            with t.inline(), contextlib.suppress(ConnectionError):  # of the first attempt
                await client.post("/subscribers", params={"email": "a@x.de"})
        assert t.list(shop.send_welcome)[0].state == "scheduled"


async def test_a_task_alone(database: Path) -> None:
    shop = Shop(database)
    await shop.send_welcome(fake_context(attempt=3), "a@x.de")
    assert shop.outbox == ["a@x.de"]
    await shop.engine.dispose()
