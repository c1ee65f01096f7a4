"""The application that the signal tests serve with uvicorn: jobs of every length, under load."""

import asyncio
import os
import threading
from pathlib import Path

from fastapi import FastAPI, Request
from jobrunner import Job, JobRunner, TaskRouter
from jobrunner.fastapi import Queue

GRACE_S = 0.5
SLOTS = 10


tasks = TaskRouter(timeout=None)


@tasks.task
async def short(number: int) -> int:
    await asyncio.sleep(0.02)  # noqa: TID251 - work takes its time
    return number


@tasks.task
async def long(number: int) -> None:
    await asyncio.Event().wait()


@tasks.task
async def stubborn() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@tasks.task
def stuck() -> None:
    threading.Event().wait()


@tasks.task
async def in_thread(pipe: str) -> None:
    """Read a pipe, to which nobody may write, in a thread of asyncio's."""
    await asyncio.to_thread(read_pipe, pipe)


def read_pipe(pipe: str) -> str:
    """Block until somebody writes to the pipe and closes it."""
    return Path(pipe).read_text(encoding="utf-8")


@tasks.task(timeout=0.1, max_attempts=1)
def timed_out() -> None:
    threading.Event().wait()


def create_app() -> FastAPI:
    """Make the app; the environment names its file."""
    grace_s = float(os.environ.get("SITE_GRACE", GRACE_S))
    jobs = JobRunner(os.environ["SITE_DATABASE"], queues={"default": SLOTS}, grace=grace_s)
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/jobs/{task}")
    async def enqueue(task: str, queue: Queue, number: int = 1) -> list[Job[object]]:
        spec = jobs.tasks[task]
        calls = [spec.call(n) if task in ("short", "long") else spec.call() for n in range(number)]
        return await queue.enqueue_many(calls)

    @app.post("/in_thread")
    async def enqueue_in_thread(pipe: str, queue: Queue) -> Job[None]:
        return await queue.enqueue(in_thread, pipe)

    @app.get("/running")
    async def running(queue: Queue) -> dict[str, int]:
        return {row.name: row.running for row in await queue.queues()}

    @app.get("/state/{id}")
    async def state(id: str, queue: Queue) -> str:
        return (await queue.get(id)).state

    @app.get("/hang")
    async def hang(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app
