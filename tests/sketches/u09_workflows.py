"""9. Workflows: a fan-out with a callback, a graph that hands results on, a job that waits for days."""

from datetime import timedelta

from fastapi import FastAPI
from pydantic import BaseModel

from jobrunner import Batch, JobContext, JobRunner, WaitTimedOut
from jobrunner.fastapi import Queue

jobs = JobRunner("sqlite:///shop.db")
app = FastAPI(lifespan=jobs.lifespan)


class Page(BaseModel):
    number: int
    file: str


class Approval(BaseModel):
    by: str
    ok: bool


@jobs.task
async def resize(number: int) -> Page:
    return Page(number=number, file=f"{number}.png")


@jobs.task
async def publish(job: JobContext, doc: int) -> list[str]:
    return [page.file async for page in job.batch.results(resize)]


@app.post("/documents/{doc}", status_code=202)
async def start(doc: int, pages: int, queue: Queue) -> Batch[Page]:
    return await queue.enqueue_batch(
        [resize.call(number) for number in range(pages)], then=publish.call(doc), name=f"doc {doc}"
    )


@jobs.task
async def merge(pages: list[Page]) -> str:
    return "+".join(page.file for page in pages)


@jobs.task
async def announce(book: str, express: bool = False) -> str:
    return f"{book} is there{'!' if express else ''}"


@app.post("/books", status_code=202)
async def make_book(queue: Queue) -> str:
    parts = [resize.call(number) for number in range(3)]
    merged = merge.call([part.result for part in parts])
    told = announce.call(merged.result, express=True)
    batch = await queue.enqueue_batch([*parts, merged, told])
    return batch.id


async def charge_card(order_id: int, *, key: str) -> str:
    charged.append(key)
    return f"receipt {order_id}"


charged: list[str] = []


@jobs.task
async def order(job: JobContext, order_id: int) -> str:
    receipt = await job.step("charge", charge_card, order_id, key=f"{job.id}/charge")
    try:
        approval = await job.wait_for("approved", Approval, timeout=timedelta(days=2))
    except WaitTimedOut:
        return "nobody looked"
    await job.sleep(timedelta(milliseconds=1))
    return f"{receipt}, {'approved' if approval.ok else 'refused'} by {approval.by}"


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: int, queue: Queue) -> str:
    return (await queue.enqueue(order, order_id)).id


@app.post("/orders/{job_id}/approve")
async def approve(job_id: str, approval: Approval, queue: Queue) -> bool:
    return await queue.signal(job_id, "approved", approval)
