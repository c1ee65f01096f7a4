"""Raw aiosqlite."""

from collections.abc import AsyncIterator
from typing import Annotated

import aiosqlite

from fastapi import Depends, FastAPI
from jobrunner import JobContext, JobQueue, JobRunner


async def get_db() -> AsyncIterator[aiosqlite.Connection]:
    async with aiosqlite.connect("shop.db") as db:
        yield db


Db = Annotated[aiosqlite.Connection, Depends(get_db)]
jobs = JobRunner("shop.db", session=get_db)
app = FastAPI(lifespan=jobs.lifespan)


@jobs.task
async def count(job: JobContext, n: int) -> int:
    async with job.transaction() as tx:
        await tx.execute("insert into t values (?)", (n,))
    return n


@app.post("/")
async def post(db: Db, queue: Annotated[JobQueue, Depends(jobs.queue)]) -> str:
    await db.execute("insert into t values (1)")
    job = await queue.enqueue(count, 2)
    await db.commit()
    return job.id
