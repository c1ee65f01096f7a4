"""An application that the commands are tried on; its tasks say on standard output how far they are."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from jobrunner import Concurrency, Job, JobContext, JobRunner, TaskRouter
from jobrunner.fastapi import Queue, probes
from tests.support.processes import say

tasks = TaskRouter()


@tasks.task
async def greet(name: str) -> str:
    """Say a name."""
    say("greeted", name=name)
    return name


@tasks.task(max_attempts=1)
async def fail(number: int) -> None:
    """Fail for good."""
    raise RuntimeError(f"no to {number}")


@tasks.task(timeout=None)
async def hold(job: JobContext) -> None:
    """Say which attempt it is, and go on for ever."""
    say("held", attempt=job.attempt, pid=os.getpid(), id=job.id)
    await asyncio.Event().wait()


@tasks.task(timeout=None)
async def block() -> None:
    """Block one of the threads that asyncio keeps, for ever."""
    say("blocked")
    await asyncio.to_thread(threading.Event().wait)


@tasks.task(queue="mail")
async def send(number: int) -> None:
    """Say that a mail goes out."""
    say("sent", number=number)


@tasks.task(concurrency=[Concurrency(9), Concurrency(2, by="account_id")])
async def sync(account_id: int) -> None:
    """Stand for a task with limits."""


def create_runner(store: str | None = None) -> JobRunner:
    """Return a runner on a store, or the one that the environment names."""
    runner = JobRunner(
        store or os.environ["SERVICE_STORE"],
        queues={"default": 3, "mail": 2},
        grace=float(os.environ.get("SERVICE_GRACE", "1")),
    )
    runner.include(tasks)
    return runner


def create_bank() -> JobRunner:
    """Return a runner that hides what its one task is given."""
    bank = JobRunner(os.environ["SERVICE_STORE"], redact={"pin"})

    @bank.task(max_attempts=1)
    async def pay(password: str, card: dict[str, str]) -> None:
        raise RuntimeError("the card is declined")

    return bank


def create_app() -> FastAPI:
    """Return an application that enqueues, and runs its jobs."""
    app = FastAPI(lifespan=create_runner().lifespan)
    app.include_router(probes(), prefix="/health")

    @app.post("/hold")
    async def post_hold(queue: Queue) -> Job[None]:
        return await queue.enqueue(hold)

    @app.get("/stay")
    async def get_stay() -> StreamingResponse:
        async def answer() -> AsyncIterator[bytes]:
            yield b"and"
            await asyncio.Event().wait()

        return StreamingResponse(answer())

    @app.post("/greet/{name}")
    async def post_greet(name: str, queue: Queue) -> Job[str]:
        return await queue.enqueue(greet, name)

    return app


def create_web() -> FastAPI:
    """Return an application that only enqueues: its jobs are run by workers."""
    runner = create_runner()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with runner.running(app, work=False):
            yield

    return FastAPI(lifespan=lifespan)


def create_nothing() -> FastAPI:
    """Return an application without jobs."""
    return FastAPI()


def break_down() -> FastAPI:
    """Fail to make an application."""
    raise RuntimeError("the settings are wrong")
