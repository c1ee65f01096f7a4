"""A small application that the tests of the kit test: subscribers get mail at once, a day later, and every Monday."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated

import httpx2
from fastapi import Depends, FastAPI

from jobrunner import Bury, Injected, Job, JobContext, JobRunner, TaskRouter
from jobrunner.fastapi import Queue

tasks = TaskRouter()


class Mailer:
    """Fails: there is no mail server."""

    async def send(self, to: str, subject: str) -> None:
        """Send a mail."""
        raise ConnectionError(f"no mail server for {to}: {subject}")


class Outbox(Mailer):
    """Keeps what was sent, and fails as often as ``failures`` says."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[tuple[str, str]] = []
        self.failures = failures

    async def send(self, to: str, subject: str) -> None:
        """Keep a mail."""
        if self.failures:
            self.failures -= 1
            await super().send(to, subject)
        self.sent.append((to, subject))


async def get_mailer() -> Mailer:
    """Return the real mailer."""
    return Mailer()


MailerDep = Annotated[Mailer, Depends(get_mailer)]


@tasks.task(queue="mail", max_attempts=3)
async def send_welcome(email: str, mailer: MailerDep = Injected) -> str:
    """Send the first mail."""
    if email == "nobody":
        raise Bury("no such address")
    await mailer.send(email, "Welcome!")
    return f"sent to {email}"


@tasks.task
async def remind(job: JobContext, email: str, mailer: MailerDep = Injected) -> int:
    """Send the second mail."""
    await mailer.send(email, "Are you still there?")
    return job.attempt


ticks: list[datetime | None] = []


@tasks.cron("0 8 * * mon", timezone="Europe/Berlin")
async def weekly_digest(job: JobContext) -> None:
    """Note the tick."""
    ticks.append(job.scheduled_for)


@tasks.task
def count_letters(word: str, times: int = 1) -> int:
    """Return the length of a word, in a thread."""
    return len(word) * times


def make() -> tuple[FastAPI, JobRunner]:
    """Return a new application and its runner."""
    jobs = JobRunner("sqlite:///never.db", queues={"default": 5, "mail": 5})
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/subscribers", status_code=202)
    async def subscribe(email: str, queue: Queue) -> Job[str]:
        await queue.enqueue(remind.options(delay=timedelta(hours=24)), email)
        return await queue.enqueue(send_welcome, email)

    return app, jobs


def make_app() -> FastAPI:
    """Return a new application."""
    return make()[0]


async def client_of(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the application that runs no lifespan."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
