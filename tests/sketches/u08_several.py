"""Several runners, a worker only, a script, a thread, a twenty-minute job, fan-out."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from jobrunner import JobContext, JobRunner, TaskRouter
from jobrunner.fastapi import Queue

tasks = TaskRouter()


@tasks.task
async def hook(url: str, body: dict[str, str]) -> int:
    return 200


@tasks.task(timeout=timedelta(minutes=30), max_attempts=2)
async def train(job: JobContext, dataset: str) -> float:
    for _ in range(100):
        if job.cancelled:
            return 0.0
    return 0.9


@tasks.task(timeout=1800, max_attempts=1)
def train_in_thread(job: JobContext, dataset: str) -> float:
    return 0.0 if job.cancelled else 0.9


main, ml = JobRunner("sqlite:///main.db"), JobRunner("sqlite:///ml.db")
main.include(tasks)
ml.include(tasks)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(main.running(app))
        await stack.enter_async_context(ml.running())
        yield


async def fan_out(urls: list[str]) -> list[int]:
    many = await main.enqueue_many(hook.call(url, {}) for url in urls)
    return [await job.result() for job in many]


async def script() -> float:
    async with main.running():
        job = await main.enqueue(train, "data")
        return await job.result(timeout=timedelta(minutes=30))


def worker() -> None:
    main.run()


def from_thread() -> str:
    return main.sync.enqueue(hook, "u", {}).id


app = FastAPI(lifespan=lifespan)


@app.post("/train", status_code=202)
async def start(queue: Queue) -> str:
    return (await queue.enqueue(train, "data")).id


@app.delete("/train/{id}")
async def stop(id: str, queue: Queue) -> bool:
    return await queue.cancel(id)


@app.post("/elsewhere", status_code=202)
async def start_elsewhere() -> float:
    return await (await ml.enqueue(train_in_thread, "data")).result(timeout=15)
