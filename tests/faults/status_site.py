"""The application whose users follow their jobs: served with uvicorn, working or not."""

import asyncio
import os

from fastapi import FastAPI

from jobrunner import Job, JobContext, JobRunner
from jobrunner.fastapi import Queue
from jobrunner.queue.shared_reads import SharedReads


def anybody() -> None:
    """Let every client pass."""


def create_app() -> FastAPI:
    """Return the application; the environment names its file, and whether it runs jobs."""
    if os.environ.get("SITE_POLLS") == "no":
        SharedReads.next_poll_s = lambda reads, id: 3600.0  # type: ignore[method-assign, assignment]
    jobs = JobRunner(os.environ["SITE_DATABASE"], grace=0, work=os.environ.get("SITE_WORK") != "no")

    @jobs.task(timeout=None)
    async def follow(job: JobContext, steps: int) -> str:
        for step in range(1, steps + 1):
            job.progress(step, steps)
            await asyncio.sleep(0.6)  # noqa: TID251 - longer than the time between two stored reports
        if not steps:
            await asyncio.Event().wait()
        return "done"

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.status_router(anybody, public=[follow]), prefix="/status")

    @app.post("/follow")
    async def start(steps: int, queue: Queue) -> Job[str]:
        return await queue.enqueue(follow, steps)

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app
